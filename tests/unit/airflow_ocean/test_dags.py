"""The DAG files as Airflow parses them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, NamedTuple

import pendulum
import pytest
from airflow.dag_processing.dagbag import DagBag

from airflow_ocean.assets import OCEAN_ORDERS
from airflow_ocean.operators.plots import OceanPlotOperator
from tests.support.airflow import PROJECT, airflow_environment, prepare_airflow_home

HEAVY = ("ocean_lib", "web3", "matplotlib", "numpy", "docker", "sklearn", "scipy", "eth_account")
MOMENT = pendulum.datetime(2025, 1, 2, 3, 4, 5)
PAYING = ("ocean_c2d", "ocean_c2d_recurring", "ocean_c2d_sweep")


class DagRun(NamedTuple):
    run_after: Any


@pytest.fixture(scope="module")
def dagbag():
    return DagBag(PROJECT / "dags")


def test_dags_parse(dagbag):
    assert dagbag.import_errors == {}
    assert dagbag.dags.keys() == {*PAYING, "ocean_algorithm_rehearsal", "ocean_escrow"}


def test_every_dag_says_what_it_is_and_every_task_retries(dagbag):
    for dag in dagbag.dags.values():
        assert dag.tags, dag.dag_id
        assert dag.doc_md, dag.dag_id
        assert dag.description, dag.dag_id
        assert dag.catchup is False
        for task in dag.tasks:
            assert task.retries >= 1, task.task_id


@pytest.mark.parametrize(
    "interval", [{}, {"data_interval_start": MOMENT, "data_interval_end": MOMENT.add(hours=1)}]
)
def test_custom_data_have_a_moment_whether_the_run_has_an_interval_or_not(dagbag, interval):
    # Airflow defines no interval where a run was triggered without a logical date.
    dag = dagbag.dags["ocean_c2d_recurring"]
    start = dag.get_task("start_compute")
    context = {
        "params": {"custom_data": {"since": "{data_interval_start}"}},
        "dag_run": DagRun(MOMENT),
        **interval,
    }
    rendered = start.render_template(start.custom_data, context, dag.get_template_env())
    assert json.loads(rendered) == {"since": "2025-01-02T03:04:05+00:00"}


def test_the_tasks_follow_each_other_as_the_story_goes(dagbag):
    dag = dagbag.dags["ocean_c2d"]
    order = {task.task_id: task.upstream_task_ids for task in dag.tasks}
    assert {name: upstream & order.keys() for name, upstream in order.items()} == {
        "rehearse_algorithm": set(),
        "approve_spending": {"rehearse_algorithm"},
        "publish_dataset": {"approve_spending"},
        "publish_algorithm": {"approve_spending"},
        "allow_algorithm": {"publish_dataset", "publish_algorithm"},
        "transfer_datatokens": {"allow_algorithm", "publish_dataset", "publish_algorithm"},
        "pay_for_compute": {
            "approve_spending",
            "transfer_datatokens",
            "publish_dataset",
            "publish_algorithm",
        },
        "start_compute": {"pay_for_compute"},
        "wait_for_compute": {"start_compute"},
        "fetch_and_plot.fetch_results": {"pay_for_compute", "start_compute", "wait_for_compute"},
        "fetch_and_plot.plot": {"fetch_and_plot.fetch_results"},
    }


def test_the_recurring_tasks_follow_each_other(dagbag):
    dag = dagbag.dags["ocean_c2d_recurring"]
    assert {task.task_id: task.upstream_task_ids for task in dag.tasks} == {
        "choose_assets": set(),
        "approve_spending": {"choose_assets"},
        "pay_for_compute": {"approve_spending", "choose_assets"},
        "start_compute": {"pay_for_compute"},
        "wait_for_compute": {"start_compute"},
        "fetch_and_plot.fetch_results": {"wait_for_compute", "start_compute", "pay_for_compute"},
        "fetch_and_plot.plot": {"fetch_and_plot.fetch_results"},
    }


def test_the_schedule_knows_its_timezone(dagbag):
    dag = dagbag.dags["ocean_c2d_recurring"]
    assert dag.timetable.timezone.name == dag.timezone.name == "Europe/Berlin"


def test_members_of_a_sweep_are_mapped_and_one_that_fails_sinks_no_other(dagbag):
    dag = dagbag.dags["ocean_c2d_sweep"]
    assert {task.task_id for task in dag.task_group_dict["member"].iter_tasks()} == {
        "member.pay_for_compute", "member.start_compute", "member.wait_for_compute", "member.fetch_results",
    }  # fmt: skip
    assert dag.task_dict["plot"].trigger_rule == "all_done_min_one_success"
    assert dag.task_dict["member.pay_for_compute"].max_active_tis_per_dagrun == 1


def test_orders_are_kept_by_an_airflow_asset(dagbag):
    for dag_id in PAYING:
        dag = dagbag.dags[dag_id]
        (pay,) = [task for task in dag.tasks if task.task_id.endswith("pay_for_compute")]
        assert pay.inlets == [OCEAN_ORDERS]


def test_every_param_is_valid_as_it_stands_and_explained(dagbag):
    for dag in dagbag.dags.values():
        dag.params.validate()
        for name in dag.params:
            schema = dag.params.get_param(name).schema
            assert schema.get("title"), name
            # Airflow makes an id of it, and with a space the section has no name for a screen reader.
            assert schema.get("section", "").isalpha(), name
            first, *others = schema["description_md"].split("\n\n")
            # In Airflow's form code covers what is above it, so it is in the first line, and that does not wrap.
            assert "`" not in first or len(first) <= 90, name
            assert not any("`" in paragraph for paragraph in others), name
            # The form shows this one as Markdown, and the other one as it is.
            assert "description" not in schema or "`" not in schema["description"], name


@pytest.mark.parametrize(
    ("dag_id", "name", "wrong"),
    [
        ("ocean_c2d", "dataset_name", ""),
        ("ocean_c2d", "dataset_name", "  "),
        ("ocean_c2d", "algorithm_name", " None "),
        ("ocean_c2d", "dataset_url", "branin.arff"),
        ("ocean_c2d", "dataset_url", "http://"),
        ("ocean_c2d", "algorithm_url", "https:///algorithm.py"),
        ("ocean_c2d", "algorithm_url", "http://127.0.0.1/my algorithm.py"),
        ("ocean_c2d", "container_image", "python:3.12"),
        ("ocean_c2d", "container_image", "My image"),
        ("ocean_c2d", "container_image", "null"),
        ("ocean_c2d", "container_tag", "None"),
        ("ocean_c2d", "container_tag", "@sha256"),
        ("ocean_c2d", "container_checksum", "latest"),
        ("ocean_c2d", "container_entrypoint", "python"),
        ("ocean_c2d", "rehearse", "perhaps"),
        ("ocean_c2d", "environment", " "),
        ("ocean_c2d", "amount", "0"),
        ("ocean_c2d", "amount", "0.5"),
        ("ocean_c2d", "amount", "0" + "9" * 79),
        ("ocean_c2d", "amount", "-1"),
        ("ocean_c2d", "amount", "1e3"),
        ("ocean_c2d", "amount", 1.5),
        ("ocean_c2d", "duration", 1),
        ("ocean_c2d", "dataset_offer", "auction"),
        ("ocean_c2d", "dataset_price", "-1"),
        ("ocean_c2d", "dataset_price", "0"),
        ("ocean_c2d", "dataset_price", "0.0"),
        ("ocean_c2d", "dataset_price", "0.000000009999999999"),
        ("ocean_c2d", "dataset_price", "9" * 79),
        ("ocean_c2d", "spending_limit", "much"),
        ("ocean_c2d", "spending_limit", "-1"),
        ("ocean_c2d", "custom_data", "[]"),
        *[
            (dag_id, name, wrong)
            for dag_id in PAYING
            for name, wrong in [
                ("job_resources", {"cpu": 0}),
                ("job_resources", {"cpu": "2"}),
                ("job_resources", ["cpu"]),
                ("queue_wait", -1),
                ("queue_wait", 1.5),
                ("variables", {"LEVEL": 3}),
                ("variables", {"A LEVEL": "3"}),
                ("variables", ["LEVEL"]),
                ("plot", "perhaps"),
            ]
        ],
        ("ocean_c2d_recurring", "dataset_dids", ["did:op:5"]),
        ("ocean_c2d_recurring", "dataset_dids", "did:op:" + "5" * 64),
        ("ocean_c2d_recurring", "algorithm_did", "did:op:5"),
        ("ocean_c2d_recurring", "duration", 0),
        ("ocean_c2d_sweep", "parameter_sets", []),
        ("ocean_c2d_sweep", "parameter_sets", [5]),
        ("ocean_c2d_sweep", "parallel_jobs", 0),
        ("ocean_c2d_sweep", "parallel_jobs", 65),
        ("ocean_c2d_sweep", "max_cost", "much"),
        ("ocean_c2d_sweep", "max_cost", "9" * 79),
        ("ocean_c2d_sweep", "environment", "null"),
        ("ocean_algorithm_rehearsal", "sample_data", []),
        ("ocean_algorithm_rehearsal", "container_entrypoint", "python"),
        ("ocean_algorithm_rehearsal", "memory", "much"),
        ("ocean_algorithm_rehearsal", "cpus", 0),
    ],
)
def test_a_bad_param_is_refused(dagbag, dag_id, name, wrong):
    with pytest.raises(ValueError, match="Failed validating"):
        dagbag.dags[dag_id].params.get_param(name).resolve(wrong)


@pytest.mark.parametrize(
    ("dag_id", "name", "right"),
    [
        ("ocean_c2d", "dataset_name", "None of the above"),
        ("ocean_c2d", "dataset_name", "Größe (µm)"),
        ("ocean_c2d", "dataset_url", "https://user@example.com:8443/a%20b?key=x&y=#z"),
        ("ocean_c2d", "container_image", "python"),
        ("ocean_c2d", "container_image", "registry.example.com:5000/group/an_image-2"),
        ("ocean_c2d", "container_tag", "3.12-slim_1"),
        ("ocean_c2d", "amount", "1"),
        ("ocean_c2d", "amount", "10.5"),
        ("ocean_c2d", "dataset_price", "0.00000001"),
        ("ocean_c2d", "dataset_price", "0.5"),
        ("ocean_c2d", "dataset_price", "20.000000000000000001"),
        ("ocean_c2d", "job_resources", {"cpu": 2, "ram": 0.5}),
        ("ocean_c2d", "variables", {"LEVEL": "3", "_a1": ""}),
        ("ocean_c2d_sweep", "max_cost", "0"),
    ],
)
def test_a_good_param_is_not(dagbag, dag_id, name, right):
    assert dagbag.dags[dag_id].params.get_param(name).resolve(right) == right


def test_no_dags_share_a_param():
    # A run through dag.test() writes its values into them, also into those of a file that is parsed again.
    bags = [DagBag(PROJECT / "dags") for _ in range(2)]
    fields = [
        id(dag.params.get_param(name)) for bag in bags for dag in bag.dags.values() for name in dag.params
    ]
    assert len(set(fields)) == len(fields)


def test_every_plot_can_be_left_out(dagbag):
    plots = [
        (dag.dag_id, task.enabled)
        for dag in dagbag.dags.values()
        for task in dag.tasks
        if isinstance(task, OceanPlotOperator)
    ]
    drawing = {*PAYING, "ocean_algorithm_rehearsal"}
    assert sorted(plots) == sorted((dag_id, "{{ params.plot }}") for dag_id in drawing)


def test_parsing_imports_nothing_heavy_and_plugins_are_found_once():
    code = f"""
import sys
from airflow.dag_processing.dagbag import DagBag
assert not DagBag({str(PROJECT / "dags")!r}).import_errors
print([name for name in {HEAVY} if name in sys.modules])
"""
    home = prepare_airflow_home()
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), **airflow_environment(home)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert result.stdout.splitlines()[-1] == "[]"


def test_airflow_does_not_execute_the_packages_modules_as_plugins():
    code = """
from airflow import plugins_manager
plugins, errors = plugins_manager._get_plugins()
assert not errors, errors
import sys
print([name for name in ("hooks", "sensors", "triggers", "operators", "artifacts") if name in sys.modules])
"""
    home = prepare_airflow_home()
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), **airflow_environment(home)}
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "[]"
