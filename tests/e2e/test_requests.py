"""How many requests, transactions and gas each step takes, counted on the way to the real local network."""

from __future__ import annotations

import os
import secrets
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from eth_account import Account

from airflow_ocean.c2d import cache
from airflow_ocean.c2d.assets import AssetSpec, Pricing
from airflow_ocean.c2d.client import OceanClient
from airflow_ocean.c2d.jobs import get_job
from airflow_ocean.c2d.journal import MemoryJournal
from airflow_ocean.c2d.network import Network
from airflow_ocean.c2d.order_book import OrderBook
from include.localnet.accounts import ALICE, BOB
from include.localnet.ethereum import Chain
from tests.conftest import STACK
from tests.e2e.fault_world import ETHER, Wallet
from tests.support.fault_proxy import FaultProxy
from tests.support.waiting import wait_until
from tests.unit.c2d.conftest import CONTAINER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_ocean.c2d.orders import Order
    from include.localnet.accounts import Account as KnownAccount
    from include.localnet.settings import NetworkSettings

pytestmark = [pytest.mark.e2e, pytest.mark.both_stacks]

# What ocean-lib 3.1.2 needs for a publish with its default token URI.
OCEAN_LIB_PUBLISH_GAS = 1_751_000
# Our share of it: a node encrypts the metadata as they are, a Provider compresses them first.
PUBLISH_GAS_SHARE = {"provider": 0.7, "node": 0.72}[STACK]
# What a payment asks: the environments, the DDOs, a quote. An Ocean Node is asked for each DDO: its search speaks the
# language of its own database, which nobody outside knows.
TO_PAY = {"provider": 3, "node": 4}[STACK]
RPC_TO_PAY = {"provider": 36, "node": 66}[STACK]
# A paid start on a node looks at deposit and authorization first, and for the lock afterwards.
RPC_TO_START = {"provider": 1, "node": 8}[STACK]


class Counted:
    """The local network, with a proxy in front of it that counts what this process asks."""

    def __init__(self, localnet: NetworkSettings) -> None:
        self.chain = Chain(localnet.rpc_url)
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

    def client(self, account: KnownAccount | Wallet) -> OceanClient:
        return OceanClient(self.network, account.private_key, MemoryJournal())

    @contextmanager
    def counting(self, account: KnownAccount | Wallet) -> Iterator[OceanClient]:
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
        path = f" GET /api/aquarius/assets/ddo/{did}"  # a node is its own metadata cache
        return sum(count for asked, count in self.services.items() if asked.endswith(path))


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


@pytest.fixture
def bob(counted: Counted) -> Wallet:
    """A wallet with some of Bob's OCEAN, which has nothing approved and nothing in the escrow."""
    made = Account.from_key(secrets.token_bytes(32))
    wallet = Wallet(made.address, "0x" + bytes(made.key).hex())
    counted.chain.request("anvil_setBalance", wallet.address, hex(10 * ETHER))
    with counted.client(BOB) as client:
        client.datatokens.transfer(client.contract_address("Ocean"), wallet.address, 10 * ETHER)
    return wallet


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
    assert gas < PUBLISH_GAS_SHARE * OCEAN_LIB_PUBLISH_GAS


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


def test_paying_starting_and_looking(
    counted: Counted, bob: Wallet, pair: tuple[str, str], with_orders: dict[str, Any]
) -> None:
    dataset, algorithm = pair
    with counted.counting(bob) as client:
        order = client.orders.pay(client.orders.quote([dataset], algorithm, **with_orders))
    assert counted.services.total() <= TO_PAY, counted.services
    assert counted.rpc["eth_chainId"] == 1
    assert counted.rpc.total() - counted.rpc["eth_getTransactionReceipt"] <= RPC_TO_PAY, counted.rpc
    # Template 2 dispenses and orders at once; template 1 takes two transactions.
    at_once, dispensed, ordered, *for_escrow = client.transactions.mined
    assert at_once.gas_used < 0.7 * (dispensed.gas_used + ordered.gas_used)
    # An approval, the deposit and the authorization.
    assert len(for_escrow) == (3 if STACK == "node" else 0)
    check_start(counted, bob, order)
    assert counted.rpc.total() <= RPC_TO_START, counted.rpc


