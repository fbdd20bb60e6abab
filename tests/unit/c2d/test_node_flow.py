"""The same library on an Ocean Node: publishing, allowing, paying through the escrow, computing, and starting once."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_ocean.c2d.assets import AssetSpec, ComputePolicy, Pricing
from airflow_ocean.c2d.client import OceanClient
from airflow_ocean.c2d.errors import (
    CostLimitError,
    InsufficientFundsError,
    InvalidInputError,
    NotAllowedError,
    ServiceUnavailableError,
)
from airflow_ocean.c2d.escrow import Settlement
from airflow_ocean.c2d.estimates import of_payment, of_publishing_and_payment
from airflow_ocean.c2d.journal import MemoryJournal
from airflow_ocean.c2d.limits import CostLimit
from airflow_ocean.c2d.network import Network
from airflow_ocean.c2d.orders import Order
from airflow_ocean.c2d.services import JobTerms
from airflow_ocean.c2d.wallet import Wallet
from include.localnet import network as local_network
from include.localnet.accounts import ALICE, BOB, CARLOS
from include.localnet.settings import NetworkSettings, choose_ports
from tests.support.gas import gas_of, gas_signed_for
from tests.support.waiting import wait_until
from tests.unit.c2d.conftest import CONTAINER, Branin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_ocean.c2d.environments import ComputeEnvironment
    from airflow_ocean.c2d.jobs import Job
    from airflow_ocean.c2d.journal import Journal
    from include.localnet.accounts import Account

    ClientOf = Callable[..., OceanClient]

OCEAN = 10**18


@pytest.fixture(scope="module")
def node_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkSettings]:
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


class TestStartingOnce:
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

        def lossy(request: Any) -> Job:
            if arrives:
                started.append(start(request).id)
            raise ServiceUnavailableError("the answer is lost")

        monkeypatch.setattr(services, "start", lossy)
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
