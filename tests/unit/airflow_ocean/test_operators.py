"""The operators' contract: arguments, templates, documentation, and what is refused before anything is sent."""

from __future__ import annotations

import hashlib
import inspect
import re
from datetime import timedelta
from decimal import Decimal
from types import SimpleNamespace

import pytest
from airflow.sdk import DAG, ExceptionRetryPolicy, ObjectStoragePath, RetryAction
from airflow.sdk.exceptions import AirflowSkipException

from airflow_ocean import parameters
from airflow_ocean.artifacts import Artifact, Manifest
from airflow_ocean.assets import OCEAN_COMPUTABLE
from airflow_ocean.c2d.errors import FatalError, InvalidInputError, RateLimitedError, ServiceUnavailableError
from airflow_ocean.links import OceanAssetLink, OceanTransactionLink
from airflow_ocean.operators.approval import OceanApproveSpendingOperator
from airflow_ocean.operators.assets import (
    OceanAllowAlgorithmOperator,
    OceanPublishAlgorithmOperator,
    OceanPublishDatasetOperator,
)
from airflow_ocean.operators.base import OceanOptionalOperator
from airflow_ocean.operators.choosing import OceanChooseAssetsOperator
from airflow_ocean.operators.compute import (
    OceanPayForComputeOperator,
    OceanStartComputeOperator,
    OceanStopComputeOperator,
)
from airflow_ocean.operators.datatokens import OceanTransferDatatokensOperator
from airflow_ocean.operators.escrow import OceanSettlementSensor, OceanWithdrawFromEscrowOperator
from airflow_ocean.operators.plots import OceanPlotOperator, OceanPlotSeveralOperator
from airflow_ocean.operators.rehearsal import OceanRehearseAlgorithmOperator
from airflow_ocean.operators.results import OceanFetchResultsOperator
from airflow_ocean.retries import OceanRetryPolicy
from airflow_ocean.sensors import OceanComputeSensor
from tests.unit.airflow_ocean.conftest import CONN_ID

DID = "did:op:" + "0a" * 32
OTHER_DID = "did:op:" + "0b" * 32
ADDRESS = "0x02354A1F160A3fd7ac8b02ee91F04104440B28E7"
CHECKSUM = "sha256:" + "0c" * 32
ORDER = {
    "provider_url": "http://127.0.0.1:2",
    "environment": "e",
    "environment_consumer": ADDRESS,
    "valid_until": 1,
    "terms": {"duration": 60},
    "datasets": [{"did": DID, "service_id": "0", "transaction": "0x" + "00" * 32}],
    "algorithm": {"did": OTHER_DID, "service_id": "0", "transaction": "0x" + "00" * 32},
}

# Each with the arguments that it cannot do without.
OPERATORS = {
    OceanPublishDatasetOperator: {"asset_name": "data", "url": "http://127.0.0.1/data"},
    OceanPublishAlgorithmOperator: {
        "asset_name": "algorithm",
        "url": "http://127.0.0.1/algorithm",
        "image": "python",
        "tag": "3.11",
        "checksum": CHECKSUM,
    },
    OceanAllowAlgorithmOperator: {"dataset_did": DID, "algorithm_did": OTHER_DID},
    OceanTransferDatatokensOperator: {"asset_dids": [DID], "to": ADDRESS},
    OceanPayForComputeOperator: {"dataset_dids": [DID], "algorithm_did": OTHER_DID},
    OceanStartComputeOperator: {"order": {}},
    OceanStopComputeOperator: {"job_id": "job-1"},
    OceanFetchResultsOperator: {"job_id": "job-1"},
    OceanPlotOperator: {"manifest": "file:///none", "render": "math:sqrt"},
    OceanPlotSeveralOperator: {"manifest": ["file:///none"], "render": "math:sqrt"},
    OceanRehearseAlgorithmOperator: {
        "image": "python",
        "tag": "3.11",
        "checksum": CHECKSUM,
        "algorithm": "algorithm.py",
        "sample_data": ["data.csv"],
    },
    OceanComputeSensor: {"job_id": "job-1"},
    OceanSettlementSensor: {"job_id": "job-1"},
    OceanWithdrawFromEscrowOperator: {"amount": "all"},
    OceanApproveSpendingOperator: {"dataset_dids": [DID], "algorithm_did": OTHER_DID},
}
ALL = pytest.mark.parametrize(
    ("operator", "required"), OPERATORS.items(), ids=lambda value: getattr(value, "__name__", "")
)