@pytest.mark.skipif(
    STACK != "node", reason="only an Ocean Node's environments have a free part without orders"
)
def test_the_free_part(counted: Counted, bob: Wallet, pair: tuple[str, str]) -> None:
    with counted.counting(bob) as client:
        order = client.orders.pay(client.orders.quote([pair[0]], pair[1], duration=60))
    assert counted.services.total() <= 3, counted.services
    assert set(counted.rpc) == {"eth_chainId"}
    check_start(counted, bob, order)
    assert set(counted.rpc) == {"eth_chainId"}


def check_start(counted: Counted, bob: Wallet, order: Order) -> None:
    """Count a start and a look at the job, and leave what the start asked of the chain."""
    with counted.counting(bob) as client:
        job = client.jobs.start(order)
    assert counted.services.total() <= 3, counted.services
    assert client.transactions.mined == []
    rpc = counted.rpc
    with counted.counting(bob):
        get_job(counted.network.provider_url, bob.address, job.id)
    assert counted.services.total() == 1, counted.services
    assert counted.rpc.total() == 0, counted.rpc
    counted.rpc = rpc
    wait_until(
        lambda: get_job(counted.network.provider_url, bob.address, job.id).is_finished, "the job is over"
    )


class Store(dict[str, Any]):
    def set(self, key: str, value: Any) -> None:
        self[key] = value


def test_a_recurring_payment(
    counted: Counted, bob: Wallet, pair: tuple[str, str], with_orders: dict[str, Any]
) -> None:
    store = Store()
    with counted.client(bob) as client:
        OrderBook(client, store, "first", lambda _: False).pay([pair[0]], pair[1], **with_orders)
    with counted.counting(bob) as client:
        OrderBook(client, store, "second", lambda _: False).pay([pair[0]], pair[1], **with_orders)
    assert counted.services.total() <= TO_PAY, counted.services
    if STACK == "node":
        # Each job has a payment of its own; what was deposited for the first, which did not start, is enough for it.
        assert counted.services["provider GET /api/services/compute"] == 0
        assert counted.rpc.total() <= 8, counted.rpc
    else:
        # The list of unfinished jobs is asked for, but no quote, as nothing is due.
        assert counted.services["provider POST /api/services/initializeCompute"] == 0
        # The chain's id, and whether it knows both orders.
        assert counted.rpc["eth_getTransactionReceipt"] == 2
        assert counted.rpc.total() <= 3, counted.rpc
    assert client.transactions.mined == []


@pytest.mark.skipif(STACK == "node", reason="an Ocean Node's orders are not for a time in an environment")
def test_a_recurring_payment_that_renews(counted: Counted, bob: Wallet, pair: tuple[str, str]) -> None:
    store = Store()
    with counted.client(bob) as client:
        paid = next(found.id for found in client.orders.environments() if not found.is_free)
        book = OrderBook(client, store, "first", lambda _: False)
        # For a shorter time than an order has to last.
        first = book.pay([pair[0]], pair[1], environment=paid, duration=60)
    with counted.counting(bob) as client:
        book = OrderBook(client, store, "second", lambda _: False)
        second = book.pay([pair[0]], pair[1], environment=paid, duration=180)
    # The environments, the DDOs, the unfinished jobs and a quote.
    assert counted.services.total() <= 4, counted.services
    assert len(client.transactions.mined) == 2  # the fee's approval and the renewal
    (before, algorithm), (renewed, same) = first.transactions, second.transactions
    assert (renewed != before, same) == (True, algorithm)


def test_an_exact_approval_and_the_purchase_with_the_order(
    counted: Counted, bob: Wallet, pair: tuple[str, str], with_orders: dict[str, Any]
) -> None:
    with counted.client(ALICE) as alice:
        sold = alice.assets.publish(
            spec(counted, "dataset", template=2, pricing=Pricing.fixed_rate(10**16))
        ).did
    with counted.client(ALICE) as alice:
        alice.assets.allow_algorithm(sold, algorithm_did=pair[1])
    with counted.counting(bob) as client:
        order = client.orders.pay(client.orders.quote([sold], pair[1], **with_orders))
        token = client.assets.resolve(sold).service("compute").datatoken
        ocean = client.datatokens.contract(client.contract_address("Ocean"))
        assert ocean.allowance(bob.address, token) == 0
    approved, bought, *_ = client.transactions.mined
    assert approved.gas_used < 60_000
    assert bought.hash == order.transactions[0]
    assert bought.gas_used < 350_000
