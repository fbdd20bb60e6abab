"""The page with all compute runs: what it lists, adds up and leaves out, and how many queries that takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.ocean_runs import (
    ALGORITHM_TOKEN,
    DATASET_TOKEN,
    FEE_TOKEN,
    TaskRow,
    add_runs,
    counted_queries,
    paying,
    starting,
)

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

ONE = str(10**18)
PLOT = TaskRow("plot", "OceanPlotOperator", xcoms={"return_value": "file:///base/plot.png"}, seconds=20)


def add_thousand(session: Session, dag_id: str) -> None:
    add_runs(
        session,
        dag_id,
        (
            (
                f"run {number:04}",
                "failed" if number % 10 == 0 else "success",
                [
                    paying(
                        {DATASET_TOKEN: ONE, ALGORITHM_TOKEN: ONE, FEE_TOKEN: "100001"},
                        gas_fee="1000000000000001",
                        dataset="Weather" if number % 4 == 0 else "Branin",
                    ),
                    starting(f"job{number}"),
                    PLOT,
                ],
            )
            for number in range(1000)
        ),
    )


def test_a_thousand_runs_take_three_queries_and_are_added_up_exactly(session: Session, dag_id: str) -> None:
    from airflow_ocean.ui.overview import PAGE_SIZE, Filters, look

    add_thousand(session, dag_id)
    with counted_queries() as statements:
        overview = look(session, {dag_id}, Filters(), page=1)
    assert len(statements) == 3, statements
    assert (overview.found, overview.pages, len(overview.runs)) == (1000, 1000 // PAGE_SIZE, PAGE_SIZE)
    assert overview.is_complete
    assert overview.states == {"success": 900, "failed": 100}
    assert [run.run_id for run in overview.runs[:2]] == ["run 0999", "run 0998"]  # newest first
    assert all(run.plot == ("plot", -1) and run.jobs == 1 for run in overview.runs)
    summary = [(line.amount, line.unit) for line in overview.tokens.summary(overview.cost)]
    assert summary == [("2\u202f000", "datatokens"), ("100.001", "USDC")]
    # As floats a thousand times this fee would end in other digits.
    assert overview.cost.gas_fee == 1_000_000_000_000_001_000


def test_filters_and_pages(session: Session, dag_id: str) -> None:
    from airflow_ocean.ui.overview import Filters, look

    add_thousand(session, dag_id)

    def found(page: int = 1, **filters: str) -> list[int]:
        overview = look(session, {dag_id}, Filters(**filters), page)
        return [overview.found, overview.page, overview.pages]

    assert found(asset="weather") == [250, 1, 10]
    assert found(asset="Gaussian") == [1000, 1, 40]
    assert found(algorithm="weather") == [0, 1, 1]
    assert found(asset="did:op:dddd") == [1000, 1, 40]
    assert found(state="failed") == [100, 1, 4]
    assert found(state="failed", asset="Weather") == [50, 1, 2]
    assert found(page=3, state="failed") == [100, 3, 4]
    assert found(page=99, state="failed") == [100, 4, 4]
    assert found(dag="another") == [0, 1, 1]


def test_only_runs_of_readable_dags_are_seen(session: Session, dag_id: str) -> None:
    from airflow_ocean.ui.overview import Filters, look

    add_runs(session, dag_id, [("secret run", "success", [paying({DATASET_TOKEN: ONE})])])
    overview = look(session, {"another_dag"}, Filters(), page=1)
    assert (overview.found, overview.runs, overview.datasets, bool(overview.cost)) == (0, [], [], False)
    assert look(session, {dag_id, "another_dag"}, Filters(), page=1).found == 1
    assert look(session, set(), Filters(), page=1).found == 0


def test_of_several_plots_the_last_is_shown(session: Session, dag_id: str) -> None:
    from airflow_ocean.ui.overview import Filters, look

    plots = [
        TaskRow("plot", "OceanPlotOperator", xcoms=PLOT.xcoms, map_index=index, seconds=index)
        for index in range(2)
    ]
    several = TaskRow("all", "OceanPlotSeveralOperator", xcoms=PLOT.xcoms, seconds=9)
    none = TaskRow("zip", "OceanFetchResultsOperator", xcoms={"return_value": ["plot.txt"]}, seconds=10)
    add_runs(session, dag_id, [("a run", "success", [starting("job"), *plots, several, none])])
    assert [run.plot for run in look(session, {dag_id}, Filters(), 1).runs] == [("all", -1)]


@pytest.mark.parametrize(
    ("tasks", "listed"),
    [
        ([TaskRow("wait", "OceanComputeSensor", state="deferred")], True),
        ([TaskRow("pay_more", "MyOwnOperator", xcoms={"order": paying({}).xcoms["order"]})], True),
        ([TaskRow("publish", "OceanPublishDatasetOperator")], False),
        ([TaskRow("hello", "BashOperator", xcoms={"return_value": "order"})], False),
    ],
)
def test_a_compute_run_is_told_by_its_tasks(
    session: Session, dag_id: str, tasks: list[TaskRow], listed: bool
) -> None:
    from airflow_ocean.ui.overview import Filters, look

    add_runs(session, dag_id, [("a run", "running", tasks)])
    assert look(session, {dag_id}, Filters(), page=1).found == int(listed)


def test_a_run_that_paid_nothing_is_told_from_one_that_has_not_paid(session: Session, dag_id: str) -> None:
    from airflow_ocean.ui.overview import Filters, look

    add_runs(
        session,
        dag_id,
        [
            ("waits", "running", [TaskRow("pay", "OceanPayForComputeOperator", state="running")]),
            ("used an order again", "success", [paying({}, gas_fee="0")]),
        ],
    )
    runs = {run.run_id: run for run in look(session, {dag_id}, Filters(), page=1).runs}
    assert not any(run.cost for run in runs.values())
    assert {run_id: len(run.costs) for run_id, run in runs.items()} == {"waits": 0, "used an order again": 1}


def test_what_another_run_says_was_claimed_is_what_a_job_has_cost(session: Session, dag_id: str) -> None:
    from airflow_ocean.ui.overview import Filters, look

    def locking(transactions: list[str]) -> TaskRow:
        pay = paying({DATASET_TOKEN: ONE})
        pay.xcoms["cost"] |= {"locked": {FEE_TOKEN: "2000000"}, "transactions": transactions}
        return pay

    def settling(job_id: str, transactions: list[str], claimed: str) -> TaskRow:
        cost = {"tokens": {DATASET_TOKEN: ONE}, "gas_fee_wei": "1", "transactions": transactions}
        xcoms = {"cost": cost | {"claimed": {FEE_TOKEN: claimed}}, "settled_job": job_id}
        return TaskRow("settle", "OceanSettlementSensor", xcoms=xcoms)

    add_runs(
        session,
        dag_id,
        [
            ("paid", "success", [locking(["0x1"]), starting("one")]),
            ("paid out of what was there", "success", [locking([]), starting("two")]),
            ("paid alike", "success", [locking([]), starting("three")]),
            (
                "settled by itself",
                "success",
                [locking(["0x4"]), starting("four"), settling("four", ["0x4"], "4")],
            ),
            ("settles one", "success", [settling("one", ["0x1"], "1000000")]),
            ("settles two", "success", [settling("two", [], "500000")]),
            # Somebody's own operators push what they like.
            ("strange", "success", [starting(["a", "list"]), settling({"an": "object"}, [], "1")]),  # type: ignore[arg-type]
            ("starts another", "success", [starting("five"), settling("of another program", [], "7")]),
        ],
    )
    with counted_queries() as statements:
        overview = look(session, {dag_id}, Filters(), page=1)
    assert len(statements) == 5, statements
    costs = {run.run_id: (run.cost.tokens, run.cost.locked) for run in overview.runs}
    assert costs == {
        "paid": ({DATASET_TOKEN: 10**18, FEE_TOKEN: 1_000_000}, {}),
        "paid out of what was there": ({DATASET_TOKEN: 10**18, FEE_TOKEN: 500_000}, {}),
        "paid alike": ({DATASET_TOKEN: 10**18}, {FEE_TOKEN: 2_000_000}),
        "settled by itself": ({DATASET_TOKEN: 10**18, FEE_TOKEN: 4}, {}),
        "strange": ({DATASET_TOKEN: 10**18, FEE_TOKEN: 1}, {}),
        "starts another": ({DATASET_TOKEN: 10**18, FEE_TOKEN: 7}, {}),
    }
    # Each is counted once.
    assert (overview.cost.tokens[FEE_TOKEN], overview.cost.locked[FEE_TOKEN]) == (1_500_012, 2_000_000)
    # A DAG that the user may not read tells nothing.
    hidden = look(session, {"another_dag"}, Filters(), page=1)
    assert (hidden.found, hidden.cost.tokens) == (0, {})
