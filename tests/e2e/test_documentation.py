"""The code on the pages of docs/: what they show is run as it stands."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.airflow import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.e2e, pytest.mark.both_stacks]

PAGE = PROJECT / "docs" / "write-your-own-dag.md"


def test_the_dag_of_the_how_to_runs(
    airflow_home: Path, localnet: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    algorithm, dag_file = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (localnet.files_folder / "count_lines.py").write_text(algorithm)
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "count_lines.py").write_text(dag_file)
    monkeypatch.setenv("AIRFLOW_OCEAN_ARTIFACTS", str(tmp_path / "artifacts"))
    # dag.test() stores the DAGs of this folder before it runs one.
    monkeypatch.setattr("airflow.settings.DAGS_FOLDER", str(tmp_path / "dags"))
    bag = DagBag(tmp_path / "dags")
    assert bag.import_errors == {}
    run = bag.dags["count_lines"].test()
    assert {str(task.state) for task in run.get_task_instances()} == {"success"}
    with create_session() as session:
        found = session.scalars(
            XComModel.get_many(run_id=run.run_id, dag_ids="count_lines", task_ids="tell", key="return_value")
        )
        (lines,) = [xcom.value for xcom in found]
    data = PROJECT / "include" / "branin" / "branin.arff"
    assert int(lines) == data.read_bytes().count(b"\n")
