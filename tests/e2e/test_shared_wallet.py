"""Sixteen tasks at a time share one wallet, on a chain that makes a block a second: as processes, and in Airflow."""

from __future__ import annotations

import itertools
import json
import multiprocessing
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from airflow_ocean.c2d.assets import AlgorithmContainer, AssetSpec, ComputePolicy, Pricing
from airflow_ocean.c2d.client import OceanClient
from airflow_ocean.c2d.network import Network
from include.localnet import network
from include.localnet.accounts import ALICE, BOB, Account
from include.localnet.ethereum import Chain
from include.localnet.settings import NetworkSettings, choose_ports
from tests.conftest import STACK
from tests.support.airflow import PROJECT
from tests.support.running_airflow import RunningAirflow
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_ocean.c2d.assets import PublishedAsset

pytestmark = [pytest.mark.e2e, pytest.mark.both_stacks]
TASKS = 16
SHORT = """
import pathlib
pathlib.Path("/data/outputs/result").write_text("short")
"""


@pytest.fixture(scope="module")
def slow_localnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkSettings]:
    settings = NetworkSettings(tmp_path_factory.mktemp("slow"), choose_ports(0), block_time=1, stack=STACK)
    try:
        network.up(settings)
        yield settings
    finally:
        network.down(settings.home)


def environment_of(bob: OceanClient) -> str:
    """Return the environment to compute in: in the free part of an Ocean Node's a job takes no orders."""
    return next(found.id for found in bob.orders.environments() if found.needs_orders)


def client(settings: NetworkSettings, key: str) -> OceanClient:
    place = Network(
        settings.rpc_url,
        settings.provider_url,
        settings.metadata_cache_url,
        address_file=str(settings.address_file),
    )
    return OceanClient(place, key)


def dataset(settings: NetworkSettings, name: str, **fields: Any) -> AssetSpec:
    return AssetSpec(
        "dataset", name, ({"type": "url", "url": f"{settings.files_url}/branin.arff"},), **fields
    )


def publish(settings: NetworkSettings, number: int) -> Any:
    with client(settings, ALICE.private_key) as alice:
        published = alice.assets.publish(dataset(settings, f"Dataset {number}"))
        return published.did, published.nft_address, [sent.block for sent in alice.transactions.mined]


def order(settings: NetworkSettings, dids: tuple[str, str], environment: str) -> Any:
    with client(settings, BOB.private_key) as bob:
        quote = bob.orders.quote([dids[0]], dids[1], environment=environment, duration=60)
        paid = bob.orders.pay(quote)
        return paid.transactions, [sent.block for sent in bob.transactions.mined]


def _worker(task: Callable[..., Any], results: Any, arguments: tuple[Any, ...]) -> None:
    try:
        results.put((task(*arguments), None))
    except BaseException as error:
        results.put((None, repr(error)))


def at_once(task: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> list[Any]:
    """Run a task in as many processes as there are arguments and return all results."""
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=_worker, args=(task, results, each)) for each in arguments]
    for worker in workers:
        worker.start()
    answers = [results.get(timeout=240) for _ in workers]
    for worker in workers:
        worker.join()
    assert [error for _, error in answers if error] == []
    return [value for value, _ in answers]


def assert_shared(blocks: list[int]) -> None:
    """Check that the tasks' transactions shared blocks: one waiting for the other would give each its own."""
    assert len(set(blocks)) < len(blocks)


def sent(chain: Chain, account: Account) -> int:
    """Return how many transactions an account has sent, mined or not."""
    return int(chain.request("eth_getTransactionCount", account.address, "pending"), 16)


def test_publishing(slow_localnet: NetworkSettings) -> None:
    chain = Chain(slow_localnet.rpc_url)
    before = sent(chain, ALICE)
    published = at_once(publish, [(slow_localnet, number) for number in range(TASKS)])
    assert len({did for did, _, _ in published}) == TASKS
    assert len({nft for _, nft, _ in published}) == TASKS
    # Each effect is there once: two transactions a task, no more.
    assert sent(chain, ALICE) - before == 2 * TASKS
    assert_shared([block for _, _, mined in published for block in mined])


