"""What each operator is asked to do under faults, and what must be there afterwards, counted exactly."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_ocean.c2d import estimates
from airflow_ocean.c2d.jobs import get_job
from airflow_ocean.operators.compute import OceanPayForComputeOperator
from include.localnet.accounts import ALICE
from include.localnet.ethereum import did_of
from include.localnet.settings import CHAIN_ID
from tests.e2e.fault_world import CONTAINER, ETHER
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import Context

    from airflow_ocean.c2d.orders import Order
    from tests.e2e.fault_world import Wallet, World
    from tests.support.task_runner import FinishedTask

OPERATORS = "airflow_ocean.operators"


@dataclass
class Case:
    """A task that is ready to run.

    :param arguments: the operator's
    :param private_key: of the wallet behind its connection
    :param verify: looks at what is there when it is over
    """

    arguments: dict[str, Any]
    private_key: str
    verify: Callable[[FinishedTask], None]


@dataclass(frozen=True)
class Scenario:
    """One way of using an operator.

    :param operator: ``module:Class``
    :param prepare: makes a fresh case; gets a folder of its own
    :param state: how the task ends
    :param retry_after: seconds an answer 429 asks to wait
    :param full: it stands for its operator: in the long form it meets every fault at every request
    """

    name: str
    operator: str
    prepare: Callable[[World, Path], Case]
    state: str = "success"
    retry_after: int = 60
    full: bool = False

    @property
    def group(self) -> str:
        """The operator whose scenarios share a sample of the faults."""
        return {RENEW: PAY, PUBLISH_ALGORITHM: PUBLISH_DATASET}.get(self.operator, self.operator)


def same(expected: object, found: object, what: str) -> None:
    assert found == expected, f"{what}: expected {expected}, found {found}"


# ---------------------------------------------------------------------- publishing


def publish(world: World, pricing: dict[str, str] | None, algorithm: bool) -> Case:
    wallet, since = world.wallet(), world.chain.block_number()
    name = "algorithm" if algorithm else "dataset"
    url = f"{world.localnet.files_url}/{'quick.py' if algorithm else 'branin.arff'}"
    arguments: dict[str, Any] = {"asset_name": name, "url": url, "pricing": pricing}
    if algorithm:
        arguments |= {"image": CONTAINER.image, "tag": CONTAINER.tag, "checksum": CONTAINER.checksum}

    def verify(finished: FinishedTask) -> None:
        (created,) = [
            event
            for event in world.events("ERC721Factory", "NFTCreated", since, world.factory)
            if event.arguments["admin"] == wallet.address
        ]
        nft = created.arguments["newTokenAddress"]
        (token,) = world.chain.call(nft, "ERC721Template", "getTokensList")
        metadata = world.events("ERC721Template", "MetadataCreated", since, nft)
        metadata += world.events("ERC721Template", "MetadataUpdated", since, nft)
        same(1, len(metadata), "changes of the metadata")
        same(2, world.nonce(wallet.address), "transactions of the publisher")
        same(did_of(nft, CHAIN_ID), finished.xcoms["return_value"], "DID")
        same(nft, finished.xcoms["nft_address"], "NFT")
        same(token, finished.xcoms["datatoken_address"], "datatoken")
        same([created.transaction, metadata[0].transaction], finished.xcoms["transactions"], "transactions")
        ddo = world.ddo(finished.xcoms["return_value"])
        same(metadata[0].transaction, ddo["event"]["tx"], "indexed transaction")
        same(name, ddo["metadata"]["name"], "indexed name")

    return Case(arguments, wallet.private_key, verify)


def allow(world: World, _folder: Path) -> Case:
    dataset, algorithm = world.assets["changed"], world.assets["quick"].did
    with world.client(ALICE.private_key) as client:
        client.assets.revoke_algorithm(dataset.did, algorithm_did=algorithm)
    since, nonce = world.chain.block_number(), world.nonce(ALICE.address)

    def verify(finished: FinishedTask) -> None:
        (changed,) = world.events("ERC721Template", "MetadataUpdated", since, dataset.nft_address)
        same(1, world.nonce(ALICE.address) - nonce, "transactions")
        same([changed.transaction], finished.xcoms["transactions"], "transactions told")
        same(dataset.did, finished.xcoms["return_value"], "DID")
        trusted = world.ddo(dataset.did)["services"][0]["compute"]["publisherTrustedAlgorithms"]
        same([algorithm], [entry["did"] for entry in trusted], "trusted algorithms")

    return Case({"dataset_did": dataset.did, "algorithm_did": algorithm}, ALICE.private_key, verify)


# ---------------------------------------------------------------------- datatokens


def mint(world: World, _folder: Path) -> Case:
    names, amount = ("held", "quick"), 4_350_000_000_000_000_001
    receiver = world.wallet()
    nonce, since = world.nonce(ALICE.address), world.chain.block_number()

    def verify(finished: FinishedTask) -> None:
        for name in names:
            token = world.assets[name].datatoken_address
            same([amount], world.received(token, receiver.address, since), f"mints of {name}")
        same(2, world.nonce(ALICE.address) - nonce, "transactions")
        same(2, len(set(finished.xcoms["return_value"])), "transactions told")

    dids = [world.assets[name].did for name in names]
    arguments = {"asset_dids": dids, "amount": "4.350000000000000001", "to": receiver.address}
    return Case(arguments, ALICE.private_key, verify)


def transfer(world: World, _folder: Path) -> Case:
    wallet, receiver = world.wallet(held=2 * ETHER), world.wallet()
    token = world.assets["held"].datatoken_address

    def verify(finished: FinishedTask) -> None:
        same(ETHER // 2, world.balance(token, receiver.address), "received")
        same(2 * ETHER - ETHER // 2, world.balance(token, wallet.address), "kept")
        same(1, world.nonce(wallet.address), "transactions")
        same(1, len(finished.xcoms["return_value"]), "transactions told")

    arguments = {
        "asset_dids": world.assets["held"].did, "amount": "0.5", "method": "transfer", "to": receiver.address,
    }  # fmt: skip
    return Case(arguments, wallet.private_key, verify)


def dispense(world: World, _folder: Path) -> Case:
    wallet = world.wallet()
    token = world.assets["dispensed"].datatoken_address

    def verify(finished: FinishedTask) -> None:
        same(3 * ETHER, world.balance(token, wallet.address), "dispensed")
        same(1, world.nonce(wallet.address), "transactions")
        same(1, len(finished.xcoms["return_value"]), "transactions told")

    arguments = {"asset_dids": world.assets["dispensed"].did, "amount": 3, "method": "dispense"}
    return Case(arguments, wallet.private_key, verify)


def buy(world: World, _folder: Path) -> Case:
    wallet, since = world.wallet(ocean=100 * ETHER), world.chain.block_number()
    token = world.assets["sold"].datatoken_address

    def verify(finished: FinishedTask) -> None:
        same([2 * ETHER], world.received(token, wallet.address, since), "bought")
        (price,) = _bought(world, wallet, since)
        same(100 * ETHER - price, world.balance(world.ocean, wallet.address), "OCEAN left")
        same(0, world.allowance(world.ocean, wallet.address, world.exchange), "allowance left")
        same(2, world.nonce(wallet.address), "transactions")
        same(2, len(finished.xcoms["return_value"]), "transactions told")

    arguments = {"asset_dids": world.assets["sold"].did, "amount": 2, "method": "buy", "max_cost": "10"}
    return Case(arguments, wallet.private_key, verify)


def _bought(world: World, wallet: Wallet, since: int) -> list[int]:
    """Return what each purchase of a wallet cost; template 2 buys in the wallet's place."""
    found = []
    for event in world.events("FixedRateExchange", "Swapped", since, world.exchange):
        receipt = world.chain.receipt(event.transaction)
        if receipt and receipt["from"].lower() == wallet.address.lower():
            found.append(event.arguments["baseTokenSwappedAmount"])
    return found


