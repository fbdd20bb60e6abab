"""The DAGs ``ocean_c2d_recurring`` and ``ocean_c2d_sweep`` run for real, after ``ocean_c2d`` has published."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_ocean.c2d.quotes import LEAST_LEFT
from include.localnet import accounts
from include.localnet.cli import exports
from include.localnet.ethereum import Chain
from tests.conftest import STACK
from tests.support.answering import DEFERS, answering, whenever
from tests.support.asset_state import StoredOrders
from tests.support.gas import set_base_fee
from tests.unit.c2d.conftest import CONTAINER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from include.localnet.settings import NetworkSettings
    from tests.e2e.conftest import FinishedRun

pytestmark = [pytest.mark.e2e, pytest.mark.both_stacks]

NOTHING: dict[str, Any] = {
    "tokens": {}, "fees": {}, "datatokens": {}, "gas_used": 0, "gas_fee_wei": "0", "transactions": [],
    "deposited": {}, "locked": {},
}  # fmt: skip


def check_that_nothing_was_ordered(cost: dict[str, Any]) -> None:
    """Check a cost record of a run whose orders were paid before.

    An Ocean Node's job is paid for by itself all the same: what it may cost, less what of earlier deposits is left, is
    approved and deposited, and the node authorized to lock it while it still holds earlier locks.
    """
    if STACK == "node":
        (locked,) = cost["locked"].values()
        assert int(locked) == 2 * 10**18
        assert all(0 < int(deposited) <= int(locked) for deposited in cost["deposited"].values())
        assert len(cost["transactions"]) <= (3 if cost["deposited"] else 1)
        cost = {**cost, **{name: NOTHING[name] for name in ("locked", "deposited", "transactions")}}
        cost |= {name: NOTHING[name] for name in ("gas_used", "gas_fee_wei")}
    assert cost == NOTHING


def path_of(uri: str) -> Path:
    assert uri.startswith("file:///")
    return Path(uri.removeprefix("file://"))


def events_of(name: str, run_id: str) -> list[dict[str, Any]]:
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session

    with create_session() as session:
        rows = session.query(AssetEvent).join(AssetModel, AssetModel.id == AssetEvent.asset_id)
        return [row.extra for row in rows.filter(AssetModel.name == name, AssetEvent.source_run_id == run_id)]


def rendered(dag_id: str, run_id: str, task_id: str) -> dict[str, Any]:
    from airflow.models.renderedtifields import RenderedTaskInstanceFields
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    with create_session() as session:
        instance = session.query(TaskInstance).filter_by(dag_id=dag_id, run_id=run_id, task_id=task_id).one()
        return RenderedTaskInstanceFields.get_templated_fields(instance, session=session) or {}


@pytest.fixture(scope="module")
def bobs_transactions(localnet: NetworkSettings) -> Callable[[], int]:
    chain = Chain(localnet.rpc_url)
    return lambda: int(chain.request("eth_getTransactionCount", accounts.BOB.address, "latest"), 16)


@pytest.fixture(scope="module")
def published(
    run_dag: Callable[..., FinishedRun],
    with_orders: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_OCEAN_ARTIFACTS", str(tmp_path_factory.mktemp("artifacts")))
        run = run_dag("ocean_c2d", dataset_name="Published once", amount="8", **with_orders)
        assert run.states.pop("rehearse_algorithm") == "skipped"
        assert set(run.states.values()) == {"success"}, run.states
        yield run


def test_publishing_and_results_are_airflow_assets(published: FinishedRun) -> None:
    dataset, algorithm = (
        published.xcoms[task]["return_value"] for task in ("publish_dataset", "publish_algorithm")
    )
    assert [event["did"] for event in events_of("ocean_dataset", published.run_id)] == [dataset]
    assert [event["did"] for event in events_of("ocean_algorithm", published.run_id)] == [algorithm]
    assert events_of("ocean_computable", published.run_id) == [
        {"dataset_did": dataset, "algorithm_did": algorithm}
    ]
    fetched = published.xcoms["fetch_and_plot.fetch_results"]
    assert events_of("ocean_result", published.run_id) == [
        {
            "job_id": published.xcoms["start_compute"]["return_value"],
            "manifest": fetched["manifest"],
            "artifacts": fetched["return_value"],
        }
    ]


def test_runs_cost_nothing_as_long_as_the_orders_are_good(
    published: FinishedRun,
    run_dag: Callable[..., FinishedRun],
    with_orders: dict[str, Any],
    bobs_transactions: Callable[[], int],
) -> None:
    before, sent = bobs_transactions(), 0
    jobs = [published.xcoms["start_compute"]["return_value"]]
    seeds = []
    # Two past intervals, as a backfill runs them, and one run more.
    for day in (3, 4, None):
        date = None if day is None else datetime(2025, 3, day, 12, tzinfo=UTC)
        run = run_dag("ocean_c2d_recurring", logical_date=date, spending_limit="10", **with_orders)
        assert set(run.states.values()) == {"success"}, run.states
        assert run.xcoms["choose_assets"]["return_value"] == [
            published.xcoms["publish_dataset"]["return_value"]
        ]
        lines = run.xcoms["approve_spending"]["quote"]["lines"]
        assert (lines == []) == (STACK == "provider"), lines
        pay = run.xcoms["pay_for_compute"]
        assert pay["return_value"] == published.xcoms["pay_for_compute"]["return_value"]
        check_that_nothing_was_ordered(pay["cost"])
        sent += len(pay["cost"]["transactions"])
        manifest = json.loads(path_of(run.xcoms["fetch_and_plot.fetch_results"]["manifest"]).read_text())
        assert manifest["cost"]["transactions"] == pay["cost"]["transactions"]
        assert [event["job_id"] for event in events_of("ocean_result", run.run_id)] == [manifest["job_id"]]
        jobs.append(manifest["job_id"])
        seeds.append(rendered("ocean_c2d_recurring", run.run_id, "start_compute")["custom_data"])
        assert path_of(run.xcoms["fetch_and_plot.plot"]["return_value"]).read_bytes().startswith(b"\x89PNG")
    assert bobs_transactions() - before == sent
    assert len(set(jobs)) == 4
    # The hour that ends at noon began at eleven.
    assert json.loads(seeds[0]) == {"seed": int(datetime(2025, 3, 3, 11, tzinfo=UTC).timestamp())}
    assert len(set(seeds)) == 3


def test_params_come_before_variables_and_both_before_what_was_published_last(
    published: FinishedRun, run_dag: Callable[..., FinishedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, algorithm = (
        published.xcoms[task]["return_value"] for task in ("publish_dataset", "publish_algorithm")
    )
    monkeypatch.setenv("AIRFLOW_VAR_OCEAN_DATASET_DIDS", json.dumps([dataset]))
    monkeypatch.setenv("AIRFLOW_VAR_OCEAN_ALGORITHM_DID", "did:op:" + "0" * 64)
    monkeypatch.setenv("AIRFLOW_VAR_OCEAN_CUSTOM_DATA", '{"points": 30}')
    run = run_dag(
        "ocean_c2d_recurring", algorithm_did=algorithm, custom_data={"from": "{data_interval_start}"}
    )
    assert run.xcoms["choose_assets"] == {"return_value": [dataset], "algorithm_did": algorithm}
    # This algorithm knows no such parameter, and says so.
    assert run.states["start_compute"] == "success"
    assert run.states["wait_for_compute"] == "failed"
    custom_data = json.loads(rendered("ocean_c2d_recurring", run.run_id, "start_compute")["custom_data"])
    assert datetime.fromisoformat(custom_data["from"]).minute == 0
    wrong = run_dag("ocean_c2d_recurring")
    assert wrong.xcoms["choose_assets"]["algorithm_did"] == "did:op:" + "0" * 64
    assert wrong.states["approve_spending"] == "failed"
    assert wrong.states["pay_for_compute"] == "upstream_failed"


def test_a_sweep_plots_what_succeeds_and_orders_no_more_than_runs_at_once(
    published: FinishedRun,
    run_dag: Callable[..., FinishedRun],
    with_orders: dict[str, Any],
    bobs_transactions: Callable[[], int],
) -> None:
    before = bobs_transactions()
    sets = [{"points": 20}, {"kernel": "no such kernel"}, {"points": 60}]
    params = {"parallel_jobs": 3, "max_cost": "10", **with_orders}
    sweep = run_dag("ocean_c2d_sweep", parameter_sets=sets, **params)
    assert [sweep.states[f"member.wait_for_compute[{index}]"] for index in range(3)] == [
        "success",
        "failed",
        "success",
    ]
    assert sweep.states["plot"] == "success"
    assert path_of(sweep.xcoms["plot"]["return_value"]).read_bytes().startswith(b"\x89PNG")
    paid = [sweep.xcoms[f"member.pay_for_compute[{index}]"] for index in range(3)]
    orders = [pay["return_value"] for pay in paid]
    assert published.xcoms["pay_for_compute"]["return_value"] in orders
    assert len({dataset for dataset, _ in orders}) == 1
    if STACK == "node":
        # Any number of jobs may share an order.
        assert len({algorithm for _, algorithm in orders}) == 1
        for pay in paid:
            check_that_nothing_was_ordered(pay["cost"])
    else:
        # dag.test() pays for all members before it starts the first job, so each has an order of the algorithm to itself;
        # that of whichever comes first is the one that ocean_c2d has paid, whose dataset's order all of them share.
        assert len({algorithm for _, algorithm in orders}) == 3
        assert bobs_transactions() - before == 2
    # On an Ocean Node, who starts a job after another one was paid out of the same deposit fills it up.
    starts = [sweep.xcoms[f"member.start_compute[{index}]"] for index in range(3)]
    costs = [xcoms["cost"] for xcoms in (*paid, *starts) if "cost" in xcoms]
    assert bobs_transactions() - before == sum(len(cost["transactions"]) for cost in costs)
    labels = {
        json.loads(path_of(values["manifest"]).read_text())["label"]
        for task, values in sweep.xcoms.items()
        if task.startswith("member.fetch_results")
    }
    assert labels == {"points=20", "points=60"}
    # The next sweep finds as many orders as it needs.
    again = run_dag("ocean_c2d_sweep", parameter_sets=sets[::2], **params)
    assert set(again.states.values()) == {"success"}, again.states
    for index in range(2):
        check_that_nothing_was_ordered(again.xcoms[f"member.pay_for_compute[{index}]"]["cost"])


# A Provider's fee that is paid for no longer than a run needs is paid anew by the next one.
BRIEFLY = {"environment": "ocean-compute-env2", "duration": LEAST_LEFT - 1}


@pytest.fixture
def chain(localnet: NetworkSettings) -> Iterator[Chain]:
    """The chain, at 20 gwei; the usual price comes back afterwards."""
    found = Chain(localnet.rpc_url)
    set_base_fee(found, "20")
    yield found
    set_base_fee(found, "1")


def test_what_was_approved_is_paid_although_gas_has_become_dearer(
    published: FinishedRun, run_dag: Callable[..., FinishedRun], with_orders: dict[str, Any], chain: Chain
) -> None:
    # Nobody limits gas; then somebody does, and a fee whose time is over has to be renewed.
    for limit, later, minutes in (("0", "100", 10), ('{"*": "0", "gas": "0"}', "39", 20)):
        # An Ocean Node's job takes what is deposited already; a longer one has to deposit more.
        longer = {} if STACK == "provider" else {"duration": minutes * 60}
        set_base_fee(chain, "20")
        with answering("Approve", lambda gwei=later: set_base_fee(chain, gwei)) as questions:  # type: ignore[misc]
            run = run_dag("ocean_c2d_recurring", spending_limit=limit, **BRIEFLY | with_orders | longer)
        assert set(run.states.values()) == {"success"}, run.states
        (question,) = questions
        approved = run.xcoms["approve_spending"]
        assert (approved["answer"], approved["answered_by"]) == ("Approve", "admin")
        paid = run.xcoms["pay_for_compute"]["cost"]
        assert len(paid["transactions"]) >= 2
        if limit == "0":
            assert "gas" not in approved["return_value"]
            assert "No limit of this run holds for it" in question["body"]
        else:
            assert f"up to **{approved['return_value']['gas']} of the chain's coin**" in question["body"]
            assert ("Renew" in question["body"]) == (STACK == "provider")


def test_a_rejection_says_who_rejected(
    published: FinishedRun,
    run_dag: Callable[..., FinishedRun],
    with_orders: dict[str, Any],
    bobs_transactions: Callable[[], int],
) -> None:
    before = bobs_transactions()
    with answering("Reject"):
        run = run_dag("ocean_c2d_recurring", spending_limit="0", **BRIEFLY | with_orders)
    told = run.xcoms["approve_spending"]
    assert (told["answer"], told["answered_by"]) == ("Reject", "admin")
    assert "return_value" not in told
    assert run.states.pop("choose_assets") == run.states.pop("approve_spending") == "success"
    assert set(run.states.values()) == {"skipped"}
    assert bobs_transactions() == before


def test_nobody_is_asked_for_more_than_the_connection_allows(
    published: FinishedRun,
    run_dag: Callable[..., FinishedRun],
    with_orders: dict[str, Any],
    bobs_transactions: Callable[[], int],
    localnet: NetworkSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = bobs_transactions()
    connection = json.loads(exports(localnet)["AIRFLOW_CONN_OCEAN_BOB"])
    connection["extra"]["max_cost"] = "1.5"
    monkeypatch.setenv("AIRFLOW_CONN_OCEAN_BOB", json.dumps(connection))
    with answering("Approve") as questions:
        run = run_dag("ocean_c2d_recurring", spending_limit="0", **BRIEFLY | with_orders)
    assert questions == []
    assert (run.states["approve_spending"], run.tries["approve_spending"]) == ("failed", 1)
    assert run.states["pay_for_compute"] == "upstream_failed"
    assert bobs_transactions() == before


HOLD = """
import json, pathlib, time
given = pathlib.Path("/data/inputs/algoCustomData.json")
while given.exists() and "hold" in json.loads(given.read_text()):
    time.sleep(0.2)