def published_pair(slow_localnet: NetworkSettings, price: Pricing) -> tuple[PublishedAsset, PublishedAsset]:
    """Publish a dataset for a price, and an algorithm that is given away."""
    slow_localnet.files_folder.mkdir(parents=True, exist_ok=True)
    (slow_localnet.files_folder / "short.py").write_text(SHORT)
    file = {"type": "url", "url": f"{slow_localnet.files_url}/short.py"}
    container = AlgorithmContainer("python", "3.11", "sha256:" + "0" * 64)
    specs = (
        dataset(slow_localnet, "Shared", pricing=price, compute=ComputePolicy(open_to_all=True)),
        AssetSpec(
            "algorithm", "Shared", (file,), container=container, pricing=Pricing.dispenser(), template=2
        ),
    )
    published = []
    for spec in specs:
        with client(slow_localnet, ALICE.private_key) as alice:
            published.append(alice.assets.publish(spec))
    return published[0], published[1]


@pytest.fixture(scope="module")
def pair(slow_localnet: NetworkSettings) -> tuple[PublishedAsset, PublishedAsset]:
    """A dataset and an algorithm, both given away."""
    return published_pair(slow_localnet, Pricing.dispenser())


@pytest.mark.parametrize("paid", [False, True], ids=["given away", "sold, for a fee"])
def test_ordering(slow_localnet: NetworkSettings, paid: bool) -> None:
    """What is sold is paid with an approval, which all tasks share; so is a paid environment's fee or deposit."""
    data, algorithm = pair = published_pair(
        slow_localnet, Pricing.fixed_rate(10**18) if paid else Pricing.dispenser()
    )
    with client(slow_localnet, BOB.private_key) as bob:
        environment = next(
            found.id
            for found in bob.orders.environments()
            if found.needs_orders and not (paid and found.is_free)
        )
    orders = at_once(order, [(slow_localnet, (data.did, algorithm.did), environment)] * TASKS)
    assert len({transactions[0] for transactions, _ in orders}) == TASKS
    assert len({transactions[1] for transactions, _ in orders}) == TASKS
    chain = Chain(slow_localnet.rpc_url)
    for published in pair:
        started = chain.logs(
            "ERC20Template", ["OrderStarted"], 0, chain.block_number(), published.datatoken_address
        )
        assert len(started) == TASKS
        # As many datatokens were got as were spent.
        assert chain.call(published.datatoken_address, "ERC20Template", "balanceOf", BOB.address) == 0
    assert_shared([block for _, mined in orders for block in mined])


def read(settings: NetworkSettings, job_id: str, index: int) -> bytes:
    with client(settings, BOB.private_key) as bob, bob.jobs.open_result(job_id, index) as stream:
        return b"".join(stream.chunks)


def test_signing_requests(
    slow_localnet: NetworkSettings, pair: tuple[PublishedAsset, PublishedAsset]
) -> None:
    """Each request for a result is signed with a nonce, which must be above the last one that the Provider saw."""
    data, algorithm = pair
    with client(slow_localnet, BOB.private_key) as bob:
        job = bob.jobs.start(bob.orders.pay(bob.orders.quote([data.did], algorithm.did)))
        wait_until(lambda: bob.jobs.get(job.id).is_finished, "the job is over", timeout=120)
        (index,) = [file.index for file in bob.jobs.get(job.id).results if file.type == "output"]
    # An Ocean Node packs outputs in an archive.
    (content,) = set(at_once(read, [(slow_localnet, job.id, index)] * TASKS))
    assert b"short" in content


@pytest.fixture(scope="module")
def airflow(
    slow_localnet: NetworkSettings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningAirflow]:
    """An Airflow that runs so many tasks at once."""
    with client(slow_localnet, BOB.private_key) as bob:
        chosen = {"OCEAN_TEST_ENVIRONMENT": environment_of(bob)}
    dags = [PROJECT / "tests" / "support" / "dags" / "shared_wallet.py"]
    home = tmp_path_factory.mktemp("sharing-airflow") / "home"
    airflow = RunningAirflow(slow_localnet, home, dags, {"CORE__PARALLELISM": str(TASKS + 1)})
    airflow.environment |= chosen
    try:
        airflow.start()
        airflow.wait_until_ready()
        airflow.wait_for_dag("shared_wallet")
        airflow.unpause("shared_wallet")
        yield airflow
    finally:
        airflow.stop()


