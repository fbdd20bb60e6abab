"""
### One algorithm, many parameters: as many jobs, one picture.

**Bob** computes an algorithm with each of several parameter sets, on one dataset or several, and looks at the results side
by side.

1. What to compute with: the params, else what `ocean_c2d` published last (`choose_assets`).
2. The members: one job for each parameter set, each with all datasets as its inputs, or one for each dataset, too
   (`list_members`).
3. Each member pays, starts its job, waits for it and fetches its result (`member`). No more than `parallel_jobs` have
   an unfinished job at once. At a Provider each of those needs an order of its own; a member takes over the order of
   another one that is done, so that a sweep of a hundred jobs costs as many orders as jobs run at once, and the next
   sweep none. On an Ocean Node all of them share one.
4. The results are plotted together (`plot`). A member that fails is missing in the picture, and sinks no other one.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import DAG, Param, task, task_group

from airflow_ocean.assets import OCEAN_RESULT
from airflow_ocean.forms import AMOUNT, TEXT, node_params, plot_params
from airflow_ocean.operators.choosing import OceanChooseAssetsOperator
from airflow_ocean.operators.compute import OceanPayForComputeOperator, OceanStartComputeOperator
from airflow_ocean.operators.plots import OceanPlotSeveralOperator
from airflow_ocean.operators.results import OceanFetchResultsOperator
from airflow_ocean.sensors import OceanComputeSensor
from include.sweep import members

PARAMS = {
    "dataset_dids": Param(
        None,
        type=["array", "null"],
        items={"type": "string", "pattern": "^did:op:[0-9a-f]{64}$"},
        title="Datasets",
        section="Assets",
        description_md="Their DIDs, one a line; empty for what was published last.",
    ),
    "algorithm_did": Param(
        None,
        type=["string", "null"],
        pattern="^did:op:[0-9a-f]{64}$",
        title="Algorithm",
        section="Assets",
        description_md="Its DID; empty for what was published last.",
    ),
    "one_job_per_dataset": Param(
        False,
        type="boolean",
        title="One job per dataset",
        section="Assets",
        description_md="Otherwise each job gets all datasets as its inputs.",
    ),
    "parameter_sets": Param(
        [
            {"kernel": "rbf", "points": 20},
            {"kernel": "rbf", "points": 100},
            {"kernel": "matern", "points": 100},
        ],
        type="array",
        items={"type": "object"},
        minItems=1,
        maxItems=1000,
        title="Parameter sets",
        section="Computation",
        description_md='For example `[{"points": 20}, {"points": 200}]`.\n\n'
        "The algorithm's custom data, a JSON list with an object for each job.",
    ),
    "parallel_jobs": Param(
        4,
        type="integer",
        minimum=1,
        maximum=64,
        title="Parallel jobs",
        section="Computation",
        description_md="How many jobs may be unfinished at once. At a Provider each of them takes an order of its own.",
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
        86_400,
        type="integer",
        minimum=60,
        title="Duration (seconds)",
        section="Computation",
        description_md="For how long the environment is paid: an hour is 3600, a day 86400. On an Ocean Node: how long the job "
        "may run.",
    ),
    "max_cost": Param(
        "0",
        type="string",
        pattern=AMOUNT,
        title="Price limit",
        section="Computation",
        description_md="The most each job may pay for prices and fees, in whole tokens of each token that pays.",
    ),
    **node_params(),
    **plot_params(),
}

with DAG(
    dag_id="ocean_c2d_sweep",
    description="Run one algorithm with many parameters at the same time, and plot the results together",
    doc_md=__doc__,
    schedule=None,
    start_date=pendulum.datetime(2025, 1, 1, tz="UTC"),
    catchup=False,
    tags=["ocean", "compute-to-data"],
    default_args={"retries": 3},
    params=PARAMS,
) as dag:
    choose_assets = OceanChooseAssetsOperator(
        task_id="choose_assets",
        dataset_dids="{{ params.dataset_dids | tojson if params.dataset_dids else '' }}",
        algorithm_did="{{ params.algorithm_did or '' }}",
    )

    @task
    def list_members(dataset_dids, params=None):
        """List what each job computes with."""
        return members(dataset_dids, params["parameter_sets"], params["one_job_per_dataset"])

    @task_group
    def member(dataset_dids, custom_data, label):
        """Compute with one parameter set."""
        pay_for_compute = OceanPayForComputeOperator(
            task_id="pay_for_compute",
            ocean_conn_id="ocean_bob",
            dataset_dids=dataset_dids,
            algorithm_did=choose_assets.output["algorithm_did"],
            environment="{{ params.environment }}",
            duration="{{ params.duration }}",
            job_resources="{{ params.job_resources | tojson }}",
            queue_wait="{{ params.queue_wait }}",
            variables="{{ params.variables | tojson }}",
            max_cost="{{ {'*': params.max_cost} | tojson }}",
            reuse_orders=True,
            when_in_use="order_anew",
            most_orders="{{ params.parallel_jobs }}",
            # One after another, so that each finds what the one before has ordered.
            max_active_tis_per_dagrun=1,
        )
        start_compute = OceanStartComputeOperator(
            task_id="start_compute",
            ocean_conn_id="ocean_bob",
            order=pay_for_compute.output["order"],
            variables="{{ params.variables | tojson }}",
            custom_data=custom_data,
            most_jobs="{{ params.parallel_jobs }}",
            wait_for_order=True,
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
        fetch_results = OceanFetchResultsOperator(
            task_id="fetch_results",
            ocean_conn_id="ocean_bob",
            job_id=wait_for_compute.output,
            provider_url=start_compute.output["provider_url"],
            cost=pay_for_compute.output["cost"],
            result_label=label,
            outlets=[OCEAN_RESULT],
        )
        pay_for_compute >> start_compute >> wait_for_compute >> fetch_results
        return fetch_results.output["manifest"]

    manifests = member.expand_kwargs(list_members(choose_assets.output))
    plot = OceanPlotSeveralOperator(
        task_id="plot",
        enabled="{{ params.plot }}",
        ocean_conn_id="ocean_bob",
        manifest=manifests,
        expected="{{ ti.xcom_pull(task_ids='list_members') | length }}",
        render="include.branin.plot:plot_several",
        render_options={"subtitle": "{{ run_id }}"},
        trigger_rule="all_done_min_one_success",
    )
    manifests >> plot
