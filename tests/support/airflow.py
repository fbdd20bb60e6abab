"""An Airflow of the tests' own: home folder, settings and database, never the developer's."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]


@functools.cache
def prepare_airflow_home() -> Path:
    """Point Airflow at a new home folder; must be called before the first import of airflow in the process."""
    home = Path(tempfile.mkdtemp(prefix="airflow-home-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    for name in [name for name in os.environ if name.startswith(("AIRFLOW_", "AIRFLOW__"))]:
        del os.environ[name]
    os.environ.update(airflow_environment(home))
    return home


def airflow_environment(home: Path) -> dict[str, str]:
    """Return the settings of an Airflow that runs the project's DAGs and plugins."""
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        # The DAGs name functions of include/ and import airflow_ocean, also in processes that the tests start.
        "PYTHONPATH": os.pathsep.join([str(PROJECT), str(PROJECT / "plugins")]),
    }


@functools.cache
def migrate_database() -> None:
    """Make the home's database, once in the process."""
    prepare_airflow_home()
    from airflow.utils.db import initdb

    initdb()


class RecordedInstance:
    """What operators use of a task instance: its ids, and XComs."""

    dag_id, run_id, task_id, map_index = "a_dag", "manual__2025-01-02T03:04:05+00:00", "a_task", -1
    max_tries = 3

    def __init__(self) -> None:
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep a value, which must be JSON."""
        self.xcoms[key] = json.loads(json.dumps(value))

    def get_first_reschedule_date(self, _context: Any) -> None:
        """Say that the task was not rescheduled yet."""

    def xcom_pull(self, *, key: str, task_ids: str, map_indexes: int) -> Any:
        """Return one of its own values."""
        assert (task_ids, map_indexes) == (self.task_id, self.map_index)
        return self.xcoms.get(key)


class RecordedStore:
    """Airflow's task state store, as far as a journal uses it."""

    def __init__(self) -> None:
        self.entries: dict[str, tuple[Any, Any]] = {}

    def get(self, key: str) -> Any:
        """Return a value."""
        return self.entries.get(key, (None, None))[0]

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        """Keep a value with its retention."""
        self.entries[key] = json.loads(json.dumps(value)), retention


def recorded_context() -> dict[str, Any]:
    """Return a task's context, for an operator that is executed without Airflow around it."""
    return {"ti": RecordedInstance(), "task_state_store": RecordedStore()}
