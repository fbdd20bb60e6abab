"""What Airflow is told of the pages, and what the Provider is asked for them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.airflow import PROJECT


@pytest.mark.parametrize(
    ("base_url", "prefix"),
    [
        ("", ""),
        ("http://localhost:8080", ""),
        ("https://example.com/", ""),
        ("https://example.com/air/flow/", "/air/flow"),
    ],
)
def test_addresses_are_below_airflows_root(
    monkeypatch: pytest.MonkeyPatch, base_url: str, prefix: str
) -> None:
    from airflow_ocean.ui.plugin import OceanPlugin

    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base_url)
    tab, navigation = OceanPlugin().external_views
    assert tab["href"] == f"{prefix}/ocean/dags/{{DAG_ID}}/runs/{{RUN_ID}}"
    assert navigation["href"] == f"{prefix}/ocean/runs"
    assert {view["icon"] for view in (tab, navigation)} == {f"{prefix}/ocean/static/icon.svg"}
    assert (tab["destination"], navigation["destination"]) == ("dag_run", "nav")


def test_a_worker_that_loads_plugins_does_not_load_the_pages() -> None:
    program = (
        "import sys; from airflow import plugins_manager; plugins_manager.ensure_plugins_loaded();"
        "print('airflow_ocean.ui.plugin' in sys.modules, 'airflow_ocean.ui.app' in sys.modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert answer.stdout.split()[-2:] == ["True", "False"]
