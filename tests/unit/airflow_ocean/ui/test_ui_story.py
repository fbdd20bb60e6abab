"""A run's story: put together from tasks of any DAG, whatever they have pushed so far."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.airflow import PROJECT
from tests.support.ocean_runs import (
    ALGORITHM,
    ALGORITHM_TOKEN,
    BEGIN,
    CONSUMER,
    DATASET,
    DATASET_TOKEN,
    FEE_TOKEN,
    ORDERS,
    PROVIDER,
    TaskRow,
    add_runs,
    counted_queries,
    paying,
    starting,
)

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from airflow_ocean.ui.story import Story

ONE = str(10**18)


def told(session: Session, dag_id: str, tasks: list[TaskRow], state: str = "running") -> Story:
    from airflow_ocean.ui.records import load_run
    from airflow_ocean.ui.story import tell

    add_runs(session, dag_id, [("a run", state, tasks)])
    record = load_run(session, dag_id, "a run")
    assert record is not None
    return tell(record)


def publishing(task_id: str, operator: str, did: str, token: str, name: str) -> TaskRow:
    return TaskRow(
        task_id,
        operator,
        xcoms={
            "return_value": did,
            "asset_name": name,
            "nft_address": f"0x{'9' * 40}",
            "datatoken_address": token,
            "transactions": [f"0x{'3' * 64}"],
            "_link_OceanTransactionLink": f"https://explorer.example/base/tx/0x{'3' * 64}",
        },
    )


def waiting(state: str, map_index: int = -1, **xcoms: Any) -> TaskRow:
    return TaskRow("wait", "OceanComputeSensor", state, xcoms, map_index, seconds=20)


def test_the_whole_flow(session: Session, dag_id: str) -> None:
    story = told(
        session,
        dag_id,
        [
            publishing("publish", "OceanPublishDatasetOperator", DATASET, DATASET_TOKEN, "Branin"),
            publishing("algorithm", "OceanPublishAlgorithmOperator", ALGORITHM, ALGORITHM_TOKEN, "GP"),
            paying({DATASET_TOKEN: ONE, ALGORITHM_TOKEN: ONE}, gas_fee="266895537253023"),
            starting("job1"),
            waiting("success", return_value="job1", status="Job finished", duration=11.5),
        ],
        state="success",
    )
    assert [(asset.kind, asset.name) for asset in story.assets.values()] == [
        ("dataset", "Branin"),
        ("algorithm", "GP"),
    ]
    assert story.assets[DATASET].transactions == [f"0x{'3' * 64}"]
    assert story.explorer == "https://explorer.example/base"
    (order,) = story.orders
    assert order.items == [(DATASET, ORDERS[0]), (ALGORITHM, ORDERS[1])]
    lines = [(line.amount, line.unit) for line in story.tokens.lines(story.cost)]
    assert lines == [("1", "datatoken of Branin"), ("1", "datatoken of GP")]
    (job,) = story.jobs
    assert (job.id, job.provider_url, job.consumer_address) == ("job1", PROVIDER, CONSUMER)
    assert (job.status, job.outcome, job.seconds, job.is_over) == ("Job finished", "success", 11.5, True)
    assert story.jobs_to_ask == []
    assert [step.title for step in story.steps] == [
        "Publish the algorithm “GP”",
        "Pay for the computation",
        "Publish the dataset “Branin”",
        "Start the job",
        "Wait for the job",
    ]


def test_mapped_tasks_are_jobs_of_their_own(session: Session, dag_id: str) -> None:
    indexes = range(3)
    story = told(
        session,
        dag_id,
        [starting(f"job{index}", index) for index in indexes]
        + [waiting("deferred", index, deadline=1.0) for index in indexes],
    )
    assert [(job.id, [task.map_index for task in job.waits]) for job in story.jobs] == [
        (f"job{index}", [index]) for index in indexes
    ]
    assert len(story.jobs_to_ask) == 3
    assert [step.task.label for step in story.current] == ["wait [0]", "wait [1]", "wait [2]"]


def test_the_number_of_queries_does_not_grow_with_the_tasks(session: Session, dag_id: str) -> None:
    from airflow_ocean.ui.records import load_run

    add_runs(
        session,
        dag_id,
        [
            ("small", "success", [starting("job"), waiting("success", return_value="job")]),
            (
                "large",
                "success",
                [starting(f"job{n}", n) for n in range(200)]
                + [waiting("success", n, return_value=f"job{n}") for n in range(200)],
            ),
        ],
    )
    counts = []
    for run_id, tasks in (("small", 2), ("large", 400)):
        with counted_queries() as statements:
            record = load_run(session, dag_id, run_id)
        assert record is not None
        assert len(record.tasks) == tasks
        counts.append(len(statements))
    assert counts == [5, 5]


def test_the_time_line_is_what_the_waiting_task_saw(session: Session, dag_id: str) -> None:
    begin = BEGIN.timestamp()
    states = [
        {"at": begin, "state": 10, "text": "Job started"},
        {"at": begin + 10, "state": 40, "text": "Running algorithm"},
        {"at": begin + 90, "state": 60, "text": "Publishing results"},
        {"at": begin + 100, "state": 70, "text": "Job finished"},
    ]
    story = told(session, dag_id, [starting("job"), waiting("success", return_value="job", states=states)])
    (job,) = story.jobs
    assert [(moment.text, moment.phase) for moment in job.moments] == [
        ("Job started", "preparing"),
        ("Running algorithm", "computing"),
        ("Publishing results", "publishing"),
        ("Job finished", "done"),
    ]
    segments = job.segments(BEGIN + timedelta(days=1))
    assert [(segment.phase, segment.x, segment.width) for segment in segments] == [
        ("preparing", 0, 100),
        ("computing", 100, 800),
        ("publishing", 900, 100),
    ]


def test_a_job_that_runs_has_its_line_drawn_until_now(session: Session, dag_id: str) -> None:
    states = [
        {"at": BEGIN.timestamp(), "state": 10, "text": "Job started"},
        {"at": BEGIN.timestamp() + 30, "state": 40, "text": "Running algorithm"},
    ]
    story = told(session, dag_id, [starting("job"), waiting("deferred", deadline=1.0, states=states)])
    segments = story.jobs[0].segments(BEGIN + timedelta(seconds=60))
    assert [(segment.text, segment.x, segment.width) for segment in segments] == [
        ("Job started", 0, 500),
        ("Running algorithm", 500, 500),
    ]
    assert story.jobs[0].outcome == "running"


@pytest.mark.parametrize(("state", "width"), [("failed", 600), ("deferred", 750)])
def test_the_line_of_a_job_that_failed_ends_with_it(
    session: Session, dag_id: str, state: str, width: int
) -> None:
    begin = BEGIN.timestamp()
    states = [
        {"at": begin, "state": 10, "text": "Pulling algorithm image"},
        {"at": begin + 10, "state": 31, "text": "Data provisioning failed"},
    ]
    story = told(session, dag_id, [starting("job"), waiting(state, states=states)])
    segments = story.jobs[0].segments(BEGIN + timedelta(seconds=40))
    assert [segment.width for segment in segments] == [1000 - width, width]


LOCKED, CLAIMED = {FEE_TOKEN: "2000000"}, {FEE_TOKEN: "1000000"}


def through_the_escrow() -> TaskRow:
    task = paying({})
    task.xcoms["cost"] |= {"locked": LOCKED, "deposited": LOCKED}
    return task


@pytest.mark.parametrize("told_by", ["the manifest", "a task"])
def test_what_was_claimed_takes_the_place_of_what_was_locked(
    session: Session, dag_id: str, told_by: str
) -> None:
    from airflow_ocean.ui.records import load_run
    from airflow_ocean.ui.story import tell

    payment = through_the_escrow()
    final = {**payment.xcoms["cost"], "locked": {}, "claimed": CLAIMED}
    tasks = [payment, starting("job")]
    if told_by == "a task":
        tasks.append(TaskRow("settle", "OceanSettlementSensor", xcoms={"cost": final}, seconds=30))
    before = told(session, dag_id, [payment])
    assert before.cost.locked == {FEE_TOKEN: 2_000_000}
    add_runs(session, dag_id, [("settled", "success", tasks)])
    record = load_run(session, dag_id, "settled")
    assert record is not None
    after = tell(record, [final] if told_by == "the manifest" else [payment.xcoms["cost"]])
    assert (after.cost.locked, after.cost.claimed) == ({}, {FEE_TOKEN: 1_000_000})
    assert after.cost.gas_fee == before.cost.gas_fee
    (order,) = after.orders
    assert [line.amount for line in after.tokens.locked(order.cost)] == ["2"]
    assert [line.amount for line in after.tokens.claimed(order.final)] == ["1"]


@pytest.mark.parametrize(
    "xcoms",
    [
        {"order": "nothing", "cost": 3, "assets": {"did": 1}, "tokens": [], "states": 7, "nft_address": "0x"},
        {"order": {"datasets": None, "algorithm": {"did": 5}}, "cost": {"tokens": {"0x": "many"}, "gas_fee_wei": 0.5}},
        {"states": [{"at": "now", "state": "x"}, 5, {"at": 1e300}], "duration": "long", "consumer_address": "0x"},
        {"return_value": {"did": 1}, "transactions": {"0x": 1}, "manifest": 5, "deadline": None},
    ],
)  # fmt: skip
def test_what_a_task_pushed_in_another_form_is_left_out(
    session: Session, dag_id: str, xcoms: dict[str, Any]
) -> None:
    story = told(session, dag_id, [TaskRow("odd", "OceanOddOperator", xcoms=xcoms)])
    assert [step.title for step in story.steps] == ["Odd"]
    assert not story.cost
    assert [job.moments for job in story.jobs] in ([], [[]])


def test_tasks_of_other_operators_are_none_of_its_business(session: Session, dag_id: str) -> None:
    story = told(
        session,
        dag_id,
        [
            TaskRow("secret", "PythonOperator", xcoms={"return_value": "do not show"}),
            TaskRow("own", "MyPublishOperator", xcoms={"return_value": DATASET, "nft_address": "0x1"}),
        ],
    )
    assert [task.task_id for task in story.run.tasks] == ["own"]
    assert list(story.assets) == [DATASET]


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("running", "looking at the job from time to time"),
        ("deferred", "looking at the job from time to time; no worker is taken meanwhile"),
        ("up_for_retry", "an error that may pass stopped it; it tries again soon"),
        ("success", ""),
        (None, ""),
    ],
)
def test_what_a_step_is_doing_now(session: Session, dag_id: str, state: str | None, said: str) -> None:
    row = TaskRow("wait", "OceanComputeSensor", state)
    story = told(session, dag_id, [row])
    assert [step.now for step in story.steps] == [said]
    assert [step.now for step in story.current] == ([said] if said else [])


def test_a_person_who_is_asked_is_told(session: Session, dag_id: str) -> None:
    from airflow.models.hitl import HITLDetail
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import select

    from airflow_ocean.ui.records import load_run
    from airflow_ocean.ui.story import tell

    add_runs(session, dag_id, [("a run", "running", [TaskRow("ask", "ApprovalOperator", "awaiting_input")])])
    number = session.scalar(select(TaskInstance.id).where(TaskInstance.dag_id == dag_id))
    detail = HITLDetail(ti_id=number, options=["Approve", "Reject"], subject="Spend 3 OCEAN?", params={})
    session.add(detail)
    session.commit()

    def said() -> list[tuple[str, str]]:
        record = load_run(session, dag_id, "a run")
        assert record is not None
        return [(step.title, step.now) for step in tell(record).current]

    assert said() == [("Ask for approval", "waiting for somebody to answer: Spend 3 OCEAN?")]
    detail.chosen_options = ["Approve"]
    session.commit()
    assert said() == []


@pytest.mark.parametrize(
    ("answer", "who", "state", "rejected"),
    [
        ("Reject", "Carol", "rejected by Carol", True),
        ("Reject", None, "rejected", True),
        ("Approve", "Carol", "approved by Carol", False),
        (None, None, "done", False),
    ],
)
def test_what_a_person_answered_is_told(
    session: Session, dag_id: str, answer: str | None, who: str | None, state: str, rejected: bool
) -> None:
    asked = TaskRow("ask", "OceanApproveSpendingOperator", xcoms={"answer": answer, "answered_by": who})
    story = told(session, dag_id, [asked], state="success")
    assert [step.state for step in story.steps] == [state]
    assert story.is_rejected is rejected


def test_no_run_no_record(session: Session, dag_id: str) -> None:
    from airflow_ocean.ui.records import load_run

    assert load_run(session, dag_id, "a run") is None


def test_every_operator_of_the_package_is_a_step_with_words_of_its_own() -> None:
    from airflow_ocean.ui import steps

    found = {
        name
        for folder in ("operators", ".")
        for path in (PROJECT / "plugins" / "airflow_ocean" / folder).glob("*.py")
        for name in re.findall(r"^class (Ocean\w+(?:Operator|Sensor))\(", path.read_text(), re.MULTILINE)
    }
    bases = {"OceanBaseOperator", "OceanOptionalOperator", "OceanStepOperator", "OceanBaseSensor"}
    assert found - bases == set(steps._STEPS)