# ---------------------------------------------------------------------- paying


class RenewingOperator(OceanPayForComputeOperator):
    """Pays with the renewal of earlier orders.

    :param known_orders: DID → order transaction
    :param valid_until: until when the environment is wanted, seconds since 1970
    """

    def __init__(self, *, known_orders: dict[str, str], valid_until: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.known_orders = known_orders
        self.valid_until = valid_until

    def execute(self, context: Context) -> list[str]:
        """Renew the orders and return the renewals' transactions."""
        with self.client(context) as client:
            quote = client.orders.quote(
                list(self.dataset_dids), self.algorithm_did, environment=self.environment,
                valid_until=self.valid_until, known_orders=self.known_orders,
            )  # fmt: skip
            order = client.orders.pay(quote)
        context["ti"].xcom_push("order", json.loads(json.dumps(order.to_dict())))
        context["ti"].xcom_push("cost", order.cost)
        return order.transactions


def pay(
    world: World, dataset: str, algorithm: str, *, held: tuple[str, ...] = (), got: int, transactions: int,
    paid: bool = False, locked: int = 0,
) -> Case:  # fmt: skip
    """Prepare a payment.

    :param held: assets whose datatoken the wallet has
    :param got: how many datatokens it gets on the way
    :param transactions: how many it sends
    :param locked: how much OCEAN the escrow is to get, wei; then it pays the environment, and no order has a fee
    """
    wallet = world.wallet(ocean=100 * ETHER, **dict.fromkeys(held, ETHER))
    since, coins = world.chain.block_number(), world.coins(wallet.address)
    assets = [world.assets[dataset], world.assets[algorithm]]

    def verify(finished: FinishedTask) -> None:
        orders = finished.xcoms["return_value"]
        received, fee = 0, 0
        for asset, order in zip(assets, orders, strict=True):
            token = asset.datatoken_address
            (started,) = [
                event
                for event in world.events("ERC20Template", "OrderStarted", since, token)
                if event.arguments["payer"] == wallet.address
            ]
            same(started.transaction, order, "order told")
            same(0, world.balance(token, wallet.address), "datatokens left")
            received += sum(world.received(token, wallet.address, since))
            fee += 0 if locked else _verify_fee(world, wallet, token, finished, order)
        same(got * ETHER, received, "datatokens got")
        price = sum(_bought(world, wallet, since))
        same((locked, 0), world.escrow_funds(wallet.address), "OCEAN in the escrow")
        same(
            {world.ocean: str(locked)} if locked else {}, finished.xcoms["cost"]["deposited"], "deposit told"
        )
        spent = 100 * ETHER - locked - world.balance(world.ocean, wallet.address)
        same(price + fee, spent, "OCEAN spent")
        same({world.ocean: str(spent)} if spent else {}, _without(finished, assets), "cost told")
        same(paid, fee > 0, "whether a fee was paid")
        same(transactions, world.nonce(wallet.address), "transactions")
        _verify_cost(world, finished, wallet, coins, transactions)

    arguments = _pay_arguments(world, dataset, algorithm, paid or bool(locked))
    return Case(arguments | ({"duration": 120} if locked else {}), wallet.private_key, verify)


def _pay_arguments(world: World, dataset: str, algorithm: str, paid: bool) -> dict[str, Any]:
    return {
        "dataset_dids": [world.assets[dataset].did],
        "algorithm_did": world.assets[algorithm].did,
        "environment": world.paid_environment.id if paid else "free",
        "duration": 600,
    }


def _without(finished: FinishedTask, assets: list[Any]) -> dict[str, str]:
    """Return the tokens that the task says it spent, without the datatokens that it held before."""
    datatokens = {asset.datatoken_address for asset in assets}
    tokens = finished.xcoms["cost"]["tokens"]
    return {token: amount for token, amount in tokens.items() if token not in datatokens}


def _verify_fee(world: World, wallet: Wallet, token: str, finished: FinishedTask, transaction: str) -> int:
    """Check an order's Provider fee and return its amount."""
    order = finished.xcoms["order"]
    receipt = world.chain.receipt(transaction)
    assert receipt is not None
    (paid,) = world.chain.events_of(receipt, "ERC20Template", "ProviderFee", token)
    environment = json.loads(paid.arguments["providerData"])["environment"]
    same(order["environment"], environment, "environment paid for")
    amount = int(paid.arguments["providerFeeAmount"])
    if amount:
        same(world.ocean, paid.arguments["providerFeeToken"], "token of the fee")
        # A fee is for the time that is left: a retry's may be below what its first attempt had approved.
        left = world.allowance(world.ocean, wallet.address, token)
        assert left == 0 or (finished.tries > 1 and left < amount), f"{left} may still be taken"
        same(order["valid_until"], paid.arguments["validUntil"], "paid until")
    return amount


def _verify_cost(world: World, finished: FinishedTask, wallet: Wallet, coins: int, transactions: int) -> None:
    cost = finished.xcoms["cost"]
    same(transactions, len(set(cost["transactions"])), "transactions in the cost")
    same(coins - world.coins(wallet.address), int(cost["gas_fee_wei"]), "gas told")
    same(cost, finished.xcoms["order"]["cost"], "cost in the order")


def renew(world: World, paid: bool) -> Case:
    wallet = world.wallet(ocean=100 * ETHER)
    order = paid_order(world, wallet, paid)
    since, coins, nonce = (
        world.chain.block_number(),
        world.coins(wallet.address),
        world.nonce(wallet.address),
    )
    held = world.balance(world.ocean, wallet.address)
    names = ("dispensed 2", "quick dispensed")
    assets = [world.assets[name] for name in names]

    def verify(finished: FinishedTask) -> None:
        renewed, fee, expected = finished.xcoms["return_value"], 0, 0
        for asset, old, new in zip(assets, order.transactions, renewed, strict=True):
            token = asset.datatoken_address
            found = world.events("ERC20Template", "OrderReused", since, token)
            mine = [event for event in found if event.arguments["caller"] == wallet.address]
            started = world.events("ERC20Template", "OrderStarted", since, token)
            same([], [event for event in started if event.arguments["payer"] == wallet.address], "orders")
            if new == old:
                same([], mine, "renewals of an order that was still good")
                continue
            same([new], [event.transaction for event in mine], "renewal told")
            amount = _verify_fee(world, wallet, token, finished, new)
            fee, expected = fee + amount, expected + 1 + (amount > 0)
        assert expected, "nothing was renewed"
        same(held - fee, world.balance(world.ocean, wallet.address), "OCEAN left")
        same(expected, world.nonce(wallet.address) - nonce, "transactions")
        same(paid, fee > 0, "whether a fee was paid")
        _verify_cost(world, finished, wallet, coins, expected)

    known = dict(zip([asset.did for asset in assets], order.transactions, strict=True))
    arguments = _pay_arguments(world, *names, paid)
    arguments |= {"known_orders": known, "valid_until": order.valid_until + 3600}
    return Case(arguments, wallet.private_key, verify)


def paid_order(world: World, wallet: Wallet, paid: bool, renewed: bool = False, duration: int = 600) -> Order:
    """Pay for a job, past all faults.

    :param duration: seconds that the environment is paid for
    """
    environment = world.paid_environment.id if paid else "free"
    names = ("dispensed 2", "quick dispensed")
    dataset, algorithm = (world.assets[name].did for name in names)
    with world.client(wallet.private_key) as client:
        order = client.orders.pay(
            client.orders.quote([dataset], algorithm, environment=environment, duration=duration)
        )
    if not renewed:
        return order
    with world.client(wallet.private_key) as client:
        known = {dataset: order.transactions[0], algorithm: order.transactions[1]}
        until = order.valid_until + 600
        quote = client.orders.quote(
            [dataset], algorithm, environment=environment, valid_until=until, known_orders=known
        )
        return client.orders.pay(quote)


# Seconds.
_APPROVED = 120


def approve(world: World, _folder: Path) -> Case:
    wallet = world.wallet(ocean=100 * ETHER)
    dataset, algorithm = (world.assets[name].did for name in ("sold", "quick dispensed"))
    with world.client(wallet.private_key) as client:
        with_orders = [found for found in client.orders.environments() if found.needs_orders]
        environment = min(with_orders, key=lambda found: found.price(_APPROVED)).id
        quote = client.orders.quote([dataset], algorithm, environment=environment, duration=_APPROVED)
        cost = estimates.of_payment(client, quote, _APPROVED).totals()[world.ocean]
    assert cost > 3 * ETHER

    def verify(finished: FinishedTask) -> None:
        told = finished.xcoms["quote"]["totals"]
        same(str(cost), told[world.ocean], "OCEAN that the run may cost")
        same({"*": "10"}, finished.xcoms["return_value"], "limit of the payment")
        same(0, world.nonce(wallet.address), "transactions")
        same(100 * ETHER, world.balance(world.ocean, wallet.address), "OCEAN left")

    arguments = {
        "dataset_dids": [dataset], "algorithm_did": algorithm, "environment": environment, "duration": _APPROVED,
        "spending_limit": "10",
    }  # fmt: skip
    return Case(arguments, wallet.private_key, verify)


# ---------------------------------------------------------------------- computing


def start(world: World, paid: bool = False, renewed: bool = False) -> Case:
    wallet = world.wallet(ocean=100 * ETHER)
    order = paid_order(world, wallet, paid, renewed)
    nonce = world.nonce(wallet.address)

    def verify(finished: FinishedTask) -> None:
        (job,) = world.jobs(wallet.address)
        same(job["jobId"], finished.xcoms["return_value"], "job")
        assert job["agreementId"] in order.transactions
        same(wallet.address, finished.xcoms["consumer_address"], "consumer")
        same(world.proxy.url("provider"), finished.xcoms["provider_url"], "Provider")
        same(nonce, world.nonce(wallet.address), "transactions")

    return Case({"order": order.to_dict()}, wallet.private_key, verify)


def wait_poking(world: World, _folder: Path) -> Case:
    jobs = world.jobs_over

    def verify(finished: FinishedTask) -> None:
        same(jobs.good, finished.xcoms["return_value"], "job")
        assert finished.xcoms["status"] == "Job finished"
        assert finished.xcoms["duration"] >= 0

    arguments = {"job_id": jobs.good, "deferrable": False, "poke_interval": 0.1}
    return Case(arguments, jobs.wallet.private_key, verify)


def _start_job(world: World, wallet: Wallet, algorithm: str) -> str:
    """Start a job past all faults."""
    with world.client(wallet.private_key) as client:
        quote = client.orders.quote([world.assets["dispensed 2"].did], world.assets[algorithm].did)
        return client.jobs.start(client.orders.pay(quote)).id


def wait_deferred(world: World, _folder: Path) -> Case:
    wallet = world.wallet()
    job = _start_job(world, wallet, "slow")

    def verify(finished: FinishedTask) -> None:
        same(job, finished.xcoms["return_value"], "job")
        (found,) = world.jobs(wallet.address)
        assert found["dateFinished"], "the task was over before the job"
        stop_requests = found["stopRequested"] if "stopRequested" in found else found["stopreq"]
        same("None", str(stop_requests or None), "requests to stop")

    arguments = {"job_id": job, "poke_interval": 0.2, "stop_on_kill": True, "timeout": 60}
    return Case(arguments, wallet.private_key, verify)


def wait_failed(world: World, _folder: Path) -> Case:
    jobs = world.jobs_over

    def verify(finished: FinishedTask) -> None:
        assert "JobFailedError" in finished.errors[-1], finished.errors
        assert "gives up on purpose" in finished.errors[-1], finished.errors
        assert "return_value" not in finished.xcoms

    return Case({"job_id": jobs.bad, "poke_interval": 0.1}, jobs.wallet.private_key, verify)


def stop(world: World, _folder: Path) -> Case:
    wallet = world.wallet()
    job = _start_job(world, wallet, "lasting")
    nonce = world.nonce(wallet.address)

    def verify(finished: FinishedTask) -> None:
        same(job, finished.xcoms["return_value"], "job")
        assert finished.xcoms["status"]
        # It would run for a quarter of an hour.
        wait_until(lambda: get_job(world.localnet.provider_url, wallet.address, job).is_finished, "the end")
        same(1, len(world.jobs(wallet.address)), "jobs")
        same(nonce, world.nonce(wallet.address), "transactions")

    return Case({"job_id": job}, wallet.private_key, verify)


def fetch(world: World, folder: Path) -> Case:
    base, jobs = folder / "artifacts", world.jobs_over

    def verify(finished: FinishedTask) -> None:
        manifest = Path(finished.xcoms["manifest"].removeprefix("file://"))
        described = json.loads(manifest.read_text())
        same(jobs.good, described["job_id"], "job")
        same([file["uri"] for file in described["files"]], finished.xcoms["return_value"], "files told")
        outputs = {file["name"]: file["size"] for file in described["files"] if file["type"] == "output"}
        same({"result": 8, "large": 256 * 8192}, outputs, "outputs")
        for file in described["files"]:
            content = Path(file["uri"].removeprefix("file://")).read_bytes()
            same(file["sha256"], hashlib.sha256(content).hexdigest(), f"content of {file['name']}")
        same(len(described["files"]) + 1, _files(base), "files among the artifacts")

    arguments = {"job_id": jobs.good, "artifact_base": str(base)}
    return Case(arguments, jobs.wallet.private_key, verify)


def _files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


# ---------------------------------------------------------------------- all of them

PUBLISH_DATASET = f"{OPERATORS}.assets:OceanPublishDatasetOperator"
PUBLISH_ALGORITHM = f"{OPERATORS}.assets:OceanPublishAlgorithmOperator"
ALLOW = f"{OPERATORS}.assets:OceanAllowAlgorithmOperator"
TRANSFER = f"{OPERATORS}.datatokens:OceanTransferDatatokensOperator"
APPROVE = f"{OPERATORS}.approval:OceanApproveSpendingOperator"
PAY = f"{OPERATORS}.compute:OceanPayForComputeOperator"
RENEW = f"{__name__}:{RenewingOperator.__name__}"
START = f"{OPERATORS}.compute:OceanStartComputeOperator"
STOP = f"{OPERATORS}.compute:OceanStopComputeOperator"
WAIT = "airflow_ocean.sensors:OceanComputeSensor"
FETCH = f"{OPERATORS}.results:OceanFetchResultsOperator"

_PRICE = {"type": "fixed_rate", "rate": "1.5"}
_HELD = {"dataset": "held", "algorithm": "quick", "held": ("held", "quick"), "got": 0}
_QUICK = {"algorithm": "quick", "held": ("quick",), "got": 1}
_GIVEN = {"algorithm": "quick dispensed", "got": 2}

# Every way of using the operators that talks to the network: those that are the same on each generation of services, and
# how orders are paid for and used on a Provider.
BEFORE_PAYING = (
    Scenario("publish dataset", PUBLISH_DATASET, lambda w, _: publish(w, None, algorithm=False), full=True),
    Scenario(
        "publish algorithm", PUBLISH_ALGORITHM, lambda w, _: publish(w, _PRICE, algorithm=True), full=True
    ),
    Scenario("allow", ALLOW, allow, full=True),
    Scenario("mint", TRANSFER, mint),
    Scenario("transfer", TRANSFER, transfer, full=True),
    Scenario("dispense", TRANSFER, dispense),
    Scenario("buy", TRANSFER, buy),
    Scenario("approve", APPROVE, approve, full=True),
)
AFTER_STARTING = (
    Scenario("wait poking", WAIT, wait_poking),
    Scenario("wait deferred", WAIT, wait_deferred, retry_after=1),
    Scenario("wait for a failure", WAIT, wait_failed, state="failed"),
    Scenario("stop", STOP, stop),
    Scenario("fetch", FETCH, fetch),
)
SCENARIOS = (
    *BEFORE_PAYING,
    Scenario("pay held", PAY, lambda w, _: pay(w, **_HELD, transactions=2)),
    Scenario("pay dispensed", PAY, lambda w, _: pay(w, "dispensed", **_GIVEN, transactions=4)),
    Scenario("pay bought", PAY, lambda w, _: pay(w, "sold", **_QUICK, transactions=4)),
    Scenario("pay template 2", PAY, lambda w, _: pay(w, "sold 2", **_QUICK, transactions=3)),
    Scenario("pay environment", PAY, lambda w, _: pay(w, **_HELD, transactions=3, paid=True)),
    Scenario(
        "pay all at once", PAY, lambda w, _: pay(w, "sold 2", **_GIVEN, transactions=4, paid=True), full=True
    ),
    Scenario("renew", RENEW, lambda w, _: renew(w, paid=False)),
    Scenario("renew environment", RENEW, lambda w, _: renew(w, paid=True)),
    Scenario("start", START, lambda w, _: start(w)),
    Scenario("start paid", START, lambda w, _: start(w, paid=True)),
    Scenario("start renewed", START, lambda w, _: start(w, paid=True, renewed=True)),
    *AFTER_STARTING,
)
