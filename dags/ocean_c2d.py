"""
### Compute on data that never leaves its owner.

**Alice** owns a dataset and an algorithm. **Bob** wants the algorithm's result on the data, and never sees the data.

1. Alice publishes her dataset and her algorithm as assets on the chain (`publish_dataset`, `publish_algorithm`).
2. She allows the algorithm to run on the dataset (`allow_algorithm`).
3. She hands Bob a datatoken of each, the price of one use (`transfer_datatokens`).
4. Bob pays with them for one computation (`pay_for_compute`) and starts it (`start_compute`).
5. The Provider carries the algorithm to the data; Bob waits without holding a worker (`wait_for_compute`).
6. Bob fetches the result and plots it (`fetch_and_plot`).

What was published and allowed, and each result, are Airflow assets too (`ocean_dataset`, `ocean_algorithm`,
`ocean_computable`, `ocean_result`): other DAGs can be scheduled on them, and `ocean_c2d_recurring` computes with what this
one published last.

Two connections of the type *Ocean* are needed: `ocean_alice` and `ocean_bob`, each a wallet on the same network.
The defaults run the Branin example on the local network: a Gaussian process learns a function from 225 points.
"""

from __future__ import annotations

import os

import pendulum
from airflow.sdk import DAG, Param, TaskGroup

from airflow_ocean.assets import OCEAN_ALGORITHM, OCEAN_COMPUTABLE, OCEAN_DATASET, OCEAN_RESULT
from airflow_ocean.forms import (
    AT_LEAST_ONE,
    PRICE,
    TEXT,
    URL,
    container_params,
    node_params,
    plot_params,
)
from airflow_ocean.operators.approval import OceanApproveSpendingOperator
from airflow_ocean.operators.assets import (
    OceanAllowAlgorithmOperator,
    OceanPublishAlgorithmOperator,
    OceanPublishDatasetOperator,
)
from airflow_ocean.operators.compute import OceanPayForComputeOperator, OceanStartComputeOperator
from airflow_ocean.operators.datatokens import OceanTransferDatatokensOperator
from airflow_ocean.operators.plots import OceanPlotOperator
from airflow_ocean.operators.rehearsal import OceanRehearseAlgorithmOperator
from airflow_ocean.operators.results import OceanFetchResultsOperator
from airflow_ocean.sensors import OceanComputeSensor

FILES_URL = os.environ.get("OCEAN_FILES_URL", "http://127.0.0.1:8060")

PARAMS = {
    "dataset_name": Param(
        "Branin",
        type="string",
        pattern=TEXT,
        title="Name",
        section="Dataset",
        description_md="The asset's title.",
    ),
    "dataset_url": Param(
        f"{FILES_URL}/branin.arff",
        type="string",
        pattern=URL,
        title="URL",
        section="Dataset",
        description_md="Where the Provider finds the data. It is encrypted; nobody else learns it.",
    ),
    "dataset_offer": Param(
        "none",
        type="string",
        enum=["none", "dispenser", "fixed_rate"],
        values_display={
            "none": "not at all: the publisher hands datatokens out",
            "dispenser": "for nothing: a dispenser gives datatokens away",
            "fixed_rate": "for a price",
        },
        title="Offered to others",
        section="Dataset",
        description_md="How anybody else gets a datatoken, which pays for one use. Bob is given his in any case.",
    ),
    "dataset_price": Param(
        "1",
        type="string",
        pattern=PRICE,
        title="Price",
        section="Dataset",
        description_md="Of one datatoken, in OCEAN; only where it is offered for a price.",
    ),
    "algorithm_name": Param(
        "Gaussian process",
        type="string",
        pattern=TEXT,
        title="Name",
        section="Algorithm",
        description_md="The asset's title.",
    ),
    "algorithm_url": Param(
        f"{FILES_URL}/algorithm.py",
        type="string",
        pattern=URL,
        title="URL",
        section="Algorithm",
        description_md="Where the Provider finds the algorithm, which is one file.",
    ),
    **container_params(),
    "rehearse": Param(
        False,
        type="boolean",
        title="Rehearse first",
        section="Algorithm",
        description_md="Run the algorithm in its image on the dataset's URL before anything is published or paid for it. "
        "Needs a Docker engine.",
    ),
    "environment": Param(
        "free",
        type="string",
        pattern=TEXT,
        examples=["free", "cheapest"],
        title="Environment",
        section="Computation",
        description_md="`free`, `cheapest`, or the id of one of the Provider's compute environments.",
    ),
    "duration": Param(
        3600,
        type="integer",
        minimum=60,
        title="Duration (seconds)",
        section="Computation",
        description_md="For how long the environment is paid: an hour is 3600, a day 86400. On an Ocean Node: how long the job "
        "may run.",
    ),
    "spending_limit": Param(
        "10",
        type=["string", "null"],
        pattern=r"^([0-9]+([.][0-9]{1,18})?|\{.*\})?$",
        title="Spend without asking",
        section="Computation",
        description_md='An amount, or JSON such as `{"*": "10", "gas": "0.05"}`.\n\n'
        "What the run may cost before somebody has to approve it, in whole tokens of each token that pays. Empty: nobody is asked.",
    ),
    "amount": Param(
        "1",
        type="string",
        pattern=AT_LEAST_ONE,
        title="Datatokens for Bob",
        section="Computation",
        description_md="Of each asset, in whole datatokens. One use costs 1.",
    ),
    "custom_data": Param(
        None,
        type=["object", "null"],
        title="Custom data",
        section="Computation",
        description_md='The example takes `{"kernel": "matern", "points": 100}`.\n\n'
        "Parameters for the algorithm, a JSON object; it finds them as *algoCustomData.json*.",
    ),
    **node_params(),
    **plot_params(),
}

