"""The package's pages in a real browser: a run from the form to its plot, found again, downloaded, and by whom."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import pytest

from tests.e2e.browser.conftest import DATASET, EXPLORER, PREFIX, every_route, own_page, tab_of
from tests.support import browser as support
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

    from include.demo.airflow import Airflow
    from tests.support.running_airflow import DagRun

# The first test waits for Airflow, the network and a whole run, beside a browser.
pytestmark = [pytest.mark.e2e, pytest.mark.both_stacks, pytest.mark.timeout(1500)]

DARK_AND_LIGHT = pytest.mark.parametrize("page", ["light", "dark"], indirect=True)


@DARK_AND_LIGHT
def test_the_tab_tells_the_run(page: Page, ui_airflow: Airflow, run: DagRun, request: Any) -> None:
    page.goto(tab_of(ui_airflow, run))
    tab = support.ocean_frame(page)
    image = tab.locator("#plots img")
    image.wait_for()
    wait_until(lambda: image.evaluate("image => image.naturalWidth"), "the plot is drawn")
    said = tab.locator("main").inner_text()
    job = run.xcom("start_compute")
    for told in (DATASET, "Gaussian process", "Done", "wrote 15 x 15 predictions", "datatoken of", job[:12]):
        assert told in said
    assert run.xcom("publish_dataset")[:14] in said
    assert "What went wrong" not in said
    scheme = request.node.callspec.params["page"]
    # Airflow's theme is the frame's, too.
    assert tab.locator("html").evaluate("e => e.dataset.theme") == scheme
    light = scheme == "light"
    support.screenshot(page, "run-page" if light else "run-page-dark", documented=light)


@DARK_AND_LIGHT
def test_the_run_is_in_the_overview(
    page: Page, ui_airflow: Airflow, run: DagRun, failed_run: DagRun, request: Any
) -> None:
    page.set_viewport_size({"width": 1280, "height": 560})
    page.goto(ui_airflow.url)
    page.get_by_role("link", name="Ocean runs").click()
    overview = support.ocean_frame(page)
    overview.locator(".runs").wait_for()
    thumbnail = overview.locator(".thumbnail img").first
    wait_until(lambda: thumbnail.evaluate("image => image.naturalWidth"), "the thumbnail is drawn")
    light = request.node.callspec.params["page"] == "light"
    support.screenshot(page, "overview" if light else "overview-dark", documented=light)
    overview.get_by_label("Asset").fill("branin FUNC")
    overview.get_by_role("button", name="Filter").click()
    overview.get_by_role("link", name="Show all").wait_for()
    row = overview.locator(".runs tbody tr")
    assert row.count() == 1
    assert "2 datatokens" in row.inner_text()
    # The frame lets no link out by itself.
    row.get_by_role("link").first.click()
    page.wait_for_url(f"**{PREFIX}/dags/ocean_c2d/runs/*/plugin/ocean*")
    support.ocean_frame(page).locator("#plots img").wait_for()


def test_an_artifact_is_downloaded(page: Page, ui_airflow: Airflow, run: DagRun, tmp_path: Path) -> None:
    page.goto(tab_of(ui_airflow, run))
    tab = support.ocean_frame(page)
    with page.expect_download() as download:
        tab.get_by_role("link", name="Download result", exact=True).click()
    assert download.value.suggested_filename == "result"
    download.value.save_as(tmp_path / "result")
    uri = run.xcom("fetch_and_plot.fetch_results", "manifest").removeprefix("file://")
    with open(uri) as manifest:
        listed = {file["name"]: file["sha256"] for file in json.load(manifest)["files"]}
    assert hashlib.sha256((tmp_path / "result").read_bytes()).hexdigest() == listed["result"]


def test_buttons_on_tasks_lead_to_the_explorer_and_to_the_place_on_the_tab(
    page: Page, ui_airflow: Airflow, run: DagRun
) -> None:
    job = run.xcom("start_compute")
    nft = run.xcom("publish_dataset", "nft_address")
    sent = {
        task: run.xcom(task, "cost")["transactions"][-1]
        for task in ("publish_dataset", "allow_algorithm", "transfer_datatokens")
    }
    sent["pay_for_compute"] = run.xcom("pay_for_compute")[-1]
    for task, last in sent.items():
        found = ui_airflow.request("GET", f"{run.path}/taskInstances/{task}/links")["extra_links"]
        of_asset = {"Asset on the chain": f"{EXPLORER}/address/{nft}"} if task == "publish_dataset" else {}
        assert found == {"Transaction": f"{EXPLORER}/tx/{last}", **of_asset}
    expected = {
        "start_compute": {"Compute job": f"job-{job}"},
        "wait_for_compute": {"Compute job": f"job-{job}"},
        "fetch_and_plot.fetch_results": {"Compute job": f"job-{job}", "Artifacts": "artifacts"},
        "fetch_and_plot.plot": {"Artifacts": "artifacts"},
    }
    for task, links in expected.items():
        found = ui_airflow.request("GET", f"{run.path}/taskInstances/{task}/links")["extra_links"]
        assert found == {name: f"{tab_of(ui_airflow, run)}#{anchor}" for name, anchor in links.items()}
    page.goto(
        f"{ui_airflow.url}/dags/ocean_c2d/runs/{quote(run.run_id, safe='')}/tasks/start_compute/details"
    )
    button = page.get_by_role("link", name="Compute job").first
    button.wait_for()
    address = button.get_attribute("href")
    assert address is not None
    page.goto(address)
    tab = support.ocean_frame(page)
    place = tab.locator(f"#job-{job}")
    place.wait_for()
    wait_until(lambda: place.evaluate("e => e === document.activeElement"), "the job has the focus")


def test_an_error_is_shown_with_what_to_do(page: Page, ui_airflow: Airflow, failed_run: DagRun) -> None:
    page.goto(tab_of(ui_airflow, failed_run))
    problem = support.ocean_frame(page).locator("#problems")
    problem.wait_for()
    said = problem.inner_text()
    assert "AssetNotFoundError" in said
    assert f"did:op:{'0' * 64}" in said
    assert "Check the DID" in said
    support.screenshot(page, "failed-run")
    problem.get_by_role("link", name="Open the task").click()
    page.wait_for_url("**/tasks/pay")


@DARK_AND_LIGHT
def test_all_can_be_read_and_reached(
    page: Page, ui_airflow: Airflow, run: DagRun, failed_run: DagRun
) -> None:
    addresses = [own_page(ui_airflow, run), own_page(ui_airflow, failed_run), f"{ui_airflow.url}/ocean/runs"]
    for address in addresses:
        page.goto(address)
        texts = support.contrasts(page)
        assert len(texts) > 10
        assert [text for text in texts if text[0] < 4.5] == []
        focused = support.tab_through(page)
        assert len(focused) >= 4
        # In the order of the document, and seen.
        assert [item["place"] for item in focused] == sorted(item["place"] for item in focused)
        assert [item for item in focused if not item["visible"] or not item["name"]] == []
        images = page.locator("img:not([alt])")
        assert images.count() == 0


def test_a_phone_shows_all_without_scrolling_sideways(
    page: Page, ui_airflow: Airflow, run: DagRun, failed_run: DagRun
) -> None:
    page.set_viewport_size(support.PHONE)
    for name, address in (
        ("phone-run", own_page(ui_airflow, run)),
        ("phone-failed", own_page(ui_airflow, failed_run)),
        ("phone-overview", f"{ui_airflow.url}/ocean/runs"),
    ):
        page.goto(address)
        page.locator("h1").wait_for()
        assert not support.is_too_wide(page), name
        support.screenshot(page, name)


def test_nothing_is_refused_or_fetched_from_elsewhere(page: Page, ui_airflow: Airflow, run: DagRun) -> None:
    complaints: list[str] = []
    hosts: set[str] = set()
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: hosts.add(httpx.URL(request.url).netloc.decode()))
    for address in (own_page(ui_airflow, run), f"{ui_airflow.url}/ocean/runs"):
        page.goto(address, wait_until="networkidle")
    assert complaints == []
    assert hosts == {httpx.URL(ui_airflow.url).netloc.decode()}


# ---------------------------------------------------------------------- who may see what


@pytest.mark.parametrize(
    ("user", "status"), [(None, 401), ("stranger", 403), ("viewer", 200), ("admin", 200)]
)
def test_who_may_see_what(
    ui_airflow: Airflow, passwords: dict[str, str], run: DagRun, user: str | None, status: int
) -> None:
    with httpx.Client(trust_env=False, timeout=60) as http:
        if user is not None:
            answer = http.post(
                f"{ui_airflow.url}/auth/token", json={"username": user, "password": passwords[user]}
            )
            http.cookies.set("_token", answer.json()["access_token"])
        addresses = every_route(run)
        assert len(addresses) == 4
        answers = {address: http.get(ui_airflow.url + address) for address in addresses}
    assert {address: answer.status_code for address, answer in answers.items()} == dict.fromkeys(
        addresses, status
    )
    if status != 200:
        assert not any(DATASET in answer.text or run.run_id in answer.text for answer in answers.values())
