"""Runs of DAGs through ``dag.test()``, one after another in one process, with the time of each task."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from include.bench.phases import PHASE_OF_TASK, Stopwatch
from include.bench.surroundings import tell_result
from include.demo.dag_run import load, prepare


class Tasks:
    """The Airflow listener that takes the tasks' times. Each task finds nothing cached, as in a worker of its own."""

    def __init__(self) -> None:
        self.watch = Stopwatch("")

    def listener(self) -> object:
        """Return what Airflow calls."""
        from airflow.listeners import hookimpl

        from airflow_ocean.c2d import cache

        tasks = self

        class TaskListener:
            @hookimpl
            def on_task_instance_running(self, task_instance: Any) -> None:
                cache.forget()
                tasks.watch.begin(PHASE_OF_TASK.get(task_instance.task_id, task_instance.task_id))

            @hookimpl
            def on_task_instance_success(self, task_instance: Any) -> None:
                tasks.watch.begin(None)

        return TaskListener()


def main(dags: list[str]) -> dict[str, Any]:
    """Run DAGs.

    :param dags: their ids, in order
    :returns: for each run its seconds, those of its phases and of its job
    """
    from airflow.sdk.listener import get_listener_manager

    prepare(Path(os.environ["AIRFLOW_HOME"]))
    tasks = Tasks()
    get_listener_manager().add_listener(tasks.listener())  # type: ignore[no-untyped-call]
    runs = []
    for number, dag_id in enumerate(dags):
        dag = load(dag_id)
        tasks.watch = Stopwatch(f"run {number}")
        begun = time.monotonic()
        run = dag.test(logical_date=datetime.now(UTC))
        seconds = time.monotonic() - begun
        if run.state != "success":
            raise RuntimeError(f"the run of {dag_id} ended {run.state}")
        runs.append({"seconds": seconds, "phases": tasks.watch.seconds, "job": _job_seconds(run)})
    return {"runs": runs}


def _job_seconds(run: Any) -> float | None:
    """Return how long the run's compute job took, None of a DAG that has none."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as session:
        query = XComModel.get_many(
            run_id=run.run_id, dag_ids=run.dag_id, task_ids="wait_for_compute", key="duration"
        )
        found: Any = session.scalars(query).first()
        return float(found.value) if found else None


if __name__ == "__main__":
    tell_result(main)
