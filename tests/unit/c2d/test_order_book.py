"""Orders used again from run to run, with real orders, fees and jobs."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any

import pytest

from airflow_ocean.c2d.assets import AssetSpec, ComputePolicy, Pricing
from airflow_ocean.c2d.errors import InvalidInputError, OrderInUseError
from airflow_ocean.c2d.journal import MemoryJournal
from airflow_ocean.c2d.order_book import LONGEST_CLAIM, OrderBook
from include.localnet.accounts import ALICE, BOB
from tests.support.waiting import wait_until
from tests.unit.c2d.conftest import CONTAINER

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_ocean.c2d.client import OceanClient
    from airflow_ocean.c2d.jobs import Job
    from airflow_ocean.c2d.orders import Order
    from include.localnet.settings import NetworkSettings

QUICK = "import pathlib\npathlib.Path('/data/outputs/result').write_text('1,2\\n')\n"
SLEEPY = "import time\nwhile True: time.sleep(1)\n"


class Store:
    """What Airflow's asset state store does, in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self.fails = False

    def get(self, key: str) -> Any:
        return json.loads(self.kept[key]) if key in self.kept else None

    def set(self, key: str, value: Any) -> None:
        if self.fails:
            raise ConnectionError("the API server is away")
        self.kept[key] = json.dumps(value)

    def transactions(self, did: str) -> list[str]:
        return [
            kept["order"]["transaction"]
            for key in self.kept
            if key.startswith(did)
            for kept in json.loads(self.kept[key])
        ]


@pytest.fixture(scope="module")
def publish(client_of: Callable[..., OceanClient], localnet: NetworkSettings) -> Callable[..., str]:
    localnet.files_folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("quick", QUICK), ("sleepy", SLEEPY)):
        (localnet.files_folder / f"{name}.py").write_text(text)

    def make(kind: str, name: str = "branin.arff", **fields: Any) -> str:
        file = {"type": "url", "url": f"{localnet.files_url}/{name}"}
        more: dict[str, Any] = (
            {"container": CONTAINER}
            if kind == "algorithm"
            else {"compute": ComputePolicy(trusted_publishers=(ALICE.address,))}
        )
        spec = AssetSpec(kind, name, (file,), **{"pricing": Pricing.dispenser(), **more, **fields})  # type: ignore[arg-type]
        return client_of(ALICE).assets.publish(spec).did

    return make


@pytest.fixture(scope="module")
def dataset(publish: Callable[..., str]) -> str:
    return publish("dataset")


@pytest.fixture(scope="module")
def quick(publish: Callable[..., str]) -> str:
    return publish("algorithm", "quick.py")


class Runs:
    """Runs of one schedule or several that share a wallet and a store."""

    def __init__(self, client_of: Callable[..., OceanClient]) -> None:
        self.store = Store()
        self.live: set[str] = set()
        self._client_of = client_of

    def pay(
        self, datasets: list[str], algorithm: str, journal: MemoryJournal | None = None, **options: Any
    ) -> tuple[OceanClient, Order]:
        """Pay as another run does, or as a retry when its journal is given."""
        client = self._client_of(BOB, journal or MemoryJournal())
        holder = options.pop("holder", secrets.token_hex(4))
        book = OrderBook(client, self.store, holder, lambda other: other in self.live)
        return client, book.pay(datasets, algorithm, **options)

    def compute(self, datasets: list[str], algorithm: str, **options: Any) -> Order:
        """Pay and compute."""
        client, order = self.pay(datasets, algorithm, **options)
        ended = finished(client, client.jobs.start(order))
        assert ended.succeeded, client.jobs.log_tail(ended)
        return order


@pytest.fixture
def runs(client_of: Callable[..., OceanClient]) -> Runs:
    return Runs(client_of)


def finished(client: OceanClient, job: Job) -> Job:
    return (
        wait_until(lambda: (found := client.jobs.get(job.id)).is_finished and found, f"{job.id} ends") or job
    )


def sent(order: Order) -> int:
    return len(order.cost["transactions"])


def test_a_run_pays_once_then_nothing_then_a_renewal(runs: Runs, dataset: str, quick: str) -> None:
    first = runs.compute([dataset], quick, duration=3600)
    # Each asset's dispenser, and each asset's order.
    assert sent(first) == 4
    assert sorted(first.cost["datatokens"].values()) == [1, 1]
    second = runs.compute([dataset], quick, duration=3600)
    assert second.transactions == first.transactions
    assert second.valid_until == first.valid_until
    assert second.cost == {
        "tokens": {},
        "fees": {},
        "datatokens": {},
        "gas_used": 0,
        "gas_fee_wei": "0",
        "transactions": [],
        "deposited": {},
        "locked": {},
    }


