"""How many requests, transactions and gas each step takes, counted on the way to the real local network."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from airflow_ocean.c2d import cache
from airflow_ocean.c2d.assets import AssetSpec, Pricing
from airflow_ocean.c2d.client import OceanClient
from airflow_ocean.c2d.jobs import get_job
from airflow_ocean.c2d.journal import MemoryJournal
from airflow_ocean.c2d.network import Network
from airflow_ocean.c2d.order_book import OrderBook
from include.localnet.accounts import ALICE, BOB, Account
from tests.support.fault_proxy import FaultProxy
from tests.support.waiting import wait_until
from tests.unit.c2d.conftest import CONTAINER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from include.localnet.settings import NetworkSettings

pytestmark = pytest.mark.e2e

# What ocean-lib 3.1.2 needs for a publish with its default token URI.
OCEAN_LIB_PUBLISH_GAS = 1_751_000


class Counted:
    """The local network, with a proxy in front of it that counts what this process asks."""

    def __init__(self, localnet: NetworkSettings) -> None:
        self.files_url = localnet.files_url
        self.proxy = FaultProxy(
            {
                "chain": localnet.rpc_url,
                "provider": localnet.provider_url,
                "aquarius": localnet.metadata_cache_url,
            }
        )
        self.network = Network(
            self.proxy.url("chain"),
            self.proxy.url("provider"),
            self.proxy.url("aquarius"),
            address_file=str(localnet.address_file),
        )
        self.services: Counter[str] = Counter()
        self.rpc: Counter[str] = Counter()

    def client(self, account: Account) -> OceanClient:
        return OceanClient(self.network, account.private_key, MemoryJournal())

    @contextmanager
    def counting(self, account: Account) -> Iterator[OceanClient]:
        """Yield a client as a new process has it, and count its requests."""
        cache.forget()
        self.proxy.watch(os.getpid())
        self.proxy.arm()
        with self.client(account) as client:
            yield client
        requests = self.proxy.requests
        self.proxy.watch()
        self.services = Counter(r.describe() for r in requests if r.upstream != "chain")
        self.rpc = Counter(r.rpc_method for r in requests if r.upstream == "chain")

    def looks_at_the_index(self, did: str) -> int:
        """Return how often a DDO was asked for: at least once, and until the index follows the chain."""
        return self.services[f"aquarius GET /api/aquarius/assets/ddo/{did}"]


@pytest.fixture(scope="module")
def counted(localnet: NetworkSettings) -> Iterator[Counted]:
    made = Counted(localnet)
    yield made
    made.proxy.close()


def spec(counted: Counted, kind: str, **fields: Any) -> AssetSpec:
    name = "branin.arff" if kind == "dataset" else "algorithm.py"
    container = CONTAINER if kind == "algorithm" else None
    file = {"type": "url", "url": f"{counted.files_url}/{name}"}
    return AssetSpec(kind, kind, (file,), container=container, **fields)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def pair(counted: Counted) -> tuple[str, str]:
    with counted.client(ALICE) as alice:
        dataset = alice.assets.publish(spec(counted, "dataset", template=2, pricing=Pricing.dispenser())).did
    with counted.client(ALICE) as alice:
        algorithm = alice.assets.publish(spec(counted, "algorithm", pricing=Pricing.dispenser())).did
    with counted.client(ALICE) as alice:
        alice.assets.allow_algorithm(dataset, algorithm_did=algorithm)
    return dataset, algorithm


def test_a_publish(counted: Counted) -> None:
    with counted.counting(ALICE) as alice:
        did = alice.assets.publish(spec(counted, "dataset")).did
    looks = counted.looks_at_the_index(did)
    assert looks >= 1
    assert counted.services.total() - looks <= 4, counted.services
    # Besides looking for receipts, which takes as long as a block does.
    assert counted.rpc.total() - counted.rpc["eth_getTransactionReceipt"] <= 16, counted.rpc
    gas = sum(sent.gas_used for sent in alice.transactions.mined)
    assert len(alice.transactions.mined) == 2
    assert gas < 0.7 * OCEAN_LIB_PUBLISH_GAS


def test_allowing(counted: Counted, pair: tuple[str, str]) -> None:
    with counted.client(ALICE) as alice:
        dataset = alice.assets.publish(spec(counted, "dataset")).did
    with counted.counting(ALICE) as alice:
        alice.assets.allow_algorithm(dataset, algorithm_did=pair[1])
    # The dataset's DDO is asked for once before it is changed.
    looks = counted.looks_at_the_index(dataset) - 1
    assert looks >= 1
    assert counted.services.total() - looks <= 6, counted.services
    assert len(alice.transactions.mined) == 1


def test_paying_starting_and_looking(counted: Counted, pair: tuple[str, str]) -> None:
    dataset, algorithm = pair
    with counted.counting(BOB) as bob:
        order = bob.orders.pay(bob.orders.quote([dataset], algorithm))
    assert counted.services.total() <= 4, counted.services
    assert counted.rpc["eth_chainId"] == 1
    assert counted.rpc.total() - counted.rpc["eth_getTransactionReceipt"] <= 36, counted.rpc
    # Template 2 dispenses and orders at once; template 1 takes two transactions.
    at_once, dispensed, ordered = bob.transactions.mined
    assert at_once.gas_used < 0.7 * (dispensed.gas_used + ordered.gas_used)
    with counted.counting(BOB) as bob:
        job = bob.jobs.start(order)
    assert counted.services.total() <= 3, counted.services
    assert counted.rpc.total() <= 1, counted.rpc
    with counted.counting(BOB):
        get_job(counted.network.provider_url, BOB.address, job.id)
    assert counted.services.total() == 1, counted.services
    wait_until(
        lambda: get_job(counted.network.provider_url, BOB.address, job.id).is_finished, "the job is over"
    )


class Store(dict[str, Any]):
    def set(self, key: str, value: Any) -> None:
        self[key] = value


def test_a_recurring_payment(counted: Counted, pair: tuple[str, str]) -> None:
    store = Store()
    with counted.client(BOB) as bob:
        OrderBook(bob, store, "first", lambda _: False).pay([pair[0]], pair[1])
    with counted.counting(BOB) as bob:
        OrderBook(bob, store, "second", lambda _: False).pay([pair[0]], pair[1])
    # The list of unfinished jobs is asked for, but no quote, as nothing is due.
    assert counted.services.total() <= 4, counted.services
    assert counted.services["provider POST /api/services/initializeCompute"] == 0
    # The chain's id, and whether it knows both orders.
    assert counted.rpc["eth_getTransactionReceipt"] == 2
    assert counted.rpc.total() <= 3, counted.rpc
    assert bob.transactions.mined == []


def test_an_exact_approval_and_the_purchase_with_the_order(counted: Counted, pair: tuple[str, str]) -> None:
    with counted.client(ALICE) as alice:
        sold = alice.assets.publish(
            spec(counted, "dataset", template=2, pricing=Pricing.fixed_rate(10**16))
        ).did
    with counted.client(ALICE) as alice:
        alice.assets.allow_algorithm(sold, algorithm_did=pair[1])
    with counted.counting(BOB) as bob:
        order = bob.orders.pay(bob.orders.quote([sold], pair[1]))
        token = bob.assets.resolve(sold).service("compute").datatoken
        ocean = bob.datatokens.contract(bob.contract_address("Ocean"))
        assert ocean.allowance(BOB.address, token) == 0
    approved, bought, *_ = bob.transactions.mined
    assert approved.gas_used < 60_000
    assert bought.hash == order.transactions[0]
    assert bought.gas_used < 350_000
