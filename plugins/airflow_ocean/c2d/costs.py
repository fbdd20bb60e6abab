"""What was spent: read off the receipts of the transactions that a task sent."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_ocean.c2d.transactions import MinedTransaction


@dataclass(frozen=True)
class Cost:
    """What transactions took from the wallet, read off their receipts.

    :param tokens: token address → amount that left the wallet, less what came in, in the token's smallest unit;
        datatokens and fees are among them
    :param fees: the Provider's fees in ``tokens``, by token address
    :param datatokens: datatoken address → how many orders each cost one, also where it was got for that order
    :param gas_fee: wei
    """

    tokens: dict[str, int] = field(default_factory=dict)
    fees: dict[str, int] = field(default_factory=dict)
    datatokens: dict[str, int] = field(default_factory=dict)
    gas_used: int = 0
    gas_fee: int = 0
    transactions: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, mined: list[MinedTransaction]) -> Cost:
        """Add up transactions."""
        return cls(
            tokens=_sum(transaction.spent for transaction in mined),
            fees=_sum(transaction.provider_fees for transaction in mined),
            datatokens=dict(Counter(token for transaction in mined for token in transaction.orders)),
            gas_used=sum(transaction.gas_used for transaction in mined),
            gas_fee=sum(transaction.fee for transaction in mined),
            transactions=[transaction.hash for transaction in mined],
        )

    def to_dict(self) -> dict[str, Any]:
        """Give the cost as JSON; amounts as text, because JSON's numbers lose wei."""
        return {
            "tokens": {token: str(amount) for token, amount in self.tokens.items()},
            "fees": {token: str(amount) for token, amount in self.fees.items()},
            "datatokens": self.datatokens,
            "gas_used": self.gas_used,
            "gas_fee_wei": str(self.gas_fee),
            "transactions": self.transactions,
        }


def _sum(amounts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for each in amounts:
        for token, amount in each.items():
            total[token] = total.get(token, 0) + amount
    return {token: amount for token, amount in total.items() if amount}
