"""How long the flow takes: the ocean-lib script, ``dag.test()``, a running scheduler, and both with emptied tasks."""

from __future__ import annotations

import contextlib
import shutil
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.bench.measurement import Bench, Table, Value, middle, ratio
from include.bench.phases import PHASE_OF_TASK, in_order
from include.bench.surroundings import airflow_settings, local_network, place, run_process
from include.demo.airflow import Airflow
from include.demo.interrupts import Teardown
from include.demo.processes import CommandError
from include.localnet.settings import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from include.localnet.settings import NetworkSettings

FLOW, EMPTY_FLOW = "ocean_c2d", "empty_flow"
_LONGEST = 600.0


def measure(bench: Bench) -> list[Table]:
    """Run each way on one network, by turns."""
    dags = bench.folder / "dags"
    dags.mkdir()
    for file in (PROJECT / "dags" / f"{FLOW}.py", Path(__file__).parent / "dags" / f"{EMPTY_FLOW}.py"):
        shutil.copy(file, dags)
    runs: dict[str, list[dict[str, Any]]] = {}
    with local_network(bench.folder) as settings:
        script = {"network": place(settings), "files_url": settings.files_url}
        environment = airflow_settings(bench.folder / "test", settings, dags)
        bench.report("Airflow's database")
        run_process(bench.folder, "dag_process", {"dags": []}, environment)
        for repetition in range(bench.repeats):
            bench.report(f"script and dag.test(), {repetition + 1} of {bench.repeats}")
            _keep(runs, "script", bench, "ocean_py_script", script)
            for dag in (FLOW, EMPTY_FLOW):
                _keep(runs, f"dag.test() {dag}", bench, "dag_process", {"dags": [dag]}, environment)
        bench.report("a running Airflow")
        with _running_airflow(bench.folder / "scheduler", settings, dags) as airflow:
            for dag in (FLOW, EMPTY_FLOW):
                airflow.wait_for_dag(dag)
                airflow.unpause(dag)
            _run(airflow, EMPTY_FLOW)  # the first one of all finds nothing warmed up
            for repetition in range(bench.repeats):
                bench.report(f"runs of the scheduler, {repetition + 1} of {bench.repeats}")
                for dag in (FLOW, EMPTY_FLOW):
                    runs.setdefault(f"scheduler {dag}", []).append(_run(airflow, dag))
    return [_totals(runs), _tasks(runs)]


def _keep(
    runs: dict[str, list[dict[str, Any]]], name: str, bench: Bench, module: str, *arguments: Any
) -> None:
    begun = time.monotonic()
    [run] = run_process(bench.folder, module, *arguments)["runs"]
    run["process"] = time.monotonic() - begun
    run.setdefault("seconds", sum(run["phases"].values()))
    runs.setdefault(name, []).append(run)


@contextlib.contextmanager
def _running_airflow(folder: Path, settings: NetworkSettings, dags: Path) -> Iterator[Airflow]:
    airflow = Airflow(airflow_settings(folder, settings, dags), folder / "airflow", Teardown())
    try:
        airflow.start()
        airflow.wait_until_ready()
        yield airflow
    finally:
        airflow.stop()


def _run(airflow: Airflow, dag_id: str) -> dict[str, Any]:
    """Trigger a run and return its times, from the moment it was triggered."""
    path = f"/api/v2/dags/{dag_id}/dagRuns"
    begun = time.time()
    run_id = airflow.request("POST", path, json={"logical_date": None})["dag_run_id"]
    path = f"{path}/{run_id}"
    while (run := airflow.request("GET", path))["state"] not in ("success", "failed"):
        airflow.check()
        if time.time() - begun > _LONGEST:
            raise CommandError(f"the run of {dag_id} is {run['state']} after {_LONGEST:.0f} s")
        time.sleep(0.25)
    if run["state"] != "success":
        raise CommandError(f"the run of {dag_id} failed; its logs were in {airflow.home / 'logs'}")
    listed = airflow.request("GET", f"{path}/taskInstances")["task_instances"]
    phases = {PHASE_OF_TASK.get(task["task_id"], task["task_id"]): task["duration"] for task in listed}
    job = None
    if dag_id == FLOW:
        entry = f"{path}/taskInstances/wait_for_compute/xcomEntries/duration"
        job = airflow.request("GET", entry)["value"]
    ended = datetime.fromisoformat(run["end_date"]).timestamp()
    return {"seconds": ended - begun, "phases": phases, "job": job}


def _totals(runs: dict[str, list[dict[str, Any]]]) -> Table:
    script = [run["seconds"] for run in runs["script"]]
    rows: list[tuple[Value, ...]] = []
    for label, name, empty in (
        ("the script with ocean-lib", "script", None),
        ("dag.test()", f"dag.test() {FLOW}", f"dag.test() {EMPTY_FLOW}"),
        ("a running scheduler", f"scheduler {FLOW}", f"scheduler {EMPTY_FLOW}"),
    ):
        seconds = [run["seconds"] for run in runs[name]]
        without = [run["seconds"] for run in runs[empty]] if empty else None
        process = [run["process"] for run in runs[name] if "process" in run]
        rows.append(
            (
                label,
                seconds,
                ratio(seconds, script),
                without,
                middle(seconds) - (middle(without) or 0.0),
                [run["job"] for run in runs[name]],
                process or None,
            )
        )
    columns = (
        "way",
        "flow, s",
        "x script",
        "of it Airflow's own, s",
        "the rest, s",
        "the job itself, s",
        "whole process, s",
    )
    return Table("The whole flow", columns, rows)


def _tasks(runs: dict[str, list[dict[str, Any]]]) -> Table:
    names = (
        "script",
        f"dag.test() {FLOW}",
        f"dag.test() {EMPTY_FLOW}",
        f"scheduler {FLOW}",
        f"scheduler {EMPTY_FLOW}",
    )
    rows: list[tuple[Value, ...]] = []
    for phase in in_order(phase for each in runs.values() for run in each for phase in run["phases"]):
        figures = [[run["phases"][phase] for run in runs[name] if phase in run["phases"]] for name in names]
        rows.append((phase, *(each or None for each in figures)))
    columns = ("phase, s", "script", "dag.test()", "dag.test(), empty", "scheduler", "scheduler, empty")
    return Table("By phase", columns, rows)
