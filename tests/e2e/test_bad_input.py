"""What chain and services may answer wrongly: each has its clear error, and no transaction is sent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from airflow.sdk.exceptions import AirflowRescheduleException

from airflow_ocean.c2d import cache
from airflow_ocean.c2d.errors import JobFailedError, OceanError
from tests.conftest import STACK
from tests.e2e import bad_answers_node, bad_answers_provider
from tests.e2e.bad_answers import BROKEN, OTHER_HASH, TOO_LARGE, edited, rpc, to
from tests.e2e.bad_input_tasks import Prepared, Tasks
from tests.e2e.fault_world import ETHER
from tests.support.fault_proxy import Rule

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.fault_world import World
    from tests.support.fault_proxy import Answer

pytestmark = [pytest.mark.e2e, pytest.mark.both_stacks]

WRONG = bad_answers_node if STACK == "node" else bad_answers_provider


@pytest.fixture(scope="module")
def prepared(world: World) -> Prepared:
    return Prepared(world)


@pytest.fixture
def tasks(prepared: Prepared, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Tasks:
    # Otherwise some things would be asked once in this process, and not in the tests that change the answer.
    cache.forget()
    return Tasks(prepared, monkeypatch, tmp_path)


@pytest.mark.parametrize("request_kind", WRONG.REQUESTS)
def test_broken_answers(tasks: Tasks, capsys: pytest.CaptureFixture[str], request_kind: str) -> None:
    task, applies = WRONG.REQUESTS[request_kind]
    unclear = []
    with tasks.nothing_sent():
        for name, change in BROKEN.items():
            tasks.begin_anew()
            problem = _problem_of(tasks, task, Rule(applies, change), capsys)
            if problem:
                unclear.append(f"{name}: {problem}")
    assert not unclear, "\n".join(unclear)


@pytest.mark.parametrize("request_kind", WRONG.HUGE)
def test_huge_answers(tasks: Tasks, capsys: pytest.CaptureFixture[str], request_kind: str) -> None:
    task, applies = WRONG.REQUESTS[request_kind]
    with tasks.nothing_sent():
        assert _problem_of(tasks, task, Rule(applies, TOO_LARGE), capsys) is None


def _problem_of(tasks: Tasks, task: str, rule: Rule, capsys: pytest.CaptureFixture[str]) -> str | None:
    """Return what is wrong with a task's error, None when it is a clear one, or one that is told and waited out."""
    capsys.readouterr()
    with tasks.world.proxy.answering(rule):
        try:
            result = tasks.run(task)
        except OceanError as error:
            return None if len(str(error)) > 30 else f"says only {error!r}"
        except AirflowRescheduleException:
            told = capsys.readouterr().out
            return None if "for now, trying again in" in told else "is looked at again without a word"
        except Exception as error:
            return f"{type(error).__name__}: {str(error)[:200]}"
    return f"was taken for good, the task returned {result!r}"


@pytest.mark.parametrize("name", WRONG.IMPOSSIBLE)
def test_impossible_answers(tasks: Tasks, name: str) -> None:
    task, applies, change, error, words = WRONG.IMPOSSIBLE[name]
    with (
        tasks.nothing_sent(),
        tasks.world.proxy.answering(Rule(applies, change)),
        pytest.raises(error, match=words) as caught,
    ):
        tasks.run(task)
    assert tasks.wallet.private_key[2:] not in str(caught.value)


RECEIPTS: dict[str, Callable[[Answer], Answer]] = {
    **BROKEN,
    "of another transaction": edited(
        lambda answer: (answer["result"] or {}).update(transactionHash=OTHER_HASH)
    ),
    "without logs": edited(lambda answer: (answer["result"] or {}).update(logs=None)),
    "without state": edited(lambda answer: (answer["result"] or {}).update(status="fine")),
    "in no block": edited(lambda answer: (answer["result"] or {}).update(blockNumber=None)),
}


@pytest.mark.parametrize("name", RECEIPTS)
def test_receipts_that_are_none(world: World, tasks: Tasks, name: str) -> None:
    """The transaction is out by then: a clear error, and the retry does not send another."""
    wallet = world.wallet(held=ETHER)
    tasks.wallet = wallet
    with (
        world.proxy.answering(Rule(rpc("eth_getTransactionReceipt"), RECEIPTS[name])),
        pytest.raises(OceanError),
    ):
        tasks.run("transfer")
    (sent,) = tasks.run("transfer")
    assert world.chain.receipt(sent)["status"] == "0x1"
    assert world.nonce(wallet.address) == 1
    assert world.balance(world.assets["held"].datatoken_address, wallet.address) == ETHER - ETHER // 10


@pytest.mark.parametrize("name", ["truncated", "HTML", "a list of numbers", "an empty object"])
def test_starts_that_are_answered_with_nothing(
    world: World, prepared: Prepared, tasks: Tasks, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """The job runs by then: a clear error, and the retry finds it."""
    tasks.payer = world.wallet()
    tasks.order = prepared.free_order(tasks.payer)
    assert _problem_of(tasks, "start", Rule(WRONG.START, BROKEN[name]), capsys) is None
    started = tasks.run("start")
    (job,) = world.jobs(tasks.payer.address)
    assert started.rpartition("-")[2] == job["jobId"]


@pytest.mark.parametrize("name", WRONG.RESULTS)
def test_results_that_are_none(tasks: Tasks, name: str) -> None:
    """Nothing of a wrong result stays, and a retry fetches it."""
    applies, change, error, words = WRONG.RESULTS[name]
    with tasks.world.proxy.answering(Rule(applies, change)), pytest.raises(error, match=words) as caught:
        tasks.run("fetch")
    assert tasks.prepared.over.good in str(caught.value)
    assert "manifest" not in tasks.context["ti"].xcoms
    assert not list(tasks.folder.rglob("*.part"))
    sizes = {Path(uri.removeprefix("file://")).stat().st_size for uri in tasks.run("fetch")}
    assert {8, 256 * 8192} <= sizes  # the algorithm's outputs


def test_a_log_that_is_none_does_not_hide_how_the_job_ended(tasks: Tasks) -> None:
    for change in BROKEN.values():
        with (
            tasks.world.proxy.answering(Rule(to("provider", "/computeResult"), change)),
            pytest.raises(JobFailedError, match="failed|ended without output"),
        ):
            tasks.run("wait_for_a_failure")
