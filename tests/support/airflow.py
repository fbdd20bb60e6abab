"""An Airflow of the tests' own: home folder, settings and database, never the developer's."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from pathlib import Path

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
