"""A waiting task that a user gives up stops its job, once; whatever else happens to Airflow's processes does not."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from airflow_ocean.c2d.client import OceanClient
from airflow_ocean.c2d.jobs import get_job
from airflow_ocean.c2d.network import Network
from airflow_ocean.c2d.specs import AlgorithmContainer, AssetSpec, ComputePolicy, Pricing
from include.localnet import accounts
from tests.support.running_airflow import terminate
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_ocean.c2d.jobs import Job
    from include.localnet.settings import NetworkSettings
    from tests.support.running_airflow import DagRun, MortalAirflow

pytestmark = [pytest.mark.e2e, pytest.mark.chaos]

# Writes its output at the end: a job that was stopped has none.
ALGORITHM = """
import json, pathlib, time
seconds = json.loads(pathlib.Path("/data/inputs/algoCustomData.json").read_text())["seconds"]
print("asleep", flush=True)
time.sleep(seconds)
pathlib.Path("/data/outputs/result").write_text("slept well")
"""
LONG = 900


class SleepyJobs:
    """Jobs of Bob's that sleep, one at a time.

    :param localnet: where they run
    """

    def __init__(self, localnet: NetworkSettings) -> None:
        self._localnet = localnet
        self._network = Network(
            localnet.rpc_url,
            localnet.provider_url,
            localnet.metadata_cache_url,
            address_file=str(localnet.address_file),
        )
        localnet.files_folder.mkdir(parents=True, exist_ok=True)
        (localnet.files_folder / "sleepy.py").write_text(ALGORITHM)
        container = AlgorithmContainer("oceanprotocol/algo_dockers", "python-branin", "sha256:" + "0c" * 32)
        trusting = ComputePolicy(trusted_publishers=(accounts.ALICE.address,))
        free = Pricing.dispenser()
        dataset = self._publish(
            AssetSpec("dataset", "data", (self._url("branin.arff"),), pricing=free, compute=trusting)
        )
        algorithm = self._publish(
            AssetSpec("algorithm", "sleepy", (self._url("sleepy.py"),), container=container, pricing=free)
        )
        with OceanClient(self._network, accounts.BOB.private_key) as bob:
            self._order = bob.orders.pay(bob.orders.quote([dataset], algorithm))

    def _publish(self, spec: AssetSpec) -> str:
        with OceanClient(self._network, accounts.ALICE.private_key) as alice:
            return alice.assets.publish(spec).did

    def _url(self, name: str) -> dict[str, Any]:
        return {"type": "url", "url": f"{self._localnet.files_url}/{name}", "method": "GET"}

    def start(self, seconds: float = LONG) -> str:
        """Start a job and return its id when its algorithm runs."""
        with OceanClient(self._network, accounts.BOB.private_key) as bob:
            job = bob.jobs.start(self._order, {"seconds": seconds})
        wait_until(lambda: self.get(job.id).state == 40, "the job runs")
        return job.id

    def get(self, job_id: str) -> Job:
        """Return a job as it is now."""
        return get_job(self._localnet.provider_url, accounts.BOB.address, job_id)

    def end(self, job_id: str) -> None:
        """Stop a job if it still runs, so that the order is free again."""
        with OceanClient(self._network, accounts.BOB.private_key) as bob:
            bob.jobs.stop(job_id)
        self.wait_until_over(job_id)

    def wait_until_over(self, job_id: str) -> Job:
        """Wait until a job is over."""
        wait_until(lambda: self.get(job_id).is_finished, "the job is over")
        return self.get(job_id)

    def stop_requests(self) -> int:
        """Return how often the Provider was asked to stop a job."""
        return sum('"PUT /api/services/compute' in line for line in self._requests())

    def looks(self, job_id: str) -> int:
        """Return how often the Provider was asked how a job is."""
        return sum('"GET /api/services/compute?' in line and job_id in line for line in self._requests())

    def _requests(self) -> list[str]:
        return (self._localnet.home / "logs" / "provider.log").read_text().splitlines()


@pytest.fixture(scope="module")
def jobs(mortal_network: NetworkSettings) -> SleepyJobs:
    return SleepyJobs(mortal_network)


class Wait:
    """A run that waits for a sleeping job.

    :param requests: stop requests that there were before
    """

    def __init__(self, jobs: SleepyJobs, job_id: str, run: DagRun) -> None:
        self.jobs, self.job_id, self.run = jobs, job_id, run
        self._requests = jobs.stop_requests()

    @property
    def stops(self) -> int:
        """How often the job was asked to stop since."""
        return self.jobs.stop_requests() - self._requests

    def wait_until_over(self) -> str:
        """Wait until the run is over and return its state."""
        wait_until(lambda: self.run.state in ("success", "failed"), "the run is over", timeout=120)
        return self.run.state


@pytest.fixture
def wait_for(mortal_airflow: MortalAirflow, jobs: SleepyJobs) -> Iterator[Callable[..., Wait]]:
    """Start a job and a run that waits for it; at the end neither goes on."""
    waits = []

    def start(dag_id: str, state: str = "deferred", seconds: float = LONG) -> Wait:
        job_id = jobs.start(seconds)
        wait = Wait(jobs, job_id, mortal_airflow.trigger(dag_id, job_id=job_id))
        waits.append(wait)
        wait.run.wait_for_state("wait", state)
        return wait

    yield start
    for wait in waits:
        jobs.end(wait.job_id)
        wait.wait_until_over()


@pytest.mark.parametrize("how", ["task failed", "task cleared", "task skipped", "run failed"])
def test_giving_the_deferred_task_up_stops_the_job_once(
    wait_for: Callable[..., Wait], mortal_airflow: MortalAirflow, how: str
) -> None:
    wait = wait_for("wait_deferred")
    wait_until(lambda: wait.run.task("wait")["triggerer_job"], "a triggerer has the trigger")
    if how == "task cleared":
        wait.run.clear("wait")
    elif how == "run failed":
        wait.run.mark("failed")
    else:
        wait.run.mark(how.removeprefix("task "), "wait")
    assert not wait.jobs.wait_until_over(wait.job_id).succeeded
    wait.wait_until_over()
    assert wait.stops == 1
    if how == "task cleared":
        # The next try waited for the stopped job and says so.
        assert wait.run.task("wait")["state"] == "failed"
        assert "ended without output" in wait.run.log("wait", 2)


def test_marking_the_deferred_task_successful_lets_the_job_go_on(
    wait_for: Callable[..., Wait], mortal_airflow: MortalAirflow
) -> None:
    wait = wait_for("wait_deferred")
    wait_until(lambda: wait.run.task("wait")["triggerer_job"], "a triggerer has the trigger")
    wait.run.mark("success", "wait")
    log = mortal_airflow.home / "logs"
    wait_until(
        lambda: any(
            f"Job {wait.job_id} goes on" in file.read_text() for file in log.rglob("*.log") if file.is_file()
        ),
        "the trigger was cancelled",
    )
    assert wait.stops == 0
    assert not wait.jobs.get(wait.job_id).is_finished


def test_a_deferred_task_outlives_every_component(
    wait_for: Callable[..., Wait], mortal_airflow: MortalAirflow
) -> None:
    wait = wait_for("wait_deferred", seconds=60)
    mortal_airflow.components["triggerer"].terminate()
    mortal_airflow.components["triggerer"].wait(60)
    since = datetime.now(UTC)
    mortal_airflow.start_component("triggerer")
    mortal_airflow.wait_for("triggerer", since)
    mortal_airflow.restart("triggerer", with_children=False)
    mortal_airflow.restart("triggerer")
    mortal_airflow.restart("scheduler")
    mortal_airflow.restart("api-server")
    assert wait.wait_until_over() == "success"
    assert wait.stops == 0
    assert wait.jobs.get(wait.job_id).succeeded


def test_a_trigger_that_another_triggerer_took_over_leaves_the_job_alone(
    wait_for: Callable[..., Wait], mortal_airflow: MortalAirflow
) -> None:
    wait = wait_for("wait_deferred")
    first = wait_until(lambda: wait.run.task("wait")["triggerer_job"], "a triggerer has the trigger")
    suspended = mortal_airflow.components["triggerer"]
    family = mortal_airflow.family("triggerer")
    for process in family:
        process.suspend()
    mortal_airflow.start_component("triggerer")
    try:

        def taken() -> bool:
            second = wait.run.task("wait")["triggerer_job"]
            return bool(second and second["id"] != first["id"])

        wait_until(taken, "another triggerer has the trigger")
    finally:
        for process in reversed(family):
            process.resume()
    logs = mortal_airflow.home / "logs"
    wait_until(
        lambda: any(
            f"Job {wait.job_id} goes on" in file.read_text() for file in logs.rglob("*.log") if file.is_file()
        ),
        "the first triggerer has cancelled its trigger",
    )
    suspended.terminate()
    suspended.wait(60)
    assert wait.run.task("wait")["state"] == "deferred"
    assert wait.stops == 0
    assert not wait.jobs.get(wait.job_id).is_finished


def test_the_deadline_survives_the_triggerer(
    wait_for: Callable[..., Wait], mortal_airflow: MortalAirflow
) -> None:
    wait = wait_for("wait_briefly")
    deadline = wait.run.xcom("wait", "deadline")
    mortal_airflow.kill("triggerer")
    wait_until(lambda: time.time() > deadline, "the deadline has passed")
    looks = wait.jobs.looks(wait.job_id)
    mortal_airflow.start_component("triggerer")
    assert wait.run.wait_for_state("wait", "failed")["try_number"] == 1
    # One by the trigger, one before the stop; counting anew there would be one a second.
    assert wait.jobs.looks(wait.job_id) - looks <= 4
    assert "is not over after 20 s; it was stopped" in wait.run.log("wait", 1)
    wait.jobs.wait_until_over(wait.job_id)
    assert wait.stops == 1


@pytest.mark.parametrize("how", ["failed", "cleared"])
def test_giving_the_poking_task_up_stops_the_job_once(
    wait_for: Callable[..., Wait], mortal_airflow: MortalAirflow, how: str
) -> None:
    wait = wait_for("wait_poking", "running")
    wait_until(lambda: "Running algorithm" in wait.run.log("wait", 1), "the sensor has poked")
    if how == "cleared":
        wait.run.clear("wait")
    else:
        wait.run.mark(how, "wait")
    assert not wait.jobs.wait_until_over(wait.job_id).succeeded
    assert wait.wait_until_over() == "failed"
    assert wait.stops == 1


def test_a_worker_that_is_shut_down_and_dies_leaves_the_job_alone(
    wait_for: Callable[..., Wait], mortal_airflow: MortalAirflow
) -> None:
    wait = wait_for("wait_poking", "running")
    wait_until(lambda: "Running algorithm" in wait.run.log("wait", 1), "the sensor has poked")
    (worker,) = mortal_airflow.busy_workers()
    terminate(worker)
    scheduler_log = mortal_airflow.log("scheduler")
    wait_until(lambda: "forwarding to task" in scheduler_log.read_text(), "the worker got the signal")
    mortal_airflow.kill_worker(worker)
    wait.run.wait_for_state("wait", "up_for_retry", timeout=60)
    wait.run.wait_for_state("wait", "running", timeout=60)
    wait_until(lambda: "Running algorithm" in wait.run.log("wait", 2), "the next try pokes", timeout=30)
    assert wait.stops == 0
    assert not wait.jobs.get(wait.job_id).is_finished
