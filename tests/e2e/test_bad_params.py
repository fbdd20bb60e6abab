"""Bad values in the trigger forms of the DAGs that pay, as far as the form can't see it: the first task that talks to the
services refuses them by name, and no transaction is sent. What the form refuses itself, ``test_dags.py`` says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_ocean.c2d.assets import AlgorithmContainer, AssetSpec, Pricing
from airflow_ocean.c2d.errors import TransactionRevertedError
from airflow_ocean.hooks import OceanHook
from include.localnet.accounts import ALICE, BOB
from include.localnet.ethereum import Chain
from tests.conftest import STACK

if TYPE_CHECKING:
    from collections.abc import Callable

    from include.localnet.settings import NetworkSettings
    from tests.e2e.conftest import FinishedRun

pytestmark = [pytest.mark.e2e, pytest.mark.both_stacks]

# What only an Ocean Node offers, what no environment of the node has, and what is wrong everywhere: param, value, and
# words of the refusal.
TERMS: list[tuple[str, Any, str]] = {
    "provider": [
        ("job_resources", {"cpu": 1}, "leave job_resources and queue_wait out"),
        ("queue_wait", 60, "leave job_resources and queue_wait out"),
        ("variables", {"LEVEL": "3"}, "gives algorithms no environment variables"),
    ],
    "node": [
        ("job_resources", {"cpus": 1}, "has no 'cpus'; it offers cpu, ram, disk"),
        ("job_resources", {"cpu": 99}, "cpu at most, not 99"),
    ],
}[STACK]
ANYWHERE: list[tuple[str, Any, str]] = [
    ("environment", "nowhere", "no compute environment 'nowhere'"),
    ("duration", 10**9, "duration must be from"),
    ("queue_wait", 10**9, "queue_wait must be from"),
]
SPENDING_LIMIT = ("spending_limit", "{much}", "spending_limit is not JSON")
# Of each DAG the task that refuses, and further values that it takes.
REFUSALS: dict[str, tuple[str, list[tuple[str, Any, str]]]] = {
    "ocean_c2d": ("approve_spending", [SPENDING_LIMIT]),
    "ocean_c2d_recurring": (
        "approve_spending",
        [SPENDING_LIMIT, ("dataset_dids", ["did:op:" + "0" * 64], "did:op:" + "0" * 64)],
    ),
    "ocean_c2d_sweep": (
        "member.pay_for_compute[0]",
        [("algorithm_did", "did:op:" + "0" * 64, "did:op:" + "0" * 64)],
    ),
}


@pytest.fixture(scope="module")
def computable(airflow_home: Any, localnet: NetworkSettings) -> dict[str, Any]:
    """Return params that name assets which Bob could order right away."""
    container = AlgorithmContainer("oceanprotocol/algo_dockers", "python-branin", "sha256:" + "8" * 64)
    kinds = [("dataset", "branin.arff", None), ("algorithm", "algorithm.py", container)]
    dids = []
    for kind, file, image in kinds:
        files = ({"type": "url", "url": f"{localnet.files_url}/{file}"},)
        with OceanHook("ocean_alice").get_client() as alice:
            spec = AssetSpec(kind, file, files, container=image, pricing=Pricing.dispenser())
            dids.append(alice.assets.publish(spec).did)
    with OceanHook("ocean_alice").get_client() as alice:
        alice.assets.allow_algorithm(dids[0], algorithm_did=dids[1])
    return {"dataset_dids": dids[:1], "algorithm_did": dids[1]}


@pytest.fixture
def params(computable: dict[str, Any], with_orders: dict[str, Any]) -> Callable[[str], dict[str, Any]]:
    """Return a DAG's params that are good, for a run that takes orders."""

    def of(dag_id: str) -> dict[str, Any]:
        if dag_id == "ocean_c2d":
            return dict(with_orders)
        found = {**computable, **with_orders}
        if dag_id == "ocean_c2d_sweep":
            return {**found, "parameter_sets": [{"points": 20}], "max_cost": "10"}
        return {**found, "spending_limit": "10"}

    return of


