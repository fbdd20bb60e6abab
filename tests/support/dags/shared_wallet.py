"""A DAG whose mapped tasks share wallets: all datasets are published at once with one key, and ordered with another."""

from __future__ import annotations

import os

from airflow.sdk import DAG

from airflow_ocean.operators.assets import OceanPublishAlgorithmOperator, OceanPublishDatasetOperator
from airflow_ocean.operators.compute import OceanPayForComputeOperator

MEMBERS = 16
FREE = {"type": "dispenser"}
FILES_URL = os.environ["OCEAN_FILES_URL"]

with DAG("shared_wallet", schedule=None, max_active_tasks=MEMBERS + 1) as dag:
    algorithm = OceanPublishAlgorithmOperator(
        task_id="publish_algorithm",
        ocean_conn_id="ocean_alice",
        asset_name="Algorithm",
        url=f"{FILES_URL}/algorithm.py",
        image="oceanprotocol/algo_dockers",
        tag="python-branin",
        checksum="sha256:" + "0" * 64,
        pricing=FREE,
    )
    datasets = OceanPublishDatasetOperator.partial(
        task_id="publish_dataset",
        ocean_conn_id="ocean_alice",
        url=f"{FILES_URL}/branin.arff",
        open_to_all=True,
        pricing=FREE,
    ).expand(asset_name=[f"Dataset {number}" for number in range(MEMBERS)])
    OceanPayForComputeOperator.partial(
        task_id="pay",
        ocean_conn_id="ocean_bob",
        algorithm_did=algorithm.output,
        environment=os.environ["OCEAN_TEST_ENVIRONMENT"],
        duration=60,
    ).expand(dataset_dids=datasets.output)
