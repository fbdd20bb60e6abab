"""What a computation costs, paying for it, and the orders that prove it was paid."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_ocean.c2d import environments
from airflow_ocean.c2d.errors import InvalidInputError
from airflow_ocean.c2d.payments import Payments, Terms
from airflow_ocean.c2d.services import AssetInput

if TYPE_CHECKING:
    from airflow_ocean.c2d.assets import Asset, Service
    from airflow_ocean.c2d.client import OceanClient
    from airflow_ocean.c2d.environments import ComputeEnvironment
    from airflow_ocean.c2d.services import OrderQuote
    from airflow_ocean.c2d.transactions import MinedTransaction

logger = logging.getLogger(__name__)

# An order that is good for a shorter time is renewed: paying, starting and fetching the inputs take their time.
LEAST_LEFT = 120


@dataclass(frozen=True)
class OrderedAsset:
    """One asset of an order.

    :param transaction: id of its order transaction, 0x and lower case as services compare it
    :param started: id of the transaction that started the order; another one than ``transaction`` after a renewal
    :param valid_until: until when its fee is paid, seconds since 1970
    :param fee: what the fee was, in the fee token's smallest unit, as text
    """

    did: str
    service_id: str
    transaction: str
    user_data: dict[str, Any] | None = None
    started: str | None = None
    valid_until: int | None = None
    fee: str = "0"


@dataclass(frozen=True)
class Cost:
    """What transactions took from the wallet, read off their receipts.

    :param tokens: token address → amount that left the wallet, less what came in, in the token's smallest unit;
        datatokens are among them
    :param gas_fee: wei
    """

    tokens: dict[str, int] = field(default_factory=dict)
    gas_used: int = 0
    gas_fee: int = 0
    transactions: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, mined: list[MinedTransaction]) -> Cost:
        """Add up transactions."""
        tokens: dict[str, int] = {}
        for transaction in mined:
            for token, amount in transaction.spent.items():
                tokens[token] = tokens.get(token, 0) + amount
        return cls(
            tokens={token: amount for token, amount in tokens.items() if amount},
            gas_used=sum(transaction.gas_used for transaction in mined),
            gas_fee=sum(transaction.fee for transaction in mined),
            transactions=[transaction.hash for transaction in mined],
        )

    def to_dict(self) -> dict[str, Any]:
        """Give the cost as JSON; amounts as text, because JSON's numbers lose wei."""
        return {
            "tokens": {token: str(amount) for token, amount in self.tokens.items()},
            "gas_used": self.gas_used,
            "gas_fee_wei": str(self.gas_fee),
            "transactions": self.transactions,
        }