"""


@pytest.mark.skipif(STACK == "node", reason="an Ocean Node's jobs do not wait for each other's orders")
def test_a_run_that_waits_for_an_order_asks_when_it_knows_what_is_to_pay(
    run_dag: Callable[..., FinishedRun], localnet: NetworkSettings
) -> None:
    from airflow_ocean.c2d.assets import AssetSpec, ComputePolicy, Pricing
    from airflow_ocean.c2d.order_book import OrderBook
    from airflow_ocean.hooks import OceanHook
    from tests.support.airflow import PROJECT

    first = "from __future__ import annotations\n"
    source = (PROJECT / "include" / "branin" / "algorithm.py").read_text()
    (localnet.files_folder / "held_branin.py").write_text(source.replace(first, first + HOLD, 1))

    def publish(kind: Any, name: str, **fields: Any) -> str:
        file = {"type": "url", "url": f"{localnet.files_url}/{name}"}
        spec = AssetSpec(kind, name, (file,), pricing=Pricing.dispenser(), template=2, **fields)
        with OceanHook("ocean_alice").get_client() as alice:
            return alice.assets.publish(spec).did

    dataset = publish("dataset", "branin.arff", compute=ComputePolicy(open_to_all=True))
    algorithm = publish("algorithm", "held_branin.py", container=CONTAINER)
    with OceanHook("ocean_bob").get_client() as bob:
        book = OrderBook(bob, StoredOrders(), '["another", "run", "pay", -1]', lambda _holder: False)
        order = book.pay([dataset], algorithm, **BRIEFLY)  # type: ignore[arg-type]
        job = bob.jobs.start(order, {"hold": True})
        stopped: list[str] = []

        def stop() -> None:
            if not stopped:
                stopped.append(bob.jobs.stop(job.id).id)

        with whenever(DEFERS, stop), answering("Approve") as questions:
            run = run_dag(
                "ocean_c2d_recurring",
                dataset_dids=[dataset],
                algorithm_did=algorithm,
                spending_limit="0",
                custom_data={"points": 25},
                **BRIEFLY,
            )
    assert stopped == [job.id]
    assert set(run.states.values()) == {"success"}, run.states
    (question,) = questions
    assert "Renew" in question["body"]
    paid = run.xcoms["pay_for_compute"]["cost"]
    # The fee's approval, and the renewal.
    assert len(paid["transactions"]) == 2
    assert paid["datatokens"] == {}
