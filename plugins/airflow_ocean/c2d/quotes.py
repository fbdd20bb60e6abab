"""What a computation takes: its assets, the earlier orders they may use again, and the Provider's quote."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_ocean.c2d.units import parse_address

if TYPE_CHECKING:
    from airflow_ocean.c2d.assets import Asset, Service
    from airflow_ocean.c2d.environments import ComputeEnvironment
    from airflow_ocean.c2d.orders import OrderedAsset
    from airflow_ocean.c2d.services import EscrowPayment, JobTerms, OrderQuote

# An order that is good for a shorter time is renewed: paying, starting and fetching the inputs take their time.
LEAST_LEFT = 120


@dataclass(frozen=True)
class EarlierOrder:
    """An order that was paid before, offered to be used again.

    :param transaction: id of the transaction that proves it: the order's, or that of its last renewal
    :param started: id of the transaction that started the order
    :param valid_until: until when its fee is paid, seconds since 1970; 0 when it is not known
    :param fee: what the fee was, in the fee token's smallest unit
    """

    transaction: str
    started: str
    valid_until: int = 0
    fee: int = 0

    @classmethod
    def of(cls, ordered: OrderedAsset) -> EarlierOrder:
        """Return the order of an asset as it was paid."""
        if ordered.transaction is None:
            raise ValueError(f"{ordered.did} was not ordered")
        started = ordered.started or ordered.transaction
        return cls(ordered.transaction, started, ordered.valid_until or 0, int(ordered.fee))


@dataclass(frozen=True)
class JobAssets:
    """What a job is to use, looked up.

    :param datasets: each with its compute service
    :param algorithm: with the service that is ordered
    """

    datasets: tuple[tuple[Asset, Service], ...]
    algorithm: tuple[Asset, Service]

    @property
    def provider_url(self) -> str:
        """The Provider that serves the first dataset and runs the job."""
        return self.datasets[0][1].endpoint

    @property
    def items(self) -> tuple[tuple[Asset, Service], ...]:
        """Datasets first, the algorithm last."""
        return (*self.datasets, self.algorithm)


@dataclass(frozen=True)
class QuotedAsset:
    """One asset of a quote, with how it would be paid.

    :param earlier: the earlier order that was offered
    """

    asset: Asset
    service: Service
    quote: OrderQuote
    user_data: dict[str, Any] | None = None
    earlier: EarlierOrder | None = None

    @property
    def needs_order(self) -> bool:
        """Whether a datatoken has to be spent."""
        return self.quote.needed and self.quote.valid_order is None

    @property
    def needs_renewal(self) -> bool:
        """Whether an earlier order has to be renewed on the chain before a job can start with it.

        A Provider proposes to renew every order whose fee was paid for a shorter time than is asked now. Where no fee is
        due, that is needed only if the time is over and the Provider looks at it, which at the start of a job it does
        for datasets. Source: Provider ``utils/datatoken.verify_order_tx``, which reads a fee's time only when it is
        given an environment, and ``validation/algo.py``, which gives none for the algorithm.
        """
        if self.quote.valid_order is None or self.quote.provider_fee is None:
            return False
        if self.fee is not None or self.earlier is None or not self.earlier.valid_until:
            return True
        return self.asset.kind != "algorithm" and self.earlier.valid_until < time.time() + LEAST_LEFT

    @property
    def fee(self) -> tuple[str, int] | None:
        """The provider fee as token address and amount in its smallest unit, None when there is none to pay."""
        fee = self.quote.provider_fee
        if not fee or int(fee["providerFeeAmount"]) == 0:
            return None
        return parse_address(fee["providerFeeToken"], "providerFeeToken"), int(fee["providerFeeAmount"])


@dataclass(frozen=True)
class Quote:
    """What running an algorithm on datasets in an environment takes.

    :param terms: how the job is to run
    :param payment: what has to be locked in the escrow, where the service is paid by that
    """

    provider_url: str
    environment: ComputeEnvironment
    valid_until: int
    datasets: tuple[QuotedAsset, ...]
    algorithm: QuotedAsset
    terms: JobTerms
    payment: EscrowPayment | None = None

    @property
    def items(self) -> tuple[QuotedAsset, ...]:
        """Datasets first, the algorithm last."""
        return (*self.datasets, self.algorithm)

    @property
    def dids(self) -> list[str]:
        """The assets' DIDs, in the same order."""
        return [item.asset.did for item in self.items]

    def to_dict(self) -> dict[str, Any]:
        """Give what a person wants to know before paying, as JSON."""
        return {
            "environment": self.environment.id,
            "access": self.environment.access,
            "provider_url": self.provider_url,
            "valid_until": self.valid_until,
            "assets": [
                {
                    "did": item.asset.did,
                    "name": item.asset.name,
                    "datatoken": item.service.datatoken,
                    "datatokens": "1" if item.needs_order else "0",
                    "fee": {"token": item.fee[0], "amount": str(item.fee[1])} if item.fee else None,
                    "valid_order": item.quote.valid_order,
                }
                for item in self.items
            ],
            "escrow": {"token": self.payment.token, "amount": str(self.payment.amount)}
            if self.payment
            else None,
        }
