"""A task with ``force_new`` that is cleared does everything anew, once: a try of it that dies is continued, not repeated.

That nothing is done anew when a task without it is cleared is part of every scenario of test_faults.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import STACK
from tests.e2e.fault_cases_paying import paid_order
from tests.e2e.fault_scenarios import PAY, PUBLISH_DATASET, START, TRANSFER
from tests.e2e.fault_world import ETHER
from tests.support.fault_proxy import Fault
from tests.support.task_runner import Task, TaskRunner
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.fault_world import Wallet, World
    from tests.support.fault_proxy import Request

pytestmark = [pytest.mark.e2e, pytest.mark.both_stacks]

CONNECTION = "ocean_cleared"


@dataclass
class Repeatable:
    """A task that can be done twice.

    :param count: returns how often its effect is there
    :param transactions: how many it sends when it is done twice
    :param ready: says whether it can be done again
    """

    wallet: Wallet
    operator: str
    arguments: dict[str, Any]
    count: Callable[[], int]
    transactions: int
    ready: Callable[[], bool] = lambda: True


def publishing(world: World) -> Repeatable:
    wallet, since = world.wallet(), world.chain.block_number()

    def count() -> int:
        created = world.events("ERC721Factory", "NFTCreated", since, world.factory)
        return sum(event.arguments["admin"] == wallet.address for event in created)

    url = f"{world.localnet.files_url}/branin.arff"
    return Repeatable(wallet, PUBLISH_DATASET, {"asset_name": "again", "url": url}, count, 4)


def transferring(world: World) -> Repeatable:
    wallet, receiver = world.wallet(held=2 * ETHER), world.wallet()
    asset = world.assets["held"]
    arguments = {"asset_dids": asset.did, "method": "transfer", "amount": 1, "to": receiver.address}

    def count() -> int:
        return world.balance(asset.datatoken_address, receiver.address) // ETHER

    return Repeatable(wallet, TRANSFER, arguments, count, 2)


def paying(world: World) -> Repeatable:
    wallet, since = world.wallet(ocean=100 * ETHER), world.chain.block_number()
    dataset, algorithm = world.assets["dispensed 2"], world.assets["quick dispensed"]
    arguments = {"dataset_dids": [dataset.did], "algorithm_did": algorithm.did}
    if STACK == "node":  # in the free part a job takes no orders
        arguments |= {"environment": world.paid_environment.id, "duration": 60}

    def count() -> int:
        started = world.events("ERC20Template", "OrderStarted", since, dataset.datatoken_address)
        return sum(event.arguments["payer"] == wallet.address for event in started)

    # Template 2 gets and orders the dataset's datatoken in one. An Ocean Node's escrow is provided for once, in three
    # transactions, as nothing is taken out of it meanwhile.
    return Repeatable(wallet, PAY, arguments, count, 2 * 3 + (3 if STACK == "node" else 0))


def starting(world: World) -> Repeatable:
    wallet = world.wallet()
    order = paid_order(world, wallet, paid=False)

    def ready() -> bool:
        return all(job["dateFinished"] for job in world.jobs(wallet.address))

    return Repeatable(
        wallet, START, {"order": order.to_dict()}, lambda: len(world.jobs(wallet.address)), 0, ready
    )


def _is_the_effect(request: Request) -> bool:
    """Say whether a request changes something: a transaction, or the start of a job."""
    if request.upstream == "chain":
        return request.rpc_method == "eth_sendRawTransaction"
    return request.method == "POST" and request.path.split("?")[0].lower().endswith("compute")


@pytest.mark.parametrize("prepare", [publishing, transferring, paying, starting])
def test_clearing_a_task_with_force_new(
    world: World, tmp_path: Path, prepare: Callable[[World], Repeatable]
) -> None:
    again = prepare(world)
    sent = world.nonce(again.wallet.address)
    faults: dict[int, Fault] = {}
    task = Task(
        again.operator,
        {"ocean_conn_id": CONNECTION, "force_new": True, **again.arguments},
        {f"AIRFLOW_CONN_{CONNECTION.upper()}": world.connection(again.wallet.private_key)},
    )
    runner = TaskRunner(
        task,
        tmp_path / "database",
        tmp_path / "log",
        lambda attempt: world.proxy.arm(faults if attempt == 1 else {}),
        world.proxy.watch,
    )
    try:
        first = runner.run()
        assert (first.state, first.tries) == ("success", 1), first.errors
        assert again.count() == 1
        wait_until(again.ready, "it can be done again")
        # The cleared task dies when its first effect is there, before it hears of it.
        faults[next(n for n, request in enumerate(world.proxy.requests, 1) if _is_the_effect(request))] = (
            Fault.KILL_AFTER
        )
        second = runner.run()
    finally:
        runner.close()
        world.proxy.watch()
    assert (second.state, second.tries, second.kills) == ("success", 2, 1), second.errors
    assert second.xcoms["return_value"] != first.xcoms["return_value"]
    assert again.count() == 2
    assert world.nonce(again.wallet.address) - sent == again.transactions
