"""What operators are asked to do under faults on an Ocean Node, which is paid through the escrow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.e2e.fault_case import Case, same
from tests.e2e.fault_cases_paying import pay
from tests.e2e.fault_scenarios import AFTER_STARTING, BEFORE_PAYING, OPERATORS, PAY, START, Scenario
from tests.e2e.fault_world import ETHER
from tests.support.vanished_node import leave_expired_lock
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_ocean.c2d.orders import Order
    from tests.e2e.fault_world import Wallet, World
    from tests.support.task_runner import FinishedTask

SETTLE = f"{OPERATORS}.escrow:OceanSettlementSensor"
WITHDRAW = f"{OPERATORS}.escrow:OceanWithdrawFromEscrowOperator"
# Two minutes of the local node's smallest job; of which a job takes one.
_DURATION, _LOCKED, _CLAIMED = 120, 2 * ETHER, ETHER


def paid_order(world: World, wallet: Wallet, environment: str) -> Order:
    """Pay for a job, past all faults."""
    with world.client(wallet.private_key) as client:
        dataset, algorithm = (world.assets[name].did for name in ("dispensed 2", "quick dispensed"))
        quote = client.orders.quote([dataset], algorithm, environment=environment, duration=_DURATION)
        return client.orders.pay(quote)


def start_free(world: World, _folder: Path) -> Case:
    wallet = world.wallet()
    order = paid_order(world, wallet, "free")

    def verify(finished: FinishedTask) -> None:
        (job,) = world.jobs(wallet.address)
        same(job["jobId"], finished.xcoms["return_value"].rpartition("-")[2], "job")
        same(0, world.nonce(wallet.address), "transactions")

    return Case({"order": order.to_dict()}, wallet.private_key, verify)


def start_paid(world: World, *, spent: bool) -> Case:
    """Prepare a start.

    :param spent: whether the deposit is gone meanwhile, as when another job was paid out of it
    """
    wallet = world.wallet(ocean=100 * ETHER)
    order = paid_order(world, wallet, world.paid_environment.id)
    if spent:
        with world.client(wallet.private_key) as client:
            client.escrow.withdraw([world.escrow], world.ocean)
    nonce = world.nonce(wallet.address)

    def verify(finished: FinishedTask) -> None:
        (job,) = world.jobs(wallet.address)
        same(job["jobId"], finished.xcoms["return_value"].rpartition("-")[2], "job")
        locks = world.events("Escrow", "Lock", 0, world.escrow)
        same(1, sum(lock.arguments["payer"] == wallet.address for lock in locks), "locks")
        # An approval and a deposit; the node is authorized already.
        same(2 if spent else 0, world.nonce(wallet.address) - nonce, "transactions")
        same(_LOCKED, 100 * ETHER - world.balance(world.ocean, wallet.address), "OCEAN deposited")

    return Case({"order": order.to_dict()}, wallet.private_key, verify)


def settled_job(world: World) -> tuple[Wallet, str]:
    wallet = world.wallet(ocean=100 * ETHER)
    with world.client(wallet.private_key) as client:
        job = client.jobs.start(paid_order(world, wallet, world.paid_environment.id))
        wait_until(
            lambda: client.escrow.settlement(client.jobs.get(job.id)).claimed is not None,
            f"job {job.id} is settled",
            120,
        )
        return wallet, job.id


def settle(world: World, _folder: Path) -> Case:
    wallet, job_id = settled_job(world)
    nonce = world.nonce(wallet.address)
    cost = {"tokens": {}, "locked": {world.ocean: str(_LOCKED)}}

    def verify(finished: FinishedTask) -> None:
        same({world.ocean: str(_CLAIMED)}, finished.xcoms["return_value"], "claimed")
        same({world.ocean: str(_CLAIMED)}, finished.xcoms["cost"]["claimed"], "cost")
        same({}, finished.xcoms["cost"]["locked"], "still locked")
        same(nonce, world.nonce(wallet.address), "transactions")

    arguments = {"job_id": job_id, "cost": cost, "mode": "poke", "poke_interval": 0.1}
    return Case(arguments, wallet.private_key, verify)


def withdraw(world: World, _folder: Path) -> Case:
    """What a job has left, and what a node that has vanished never claimed."""
    wallet, _ = settled_job(world)
    with world.client(wallet.private_key) as client:
        leave_expired_lock(client, world.escrow, world.ocean, _LOCKED)
    nonce = world.nonce(wallet.address)

    def verify(finished: FinishedTask) -> None:
        same({world.ocean: str(_LOCKED)}, finished.xcoms["return_value"], "withdrawn")
        same((0, 0), world.escrow_funds(wallet.address), "OCEAN in the escrow")
        same(100 * ETHER - _CLAIMED, world.balance(world.ocean, wallet.address), "OCEAN left")
        same(2, world.nonce(wallet.address) - nonce, "transactions")

    return Case({"amount": "all"}, wallet.private_key, verify)


_HELD = {"dataset": "held", "algorithm": "quick", "held": ("held", "quick"), "got": 0, "locked": _LOCKED}
_GIVEN = {"algorithm": "quick dispensed", "got": 2, "locked": _LOCKED}

NODE_SCENARIOS = (
    *BEFORE_PAYING,
    # Beside the orders: an approval, the deposit and the authorization.
    Scenario("pay held", PAY, lambda w, _: pay(w, **_HELD, transactions=5)),
    Scenario("pay all at once", PAY, lambda w, _: pay(w, "sold 2", **_GIVEN, transactions=7), full=True),
    Scenario("start free", START, start_free),
    Scenario("start paid", START, lambda w, _: start_paid(w, spent=False), full=True),
    Scenario("start after the deposit was spent", START, lambda w, _: start_paid(w, spent=True)),
    *AFTER_STARTING,
    Scenario("settle", SETTLE, settle, full=True),
    Scenario("withdraw", WITHDRAW, withdraw, full=True),
)
