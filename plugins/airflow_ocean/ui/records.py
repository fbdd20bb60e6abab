"""What Airflow's database says about one run: its tasks and what they pushed, in a fixed number of queries."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.models.dagrun import DagRun
from airflow.models.hitl import HITLDetail
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from sqlalchemy import ColumnElement, and_, or_, select

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.orm import Session

# All of the package's operators, and those that others derive from them under such a name.
OCEAN_OPERATORS = "Ocean%"
RETURN_VALUE = "return_value"
# The job whose payment the cost that a task pushed is final for.
SETTLED_JOB = "settled_job"
# What the package's operators push besides, and the links that Airflow keeps as XComs.
KEYS = (
    "asset_name",
    "nft_address",
    "datatoken_address",
    "transactions",
    "order",
    "assets",
    "quote",
    "answer",
    "answered_by",
    "tokens",
    "cost",
    "provider_url",
    "consumer_address",
    "status",
    "states",
    "log_tail",
    "duration",
    "deadline",
    "manifest",
    "_link_OceanAssetLink",
    "_link_OceanTransactionLink",
)
# A task of any other class that pushed one of these does what the package's operators do.
TELLING_KEYS = ("nft_address", "order", "consumer_address", "manifest")
OVER = ("success", "failed")


@dataclass(frozen=True)
class TaskRecord:
    """One task instance.

    :param operator: its class name
    :param state: Airflow's state, None before it is scheduled
    :param xcoms: what it pushed, by key
    :param awaited_job: the id of the job that it waits for, or handles otherwise
    :param approval: subject and chosen options, when it asks a person
    """

    task_id: str
    map_index: int
    operator: str
    state: str | None
    started: datetime | None
    ended: datetime | None
    try_number: int
    retry_reason: str | None = None
    retry_delay: float | None = None
    xcoms: dict[str, Any] = field(default_factory=dict)
    awaited_job: str | None = None
    approval: tuple[str, list[str]] | None = None

    @property
    def key(self) -> str:
        """What tells it from all others of its run, usable as an anchor."""
        return self.task_id if self.map_index < 0 else f"{self.task_id}.{self.map_index}"

    @property
    def label(self) -> str:
        """Its name for people."""
        return self.task_id if self.map_index < 0 else f"{self.task_id} [{self.map_index}]"

    @property
    def is_over(self) -> bool:
        """Whether it will not do anything any more."""
        return self.state in ("success", "failed", "upstream_failed", "skipped", "removed")

    def text(self, key: str) -> str | None:
        """Return an XCom that is text, None when it is missing or something else."""
        value = self.xcoms.get(key)
        return value if isinstance(value, str) and value else None


@dataclass(frozen=True)
class RunRecord:
    """One run with those of its tasks that have to do with Ocean, in the order of the work."""

    dag_id: str
    run_id: str
    state: str
    started: datetime | None
    ended: datetime | None
    tasks: tuple[TaskRecord, ...]

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in OVER


def load_run(session: Session, dag_id: str, run_id: str) -> RunRecord | None:
    """Read a run, None when there is none; five queries, however many tasks it has."""
    run = session.execute(
        select(DagRun.state, DagRun.start_date, DagRun.end_date).where(
            DagRun.dag_id == dag_id, DagRun.run_id == run_id
        )
    ).one_or_none()
    if run is None:
        return None
    xcoms = _xcoms(session, dag_id, run_id)
    telling = {task_id for (task_id, _), values in xcoms.items() if values.keys() & set(TELLING_KEYS)}
    tasks = _tasks(session, dag_id, run_id, telling)
    for key, approval in _approvals(session, dag_id, run_id).items():
        if key in tasks:
            tasks[key] = replace(tasks[key], approval=approval)
    for key, job_id in _awaited_jobs(session, dag_id, run_id).items():
        if key in tasks:
            tasks[key] = replace(tasks[key], awaited_job=job_id)
    return RunRecord(
        dag_id,
        run_id,
        str(run.state),
        run.start_date,
        run.end_date,
        tuple(replace(task, xcoms=xcoms.get(key, {})) for key, task in tasks.items()),
    )


def _xcoms(session: Session, dag_id: str, run_id: str) -> dict[tuple[str, int], dict[str, Any]]:
    """Return what tasks pushed, by task and map index.

    The return values of other tasks are none of this page's business, and may be large.
    """
    rows = session.execute(
        select(XComModel.task_id, XComModel.map_index, XComModel.key, XComModel.value)
        .join(TaskInstance, same_task(XComModel))
        .where(
            XComModel.dag_id == dag_id,
            XComModel.run_id == run_id,
            or_(
                XComModel.key.in_(KEYS),
                and_(XComModel.key == RETURN_VALUE, is_ocean_task(dag_id, run_id)),
            ),
        )
    )
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for row in rows:
        found.setdefault((row.task_id, row.map_index), {})[row.key] = XComModel.deserialize_value(row)
    return found


def is_ocean_task(dag_id: str, run_id: str) -> ColumnElement[bool]:
    """Say of a task instance whether it is of the package, by its class or by what it pushed."""
    telling = select(XComModel.task_id).where(
        XComModel.dag_id == dag_id, XComModel.run_id == run_id, XComModel.key.in_(TELLING_KEYS)
    )
    return or_(TaskInstance.operator.like(OCEAN_OPERATORS), TaskInstance.task_id.in_(telling))


def same_task(other: Any) -> ColumnElement[bool]:
    """Join rows of another table to their task instance."""
    return and_(
        TaskInstance.dag_id == other.dag_id,
        TaskInstance.run_id == other.run_id,
        TaskInstance.task_id == other.task_id,
        TaskInstance.map_index == other.map_index,
    )


def _tasks(
    session: Session, dag_id: str, run_id: str, telling: Iterable[str]
) -> dict[tuple[str, int], TaskRecord]:
    """Return the run's Ocean tasks and those that ask a person, in the order of the work.

    What has not started yet has no time; by default a task's weight is the number of those that wait for it.
    """
    asking = select(HITLDetail.ti_id)
    rows = session.execute(
        select(
            TaskInstance.task_id,
            TaskInstance.map_index,
            TaskInstance.operator,
            TaskInstance.state,
            TaskInstance.start_date,
            TaskInstance.end_date,
            TaskInstance.try_number,
            TaskInstance.retry_reason,
            TaskInstance.retry_delay_override,
            TaskInstance.priority_weight,
        ).where(
            TaskInstance.dag_id == dag_id,
            TaskInstance.run_id == run_id,
            or_(
                TaskInstance.operator.like(OCEAN_OPERATORS),
                TaskInstance.task_id.in_(telling),
                TaskInstance.id.in_(asking),
            ),
        )
    ).all()
    never = datetime.max.replace(tzinfo=UTC)
    ordered = sorted(
        rows,
        key=lambda row: (row.start_date or never, -(row.priority_weight or 0), row.task_id, row.map_index),
    )
    return {
        (row.task_id, row.map_index): TaskRecord(
            task_id=row.task_id,
            map_index=row.map_index,
            operator=row.operator or "",
            state=None if row.state is None else str(row.state),
            started=row.start_date,
            ended=row.end_date,
            try_number=row.try_number,
            retry_reason=row.retry_reason,
            retry_delay=row.retry_delay_override,
        )
        for row in ordered
    }


def _approvals(session: Session, dag_id: str, run_id: str) -> dict[tuple[str, int], tuple[str, list[str]]]:
    rows = session.execute(
        select(TaskInstance.task_id, TaskInstance.map_index, HITLDetail.subject, HITLDetail.chosen_options)
        .join(HITLDetail, HITLDetail.ti_id == TaskInstance.id)
        .where(TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id)
    )
    return {(row.task_id, row.map_index): (row.subject, list(row.chosen_options or [])) for row in rows}


def _awaited_jobs(session: Session, dag_id: str, run_id: str) -> dict[tuple[str, int], str]:
    """Return the job that each sensor was told to wait for; Airflow keeps that for the latest runs only."""
    fields = RenderedTaskInstanceFields
    rows = session.execute(
        select(fields.task_id, fields.map_index, fields.rendered_fields)
        .join(TaskInstance, same_task(fields))
        .where(
            fields.dag_id == dag_id,
            fields.run_id == run_id,
            TaskInstance.operator.like(f"{OCEAN_OPERATORS}Sensor"),
        )
    )
    return {
        (row.task_id, row.map_index): row.rendered_fields["job_id"]
        for row in rows
        if isinstance(row.rendered_fields, dict) and isinstance(row.rendered_fields.get("job_id"), str)
    }
