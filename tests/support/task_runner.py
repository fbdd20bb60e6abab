"""Runs one task as Airflow does, each attempt in a process of its own, by Airflow's own task runner.

What Airflow keeps in its database (task state store, XComs, the task's state, its trigger) is kept in one SQLite file,
durable before the task goes on. Retries are decided by Airflow's code; delays are recorded and not waited for. A
process that is killed is what Airflow calls a zombie: it is tried again while there are tries left.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import multiprocessing
import os
import signal
import sqlite3
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from pathlib import Path

DAG_ID, RUN_ID, TASK_ID = "faulty", "manual__2025-01-02T03:04:05+00:00", "a_task"
INSTANCE = UUID(int=1)
# Imported once, in the process that all attempts are forked from.
_HEAVY = (
    "airflow.api_fastapi.execution_api.datamodels.asset",
    "airflow.sdk.definitions.asset.metadata",
    "airflow.sdk.definitions.connection",
    "airflow.sdk.definitions.timetables.interval",
    "airflow.sdk.definitions.timetables.trigger",
    "airflow.sdk.execution_time.cache",
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "airflow.serialization.dag_dependency",
    "airflow.serialization.definitions.assets",
    "airflow.timetables.base",
    "airflow.utils.net",
    "airflow_ocean.c2d.client",
    "airflow_ocean.c2d.oceanlib",
    "airflow_ocean.c2d.results",
    "airflow_ocean.c2d.estimates",
    "airflow_ocean.c2d.services.node",
    "airflow_ocean.c2d.services.provider",
    "airflow_ocean.operators.approval",
    "airflow_ocean.operators.assets",
    "airflow_ocean.operators.compute",
    "airflow_ocean.operators.results",
    "airflow_ocean.operators.plots",
    "airflow_ocean.operators.datatokens",
    "airflow_ocean.operators.escrow",
    "airflow_ocean.sensors",
    "coincurve",
    "croniter",
    "jinja2.ext",
    "numpy",
)
# An attempt that takes longer than this hangs, seconds.
_PATIENCE = 90.0


@dataclass(frozen=True)
class Task:
    """What is to be run.

    :param operator: ``module:Class``
    :param arguments: what the operator is made with
    :param environment: environment variables of its processes, the Airflow connections among them
    :param timeouts: ``module:NAME`` → what a module's constant is to be, so that a hanging service need not be waited for
        as long as in real life
    """

    operator: str
    arguments: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)
    timeouts: dict[str, Any] = field(default_factory=dict)


@dataclass
class FinishedTask:
    """How a task ended.

    :param state: ``success``, ``failed`` or ``skipped``
    :param tries: how often it was tried
    :param kills: how many processes were killed
    :param delays: seconds Airflow would have waited before each retry that it decided on
    :param errors: type and message of each attempt that failed
    :param xcoms: what it returned and pushed
    """

    state: str
    tries: int
    kills: int
    delays: list[float]
    errors: list[str]
    xcoms: dict[str, Any]


class Database:
    """The part of Airflow's database that one task instance sees.

    :param path: the file
    """

    def __init__(self, path: Path) -> None:
        self._sqlite = sqlite3.connect(path, isolation_level=None)
        self._sqlite.execute("PRAGMA synchronous=FULL")
        self._sqlite.execute("CREATE TABLE IF NOT EXISTS kept (kind, key, value, PRIMARY KEY (kind, key))")

    def read(self, kind: str) -> dict[str, Any]:
        """Return all values of a kind by their keys."""
        rows = self._sqlite.execute("SELECT key, value FROM kept WHERE kind = ?", (kind,))
        return {key: json.loads(value) for key, value in rows}

    def write(self, kind: str, key: str, value: Any) -> None:
        """Keep a value; on disk when this returns."""
        row = (kind, key, json.dumps(value))
        self._sqlite.execute("INSERT OR REPLACE INTO kept VALUES (?, ?, ?)", row)

    def delete(self, kind: str, key: str | None = None) -> None:
        """Forget a value, or all of a kind."""
        self._sqlite.execute("DELETE FROM kept WHERE kind = ? AND ? IN (key, '')", (kind, key or ""))

    def close(self) -> None:
        """Close the file."""
        self._sqlite.close()


class TaskRunner:
    """Runs a task to its end, and again after it was cleared.

    :param task: what to run
    :param database: file of its database; a task with the same file is the same task instance
    :param log: file that takes what its processes print
    :param on_attempt: called with the number of an attempt before its first process starts
    :param on_process: called with each process's id before it does anything
    """

    def __init__(
        self,
        task: Task,
        database: Path,
        log: Path,
        on_attempt: Callable[[int], None] = lambda _number: None,
        on_process: Callable[[int], None] = lambda _pid: None,
    ) -> None:
        self._task, self._path, self._log = task, database, log
        self._database = Database(database)
        self._on_attempt, self._on_process = on_attempt, on_process
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["__main__", __name__])
        self._tried = 0

    def run(self, retries: int = 3) -> FinishedTask:
        """Try the task until it succeeds, fails for good or has no tries left.

        :param retries: how many tries there are after the first
        """
        finished = FinishedTask("running", 0, 0, [], [], {})
        max_tries = self._tried + retries
        while finished.state in ("running", "up_for_retry"):
            self._tried += 1
            finished.tries += 1
            self._on_attempt(finished.tries)
            self._database.delete("xcom")
            self._database.delete("trigger")
            finished.state = self._attempt(max_tries, finished)
        finished.xcoms = self._database.read("xcom")
        return finished

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _attempt(self, max_tries: int, finished: FinishedTask) -> str:
        """Run one try, on worker and triggerer in turn if it defers."""
        event: Any = None
        while True:
            self._database.delete("state")
            arguments = (self._task, self._path, self._log, self._tried, max_tries, event)
            killed = self._process(_work, arguments)
            state = self._database.read("state")
            if killed:
                finished.kills += 1
            if not state:
                assert killed, f"the process ended without a state; see {self._log}"
                return "up_for_retry" if self._tried <= max_tries else "failed"
            if state["state"] != "deferred":
                finished.delays += [state["delay"]] if "delay" in state else []
                finished.errors += [state["error"]] if "error" in state else []
                return str(state["state"])
            event = self._triggered(finished)

    def _triggered(self, finished: FinishedTask) -> Any:
        """Wait for the trigger's event; a triggerer that is killed is followed by another one."""
        while True:
            if self._process(_trigger, (self._task, self._path, self._log)):
                finished.kills += 1
            found = self._database.read("trigger")
            if "event" in found:
                return found["event"]

    def _process(self, target: Callable[..., None], arguments: tuple[Any, ...]) -> bool:
        """Run a function in a process of its own; True when it was killed."""
        mine, other = self._context.Pipe()
        process = self._context.Process(target=_begin, args=(other, target, arguments), daemon=True)
        process.start()
        other.close()
        assert process.pid is not None
        self._on_process(process.pid)
        mine.send("go")
        process.join(_PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()
            raise AssertionError(f"a process ran for more than {_PATIENCE:.0f} s; see {self._log}")
        mine.close()
        assert process.exitcode in (0, -signal.SIGKILL), f"exit code {process.exitcode}; see {self._log}"
        return process.exitcode != 0


# ---------------------------------------------------------------------- in the task's process


def _begin(connection: Connection, target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    task, _, log = arguments[:3]
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(task.environment)
    for name, value in task.timeouts.items():
        _load(name)  # so that a constant which is not there any more is noticed
        module, constant = name.split(":")
        setattr(importlib.import_module(module), constant, value)
    connection.recv()
    target(*arguments)
    sys.stdout.flush()
    sys.stderr.flush()


def _load(name: str) -> Any:
    module, attribute = name.split(":")
    return getattr(importlib.import_module(module), attribute)


def _work(task: Task, path: Path, _log: Path, try_number: int, max_tries: int, event: Any) -> None:
    """Do what a worker does with a task instance."""
    import structlog
    from airflow.sdk.execution_time import task_runner

    database = Database(path)
    task_runner.SUPERVISOR_COMMS = _Supervisor(database)  # type: ignore[assignment]
    instance = _instance(task, try_number, max_tries, database, event)
    context = instance.get_template_context()
    log = structlog.get_logger("task")
    state, _, error = task_runner.run(instance, context, log)
    if error is not None:
        database.write("state", "error", f"{type(error).__name__}: {error}")
    task_runner.finalize(instance, state, context, log, error)


def _instance(task: Task, try_number: int, max_tries: int, database: Database, event: Any) -> Any:
    from airflow.sdk import DAG
    from airflow.sdk.api.datamodels._generated import DagRun, DagRunState, DagRunType, TIRunContext
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    now = datetime.now(UTC)
    with DAG(DAG_ID, schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC)):
        operator = _load(task.operator)(task_id=TASK_ID, **task.arguments)
    run = DagRun(
        dag_id=DAG_ID, run_id=RUN_ID, logical_date=now, data_interval_start=now, data_interval_end=now, run_after=now,
        start_date=now, end_date=None, run_type=DagRunType.MANUAL, state=DagRunState.RUNNING, consumed_asset_events=[],
        partition_key=None,
    )  # fmt: skip
    deferred = database.read("trigger") if event is not None else {}
    seen = TIRunContext(
        dag_run=run,
        max_tries=max_tries,
        should_retry=try_number <= max_tries,
        start_date=now,
        next_method=deferred.get("method"),
        next_kwargs={**deferred["next_kwargs"], "event": event} if deferred else None,
    )
    instance = RuntimeTaskInstance.model_construct(
        id=INSTANCE, task_id=TASK_ID, dag_id=DAG_ID, run_id=RUN_ID, try_number=try_number, map_index=-1,
        dag_version_id=INSTANCE, task=operator, max_tries=max_tries, start_date=now, hostname=None, queue="default",
        is_mapped=False,
    )  # fmt: skip
    instance._ti_context_from_server = seen
    return instance


class _Supervisor:
    """Answers the task runner as Airflow's supervisor would, out of the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def send(self, msg: Any) -> Any:
        """Carry out a request of the task."""
        answer = getattr(self, f"_{type(msg).__name__}", None)
        return self._unknown(msg) if answer is None else answer(msg)

    @staticmethod
    def _unknown(_message: Any) -> Any:
        from airflow.sdk.execution_time.comms import ErrorResponse

        return ErrorResponse()

    @staticmethod
    def _nothing(_message: Any) -> None:
        return None

    _SetRenderedFields = _SetRenderedMapIndex = _MaskSecret = _nothing

    def _GetConnection(self, message: Any) -> Any:  # noqa: N802 - the message's name
        from airflow.sdk.exceptions import ErrorType
        from airflow.sdk.execution_time.comms import ErrorResponse

        return ErrorResponse(error=ErrorType.CONNECTION_NOT_FOUND, detail={"conn_id": message.conn_id})

    def _GetTaskStateStore(self, message: Any) -> Any:  # noqa: N802
        from airflow.sdk.exceptions import ErrorType
        from airflow.sdk.execution_time.comms import ErrorResponse, TaskStateStoreResult

        found = self._database.read("store")
        if message.key not in found:
            return ErrorResponse(error=ErrorType.TASK_STORE_NOT_FOUND)
        return TaskStateStoreResult(value=found[message.key])

    def _SetTaskStateStore(self, message: Any) -> None:  # noqa: N802
        assert message.expires_at is None, "what is already paid may not be forgotten"
        self._database.write("store", message.key, message.value)

    def _DeleteTaskStateStore(self, message: Any) -> None:  # noqa: N802
        self._database.delete("store", message.key)

    def _ClearTaskStateStore(self, _message: Any) -> None:  # noqa: N802
        self._database.delete("store")

    def _SetXCom(self, message: Any) -> None:  # noqa: N802
        self._database.write("xcom", message.key, message.value)

    def _GetXCom(self, message: Any) -> Any:  # noqa: N802
        from airflow.sdk.execution_time.comms import XComResult

        return XComResult(key=message.key, value=self._database.read("xcom").get(message.key))

    def _DeleteXCom(self, message: Any) -> None:  # noqa: N802
        self._database.delete("xcom", message.key)

    def _SucceedTask(self, _message: Any) -> None:  # noqa: N802
        self._database.write("state", "state", "success")

    def _TaskState(self, message: Any) -> None:  # noqa: N802
        self._database.write("state", "state", message.state.value)

    def _RetryTask(self, message: Any) -> None:  # noqa: N802
        self._database.write("state", "delay", message.retry_delay_seconds or 0.0)
        self._database.write("state", "state", "up_for_retry")

    def _DeferTask(self, message: Any) -> None:  # noqa: N802
        self._database.write("trigger", "classpath", message.classpath)
        self._database.write("trigger", "kwargs", message.trigger_kwargs)
        self._database.write("trigger", "method", message.next_method)
        self._database.write("trigger", "next_kwargs", message.next_kwargs)
        self._database.write("state", "state", "deferred")


def _trigger(_task: Task, path: Path, _log: Path) -> None:
    """Do what a triggerer does with a trigger."""
    from airflow.sdk.serde import deserialize, serialize

    database = Database(path)
    kept = database.read("trigger")
    module, name = kept["classpath"].rsplit(".", 1)
    trigger = _load(f"{module}:{name}")(**deserialize(kept["kwargs"]))

    async def first_event() -> Any:
        async for event in trigger.run():
            return event.payload
        raise AssertionError("the trigger ended without an event")

    database.write("trigger", "event", serialize(asyncio.run(first_event())))


def _preload() -> None:
    for module in _HEAVY:
        importlib.import_module(module)
    from airflow.sdk.plugins_manager import integrate_macros_plugins

    integrate_macros_plugins()
    # Else the first collection in each process would touch, and so copy, all of this one's memory.
    gc.collect()
    gc.freeze()


if multiprocessing.current_process().name == "MainProcess" and sys.argv[0] == "-c":
    # This module is imported first thing by the server that all processes are forked from, which is started with -c.
    _preload()
