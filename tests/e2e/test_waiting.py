"""A task that waits on a real triggerer: what it leaves to be read meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from include.bench.job_history import job_history
from include.localnet import accounts
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from include.bench.job_history import JobHistory
    from include.localnet.settings import NetworkSettings
    from tests.support.running_airflow import DagRun, MortalAirflow

pytestmark = [pytest.mark.e2e, pytest.mark.chaos, pytest.mark.both_stacks]


@pytest.fixture
def jobs(mortal_network: NetworkSettings) -> Iterator[JobHistory]:
    jobs = job_history(mortal_network, accounts.BOB.address)
    yield jobs
    jobs.remove()


@pytest.fixture
def wait_for(mortal_airflow: MortalAirflow, jobs: JobHistory) -> Iterator[Callable[[str], DagRun]]:
    """Start a run that waits for a job; at the end all are over."""
    runs: dict[str, DagRun] = {}

    def start(job_id: str) -> DagRun:
        runs[job_id] = mortal_airflow.trigger("wait_deferred", job_id=job_id)
        return runs[job_id]

    yield start
    for job_id, run in runs.items():
        jobs.finish(job_id)
        wait_until(lambda run=run: run.state in ("success", "failed"), "the run is over", timeout=120)


def states_of(run: DagRun) -> list[int]:
    return [entry["state"] for entry in run.xcom("wait", "states")]


def test_the_time_line_grows_while_the_task_waits_and_outlives_the_triggerer(
    wait_for: Callable[[str], DagRun], mortal_airflow: MortalAirflow, jobs: JobHistory
) -> None:
    [job] = jobs.add(1)
    jobs.reach(job, 20)
    run = wait_for(job)
    run.wait_for_state("wait", "deferred")
    assert states_of(run) == [20]
    for expected in ([20, 30], [20, 30, 40]):
        jobs.reach(job, expected[-1])
        wait_until(lambda expected=expected: states_of(run) == expected, f"the states are {expected}")
    first = run.xcom("wait", "states")
    mortal_airflow.restart("triggerer")
    jobs.reach(job, 60)
    wait_until(lambda: states_of(run) == [20, 30, 40, 60], "the next triggerer goes on")
    assert run.xcom("wait", "states")[:3] == first
    jobs.finish(job)
    run.wait_for_state("wait", "success")
    assert states_of(run) == [20, 30, 40, 60, 70]
    provisioning = run.xcom("wait", "states")[1]["text"]
    assert run.log("wait", 1).count(f"{provisioning} (30), after") == 1
