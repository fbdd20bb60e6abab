"""Runs the DAG ``ocean_c2d`` once, in a process whose settings Airflow reads when it is imported; writes JSON.

Metrics, lineage and XCom backends are chosen by Airflow's settings and cannot be changed in a process afterwards.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(dags: str, report: str, params: str) -> None:
    """Run the DAG with some params to its end; lineage is told by the listener of its provider, as a worker has it."""
    from airflow.dag_processing.dagbag import DagBag
    from airflow.models.xcom import XComModel
    from airflow.utils.db import initdb
    from airflow.utils.session import create_session

    initdb()
    dag_run = DagBag(Path(dags)).dags["ocean_c2d"].test(run_conf=json.loads(params))
    with create_session() as session:
        states = {ti.task_id: str(ti.state) for ti in dag_run.get_task_instances(session=session)}
        stored = session.scalars(XComModel.get_many(run_id=dag_run.run_id, dag_ids="ocean_c2d"))
        xcoms = {f"{xcom.task_id}.{xcom.key}": xcom.value for xcom in stored}
    Path(report).write_text(json.dumps({"states": states, "xcoms": xcoms}))


if __name__ == "__main__":
    main(*sys.argv[1:])
