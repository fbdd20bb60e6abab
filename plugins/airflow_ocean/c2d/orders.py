"""Quoting a computation, paying for it, and the orders that prove it was paid."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_ocean.c2d import environments
from airflow_ocean.c2d.costs import Cost
from airflow_ocean.c2d.errors import InvalidInputError
from airflow_ocean.c2d.payments import Payments, Terms
from airflow_ocean.c2d.quotes import EarlierOrder, JobAssets, Quote, QuotedAsset
from airflow_ocean.c2d.services import AssetInput, EscrowPayment, JobTerms, learn_kind
from airflow_ocean.c2d.units import parse_address

if TYPE_CHECKING:
    from airflow_ocean.c2d.assets import Asset, Service
    from airflow_ocean.c2d.client import OceanClient
    from airflow_ocean.c2d.environments import ComputeEnvironment

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OrderedAsset:
    """One asset of an order.

    :param transaction: id of its order transaction, 0x and lower case as services compare it; None where the job needs no
        order
    :param started: id of the transaction that started the order; another one than ``transaction`` after a renewal
    :param valid_until: until when its fee is paid, seconds since 1970
    :param fee: what the fee was, in the fee token's smallest unit, as text
    :param name: the asset's title, for people
    :param datatoken: the address of its datatoken
    """

    did: str
    service_id: str
    transaction: str | None
    user_data: dict[str, Any] | None = None
    started: str | None = None
    valid_until: int | None = None
    fee: str = "0"
    name: str = ""
    datatoken: str | None = None


@dataclass(frozen=True)
class Order:
    """Paid inputs of a job: all that starting it needs.

    :param environment: id of the environment it was paid for
    :param environment_consumer: the environment's address, whom the orders name as consumer
    :param valid_until: until when the environment is paid, seconds since 1970
    :param terms: how the job is to run
    :param payment: what its start locks in the escrow, where the service is paid by that
    """

    provider_url: str
    environment: str
    environment_consumer: str
    valid_until: int
    datasets: tuple[OrderedAsset, ...]
    algorithm: OrderedAsset
    terms: JobTerms
    payment: EscrowPayment | None = None
    cost: dict[str, Any] = field(default_factory=dict)

    @property
    def transactions(self) -> list[str]:
        """The order transaction ids: datasets first, the algorithm's last; none of what needs no order."""
        return [item.transaction for item in (*self.datasets, self.algorithm) if item.transaction]

    def assets(self) -> list[dict[str, str | None]]:
        """Say what was ordered, for people: ``did``, ``name`` and ``datatoken`` of each, the algorithm's last."""
        return [
            {"did": item.did, "name": item.name, "datatoken": item.datatoken}
            for item in (*self.datasets, self.algorithm)
        ]

    def dataset_inputs(self) -> list[AssetInput]:
        """Give the datasets as services want them."""
        return [_input(item) for item in self.datasets]

    def algorithm_input(self) -> AssetInput:
        """Give the algorithm as services want it."""
        return _input(self.algorithm)

    def to_dict(self) -> dict[str, Any]:
        """Give the order as JSON; amounts as text, because JSON's numbers lose wei."""
        payment = {**asdict(self.payment), "amount": str(self.payment.amount)} if self.payment else None
        return {**asdict(self), "payment": payment}

    @classmethod
    def from_dict(cls, fields: Any) -> Order:
        """Read an order out of JSON.

        :raises InvalidInputError: when it is none
        """
        try:
            payment = fields.get("payment")
            return cls(
                provider_url=fields["provider_url"],
                environment=fields["environment"],
                environment_consumer=fields["environment_consumer"],
                valid_until=int(fields["valid_until"]),
                datasets=tuple(OrderedAsset(**item) for item in fields["datasets"]),
                algorithm=OrderedAsset(**fields["algorithm"]),
                terms=JobTerms(**fields["terms"]),
                payment=EscrowPayment(**{**payment, "amount": int(payment["amount"])}) if payment else None,
                cost=fields.get("cost") or {},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidInputError(
                f"this is not an order as paying makes it ({error!r}): {str(fields)[:200]}"
            ) from error


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

    def environment_for(
        self,
        terms: JobTerms,
        choice: str,
        provider_url: str | None = None,
        variables: dict[str, str] | None = None,
    ) -> ComputeEnvironment:
        """Pick an environment as :meth:`environment` does, for a job that can be told all this there.

        :param variables: environment variables that the job is to be started with
        :raises InvalidInputError: when it cannot
        """
        chosen = self.environment(choice, provider_url)
        self._client.services(provider_url).check_job(chosen, terms, variables)
        return chosen

    # ------------------------------------------------------------------ quoting

    def quote(
        self,
        dataset_dids: list[str],
        algorithm_did: str,
        *,
        environment: str = "free",
        duration: int = 3600,
        resources: dict[str, float] | None = None,
        queue_wait: int = 0,
        variables: dict[str, str] | None = None,
        valid_until: int | None = None,
        known_orders: dict[str, EarlierOrder | str] | None = None,
    ) -> Quote:
        """Ask what a job takes; nothing is spent.

        A payment that was begun is asked for again as it was begun: in the same environment, until the same moment, as long
        as that lies ahead or orders do not bind jobs.

        :param environment: ``free``, ``cheapest``, or an environment's id
        :param duration: seconds. For how long a Provider's environment is wanted, for one job or several after each other;
            how long a job may run on an Ocean Node
        :param resources: amounts by the names of an Ocean Node's environment, e.g. ``{"cpu": 2, "ram": 4}``
        :param queue_wait: seconds that the job may wait for an Ocean Node's resources
        :param variables: environment variables that the job is to be started with, which an Ocean Node offers
        :param valid_until: until when it is wanted instead, seconds since 1970. With the moment a known order was
            paid until, that order costs nothing more; any later moment renews it on the chain
        :param known_orders: DID → an earlier order, or just its transaction, to be used again if it is still good
        :raises NotAllowedError: when the algorithm may not run on a dataset, or the Provider refuses otherwise
        :raises InvalidInputError: when a parameter is not what it has to be
        """
        for name, value, least in (
            ("duration", duration, 1),
            ("valid_until", valid_until, 1),
            ("queue_wait", queue_wait, 0),
        ):
            if (
                isinstance(value, bool)
                or not isinstance(value, int | None)
                or (value is not None and value < least)
            ):
                raise InvalidInputError(f"{name} must be a number of seconds, {least} or more, not {value!r}")
        terms = JobTerms(duration, resources or {}, queue_wait)
        assets = self.look_up(dataset_dids, algorithm_did)
        begun = Payments(self._client).terms([*dataset_dids, algorithm_did]) if valid_until is None else None
        if begun is not None and self.still_holds(assets, begun.valid_until):
            environment, valid_until, terms = begun.environment, begun.valid_until, JobTerms(**begun.job)
        chosen = self.environment_for(terms, environment, assets.provider_url, variables)
        known = {
            did: EarlierOrder(order, order) if isinstance(order, str) else order
            for did, order in (known_orders or {}).items()
        }
        return self.ask(assets, chosen, valid_until or int(time.time()) + duration, known, terms)

    def still_holds(self, assets: JobAssets, valid_until: int) -> bool:
        """Say whether a payment that was begun can be brought to its end as it was begun.

        Where orders do not bind jobs they are paid for no time, so that one which was paid is never too late.

        :param valid_until: until when the environment was wanted, seconds since 1970
        """
        return valid_until > time.time() or not self._client.services(assets.provider_url).orders_bind_jobs

    def look_up(self, dataset_dids: list[str], algorithm_did: str) -> JobAssets:
        """Resolve the assets of a job.

        :raises AssetNotFoundError: when one of them is not known, or no longer active
        :raises InvalidInputError: when they do not make a job
        """
        if not dataset_dids or len({*dataset_dids, algorithm_did}) != len(dataset_dids) + 1:
            raise InvalidInputError(
                "a job needs at least one dataset, each once, and none of them is the algorithm"
            )
        learn_kind(self._client.network.provider_url)
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
        terms: JobTerms,
    ) -> Quote:
        """Have the service quote a job; :meth:`quote` does it from the beginning.

        :param valid_until: until when the environment is wanted, seconds since 1970
        """
        if environment.access == "listed":
            logger.warning(
                "Environment %s is for wallets that a contract lists, which is not looked up here: any other's job is refused "
                "when it is started, and its orders are paid by then",
                environment.id,
            )

        def offered(asset: Asset, service: Service) -> AssetInput:
            known = known_orders.get(asset.did)
            if known is None:
                return AssetInput(asset.did, service.id)
            return AssetInput(asset.did, service.id, known.transaction, started=known.started)

        quoted = self._client.services(assets.provider_url).quote(
            [offered(*dataset) for dataset in assets.datasets],
            offered(*assets.algorithm),
            environment,
            valid_until,
            terms,
        )
        *datasets, algorithm = [
            QuotedAsset(asset, service, quote, earlier=known_orders.get(asset.did))
            for (asset, service), quote in zip(
                assets.items, [*quoted.datasets, quoted.algorithm], strict=True
            )
        ]
        return Quote(
            provider_url=assets.provider_url,
            environment=environment,
            valid_until=valid_until,
            datasets=tuple(datasets),
            algorithm=algorithm,
            terms=terms,
            payment=quoted.payment,
        )

    # ------------------------------------------------------------------ paying

    def pay(self, quote: Quote, *, approve_payments: int = 1) -> Order:
        """Pay what a quote asks: get datatokens where the wallet has none, then order or renew each asset.

        What the escrow is to pay is deposited, and the service is authorized to lock it; starting the job locks it.

        :param approve_payments: for how many payments like this one to approve the tokens that pay, when they have to be
            approved: more than one leaves a standing approval, and saves later payments a transaction

        :raises InsufficientFundsError: when the wallet lacks datatokens or tokens to pay; nothing was spent
        :raises CostLimitError: when it costs more than the client's limit; nothing was spent
        """
        before = len(self._client.transactions.mined)
        payments = Payments(self._client, approve_payments)
        transactions = payments.pay(quote)
        terms = payments.terms(quote.dids) or Terms.of(quote)
        locked = {parse_address(quote.payment.token, "token"): quote.payment.amount} if quote.payment else {}
        cost = Cost.of(self._client.transactions.mined[before:], locked)
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
            terms=JobTerms(**terms.job),
            payment=quote.payment,
            cost=cost.to_dict(),
        )


def _ordered(item: QuotedAsset, transaction: str | None, valid_until: int) -> OrderedAsset:
    earlier = item.earlier
    if earlier is not None and transaction == earlier.transaction.lower():
        until, fee = earlier.valid_until, earlier.fee
    else:
        until, fee = valid_until, item.fee[1] if item.fee else 0
    renewed = item.quote.valid_order is not None and earlier is not None
    started = earlier.started if renewed and earlier else transaction
    return OrderedAsset(
        item.asset.did,
        item.service.id,
        transaction,
        item.user_data,
        started.lower() if started else None,
        until,
        str(fee),
        name=item.asset.name,
        datatoken=item.service.datatoken,
    )


def _input(item: OrderedAsset) -> AssetInput:
    return AssetInput(item.did, item.service_id, item.transaction, item.user_data)
