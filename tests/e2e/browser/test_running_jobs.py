"""What the tab tells of a job while it runs, and of its payment when that is settled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import STACK
from tests.e2e.browser.conftest import STEP, ended, open_form, own_page, run_ids, tab_of
from tests.support import browser as support
from tests.support.running_airflow import DagRun
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from include.demo.airflow import Airflow
    from include.localnet.settings import NetworkSettings

pytestmark = [pytest.mark.e2e, pytest.mark.both_stacks, pytest.mark.timeout(1500)]

# It goes on until it is stopped.
COUNTING = """
import itertools, time
for number in itertools.count(1):
    print(f"round {number} of this algorithm", flush=True)
    time.sleep(1)
"""


def test_a_job_that_runs_is_told_with_its_log_where_the_service_shows_it(
    page: Page, ui_airflow: Airflow, localnet: NetworkSettings, with_orders: dict[str, Any]
) -> None:
    localnet.files_folder.mkdir(parents=True, exist_ok=True)
    (localnet.files_folder / "counting.py").write_text(COUNTING)
    conf = {"algorithm_name": "Counting", "algorithm_url": f"{localnet.files_url}/counting.py", **with_orders}
    started = ui_airflow.request(
        "POST", "/api/v2/dags/ocean_c2d/dagRuns", json={"logical_date": None, "conf": conf}
    )
    running = DagRun(ui_airflow, "ocean_c2d", started["dag_run_id"])
    try:
        page.goto(tab_of(ui_airflow, running))
        job = support.ocean_frame(page).locator("#jobs .job")
        job.locator(".states", has_text="Running algorithm").wait_for(timeout=STEP)
        if STACK == "node":
            # The page renews itself, and shows the end of the log, unless somebody reads further up.
            log = job.locator("pre")
            log.filter(has_text="round 30 of this algorithm").wait_for(timeout=STEP)
            assert log.evaluate("e => e.scrollTop > 0 && e.scrollTop + e.clientHeight >= e.scrollHeight - 1")
            log.evaluate("e => { e.scrollTop = 10; }")
            seen = log.inner_text()
            wait_until(lambda: log.inner_text() != seen, "there are more lines")
            assert log.evaluate("e => e.scrollTop") == 10
            assert "The algorithm's log until now" in job.inner_text()
            assert "only after the job's end" not in job.inner_text()
        else:
            assert "This Provider shows the algorithm's log only after the job's end" in job.inner_text()
            assert job.locator("pre").count() == 0
        support.screenshot(page, "running-job")
        page.set_viewport_size(support.PHONE)
        page.goto(own_page(ui_airflow, running))
        page.locator("#jobs .job").wait_for()
        assert not support.is_too_wide(page)
        support.screenshot(page, "phone-running-job")
    finally:
        # The job ends with it.
        running.mark("failed")
    assert wait_until(lambda: ended(running), "the run is over", timeout=120) == "failed"


@pytest.mark.skipif(STACK != "node", reason="only an Ocean Node is paid through the escrow")
def test_what_was_locked_and_claimed_is_told(page: Page, ui_airflow: Airflow, run: DagRun) -> None:
    def told() -> tuple[str, str]:
        page.goto(own_page(ui_airflow, run))
        return page.locator("#orders").inner_text(), page.locator("#cost").inner_text()

    order, cost = told()
    assert "Locked in the escrow" in order
    assert "not known yet" in order
    assert "up to 2 OCEAN through the escrow, locked until the node claims" in cost

    before = run_ids(ui_airflow, "ocean_escrow")
    form = open_form(page, ui_airflow, "ocean_escrow")
    form.get_by_role("button", name="Settlement", exact=True).click()
    form.locator("#element_job_id").fill(run.xcom("start_compute"))
    form.locator("#element_manifest").fill(run.xcom("fetch_and_plot.fetch_results", "manifest"))
    form.get_by_role("button", name="Trigger").last.click()
    new = wait_until(lambda: run_ids(ui_airflow, "ocean_escrow") - before, "the run was triggered")
    settling = DagRun(ui_airflow, "ocean_escrow", new.pop())
    assert wait_until(lambda: ended(settling), "the run is over", timeout=500) == "success"

    order, cost = told()
    # A minute was begun.
    assert "1 OCEAN" in order
    assert "not known yet" not in order
    assert "1 OCEAN" in cost
    assert "escrow" not in cost
    page.locator("#orders").scroll_into_view_if_needed()
    support.screenshot(page, "settled-run")
    page.goto(own_page(ui_airflow, settling))
    assert "1 OCEAN" in page.locator("#cost").inner_text()
    assert "datatoken of" not in page.locator("#cost").inner_text()
    assert "0x" not in page.locator("#steps").inner_text()
    support.screenshot(page, "settling-run")
