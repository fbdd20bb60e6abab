"""A sweep, a schedule and a backfill in a running Airflow: what is paid, what runs at once, and what is counted."""

from __future__ import annotations

import json
import re
import shutil
from datetime import datetime
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from airflow_ocean.c2d.assets import AssetSpec, ComputePolicy, Pricing
from airflow_ocean.c2d.client import OceanClient
from airflow_ocean.c2d.network import Network
from airflow_ocean.c2d.quotes import LEAST_LEFT
from include.localnet.accounts import ALICE, BOB
from include.localnet.ethereum import Chain
from tests.conftest import STACK
from tests.support.airflow import PROJECT
from tests.support.fault_proxy import Answer, FaultProxy, Rule
from tests.support.running_airflow import DagRun, RunningAirflow, change, project_dag
from tests.support.statsd import StatsDListener
from tests.support.waiting import wait_until
from tests.unit.c2d.conftest import CONTAINER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_ocean.c2d.jobs import Job
    from include.localnet.settings import NetworkSettings

pytestmark = [pytest.mark.e2e, pytest.mark.both_stacks, pytest.mark.long, pytest.mark.timeout(3000)]

SWEEP, RECURRING, REPORT = "ocean_c2d_sweep", "ocean_c2d_recurring", "report"
# So long a job takes, seconds: longer than Airflow needs for the next task on a busy machine.
LENGTH = 45
# The set that is wrong sinks its own member only.
SETS: list[dict[str, Any]] = [
    {**parameters, "seed": LENGTH}
    for parameters in ({"points": 20}, {"kernel": "no such kernel"}, {"points": 30})
]
AT_ONCE = 2
# A run may take this long on a busy machine, seconds.
PATIENCE = 1200
FAILED_LOOKS = 2
DATA = "branin.arff"
# In the free part of an Ocean Node's environment a job takes no orders.
TAKES_ORDERS = STACK == "provider"
NO_ORDERS = {"new": 0, "renewed": 0, "reused": 0}


# For as many seconds as its seed.
TAKE_YOUR_TIME = """
import json, pathlib, time
given = pathlib.Path("/data/inputs/algoCustomData.json")
time.sleep(json.loads(given.read_text()).get("seed", 0) if given.exists() else 0)
"""


class Shop:
    """Assets on the local network, free for everyone, at a Provider that can be made to fail.

    :param localnet: the network
    """

    def __init__(self, localnet: NetworkSettings) -> None:
        self.proxy = FaultProxy({"provider": localnet.provider_url})
        self._chain = Chain(localnet.rpc_url)
        self._network = Network(
            localnet.rpc_url,
            self.proxy.url("provider"),
            localnet.metadata_cache_url,
            address_file=str(localnet.address_file),
        )
        source = (PROJECT / "include" / "branin" / "algorithm.py").read_text()
        first = "from __future__ import annotations\n"
        assert first in source
        (localnet.files_folder / "slow_branin.py").write_text(
            source.replace(first, first + TAKE_YOUR_TIME, 1)
        )
        self._files_url = localnet.files_url
        self.algorithm = self._publish(
            "algorithm", "slow_branin.py", container=CONTAINER, pricing=Pricing.dispenser()
        )
        self.dataset = self._dataset()
        # An order that is good for no longer than a run needs is not used again.
        self.brief = self._dataset(timeout=LEAST_LEFT)
        self.fleeting = self._dataset()
        self.fleeting_algorithm = self._publish(
            "algorithm", "slow_branin.py", container=CONTAINER, pricing=Pricing.dispenser()
        )
        # Of files with one name an Ocean Node gives a job the last alone.
        shutil.copy(PROJECT / "include" / "branin" / DATA, localnet.files_folder / "other.arff")
        self.other = self._dataset("other.arff")

    def _publish(self, kind: Any, name: str, **fields: Any) -> str:
        file = {"type": "url", "url": f"{self._files_url}/{name}"}
        with OceanClient(self._network, ALICE.private_key) as alice:
            return alice.assets.publish(AssetSpec(kind, name, (file,), template=2, **fields)).did

    def _dataset(self, name: str = DATA, **fields: Any) -> str:
        trusting = ComputePolicy(open_to_all=True)
        return self._publish("dataset", name, compute=trusting, pricing=Pricing.dispenser(), **fields)

    def environment(self, *, free: bool) -> str:
        """Return the id of an environment."""
        with OceanClient(self._network, BOB.private_key) as bob:
            return next(found.id for found in bob.orders.environments() if found.is_free is free)

    def transactions(self) -> int:
        """Return how many transactions Bob has sent."""
        return int(self._chain.request("eth_getTransactionCount", BOB.address, "pending"), 16)

    def jobs(self, ids: set[str]) -> list[Job]:
        """Return some of Bob's jobs, in the order of their beginning."""
        with OceanClient(self._network, BOB.private_key) as bob:
            listed = bob.services().jobs()
        return sorted((job for job in listed if job.id in ids), key=lambda job: job.created or datetime.min)


