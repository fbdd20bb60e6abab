"""What a person does in the Airflow UI beside triggering a run: set up a connection, a schedule, answer a question."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from airflow_ocean.c2d.network import known_networks
from include.localnet.accounts import CARLOS
from tests.conftest import STACK
from tests.e2e.browser.conftest import STEP, ended, run_ids, tab_of
from tests.support import browser as support
from tests.support.running_airflow import DagRun
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from include.demo.airflow import Airflow
    from include.localnet.settings import NetworkSettings

pytestmark = [pytest.mark.e2e, pytest.mark.both_stacks, pytest.mark.timeout(1500)]

DIALOG = "[role=dialog][data-scope=dialog]"
RECURRING = "ocean_c2d_recurring"


def test_a_connection_is_made_and_tested(page: Page, ui_airflow: Airflow, localnet: NetworkSettings) -> None:
    page.set_viewport_size({"width": 1440, "height": 1600})
    page.goto(f"{ui_airflow.url}/connections")
    page.get_by_role("button", name="Add Connection").click()
    form = page.locator(DIALOG)
    form.locator("[name=connection_id]").fill("ocean_carlos")
    form.get_by_role("combobox").fill("ocean")
    page.get_by_role("option", name="Ocean", exact=True).click()
    form.get_by_label("RPC URL").fill(localnet.rpc_url)
    key = form.locator("[name=password]")
    key.fill(CARLOS.private_key)
    assert key.get_attribute("type") == "password"
    assert form.locator("[name=port], [name=login], [name=schema]").count() == 0
    form.get_by_role("button", name="Extra Fields", exact=True).click()
    extra = {
        "provider_url": localnet.provider_url,
        "metadata_cache_url": localnet.metadata_cache_url,
        # Where it is on this machine belongs in no picture.
        "address_file": "/opt/airflow/address.json",
        "max_fee_gwei": "30",
    }
    for name, value in extra.items():
        form.locator(f"#element_{name}").fill(value)
    network = form.locator("#element_network_name")
    assert "Another network" in network.inner_text()
    network.click()
    offered = page.get_by_role("option")
    assert offered.all_inner_texts() == ["Another network", *(n.title for n in known_networks().values())]
    offered.filter(has_text="Optimism Sepolia").click()
    assert "Optimism Sepolia" in network.inner_text()
    network.click()
    offered.filter(has_text="Another network").click()
    support.screenshot(page, "connection", documented=True)
    form.locator("#element_address_file").fill(str(localnet.address_file))
    form.get_by_role("button", name="Save").click()
    row = page.get_by_role("row").filter(has_text="ocean_carlos")
    page.set_viewport_size({"width": 1440, "height": 700})
    row.get_by_role("button", name="Test Connection").click()
    said = page.get_by_text("Chain OK")
    said.wait_for()
    parts = said.inner_text().split(" | ")
    services = ("Ocean Node",) if STACK == "node" else ("Provider", "Aquarius")
    assert [part.split(":")[0] for part in parts] == [
        f"{name} OK" for name in ("Chain", "Contracts", *services, "Wallet")
    ]
    assert CARLOS.address in parts[-1]
    support.screenshot(page, "connection-test", documented=True)
    saved = ui_airflow.request("GET", "/api/v2/connections/ocean_carlos")
    assert (saved["conn_type"], saved["host"], saved["password"]) == ("ocean", localnet.rpc_url, "***")
    given = {name: value for name, value in json.loads(saved["extra"]).items() if value is not None}
    assert given == {**extra, "address_file": str(localnet.address_file)}


def test_a_schedule_is_switched_on_and_costs_nothing(page: Page, ui_airflow: Airflow, run: DagRun) -> None:
    assert run_ids(ui_airflow, RECURRING) == set()
    page.goto(f"{ui_airflow.url}/dags/{RECURRING}")
    page.get_by_test_id("toggle-pause").first.click()
    # At once the run of the last hour begins.
    new = wait_until(lambda: run_ids(ui_airflow, RECURRING), "the schedule has begun a run")
    scheduled = DagRun(ui_airflow, RECURRING, min(new))
    assert wait_until(lambda: ended(scheduled), "the scheduled run is over", timeout=500) == "success"
    assert scheduled.xcom("pay_for_compute", "cost")["transactions"] == []
    # The free part of an Ocean Node's environment takes none.
    orders = [] if STACK == "node" else run.xcom("pay_for_compute")
    assert scheduled.xcom("pay_for_compute") == orders
    page.goto(f"{ui_airflow.url}/plugin/ocean-runs")
    overview = support.ocean_frame(page)
    # The oldest is at the bottom: at the full hour there may be one more.
    row = overview.locator(".runs tbody tr").filter(has_text=RECURRING).last
    row.wait_for()
    assert row.locator("[data-label=State]").inner_text() == "success"
    assert row.locator("[data-label=Cost]").inner_text() == "nothing"
    row.locator(".thumbnail img").wait_for()
    page.set_viewport_size({"width": 1280, "height": 560})
    support.screenshot(page, "recurring")


def test_a_run_asks_before_it_spends(page: Page, ui_airflow: Airflow, with_orders: dict[str, Any]) -> None:
    # Any gas at all is above this limit.
    conf = {"spending_limit": '{"gas": "0"}', **with_orders}
    body = {"logical_date": None, "conf": conf}
    started = ui_airflow.request("POST", "/api/v2/dags/ocean_c2d/dagRuns", json=body)
    asking = DagRun(ui_airflow, "ocean_c2d", started["dag_run_id"])
    page.goto(tab_of(ui_airflow, asking))
    tab = support.ocean_frame(page)
    answer = tab.locator(".current li", has_text="waiting for somebody to answer").get_by_role("link")
    answer.filter(has_text="Answer").click(timeout=STEP)
    run_id = quote(asking.run_id, safe="")
    page.wait_for_url(f"**/dags/ocean_c2d/runs/{run_id}/tasks/approve_spending/required_actions*")
    approve = page.get_by_role("button", name="Approve")
    approve.wait_for()
    table = page.get_by_role("table").filter(has_text="Who pays").inner_text()
    quote_lines = asking.xcom("approve_spending", "quote")["lines"]
    # Through an Ocean Node's escrow it takes a deposit as well.
    assert [line["kind"] for line in quote_lines] == ["gas"] * 5 + ["lock", "gas"] * bool(with_orders)
    for line in quote_lines:
        assert line["what"] in table
        assert line["payer"] in table
    assert page.get_by_text("Nothing has been spent yet").is_visible()
    page.set_viewport_size({"width": 1440, "height": 820})
    support.screenshot(page, "approval", documented=True)
    approve.click()
    asking.wait_for_state("approve_spending", "success", timeout=300)
    assert asking.xcom("approve_spending", "answered_by") == "admin"
    asking.wait_for_state("publish_dataset", "success", timeout=300)