@pytest.fixture
def sent(localnet: NetworkSettings) -> Callable[[], list[int]]:
    """Return how many transactions Alice and Bob have sent, those that are in no block included."""
    chain = Chain(localnet.rpc_url)
    return lambda: [
        int(chain.request("eth_getTransactionCount", account.address, "pending"), 16)
        for account in (ALICE, BOB)
    ]


def shown(capture: pytest.CaptureFixture[str]) -> str:
    """Return what was logged, without the line breaks that a narrow console gives it."""
    return " ".join("".join(capture.readouterr()).split())


def check_refused(run: FinishedRun, task: str) -> None:
    """Check that a task has failed at its first try, and none after it was run."""
    assert run.states[task] == "failed", run.states
    assert run.tries[task] == 1
    before = {"rehearse_algorithm", "choose_assets", "list_members"}
    others = {state for name, state in run.states.items() if name != task and name not in before}
    assert others == {"upstream_failed"}, run.states


@pytest.mark.parametrize(
    ("dag_id", "name", "wrong", "said"),
    [
        (dag_id, *refusal)
        for dag_id, (_, further) in REFUSALS.items()
        for refusal in (*TERMS, *ANYWHERE, *further)
    ],
)
def test_a_bad_value_costs_nothing(
    run_dag: Callable[..., FinishedRun],
    params: Callable[[str], dict[str, Any]],
    sent: Callable[[], list[int]],
    capfd: pytest.CaptureFixture[str],
    dag_id: str,
    name: str,
    wrong: Any,
    said: str,
) -> None:
    before = sent()
    run = run_dag(dag_id, **{**params(dag_id), name: wrong})
    assert said in shown(capfd)
    check_refused(run, REFUSALS[dag_id][0])
    assert sent() == before


@pytest.mark.skipif(STACK != "node", reason="only an Ocean Node's environments have a free part of their own")
def test_too_much_for_the_free_part_costs_nothing(
    run_dag: Callable[..., FinishedRun], sent: Callable[[], list[int]], capfd: pytest.CaptureFixture[str]
) -> None:
    before = sent()
    # The paid part would give it.
    run = run_dag("ocean_c2d", job_resources={"cpu": 2})
    assert "gives a job 1 cpu at most, not 2" in shown(capfd)
    check_refused(run, "approve_spending")
    assert sent() == before


@pytest.mark.parametrize(
    ("wrong", "said"), [("[1]", "custom_data must be a JSON object"), ("5 %", "custom_data is not JSON")]
)
def test_a_bad_variable_costs_nothing(
    run_dag: Callable[..., FinishedRun],
    params: Callable[[str], dict[str, Any]],
    sent: Callable[[], list[int]],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    wrong: str,
    said: str,
) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_OCEAN_CUSTOM_DATA", wrong)
    before = sent()
    run = run_dag("ocean_c2d_recurring", **params("ocean_c2d_recurring"))
    assert said in shown(capfd)
    check_refused(run, "approve_spending")
    assert sent() == before


def test_the_least_price_of_the_form_is_the_least_that_the_exchange_takes(
    airflow_home: Any, localnet: NetworkSettings, sent: Callable[[], list[int]]
) -> None:
    files = ({"type": "url", "url": f"{localnet.files_url}/branin.arff"},)
    for rate, taken in ((10**10, True), (10**10 - 1, False)):
        spec = AssetSpec("dataset", "Cheap", files, pricing=Pricing.fixed_rate(rate))
        before = sent()
        with OceanHook("ocean_alice").get_client() as alice:
            if taken:
                assert alice.assets.publish(spec).did
            else:
                with pytest.raises(TransactionRevertedError):
                    alice.assets.publish(spec)
        assert (sent() != before) is taken
