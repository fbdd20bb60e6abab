"""What was spent: read off the receipts of the transactions that a task sent."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_ocean.c2d.mined_transaction import MinedTransaction


@dataclass(frozen=True)
class Cost:
    """What transactions took from the wallet, read off their receipts.

    :param tokens: token address → amount that left the wallet, less what came in, in the token's smallest unit;
        datatokens and fees are among them
    :param fees: the Provider's fees in ``tokens``, by token address
    :param datatokens: datatoken address → how many orders each cost one, also where it was got for that order
    :param gas_fee: wei
    :param deposited: token address → amount that went into the escrow, less what came back; it stays the wallet's, and is
        not among ``tokens``
    :param locked: token address → the most that is claimed for the job
    """

    tokens: dict[str, int] = field(default_factory=dict)
    fees: dict[str, int] = field(default_factory=dict)
    datatokens: dict[str, int] = field(default_factory=dict)
    gas_used: int = 0
    gas_fee: int = 0
    transactions: list[str] = field(default_factory=list)
    deposited: dict[str, int] = field(default_factory=dict)
    locked: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, mined: list[MinedTransaction], locked: dict[str, int] | None = None) -> Cost:
        """Add up transactions.

        :param locked: token address → what a job's payment through the escrow may be
        """
        return cls(
            tokens=_sum(transaction.spent for transaction in mined),
            fees=_sum(transaction.provider_fees for transaction in mined),
            datatokens=dict(Counter(token for transaction in mined for token in transaction.orders)),
            gas_used=sum(transaction.gas_used for transaction in mined),
            gas_fee=sum(transaction.fee for transaction in mined),
            transactions=[transaction.hash for transaction in mined],
            deposited=_sum(transaction.deposited for transaction in mined),
            locked=locked or {},
        )

    def to_dict(self) -> dict[str, Any]:
        """Give the cost as JSON; amounts as text, because JSON's numbers lose wei."""
        return {
            "tokens": _texts(self.tokens),
            "fees": _texts(self.fees),
            "datatokens": self.datatokens,
            "gas_used": self.gas_used,
            "gas_fee_wei": str(self.gas_fee),
            "transactions": self.transactions,
            "deposited": _texts(self.deposited),
            "locked": _texts(self.locked),
        }


def settled(cost: dict[str, Any], claimed: dict[str, int]) -> dict[str, Any]:
    """Bring a cost record up to date after a job's payment was claimed: what it has cost instead of what it may.

    :param cost: as :meth:`Cost.to_dict` gives it
    :param claimed: token address → amount in its smallest unit
    """
    return {**cost, "locked": {}, "claimed": _texts(claimed)}


def _texts(amounts: dict[str, int]) -> dict[str, str]:
    return {token: str(amount) for token, amount in amounts.items()}


def _sum(amounts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for each in amounts:
        for token, amount in each.items():
            total[token] = total.get(token, 0) + amount
    return {token: amount for token, amount in total.items() if amount}
