"""Why tasks failed, read off the ends of their logs, and what a person can do about it."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.utils.log.log_reader import TaskLogReader
from sqlalchemy import select, tuple_
from sqlalchemy.orm import joinedload

from airflow_ocean.c2d import errors

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.orm import Session

    from airflow_ocean.ui.records import RunRecord, TaskRecord

logger = logging.getLogger(__name__)

# So many logs are read for one page; more failures seldom have more causes.
MOST_READ = 5
_LINES_KEPT = 200
_LONGEST_MESSAGE = 8_000
_AGAIN = "then clear the task. What was paid already is not paid again."
_ADVICE = {
    errors.InsufficientFundsError: f"Give the wallet what it lacks, {_AGAIN}",
    errors.CostLimitError: "Raise the limit if that is what you want to pay, or take a cheaper environment.",
    errors.FeeCapError: "Wait for a calmer chain, or raise the fee cap in the connection.",
    errors.InvalidInputError: (
        f"A parameter: trigger a new run with another value. A field of the connection: change it, {_AGAIN}"
    ),
    errors.AssetNotFoundError: "Check the DID, and that the connection leads to the network it was published on.",
    errors.NotAllowedError: "Ask the publisher to allow it, or take another dataset or algorithm.",
    errors.OrderExpiredError: "Clear the task that paid, with force_new, or trigger a new run.",
    errors.JobFailedError: "The end of the algorithm's log is above. Mend the algorithm or its data, and trigger a new run.",
    errors.JobNotFoundError: "Check that the connection leads to the Provider that the job was started at.",
    errors.StartLostError: f"Wait for the time that is named above, {_AGAIN}",
    errors.TransactionRevertedError: f"Do what the reason says, {_AGAIN}",
    errors.TransientError: (
        "Such errors often pass by themselves, and Airflow tries again. When its tries are used up, see whether the "
        f"service named above is up, {_AGAIN}"
    ),
}
_OTHERWISE = f"The task's log says more. Mend the cause, {_AGAIN}"


@dataclass(frozen=True)
class Failure:
    """Why a task failed.

    :param kind: the error's type, empty when the log does not tell
    :param will_retry: whether Airflow tries again by itself
    """

    task: TaskRecord
    kind: str
    message: str
    advice: str
    will_retry: bool


def explain(session: Session, run: RunRecord, tasks: list[TaskRecord]) -> list[Failure]:
    """Say why tasks failed; the logs of the first few are read.

    :param tasks: those that failed or will try again
    """
    read = tasks[:MOST_READ]
    instances = _instances(session, run, read)
    return [_failure(task, instances.get((task.task_id, task.map_index))) for task in read] + [
        _failure(task, None) for task in tasks[MOST_READ:]
    ]


def without_logs(tasks: list[TaskRecord]) -> list[Failure]:
    """Say what can be said to somebody who may not read the logs."""
    return [_failure(task, None) for task in tasks]


def _instances(session: Session, run: RunRecord, tasks: list[TaskRecord]) -> dict[tuple[str, int], Any]:
    if not tasks:
        return {}
    keys = [(task.task_id, task.map_index) for task in tasks]
    found = session.scalars(
        select(TaskInstance)
        .where(
            TaskInstance.dag_id == run.dag_id,
            TaskInstance.run_id == run.run_id,
            tuple_(TaskInstance.task_id, TaskInstance.map_index).in_(keys),
        )
        .options(joinedload(TaskInstance.dag_run))
        .options(joinedload(TaskInstance.trigger).joinedload(Trigger.triggerer_job))
    ).unique()
    return {(instance.task_id, instance.map_index): instance for instance in found}


def _failure(task: TaskRecord, instance: Any) -> Failure:
    kind, message = ("", "") if instance is None else _last_error(instance)
    return Failure(
        task=task,
        kind=kind,
        message=message or task.retry_reason or "The task's log says why.",
        advice=advice(kind),
        will_retry=task.state == "up_for_retry",
    )


def advice(kind: str) -> str:
    """Say what to do about an error of this type."""
    error = getattr(errors, kind, None)
    if not isinstance(error, type):
        return _OTHERWISE
    return next((_ADVICE[base] for base in error.__mro__ if base in _ADVICE), _OTHERWISE)


def _last_error(instance: Any) -> tuple[str, str]:
    """Return type and message of the error that ended a task's last try."""
    try:
        lines, _ = TaskLogReader().read_log_chunks(instance, instance.try_number, {"end_of_log": False})
        return _find_error(lines)
    except Exception:
        # Logs may be kept by any service; one that does not answer must not take the page with it.
        logger.exception("Cannot read the log of %s", instance)
        return "", "The task's log cannot be read at the moment."


def _find_error(lines: Iterable[Any]) -> tuple[str, str]:
    last: deque[Any] = deque(lines, maxlen=_LINES_KEPT)
    for line in reversed(last):
        for detail in getattr(line, "error_detail", None) or ():
            if isinstance(detail, dict) and detail.get("exc_type"):
                return str(detail["exc_type"]), str(detail.get("exc_value") or "")[-_LONGEST_MESSAGE:]
    for line in reversed(last):
        if str(getattr(line, "level", "")).lower() in ("error", "critical"):
            return "", str(line.event)[-_LONGEST_MESSAGE:]
    return "", ""
