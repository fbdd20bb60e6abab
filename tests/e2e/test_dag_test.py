"""The DAG ``ocean_c2d`` run for real through ``dag.test()``: chain, services, jobs and artifacts are looked at."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from include.localnet import accounts
from include.localnet.ethereum import Chain
from tests.conftest import STACK
from tests.support.vanished_node import leave_expired_lock
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from include.localnet.settings import NetworkSettings
    from tests.e2e.conftest import FinishedRun

pytestmark = [pytest.mark.e2e, pytest.mark.both_stacks]

DID = re.compile(r"did:op:[0-9a-f]{64}")
TRANSACTION = re.compile(r"0x[0-9a-f]{64}")
ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")

FAILING_ALGORITHM = """
print("looking at the data")
raise SystemExit("this algorithm gives up on purpose")
"""
COUNTING_ALGORITHM = """
import json, pathlib

files = [file for file in pathlib.Path("/data/inputs").rglob("*") if file.is_file()]
pathlib.Path("/data/outputs/counted.json").write_text(json.dumps({"files": len(files), "unit": "file"}))
"""


def path_of(uri: str) -> Path:
    assert uri.startswith("file:///")
    return Path(uri.removeprefix("file://"))


def ddo_of(did: str, network: NetworkSettings) -> dict:
    answer = httpx.get(f"{network.metadata_cache_url}/api/aquarius/assets/ddo/{did}", trust_env=False)
    assert answer.status_code == 200, answer.text
    ddo = answer.json()
    # An Ocean Node has what the chain tells in a part of its own.
    return ddo | ddo.get("indexedMetadata", {})


def jobs_of_bob(network: NetworkSettings) -> dict[str, dict]:
    answer = httpx.get(
        f"{network.provider_url}/api/services/compute",
        params={"consumerAddress": accounts.BOB.address},
        trust_env=False,
    )
    assert answer.status_code == 200, answer.text
    return {job["jobId"]: job for job in answer.json()}


@pytest.fixture(scope="module")
def module_artifacts(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        base = tmp_path_factory.mktemp("artifact base") / "all artifacts"
        patch.setenv("AIRFLOW_OCEAN_ARTIFACTS", str(base))
        yield base


def take_back_what_others_left() -> None:
    """Take out of the escrow what runs of other tests have deposited, once the node has settled their jobs."""
    from airflow_ocean.hooks import OceanHook

    with OceanHook("ocean_bob").get_client() as client:
        escrow, token = client.contract_address("Escrow"), client.contract_address("Ocean")
        wait_until(lambda: client.escrow.funds(escrow, token).locked == 0, "nothing is locked", 120)
        client.escrow.withdraw([escrow], token)


@pytest.fixture(scope="module")
def run(
    module_artifacts: Path, run_dag: Callable[..., FinishedRun], with_orders: dict[str, Any]
) -> FinishedRun:
    if STACK == "node":
        take_back_what_others_left()
    return run_dag(
        "ocean_c2d",
        dataset_name="Branin of the test",
        dataset_offer="fixed_rate",
        dataset_price="2.5",
        custom_data={"seed": 3},
        **with_orders,
    )


def test_every_task_succeeds_at_its_first_try(run):
    assert run.states.pop("rehearse_algorithm") == "skipped"  # it was not asked for
    assert set(run.states.values()) == {"success"}, run.states
    assert set(run.tries.values()) == {1}


def test_the_xcoms_are_those_of_the_contract(run):
    # The deadline is there if the job was not already over when the sensor first looked.
    assert {task: set(values) - {"deadline"} for task, values in run.xcoms.items()} == {
        "approve_spending": {"return_value", "quote"},
        "publish_dataset": {
            "return_value",
            "asset_name",
            "nft_address",
            "datatoken_address",
            "transactions",
            "cost",
        },
        "publish_algorithm": {
            "return_value",
            "asset_name",
            "nft_address",
            "datatoken_address",
            "transactions",
            "cost",
        },
        "allow_algorithm": {"return_value", "transactions", "cost"},
        "transfer_datatokens": {"return_value", "cost"},
        "pay_for_compute": {"return_value", "order", "cost", "assets", "tokens"},
        "start_compute": {"return_value", "provider_url", "consumer_address"},
        "wait_for_compute": {"return_value", "states", "status", "duration"},
        "fetch_and_plot.fetch_results": {"return_value", "manifest"},
        "fetch_and_plot.plot": {"return_value"},
    }
    for task in ("publish_dataset", "publish_algorithm"):
        values = run.xcoms[task]
        assert DID.fullmatch(values["return_value"])
        assert ADDRESS.fullmatch(values["nft_address"])
        assert ADDRESS.fullmatch(values["datatoken_address"])
        assert values["transactions"]
    assert run.xcoms["allow_algorithm"]["return_value"] == run.xcoms["publish_dataset"]["return_value"]
    assert len(run.xcoms["transfer_datatokens"]["return_value"]) == 2
    assert len(run.xcoms["pay_for_compute"]["return_value"]) == 2
    start, wait = run.xcoms["start_compute"], run.xcoms["wait_for_compute"]
    assert start["consumer_address"] == accounts.BOB.address
    assert wait["return_value"] == start["return_value"]
    assert wait["duration"] > 0


def test_no_secret_and_no_data_in_the_xcoms(run, localnet):
    everything = json.dumps(run.xcoms)
    for account in accounts.ACCOUNTS:
        assert account.private_key[2:] not in everything
    assert "branin.arff" not in everything
    assert localnet.files_url not in everything
    assert "signature" not in everything
    # Plain JSON, no objects in Airflow's encoding.
    assert "__classname__" not in everything


def test_the_assets_are_resolvable_and_the_algorithm_is_trusted(run, localnet):
    dataset = ddo_of(run.xcoms["publish_dataset"]["return_value"], localnet)
    algorithm = ddo_of(run.xcoms["publish_algorithm"]["return_value"], localnet)
    assert dataset["metadata"]["name"] == "Branin of the test"
    assert dataset["nft"]["owner"] == algorithm["nft"]["owner"] == accounts.ALICE.address
    assert dataset["nftAddress"] == run.xcoms["publish_dataset"]["nft_address"]
    # Compute only: nobody may download the data.
    (service,) = dataset["services"]
    assert service["type"] == "compute"
    assert service["datatokenAddress"] == run.xcoms["publish_dataset"]["datatoken_address"]
    assert [trusted["did"] for trusted in service["compute"]["publisherTrustedAlgorithms"]] == [
        algorithm["id"]
    ]
    assert algorithm["metadata"]["algorithm"]["container"]["image"] == "oceanprotocol/algo_dockers"


def test_every_transaction_is_mined_and_the_datatokens_are_spent(run, localnet):
    chain = Chain(localnet.rpc_url)
    transactions = [
        transaction
        for values in run.xcoms.values()
        for key in ("transactions", "return_value")
        for transaction in (values.get(key) if isinstance(values.get(key), list) else [])
        if TRANSACTION.fullmatch(transaction)
    ]
    assert len(transactions) == len(set(transactions)) >= 9
    for transaction in transactions:
        assert chain.receipt(transaction)["status"] == "0x1"
    orders = run.xcoms["pay_for_compute"]["return_value"]
    for publish, order in zip(("publish_dataset", "publish_algorithm"), orders, strict=True):
        datatoken = run.xcoms[publish]["datatoken_address"]
        receipt = chain.receipt(order)
        assert receipt["from"].lower() == accounts.BOB.address.lower()
        assert receipt["to"].lower() == datatoken.lower()
        # One was minted for Bob, and the order took it.
        assert chain.call(datatoken, "ERC20Template", "balanceOf", accounts.BOB.address) == 0


def test_the_job_is_finished_and_there_is_one(run, localnet):
    started = run.xcoms["start_compute"]["return_value"]
    if STACK == "node":
        dids = [run.xcoms["publish_dataset"]["return_value"]]
        jobs = [
            job for job in jobs_of_bob(localnet).values() if (job["metadata"] or {}).get("datasets") == dids
        ]
    else:
        orders = run.xcoms["pay_for_compute"]["return_value"]
        jobs = [job for job in jobs_of_bob(localnet).values() if job["agreementId"] in orders]
    (job,) = jobs
    # Only the answer to its start has the node's cluster before the id.
    assert job["jobId"] == started.rpartition("-")[2]
    assert int(job["status"]) in (70, 71)
    assert job["dateFinished"]
    assert run.xcoms["wait_for_compute"]["status"] == "Job finished"


@pytest.mark.skipif(STACK != "node", reason="only an Ocean Node is paid through the escrow")
def test_what_the_escrow_locks_is_told_and_settled(run, run_dag, monkeypatch):
    from airflow_ocean import metrics
    from airflow_ocean.hooks import OceanHook

    counted = []
    monkeypatch.setattr(metrics.Stats, "incr", lambda *given, **tags: counted.append((*given, tags)))
    cost = run.xcoms["pay_for_compute"]["cost"]
    (token,) = cost["locked"]
    assert cost["locked"][token] == cost["deposited"][token] == str(2 * 10**18)
    assert int(run.xcoms["approve_spending"]["quote"]["totals"][token]) == 2 * 10**18
    manifest = run.xcoms["fetch_and_plot.fetch_results"]["manifest"]
    job_id = run.xcoms["start_compute"]["return_value"]
    settled = run_dag("ocean_escrow", job_id=job_id, manifest=manifest, amount="all")
    assert set(settled.states.values()) == {"success"}, settled.states
    assert settled.xcoms["settle"]["return_value"] == {token: str(10**18)}
    final = json.loads(path_of(manifest).read_text())["cost"]
    assert final == settled.xcoms["settle"]["cost"]
    assert (final["locked"], final["claimed"]) == ({}, {token: str(10**18)})
    assert settled.xcoms["withdraw"]["return_value"] == {token: str(10**18)}
    # What was claimed counts as spent, once, and what is taken out does not.
    assert [entry for entry in counted if entry[0] == "ocean.spent.microtokens"] == [
        ("ocean.spent.microtokens", 10**6, {"tags": {"token": token}})
    ]
    with OceanHook("ocean_bob").get_client() as client:
        funds = client.escrow.funds(client.contract_address("Escrow"), token)
    assert (funds.available, funds.locked) == (0, 0)


@pytest.mark.skipif(STACK != "node", reason="only an Ocean Node is paid through the escrow")
def test_what_a_vanished_node_has_locked_comes_back(run_dag):
    from airflow_ocean.hooks import OceanHook

    with OceanHook("ocean_bob").get_client() as client:
        escrow, token = client.contract_address("Escrow"), client.contract_address("Ocean")
        leave_expired_lock(client, escrow, token, 3 * 10**18)
        before = client.escrow.funds(escrow, token)
        three, free = (
            client.datatokens.describe(client.datatokens.contract(token), units)
            for units in (3 * 10**18, before.available)
        )
    left = run_dag("ocean_escrow", cancel_expired=False)
    assert left.states == {"settle": "skipped", "withdraw": "success"}
    told = left.xcoms["withdraw"]["funds"][escrow][token]
    assert told["available"] == free
    assert three in {lock["amount"] for lock in told["locks"]}
    assert all(lock["until"].endswith(" UTC") for lock in told["locks"])
    assert left.xcoms["withdraw"]["cost"]["transactions"] == []
    looked = run_dag("ocean_escrow")
    assert looked.states == {"settle": "skipped", "withdraw": "success"}
    assert looked.xcoms["withdraw"]["return_value"] == {}
    assert len(looked.xcoms["withdraw"]["cost"]["transactions"]) == 1
    with OceanHook("ocean_bob").get_client() as client:
        assert client.escrow.funds(escrow, token).available == before.available + 3 * 10**18


@pytest.mark.skipif(
    STACK != "node", reason="only an Ocean Node's environments have a free part without orders"
)
def test_the_free_part_needs_no_order(module_artifacts, run_dag):
    run = run_dag("ocean_c2d")
    assert run.states.pop("rehearse_algorithm") == "skipped"
    assert set(run.states.values()) == {"success"}, run.states
    assert run.xcoms["pay_for_compute"]["return_value"] == []
    assert run.xcoms["pay_for_compute"]["cost"]["transactions"] == []


def test_the_artifacts_are_what_the_manifest_says(run, module_artifacts):
    fetched = run.xcoms["fetch_and_plot.fetch_results"]
    manifest_path = path_of(fetched["manifest"])
    assert manifest_path.is_relative_to(module_artifacts / "ocean_c2d")
    manifest = json.loads(manifest_path.read_text())
    assert manifest["job_id"] == run.xcoms["start_compute"]["return_value"]
    assert manifest["dataset_dids"] == [run.xcoms["publish_dataset"]["return_value"]]
    assert manifest["algorithm_did"] == run.xcoms["publish_algorithm"]["return_value"]
    assert [file["uri"] for file in manifest["files"]] == fetched["return_value"]
    if STACK != "node":  # where it is brought up to date when the job is settled
        assert manifest["cost"] == run.xcoms["pay_for_compute"]["cost"]
    assert {file["type"] for file in manifest["files"]} >= {"output", "algorithmLog"}
    for file in manifest["files"]:
        content = path_of(file["uri"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file["size"], file["sha256"])


def test_the_result_is_a_good_model_of_the_function(run):
    from airflow_ocean.c2d.results import decode_result
    from include.branin.plot import fit_figures

    manifest = json.loads(path_of(run.xcoms["fetch_and_plot.fetch_results"]["manifest"]).read_text())
    (output,) = [file for file in manifest["files"] if file["type"] == "output"]
    figures = fit_figures(decode_result(path_of(output["uri"])).value)
    assert figures.r2 > 0.9


def test_others_may_buy_the_dataset(run):
    from airflow_ocean.hooks import OceanHook

    with OceanHook("ocean_bob").get_client() as client:
        datatoken = client.datatokens.contract(run.xcoms["publish_dataset"]["datatoken_address"])
        exchange = client.datatokens.exchange(datatoken)
        # The swap fee of Ocean's community comes on top.
        assert 2.5 * 10**18 <= exchange.price(10**18) < 2.6 * 10**18
        assert exchange.base_token == client.contract_address("Ocean")


def test_the_run_costs_no_more_than_was_said_before(run):
    paid = sum(int(values["cost"]["gas_fee_wei"]) for values in run.xcoms.values() if "cost" in values)
    assert 0 < paid <= int(run.xcoms["approve_spending"]["quote"]["totals"]["gas"])


def test_the_plot_is_a_picture(run):
    plot = path_of(run.xcoms["fetch_and_plot.plot"]["return_value"]).read_bytes()
    assert plot.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(plot) > 20_000


def test_a_result_of_another_form_is_there_without_a_plot(module_artifacts, run_dag, localnet):
    localnet.files_folder.mkdir(parents=True, exist_ok=True)
    (localnet.files_folder / "counting.py").write_text(COUNTING_ALGORITHM)
    run = run_dag("ocean_c2d", algorithm_url=f"{localnet.files_url}/counting.py", plot=False)
    assert {task for task, state in run.states.items() if state == "skipped"} == {
        "rehearse_algorithm",
        "fetch_and_plot.plot",
    }
    assert set(run.states.values()) == {"success", "skipped"}, run.states
    assert run.state == "success"
    manifest = json.loads(path_of(run.xcoms["fetch_and_plot.fetch_results"]["manifest"]).read_text())
    (output,) = [file for file in manifest["files"] if file["type"] == "output"]
    assert json.loads(path_of(output["uri"]).read_text())["unit"] == "file"
    assert "fetch_and_plot.plot" not in run.xcoms


def test_a_failing_algorithm_fails_the_wait_with_its_log(module_artifacts, run_dag, localnet, capfd):
    localnet.files_folder.mkdir(parents=True, exist_ok=True)
    (localnet.files_folder / "failing.py").write_text(FAILING_ALGORITHM)
    run = run_dag("ocean_c2d", algorithm_url=f"{localnet.files_url}/failing.py")
    assert run.states["wait_for_compute"] == "failed"
    assert (
        run.states["fetch_and_plot.fetch_results"] == run.states["fetch_and_plot.plot"] == "upstream_failed"
    )
    # Waiting again would not help.
    assert run.tries["wait_for_compute"] == 1
    assert run.xcoms.get("wait_for_compute", {}).keys() <= {"deadline", "states"}
    shown = "".join(capfd.readouterr())
    assert "this algorithm gives up on purpose" in shown
    assert "JobFailedError" in shown
    for account in accounts.ACCOUNTS:
        assert account.private_key[2:] not in shown
