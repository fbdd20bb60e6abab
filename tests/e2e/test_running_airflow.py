"""The DAG through a whole running Airflow: scheduler, triggerer, dag-processor and API server, triggered over REST."""

from __future__ import annotations

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_ocean.c2d.units import parse_units
from include.demo.airflow import Airflow
from include.demo.environment import airflow_environment, choose_port
from include.demo.interrupts import Teardown
from include.demo.up import set_connections
from include.localnet import accounts
from include.localnet.cli import exports
from include.localnet.ethereum import Chain
from tests.conftest import STACK
from tests.support.airflow import PROJECT
from tests.support.leftovers import marked_processes, new_mark
from tests.support.running_airflow import DagRun, change
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from include.localnet.settings import NetworkSettings

pytestmark = [pytest.mark.e2e, pytest.mark.both_stacks]

DAG = "/api/v2/dags/ocean_c2d"
TASKS = {
    "approve_spending",
    "publish_dataset",
    "publish_algorithm",
    "allow_algorithm",
    "transfer_datatokens",
    "pay_for_compute",
    "start_compute",
    "wait_for_compute",
    "fetch_and_plot.fetch_results",
    "fetch_and_plot.plot",
}


@pytest.fixture(scope="module")
def airflow(localnet: NetworkSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """An Airflow as `make up` runs it; when the module is through, nothing of it may be left."""
    home = tmp_path_factory.mktemp("a running airflow")
    mark = new_mark()
    base = {**os.environ, **mark, "AIRFLOW_OCEAN_ARTIFACTS": str(home / "artifacts")}
    environment = airflow_environment(home, port=choose_port(28080), base=base)
    environment["OCEAN_FILES_URL"] = localnet.files_url
    airflow = Airflow(environment, home, Teardown())
    try:
        airflow.start()
        airflow.wait_until_ready()
        airflow.wait_for_dag("ocean_c2d")
        yield airflow
    finally:
        airflow.stop()
    assert marked_processes(mark) == []


@pytest.fixture(scope="module")
def connections(airflow: Airflow, localnet: NetworkSettings) -> dict[str, Any]:
    """The connections of the UI, after somebody has pointed one of them elsewhere."""
    elsewhere = {"connection_id": "ocean_carlos", "conn_type": "ocean", "host": "https://rpc.example"}
    airflow.request("POST", "/api/v2/connections", json=elsewhere)
    stale = {"connection_id": "ocean_bob", "conn_type": "ocean", "host": "http://127.0.0.1:1"}
    airflow.request("POST", "/api/v2/connections", json=stale)
    variables = exports(localnet)
    variables["AIRFLOW_CONN_OCEAN_CARLOS"] = variables["AIRFLOW_CONN_OCEAN_BOB"]
    assert set_connections(airflow, variables) == ["ocean_carlos"]
    listed = airflow.request("GET", "/api/v2/connections")["connections"]
    return {connection["connection_id"]: connection for connection in listed}


def test_requests_that_write_at_once_do_not_lock_the_database(airflow: Airflow) -> None:
    runs = "/api/v2/dags/ocean_escrow/dagRuns"

    def trigger_and_delete(_number: int) -> str:
        run_id: str = airflow.request("POST", runs, json={"logical_date": None})["dag_run_id"]
        airflow.request("DELETE", f"{runs}/{run_id}")
        return run_id

    # The DAG is paused: nothing of these runs begins.
    airflow.wait_for_dag("ocean_escrow")
    with ThreadPoolExecutor(8) as threads:
        run_ids = set(threads.map(trigger_and_delete, range(40)))
    assert len(run_ids) == 40
    assert airflow.request("GET", runs)["dag_runs"] == []


class Run:
    """A DAG run and the states that its tasks were seen in."""

    def __init__(self, airflow: Airflow, **conf: Any) -> None:
        started = airflow.request("POST", f"{DAG}/dagRuns", json={"logical_date": None, "conf": conf})
        self._airflow = airflow
        self.path = f"{DAG}/dagRuns/{started['dag_run_id']}"
        self.seen: dict[str, list[str]] = {}
        self.question: dict[str, Any] = {}

    def is_over(self) -> str | None:
        for task in self._airflow.request("GET", f"{self.path}/taskInstances")["task_instances"]:
            states = self.seen.setdefault(task["task_id"], [])
            if not states or states[-1] != task["state"]:
                states.append(task["state"])
        state = self._airflow.request("GET", self.path)["state"]
        return state if state in ("success", "failed") else None

    def xcom(self, task: str, key: str = "return_value") -> Any:
        entry = self._airflow.request("GET", f"{self.path}/taskInstances/{task}/xcomEntries/{key}")
        return entry["value"]

    def asked(self) -> dict[str, Any]:
        """Wait for the question that the run asks, and return it as the UI gets it."""
        path = f"{self.path}/taskInstances/approve_spending"

        def waiting() -> bool:
            self.is_over()
            return bool(self._airflow.request("GET", path)["state"] == "awaiting_input")

        wait_until(waiting, "the run asks for an approval", timeout=90)
        self.is_over()
        question: dict[str, Any] = self._airflow.request("GET", f"{path}/-1/hitlDetails")
        return question

    def answer(self, option: str) -> None:
        """Answer it."""
        DagRun(self._airflow, "ocean_c2d", self.path.rpartition("/")[2]).answer("approve_spending", option)

    def log(self, task: str) -> str:
        return json.dumps(self.log_lines(task))

    def log_lines(self, task: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._airflow.request(
            "GET", f"{self.path}/taskInstances/{task}/logs/1"
        )["content"]
        return found


@pytest.fixture(scope="module")
def run(
    airflow: Airflow, connections: dict[str, Any], localnet: NetworkSettings, with_orders: dict[str, Any]
) -> Run:
    # So many points take so long that the job is not over when the sensor looks first.
    header, mark, rows = (PROJECT / "include/branin/branin.arff").read_text().partition("@data\n")
    localnet.files_folder.mkdir(parents=True, exist_ok=True)
    (localnet.files_folder / "many.arff").write_text(header + mark + 5 * rows)
    long = {"dataset_url": f"{localnet.files_url}/many.arff", "custom_data": {"points": 700}}
    airflow.unpause("ocean_c2d")
    # Any gas at all is above this limit.
    run = Run(airflow, spending_limit='{"gas": "0"}', **long, **with_orders)
    run.question = run.asked()
    run.answer("Approve")
    assert wait_until(run.is_over, "the run is over", timeout=300) == "success", run.seen
    return run


def test_the_connections_are_there_and_hide_their_keys(connections: dict[str, Any], localnet) -> None:
    assert connections["ocean_alice"]["conn_type"] == "ocean"
    assert connections["ocean_bob"]["host"] == connections["ocean_alice"]["host"] == localnet.rpc_url
    assert json.loads(connections["ocean_bob"]["extra"])["provider_url"] == localnet.provider_url
    assert connections["ocean_carlos"]["host"] == "https://rpc.example"
    for connection in connections.values():
        assert connection["password"] in (None, "***")


def test_every_task_succeeds(run: Run) -> None:
    states = {task: states[-1] for task, states in run.seen.items()}
    assert states.pop("rehearse_algorithm") == "skipped"  # it was not asked for
    assert states == dict.fromkeys(TASKS, "success")


def test_a_person_was_asked_before_anything_was_spent(run: Run, localnet) -> None:
    assert run.question["options"] == ["Approve", "Reject"]
    body = run.question["body"]
    for said in (
        "Publish the dataset",
        accounts.ALICE.address,
        accounts.BOB.address,
        "Above the limit",
        "holds",
    ):
        assert said in body
    assert run.seen["approve_spending"].index("awaiting_input") < len(run.seen["approve_spending"]) - 1
    assert run.xcom("approve_spending", "answered_by") == "admin"
    approved = run.xcom("approve_spending")
    assert run.xcom("pay_for_compute", "cost")["gas_used"] > 0
    assert int(run.xcom("pay_for_compute", "cost")["gas_fee_wei"]) <= parse_units(approved["gas"])


def test_a_rejection_ends_the_run_without_a_transaction(
    run: Run, airflow: Airflow, localnet: NetworkSettings, with_orders: dict[str, Any]
) -> None:
    chain = Chain(localnet.rpc_url)

    def sent() -> list[str]:
        return [
            chain.request("eth_getTransactionCount", account.address, "pending")
            for account in (accounts.ALICE, accounts.BOB)
        ]

    before = sent()
    # An hour costs 60 OCEAN, more than may be spent without asking.
    paid = with_orders.get("environment", "ocean-compute-env2")
    rejected = Run(airflow, environment=paid)
    assert "60 OCEAN, the limit is 10" in rejected.asked()["body"]
    rejected.answer("Reject")
    assert wait_until(rejected.is_over, "the run is over", timeout=90) == "success"
    states = {task: states[-1] for task, states in rejected.seen.items()}
    assert states.pop("approve_spending") == "success"
    assert states == dict.fromkeys(TASKS - {"approve_spending"} | {"rehearse_algorithm"}, "skipped")
    assert sent() == before


def test_the_wait_is_deferred_to_the_triggerer(run: Run) -> None:
    assert "deferred" in run.seen["wait_for_compute"]
    # What happened on the triggerer is in the task's log, as the UI shows it.
    log = run.log("wait_for_compute")
    assert "Trigger fired event" in log
    assert run.xcom("start_compute") in log
    states = run.xcom("wait_for_compute", "states")
    # An Ocean Node's job has its results before it is settled.
    assert states[-1]["state"] in (70, 71)
    assert [entry["at"] for entry in states] == sorted(entry["at"] for entry in states)


def test_the_logs_can_be_followed(run: Run) -> None:
    lines = {task: run.log_lines(task) for task in TASKS}
    said = {task: [str(line["event"]) for line in found] for task, found in lines.items()}
    paying = (
        "publish_dataset",
        "publish_algorithm",
        "allow_algorithm",
        "transfer_datatokens",
        "pay_for_compute",
    )
    for task in paying:
        transactions = run.xcom(task, "cost")["transactions"]
        assert transactions
        for sent in transactions:
            mined = re.compile(rf".+: transaction {sent} is in block [1-9][0-9]*, gas [1-9][0-9]*")
            assert len([line for line in said[task] if mined.fullmatch(line)]) == 1, said[task]
    for task in ("publish_dataset", "publish_algorithm"):
        assert any(run.xcom(task) in line for line in said[task])
    for did in (run.xcom("publish_dataset"), run.xcom("publish_algorithm")):
        assert any(line.startswith(f"order {did}: transaction ") for line in said["pay_for_compute"])
    job = run.xcom("start_compute")
    assert any(line.startswith(f"Started job {job}") for line in said["start_compute"])
    for state in run.xcom("wait_for_compute", "states"):
        seen = re.compile(rf"Compute .*{job}.*{re.escape(state['text'])}.*, after [0-9.]+ s")
        assert any(seen.fullmatch(line) for line in said["wait_for_compute"]), (
            state,
            said["wait_for_compute"],
        )
    manifest = json.loads(
        Path(run.xcom("fetch_and_plot.fetch_results", "manifest").removeprefix("file://")).read_text()
    )
    for file in manifest["files"]:
        fetched = f"Fetched {file['type']} {file['name']!r}, {file['size']} bytes, to "
        assert any(line.startswith(fetched) for line in said["fetch_and_plot.fetch_results"])
    # ocean-lib prints and logs what it signs and sends, and everything else that it does.
    for task, found in lines.items():
        for line in found:
            logger = str(line.get("logger") or "")
            assert not logger.startswith(("task.stdout", "task.stderr", "ocean_lib", "web3")), (task, line)
            assert len(str(line["event"])) < 2000, (task, line)


def test_the_artifacts_are_below_the_base(run: Run, airflow: Airflow) -> None:
    base = Path(airflow.environment["AIRFLOW_OCEAN_ARTIFACTS"])
    plot = Path(run.xcom("fetch_and_plot.plot").removeprefix("file://"))
    assert plot.is_relative_to(base / "ocean_c2d")
    assert plot.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    results = [Path(uri.removeprefix("file://")) for uri in run.xcom("fetch_and_plot.fetch_results")]
    assert results
    assert all(path.is_relative_to(base) and path.stat().st_size for path in results)


def test_all_listens_on_the_loopback_interface_only(run: Run, airflow: Airflow) -> None:
    import psutil

    leaders = [psutil.Process(process.pid) for process in airflow.components.values()]
    family = [child for leader in leaders for child in (leader, *leader.children(recursive=True))]
    listening = {
        connection.laddr
        for process in family
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {address.ip for address in listening} == {"127.0.0.1"}


@pytest.mark.skipif(
    STACK == "node", reason="an Ocean Node's jobs do not have to wait for each other's orders"
)
def test_a_backfill_uses_the_orders_of_the_run_before_one_job_after_the_other(
    run: Run, airflow: Airflow
) -> None:
    dag_id = "ocean_c2d_recurring"
    airflow.wait_for_dag(dag_id)
    interval = {"from_date": "2025-03-01T10:00:00+01:00", "to_date": "2025-03-01T11:00:00+01:00"}
    # Airflow takes a backfill back when SQLite is locked; its scheduler ends when it looks at one of its runs meanwhile.
    change(airflow, "POST", "/api/v2/backfills", {"dag_id": dag_id, **interval})
    airflow.unpause(dag_id)
    path = f"/api/v2/dags/{dag_id}/dagRuns"

    def over() -> list[dict[str, Any]] | None:
        listed: list[dict[str, Any]] = airflow.request("GET", path)["dag_runs"]
        past = [found for found in listed if found["run_type"] == "backfill"]
        assert all(found["state"] != "failed" for found in listed), listed
        return past if len(past) == 2 and all(found["state"] == "success" for found in listed) else None

    # Both begin at once, and one for the hour that is just over: the second and the third wait for the order.
    past = wait_until(over, "the backfill is over", timeout=300)
    assert past
    starts = sorted(found["data_interval_start"] for found in past)
    assert starts == ["2025-03-01T09:00:00Z", "2025-03-01T10:00:00Z"]
    jobs = set()
    for found in past:
        task = f"{path}/{found['dag_run_id']}/taskInstances"
        values = {
            name: airflow.request("GET", f"{task}/{name}/xcomEntries/{key}")["value"]
            for name, key in (("pay_for_compute", "return_value"), ("start_compute", "return_value"))
        }
        cost = airflow.request("GET", f"{task}/pay_for_compute/xcomEntries/cost")["value"]
        assert values["pay_for_compute"] == run.xcom("pay_for_compute")
        assert (cost["transactions"], cost["gas_used"]) == ([], 0)
        jobs.add(values["start_compute"])
    assert len(jobs) == 2
    # Whoever has paid has claimed the order: the next one's payment waits until its job is started.
    times = []
    for found in airflow.request("GET", path)["dag_runs"]:
        task = f"{path}/{found['dag_run_id']}/taskInstances"
        times.append(
            [
                datetime.fromisoformat(airflow.request("GET", f"{task}/{name}")["end_date"])
                for name in ("pay_for_compute", "start_compute")
            ]
        )
    times.sort()
    assert all(started <= paid for (_, started), (paid, _) in pairwise(times)), times
