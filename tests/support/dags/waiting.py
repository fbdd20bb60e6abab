"""DAGs that only wait for a job: deferred, poking, and with little patience."""

from __future__ import annotations

from airflow.sdk import DAG, Param

from airflow_ocean.sensors import OceanComputeSensor

WAITS = {
    "wait_deferred": {"timeout": 3600},
    "wait_poking": {"timeout": 3600, "deferrable": False},
    "wait_briefly": {"timeout": 30},
}

for dag_id, options in WAITS.items():
    with DAG(dag_id, schedule=None, params={"job_id": Param(type="string")}) as dag:
        OceanComputeSensor(
            task_id="wait",
            ocean_conn_id="ocean_bob",
            job_id="{{ params.job_id }}",
            poke_interval=1,
            stop_on_kill=True,
            retry_delay=1,
            **options,
        )
    globals()[dag_id] = dag
