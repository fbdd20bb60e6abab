"""A running Airflow, one whose components and workers can be killed and started again, and runs of DAGs over REST."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import psutil

from include.demo.airflow import _COMPONENTS, Airflow
from include.demo.environment import ARTIFACTS_VARIABLE, airflow_environment
from include.demo.interrupts import Teardown
from include.demo.processes import CommandError, end_of
from include.localnet.cli import exports
from include.localnet.settings import choose_ports
from tests.support.airflow import PROJECT
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from include.localnet.settings import NetworkSettings

COMPONENTS = tuple(_COMPONENTS)
# Airflow notices within seconds, not minutes, that a worker, a scheduler or a triggerer is no more.
QUICK_DETECTION = {
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "SCHEDULER__JOB_HEARTBEAT_SEC": "1",
    "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
    "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
    "SCHEDULER__TASK_QUEUED_TIMEOUT": "30",
    "SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "5",
    "TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
    # A restart of the API server takes longer on a busy machine than the heartbeats of the default number.
    "WORKERS__MAX_FAILED_HEARTBEATS": "60",
}


class RunningAirflow(Airflow):
    """An Airflow on the local network.

    :param localnet: the network that its connections lead to
    :param home: folder of Airflow's state
    :param dags: DAG files
    :param settings: Airflow's, as in ``CORE__PARALLELISM``
    """

    def __init__(
        self, localnet: NetworkSettings, home: Path, dags: Iterable[Path], settings: Mapping[str, str]
    ) -> None:
        folder = home / "dags"
        folder.mkdir(parents=True)
        for dag in dags:
            shutil.copy(dag, folder)
        base = {**os.environ, ARTIFACTS_VARIABLE: str(home / "artifacts")}
        environment = airflow_environment(home, port=choose_ports(0)["chain"], dags=folder, base=base)
        environment |= {f"AIRFLOW__{name}": value for name, value in settings.items()}
        super().__init__(environment | exports(localnet), home, Teardown())

    def trigger(self, dag_id: str, **conf: Any) -> DagRun:
        """Start a run of a DAG."""
        body = {"logical_date": None, "conf": conf}
        started = self.request("POST", f"/api/v2/dags/{dag_id}/dagRuns", json=body)
        return DagRun(self, dag_id, started["dag_run_id"])


class MortalAirflow(RunningAirflow):
    """An Airflow each of whose processes can be killed.

    :param localnet: the network that its connections lead to
    :param home: folder of Airflow's state
    :param dags: DAG files
    """

    def __init__(self, localnet: NetworkSettings, home: Path, dags: Iterable[Path]) -> None:
        super().__init__(localnet, home, dags, QUICK_DETECTION)
        self._orphans: set[psutil.Process] = set()

    def stop(self) -> None:
        """End everything, what has lost its parent as well."""
        for name, process in self.components.items():
            if process.poll() is None:
                with contextlib.suppress(psutil.NoSuchProcess):
                    for member in psutil.Process(process.pid).children(recursive=True):
                        member.resume()
                    psutil.Process(process.pid).resume()
            elif name == "scheduler":
                self._kill(self._orphans)
        super().stop()
        self._kill(self._orphans)

    # ------------------------------------------------------------------ processes

    def family(self, component: str) -> list[psutil.Process]:
        """Return a component's process and all below it."""
        leader = psutil.Process(self.components[component].pid)
        return [leader, *leader.children(recursive=True)]

    def busy_workers(self) -> list[list[psutil.Process]]:
        """Return the executor's processes that run a task, each with the task's own."""
        workers = psutil.Process(self.components["scheduler"].pid).children()
        found = []
        for worker in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                if below := worker.children(recursive=True):
                    found.append([worker, *below])
        return found

    def kill(self, component: str, *, with_children: bool = True) -> None:
        """Kill a component with SIGKILL, and its children in the same instant, or let those find out.

        Workers that run a task outlive a scheduler that is killed alone, as they do in real life.
        """
        leader, *children = self.family(component)
        if with_children:
            self._kill([leader, *children])
        else:
            busy = (
                {member for worker in self.busy_workers() for member in worker}
                if component == "scheduler"
                else set()
            )
            self._kill([leader])
            self._orphans.update(children)
            if component == "scheduler":
                # An executor's process that waits for work would wait for ever.
                self._kill(set(children) - busy)
        self.components[component].wait(10)

    def kill_worker(self, worker: list[psutil.Process]) -> None:
        """Kill a task's process and its supervisor with SIGKILL."""
        self._kill(worker)

    def _kill(self, processes: Iterable[psutil.Process]) -> None:
        gone = list(processes)
        for process in gone:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()  # so that none sees another die first
        for process in gone:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def start_component(self, component: str) -> None:
        """Start a component (again), without waiting until it is ready."""
        self._start(component, (component, *_COMPONENTS[component]))

    def restart(self, component: str, *, with_children: bool = True) -> None:
        """Kill a component and wait until its successor works."""
        self.kill(component, with_children=with_children)
        since = datetime.now(UTC)
        self.start_component(component)
        self.wait_for(component, since)

    def wait_for(self, component: str, since: datetime) -> None:
        """Wait until a component that was started after a moment works."""
        wait_until(lambda: component not in self._not_ready(since), f"the {component} is ready", timeout=240)

    def suspend(self, component: str) -> None:
        """Stop a component's processes where they are, as a suspended machine does."""
        for process in self.family(component):
            process.suspend()

    def resume(self, component: str) -> None:
        """Let a component's processes go on."""
        for process in reversed(self.family(component)):
            process.resume()