@dataclass(frozen=True)
class Order:
    """Paid inputs of a job: all that starting it needs.

    :param environment: id of the environment it was paid for
    :param environment_consumer: the environment's address, whom the orders name as consumer
    :param valid_until: until when the environment is paid, seconds since 1970
    """

    provider_url: str
    environment: str
    environment_consumer: str
    valid_until: int
    datasets: tuple[OrderedAsset, ...]
    algorithm: OrderedAsset
    cost: dict[str, Any] = field(default_factory=dict)

    @property
    def transactions(self) -> list[str]:
        """The order transaction ids: datasets first, the algorithm's last."""
        return [item.transaction for item in (*self.datasets, self.algorithm)]

    def dataset_inputs(self) -> list[AssetInput]:
        """Give the datasets as services want them."""
        return [_input(item) for item in self.datasets]

    def algorithm_input(self) -> AssetInput:
        """Give the algorithm as services want it."""
        return _input(self.algorithm)

    def to_dict(self) -> dict[str, Any]:
        """Give the order as JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Any) -> Order:
        """Read an order out of JSON.

        :raises InvalidInputError: when it is none
        """
        try:
            return cls(
                provider_url=fields["provider_url"],
                environment=fields["environment"],
                environment_consumer=fields["environment_consumer"],
                valid_until=int(fields["valid_until"]),
                datasets=tuple(OrderedAsset(**item) for item in fields["datasets"]),
                algorithm=OrderedAsset(**fields["algorithm"]),
                cost=fields.get("cost") or {},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInputError(
                f"this is not an order as paying makes it ({error!r}): {str(fields)[:200]}"
            ) from error


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
        return self.quote.valid_order is None

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
        return str(fee["providerFeeToken"]), int(fee["providerFeeAmount"])


@dataclass(frozen=True)
class Quote:
    """What running an algorithm on datasets in an environment takes."""

    provider_url: str
    environment: ComputeEnvironment
    valid_until: int
    datasets: tuple[QuotedAsset, ...]
    algorithm: QuotedAsset

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
        }


class Orders:
    """Quoting and paying with one wallet."""

    def __init__(self, client: OceanClient) -> None:
        self._client = client

    def environments(self, provider_url: str | None = None) -> list[ComputeEnvironment]:
        """List a Provider's compute environments for the network's chain."""
        return self._client.services(provider_url).environments()

    def environment(self, choice: str, provider_url: str | None = None) -> ComputeEnvironment:
        """Pick an environment: ``free``, ``cheapest``, or one by its id."""
        services = self._client.services(provider_url)
        return environments.choose(services.environments(), choice, services.url)

    # ------------------------------------------------------------------ quoting

    def quote(
        self,
        dataset_dids: list[str],
        algorithm_did: str,
        *,
        environment: str = "free",
        duration: int = 3600,
        valid_until: int | None = None,
        known_orders: dict[str, EarlierOrder | str] | None = None,
    ) -> Quote:
        """Ask what a job takes; nothing is spent.

        A payment that was begun is asked for again as it was begun: in the same environment, until the same moment.

        :param environment: ``free``, ``cheapest``, or an environment's id
        :param duration: how long the environment is wanted, for one job or several after each other, seconds
        :param valid_until: until when it is wanted instead, seconds since 1970. With the moment a known order was
            paid until, that order costs nothing more; any later moment renews it on the chain
        :param known_orders: DID → an earlier order, or just its transaction, to be used again if it is still good
        :raises NotAllowedError: when the algorithm may not run on a dataset, or the Provider refuses otherwise
        :raises InvalidInputError: when a parameter is not what it has to be
        """
        for name, value in (("duration", duration), ("valid_until", valid_until)):
            if (
                isinstance(value, bool)
                or not isinstance(value, int | None)
                or (value is not None and value <= 0)
            ):
                raise InvalidInputError(f"{name} must be a number of seconds above 0, not {value!r}")
        assets = self.look_up(dataset_dids, algorithm_did)
        begun = Payments(self._client).terms([*dataset_dids, algorithm_did]) if valid_until is None else None
        if begun is not None and begun.valid_until > time.time():
            environment, valid_until = begun.environment, begun.valid_until
        chosen = self.environment(environment, assets.provider_url)
        known = {
            did: EarlierOrder(order, order) if isinstance(order, str) else order
            for did, order in (known_orders or {}).items()
        }
        return self.ask(assets, chosen, valid_until or int(time.time()) + duration, known)

    def look_up(self, dataset_dids: list[str], algorithm_did: str) -> JobAssets:
        """Resolve the assets of a job.

        :raises AssetNotFoundError: when one of them is not known, or no longer active
        :raises InvalidInputError: when they do not make a job
        """
        if not dataset_dids or len({*dataset_dids, algorithm_did}) != len(dataset_dids) + 1:
            raise InvalidInputError(
                "a job needs at least one dataset, each once, and none of them is the algorithm"
            )
        *datasets, algorithm = self._client.assets.resolve_all([*dataset_dids, algorithm_did])
        if algorithm.kind != "algorithm":
            raise InvalidInputError(f"{algorithm.did} is a {algorithm.kind}, not an algorithm")
        return JobAssets(
            datasets=tuple((dataset, dataset.service("compute")) for dataset in datasets),
            algorithm=(algorithm, algorithm.service("access", "compute")),
        )

    def ask(
        self,
        assets: JobAssets,
        environment: ComputeEnvironment,
        valid_until: int,
        known_orders: dict[str, EarlierOrder],
    ) -> Quote:
        """Have the Provider quote a job; :meth:`quote` does it from the beginning.

        :param valid_until: until when the environment is wanted, seconds since 1970
        """

        def offered(asset: Asset, service: Service) -> AssetInput:
            known = known_orders.get(asset.did)
            if known is None:
                return AssetInput(asset.did, service.id)
            return AssetInput(asset.did, service.id, known.transaction, started=known.started)

        quotes, algorithm_quote = self._client.services(assets.provider_url).quote(
            [offered(*dataset) for dataset in assets.datasets],
            offered(*assets.algorithm),
            environment.id,
            valid_until,
            environment.consumer_address,
        )
        *datasets, algorithm = [
            QuotedAsset(asset, service, quote, earlier=known_orders.get(asset.did))
            for (asset, service), quote in zip(assets.items, [*quotes, algorithm_quote], strict=True)
        ]
        return Quote(
            provider_url=assets.provider_url,
            environment=environment,
            valid_until=valid_until,
            datasets=tuple(datasets),
            algorithm=algorithm,
        )

    # ------------------------------------------------------------------ paying

    def pay(self, quote: Quote) -> Order:
        """Pay what a quote asks: get datatokens where the wallet has none, then order or renew each asset.

        :raises InsufficientFundsError: when the wallet lacks datatokens or tokens to pay; nothing was spent
        :raises CostLimitError: when it costs more than the client's limit; nothing was spent
        """
        before = len(self._client.transactions.mined)
        payments = Payments(self._client)
        transactions = payments.pay(quote)
        terms = payments.terms(quote.dids) or Terms.of(quote)
        cost = Cost.of(self._client.transactions.mined[before:])
        ordered = [
            _ordered(item, transaction, terms.valid_until)
            for item, transaction in zip(quote.items, transactions, strict=True)
        ]
        logger.info(
            "Paid for %d asset(s) in %d transaction(s), gas %d",
            len(ordered),
            len(cost.transactions),
            cost.gas_used,
        )
        return Order(
            provider_url=quote.provider_url,
            environment=terms.environment,
            environment_consumer=terms.environment_consumer,
            valid_until=terms.valid_until,
            datasets=tuple(ordered[:-1]),
            algorithm=ordered[-1],
            cost=cost.to_dict(),
        )


def _ordered(item: QuotedAsset, transaction: str, valid_until: int) -> OrderedAsset:
    earlier = item.earlier
    if earlier is not None and transaction == earlier.transaction.lower():
        until, fee = earlier.valid_until, earlier.fee
    else:
        until, fee = valid_until, item.fee[1] if item.fee else 0
    renewed = item.quote.valid_order is not None and earlier is not None
    started = earlier.started if renewed and earlier else transaction
    return OrderedAsset(
        item.asset.did, item.service.id, transaction, item.user_data, started.lower(), until, str(fee)
    )


def _input(item: OrderedAsset) -> AssetInput:
    return AssetInput(item.did, item.service_id, item.transaction, item.user_data)