with DAG(
    dag_id="ocean_c2d",
    description="Publish a dataset and an algorithm, pay for a computation, run it, and plot the result",
    doc_md=__doc__,
    schedule=None,
    start_date=pendulum.datetime(2025, 1, 1, tz="UTC"),
    catchup=False,
    tags=["ocean", "compute-to-data"],
    default_args={"retries": 3},
    params=PARAMS,
) as dag:
    # Bob will pay, so before anything is published he hears what it will cost.
    approve_spending = OceanApproveSpendingOperator(
        task_id="approve_spending",
        trigger_rule="none_failed",  # also when no rehearsal was asked for
        ocean_conn_id="ocean_bob",
        publisher_conn_id="ocean_alice",
        environment="{{ params.environment }}",
        duration="{{ params.duration }}",
        job_resources="{{ params.job_resources | tojson }}",
        queue_wait="{{ params.queue_wait }}",
        variables="{{ params.variables | tojson }}",
        spending_limit="{{ params.spending_limit }}",
    )

    # Alice
    publish_dataset = OceanPublishDatasetOperator(
        task_id="publish_dataset",
        ocean_conn_id="ocean_alice",
        asset_name="{{ params.dataset_name }}",
        url="{{ params.dataset_url }}",
        pricing=(
            "{% if params.dataset_offer == 'fixed_rate' %}"
            "{{ {'type': 'fixed_rate', 'rate': params.dataset_price} | tojson }}"
            "{% elif params.dataset_offer == 'dispenser' %}{{ {'type': 'dispenser'} | tojson }}{% endif %}"
        ),
        outlets=[OCEAN_DATASET],
    )
    rehearse_algorithm = OceanRehearseAlgorithmOperator(
        task_id="rehearse_algorithm",
        ocean_conn_id="ocean_alice",
        enabled="{{ params.rehearse }}",
        algorithm="{{ params.algorithm_url }}",
        sample_data=["{{ params.dataset_url }}"],
        custom_data="{{ params.custom_data | tojson }}",
        image="{{ params.container_image }}",
        tag="{{ params.container_tag }}",
        checksum="{{ params.container_checksum }}",
        entrypoint="{{ params.container_entrypoint }}",
    )
    publish_algorithm = OceanPublishAlgorithmOperator(
        task_id="publish_algorithm",
        ocean_conn_id="ocean_alice",
        asset_name="{{ params.algorithm_name }}",
        url="{{ params.algorithm_url }}",
        image="{{ params.container_image }}",
        tag="{{ params.container_tag }}",
        checksum="{{ params.container_checksum }}",
        entrypoint="{{ params.container_entrypoint }}",
        outlets=[OCEAN_ALGORITHM],
    )
    allow_algorithm = OceanAllowAlgorithmOperator(
        task_id="allow_algorithm",
        ocean_conn_id="ocean_alice",
        dataset_did=publish_dataset.output,
        algorithm_did=publish_algorithm.output,
        outlets=[OCEAN_COMPUTABLE],
    )
    transfer_datatokens = OceanTransferDatatokensOperator(
        task_id="transfer_datatokens",
        ocean_conn_id="ocean_alice",
        asset_dids=[publish_dataset.output, publish_algorithm.output],
        amount="{{ params.amount }}",
        to_conn_id="ocean_bob",
    )

    # Bob
    pay_for_compute = OceanPayForComputeOperator(
        task_id="pay_for_compute",
        ocean_conn_id="ocean_bob",
        dataset_dids=[publish_dataset.output],
        algorithm_did=publish_algorithm.output,
        environment="{{ params.environment }}",
        duration="{{ params.duration }}",
        job_resources="{{ params.job_resources | tojson }}",
        queue_wait="{{ params.queue_wait }}",
        variables="{{ params.variables | tojson }}",
        reuse_orders=True,
        max_cost=approve_spending.output,
    )
    start_compute = OceanStartComputeOperator(
        task_id="start_compute",
        ocean_conn_id="ocean_bob",
        order=pay_for_compute.output["order"],
        variables="{{ params.variables | tojson }}",
        custom_data="{{ params.custom_data | tojson }}",
    )
    wait_for_compute = OceanComputeSensor(
        task_id="wait_for_compute",
        ocean_conn_id="ocean_bob",
        job_id=start_compute.output,
        provider_url=start_compute.output["provider_url"],
        consumer_address=start_compute.output["consumer_address"],
        poke_interval=5,
        timeout=24 * 3600,
        stop_on_kill=True,
    )
    with TaskGroup("fetch_and_plot", tooltip="Bob looks at what he paid for"):
        fetch_results = OceanFetchResultsOperator(
            task_id="fetch_results",
            ocean_conn_id="ocean_bob",
            job_id=wait_for_compute.output,
            provider_url=start_compute.output["provider_url"],
            cost=pay_for_compute.output["cost"],
            outlets=[OCEAN_RESULT],
        )
        OceanPlotOperator(
            task_id="plot",
            enabled="{{ params.plot }}",
            ocean_conn_id="ocean_bob",
            manifest=fetch_results.output["manifest"],
            # The project's root, which holds include/, is on the PYTHONPATH of every Airflow process.
            render="include.branin.plot:plot_surface",
            render_options={"subtitle": "{{ run_id }}"},
        )

    (
        rehearse_algorithm
        >> approve_spending
        >> [publish_dataset, publish_algorithm]
        >> allow_algorithm
        >> transfer_datatokens
    )
    transfer_datatokens >> pay_for_compute >> start_compute >> wait_for_compute >> fetch_results
