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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.e2e
TASKS = 16


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


def test_ordering(slow_localnet: NetworkSettings) -> None:
    with client(slow_localnet, ALICE.private_key) as alice:
        data = alice.assets.publish(
            dataset(
                slow_localnet, "Shared", pricing=Pricing.dispenser(), compute=ComputePolicy(open_to_all=True)
            )
        )
    with client(slow_localnet, ALICE.private_key) as alice:
        algorithm = alice.assets.publish(
            AssetSpec(
                "algorithm",
                "Shared",
                ({"type": "url", "url": f"{slow_localnet.files_url}/algorithm.py"},),
                container=AlgorithmContainer("python", "3.11", "sha256:" + "0" * 64),
                pricing=Pricing.dispenser(),
                template=2,
            )
        )
    orders = at_once(order, [(slow_localnet, (data.did, algorithm.did))] * TASKS)
    assert len({transactions[0] for transactions, _ in orders}) == TASKS
    assert len({transactions[1] for transactions, _ in orders}) == TASKS
    chain = Chain(slow_localnet.rpc_url)
    for published in (data, algorithm):
        started = chain.logs(
            "ERC20Template", ["OrderStarted"], 0, chain.block_number(), published.datatoken_address
        )
        assert len(started) == TASKS
        # As many datatokens were got as were spent.
        assert chain.call(published.datatoken_address, "ERC20Template", "balanceOf", BOB.address) == 0
    assert_shared([block for _, mined in orders for block in mined])