class FailingLooks:
    """Lets the first looks at jobs of some processes fail."""

    def __init__(self, proxy: FaultProxy) -> None:
        self._proxy = proxy
        self.left = FAILED_LOOKS

    def begin(self, pids: list[int]) -> None:
        """Let the next looks of these processes fail."""
        looks = Rule(lambda request: request.describe() == "provider GET /api/services/compute", self._change)
        self._proxy.rules = [looks]
        self._proxy.watch(*pids)

    def _change(self, answer: Answer) -> Answer:
        if not self.left:
            return answer
        self.left -= 1
        return Answer(503, b"this is the fault proxy")


@pytest.fixture(scope="module")
def shop(localnet: NetworkSettings) -> Iterator[Shop]:
    made = Shop(localnet)
    yield made
    made.proxy.close()


@pytest.fixture(scope="module")
def statsd() -> Iterator[StatsDListener]:
    with StatsDListener() as listener:
        yield listener


@pytest.fixture(scope="module")
def airflow(
    localnet: NetworkSettings, statsd: StatsDListener, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningAirflow]:
    """An Airflow with the sweep, the schedule, and the DAG of docs/recurring.md that begins with each new result."""
    written = tmp_path_factory.mktemp("dags") / "report.py"
    page = (PROJECT / "docs" / "recurring.md").read_text()
    (shown,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    written.write_text(shown)
    settings = {
        "METRICS__STATSD_ON": "True",
        "METRICS__STATSD_HOST": "127.0.0.1",
        "METRICS__STATSD_PORT": str(statsd.port),
    }
    home = tmp_path_factory.mktemp("scheduled-airflow") / "home"
    airflow = RunningAirflow(localnet, home, [project_dag(SWEEP), project_dag(RECURRING), written], settings)
    try:
        airflow.start()
        airflow.wait_until_ready()
        for dag_id in (SWEEP, RECURRING, REPORT):
            airflow.wait_for_dag(dag_id)
        for dag_id in (SWEEP, REPORT):
            airflow.unpause(dag_id)
        yield airflow
    finally:
        airflow.stop()


class Counted:
    """What happened between two moments: Bob's transactions, and the counters of Airflow's metrics."""

    def __init__(self, shop: Shop, statsd: StatsDListener) -> None:
        self._shop, self._statsd = shop, statsd
        self._sent, self._sent_until = shop.transactions(), None
        self._lines, self._lines_until = len(statsd.lines), None

    def so_far(self) -> Counted:
        """Count nothing of what happens from now on."""
        self._sent_until, self._lines_until = self._shop.transactions(), len(self._statsd.lines)
        return self

    @property
    def transactions(self) -> int:
        until = self._shop.transactions() if self._sent_until is None else self._sent_until
        return until - self._sent

    def count(self, name: str) -> int:
        return self._statsd.counted(name, self._lines, self._lines_until) or 0

    def orders(self) -> dict[str, int]:
        return {way: self.count(f"ocean.orders.{way}") for way in ("new", "renewed", "reused")}

    def jobs(self) -> dict[str, int]:
        return {way: self.count(f"ocean.jobs.{way}") for way in ("started", "finished", "failed")}


@pytest.fixture
def counted(shop: Shop, statsd: StatsDListener) -> Counted:
    return Counted(shop, statsd)


def sweep(airflow: RunningAirflow, shop: Shop, **conf: Any) -> DagRun:
    """Run a sweep to its end."""
    given = {
        "dataset_dids": [shop.dataset],
        "algorithm_did": shop.algorithm,
        "parameter_sets": SETS,
        "parallel_jobs": AT_ONCE,
    }
    run = airflow.trigger(SWEEP, **{**given, **conf})
    assert run.wait_until_over(PATIENCE) == "success"
    return run


def of_members(run: DagRun, task: str, indexes: Iterable[int]) -> list[Any]:
    """Return what a task returned for some members."""
    return [run.xcom(f"member.{task}", map_index=index) for index in indexes]


@pytest.fixture(scope="module")
def swept(airflow: RunningAirflow, shop: Shop, statsd: StatsDListener) -> tuple[DagRun, Counted]:
    """The first sweep, and what it took."""
    counted = Counted(shop, statsd)
    run = sweep(airflow, shop)
    return run, counted.so_far()


def test_a_member_that_fails_sinks_no_other(swept: tuple[DagRun, Counted]) -> None:
    run, counted = swept
    waits = run.members("member.wait_for_compute")
    assert [task["state"] for task in waits] == ["success", "failed", "success"]
    assert all(task["try_number"] == 1 for task in waits), "what an algorithm refuses is not tried again"
    fetches = run.members("member.fetch_results")
    assert [task["state"] for task in fetches] == ["success", "upstream_failed", "success"]
    assert run.task("plot")["state"] == "success"
    folders = [files[0].rpartition("/")[0] for files in of_members(run, "fetch_results", (0, 2))]
    manifests = [json.loads(read(f"{folder}/manifest.json")) for folder in folders]
    assert [manifest["label"].partition(",")[0] for manifest in manifests] == [
        "points=20", "points=30",
    ]  # fmt: skip
    assert counted.jobs() == {"started": 3, "finished": 2, "failed": 1}


def test_so_many_jobs_run_at_once_as_allowed_and_are_ordered(
    shop: Shop, swept: tuple[DagRun, Counted]
) -> None:
    run, counted = swept
    jobs = shop.jobs(set(of_members(run, "start_compute", range(len(SETS)))))
    assert len(jobs) == len(SETS)
    assert most_at_once(jobs) <= AT_ONCE
    orders = of_members(run, "pay_for_compute", range(len(SETS)))
    if not TAKES_ORDERS:
        assert orders == [[]] * len(SETS)
        assert (counted.transactions, counted.orders()) == (0, NO_ORDERS)
        return
    # The dataset's order serves all members; the algorithm is ordered as often as jobs may run at once: whoever pays while
    # another member has an order takes a second one, and a third is not allowed.
    assert len({dataset for dataset, _ in orders}) == 1
    assert len({algorithm for _, algorithm in orders}) == AT_ONCE
    assert counted.transactions == 1 + AT_ONCE
    assert counted.orders() == {"new": 1 + AT_ONCE, "renewed": 0, "reused": 2 * len(SETS) - 1 - AT_ONCE}
    assert counted.count("ocean.spent.gas_gwei") > 0


@pytest.mark.parametrize("one_job_per_dataset", [True, False])
def test_several_datasets_are_inputs_of_one_job_or_have_one_each(
    airflow: RunningAirflow,
    shop: Shop,
    swept: tuple[DagRun, Counted],
    counted: Counted,
    one_job_per_dataset: bool,
) -> None:
    both = [shop.dataset, shop.other]
    run = sweep(
        airflow,
        shop,
        dataset_dids=both,
        parameter_sets=[{"points": 20}],
        one_job_per_dataset=one_job_per_dataset,
    )
    expected = [(did,) for did in both] if one_job_per_dataset else [tuple(both)]
    jobs = shop.jobs(set(of_members(run, "start_compute", range(len(expected)))))
    assert sorted(job.dataset_dids for job in jobs) == sorted(expected)
    # What was ordered before is used again.
    assert counted.transactions == int(one_job_per_dataset and TAKES_ORDERS), "the other dataset, once"
    assert counted.orders()["new"] == counted.transactions


def most_at_once(jobs: list[Job]) -> int:
    """Return how many of some jobs were unfinished at the same moment."""
    changes = [(job.created, 1) for job in jobs] + [(job.finished, -1) for job in jobs]
    assert all(moment for moment, _ in changes)
    running = most = 0
    # Whoever ends in the same instant in which another one begins has ended.
    for _, difference in sorted(changes, key=lambda item: (item[0] or datetime.min, item[1])):
        running += difference
        most = max(most, running)
    return most


def read(uri: str) -> str:
    with open(uri.removeprefix("file://")) as file:
        return file.read()


def runs_of(airflow: RunningAirflow, kind: str) -> list[DagRun]:
    listed = airflow.request("GET", f"/api/v2/dags/{RECURRING}/dagRuns?run_type={kind}")["dag_runs"]
    return [DagRun(airflow, RECURRING, run["dag_run_id"]) for run in listed]


def set_variables(airflow: RunningAirflow, **values: Any) -> None:
    for name, value in values.items():
        text = value if isinstance(value, str) else json.dumps(value)
        body = {"key": f"ocean_{name}", "value": text}
        path = f"/api/v2/variables/{body['key']}"
        if airflow.find(path) is None:
            airflow.request("POST", "/api/v2/variables", json=body)
        else:
            airflow.request("PATCH", path, json=body)


@pytest.fixture(scope="module")
def scheduled(
    airflow: RunningAirflow, shop: Shop, statsd: StatsDListener, swept: tuple[DagRun, Counted]
) -> tuple[DagRun, Counted]:
    """The run of the hour that is over, which begins when the schedule is switched on; the first looks at its job fail."""
    set_variables(
        airflow,
        dataset_dids=[shop.dataset],
        algorithm_did=shop.algorithm,
        environment=shop.environment(free=True),
        custom_data={"points": 25, "seed": LENGTH},
    )
    counted = Counted(shop, statsd)
    failing = FailingLooks(shop.proxy)
    triggerer = psutil.Process(airflow.components["triggerer"].pid)
    failing.begin([triggerer.pid, *(child.pid for child in triggerer.children(recursive=True))])
    airflow.unpause(RECURRING)
    (run, *_) = wait_until(lambda: runs_of(airflow, "scheduled"), "the schedule has begun a run")
    assert run.wait_until_over(PATIENCE) == "success"
    shop.proxy.watch()
    assert failing.left == 0
    return run, counted.so_far()


def test_a_scheduled_run_takes_variables_and_uses_the_orders_of_the_sweep(
    scheduled: tuple[DagRun, Counted], shop: Shop
) -> None:
    run, counted = scheduled
    assert run.xcom("choose_assets") == [shop.dataset]
    assert run.xcom("choose_assets", "algorithm_did") == shop.algorithm
    assert run.xcom("pay_for_compute", "order")["environment"] == shop.environment(free=True)
    assert json.loads(run.task("start_compute")["rendered_fields"]["custom_data"]) == {
        "points": 25, "seed": LENGTH,
    }  # fmt: skip
    assert run.xcom("pay_for_compute", "cost")["transactions"] == []
    assert counted.transactions == 0


def test_failed_looks_at_a_job_are_counted_and_waited_out(scheduled: tuple[DagRun, Counted]) -> None:
    run, counted = scheduled
    assert counted.count("ocean.poll_errors") == FAILED_LOOKS
    assert run.log("wait_for_compute", 1).count("Cannot see job") == FAILED_LOOKS
    assert run.task("wait_for_compute")["try_number"] == 1


@pytest.fixture
def backfilled(airflow: RunningAirflow, shop: Shop, scheduled: tuple[DagRun, Counted]) -> list[DagRun]:
    """The runs of three hours that are long over; on an Ocean Node they are paid, as nothing runs out in its free part."""
    set_variables(airflow, dataset_dids=[shop.brief], custom_data={"points": 25})
    interval = {"from_date": "2025-03-01T10:00:00+01:00", "to_date": "2025-03-01T12:00:00+01:00"}
    paid = {"environment": shop.environment(free=False), "duration": 120, "spending_limit": "100"}
    # The scheduler of Airflow 3.3.2 ends when a backfill is taken back whose runs it looks at, as when SQLite is locked.
    change(airflow, "PATCH", f"/api/v2/dags/{RECURRING}", {"is_paused": True})
    conf = {} if TAKES_ORDERS else {"dag_run_conf": paid}
    change(airflow, "POST", "/api/v2/backfills", {"dag_id": RECURRING, **interval, **conf})
    airflow.unpause(RECURRING)
    runs = wait_until(lambda: (found := runs_of(airflow, "backfill"))[2:] and found, "the backfill has begun")
    assert [run.wait_until_over(PATIENCE) for run in runs] == ["success"] * 3
    return runs


def test_a_backfill_pays_once_per_interval_what_has_run_out(
    shop: Shop, swept: tuple[DagRun, Counted], counted: Counted, backfilled: list[DagRun]
) -> None:
    runs = backfilled
    paid = [run.xcom("pay_for_compute") for run in runs]
    costs = [run.xcom("pay_for_compute", "cost") for run in runs]
    assert len({dataset for dataset, _ in paid}) == 3
    # Whose deposit another run's job was paid out of fills it up when it starts its own.
    filled_up = [xcoms["cost"] for run in runs if "cost" in (xcoms := run.xcoms("start_compute"))]
    assert counted.transactions == sum(len(cost["transactions"]) for cost in costs + filled_up)
    assert counted.jobs() == {"started": 3, "finished": 3, "failed": 0}
    jobs = shop.jobs({run.xcom("start_compute") for run in runs})
    if TAKES_ORDERS:
        for cost in costs:
            assert len(cost["transactions"]) == 1
            assert list(cost["datatokens"].values()) == [1]
        assert counted.orders() == NO_ORDERS | {"new": 3, "reused": 3}
        # They share the algorithm's orders of the sweep, each of which has one job at a time.
        ordered = of_members(swept[0], "pay_for_compute", range(len(SETS)))
        assert {algorithm for _, algorithm in paid} <= {algorithm for _, algorithm in ordered}
        for order in {job.agreement_id for job in jobs}:
            assert most_at_once([job for job in jobs if job.agreement_id == order]) == 1
    else:
        # Whoever pays first orders the algorithm for all; each job has a payment of its own.
        assert len({algorithm for _, algorithm in paid}) == 1
        assert counted.orders() == NO_ORDERS | {"new": 4, "reused": 2}
        assert len({job.payment.escrow_job for job in jobs if job.payment}) == 3


@pytest.mark.skipif(STACK == "node", reason="an Ocean Node's orders are not for a time in an environment")
def test_a_fee_whose_time_is_over_is_renewed_and_counted(
    airflow: RunningAirflow, shop: Shop, scheduled: tuple[DagRun, Counted], statsd: StatsDListener
) -> None:
    # A fee that is paid for no longer than a run needs is paid anew by the next one.
    conf = {
        "dataset_dids": [shop.fleeting],
        "algorithm_did": shop.fleeting_algorithm,
        "duration": LEAST_LEFT - 1,
        "custom_data": {"points": 25},
    }
    expected = [(NO_ORDERS | {"new": 2}, 2), (NO_ORDERS | {"renewed": 1, "reused": 1}, 1)]
    for orders, transactions in expected:
        counted = Counted(shop, statsd)
        run = airflow.trigger(RECURRING, **conf)
        assert run.wait_until_over(PATIENCE) == "success"
        assert counted.orders() == orders
        assert counted.transactions == transactions


def test_a_scheduled_run_asks_before_it_spends_and_a_rejection_costs_nothing(
    airflow: RunningAirflow, shop: Shop, scheduled: tuple[DagRun, Counted], counted: Counted
) -> None:
    # The limit of this DAG is 0 unless somebody says otherwise.
    run = airflow.trigger(
        RECURRING,
        dataset_dids=[shop.dataset],
        algorithm_did=shop.algorithm,
        environment=shop.environment(free=False),
    )
    run.wait_for_state("approve_spending", "awaiting_input", timeout=PATIENCE)
    run.answer("approve_spending", "Reject")
    assert run.wait_until_over(PATIENCE) == "success"
    states = {name: task["state"] for name, task in run.tasks().items()}
    assert (states.pop("choose_assets"), states.pop("approve_spending")) == ("success", "success")
    assert set(states.values()) == {"skipped"}
    assert counted.transactions == 0


def test_each_new_result_begins_a_run_of_another_dag(
    airflow: RunningAirflow, scheduled: tuple[DagRun, Counted]
) -> None:
    run, _ = scheduled
    manifest = run.xcom("fetch_and_plot.fetch_results", "manifest")
    path = f"/api/v2/dags/{REPORT}/dagRuns"

    def begun() -> DagRun | None:
        for listed in airflow.request("GET", path)["dag_runs"]:
            events = airflow.request("GET", f"{path}/{listed['dag_run_id']}/upstreamAssetEvents")[
                "asset_events"
            ]
            if run.run_id in {event["source_run_id"] for event in events}:
                return DagRun(airflow, REPORT, listed["dag_run_id"])
        return None

    report = wait_until(begun, "the result has begun a run")
    assert report
    assert report.wait_until_over(PATIENCE) == "success"
    assert manifest in report.log("read", 1)
