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
from tests.conftest import STACK
from tests.support.running_airflow import terminate
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_ocean.c2d.jobs import Job
    from include.localnet.settings import NetworkSettings
    from tests.support.running_airflow import DagRun, MortalAirflow

pytestmark = [pytest.mark.e2e, pytest.mark.chaos, pytest.mark.both_stacks]

# Writes its output at the end: a job that was stopped has none.
ALGORITHM = """
import json, pathlib, time
seconds = json.loads(pathlib.Path("/data/inputs/algoCustomData.json").read_text())["seconds"]
print("asleep", flush=True)
time.sleep(seconds)
pathlib.Path("/data/outputs/result").write_text("slept well")
"""
LONG = 900
# Where the requests to stop a job are seen, by generation of services.
STOPS = {
    "provider": ("operator_service", '"PUT /api/v1/operator/compute'),
    "node": ("node", "Asked to stop job"),
}
# How a job that was stopped ends.
STOPPED = {"provider": "ended without output", "node": "ended with exit code 137"}


class SleepyJobs:
    """Jobs of Bob's that sleep, each with an order of its own.

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
        trusting = ComputePolicy(open_to_all=True)
        free = Pricing.dispenser()
        self._dataset = self._publish(
            AssetSpec("dataset", "data", (self._url("branin.arff"),), pricing=free, compute=trusting)
        )
        self._algorithm = self._publish(
            AssetSpec("algorithm", "sleepy", (self._url("sleepy.py"),), container=container, pricing=free)
        )

    def _publish(self, spec: AssetSpec) -> str:
        with OceanClient(self._network, accounts.ALICE.private_key) as alice:
            return alice.assets.publish(spec).did

    def _url(self, name: str) -> dict[str, Any]:
        return {"type": "url", "url": f"{self._localnet.files_url}/{name}", "method": "GET"}

    def start(self, seconds: float = LONG) -> str:
        """Start a job and return its id."""
        with OceanClient(self._network, accounts.BOB.private_key) as bob:
            order = bob.orders.pay(bob.orders.quote([self._dataset], self._algorithm))
            return bob.jobs.start(order, {"seconds": seconds}).id

    def get(self, job_id: str) -> Job:
        """Return a job as it is now."""
        return get_job(self._localnet.provider_url, accounts.BOB.address, job_id)

    def end(self, job_id: str) -> None:
        """Stop a job if it still runs."""
        with OceanClient(self._network, accounts.BOB.private_key) as bob:
            bob.jobs.stop(job_id)
        self.wait_until_over(job_id)

    def wait_until_over(self, job_id: str) -> Job:
        """Wait until a job is over."""
        wait_until(lambda: self.get(job_id).is_finished, "the job is over")
        return self.get(job_id)

    def stop_requests(self, job_id: str) -> int:
        """Return how often a job was asked to stop: by the Provider, whose own log does not name it, or by a client."""
        service, words = STOPS[STACK]
        lines = (self._localnet.home / "logs" / f"{service}.log").read_text().splitlines()
        # An Ocean Node's own name of a job is without its cluster.
        own_id = job_id.rpartition("-")[2]
        return sum(words in line and own_id in line for line in lines)


@pytest.fixture(scope="module")
def jobs(mortal_network: NetworkSettings) -> SleepyJobs:
    return SleepyJobs(mortal_network)


class Wait:
    """A run that waits for a sleeping job."""

    def __init__(self, jobs: SleepyJobs, job_id: str, run: DagRun) -> None:
        self.jobs, self.job_id, self.run = jobs, job_id, run

    @property
    def stops(self) -> int:
        """How often the job was asked to stop."""
        return self.jobs.stop_requests(self.job_id)

    @property
    def goes_on(self) -> bool:
        """Whether the job runs and nobody has asked it to stop."""
        return not self.stops and not self.jobs.get(self.job_id).is_finished

    def wait_until_it_waits(self) -> None:
        """Wait until a triggerer, or the worker that pokes, has seen the job at work."""
        wait_until(lambda: self.jobs.get(self.job_id).state == 40, "the job runs")
        if self.run.dag_id == "wait_poking":
            self.run.wait_for_state("wait", "running")
            wait_until(lambda: "Running algorithm" in self.run.log("wait", 1), "the sensor has poked")
        else:
            self.run.wait_for_state("wait", "deferred")
            wait_until(lambda: self.run.task("wait")["triggerer_job"], "a triggerer has the trigger")

    def wait_until_over(self) -> str:
        """Wait until the run is over and return its state."""
        wait_until(lambda: self.run.state in ("success", "failed"), "the run is over", timeout=300)
        return self.run.state


@pytest.fixture
def wait_for(mortal_airflow: MortalAirflow, jobs: SleepyJobs) -> Iterator[Callable[..., Wait]]:
    """Start a job and a run that waits for it; at the end neither goes on."""
    waits = []

    def start(dag_id: str, seconds: float = LONG) -> Wait:
        job_id = jobs.start(seconds)
        waits.append(Wait(jobs, job_id, mortal_airflow.trigger(dag_id, job_id=job_id)))
        return waits[-1]

    yield start
    for wait in waits:
        jobs.end(wait.job_id)
    for wait in waits:
        wait.wait_until_over()


# How a user gives a waiting task up, and which DAG waits how. The local network runs so many jobs at once.
WAYS = [
    {
        "task failed": "wait_deferred",
        "task skipped": "wait_deferred",
        "task cleared": "wait_deferred",
        "run failed": "wait_deferred",
    },
    {
        "poking task failed": "wait_poking",
        "poking task cleared": "wait_poking",
        "task succeeded": "wait_deferred",
    },
]


def _give_up(run: DagRun, way: str) -> None:
    if way == "run failed":
        run.mark("failed")
    elif way.endswith("cleared"):
        run.clear("wait")
    else:
        run.mark({"succeeded": "success"}.get(way.split()[-1], way.split()[-1]), "wait")


@pytest.mark.parametrize("ways", WAYS, ids=["deferred", "poking"])
def test_giving_the_task_up_stops_the_job_once(
    wait_for: Callable[..., Wait], mortal_airflow: MortalAirflow, ways: dict[str, str]
) -> None:
    """Several ways at the same time, each with a job of its own; who marks the task successful wants the job to go on."""
    waits: dict[str, Wait] = {}
    for way, dag_id in ways.items():
        # One after the other: many tasks that start at once keep each other from the heartbeats that Airflow expects.
        waits[way] = wait_for(dag_id)
        waits[way].wait_until_it_waits()
    assert all(wait.goes_on for wait in waits.values())
    for way, wait in waits.items():
        _give_up(wait.run, way)
    successful = waits.pop("task succeeded", None)
    for way, wait in waits.items():
        assert not wait.jobs.wait_until_over(wait.job_id).succeeded, way
    assert {way: wait.wait_until_over() for way, wait in waits.items()} == {
        way: "success" if way == "task skipped" else "failed" for way in waits
    }
    assert {way: wait.stops for way, wait in waits.items()} == dict.fromkeys(waits, 1)
    # The next try waited for the stopped job and says so.
    for cleared in (wait for way, wait in waits.items() if way.endswith("cleared")):
        assert STOPPED[STACK] in cleared.run.log("wait", 2)
    if successful is not None:
        _wait_until_left_alone(mortal_airflow, successful, "the trigger was cancelled")
        assert successful.goes_on


def _wait_until_left_alone(airflow: MortalAirflow, wait: Wait, what: str) -> None:
    """Wait until a triggerer has said that it cancels a trigger but not its job."""
    words, logs = f"Job {wait.job_id} goes on", airflow.home / "logs"
    wait_until(lambda: any(words in file.read_text() for file in logs.rglob("*.log") if file.is_file()), what)


def test_waits_and_deadlines_outlive_triggerer_and_scheduler(
    wait_for: Callable[..., Wait], mortal_airflow: MortalAirflow
) -> None:
    """Both are killed in the same moment while one job goes on and the patience with another ends."""
    lasting = wait_for("wait_deferred", seconds=45)
    lasting.wait_until_it_waits()
    seen = lasting.run.xcom("wait", "states")
    brief = wait_for("wait_briefly")
    brief.run.wait_for_state("wait", "deferred")
    deadline = brief.run.xcom("wait", "deadline")
    for component in ("triggerer", "scheduler"):
        mortal_airflow.kill(component)
    wait_until(lambda: time.time() > deadline, "the deadline has passed")
    for component in ("triggerer", "scheduler"):
        mortal_airflow.start_component(component)
    assert brief.run.wait_for_state("wait", "failed")["try_number"] == 1
    assert brief.run.xcom("wait", "deadline") == deadline
    assert "is not over after 30 s; it was stopped" in brief.run.log("wait", 1)
    brief.jobs.wait_until_over(brief.job_id)
    assert brief.stops == 1
    assert lasting.wait_until_over() == "success"
    assert lasting.stops == 0
    assert lasting.jobs.get(lasting.job_id).succeeded
    # The time line goes on where the first triggerer has left it.
    states = lasting.run.xcom("wait", "states")
    assert states[: len(seen)] == seen
    # An Ocean Node's job has its results before it is settled.
    assert (seen[-1]["state"], states[-1]["state"]) in ((40, 70), (40, 71))


@pytest.mark.long
def test_a_deferred_task_outlives_every_component(
    wait_for: Callable[..., Wait], mortal_airflow: MortalAirflow
) -> None:
    wait = wait_for("wait_deferred", seconds=60)
    wait.wait_until_it_waits()
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


@pytest.mark.long
def test_a_trigger_that_another_triggerer_took_over_leaves_the_job_alone(
    wait_for: Callable[..., Wait], mortal_airflow: MortalAirflow
) -> None:
    wait = wait_for("wait_deferred")
    wait.wait_until_it_waits()
    first = wait.run.task("wait")["triggerer_job"]
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
    _wait_until_left_alone(mortal_airflow, wait, "the first triggerer has cancelled its trigger")
    suspended.terminate()
    suspended.wait(60)
    assert wait.run.task("wait")["state"] == "deferred"
    assert wait.goes_on


@pytest.mark.long
def test_a_worker_that_is_shut_down_and_dies_leaves_the_job_alone(
    wait_for: Callable[..., Wait], mortal_airflow: MortalAirflow
) -> None:
    wait = wait_for("wait_poking")
    wait.wait_until_it_waits()
    (worker,) = mortal_airflow.busy_workers()
    terminate(worker)
    scheduler_log = mortal_airflow.log("scheduler")
    wait_until(lambda: "forwarding to task" in scheduler_log.read_text(), "the worker got the signal")
    mortal_airflow.kill_worker(worker)
    wait.run.wait_for_state("wait", "up_for_retry")
    wait.run.wait_for_state("wait", "running")
    wait_until(lambda: "Running algorithm" in wait.run.log("wait", 2), "the next try pokes")
    assert wait.goes_on