def test_a_fee_whose_time_is_over_is_renewed_where_it_counts(runs: Runs, dataset: str, quick: str) -> None:
    # Paid for less than a job must have left, so that the next run finds it over.
    first = runs.compute([dataset], quick, duration=60)
    renewed = runs.compute([dataset], quick, duration=3600)
    assert sent(renewed) == 1
    assert renewed.cost["datatokens"] == {}
    # The Provider looks at the time of datasets' fees only.
    assert renewed.algorithm.transaction == first.algorithm.transaction
    (of_dataset,) = renewed.datasets
    assert of_dataset.transaction == renewed.cost["transactions"][0]
    assert of_dataset.started == first.datasets[0].transaction
    # What proves a renewed order is the renewal.
    third = runs.compute([dataset], quick, duration=3600)
    assert (third.transactions, sent(third)) == (renewed.transactions, 0)


def test_a_renewed_order_is_renewed_again(runs: Runs, dataset: str, quick: str) -> None:
    first = runs.compute([dataset], quick, duration=60)
    # Longer each time, or within a second the Provider would ask for no fee; but less than a job must have left.
    for duration in (80, 100):
        renewed = runs.compute([dataset], quick, duration=duration)
        assert sent(renewed) == 1
        assert renewed.datasets[0].started == first.datasets[0].transaction
    assert runs.store.transactions(dataset) == [renewed.datasets[0].transaction]


def test_an_expired_order_is_ordered_anew(runs: Runs, publish: Callable[..., str], quick: str) -> None:
    brief = publish("dataset", timeout=60)
    first = runs.compute([brief], quick)
    second = runs.compute([brief], quick)
    assert second.algorithm.transaction == first.algorithm.transaction
    assert second.datasets[0].transaction != first.datasets[0].transaction
    assert len(second.cost["datatokens"]) == 1


def test_a_paid_environment_asks_the_fee_again_and_nothing_else(
    runs: Runs, client_of: Callable[..., OceanClient], publish: Callable[..., str], dataset: str, quick: str
) -> None:
    environment = next(found for found in client_of(BOB).orders.environments() if not found.is_free)
    ocean = client_of(BOB).contract_address("Ocean")
    other = publish("dataset")
    options: dict[str, Any] = {"environment": environment.id}
    first = runs.compute([dataset, other], quick, duration=600, **options)
    assert int(first.cost["fees"][ocean]) == int(first.cost["tokens"][ocean]) > 0
    again = runs.compute([dataset, other], quick, duration=600, **options)
    assert (again.transactions, sent(again)) == (first.transactions, 0)
    # The same as an additional dataset: its order that carries the fee would make another agreement.
    swapped = runs.compute([other, dataset], quick, duration=600, **options)
    assert set(swapped.transactions) & set(first.transactions) == {first.algorithm.transaction}
    assert swapped.valid_until >= first.valid_until


def test_in_a_paid_environment_only_the_order_with_the_fee_is_renewed(
    runs: Runs, client_of: Callable[..., OceanClient], dataset: str, quick: str
) -> None:
    environment = next(found for found in client_of(BOB).orders.environments() if not found.is_free)
    runs.compute([dataset], quick, environment=environment.id, duration=90)
    renewed = runs.compute([dataset], quick, environment=environment.id, duration=600)
    ocean = client_of(BOB).contract_address("Ocean")
    # An approval of the exact fee, and the renewal.
    assert sent(renewed) == 2
    assert renewed.cost["datatokens"] == {}
    assert list(renewed.cost["fees"]) == [ocean]
    # A schedule that pays for a shorter time does not fall over what one has paid for a longer time.
    shorter = Runs(client_of)
    shorter.store.kept = {key: text for key, text in runs.store.kept.items() if key.startswith(quick)}
    assert shorter.compute([dataset], quick, environment=environment.id, duration=300).cost["fees"]


def test_a_standing_approval_saves_later_renewals_a_transaction(
    runs: Runs, client_of: Callable[..., OceanClient], dataset: str, quick: str
) -> None:
    environment = next(found for found in client_of(BOB).orders.environments() if not found.is_free)
    options: dict[str, Any] = {"environment": environment.id, "approve_payments": 20}
    runs.compute([dataset], quick, duration=90, **options)
    # Longer, or within a second the Provider would ask for no fee.
    assert sent(runs.compute([dataset], quick, duration=100, **options)) == 1
    client = client_of(BOB)
    token = client.assets.resolve(dataset).service("compute").datatoken
    ocean = client.datatokens.contract(client.contract_address("Ocean"))
    fee = int(environment.price_per_minute * 10**18) * 100 // 60
    left = int(ocean.allowance(BOB.address, token))
    assert 0 < left < 20 * fee
    # What is left is taken back, so that other tests find none.
    with client.transactions.step("take the approval back") as tx:
        ocean.approve(token, 0, tx)