def make(operator, **arguments):
    return operator(**{"task_id": "a_task", "ocean_conn_id": CONN_ID, **OPERATORS[operator], **arguments})


@ALL
def test_arguments_are_keyword_only_and_kept_under_their_names(operator, required):
    for level in operator.__mro__:
        if level.__module__.startswith("airflow_ocean") and "__init__" in vars(level):
            for name, parameter in inspect.signature(level.__init__).parameters.items():
                assert name == "self" or parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD)
    task = make(operator)
    assert {name: getattr(task, name) for name in required} == required


@ALL
def test_the_documentation_says_what_is_templated(operator, required):
    levels = [level for level in operator.__mro__ if level.__module__.startswith("airflow_ocean")]
    documented = "\n".join(inspect.getdoc(level) or "" for level in levels)
    templated = set(re.findall(r":param (\w+):\s+\(templated\)", documented))
    # A subclass of a publishing operator points at the other one's page for the arguments they share.
    shared = set(OceanPublishDatasetOperator.template_fields) if "PublishDataset" in documented else set()
    assert templated <= set(operator.template_fields)
    assert set(operator.template_fields) - shared <= templated


@ALL
def test_every_template_field_is_an_argument(operator, required):
    task = make(operator)
    for field in operator.template_fields:
        assert hasattr(task, field), field


@ALL
def test_transient_errors_are_retried_and_fatal_ones_are_not(operator, required):
    task = make(operator)
    assert task.retries == 3
    assert task.retry_policy.evaluate(InvalidInputError("no"), 1, 3).action is RetryAction.FAIL
    assert task.retry_policy.evaluate(ServiceUnavailableError("later"), 1, 3).action is RetryAction.RETRY
    assert task.retry_policy.evaluate(KeyError("a bug"), 1, 3).action is RetryAction.DEFAULT


@ALL
def test_retries_can_be_set(operator, required):
    policy = ExceptionRetryPolicy([])
    task = make(operator, retries=7, retry_policy=policy)
    assert (task.retries, task.retry_policy) == (7, policy)


def test_the_waits_between_retries_grow_and_honour_retry_after():
    policy = make(OceanStopComputeOperator, retry_delay=timedelta(seconds=4)).retry_policy

    def delay(error, try_number):
        return policy.evaluate(error, try_number, 3).retry_delay.total_seconds()

    error = ServiceUnavailableError("later")
    assert [delay(error, number) for number in (1, 2, 3, 4)] == [4, 8, 16, 32]
    assert delay(error, 1000) == 600
    assert delay(RateLimitedError("slower", retry_after=100), 1) == 100
    assert delay(RateLimitedError("slower", retry_after=1), 1) == 4
    # What is asked for is not cut, and a task that was cleared begins anew although its tries go on counting.
    patient = OceanRetryPolicy(timedelta(hours=1))
    assert patient.evaluate(error, 1, 3).retry_delay == timedelta(hours=1)
    cleared = {"task": make(OceanStopComputeOperator, retries=3)}
    assert policy.evaluate(error, 5, 7, cleared).retry_delay.total_seconds() == 4
    assert policy.evaluate(error, 6, 7, cleared).retry_delay.total_seconds() == 8


def test_a_mapped_task_keeps_retries_and_policy():
    with DAG("a_dag", schedule=None):
        mapped = OceanStopComputeOperator.partial(task_id="stop", ocean_conn_id=CONN_ID).expand(
            job_id=["a", "b"]
        )
    task = mapped.unmap({"job_id": "a"})
    assert task.retries == 3
    assert task.retry_policy.evaluate(InvalidInputError("no"), 1, 3).action is RetryAction.FAIL


# ---------------------------------------------------------------- bad values, refused before anything is sent

