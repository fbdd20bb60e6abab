"""The same library on an Ocean Node: publishing, allowing, paying through the escrow, computing, and starting once."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_ocean.c2d import starting
from airflow_ocean.c2d.assets import AssetSpec, ComputePolicy, Pricing
from airflow_ocean.c2d.client import OceanClient
from airflow_ocean.c2d.errors import (
    CostLimitError,
    InsufficientFundsError,
    InvalidInputError,
    JobNotFoundError,
    NotAllowedError,
    OrderInUseError,
    ServiceUnavailableError,
    StartLostError,
    StartUnderWayError,
)
from airflow_ocean.c2d.escrow import Settlement
from airflow_ocean.c2d.estimates import of_payment, of_publishing_and_payment
from airflow_ocean.c2d.journal import MemoryJournal
from airflow_ocean.c2d.limits import CostLimit
from airflow_ocean.c2d.network import Network
from airflow_ocean.c2d.order_book import OrderBook
from airflow_ocean.c2d.orders import Order
from airflow_ocean.c2d.services import JobRequest, JobTerms, http
from airflow_ocean.c2d.wallet import Wallet
from include.localnet import network as local_network
from include.localnet.accounts import ALICE, BOB, CARLOS, DEPLOYER
from include.localnet.processes import ProcessTable
from include.localnet.settings import NetworkSettings, choose_ports
from tests.support.fault_proxy import Answer, Fault, FaultProxy, Rule
from tests.support.gas import gas_of, gas_signed_for
from tests.support.waiting import wait_until
from tests.unit.c2d.conftest import CONTAINER, Branin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_ocean.c2d.environments import ComputeEnvironment
    from airflow_ocean.c2d.jobs import Job
    from airflow_ocean.c2d.journal import Journal
    from include.localnet.accounts import Account
    from tests.support.fault_proxy import Request

    ClientOf = Callable[..., OceanClient]

OCEAN = 10**18


class Registry(ThreadingHTTPServer):
    """Says that there is every image, as soon as its gate is open: a node that asks has locked the payment already."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _RegistryHandler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.gate, self.asked = threading.Event(), threading.Event()
        self.gate.set()

    @contextlib.contextmanager
    def shut(self) -> Iterator[None]:
        """Let whoever asks wait."""
        self.asked.clear()
        self.gate.clear()
        try:
            yield
        finally:
            self.gate.set()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet: a node that was killed does not wait for the answer."""


class _RegistryHandler(BaseHTTPRequestHandler):
    server: Registry

    def do_GET(self) -> None:
        self.server.asked.set()
        self.server.gate.wait(60)
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Keep quiet."""


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with Registry() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def node_network(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> Iterator[NetworkSettings]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("IMAGE_REGISTRY", registry.url)
        yield from running_network(tmp_path_factory)


def running_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkSettings]:
    settings = NetworkSettings(tmp_path_factory.mktemp("node-network"), choose_ports(0), stack="node")
    try:
        local_network.up(settings)
        yield settings
    finally:
        local_network.down(settings.home)


@pytest.fixture(scope="module")
def client_of(node_network: NetworkSettings) -> Iterator[ClientOf]:
    network = Network(
        node_network.rpc_url, node_network.node_url, address_file=str(node_network.address_file)
    )
    clients: list[OceanClient] = []

    def make(account: Account, journal: Journal | None = None, limit: CostLimit | None = None) -> OceanClient:
        clients.append(OceanClient(network, account.private_key, journal, limit))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def published(client_of: ClientOf, node_network: NetworkSettings, name: str, **options: Any) -> Any:
    file = {"type": "url", "url": f"{node_network.files_url}/{options.pop('file', 'branin.arff')}"}
    spec = AssetSpec(options.pop("kind", "dataset"), name, (file,), pricing=Pricing.dispenser(), **options)
    return client_of(ALICE).assets.publish(spec)


