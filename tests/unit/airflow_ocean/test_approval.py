"""What an approval allows, what it leaves behind, and whose claims on an order it minds."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from airflow.providers.standard.exceptions import HITLRejectException, HITLTimeoutError
from airflow.sdk import DAG, BaseOperator
from airflow.sdk.exceptions import DownstreamTasksSkipped

from airflow_ocean.assets import OCEAN_ORDERS, order_book
from airflow_ocean.c2d.estimates import CostLine, Estimate, Token
from airflow_ocean.c2d.limits import GAS, CostLimit
from airflow_ocean.operators.approval import OceanApproveSpendingOperator, _explanation, approved_cost
from tests.support.airflow import RecordedInstance

TOKEN = "0x2473f4F7bf40ed9310838edFCA6262C17A59DF64"
BOB = "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A"


@pytest.fixture
def estimate():
    """6 of a token with 6 decimals, and gas for 2 of the chain's coin, which may become 5."""
    lines = (
        CostLine("Fee", "fee", BOB, TOKEN, 6 * 10**6),
        CostLine("Order", "gas", BOB, GAS, 2 * 10**18),
    )
    tokens = {TOKEN: Token("MOCK", 6), GAS: Token("of the chain's coin")}
    return Estimate("env", 60, lines, tokens, {BOB: {}}, (CostLimit(),), 5 * 10**18)


@pytest.mark.parametrize(
    ("limit", "approved"),
    [
        ("0", {"*": "0", TOKEN.lower(): "6"}),
        ({"*": "0", "gas": "0"}, {"*": "0", TOKEN.lower(): "6", "gas": "5"}),
        ({TOKEN: "0", "gas": "9"}, {TOKEN.lower(): "6", "gas": "9"}),
        ({"gas": "1"}, {TOKEN.lower(): "6", "gas": "5"}),
        ({"*": "8", "gas": "1"}, {"*": "8", TOKEN.lower(): "8", "gas": "5"}),
    ],
)
def test_paying_may_cost_what_was_told_and_gas_what_it_can_become(estimate, limit, approved):
    assert approved_cost(estimate, CostLimit.parse(limit)).to_dict() == approved


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("0", "No limit of this run holds for it"),
        ({"gas": "1"}, "approving allows up to **5 of the chain's coin** for it"),
        ({"*": "0", "gas": "9"}, "approving allows up to **9 of the chain's coin** for it"),
    ],
)
def test_the_question_says_what_gas_may_become(estimate, limit, said):
    assert said in _explanation(estimate, CostLimit.parse(limit))


def asking(**arguments):
    """An operator with a task after it."""
    with DAG("a_dag", schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC)):
        operator = OceanApproveSpendingOperator(task_id="a_task", **arguments)
        operator >> BaseOperator(task_id="pay")
    return operator


def answered(option, who="alice"):
    user = None if who is None else {"id": "1", "name": who}
    return {
        "chosen_options": [option],
        "params_input": {},
        "responded_at": datetime(2025, 1, 1, tzinfo=UTC),
        "responded_by_user": user,
    }


@pytest.mark.parametrize(
    ("arguments", "ends"), [({}, DownstreamTasksSkipped), ({"fail_on_reject": True}, HITLRejectException)]
)
def test_a_rejection_leaves_behind_who_gave_it(context, arguments, ends):
    operator = asking(**arguments)
    context["task"] = operator
    with pytest.raises(ends):
        operator.execute_complete(context, answered("Reject"))
    assert (context["ti"].xcoms["answer"], context["ti"].xcoms["answered_by"]) == ("Reject", "alice")


def test_silence_that_approves_is_nobodys_answer(context):
    context["ti"].xcoms["max_cost"] = {"*": "6"}
    operator = asking()
    assert operator.execute_complete(context, answered("Approve", None)) == {"*": "6"}
    assert (context["ti"].xcoms["answer"], context["ti"].xcoms["answered_by"]) == ("Approve", None)


def test_without_an_answer_none_is_left_behind(context):
    with pytest.raises(HITLTimeoutError):
        asking().execute_complete(context, {"error": "nobody came", "error_type": "timeout"})
    assert context["ti"].xcoms == {}


class LiveInstance(RecordedInstance):
    """A task instance all runs around which go on."""

    def get_dagrun_state(self, _dag_id, _run_id):
        return "running"


@pytest.mark.parametrize(("run", "claimed"), [(RecordedInstance.run_id, False), ("another run", True)])
def test_what_the_own_run_has_claimed_is_not_waited_for(context, run, claimed):
    context |= {"ti": LiveInstance(), "asset_state_store": {OCEAN_ORDERS: None}}
    holder = json.dumps([RecordedInstance.dag_id, run, "pay", -1])
    assert order_book(None, context, own_claims=False)._is_live(holder) is claimed
    assert order_book(None, context)._is_live(holder)