class DagRun:
    """A run of a DAG.

    :param airflow: where it runs
    """

    def __init__(self, airflow: Airflow, dag_id: str, run_id: str) -> None:
        self._airflow = airflow
        self.dag_id = dag_id
        self.run_id = run_id
        self.path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}"

    @property
    def state(self) -> str:
        """The run's state."""
        return str(self._airflow.request("GET", self.path)["state"])

    def wait_until_over(self, timeout: float) -> str:
        """Wait until the run is over, and return its state.

        An API server that is busy, or whose SQLite is locked for too long, may leave a question without an answer.
        """

        def over() -> str | None:
            with contextlib.suppress(httpx.HTTPError, CommandError):
                return state if (state := self.state) in ("success", "failed") else None
            return None

        try:
            found = wait_until(over, "the run is over", timeout)
        except AssertionError as error:
            error.add_note(self._situation())
            raise
        assert found is not None
        if found == "failed":
            print(self._failures())  # pytest shows it with a test that did not expect that
        return found

    def _failures(self) -> str:
        """Return the end of the last log of each task that failed."""
        lines = []
        for task_id, task in self.tasks().items():
            if task["state"] == "failed":
                log = self.log(task_id, task["try_number"]) if task["map_index"] < 0 else ""
                lines.append(f"{task_id} failed at try {task['try_number']}\n{log[-4000:]}")
        return "\n".join(lines)

    def _situation(self) -> str:
        """Say what became of the tasks and of Airflow's components, for a failure."""
        lines = []
        for name, process in self._airflow.components.items():
            status = process.poll()
            lines.append(f"{name} runs" if status is None else f"{name} has ended with status {status}")
        try:
            listed = self._airflow.request("GET", f"{self.path}/taskInstances", params={"limit": 100})
            lines += [
                f"{task['task_id']}[{task['map_index']}] try {task['try_number']}: {task['state']} {task['note'] or ''}"
                for task in listed["task_instances"]
            ]
        except (httpx.HTTPError, CommandError) as error:
            lines.append(f"the tasks' states are unknown: {error!r}")
        lines += [f"The end of {self._airflow.log('scheduler')}:", end_of(self._airflow.log("scheduler"))]
        return "\n".join(lines)

    def tasks(self) -> Mapping[str, dict[str, Any]]:
        """Return its task instances as the REST API has them, by task id."""
        listed = self._airflow.request("GET", f"{self.path}/taskInstances")["task_instances"]
        return {task["task_id"]: task for task in listed}

    def task(self, task_id: str) -> dict[str, Any]:
        """Return a task instance as the REST API has it."""
        found: dict[str, Any] = self._airflow.request("GET", f"{self.path}/taskInstances/{task_id}")
        return found

    def members(self, task_id: str) -> list[dict[str, Any]]:
        """Return the instances of a mapped task as the REST API has them."""
        listed = f"{self.path}/taskInstances/{task_id}/listMapped"
        found: list[dict[str, Any]] = self._airflow.request("GET", listed)["task_instances"]
        return sorted(found, key=lambda member: int(member["map_index"]))

    def xcom(self, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """Return what a task has pushed.

        :param map_index: which member of a mapped task
        """
        path = f"{self.path}/taskInstances/{task_id}/xcomEntries/{key}"
        return self._airflow.request("GET", path, params={"map_index": map_index})["value"]

    def xcoms(self, task_id: str) -> dict[str, Any]:
        """Return everything that a task has pushed, by its keys."""
        path = f"{self.path}/taskInstances/{task_id}/xcomEntries"
        keys = [entry["key"] for entry in self._airflow.request("GET", path)["xcom_entries"]]
        return {key: self.xcom(task_id, key) for key in keys}

    def log(self, task_id: str, try_number: int) -> str:
        """Return the log of a try."""
        path = f"{self.path}/taskInstances/{task_id}/logs/{try_number}"
        return json.dumps(self._airflow.request("GET", path)["content"], indent=0)

    def wait_for_state(self, task_id: str, *states: str | None, timeout: float = 180) -> dict[str, Any]:
        """Wait until a task is in one of some states."""

        def reached() -> dict[str, Any] | None:
            task = self.task(task_id)
            return task if task["state"] in states else None

        found = wait_until(reached, f"{task_id} is {' or '.join(map(str, states))}", timeout)
        assert found is not None
        return found

    def answer(self, task_id: str, option: str) -> None:
        """Answer a task's question as a person does under Required Actions, who is not quicker than Airflow itself.

        Airflow 3.3.2 with the LocalExecutor tries a task again whose answer comes within a second of the question, before
        the scheduler has heard from the worker that the task waits.
        """
        heard = (
            f"Received executor event with state success for task instance TaskInstanceKey(dag_id={self.dag_id!r}, "
            f"task_id={task_id!r}, run_id={self.run_id!r}"
        )
        log = self._airflow.log("scheduler")
        wait_until(
            lambda: heard in log.read_text(errors="replace"), "the scheduler knows that the task waits"
        )
        path = f"{self.path}/taskInstances/{task_id}/-1/hitlDetails"
        self._airflow.request("PATCH", path, json={"chosen_options": [option], "params_input": {}})

    def mark(self, state: str, task_id: str | None = None) -> None:
        """Mark the run, or a task of it, as a user does."""
        if task_id is None:
            change(self._airflow, "PATCH", self.path, {"state": state})
        else:
            change(self._airflow, "PATCH", f"{self.path}/taskInstances/{task_id}", {"new_state": state})

    def clear(self, task_id: str) -> None:
        """Clear a task, as a user does."""
        body = {"dry_run": False, "task_ids": [task_id], "dag_run_id": self.run_id, "only_failed": False}
        change(self._airflow, "POST", f"/api/v2/dags/{self.dag_id}/clearTaskInstances", body)


def change(airflow: Airflow, method: str, path: str, body: dict[str, Any]) -> None:
    """Send a request, again when SQLite was locked for too long: Airflow then rolls back and answers 500 or 503."""

    def accepted() -> bool:
        try:
            airflow.request(method, path, json=body)
        except CommandError as error:
            if not any(f"was answered {status}" in str(error) for status in (500, 503)):
                raise
            return False
        return True

    wait_until(accepted, f"Airflow takes {method} {path}")


def terminate(worker: list[psutil.Process]) -> None:
    """Ask a worker to end, as a container's shutdown does."""
    with contextlib.suppress(psutil.NoSuchProcess):
        worker[0].send_signal(signal.SIGTERM)


def project_dag(name: str) -> Path:
    """Return the file of one of the project's DAGs."""
    return PROJECT / "dags" / f"{name}.py"