@pytest.fixture(scope="module")
def branin(client_of: ClientOf, node_network: NetworkSettings) -> Branin:
    dataset = published(client_of, node_network, "Branin", template=2)
    algorithm = published(
        client_of, node_network, "GPR", kind="algorithm", file="algorithm.py", container=CONTAINER
    )
    client_of(ALICE).assets.allow_algorithm(dataset.did, algorithm_did=algorithm.did)
    return Branin(dataset, algorithm)


@pytest.fixture
def paid_part(client_of: ClientOf) -> ComputeEnvironment:
    return next(e for e in client_of(BOB).orders.environments() if not e.is_free)


def paid(client: OceanClient, branin: Branin, environment: str, **options: Any) -> Order:
    quote = client.orders.quote(
        [branin.dataset.did], branin.algorithm.did, environment=environment, **options
    )
    return client.orders.pay(quote)


def finished(client: OceanClient, job: Job) -> Job:
    return wait_until(lambda: (found := client.jobs.get(job.id)).is_finished and found, f"{job.id} ends", 120)


def settled(client: OceanClient, job: Job) -> Job:
    def look() -> Job | None:
        found = client.jobs.get(job.id)
        return found if client.escrow.settlement(found).claimed is not None else None

    return wait_until(look, f"{job.id} is settled", 120)


class TestTrust:
    def test_an_algorithm_that_is_not_allowed(
        self, client_of: ClientOf, node_network: NetworkSettings, branin: Branin, paid_part: Any
    ) -> None:
        closed = published(client_of, node_network, "Closed")
        with pytest.raises(NotAllowedError, match="not allowed to run"):
            client_of(BOB).orders.quote([closed.did], branin.algorithm.did, environment=paid_part.id)

    def test_open_to_all(
        self, client_of: ClientOf, node_network: NetworkSettings, branin: Branin, paid_part: Any
    ) -> None:
        everybody = published(client_of, node_network, "Open", compute=ComputePolicy(open_to_all=True))
        quote = client_of(BOB).orders.quote(
            [everybody.did], branin.algorithm.did, environment=paid_part.id, duration=60
        )
        assert quote.payment

    def test_a_publisher_cannot_be_trusted(self, client_of: ClientOf, branin: Branin) -> None:
        alice = client_of(ALICE)
        with pytest.raises(NotAllowedError, match="Allow each algorithm by its DID"):
            alice.assets.allow_algorithm(branin.dataset.did, publisher=ALICE.address)
        policy = ComputePolicy(trusted_publishers=(ALICE.address,))
        with pytest.raises(NotAllowedError, match="Allow each algorithm by its DID"):
            alice.assets.publish(
                AssetSpec("dataset", "D", ({"type": "url", "url": "http://x"},), compute=policy)
            )
        assert alice.transactions.mined == []


