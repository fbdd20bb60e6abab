"""Orders kept from run to run, so that a run pays only when it has to, and runs do not get in each other's way.

For each asset, service, environment and wallet there is a list of orders. Where orders bind jobs, one order of a job is its
agreement: the algorithm's where the environment is free, else that of the first dataset, which carries the fee. Only one
unfinished job may have it, so a run claims it; all others may be shared.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import random
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from filelock import FileLock, Timeout

from airflow_ocean.c2d.errors import InvalidInputError, OrderInUseError
from airflow_ocean.c2d.orders import Order
from airflow_ocean.c2d.quotes import LEAST_LEFT, EarlierOrder, Quote, QuotedAsset
from airflow_ocean.c2d.services import JobTerms, OrderQuote
from airflow_ocean.c2d.wallet import lock_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_ocean.c2d.assets import Asset, Service
    from airflow_ocean.c2d.client import OceanClient
    from airflow_ocean.c2d.environments import ComputeEnvironment
    from airflow_ocean.c2d.jobs import Job
    from airflow_ocean.c2d.orders import OrderedAsset
    from airflow_ocean.c2d.quotes import JobAssets

logger = logging.getLogger(__name__)

_CHOICE, _PAID = "orders to use again", "paid order"
# How long a run may take from paying to starting before another one may have its order, seconds. Its start then waits.
LONGEST_CLAIM = 3600
# How many orders of an asset are kept; the oldest that nobody claims goes first.
_MOST_KEPT = 64
# A payment takes a few blocks; whoever waits longer for another one of the same assets tries again later.
_LOCK_TIMEOUT = 600.0


class OrderStore(Protocol):
    """Keeps JSON under text keys; it lasts from run to run."""

    def get(self, key: str) -> Any:
        """Return what is kept, None when nothing is."""

    def set(self, key: str, value: Any) -> None:
        """Keep a value."""


@dataclass(frozen=True)
class Claim:
    """A run's word that it will start a job with an order.

    :param holder: names the run's task
    :param made_at: seconds since 1970
    :param jobs: ids of the jobs that the order had before
    """

    holder: str
    made_at: int
    jobs: tuple[str, ...] = ()


@dataclass(frozen=True)
class KeptOrder:
    """An order of an asset.

    :param order: how it is offered again
    :param ordered_at: when it was started or last renewed, at the latest, seconds since 1970
    :param claim: who is about to start a job with it
    """

    order: EarlierOrder
    ordered_at: int
    claim: Claim | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON; the fee as text, because JSON's numbers lose wei."""
        claim = {**asdict(self.claim), "jobs": list(self.claim.jobs)} if self.claim else None
        order = {**asdict(self.order), "fee": str(self.order.fee)}
        return {"order": order, "ordered_at": self.ordered_at, "claim": claim}

    @classmethod
    def from_dict(cls, fields: Any) -> KeptOrder:
        """Read one back.

        :raises InvalidInputError: when it is none
        """
        try:
            order, claim = fields["order"], fields["claim"]
            return cls(
                EarlierOrder(**{**order, "fee": int(order["fee"])}),
                int(fields["ordered_at"]),
                Claim(claim["holder"], int(claim["made_at"]), tuple(claim["jobs"])) if claim else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInputError(
                f"the asset state store holds something else than an order ({error!r}): {str(fields)[:200]}; clear the "
                "state of the asset ocean_orders, then orders are paid anew"
            ) from error


@dataclass(frozen=True)
class _Choice:
    """What a payment uses: written to the journal first, so that a retry does not choose again.

    :param chosen_at: seconds since 1970; nothing was paid before
    :param known: DID → the order to use again
    """

    environment: str
    chosen_at: int
    valid_until: int
    known: dict[str, KeptOrder]
    terms: JobTerms

    def to_dict(self) -> dict[str, Any]:
        known = {did: kept.to_dict() for did, kept in self.known.items()}
        return {**self.__dict__, "known": known, "terms": asdict(self.terms)}

    @classmethod
    def from_dict(cls, entry: dict[str, Any] | None) -> _Choice | None:
        if entry is None:
            return None
        known = {did: KeptOrder.from_dict(kept) for did, kept in entry["known"].items()}
        terms = JobTerms(**entry["terms"])
        return cls(entry["environment"], entry["chosen_at"], entry["valid_until"], known, terms)


class OrderBook:
    """Pays with one wallet, using again what was paid before.

    :param client: the wallet; what its journal holds is kept to
    :param store: where orders are kept
    :param holder: names the run's task that pays, e.g. ``dag/run/task``
    :param is_live: says of another holder whether it may still start the job it paid for
    """

    def __init__(
        self, client: OceanClient, store: OrderStore, holder: str, is_live: Callable[[str], bool]
    ) -> None:
        self._client = client
        self._store = store
        self._holder = holder
        self._is_live = is_live

    def pay(
        self,
        dataset_dids: list[str],
        algorithm_did: str,
        *,
        environment: str = "free",
        duration: int = 3600,
        resources: dict[str, float] | None = None,
        queue_wait: int = 0,
        variables: dict[str, str] | None = None,
        most_orders: int = 1,
        approve_payments: int = 1,
    ) -> Order:
        """Pay what a job takes beyond the orders that are still good.

        An order whose time and whose fee's time last costs nothing; one whose fee's time is over is renewed, if its
        asset carries a fee or its time is looked at; everything else is ordered anew.

        :param environment: ``free``, ``cheapest``, or an environment's id
        :param duration: seconds. For how long a Provider's fee is paid when one has to be paid; how long a job may run on
            an Ocean Node
        :param resources: see :meth:`Orders.quote <airflow_ocean.c2d.orders.Orders.quote>`
        :param queue_wait: see there
        :param variables: see there
        :param most_orders: how many orders may have unfinished jobs, or runs that are about to start one: as long as there
            are fewer, another one is paid for
        :param approve_payments: see :meth:`Orders.pay <airflow_ocean.c2d.orders.Orders.pay>`
        :raises OrderInUseError: when there are as many; with the job of one in ``job_id``, None when none is started yet.
            Nothing was spent
        """
        journal = self._client.transactions.journal
        paid = journal.load(_PAID)
        if paid is not None:
            return Order.from_dict(paid)
        choice = _Choice.from_dict(journal.load(_CHOICE))
        assets = self._client.orders.look_up(dataset_dids, algorithm_did)
        if choice is not None and not self._client.orders.still_holds(assets, choice.valid_until):
            choice = None  # Payments sees to it that what was paid by then is not paid again
        terms = choice.terms if choice else JobTerms(duration, resources or {}, queue_wait)
        chosen = self._client.orders.environment_for(
            terms, choice.environment if choice else environment, assets.provider_url, variables
        )
        with self._turn(assets, chosen):
            if choice is None:
                choice = self._choose(assets, chosen, terms, most_orders)
                journal.save(_CHOICE, choice.to_dict())
            order = self._pay(assets, chosen, choice, approve_payments)
            journal.save(_PAID, json.loads(json.dumps(order.to_dict())))
            return order

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
        most_orders: int = 1,
    ) -> Quote:
        """Ask what :meth:`pay` with the same arguments would pay now; nothing is spent, claimed or kept.

        :raises OrderInUseError: as there
        """
        assets = self._client.orders.look_up(dataset_dids, algorithm_did)
        terms = JobTerms(duration, resources or {}, queue_wait)
        chosen = self._client.orders.environment_for(terms, environment, assets.provider_url, variables)
        return self._quote(assets, chosen, self._choose(assets, chosen, terms, most_orders))

    def _pay(
        self, assets: JobAssets, environment: ComputeEnvironment, choice: _Choice, approve_payments: int
    ) -> Order:
        quote = self._quote(assets, environment, choice)
        order = self._client.orders.pay(quote, approve_payments=approve_payments)
        agreement = self._agreement(assets, environment)
        for (asset, service), ordered in zip(assets.items, (*order.datasets, order.algorithm), strict=True):
            if ordered.transaction is not None:
                key = self._key(asset, service, environment)
                used = choice.known.get(asset.did)
                self._keep(key, ordered, used, choice.chosen_at, claims=asset is agreement)
        return order

    def _quote(self, assets: JobAssets, environment: ComputeEnvironment, choice: _Choice) -> Quote:
        """Have the service quote what is due; where nothing is, it need not be asked.

        A Provider looks at the orders again when a job is started with them. Where orders do not bind jobs, each job is paid
        for by itself.
        """
        known = {did: kept.order for did, kept in choice.known.items()}
        bind_jobs = self._agreement(assets, environment) is not None
        as_they_are = [
            QuotedAsset(asset, service, OrderQuote(None, known[asset.did].started), earlier=known[asset.did])
            for asset, service in assets.items
            if bind_jobs and asset.did in known and self._is_paid(asset, known[asset.did])
        ]
        if len(as_they_are) < len(assets.items):
            return self._client.orders.ask(assets, environment, choice.valid_until, known, choice.terms)
        *datasets, algorithm = as_they_are
        return Quote(
            assets.provider_url, environment, choice.valid_until, tuple(datasets), algorithm, choice.terms
        )

    def _is_paid(self, asset: Asset, order: EarlierOrder) -> bool:
        """Whether a job may start with an order as it is; for which assets a fee's time counts, ``quotes`` says."""
        lasts = asset.kind == "algorithm" or order.valid_until >= time.time() + LEAST_LEFT
        # A chain that has begun anew, or was reorganised, knows nothing of it.
        return lasts and self._client.transactions.chain.receipt(order.transaction) is not None

    # ------------------------------------------------------------------ choosing

    def _choose(
        self, assets: JobAssets, environment: ComputeEnvironment, terms: JobTerms, most_orders: int
    ) -> _Choice:
        now = int(time.time())
        agreement = self._agreement(assets, environment)
        # Where orders do not bind jobs, a job is paid for by itself, and any order may be shared.
        fee_bearer = None if environment.is_free else agreement
        candidates = {
            asset.did: [
                kept
                for kept in self._usable(asset, service, environment, now)
                # The first dataset's order has to carry the fee; with another one's fee the agreement would be unclear.
                if fee_bearer is None or (kept.order.fee > 0) == (asset is fee_bearer)
            ]
            for asset, service in assets.items
        }
        known: dict[str, KeptOrder] = {}
        mine = None
        if agreement is not None:
            mine = self._free_one(
                candidates.pop(agreement.did), assets.provider_url, most_orders, agreement.did
            )
        if agreement is not None and mine is not None:
            known[agreement.did] = mine
        until = now + terms.duration
        # What is good for long enough is taken as it is: any later moment would have to be paid for.
        lasting = mine if mine and mine.order.valid_until >= now + LEAST_LEFT else None
        if lasting is not None:
            until = lasting.order.valid_until
        for did, kept in candidates.items():
            # At a start the Provider compares the fee with the price until the latest moment of all orders.
            fitting = [one for one in kept if fee_bearer is None or one.order.valid_until <= until]
            if fitting:
                known[did] = fitting[-1]
        return _Choice(environment.id, now, until, known, terms)

    def _agreement(self, assets: JobAssets, environment: ComputeEnvironment) -> Asset | None:
        """Return the asset whose order will be the job's agreement, None where orders do not bind jobs.

        Source: Provider ``validation/provider_requests`` and ``routes/compute``: the last order whose fee covers the price.
        """
        if not self._client.services(assets.provider_url).orders_bind_jobs:
            return None
        return assets.algorithm[0] if environment.is_free else assets.datasets[0][0]

    def _usable(
        self, asset: Asset, service: Service, environment: ComputeEnvironment, now: int
    ) -> list[KeptOrder]:
        """Return the orders whose time-out is far enough away, those that are paid for the longest last."""
        usable = [
            kept
            for kept in self._read(self._key(asset, service, environment))
            if not service.timeout or kept.ordered_at + service.timeout > now + LEAST_LEFT
        ]
        return sorted(usable, key=lambda kept: kept.order.valid_until)

    def _free_one(
        self, candidates: list[KeptOrder], provider_url: str, most_orders: int, did: str
    ) -> KeptOrder | None:
        """Return the best order that no unfinished job has, and no other run is about to start one with."""
        if not candidates:
            return None
        jobs = self._client.services(provider_url).jobs()
        reasons: list[tuple[str, str | None]] = []
        for kept in reversed(candidates):
            own = [job for job in jobs if job.agreement_id.lower() == kept.order.transaction.lower()]
            reason = self._in_use(kept, own)
            if reason is None:
                return replace(
                    kept, claim=Claim(self._holder, int(time.time()), tuple(job.id for job in own))
                )
            reasons.append(reason)
        if len(reasons) < most_orders:
            logger.info("Ordering %s anew: %s", did, "; ".join(text for text, _ in reasons))
            return None
        # Whichever: of many that wait, some wait for each job.
        text, job_id = random.choice([reason for reason in reasons if reason[1]] or reasons)
        raise OrderInUseError(
            f"{len(reasons)} order(s) of {did} in use, {most_orders} may be: {text}; wait for it, or allow more orders. "
            "Nothing was spent",
            job_id=job_id,
            provider_url=provider_url,
            consumer_address=self._client.address,
        )

    def _in_use(self, kept: KeptOrder, jobs: list[Job]) -> tuple[str, str | None] | None:
        for job in jobs:
            if not job.is_finished:
                return job.describe(), job.id
        claim = kept.claim
        if claim is None or claim.holder == self._holder or {job.id for job in jobs} - set(claim.jobs):
            return None
        if claim.made_at + LONGEST_CLAIM > time.time() and self._is_live(claim.holder):
            return f"{claim.holder} is about to start a job with it", None
        return None

    # ------------------------------------------------------------------ keeping

    def _keep(
        self, key: str, ordered: OrderedAsset, used: KeptOrder | None, began: int, *, claims: bool
    ) -> None:
        """Put an order where later runs find it, in place of the one it comes from."""
        order = EarlierOrder.of(ordered)
        same = used is not None and used.order.transaction.lower() == order.transaction.lower()
        claim = None
        if claims:
            claim = used.claim if same and used else Claim(self._holder, int(time.time()))
        fresh = KeptOrder(order, used.ordered_at if same and used else began, claim)
        gone = {order.transaction.lower()} | ({used.order.transaction.lower()} if used else set())
        others = [kept for kept in self._read(key) if kept.order.transaction.lower() not in gone]
        self._write(key, [*others, fresh])

    def _read(self, key: str) -> list[KeptOrder]:
        return [KeptOrder.from_dict(fields) for fields in self._store.get(key) or []]

    def _write(self, key: str, kept: list[KeptOrder]) -> None:
        self._store.set(key, [one.to_dict() for one in kept[-_MOST_KEPT:]])

    def _key(self, asset: Asset, service: Service, environment: ComputeEnvironment) -> str:
        return f"{asset.did}/{service.id}/{environment.id}/{self._client.address}"

    @contextlib.contextmanager
    def _turn(self, assets: JobAssets, environment: ComputeEnvironment) -> Iterator[None]:
        """Let the payments of this machine that share an asset take turns, so that each sees what the one before paid.

        The store has no compare-and-set. Two machines may therefore choose the same order at the same moment, and the
        list of one overwrite that of the other. That is harmless: each run has its own orders in its XCom, so none is
        spoiled. The Provider lets one of two jobs with the same order start, and the start of the other waits for its
        end. An order that is lost from the list, or that both have renewed, costs a later run one order, or this one the
        gas of a renewal; no run pays twice for itself, as its journal sees to that.
        """
        with contextlib.ExitStack() as stack:
            for key in sorted(self._key(*item, environment) for item in assets.items):
                name = hashlib.sha256(f"{self._client.chain_id}:{key}".encode()).hexdigest()[:24]
                try:
                    stack.enter_context(
                        FileLock(lock_folder() / f"orders-{name}.lock", timeout=_LOCK_TIMEOUT)
                    )
                except Timeout:
                    raise OrderInUseError(
                        f"another payment for the same assets takes longer than {_LOCK_TIMEOUT:.0f} s; nothing was spent"
                    ) from None
            yield