@pytest.mark.timeout(1500)
def test_mapped_tasks_of_a_running_airflow(slow_localnet: NetworkSettings, airflow: RunningAirflow) -> None:
    """All datasets are published at once by one wallet, then all are ordered at once by another."""
    chain = Chain(slow_localnet.rpc_url)
    began, before = chain.block_number(), (sent(chain, ALICE), sent(chain, BOB))
    run = airflow.trigger("shared_wallet")
    state = run.wait_until_over(1200)
    for task in ("publish_dataset", "pay"):
        assert [member["state"] for member in run.members(task)] == ["success"] * TASKS, task
    assert state == "success"

    def pushed(task: str, key: str = "return_value") -> list[Any]:
        return [run.xcom(task, key, number) for number in range(TASKS)]

    end = chain.block_number()
    factory = json.loads(slow_localnet.address_file.read_text())["development"]["ERC721Factory"]
    created = {
        event.arguments["newTokenAddress"]
        for event in chain.logs("ERC721Factory", ["NFTCreated"], began + 1, end, factory)
    }
    nfts = pushed("publish_dataset", "nft_address")
    assert created == {*nfts, run.xcom("publish_algorithm", "nft_address")}
    assert len(created) == TASKS + 1
    for nft in nfts:
        assert (
            len(chain.logs("ERC721Template", ["MetadataCreated", "MetadataUpdated"], began + 1, end, nft))
            == 1
        )
    published = pushed("publish_dataset", "transactions")
    assert sent(chain, ALICE) - before[0] == 2 * (TASKS + 1)
    assert_shared_by_tasks(chain, published)

    orders = pushed("pay")
    tokens = pushed("publish_dataset", "datatoken_address")
    for token, (of_dataset, _) in zip(tokens, orders, strict=True):
        assert ordered(chain, token) == [of_dataset]
    algorithm = run.xcom("publish_algorithm", "datatoken_address")
    assert sorted(ordered(chain, algorithm)) == sorted(of_algorithm for _, of_algorithm in orders)
    for token in (*tokens, algorithm):
        # As many datatokens were got as were spent.
        assert chain.call(token, "ERC20Template", "balanceOf", BOB.address) == 0
    paid = [cost["transactions"] for cost in pushed("pay", "cost")]
    done, refused = transactions_of(chain, BOB, began)
    assert sorted([*done, *(transaction["hash"] for transaction in refused)]) == sorted(
        itertools.chain(*paid)
    )
    # A datatoken of the algorithm may be spent by another task first, whose order is then the one that the chain takes.
    assert {transaction["to"] for transaction in refused} <= {algorithm.lower()}
    assert sent(chain, BOB) - before[1] == len(done) + len(refused)
    assert_shared_by_tasks(chain, paid)


def transactions_of(chain: Chain, account: Account, since: int) -> tuple[list[str], list[dict[str, Any]]]:
    """Return what an account has sent after a block: hashes of what was carried out, and all of what was refused."""
    done, refused = [], []
    for number in range(since + 1, chain.block_number() + 1):
        for transaction in chain.request("eth_getBlockByNumber", hex(number), True)["transactions"]:
            if transaction["from"] == account.address.lower():
                receipt = chain.receipt(transaction["hash"])
                assert receipt
                if receipt["status"] == "0x1":
                    done.append(transaction["hash"])
                else:
                    refused.append(transaction)
    return done, refused


def ordered(chain: Chain, token: str) -> list[str]:
    """Return the transactions of all orders of a datatoken."""
    found = chain.logs("ERC20Template", ["OrderStarted"], 0, chain.block_number(), token)
    assert {event.arguments["payer"] for event in found} == {BOB.address}
    return [event.transaction for event in found]


def assert_shared_by_tasks(chain: Chain, transactions: list[list[str]]) -> None:
    """Check that blocks hold transactions of several tasks."""
    blocks: Counter[str] = Counter()
    for of_task in transactions:
        blocks.update({(chain.receipt(transaction) or {})["blockNumber"] for transaction in of_task})
    print(
        f"{sum(map(len, transactions))} transactions of {len(transactions)} tasks in {len(blocks)} blocks: {blocks}"
    )
    assert len(blocks) < sum(blocks.values())
