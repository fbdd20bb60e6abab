"""
### Rehearse an algorithm before anyone pays.

Runs an algorithm in its own container image on sample data exactly as a compute environment would (`rehearse`): the same
files and environment variables, no network, no rights, limits of memory, CPU and time. Then it is seen whether there
are outputs and whether they can be decoded, and the result is drawn (`plot`).

Nothing is published, ordered or paid. The image, tag, checksum and entrypoint are the ones to publish the algorithm with.

It needs a Docker engine that the worker can reach, and the connection `ocean_alice` for the place where artifacts are
kept. The defaults are those of the Branin example.
"""

from __future__ import annotations

import os

import pendulum
from airflow.sdk import DAG, Param

from airflow_ocean.forms import container_params, plot_params
from airflow_ocean.operators.plots import OceanPlotOperator
from airflow_ocean.operators.rehearsal import OceanRehearseAlgorithmOperator

FILES_URL = os.environ.get("OCEAN_FILES_URL", "http://127.0.0.1:8060")

PARAMS = {
    "algorithm": Param(
        f"{FILES_URL}/algorithm.py",
        type="string",
        minLength=1,
        title="File",
        section="Algorithm",
        description_md="A URL, or a path that the worker can read.",
    ),
    **container_params(),
    "pull": Param(
        "missing",
        type="string",
        enum=["missing", "never", "always"],
        values_display={
            "missing": "when the engine does not have it",
            "never": "never: it was built on the engine",
            "always": "always",
        },
        title="Fetch the image",
        section="Algorithm",
        description_md="From its registry.",
    ),
    "sample_data": Param(
        [f"{FILES_URL}/branin.arff"],
        type="array",
        minItems=1,
        items={"type": ["string", "array", "object"]},
        title="Sample data",
        section="Data",
        description_md="A JSON list: for each dataset a URL or path, or a list of them when it has several files.",
    ),
    "custom_data": Param(
        None,
        type=["object", "null"],
        title="Custom data",
        section="Data",
        description_md="Parameters for the algorithm, a JSON object; it finds them as `algoCustomData.json`.",
    ),
    "memory": Param(
        "1g",
        type="string",
        pattern="^[0-9]+[kmg]?$",
        examples=["512m", "1g", "4g"],
        title="Memory",
        section="Limits",
        description_md="Bytes, or with `k`, `m` or `g` behind the number.",
    ),
    "cpus": Param(
        1,
        type="number",
        minimum=0.01,
        title="CPUs",
        section="Limits",
        description_md="How many processors the algorithm may use; `0.5` is half of one.",
    ),
    "time_limit": Param(
        600,
        type="integer",
        minimum=1,
        title="Time (seconds)",
        section="Limits",
        description_md="After that the algorithm is stopped, and the rehearsal has failed.",
    ),
    "max_output": Param(
        "1g",
        type="string",
        pattern="^[0-9]+[kmg]?$",
        examples=["100m", "1g", "10g"],
        title="Output",
        section="Limits",
        description_md="The most that it may write. Bytes, or with `k`, `m` or `g` behind the number.",
    ),
    **plot_params(),
}

with DAG(
    dag_id="ocean_algorithm_rehearsal",
    description="Run an algorithm in its container image on sample data, before it is published",
    doc_md=__doc__,
    schedule=None,
    start_date=pendulum.datetime(2025, 1, 1, tz="UTC"),
    catchup=False,
    tags=["ocean", "compute-to-data", "docker"],
    default_args={"retries": 3},
    params=PARAMS,
) as dag:
    rehearse = OceanRehearseAlgorithmOperator(
        task_id="rehearse",
        ocean_conn_id="ocean_alice",
        image="{{ params.container_image }}",
        tag="{{ params.container_tag }}",
        checksum="{{ params.container_checksum }}",
        entrypoint="{{ params.container_entrypoint }}",
        pull="{{ params.pull }}",
        algorithm="{{ params.algorithm }}",
        sample_data="{{ params.sample_data | tojson }}",
        custom_data="{{ params.custom_data | tojson }}",
        memory="{{ params.memory }}",
        cpus="{{ params.cpus }}",
        time_limit="{{ params.time_limit }}",
        max_output="{{ params.max_output }}",
    )
    OceanPlotOperator(
        task_id="plot",
        enabled="{{ params.plot }}",
        ocean_conn_id="ocean_alice",
        manifest=rehearse.output["manifest"],
        render="include.branin.plot:plot_surface",
        render_options={"subtitle": "{{ run_id }}"},
    )