class TestFree:
    def test_no_order_is_needed(self, client_of: ClientOf, branin: Branin) -> None:
        bob = client_of(BOB)
        order = paid(bob, branin, "free", duration=300)
        assert order.transactions == []
        assert bob.transactions.mined == []
        assert Order.from_dict(order.to_dict()) == order
        job = bob.jobs.start(order, {"points": 30})
        done = finished(bob, job)
        assert done.succeeded
        assert done.algorithm_did == branin.algorithm.did
        assert done.dataset_dids == (branin.dataset.did,)
        assert "rows" in bob.jobs.log_tail(done)

    def test_a_stop_that_another_request_overtook_is_signed_again(
        self, client_of: ClientOf, branin: Branin, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bob = client_of(BOB)
        order = paid(bob, branin, "free", duration=60)
        job = bob.jobs.start(order)
        real, used = Wallet.next_nonce, []

        def old_at_first(_wallet: Wallet) -> int:
            used.append(real() if used else 1)
            return used[-1]

        monkeypatch.setattr(Wallet, "next_nonce", old_at_first)
        assert bob.services(order.provider_url).stop(job).id == job.id
        assert len(used) > 1
        finished(bob, job)

    def test_a_failing_algorithm_fails_the_job(
        self, client_of: ClientOf, node_network: NetworkSettings, branin: Branin
    ) -> None:
        (node_network.files_folder / "fails.py").write_text(
            "import sys; open('/data/outputs/half', 'w').write('x'); print('boom'); sys.exit(3)"
        )
        bad = published(
            client_of, node_network, "Bad", kind="algorithm", file="fails.py", container=CONTAINER
        )
        bob = client_of(BOB)
        quote = bob.orders.quote([branin.dataset.did], bad.did, duration=60)
        done = finished(bob, bob.jobs.start(bob.orders.pay(quote)))
        assert not done.succeeded
        assert "exit code 3" in done.describe()
        assert bob.jobs.log_tail(done) == "boom"


class TestSeveralFiles:
    @pytest.mark.parametrize("part", ["free", "paid"])
    def test_datasets_with_one_file_name_are_refused(
        self, client_of: ClientOf, node_network: NetworkSettings, branin: Branin, paid_part: Any, part: str
    ) -> None:
        twin = published(client_of, node_network, "Twin", compute=ComputePolicy(open_to_all=True))
        bob = client_of(BOB)
        dids = [branin.dataset.did, twin.did]
        environment = paid_part.id if part == "paid" else part
        with pytest.raises(InvalidInputError, match="both named 'branin.arff'.*Run a job for each") as raised:
            bob.orders.quote(dids, branin.algorithm.did, environment=environment, duration=60)
        assert all(did in str(raised.value) for did in dids)

    def test_datasets_with_two_file_names_are_all_there(
        self, client_of: ClientOf, node_network: NetworkSettings, branin: Branin
    ) -> None:
        (node_network.files_folder / "second.csv").write_text("2\n")
        (node_network.files_folder / "lists.py").write_text(
            "import os; open('/data/outputs/all', 'w'); print(*sorted(os.listdir('/data/inputs')))"
        )
        policy = ComputePolicy(open_to_all=True)
        second = published(client_of, node_network, "Second", file="second.csv", compute=policy)
        lists = published(
            client_of, node_network, "Lists", kind="algorithm", file="lists.py", container=CONTAINER
        )
        bob = client_of(BOB)
        quote = bob.orders.quote([branin.dataset.did, second.did], lists.did, duration=60)
        done = finished(bob, bob.jobs.start(bob.orders.pay(quote)))
        assert bob.jobs.log_tail(done) == "algoCustomData.json branin.arff second.csv"

    @pytest.mark.parametrize("kind", ["dataset", "algorithm"])
    def test_an_asset_has_one_file(self, client_of: ClientOf, kind: Any) -> None:
        alice = client_of(ALICE)
        files = tuple({"type": "url", "url": f"http://x/{name}"} for name in "ab")
        container = CONTAINER if kind == "algorithm" else None
        with pytest.raises(InvalidInputError, match="has 2 files.*one asset for each file. Nothing was sent"):
            alice.assets.publish(AssetSpec(kind, "Many", files, container=container))
        assert alice.transactions.mined == []


class TestPaying:
    def test_what_is_locked_is_deposited_claimed_and_withdrawn(
        self, client_of: ClientOf, branin: Branin, paid_part: ComputeEnvironment
    ) -> None:
        bob = client_of(BOB)
        token, address = bob.contract_address("Ocean"), bob.contract_address("Escrow")
        before = bob.datatokens.balance(token)
        order = paid(bob, branin, paid_part.id, duration=120)
        assert order.payment
        assert order.payment.amount == 2 * OCEAN
        assert order.cost["locked"] == order.cost["deposited"] == {token: str(2 * OCEAN)}
        assert order.cost["tokens"] == {}
        assert order.cost["datatokens"] == {
            branin.dataset.datatoken_address: 1,
            branin.algorithm.datatoken_address: 1,
        }
        assert len(order.transactions) == 2
        assert Order.from_dict(order.to_dict()) == order
        allowed = bob.escrow.authorization(order.payment)
        assert (allowed.most, allowed.most_locks) == (2 * OCEAN, 1)
        job = bob.jobs.start(order)
        assert bob.escrow.funds(address, token).locked == 2 * OCEAN
        held = bob.escrow.settlement(job)
        assert (held.claimed, held.lock and held.lock.amount) == (None, 2 * OCEAN)
        with pytest.raises(InsufficientFundsError, match="comes free when the jobs are settled"):
            bob.escrow.withdraw([address], token, 1)
        assert finished(bob, job).succeeded
        done = settled(bob, job)
        assert bob.escrow.settlement(done) == Settlement(OCEAN)  # a minute was begun
        assert bob.escrow.withdraw([address], token) == OCEAN
        assert bob.escrow.withdraw([address], token) == OCEAN  # the step was done before
        assert bob.datatokens.balance(token) == before - OCEAN

    def test_a_payment_that_is_cleared_when_its_job_has_begun_deposits_nothing_more(
        self, client_of: ClientOf, branin: Branin, paid_part: ComputeEnvironment
    ) -> None:
        paying, starting_ = MemoryJournal(), MemoryJournal()
        order = paid(client_of(BOB, paying), branin, paid_part.id, duration=60)
        job = client_of(BOB, starting_).jobs.start(order)
        bob = client_of(BOB, paying)
        token = bob.contract_address("Ocean")
        held = bob.datatokens.balance(token)
        again = paid(bob, branin, paid_part.id, duration=60)
        assert again.transactions == order.transactions
        assert sorted(again.cost["transactions"]) == sorted(order.cost["transactions"])
        assert bob.datatokens.balance(token) == held
        # What a node asks now may be more than what was asked then.
        with pytest.raises(CostLimitError, match=r"costs 1 of token .*0\.5; nothing was spent"):
            paid(client_of(BOB, paying, CostLimit.parse("0.5")), branin, paid_part.id, duration=60)
        assert client_of(BOB, starting_).jobs.start(again).id == job.id
        assert finished(bob, job).succeeded
        settled(bob, job)

    def test_a_deposit_that_is_enough_is_used_and_orders_too(
        self, client_of: ClientOf, branin: Branin, paid_part: ComputeEnvironment
    ) -> None:
        first = paid(client_of(BOB), branin, paid_part.id, duration=60)
        known = {item.did: item.transaction for item in (*first.datasets, first.algorithm)}
        bob = client_of(BOB)
        quote = bob.orders.quote(
            [branin.dataset.did],
            branin.algorithm.did,
            environment=paid_part.id,
            duration=60,
            known_orders=known,  # type: ignore[arg-type]
        )
        again = bob.orders.pay(quote)
        assert again.transactions == first.transactions
        assert bob.transactions.mined == []
        assert again.cost["locked"] == first.cost["locked"]
        # Both may start: the second fills the deposit up, which the first has used.
        one, two = client_of(BOB).jobs.start(first), bob.jobs.start(again)
        assert one.id != two.id
        for job in (one, two):
            assert finished(bob, job).succeeded
            settled(bob, job)

    def test_resources_and_variables(
        self, client_of: ClientOf, node_network: NetworkSettings, branin: Branin, paid_part: Any
    ) -> None:
        (node_network.files_folder / "shows.py").write_text(
            "import os; open('/data/outputs/shown', 'w').write(os.environ['SHOWN'])"
        )
        shows = published(
            client_of, node_network, "Shows", kind="algorithm", file="shows.py", container=CONTAINER
        )
        client_of(ALICE).assets.allow_algorithm(branin.dataset.did, algorithm_did=shows.did)
        bob = client_of(BOB)
        quote = bob.orders.quote(
            [branin.dataset.did],
            shows.did,
            environment=paid_part.id,
            duration=61,
            resources={"cpu": 2},
            queue_wait=30,
        )
        assert quote.payment
        assert quote.payment.amount == 4 * OCEAN == paid_part.price(61, {"cpu": 2}) * OCEAN
        done = finished(bob, bob.jobs.start(bob.orders.pay(quote), variables={"SHOWN": "seen"}))
        assert done.succeeded
        settled(bob, done)

    @pytest.mark.parametrize("limit", ["1.99", {"*": "1.99"}])
    def test_the_limit_counts_what_is_locked(
        self, client_of: ClientOf, branin: Branin, paid_part: ComputeEnvironment, limit: Any
    ) -> None:
        bob = client_of(BOB, None, CostLimit.parse(limit))
        with pytest.raises(CostLimitError, match="costs 2 of token .*1.99; nothing was spent"):
            paid(bob, branin, paid_part.id, duration=120)
        assert bob.transactions.mined == []

    def test_a_wallet_with_too_little(
        self, client_of: ClientOf, branin: Branin, paid_part: ComputeEnvironment
    ) -> None:
        token = client_of(CARLOS).contract_address("Ocean")
        held = client_of(CARLOS).datatokens.balance(token)
        client_of(CARLOS).datatokens.transfer(token, ALICE.address, held - OCEAN)
        carlos = client_of(CARLOS)
        with pytest.raises(
            InsufficientFundsError, match="holds 1 OCEAN .* and needs 2 OCEAN .*nothing was sent"
        ):
            paid(carlos, branin, paid_part.id, duration=120)
        assert carlos.transactions.mined == []

    def test_the_estimate_names_the_lock(
        self, client_of: ClientOf, branin: Branin, paid_part: ComputeEnvironment
    ) -> None:
        bob, alice = client_of(BOB), client_of(ALICE)
        quote = bob.orders.quote(
            [branin.dataset.did], branin.algorithm.did, environment=paid_part.id, duration=180
        )
        token = bob.contract_address("Ocean")
        estimate = of_payment(bob, quote, 180)
        assert estimate.totals()[token] == 3 * OCEAN
        assert estimate.above(CostLimit.parse("2.9")) == {token: 3 * OCEAN}
        early = of_publishing_and_payment(alice, bob, paid_part.id, JobTerms(180))
        assert early.totals()[token] == 3 * OCEAN
        estimate = of_payment(bob, quote, 180)
        estimated, before = gas_of(estimate, bob), len(bob.transactions.mined)
        order = bob.orders.pay(quote)
        assert gas_signed_for(bob, bob.transactions.mined[before:]) <= estimated
        assert order.payment


class BreakingJournal(MemoryJournal):
    """Lets the process end before a step of this name begins, as long as it is broken."""

    def __init__(self, step: str) -> None:
        super().__init__()
        self.broken: str | None = step

    def save(self, step: str, entry: dict[str, Any]) -> None:
        if step == self.broken:
            raise ConnectionError("the API server is away")
        super().save(step, entry)


class Store(dict[str, Any]):
    """An :class:`~airflow_ocean.c2d.order_book.OrderStore` in memory."""

    def set(self, key: str, value: Any) -> None:
        self[key] = json.loads(json.dumps(value))


@pytest.mark.parametrize("reuses_orders", [False, True])
def test_a_payment_goes_on_when_its_jobs_longest_time_has_passed(
    client_of: ClientOf,
    branin: Branin,
    paid_part: ComputeEnvironment,
    monkeypatch: pytest.MonkeyPatch,
    reuses_orders: bool,
) -> None:
    journal, store = BreakingJournal(f"order {branin.algorithm.did}"), Store()

    def pay() -> tuple[OceanClient, Order]:
        bob = client_of(BOB, journal)
        if not reuses_orders:
            return bob, paid(bob, branin, paid_part.id, duration=60)
        book = OrderBook(bob, store, "a task", lambda _other: False)
        dids = [branin.dataset.did], branin.algorithm.did
        return bob, book.pay(*dids, environment=paid_part.id, duration=60)

    with pytest.raises(ConnectionError):
        pay()
    first = journal.load(f"order {branin.dataset.did}")
    assert first, "the dataset's order was paid"
    journal.broken = None
    now = time.time
    with monkeypatch.context() as later:
        later.setattr(time, "time", lambda: now() + 61)
        bob, order = pay()
    assert order.datasets[0].transaction == bob.transactions.of_step(f"order {branin.dataset.did}").hash
    assert order.cost["datatokens"] == {
        branin.dataset.datatoken_address: 1,
        branin.algorithm.datatoken_address: 1,
    }
    assert order.terms == JobTerms(60)
    job = bob.jobs.start(order)
    settled(bob, finished(bob, job))


@pytest.fixture
def node_proxy(node_network: NetworkSettings) -> Iterator[FaultProxy]:
    proxy = FaultProxy({"node": node_network.node_url})
    yield proxy
    proxy.close()


def is_start(request: Request) -> bool:
    return request.method == "POST" and request.path.endswith(("/compute", "/freeCompute"))


class TestStartingOnce:
    def test_so_many_jobs_of_an_algorithm_are_unfinished_as_may_be(
        self, client_of: ClientOf, branin: Branin
    ) -> None:
        starts = [
            (client, client.orders.pay(client.orders.quote([branin.dataset.did], branin.algorithm.did)))
            for client in (client_of(BOB), client_of(BOB))
        ]

        def start(client: OceanClient, order: Order) -> Job | OrderInUseError:
            try:
                return client.jobs.start(order, most_jobs=1)
            except OrderInUseError as error:
                return error

        # Both at once: neither may find that there is no job yet.
        with ThreadPoolExecutor(2) as pool:
            found = [pool.submit(start, *given) for given in starts]
            outcomes = [future.result() for future in found]
        late = next(number for number, outcome in enumerate(outcomes) if isinstance(outcome, OrderInUseError))
        (bob, order), error, job = starts[late], outcomes[late], outcomes[1 - late]
        assert not isinstance(job, OrderInUseError)
        assert isinstance(error, OrderInUseError)
        assert error.job_id == job.id
        assert "1 may be" in str(error)
        # A retry of the start that went well finds its job before it counts.
        finished(bob, job)
        finished(bob, bob.jobs.start(order, most_jobs=1))

    def test_a_job_that_the_node_has_deleted_is_not_started_again(
        self, client_of: ClientOf, branin: Branin, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        journal = MemoryJournal()
        bob = client_of(BOB, journal)
        order = paid(bob, branin, "free", duration=60)
        job = finished(bob, bob.jobs.start(order))
        later = client_of(BOB, journal)
        monkeypatch.setattr(later.services(order.provider_url), "jobs", list)
        with pytest.raises(JobNotFoundError, match=f"{job.id}.*lists no more.*force_new"):
            later.jobs.start(order)
        label = (journal.load("start job") or {})["label"]
        assert [found.id for found in bob.services().jobs() if found.label == label] == [job.id]

    def test_a_retry_finds_the_job(self, client_of: ClientOf, branin: Branin) -> None:
        journal = MemoryJournal()
        order = paid(client_of(BOB), branin, "free", duration=60)
        job = client_of(BOB, journal).jobs.start(order)
        assert client_of(BOB, journal).jobs.start(order).id == job.id
        other = client_of(BOB).jobs.start(order)
        assert other.id != job.id
        for each in (job, other):
            finished(client_of(BOB), each)

    @pytest.mark.parametrize("arrives", [True, False])
    def test_an_answer_that_was_lost(
        self, client_of: ClientOf, branin: Branin, monkeypatch: pytest.MonkeyPatch, arrives: bool
    ) -> None:
        journal = MemoryJournal()
        bob = client_of(BOB, journal)
        order = paid(bob, branin, "free", duration=60)
        services = bob.services(order.provider_url)
        start, started = services.start, []

        def lossy(request: Any, announce: Callable[[], None]) -> Job:
            announce()
            if arrives:
                started.append(start(request).id)
            raise ServiceUnavailableError("the answer is lost")

        monkeypatch.setattr(services, "start", lossy)
        monkeypatch.setattr(starting, "UNDER_WAY", 1.0)
        with pytest.raises(ServiceUnavailableError, match="the answer is lost"):
            bob.jobs.start(order)
        before = {job.id for job in services.jobs()}
        job = client_of(BOB, journal).jobs.start(order)
        assert (job.id in before) == arrives
        assert [job.id] == started if arrives else job.id not in before
        finished(bob, job)

    def test_a_refused_start_leaves_nothing_under_way(self, client_of: ClientOf, branin: Branin) -> None:
        journal = MemoryJournal()
        bob = client_of(BOB, journal)
        order = paid(bob, branin, "free", duration=60)
        broken = replace(order, environment="0x1-0x2#free")
        with pytest.raises(InvalidInputError, match="Invalid C2D Environment"):
            bob.jobs.start(broken)
        entry = journal.load("start job")
        assert entry is not None
        assert entry["asked_at"] is None
        finished(bob, bob.jobs.start(order))

    def test_an_answer_that_nobody_can_read(
        self, client_of: ClientOf, branin: Branin, node_proxy: FaultProxy
    ) -> None:
        journal = MemoryJournal()
        order = paid(client_of(BOB), branin, "free", duration=60)
        order = replace(order, provider_url=node_proxy.url("node"))
        halved = Rule(is_start, lambda answer: replace(answer, body=answer.body[: len(answer.body) // 2]))
        with (
            node_proxy.answering(halved),
            pytest.raises(ServiceUnavailableError, match="not JSON.*a retry looks first"),
        ):
            client_of(BOB, journal).jobs.start(order)
        label = journal.load("start job")["label"]  # type: ignore[index]
        bob = client_of(BOB, journal)
        job = bob.jobs.start(order)
        assert [found.id for found in bob.services(order.provider_url).jobs() if found.label == label] == [
            job.id
        ]
        finished(bob, job)

    def test_a_refusal_that_came_from_something_in_between(
        self, client_of: ClientOf, branin: Branin, node_proxy: FaultProxy
    ) -> None:
        journal = MemoryJournal()
        order = paid(client_of(BOB), branin, "free", duration=60)
        order = replace(order, provider_url=node_proxy.url("node"))
        refused = Rule(is_start, lambda _answer: Answer(408, b"this took too long for me"))
        with node_proxy.answering(refused), pytest.raises(ServiceUnavailableError, match="too long for me"):
            client_of(BOB, journal).jobs.start(order)
        label = journal.load("start job")["label"]  # type: ignore[index]
        bob = client_of(BOB, journal)
        job = bob.jobs.start(order)
        assert job.label == label
        assert sum(found.label == label for found in bob.services(order.provider_url).jobs()) == 1
        finished(bob, job)

    def test_a_lost_request_is_waited_for_longer_than_for_its_answer(self) -> None:
        assert http.TIMEOUT.read
        assert http.TIMEOUT.read < starting.UNDER_WAY

    def test_each_request_is_announced(
        self, client_of: ClientOf, branin: Branin, node_proxy: FaultProxy
    ) -> None:
        bob = client_of(BOB)
        order = paid(bob, branin, "free", duration=60)
        services = bob.services(node_proxy.url("node"))
        request = JobRequest(order.dataset_inputs(), order.algorithm_input(), order.environment, order.terms)
        announced: list[float] = []
        node_proxy.watch(os.getpid())
        node_proxy.arm({2: Fault.ERROR_429}, retry_after=2)  # the first one asks for the algorithm's metadata
        try:
            job = services.start(request, lambda: announced.append(time.time()))
        finally:
            node_proxy.watch()
        assert [fault for fault, _ in node_proxy.struck] == [Fault.ERROR_429]
        first, second = announced
        assert second - first >= 2
        finished(bob, job)

    def test_a_payment_that_is_locked_is_not_paid_again_while_its_start_is_under_way(
        self,
        client_of: ClientOf,
        branin: Branin,
        paid_part: ComputeEnvironment,
        registry: Registry,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        journal = MemoryJournal()
        order = paid(client_of(DEPLOYER), branin, paid_part.id, duration=60)
        assert order.payment
        monkeypatch.setattr(starting, "UNDER_WAY", 0.0)
        with registry.shut():
            with monkeypatch.context() as impatient:
                impatient.setattr(http, "TIMEOUT", httpx.Timeout(2.0))
                with pytest.raises(ServiceUnavailableError, match="does not answer"):
                    client_of(DEPLOYER, journal).jobs.start(order)
            assert registry.asked.is_set()
            retrying = client_of(DEPLOYER, journal)
            with pytest.raises(StartUnderWayError, match="has locked its payment.*lists no job") as raised:
                retrying.jobs.start(order)
            assert raised.value.retry_after == 120
            assert retrying.transactions.mined == []
            (lock,) = retrying.escrow.locks(order.payment.escrow, order.payment.token)
            assert (lock.payee, lock.amount) == (order.payment.payee, order.payment.amount)
        services = retrying.services(order.provider_url)
        wait_until(services.jobs, "the job is stored", 60)
        job = client_of(DEPLOYER, journal).jobs.start(order)
        assert [found.id for found in services.jobs()] == [job.id]
        assert job.payment
        assert int(job.payment.escrow_job, 16) == lock.job
        settled(retrying, finished(retrying, job))

    def test_a_payment_of_a_start_that_a_node_has_lost(
        self,
        client_of: ClientOf,
        branin: Branin,
        paid_part: ComputeEnvironment,
        node_network: NetworkSettings,
        registry: Registry,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        journal = MemoryJournal()
        order = paid(client_of(DEPLOYER), branin, paid_part.id, duration=60)
        assert order.payment
        before = {job.id for job in client_of(DEPLOYER).services(order.provider_url).jobs()}
        with registry.shut():
            node = ProcessTable(node_network.home).running("node")
            assert node
            killer = threading.Thread(
                target=lambda: registry.asked.wait(60) and os.kill(node.pid, signal.SIGKILL)
            )
            killer.start()
            with pytest.raises(ServiceUnavailableError, match="does not answer"):
                client_of(DEPLOYER, journal).jobs.start(order)
            killer.join()
        wait_until(lambda: not ProcessTable(node_network.home).running("node"), "the node is dead")
        local_network.up(node_network)

        monkeypatch.setattr(starting, "UNDER_WAY", 0.0)
        retrying = client_of(DEPLOYER, journal)
        with pytest.raises(StartUnderWayError):
            retrying.jobs.start(order)
        monkeypatch.setattr(starting, "LONGEST_START", 0.0)
        (lock,) = retrying.escrow.locks(order.payment.escrow, order.payment.token)
        advice = (
            f"lost the job. From {lock.until} on .*cancelExpiredLocks.*clear this task.*withdraw.*force_new"
        )
        with pytest.raises(StartLostError, match=advice):
            retrying.jobs.start(order)
        assert retrying.transactions.mined == []
        # Once it has expired nobody can claim it, so that another one may be paid for.
        with monkeypatch.context() as later:
            later.setattr(time, "time", lambda: lock.expiry + 1.0)
            job = retrying.jobs.start(order)
        assert {job.id for job in retrying.services(order.provider_url).jobs()} - before == {job.id}
        settled(retrying, finished(retrying, job))

    def test_starts_that_share_a_deposit_take_turns(
        self, client_of: ClientOf, branin: Branin, paid_part: ComputeEnvironment
    ) -> None:
        orders = [paid(client_of(BOB), branin, paid_part.id, duration=60) for _ in range(3)]
        found: list[str] = []

        def start(order: Order) -> None:
            found.append(client_of(BOB).jobs.start(order).id)

        threads = [threading.Thread(target=start, args=(order,)) for order in orders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(found)) == 3
        bob = client_of(BOB)
        for job_id in found:
            settled(bob, finished(bob, bob.jobs.get(job_id)))