@pytest.fixture
def sleeping(runs: Runs, publish: Callable[..., str], dataset: str) -> Any:
    sleepy = publish("algorithm", "sleepy.py")
    client, order = runs.pay([dataset], sleepy)
    job = client.jobs.start(order)
    yield sleepy, order, job
    for other in client.services(order.provider_url).jobs():
        if other.agreement_id in order.transactions:
            client.jobs.stop(other.id)


def test_an_order_of_an_unfinished_job_is_waited_for_or_left_alone(
    runs: Runs, dataset: str, sleeping: Any
) -> None:
    sleepy, order, job = sleeping
    with pytest.raises(OrderInUseError, match=job.id) as raised:
        runs.pay([dataset], sleepy)
    assert raised.value.job_id == job.id
    client, another = runs.pay([dataset], sleepy, most_orders=2, holder="holder of another")
    assert another.algorithm.transaction != order.algorithm.transaction
    # Only one job at a time has the agreement; any number may share the dataset's order.
    assert another.datasets[0].transaction == order.datasets[0].transaction
    assert len(another.cost["datatokens"]) == 1
    runs.live.add("holder of another")
    with pytest.raises(OrderInUseError, match="2 order"):
        runs.pay([dataset], sleepy, most_orders=2)
    second = client.jobs.start(another)
    assert not second.is_finished
    client.jobs.stop(second.id)
    finished(client, second)
    # Of two orders the free one is taken.
    _, free = runs.pay([dataset], sleepy)
    assert free.transactions == another.transactions


def test_an_order_that_another_run_has_paid_for_is_left_to_it(
    runs: Runs, dataset: str, quick: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, order = runs.pay([dataset], quick, holder="other")
    runs.live.add("other")
    with pytest.raises(OrderInUseError, match="other is about to start a job") as raised:
        runs.pay([dataset], quick)
    assert raised.value.job_id is None
    # Once it has started its job, and that is over, the order is free, whatever else the run does.
    finished(client, client.jobs.start(order))
    _, second = runs.pay([dataset], quick, holder="second")
    assert second.transactions == order.transactions
    # A run that is over without having started anything has no claim, nor one that takes too long.
    _, third = runs.pay([dataset], quick, holder="third")
    assert third.transactions == order.transactions
    runs.live.add("third")
    with pytest.raises(OrderInUseError):
        runs.pay([dataset], quick)
    monkeypatch.setattr("airflow_ocean.c2d.order_book.LONGEST_CLAIM", -LONGEST_CLAIM)
    assert runs.pay([dataset], quick)[1].transactions == order.transactions


def test_a_retry_keeps_to_the_first_choice_and_pays_nothing_twice(
    runs: Runs, client_of: Callable[..., OceanClient], dataset: str, quick: str
) -> None:
    journal = MemoryJournal()
    spent = client_of(BOB)
    before = spent.web3.eth.get_transaction_count(BOB.address)
    runs.store.fails = True
    with pytest.raises(ConnectionError):
        runs.pay([dataset], quick, journal, holder="mine")
    after = spent.web3.eth.get_transaction_count(BOB.address)
    assert after - before == 4
    runs.store.fails = False
    _, retried = runs.pay([dataset], quick, journal, holder="mine")
    assert sent(retried) == 4, "the cost tells what the first try spent"
    _, cleared = runs.pay([dataset], quick, journal, holder="mine")
    assert cleared == retried
    assert spent.web3.eth.get_transaction_count(BOB.address) == after
    assert runs.store.transactions(quick) == [retried.algorithm.transaction]


def test_orders_that_the_chain_does_not_know_are_ordered_anew(runs: Runs, dataset: str, quick: str) -> None:
    _, first = runs.pay([dataset], quick)
    for key in runs.store.kept:
        (kept,) = runs.store.get(key)
        of_another_chain = "0x" + secrets.token_hex(32)
        kept["order"].update(transaction=of_another_chain, started=of_another_chain)
        runs.store.set(key, [kept])
    second = runs.compute([dataset], quick)
    assert not set(second.transactions) & set(first.transactions)
    assert len(second.cost["datatokens"]) == 2
    assert sorted(second.transactions) == sorted(
        runs.store.transactions(dataset) + runs.store.transactions(quick)
    )


def test_something_else_in_the_store_is_refused(runs: Runs, dataset: str, quick: str) -> None:
    _, order = runs.pay([dataset], quick)
    for key in runs.store.kept:
        runs.store.set(key, [{"order": order.transactions[0]}])
    with pytest.raises(InvalidInputError, match="clear the state of the asset ocean_orders"):
        runs.pay([dataset], quick)
