"""One running Airflow for all tests with a browser: below a path prefix, with users of several roles."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from eth_account import Account

from include.demo.airflow import Airflow
from include.demo.environment import airflow_environment, choose_port
from include.demo.interrupts import Teardown
from include.demo.up import set_connections
from include.localnet.accounts import BOB
from include.localnet.cli import exports
from tests.support import browser as support
from tests.support.airflow import PROJECT
from tests.support.running_airflow import DagRun
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Locator, Page

    from include.localnet.settings import NetworkSettings

PREFIX = "/some/prefix"
# One who may do all, one who may look, and one who may do nothing.
USERS = "admin:admin,viewer:viewer,stranger:"
# Milliseconds; all of Airflow and the network share the machine with the browser.
PATIENCE = 60_000
# Milliseconds that a step of the run may take on a busy machine.
STEP = 500_000
DATASET = "Branin function"
KEYSTORE_PASSWORD = "an open sesame for Bob"
DAG_IDS = (
    "ocean_c2d",
    "ocean_c2d_recurring",
    "ocean_c2d_sweep",
    "ocean_algorithm_rehearsal",
    "ocean_escrow",
)
DAGS = (*(f"dags/{dag_id}.py" for dag_id in DAG_IDS), "tests/support/dags/failing.py")
EXPLORER = "https://explorer.example"


@pytest.fixture(scope="package")
def ui_airflow(localnet: NetworkSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """A running Airflow with the project's DAGs and one that fails, its connections in the database."""
    home = tmp_path_factory.mktemp("airflow for a browser")
    dags = home / "dags"
    dags.mkdir()
    for source in DAGS:
        shutil.copy(PROJECT / source, dags)
    base = {**os.environ, "AIRFLOW_OCEAN_ARTIFACTS": str(home / "artifacts")}
    environment = airflow_environment(home, port=choose_port(28280), dags=dags, base=base)
    url = environment["AIRFLOW__API__BASE_URL"] + PREFIX
    environment |= {
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": USERS,
        "AIRFLOW__CORE__PARALLELISM": "3",
        "OCEAN_FILES_URL": localnet.files_url,
    }
    airflow = Airflow(environment, home, Teardown())
    try:
        airflow.start()
        airflow.wait_until_ready()
        set_connections(airflow, with_explorer(with_keystore(exports(localnet), home / "bob.json")))
        for dag_id in ("ocean_c2d", "pay_for_nothing"):
            airflow.wait_for_dag(dag_id)
            airflow.unpause(dag_id)
        for dag_id in DAG_IDS:
            airflow.wait_for_dag(dag_id)
        yield airflow
    finally:
        airflow.stop()


def with_keystore(variables: dict[str, str], path: Path) -> dict[str, str]:
    """Let Bob's key be in an encrypted keystore file, so that the runs use its password; Alice's stays a plain key."""
    path.write_text(
        json.dumps(Account.encrypt(BOB.private_key, KEYSTORE_PASSWORD, "pbkdf2", iterations=1000))
    )
    bob = json.loads(variables["AIRFLOW_CONN_OCEAN_BOB"])
    bob |= {"password": KEYSTORE_PASSWORD, "extra": {**bob["extra"], "keystore_path": str(path)}}
    return {**variables, "AIRFLOW_CONN_OCEAN_BOB": json.dumps(bob)}


def with_explorer(variables: dict[str, str]) -> dict[str, str]:
    """Give the connections a block explorer."""
    prefix = "AIRFLOW_CONN_OCEAN_"
    connections = {name: json.loads(text) for name, text in variables.items() if name.startswith(prefix)}
    for fields in connections.values():
        fields["extra"]["explorer_url"] = EXPLORER
    return {**variables, **{name: json.dumps(fields) for name, fields in connections.items()}}


@pytest.fixture(scope="package")
def passwords(ui_airflow: Airflow) -> dict[str, str]:
    """The users' passwords, which Airflow has made."""
    found: dict[str, str] = json.loads(
        (ui_airflow.home / "simple_auth_manager_passwords.json.generated").read_text()
    )
    return found


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """A browser for all tests."""
    if support.CHROMIUM is None:
        pytest.skip(support.MISSING)
    with support.chromium() as browser:
        yield browser


@pytest.fixture(scope="package")
def login(chromium: Browser, ui_airflow: Airflow, passwords: dict[str, str]) -> str:
    """The state of a browser in which the administrator has logged in, as JSON."""
    context = chromium.new_context()
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    support.log_in(page, ui_airflow.url, "admin", passwords["admin"])
    state = json.dumps(context.storage_state())
    context.close()
    return state


