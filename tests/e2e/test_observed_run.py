"""One run of ``ocean_c2d`` with everything optional on: S3 for artifacts and XComs, StatsD metrics, OpenLineage events."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

import pytest

from include.localnet import accounts
from include.localnet.cli import exports
from tests.support.airflow import PROJECT, airflow_environment
from tests.support.s3 import BUCKET, CONNECTION_VARIABLE, S3Server
from tests.support.statsd import StatsDListener

pytestmark = [pytest.mark.e2e, pytest.mark.both_stacks]


@dataclass
class ObservedRun:
    """A run that is over, and all that was seen of it."""

    states: dict[str, str]
    xcoms: dict[str, Any]
    output: str
    s3: S3Server
    statsd: StatsDListener
    events: list[dict[str, Any]] = field(default_factory=list)

    def completed(self, task: str) -> dict[str, Any]:
        """Return the lineage event that a task ended with."""
        ends = [
            event
            for event in self.events
            if event["eventType"] == "COMPLETE" and event["job"]["name"] == f"ocean_c2d.{task}"
        ]
        assert len(ends) == 1, [event["job"]["name"] for event in self.events]
        return ends[0]


@pytest.fixture(scope="module")
def run(localnet, with_orders, tmp_path_factory):
    home = tmp_path_factory.mktemp("observed-airflow")
    events = home / "lineage.jsonl"
    with S3Server() as s3, StatsDListener() as statsd:
        settings = {
            "CORE__XCOM_BACKEND": "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend",
            "COMMON_IO__XCOM_OBJECTSTORAGE_PATH": f"s3://ocean_s3@{BUCKET}/xcom",
            "COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD": "300",
            "METRICS__STATSD_ON": "True",
            "METRICS__STATSD_HOST": "127.0.0.1",
            "METRICS__STATSD_PORT": str(statsd.port),
            "OPENLINEAGE__TRANSPORT": json.dumps(
                {"type": "file", "log_file_path": str(events), "append": True}
            ),
        }
        base = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        environment = base | airflow_environment(home) | exports(localnet)
        environment |= {f"AIRFLOW__{name}": value for name, value in settings.items()}
        environment |= {CONNECTION_VARIABLE: s3.connection, "AIRFLOW_OCEAN_ARTIFACTS": s3.base}
        result = subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.support.observed_run",
                PROJECT / "dags",
                home / "report.json",
                json.dumps(with_orders),
            ],
            cwd=PROJECT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
        statsd.end()
        content = json.loads((home / "report.json").read_text())
        seen = [json.loads(line) for line in events.read_text().splitlines()] if events.exists() else []
        output = result.stdout + result.stderr
        yield ObservedRun(content["states"], content["xcoms"], output, s3, statsd, seen)


def test_it_succeeds(run):
    assert set(run.states.values()) - {"skipped"} == {"success"}, run.states
    assert [task for task, state in run.states.items() if state == "skipped"] == ["rehearse_algorithm"]


def test_the_artifacts_are_on_s3_and_as_the_manifest_says(run):
    def content(uri: str) -> bytes:
        prefix = f"s3://ocean_s3@{BUCKET}/"
        assert uri.startswith(prefix)
        found: bytes = run.s3.client.get_object(Bucket=BUCKET, Key=uri.removeprefix(prefix))["Body"].read()
        return found

    manifest = json.loads(content(run.xcoms["fetch_and_plot.fetch_results.manifest"]))
    assert {file["type"] for file in manifest["files"]} >= {"output", "algorithmLog"}
    for file in manifest["files"]:
        data = content(file["uri"])
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file["size"], file["sha256"])
    assert content(run.xcoms["fetch_and_plot.plot.return_value"]).startswith(b"\x89PNG")
    listed = run.s3.client.list_objects_v2(Bucket=BUCKET)["Contents"]
    assert not [item["Key"] for item in listed if item["Key"].endswith(".part")]


def test_a_large_xcom_is_on_s3_and_a_small_one_in_the_database(run):
    stored = json.dumps(run.xcoms["pay_for_compute.order"])
    assert f"s3://ocean_s3@{BUCKET}/xcom/" in stored
    assert run.xcoms["publish_dataset.return_value"].startswith("did:op:")
    keys = [item["Key"] for item in run.s3.client.list_objects_v2(Bucket=BUCKET, Prefix="xcom/")["Contents"]]
    everything = b"".join(
        run.s3.client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys
    ).decode()
    # The task that starts the job has read it back from there.
    assert run.xcoms["publish_dataset.return_value"] in everything


def test_jobs_orders_and_spending_are_counted(run):
    run.statsd.end()
    assert run.statsd.counted("ocean.jobs.started") == 1
    assert run.statsd.counted("ocean.jobs.finished") == 1
    assert run.statsd.counted("ocean.jobs.failed") is None
    assert run.statsd.counted("ocean.orders.new") == 2
    assert run.statsd.counted("ocean.orders.reused") is None
    assert run.statsd.counted("ocean.spent.gas_gwei") > 0
    # A datatoken of each asset.
    assert run.statsd.counted("ocean.spent.microtokens") == 2_000_000
    assert [line for line in run.statsd.lines if line.startswith("airflow.ocean.jobs.duration:")]


def test_the_lineage_leads_from_the_assets_to_the_picture(run):
    dataset = {"namespace": "ocean", "name": run.xcoms["publish_dataset.return_value"]}
    algorithm = {"namespace": "ocean", "name": run.xcoms["publish_algorithm.return_value"]}

    def names(event: dict[str, Any], side: str) -> list[dict[str, str]]:
        return [{key: item[key] for key in ("namespace", "name")} for item in event[side]]

    def artifact(uri: str) -> dict[str, str]:
        return {"namespace": f"s3://{BUCKET}", "name": uri.removeprefix(f"s3://ocean_s3@{BUCKET}/")}

    assert names(run.completed("publish_dataset"), "outputs") == [dataset]
    allowed = run.completed("allow_algorithm")
    assert (names(allowed, "inputs"), names(allowed, "outputs")) == ([algorithm], [dataset])
    paid = run.completed("pay_for_compute")
    assert names(paid, "inputs") == [dataset, algorithm]
    cost = paid["run"]["facets"]["ocean_cost"]
    assert int(cost["gasFeeWei"]) > 0
    assert cost["transactions"]
    fetched = run.completed("fetch_and_plot.fetch_results")
    assert names(fetched, "inputs") == [dataset, algorithm]
    assert fetched["run"]["facets"]["ocean_job"]["jobId"] == run.xcoms["wait_for_compute.return_value"]
    plotted = run.completed("fetch_and_plot.plot")
    assert names(plotted, "outputs") == [artifact(run.xcoms["fetch_and_plot.plot.return_value"])]
    assert names(plotted, "inputs")[0] in names(fetched, "outputs")


def test_no_secret_anywhere(run):
    run.statsd.end()
    everything = run.output + json.dumps([run.xcoms, run.events, run.statsd.lines])
    for account in accounts.ACCOUNTS:
        assert account.private_key[2:] not in everything
    assert "tester's secret" not in everything
