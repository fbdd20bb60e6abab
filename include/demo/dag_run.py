"""One run of a DAG without a scheduler, in a process of its own that tells what happens as lines of JSON.

Used as ``python -m include.demo.dag_run DAG_ID EVENTS_FD``. While the network comes up it imports Airflow; the line of
JSON that it then reads from standard input is what the run needs besides: environment variables and the run's
configuration.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import DAG


class Events:
    """What happens in the run, told to the parent process.

    :param descriptor: file descriptor of the pipe to it
    """

    def __init__(self, descriptor: int) -> None:
        self._pipe = os.fdopen(descriptor, "w", buffering=1)
        self._begun: dict[str, float] = {}

    def tell(self, event: str, **details: Any) -> None:
        """Write one event."""
        print(json.dumps({"event": event, **details}), file=self._pipe, flush=True)

    def listener(self) -> object:
        """Return the Airflow listener that tells how the tasks fare."""
        from airflow.listeners import hookimpl

        tell, begun = self.tell, self._begun

        class TaskListener:
            @hookimpl
            def on_task_instance_running(self, task_instance: Any) -> None:
                if task_instance.task_id not in begun:  # a deferred task runs a second time
                    begun[task_instance.task_id] = time.monotonic()
                    tell("running", task=task_instance.task_id, log_begin=log_size())

            @hookimpl
            def on_task_instance_success(self, task_instance: Any) -> None:
                task = task_instance.task_id
                seconds = time.monotonic() - begun.pop(task)
                value, manifest = (
                    task_instance.xcom_pull(task, key=key) for key in ("return_value", "manifest")
                )
                tell("success", task=task, seconds=seconds, value=value, manifest=manifest)

            @hookimpl
            def on_task_instance_skipped(self, task_instance: Any) -> None:
                begun.pop(task_instance.task_id, None)
                tell("skipped", task=task_instance.task_id)

            @hookimpl
            def on_task_instance_failed(self, task_instance: Any, error: Any) -> None:
                task = task_instance.task_id
                seconds = time.monotonic() - begun.pop(task, time.monotonic())
                state = task_instance.state.value
                tell("failed", task=task, seconds=seconds, state=state, error=str(error), log_end=log_size())

        return TaskListener()


def log_size() -> int:
    """Return how much has been written to the log, which is the standard output."""
    sys.stdout.flush()
    return os.fstat(sys.stdout.fileno()).st_size


def prepare(home: Path) -> None:
    """Import what the run needs, and bring Airflow's database up to date when that has not been done."""
    import httpx
    from airflow.sdk.execution_time.supervisor import in_process_api_server
    from airflow.utils.db import initdb

    from include.demo.airflow import remember_schema, schema_is_current

    if not schema_is_current(home):
        initdb()
        remember_schema(home)
    # The small API server behind the tasks builds itself at the first request: four seconds of computing, for which all
    # else would wait.
    with httpx.Client(
        transport=in_process_api_server().transport, base_url="http://in-process.invalid"
    ) as client:
        client.get("/health").raise_for_status()


def load(dag_id: str) -> DAG:
    """Return a DAG of the DAGs folder.

    :raises LookupError: when there is none, with the errors of the files that cannot be read
    """
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    if dag_id not in bag.dags:
        errors = "\n".join(f"{file}: {error}" for file, error in bag.import_errors.items())
        raise LookupError(f"there is no DAG {dag_id} in {bag.dag_folder}\n{errors}")
    return bag.dags[dag_id]


def main() -> int:
    """Run a DAG and return 0 when it succeeded."""
    dag_id, events = sys.argv[1], Events(int(sys.argv[2]))
    prepare(Path(os.environ["AIRFLOW_HOME"]))
    events.tell("prepared")
    given = json.loads(sys.stdin.readline())
    os.environ.update(given["environment"])
    from airflow.sdk.listener import get_listener_manager

    get_listener_manager().add_listener(events.listener())  # type: ignore[no-untyped-call]
    run = load(dag_id).test(run_conf=given["conf"])
    events.tell("end", state=str(run.state), run_id=run.run_id)
    return 0 if run.state == "success" else 1


if __name__ == "__main__":
    sys.exit(main())
