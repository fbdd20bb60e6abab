"""
### Compute again and again, and pay only when it has to be.

**Bob** computes on assets that are already published, on a schedule. Each run uses the orders of earlier runs as long as
they are good: an order lasts as long as its asset says, and the environment is paid for `duration` seconds at a time.

1. What to compute with: the params, else the Airflow Variables, else what `ocean_c2d` published last (`choose_assets`).
2. What is not paid yet is quoted; above the limit somebody has to approve it first (`approve_spending`).
3. Bob pays it (`pay_for_compute`). If an unfinished job has the order, the run waits for its end.
4. The job is started, waited for, its result fetched and plotted, as in `ocean_c2d`.

| param | Airflow Variable | |
|---|---|---|
| `dataset_dids` | `ocean_dataset_dids` | the datasets, a JSON list |
| `algorithm_did` | `ocean_algorithm_did` | the algorithm |
| `environment` | `ocean_environment` | where to compute; `free` without any |
| `custom_data` | `ocean_custom_data` | a JSON object for the algorithm |

In custom data, `{data_interval_start}` and `{data_interval_end}` stand for the run's interval, in ISO 8601. Without any, the
Branin example gets a seed made of the interval, so that each run draws other points.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import DAG, CronDataIntervalTimetable, Param, TaskGroup

from airflow_ocean.assets import OCEAN_RESULT
from airflow_ocean.forms import node_params, plot_params
from airflow_ocean.operators.approval import OceanApproveSpendingOperator
from airflow_ocean.operators.choosing import OceanChooseAssetsOperator
from airflow_ocean.operators.compute import OceanPayForComputeOperator, OceanStartComputeOperator
from airflow_ocean.operators.plots import OceanPlotOperator
from airflow_ocean.operators.results import OceanFetchResultsOperator
from airflow_ocean.sensors import OceanComputeSensor

TIMEZONE = pendulum.timezone("Europe/Berlin")
# A run that is triggered by hand without a logical date has no interval.
START = "(data_interval_start | default(dag_run.run_after, true))"
ENVIRONMENT = "{{ params.environment or var.value.get('ocean_environment', 'free') }}"
END = "(data_interval_end | default(dag_run.run_after, true))"
# A Variable that is no JSON goes on as it is, so that the first task refuses it; as JSON, Airflow would leave it out.
CUSTOM_DATA = (
    "{{ (params.custom_data | tojson if params.custom_data"
    " else var.value.get('ocean_custom_data', '') or {'seed': " + START + ".timestamp() | int} | tojson)"
    " | replace('{data_interval_start}', " + START + " | ts)"
    " | replace('{data_interval_end}', " + END + " | ts) }}"
)

PARAMS = {
    "dataset_dids": Param(
        None,
        type=["array", "null"],
        items={"type": "string", "pattern": "^did:op:[0-9a-f]{64}$"},
        title="Datasets",
        section="Assets",
        description_md="Their DIDs, one a line; empty for the Variable, else for what was published last.",
    ),
    "algorithm_did": Param(
        None,
        type=["string", "null"],
        pattern="^did:op:[0-9a-f]{64}$",
        title="Algorithm",
        section="Assets",
        description_md="Its DID; empty for the Variable, else for what was published last.",
    ),
    "environment": Param(
        None,
        type=["string", "null"],
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
        description_md="For how long the environment is paid, when it has to be: all runs within that time cost nothing. An hour "
        "is 3600, a day 86400.",
    ),
    "spending_limit": Param(
        "0",
        type=["string", "null"],
        pattern=r"^([0-9]+([.][0-9]{1,18})?|\{.*\})?$",
        title="Spend without asking",
        section="Computation",
        description_md='An amount, or JSON such as `{"*": "10", "gas": "0.05"}`.\n\n'
        "What a run may cost before somebody has to approve it, in whole tokens of each token that pays. Empty: nobody is asked.",
    ),
    "custom_data": Param(
        None,
        type=["object", "null"],
        title="Custom data",
        section="Computation",
        description_md='For example `{"since": "{data_interval_start}"}`.\n\n'
        "Parameters for the algorithm, a JSON object. *{data_interval_start}* and *{data_interval_end}* in it are replaced with the "
        "run's interval, which *Data Interval* above may name.",
    ),
    **node_params(),
    **plot_params(),
}

with DAG(
    dag_id="ocean_c2d_recurring",
    description="Compute on published assets on a schedule, paying only when an earlier order is no longer good",
    doc_md=__doc__,
    schedule=CronDataIntervalTimetable("0 * * * *", timezone=TIMEZONE),
    start_date=pendulum.datetime(2025, 1, 1, tz=TIMEZONE),
    catchup=False,
    tags=["ocean", "compute-to-data"],
    default_args={"retries": 3},
    params=PARAMS,
) as dag:
    choose_assets = OceanChooseAssetsOperator(
        task_id="choose_assets",
        dataset_dids="{{ params.dataset_dids | tojson if params.dataset_dids else var.value.get('ocean_dataset_dids', '') }}",
        algorithm_did="{{ params.algorithm_did or var.value.get('ocean_algorithm_did', '') }}",
    )
    approve_spending = OceanApproveSpendingOperator(
        task_id="approve_spending",
        ocean_conn_id="ocean_bob",
        dataset_dids=choose_assets.output,
        algorithm_did=choose_assets.output["algorithm_did"],
        environment=ENVIRONMENT,
        duration="{{ params.duration }}",
        job_resources="{{ params.job_resources | tojson }}",
        queue_wait="{{ params.queue_wait }}",
        variables="{{ params.variables | tojson }}",
        custom_data=CUSTOM_DATA,
        reuse_orders=True,
        when_in_use="wait",
        spending_limit="{{ params.spending_limit }}",
    )
    pay_for_compute = OceanPayForComputeOperator(
        task_id="pay_for_compute",
        ocean_conn_id="ocean_bob",
        dataset_dids=choose_assets.output,
        algorithm_did=choose_assets.output["algorithm_did"],
        environment=ENVIRONMENT,
        duration="{{ params.duration }}",
        job_resources="{{ params.job_resources | tojson }}",
        queue_wait="{{ params.queue_wait }}",
        variables="{{ params.variables | tojson }}",
        max_cost=approve_spending.output,
        reuse_orders=True,
        when_in_use="wait",
    )
    start_compute = OceanStartComputeOperator(
        task_id="start_compute",
        ocean_conn_id="ocean_bob",
        order=pay_for_compute.output["order"],
        variables="{{ params.variables | tojson }}",
        custom_data=CUSTOM_DATA,
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
            render="include.branin.plot:plot_surface",
            render_options={"subtitle": "{{ run_id }}"},
        )

    choose_assets >> approve_spending >> pay_for_compute >> start_compute >> wait_for_compute >> fetch_results
