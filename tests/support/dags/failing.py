"""A DAG that fails at once: it would pay for an asset that nobody has published."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_ocean.operators.compute import OceanPayForComputeOperator

with DAG("pay_for_nothing", schedule=None) as dag:
    OceanPayForComputeOperator(
        task_id="pay",
        ocean_conn_id="ocean_bob",
        dataset_dids=[f"did:op:{'0' * 64}"],
        algorithm_did=f"did:op:{'1' * 64}",
    )
