"""
### The DAG `ocean_c2d` with every task emptied: what of the flow's time is Airflow's own.

Same tasks, groups, order and retries, read from the DAG itself. Each task runs in a worker as the real one does, and does
nothing; the one that waits defers to a trigger that fires at once. (Airflow's own `EmptyOperator` would not do: the
scheduler marks it successful without running it.)
"""

from __future__ import annotations

import runpy
from datetime import UTC, datetime
from typing import Any

from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk import DAG, BaseOperator, BaseSensorOperator, TaskGroup

from include.localnet.settings import PROJECT


class Nothing(BaseOperator):
    """A task that does nothing."""

    def execute(self, context: Any) -> None:
        """Do nothing."""


class NoWait(BaseOperator):
    """A task that defers, and is resumed at once."""

    def execute(self, context: Any) -> None:
        """Defer."""
        self.defer(trigger=DateTimeTrigger(moment=datetime.now(UTC)), method_name="resume")

    def resume(self, context: Any, event: Any = None) -> None:
        """Do nothing."""


REAL: DAG = runpy.run_path(str(PROJECT / "dags" / "ocean_c2d.py"))["dag"]

with DAG(
    dag_id="empty_flow",
    schedule=None,
    start_date=REAL.start_date,
    catchup=False,
    default_args={"retries": 3},
) as dag:
    groups: dict[str, TaskGroup] = {}
    tasks: dict[str, BaseOperator] = {}
    for task_id, real in REAL.task_dict.items():
        group_id, _, name = task_id.rpartition(".")
        if group_id and group_id not in groups:
            groups[group_id] = TaskGroup(group_id)
        kind = NoWait if isinstance(real, BaseSensorOperator) else Nothing
        tasks[task_id] = kind(task_id=name, task_group=groups.get(group_id))
    for task_id, real in REAL.task_dict.items():
        for downstream in real.downstream_task_ids:
            tasks[task_id] >> tasks[downstream]
