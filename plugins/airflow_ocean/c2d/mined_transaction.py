"""What a mined transaction of a step has cost and moved, read from its receipt, and kept in the journal."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from airflow_ocean.c2d.receipts import escrow_flow, ordered_tokens, provider_fees, token_flow


@dataclass(frozen=True)
class MinedTransaction:
    """A transaction that counts: mined and confirmed, or reverted, which costs its gas and nothing else.

    :param fee: what its gas cost, wei
    :param spent: ERC-20 token address → amount that left the wallet, less what came in; without what went into an escrow
    :param provider_fees: what of it were Provider fees
    :param orders: the datatokens that were ordered with
    :param deposited: token address → amount that went into an escrow, where it still is the wallet's, less what came back
    """

    step: str
    hash: str
    block: int
    gas_used: int
    fee: int
    spent: dict[str, int] = field(default_factory=dict)
    provider_fees: dict[str, int] = field(default_factory=dict)
    orders: tuple[str, ...] = ()
    deposited: dict[str, int] = field(default_factory=dict)
    reverted: bool = False

    @classmethod
    def of_receipt(cls, step: str, receipt: dict[str, Any], wallet: str) -> MinedTransaction:
        """Read out of a receipt what a step's transaction cost and moved.

        :param wallet: whose it is, in checksum form
        """
        gas_used = int(receipt["gasUsed"], 16)
        # Chains of the OP stack charge for the data on Ethereum besides, https://docs.optimism.io/op-stack/transactions/fees
        fee = gas_used * int(receipt.get("effectiveGasPrice") or "0x0", 16) + int(
            receipt.get("l1Fee") or "0x0", 16
        )
        logs = receipt["logs"]
        deposited = escrow_flow(logs, wallet)
        moved = token_flow(logs, wallet)
        spent = {token: amount - deposited.get(token, 0) for token, amount in moved.items()}
        return cls(
            step, receipt["transactionHash"], int(receipt["blockNumber"], 16), gas_used, fee,
            spent, provider_fees(logs), ordered_tokens(logs), deposited, int(receipt["status"], 16) != 1,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON with amounts as text, as messages of Airflow have no room for larger numbers than 64 bits."""
        amounts = {
            name: {token: str(amount) for token, amount in getattr(self, name).items()} for name in _AMOUNTS
        }
        return {**asdict(self), **amounts, "fee": str(self.fee), "orders": list(self.orders)}

    @classmethod
    def of_dict(cls, content: dict[str, Any]) -> MinedTransaction:
        """Read one back."""
        amounts = {name: {token: int(amount) for token, amount in content[name].items()} for name in _AMOUNTS}
        return cls(**{**content, **amounts, "fee": int(content["fee"]), "orders": tuple(content["orders"])})


_AMOUNTS = ("spent", "provider_fees", "deposited")
