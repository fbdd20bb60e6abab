"""One running Airflow for all tests with a browser: below a path prefix, with users of several roles."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from include.demo.airflow import Airflow
from include.demo.environment import airflow_environment, choose_port
from include.demo.interrupts import Teardown
from include.demo.up import set_connections
from include.localnet.cli import exports
from tests.support import browser as support
from tests.support.airflow import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

    from include.localnet.settings import NetworkSettings

PREFIX = "/some/prefix"
# One who may do all, one who may look, and one who may do nothing.
USERS = "admin:admin,viewer:viewer,stranger:"
# Milliseconds; all of Airflow and the network share the machine with the browser.
PATIENCE = 60_000


@pytest.fixture(scope="session")
def ui_airflow(localnet: NetworkSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """A running Airflow with the project's DAG and one that fails, its connections in the database."""
    home = tmp_path_factory.mktemp("airflow for a browser")
    dags = home / "dags"
    dags.mkdir()
    for source in (PROJECT / "dags" / "ocean_c2d.py", PROJECT / "tests/support/dags/failing.py"):
        shutil.copy(source, dags)
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
        set_connections(airflow, exports(localnet))
        for dag_id in ("ocean_c2d", "pay_for_nothing"):
            airflow.wait_for_dag(dag_id)
            airflow.unpause(dag_id)
        yield airflow
    finally:
        airflow.stop()


@pytest.fixture(scope="session")
def passwords(ui_airflow: Airflow) -> dict[str, str]:
    """The users' passwords, which Airflow has made."""
    found: dict[str, str] = json.loads(
        (ui_airflow.home / "simple_auth_manager_passwords.json.generated").read_text()
    )
    return found


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """A browser for all tests."""
    if support.CHROMIUM is None:
        pytest.skip(support.MISSING)
    with support.chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
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