@pytest.fixture(params=["light"])
def page(chromium: Browser, login: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page of the administrator's; the parameter is the colour scheme of the system."""
    context = chromium.new_context(
        storage_state=json.loads(login), color_scheme=request.param, viewport=support.DESKTOP
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    yield page
    context.close()


# ---------------------------------------------------------------------- runs


def ended(run: DagRun) -> str | None:
    state = run.state
    return state if state in ("success", "failed") else None


@pytest.fixture(scope="package")
def run(ui_airflow: Airflow, with_orders: dict[str, Any], request: pytest.FixtureRequest) -> DagRun:
    """A finished run of the project's DAG; where there is a browser, a person has triggered and watched it."""
    conf = {"dataset_name": DATASET, **with_orders}
    if support.CHROMIUM is None:
        body = {"logical_date": None, "conf": conf}
        started = ui_airflow.request("POST", "/api/v2/dags/ocean_c2d/dagRuns", json=body)
        run = DagRun(ui_airflow, "ocean_c2d", started["dag_run_id"])
    else:
        chromium, login = request.getfixturevalue("chromium"), request.getfixturevalue("login")
        context = chromium.new_context(storage_state=json.loads(login), viewport=support.DESKTOP)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        run = trigger_with_the_form(page, ui_airflow, conf)
        watch(page, ui_airflow, run)
        context.close()
    assert wait_until(lambda: ended(run), "the run is over", timeout=180) == "success"
    return run


def run_ids(airflow: Airflow, dag_id: str) -> set[str]:
    runs = airflow.request("GET", f"/api/v2/dags/{dag_id}/dagRuns")["dag_runs"]
    return {run["dag_run_id"] for run in runs}


def open_form(page: Page, airflow: Airflow, dag_id: str) -> Locator:
    """Open the form that triggers a DAG, as a person does."""
    page.goto(f"{airflow.url}/dags/{dag_id}")
    page.get_by_role("button", name="Trigger").first.click()
    return page.locator("[role=dialog][data-scope=dialog]")


def params_of(airflow: Airflow, dag_id: str) -> dict[str, dict[str, Any]]:
    """Return the DAG's params as the form gets them, by section and name."""
    found: dict[str, dict[str, Any]] = {}
    for name, param in airflow.request("GET", f"/api/v2/dags/{dag_id}/details")["params"].items():
        found.setdefault(param["schema"]["section"], {})[name] = param
    return found


def open_section(form: Locator, section: str) -> Locator:
    """Unfold a section of the form."""
    opener = form.get_by_role("button", name=section, exact=True)
    if opener.get_attribute("aria-expanded") != "true":
        opener.click()
    return form.get_by_role("region", name=section, exact=True)


def trigger_with_the_form(page: Page, airflow: Airflow, conf: dict[str, Any]) -> DagRun:
    before = run_ids(airflow, "ocean_c2d")
    form = open_form(page, airflow, "ocean_c2d")
    for section, params in params_of(airflow, "ocean_c2d").items():
        for name in params.keys() & conf.keys():
            open_section(form, section).locator(f"[name=element_{name}]").fill(str(conf[name]))
    form.get_by_role("button", name="Trigger").last.click()

    new = wait_until(lambda: run_ids(airflow, "ocean_c2d") - before, "the run was triggered")
    return DagRun(airflow, "ocean_c2d", new.pop())


def watch(page: Page, airflow: Airflow, run: DagRun) -> None:
    """Open the run's tab and leave it open: it says by itself what is being done, and at last shows the plot."""
    page.goto(f"{airflow.url}/dags/ocean_c2d/runs/{quote(run.run_id, safe='')}")
    page.get_by_role("link", name="Ocean", exact=True).click()
    tab = support.ocean_frame(page)
    tab.locator(".current li").first.wait_for(timeout=STEP)
    tab.locator("#jobs .states").first.wait_for(timeout=STEP)
    tab.locator("#plots img").wait_for(timeout=STEP)
    tab.locator("h1 .badge", has_text="Done").wait_for(timeout=STEP)


@pytest.fixture(scope="package")
def failed_run(ui_airflow: Airflow) -> DagRun:
    started = ui_airflow.request("POST", "/api/v2/dags/pay_for_nothing/dagRuns", json={"logical_date": None})
    run = DagRun(ui_airflow, "pay_for_nothing", started["dag_run_id"])
    assert wait_until(lambda: ended(run), "the run is over", timeout=180) == "failed"
    return run


# ---------------------------------------------------------------------- addresses


def own_page(airflow: Airflow, run: DagRun) -> str:
    """Return the address of a run's page outside of Airflow's frame."""
    return f"{airflow.url}/ocean/dags/{run.dag_id}/runs/{quote(run.run_id, safe='')}"


def tab_of(airflow: Airflow, run: DagRun) -> str:
    return f"{airflow.url}/dags/{run.dag_id}/runs/{quote(run.run_id, safe='')}/plugin/ocean"


def every_route(run: DagRun) -> list[str]:
    """Return an address of each of the app's routes, with what exists filled in."""
    from airflow_ocean.ui.app import create_app

    task = {"plots": "fetch_and_plot.plot", "artifacts": "fetch_and_plot.fetch_results"}
    found = []
    for route in create_app().routes:
        path = getattr(route, "path", "")
        if path == "/static":
            continue  # style sheet, script and icons, the same for everybody
        task_id = next((name for kind, name in task.items() if f"/{kind}/" in path), "")
        found.append(
            "/ocean"
            + path.format(
                dag_id=run.dag_id, run_id=quote(run.run_id, safe=""), task_id=task_id, map_index=-1, number=0
            )
        )
    return found