PUBLISHING = [
    ({"asset_name": ""}, "asset_name"),
    ({"asset_name": 5}, "asset_name"),
    ({"asset_name": "{}", "url": None}, "url or files"),
    ({"files": [{"type": "url", "url": "http://127.0.0.1"}]}, "url or files"),
    ({"url": "ftp://127.0.0.1/x"}, "url"),
    ({"url": None, "files": "[1"}, "files"),
    ({"url": None, "files": {"type": "url"}}, "files"),
    ({"url": None, "files": [{"type": "floppy"}]}, "type"),
    ({"url": None, "files": [{"type": "arweave"}]}, "transactionId"),
    ({"description": 5}, "description"),
    ({"author": ["Alice"]}, "author"),
    ({"license": ""}, "license"),
    ({"tags": "branin"}, "tags"),
    ({"tags": [1]}, "tags"),
    ({"additional_information": "[]"}, "additional_information"),
    ({"additional_information": {"x": float("nan")}}, "additional_information"),
    ({"allow_addresses": ["0x12"]}, "allow_addresses"),
    ({"deny_addresses": [ADDRESS.replace("A", "a")]}, "deny_addresses"),
    ({"datatoken_template": 3}, "datatoken_template"),
    ({"datatoken_template": "one"}, "datatoken_template"),
    ({"pricing": "free"}, "pricing"),
    ({"pricing": {"type": "auction"}}, "pricing"),
    ({"pricing": {"type": "dispenser", "rate": "1"}}, "pricing"),
    ({"pricing": {"type": "fixed_rate"}}, "pricing.rate"),
    ({"pricing": {"type": "fixed_rate", "rate": 0.5}}, "pricing.rate"),
    ({"pricing": {"type": "fixed_rate", "rate": "1", "base_token": "OCEAN"}}, "pricing.base_token"),
    ({"order_timeout": -1}, "order_timeout"),
    ({"order_timeout": "an hour"}, "order_timeout"),
    ({"order_timeout": True}, "order_timeout"),
    ({"consumer_parameters": {"name": "x"}}, "consumer_parameters"),
    ({"max_cost": "cheap"}, "max_cost"),
    ({"force_new": "perhaps"}, "force_new"),
]
# A manifest of one result, in its place, and what is needed to draw that.
RESULT = "the manifest of a result"
BAD_VALUES = [
    *[(OceanPublishDatasetOperator, wrong, named) for wrong, named in PUBLISHING],
    *[(OceanPublishAlgorithmOperator, wrong, named) for wrong, named in PUBLISHING],
    (OceanPublishDatasetOperator, {"allow_raw_algorithm": "perhaps"}, "allow_raw_algorithm"),
    (OceanPublishDatasetOperator, {"allow_network_access": 2}, "allow_network_access"),
    (OceanPublishDatasetOperator, {"allow_download": "perhaps"}, "allow_download"),
    (OceanPublishDatasetOperator, {"open_to_all": "perhaps"}, "open_to_all"),
    (OceanPublishDatasetOperator, {"trusted_algorithms": DID}, "trusted_algorithms"),
    (OceanPublishDatasetOperator, {"trusted_publishers": ["alice"]}, "trusted_publishers"),
    (OceanPublishAlgorithmOperator, {"image": ""}, "image"),
    (OceanPublishAlgorithmOperator, {"tag": None}, "tag"),
    (OceanPublishAlgorithmOperator, {"checksum": "sha256:1"}, "checksum"),
    (OceanPublishAlgorithmOperator, {"entrypoint": "python"}, "entrypoint"),
    (OceanAllowAlgorithmOperator, {"dataset_did": "did:op:1"}, "dataset_did"),
    (OceanAllowAlgorithmOperator, {"dataset_did": None}, "dataset_did"),
    (OceanAllowAlgorithmOperator, {"algorithm_did": DID.upper()}, "algorithm_did"),
    (OceanAllowAlgorithmOperator, {"publisher": ADDRESS}, "algorithm_did or publisher"),
    (OceanAllowAlgorithmOperator, {"algorithm_did": "None"}, "algorithm_did or publisher"),
    (OceanAllowAlgorithmOperator, {"algorithm_did": None, "publisher": "alice"}, "publisher"),
    (OceanAllowAlgorithmOperator, {"revoke": "perhaps"}, "revoke"),
    (OceanAllowAlgorithmOperator, {"max_cost": {"gas": 1.5}}, "max_cost"),
    (OceanAllowAlgorithmOperator, {"max_cost": {"OCEAN": "1"}}, "max_cost"),
    (OceanAllowAlgorithmOperator, {"max_cost": "1e999"}, "max_cost"),
    (OceanAllowAlgorithmOperator, {"force_new": 2}, "force_new"),
    (OceanTransferDatatokensOperator, {"asset_dids": []}, "asset_dids"),
    (OceanTransferDatatokensOperator, {"asset_dids": [DID, DID]}, "asset_dids"),
    (OceanTransferDatatokensOperator, {"asset_dids": "[1"}, "asset_dids"),
    (OceanTransferDatatokensOperator, {"amount": "0"}, "amount"),
    (OceanTransferDatatokensOperator, {"amount": "-1"}, "amount"),
    (OceanTransferDatatokensOperator, {"amount": 1.5}, "amount"),
    (OceanTransferDatatokensOperator, {"amount": "1e99"}, "amount"),
    (OceanTransferDatatokensOperator, {"amount": "0.0000000000000000001"}, "amount"),
    (OceanTransferDatatokensOperator, {"amount": "Infinity"}, "amount"),
    (OceanTransferDatatokensOperator, {"method": "steal"}, "method"),
    (OceanTransferDatatokensOperator, {"to": "bob"}, "to"),
    (OceanTransferDatatokensOperator, {"to": None}, "to or to_conn_id"),
    (OceanTransferDatatokensOperator, {"to_conn_id": "ocean_bob"}, "to or to_conn_id"),
    (OceanTransferDatatokensOperator, {"method": "dispense"}, "to and to_conn_id"),
    (OceanTransferDatatokensOperator, {"method": "buy", "to": None}, "max_cost"),
    (OceanTransferDatatokensOperator, {"method": "buy", "to": None, "max_cost": "cheap"}, "max_cost"),
    (OceanTransferDatatokensOperator, {"force_new": "perhaps"}, "force_new"),
    (OceanPayForComputeOperator, {"dataset_dids": "did:op:zz"}, "dataset_dids"),
    (OceanPayForComputeOperator, {"dataset_dids": None}, "dataset_dids"),
    (OceanPayForComputeOperator, {"algorithm_did": ""}, "algorithm_did"),
    (OceanPayForComputeOperator, {"environment": ""}, "environment"),
    (OceanPayForComputeOperator, {"duration": 0}, "duration"),
    (OceanPayForComputeOperator, {"duration": "1h"}, "duration"),
    (OceanPayForComputeOperator, {"duration": 10**12}, "duration"),
    (OceanPayForComputeOperator, {"max_cost": -1}, "max_cost"),
    (OceanPayForComputeOperator, {"when_in_use": "steal"}, "when_in_use"),
    (OceanPayForComputeOperator, {"most_orders": 0}, "most_orders"),
    (OceanPayForComputeOperator, {"order_wait": "long"}, "order_wait"),
    (OceanPayForComputeOperator, {"approve_payments": 0}, "approve_payments"),
    (OceanPayForComputeOperator, {"job_resources": {"cpu": 0}}, "job_resources"),
    (OceanPayForComputeOperator, {"job_resources": "[1]"}, "job_resources"),
    (OceanPayForComputeOperator, {"queue_wait": -1}, "queue_wait"),
    (OceanPayForComputeOperator, {"variables": {"LEVEL": 3}}, "variables"),
    (OceanPayForComputeOperator, {"force_new": "perhaps"}, "force_new"),
    (OceanPayForComputeOperator, {"reuse_orders": "perhaps"}, "reuse_orders"),
    (OceanPayForComputeOperator, {"reuse_orders": True}, "asset_state_store"),
    (OceanStartComputeOperator, {"order": None}, "order"),
    (OceanStartComputeOperator, {"order_wait": -1}, "order_wait"),
    (OceanFetchResultsOperator, {"cost": "cheap"}, "cost"),
    (OceanStartComputeOperator, {"order": "paid"}, "order"),
    (OceanStartComputeOperator, {"order": {"datasets": []}}, "order"),
    (OceanStartComputeOperator, {"order": ORDER, "custom_data": "[1"}, "custom_data"),
    (OceanStartComputeOperator, {"order": ORDER, "variables": {"a b": "c"}}, "variables"),
    (OceanStartComputeOperator, {"order": ORDER, "most_jobs": 0}, "most_jobs"),
    (OceanStartComputeOperator, {"order": ORDER, "wait_for_order": "perhaps"}, "wait_for_order"),
    (OceanStartComputeOperator, {"order": ORDER, "max_cost": "cheap"}, "max_cost"),
    (OceanStartComputeOperator, {"order": ORDER, "force_new": "perhaps"}, "force_new"),
    (OceanStopComputeOperator, {"job_id": ""}, "job_id"),
    (OceanStopComputeOperator, {"provider_url": "127.0.0.1:8030"}, "provider_url"),
    (OceanStopComputeOperator, {"provider_url": "file:///etc/passwd"}, "provider_url"),
    (OceanStopComputeOperator, {"provider_url": "https://user:password@127.0.0.1"}, "provider_url"),
    (OceanFetchResultsOperator, {"job_id": None}, "job_id"),
    (OceanFetchResultsOperator, {"provider_url": 8030}, "provider_url"),
    (OceanFetchResultsOperator, {"provider_url": "http://"}, "provider_url"),
    (OceanFetchResultsOperator, {"include_logs": "perhaps"}, "include_logs"),
    (OceanFetchResultsOperator, {"result_label": 5}, "result_label"),
    (OceanFetchResultsOperator, {"artifact_base": ["s3://b"]}, "artifact_base"),
    (OceanFetchResultsOperator, {"artifact_base": "floppy://b"}, "floppy"),
    (OceanFetchResultsOperator, {"max_bytes": 0}, "max_bytes"),
    (OceanFetchResultsOperator, {"max_bytes": "1 GB"}, "max_bytes"),
    (OceanFetchResultsOperator, {"max_files": 0}, "max_files"),
    (OceanFetchResultsOperator, {"max_files": "many"}, "max_files"),
    (OceanPlotOperator, {"render": "no_such_module:draw"}, "render"),
    (OceanPlotOperator, {"render": "math:no_such_function"}, "render"),
    (OceanPlotOperator, {"render": "math:pi"}, "render"),
    (OceanPlotOperator, {"render": ""}, "render"),
    (OceanPlotOperator, {"manifest": ""}, "manifest"),
    (OceanPlotOperator, {}, "file:///none"),
    (OceanPlotOperator, {"enabled": "perhaps"}, "enabled"),
    (OceanPlotOperator, {"render_in_docker": "perhaps"}, "render_in_docker"),
    (OceanPlotOperator, {"manifest": RESULT, "result_name": "another"}, "result_name"),
    (OceanPlotOperator, {"manifest": RESULT, "render_options": "[1]"}, "render_options"),
    (OceanPlotOperator, {"manifest": RESULT, "render_options": {"colour": "red"}}, "colour"),
    (OceanPlotOperator, {"manifest": RESULT, "plot_name": ""}, "plot_name"),
    (OceanPlotOperator, {"manifest": RESULT, "artifact_base": 5}, "artifact_base"),
    (OceanPlotOperator, {"manifest": RESULT, "render_in_docker": True}, "render_image"),
    (OceanPlotOperator, {"manifest": RESULT, "render_in_docker": True, "render_image": " "}, "render_image"),
    (
        OceanPlotOperator,
        {"manifest": RESULT, "render_in_docker": True, "render_image": "python:3.12", "docker_url": 5},
        "docker_url",
    ),
    (OceanPlotSeveralOperator, {"enabled": "perhaps"}, "enabled"),
    (OceanPlotSeveralOperator, {"render": "math:pi"}, "render"),
    (OceanPlotSeveralOperator, {"render_in_docker": True}, "render_in_docker"),
    (OceanPlotSeveralOperator, {"manifest": [RESULT], "expected": "many"}, "expected"),
    (OceanPlotSeveralOperator, {"manifest": [RESULT], "result_name": "another"}, "result_name"),
    (OceanPlotSeveralOperator, {"manifest": [RESULT], "render_options": "[1]"}, "render_options"),
    (OceanPlotSeveralOperator, {"manifest": [RESULT], "plot_name": ""}, "plot_name"),
    (OceanPlotSeveralOperator, {"manifest": [RESULT], "artifact_base": 5}, "artifact_base"),
    (OceanPlotSeveralOperator, {"manifest": []}, "manifest"),
    (OceanPlotSeveralOperator, {"manifest": "[1"}, "manifest"),
    (OceanPlotSeveralOperator, {}, "file:///none"),
    (OceanComputeSensor, {"job_id": " "}, "job_id"),
    (OceanComputeSensor, {"consumer_address": "bob"}, "consumer_address"),
    (OceanComputeSensor, {"provider_url": "127.0.0.1:8030"}, "provider_url"),
    (OceanComputeSensor, {"deferrable": "perhaps"}, "deferrable"),
    (OceanComputeSensor, {"stop_on_kill": "perhaps"}, "stop_on_kill"),
    (OceanComputeSensor, {"poke_interval": 0}, "poke_interval"),
    (OceanSettlementSensor, {"poke_interval": timedelta(milliseconds=50)}, "poke_interval"),
    (OceanComputeSensor, {"show_log": "perhaps"}, "show_log"),
    (OceanSettlementSensor, {"job_id": 5}, "job_id"),
    (OceanSettlementSensor, {"provider_url": "127.0.0.1:8001"}, "provider_url"),
    (OceanSettlementSensor, {"cost": "[1"}, "cost"),
    (OceanSettlementSensor, {"manifest": "file:///none"}, "file:///none"),
    (OceanWithdrawFromEscrowOperator, {"token": "OCEAN"}, "token"),
    (OceanWithdrawFromEscrowOperator, {"amount": "much"}, "amount"),
    (OceanWithdrawFromEscrowOperator, {"escrow": "0x1"}, "escrow"),
    (OceanWithdrawFromEscrowOperator, {"cancel_expired": "perhaps"}, "cancel_expired"),
    (OceanWithdrawFromEscrowOperator, {"max_cost": "cheap"}, "max_cost"),
    (OceanWithdrawFromEscrowOperator, {"force_new": "perhaps"}, "force_new"),
    (OceanRehearseAlgorithmOperator, {"image": ""}, "image"),
    (OceanRehearseAlgorithmOperator, {"tag": None}, "tag"),
    (OceanRehearseAlgorithmOperator, {"checksum": "sha256:1"}, "checksum"),
    (OceanRehearseAlgorithmOperator, {"entrypoint": "python"}, "$ALGO"),
    (OceanRehearseAlgorithmOperator, {"algorithm": ""}, "algorithm"),
    (OceanRehearseAlgorithmOperator, {"algorithm": "/no/such/file"}, "/no/such/file"),
    (OceanRehearseAlgorithmOperator, {"sample_data": []}, "sample_data"),
    (OceanRehearseAlgorithmOperator, {"sample_data": [{"did": "x", "files": []}]}, "sample_data[0].did"),
    (OceanRehearseAlgorithmOperator, {"custom_data": "[1"}, "custom_data"),
    (OceanRehearseAlgorithmOperator, {"memory": "much"}, "memory"),
    (OceanRehearseAlgorithmOperator, {"cpus": "many"}, "cpus"),
    (OceanRehearseAlgorithmOperator, {"cpus": None}, "cpus"),
    (OceanRehearseAlgorithmOperator, {"time_limit": 0}, "time_limit"),
    (OceanRehearseAlgorithmOperator, {"max_processes": -1}, "max_processes"),
    (OceanRehearseAlgorithmOperator, {"max_output": 0}, "max_output"),
    (OceanRehearseAlgorithmOperator, {"user": 5}, "user"),
    (OceanRehearseAlgorithmOperator, {"pull": "perhaps"}, "pull"),
    (OceanRehearseAlgorithmOperator, {"decode_outputs": "perhaps"}, "decode_outputs"),
    (OceanRehearseAlgorithmOperator, {"docker_url": 5}, "docker_url"),
    (OceanRehearseAlgorithmOperator, {"docker_conn_id": 5}, "docker_conn_id"),
    (OceanRehearseAlgorithmOperator, {"enabled": "perhaps"}, "enabled"),
    (OceanRehearseAlgorithmOperator, {"artifact_base": 5}, "artifact_base"),
    (OceanApproveSpendingOperator, {"dataset_dids": None}, "dataset_dids"),
    (OceanApproveSpendingOperator, {"dataset_dids": "did:op:1"}, "dataset_dids"),
    (OceanApproveSpendingOperator, {"algorithm_did": "did:op:1"}, "algorithm_did"),
    (OceanApproveSpendingOperator, {"environment": ""}, "environment"),
    (OceanApproveSpendingOperator, {"duration": 0}, "duration"),
    (OceanApproveSpendingOperator, {"job_resources": {"cpu": "two"}}, "job_resources"),
    (OceanApproveSpendingOperator, {"queue_wait": "long"}, "queue_wait"),
    (OceanApproveSpendingOperator, {"variables": {"a b": "c"}}, "variables"),
    (OceanApproveSpendingOperator, {"custom_data": "[1]"}, "custom_data"),
    (OceanApproveSpendingOperator, {"reuse_orders": "perhaps"}, "reuse_orders"),
    (OceanApproveSpendingOperator, {"reuse_orders": True, "when_in_use": "steal"}, "when_in_use"),
    (OceanApproveSpendingOperator, {"reuse_orders": True, "most_orders": 0}, "most_orders"),
    (OceanApproveSpendingOperator, {"order_wait": "forever"}, "order_wait"),
    (OceanApproveSpendingOperator, {"spending_limit": "cheap"}, "spending_limit"),
    (
        OceanApproveSpendingOperator,
        {"dataset_dids": None, "algorithm_did": None, "publisher_conn_id": ""},
        "publisher_conn_id",
    ),
]


