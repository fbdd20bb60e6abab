"""Sixteen tasks at a time share one wallet, on a chain that makes a block a second."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING, Any

import pytest

from airflow_ocean.c2d.assets import AlgorithmContainer, AssetSpec, ComputePolicy, Pricing
from airflow_ocean.c2d.client import OceanClient
from airflow_ocean.c2d.network import Network
from include.localnet import network
from include.localnet.accounts import ALICE, BOB
from include.localnet.ethereum import Chain
from include.localnet.settings import NetworkSettings, choose_ports
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_ocean.c2d.assets import PublishedAsset

pytestmark = pytest.mark.e2e
TASKS = 16
SHORT = """
import pathlib
pathlib.Path("/data/outputs/result").write_text("short")
"""


@pytest.fixture(scope="module")
def slow_localnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkSettings]:
    settings = NetworkSettings(tmp_path_factory.mktemp("slow"), choose_ports(0), block_time=1)
    try:
        network.up(settings)
        yield settings
    finally:
        network.down(settings.home)


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


def order(settings: NetworkSettings, dids: tuple[str, str]) -> Any:
    with client(settings, BOB.private_key) as bob:
        paid = bob.orders.pay(bob.orders.quote([dids[0]], dids[1]))
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


def test_publishing(slow_localnet: NetworkSettings) -> None:
    chain = Chain(slow_localnet.rpc_url)
    before = int(chain.request("eth_getTransactionCount", ALICE.address, "latest"), 16)
    published = at_once(publish, [(slow_localnet, number) for number in range(TASKS)])
    assert len({did for did, _, _ in published}) == TASKS
    assert len({nft for _, nft, _ in published}) == TASKS
    # Each effect is there once: two transactions a task, no more.
    after = int(chain.request("eth_getTransactionCount", ALICE.address, "latest"), 16)
    assert after - before == 2 * TASKS
    assert_shared([block for _, _, mined in published for block in mined])


@pytest.fixture(scope="module")
def pair(slow_localnet: NetworkSettings) -> tuple[PublishedAsset, PublishedAsset]:
    """A dataset and an algorithm, both given away."""
    slow_localnet.files_folder.mkdir(parents=True, exist_ok=True)
    (slow_localnet.files_folder / "short.py").write_text(SHORT)
    file = {"type": "url", "url": f"{slow_localnet.files_url}/short.py"}
    free = Pricing.dispenser()
    container = AlgorithmContainer("python", "3.11", "sha256:" + "0" * 64)
    specs = (
        dataset(slow_localnet, "Shared", pricing=free, compute=ComputePolicy(open_to_all=True)),
        AssetSpec("algorithm", "Shared", (file,), container=container, pricing=free, template=2),
    )
    published = []
    for spec in specs:
        with client(slow_localnet, ALICE.private_key) as alice:
            published.append(alice.assets.publish(spec))
    return published[0], published[1]


def test_ordering(slow_localnet: NetworkSettings, pair: tuple[PublishedAsset, PublishedAsset]) -> None:
    data, algorithm = pair
    orders = at_once(order, [(slow_localnet, (data.did, algorithm.did))] * TASKS)
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


def read(settings: NetworkSettings, job_id: str) -> bytes:
    with client(settings, BOB.private_key) as bob, bob.jobs.open_result(job_id, 0) as stream:
        return b"".join(stream.chunks)


def test_signing_requests(
    slow_localnet: NetworkSettings, pair: tuple[PublishedAsset, PublishedAsset]
) -> None:
    """Each request for a result is signed with a nonce, which must be above the last one that the Provider saw."""
    data, algorithm = pair
    with client(slow_localnet, BOB.private_key) as bob:
        job = bob.jobs.start(bob.orders.pay(bob.orders.quote([data.did], algorithm.did)))
        wait_until(lambda: bob.jobs.get(job.id).is_finished, "the job is over", timeout=120)
    assert set(at_once(read, [(slow_localnet, job.id)] * TASKS)) == {b"short"}
