"""Runs of DAGs as rows of Airflow's database: what would take hours to run is written down."""

from __future__ import annotations

import contextlib
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, event, insert, select

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy.orm import Session

BEGIN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DATASET, ALGORITHM = f"did:op:{'d' * 64}", f"did:op:{'a' * 64}"
DATASET_TOKEN, ALGORITHM_TOKEN, FEE_TOKEN = f"0x{'D' * 40}", f"0x{'A' * 40}", f"0x{'F' * 40}"
ORDERS = [f"0x{'1' * 64}", f"0x{'2' * 64}"]
PROVIDER, CONSUMER = "http://127.0.0.1:1", f"0x{'C' * 40}"


@dataclass
class TaskRow:
    """A task instance and what it pushed."""

    task_id: str
    operator: str
    state: str | None = "success"
    xcoms: dict[str, Any] = field(default_factory=dict)
    map_index: int = -1
    seconds: int = 0


def paying(
    cost: dict[str, str],
    gas_fee: str = "1",
    map_index: int = -1,
    dataset: str = "Branin",
    algorithm: str = "Gaussian process",
) -> TaskRow:
    """Return a task that paid, with what the operator pushes.

    :param cost: token address → amount in its smallest unit
    :param gas_fee: wei
    :param dataset: its name
    :param algorithm: its name
    """
    return TaskRow(
        "pay",
        "OceanPayForComputeOperator",
        xcoms={
            "return_value": ORDERS,
            "order": {
                "provider_url": PROVIDER,
                "environment": "small",
                "valid_until": 1_800_000_000,
                "datasets": [{"did": DATASET, "service_id": "0", "transaction": ORDERS[0]}],
                "algorithm": {"did": ALGORITHM, "service_id": "0", "transaction": ORDERS[1]},
            },
            "assets": [
                {"did": DATASET, "name": dataset, "datatoken": DATASET_TOKEN},
                {"did": ALGORITHM, "name": algorithm, "datatoken": ALGORITHM_TOKEN},
            ],
            "tokens": {FEE_TOKEN: {"symbol": "USDC", "decimals": 6}},
            "cost": {"tokens": cost, "gas_used": 21_000, "gas_fee_wei": gas_fee, "transactions": ORDERS},
        },
        map_index=map_index,
    )


def starting(job_id: str, map_index: int = -1) -> TaskRow:
    """Return a task that started a job."""
    return TaskRow(
        "start",
        "OceanStartComputeOperator",
        xcoms={"return_value": job_id, "provider_url": PROVIDER, "consumer_address": CONSUMER},
        map_index=map_index,
        seconds=10,
    )


def add_runs(session: Session, dag_id: str, runs: Iterable[tuple[str, str, list[TaskRow]]]) -> None:
    """Write runs into the database, each a minute younger than the one before.

    :param runs: run id, state, and tasks of each
    """
    from airflow.models.dagrun import DagRun

    runs = list(runs)
    session.execute(
        insert(DagRun.__table__),
        [
            {
                "dag_id": dag_id,
                "run_id": run_id,
                "state": state,
                "run_type": "manual",
                "run_after": BEGIN + timedelta(minutes=number),
                "start_date": BEGIN + timedelta(minutes=number),
                "end_date": BEGIN + timedelta(minutes=number, seconds=30) if state != "running" else None,
            }
            for number, (run_id, state, _) in enumerate(runs)
        ],
    )
    numbers = dict(session.execute(select(DagRun.run_id, DagRun.id).where(DagRun.dag_id == dag_id)).all())
    _add_tasks(session, dag_id, runs, numbers)
    session.commit()


def _add_tasks(
    session: Session, dag_id: str, runs: list[tuple[str, str, list[TaskRow]]], numbers: dict[str, int]
) -> None:
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel

    instances, xcoms = [], []
    for run_id, _, tasks in runs:
        for task in tasks:
            begin = BEGIN + timedelta(seconds=task.seconds)
            ids = {"dag_id": dag_id, "run_id": run_id, "task_id": task.task_id, "map_index": task.map_index}
            instances.append(
                {
                    "id": uuid.uuid4(),
                    **ids,
                    "operator": task.operator,
                    "state": task.state,
                    "start_date": begin if task.state else None,
                    "end_date": begin + timedelta(seconds=5) if task.state in ("success", "failed") else None,
                    "try_number": 1,
                    "pool": "default_pool",
                    "pool_slots": 1,
                    "priority_weight": 1,
                    "span_status": "not_started",
                }
            )
            xcoms += [
                {**ids, "dag_run_id": numbers[run_id], "key": key, "value": value, "timestamp": begin}
                for key, value in task.xcoms.items()
            ]
    session.execute(insert(TaskInstance.__table__), instances)
    if xcoms:
        session.execute(insert(XComModel.__table__), xcoms)


def delete_runs(session: Session, dag_id: str) -> None:
    """Remove all runs of a DAG."""
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel

    for table in (XComModel, TaskInstance, DagRun):
        session.execute(delete(table).where(table.dag_id == dag_id))
    session.commit()


@contextlib.contextmanager
def counted_queries() -> Iterator[list[str]]:
    """Collect the statements that are sent to Airflow's database."""
    from airflow import settings

    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(settings.engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(settings.engine, "before_cursor_execute", note)