@pytest.fixture
def result(tmp_path):
    """The manifest of a result that can be drawn."""
    content = b"1,2\n"
    (tmp_path / "result.csv").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    artifact = Artifact("result.csv", f"file://{tmp_path}/result.csv", "output", len(content), digest)
    return Manifest("a job", None, [], [artifact]).write(ObjectStoragePath(f"file://{tmp_path}/manifest"))


def draw(results, target):
    """Draw nothing."""


@pytest.mark.parametrize(
    ("operator", "wrong", "named"),
    BAD_VALUES,
    ids=[f"{operator.__name__}-{wrong}" for operator, wrong, _ in BAD_VALUES],
)
def test_a_bad_value_is_refused_by_name(connection, context, result, operator, wrong, named):
    # Nothing listens at the connection's addresses: had anything been asked or sent, the error were another one.
    connection()
    given = {"render": f"{__name__}:draw"} if RESULT in str(wrong) else {}
    for name, value in wrong.items():
        given[name] = {RESULT: result, f"{[RESULT]}": [result]}.get(str(value), value)
    with pytest.raises(InvalidInputError) as raised:
        make(operator, **given).execute(context)
    assert named in str(raised.value)
    assert context["ti"].xcoms == {}


def test_a_picture_of_several_results_says_what_it_was_drawn_from(connection, context, result, tmp_path):
    connection()
    given = {"manifest": [result, result], "render": f"{__name__}:draw", "artifact_base": f"{tmp_path}/base"}
    task = make(OceanPlotSeveralOperator, **given)
    picture = task.execute(context)
    told = task.get_openlineage_facets_on_complete(None)
    source = f"{tmp_path}/result.csv"
    assert [(item.namespace, item.name) for item in told.inputs] == [("file", source)] * 2
    assert [(item.namespace, item.name) for item in told.outputs] == [
        ("file", picture.removeprefix("file://"))
    ]


@pytest.mark.parametrize(
    "operator", [op for op in OPERATORS if issubclass(op, OceanOptionalOperator)], ids=lambda op: op.__name__
)
def test_what_is_switched_off_is_skipped(connection, context, operator):
    connection()
    with pytest.raises(AirflowSkipException, match="switched off"):
        make(operator, enabled="False").execute(context)


# What Airflow checks itself, and text that may be any.
_OF_AIRFLOW = {
    "retries",
    "retry_delay",
    "retry_policy",
    "poke_interval",
    "timeout",
    "mode",
    "ignore_downstream_trigger_rules",
    "subject",
}
# Has a table of its own in test_hooks.py.
_CONNECTION = "ocean_conn_id"


@ALL
def test_every_argument_has_a_bad_value(operator, required):
    arguments = {
        name
        for level in operator.__mro__
        if level.__module__.startswith("airflow_ocean") and "__init__" in vars(level)
        for name, parameter in inspect.signature(level.__init__).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    refused = {name for tried, wrong, _ in BAD_VALUES if issubclass(operator, tried) for name in wrong}
    assert arguments - refused - _OF_AIRFLOW == {_CONNECTION}


@pytest.mark.parametrize(
    "operator",
    [
        op
        for op in OPERATORS
        if not issubclass(op, (OceanPlotOperator, OceanRehearseAlgorithmOperator, OceanSettlementSensor))
    ],
    ids=lambda op: op.__name__,
)
def test_a_connection_that_leads_nowhere_is_a_transient_error(connection, context, operator):
    connection()
    arguments = {"order": ORDER} if operator is OceanStartComputeOperator else {}
    with pytest.raises(ServiceUnavailableError):
        make(operator, **arguments).execute(context)


def test_templated_text_means_the_same_as_native_values():
    assert parameters.dids("x", f'["{DID}", "{OTHER_DID}"]') == parameters.dids("x", [DID, OTHER_DID])
    assert parameters.dids("x", DID) == [DID]
    assert parameters.whole_number("x", "60", least=1, most=60) == parameters.whole_number(
        "x", 60, least=1, most=60
    )
    assert parameters.json_object("x", '{"a": [1]}') == {"a": [1]}
    assert parameters.json_object("x", "null") is None
    assert (
        parameters.token_amount("x", "4.35")
        == parameters.token_amount("x", Decimal("4.35"))
        == 4350000000000000000
    )
    assert parameters.boolean("x", "True") is parameters.boolean("x", True)
    assert parameters.optional_address("x", ADDRESS.lower()) == ADDRESS


def test_links_lead_to_the_explorer_when_there_is_one(connection):
    connection({"explorer_url": "https://explorer.example/"})
    task = make(OceanPublishDatasetOperator)
    task.note_explorer_pages(transactions=["0x01", "0x02"], nft_address=ADDRESS)
    links = {link.name: link.get_link(task, ti_key=None) for link in task.operator_extra_links}
    assert links == {
        OceanTransactionLink().name: "https://explorer.example/tx/0x02",
        OceanAssetLink().name: f"https://explorer.example/address/{ADDRESS}",
    }
    connection()
    without = make(OceanPublishDatasetOperator)
    without.note_explorer_pages(transactions=["0x01"])
    assert [link.get_link(without, ti_key=None) for link in without.operator_extra_links] == ["", ""]


class Events:
    """The events of an Airflow asset, newest last, as a task sees those of its inlets."""

    def __init__(self, *extras):
        self.events = [SimpleNamespace(extra=extra, source_dag_id="d", source_run_id="r") for extra in extras]

    def ascending(self, ascending):
        assert not ascending
        return self

    def limit(self, number):
        return self.events[::-1][:number]


PAIR = {"dataset_did": DID, "algorithm_did": OTHER_DID}


def choose(context, *extras, **arguments):
    task = OceanChooseAssetsOperator(task_id="a_task", **arguments)
    assert task.inlets == [OCEAN_COMPUTABLE]
    return task.execute({**context, "inlet_events": {OCEAN_COMPUTABLE: Events(*extras)}})


@pytest.mark.parametrize("nothing", [{}, {"dataset_dids": "", "algorithm_did": "None"}, {"dataset_dids": []}])
def test_what_was_allowed_last_is_chosen_when_nothing_is_given(context, nothing):
    assert choose(context, {"dataset_did": OTHER_DID, "algorithm_did": DID}, PAIR, **nothing) == [DID]
    assert context["ti"].xcoms == {"algorithm_did": OTHER_DID}


def test_what_is_given_is_chosen(context):
    given = {"dataset_dids": f'["{OTHER_DID}"]', "algorithm_did": DID}
    assert choose(context, PAIR, **given) == [OTHER_DID]
    assert context["ti"].xcoms == {"algorithm_did": DID}


@pytest.mark.parametrize(
    ("extras", "arguments", "message"),
    [
        ([], {}, "run the DAG ocean_c2d once"),
        ([{"something": "else"}], {}, "run the DAG ocean_c2d once"),
        ([{**PAIR, "dataset_did": "did:op:1"}], {}, "dataset_did 'did:op:1' is not a DID"),
        ([PAIR], {"dataset_dids": DID}, "give both"),
        ([PAIR], {"algorithm_did": DID}, "give both"),
        ([PAIR], {"dataset_dids": "x", "algorithm_did": DID}, "is not a DID"),
    ],
)
def test_choosing_says_what_is_missing(context, extras, arguments, message):
    with pytest.raises(FatalError, match=message):
        choose(context, *extras, **arguments)


@pytest.mark.parametrize(
    ("given", "uris"),
    [
        (["file:///a", None, "file:///b"], ["file:///a", "file:///b"]),
        ('["file:///a", "file:///b"]', ["file:///a", "file:///b"]),
        # As Airflow hands over what a single mapped task has pushed.
        ("file:///a", ["file:///a"]),
        (None, []),
    ],
)
def test_the_manifests_of_several_results_are_a_list_or_one(given, uris):
    assert list(OceanPlotSeveralOperator._uris(given)) == uris
