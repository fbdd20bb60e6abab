"""The Airflow plugin: which pages there are, and where the UI shows them."""

from __future__ import annotations

from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

from airflow_ocean.links import RUN_TAB
from airflow_ocean.ui.connection_test import PortlessConnectionTest

URL_PREFIX = "/ocean"


def base_path() -> str:
    """Return the path that Airflow is served below, without a slash at its end: ``/airflow``, or nothing."""
    return urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")


class OceanPlugin(AirflowPlugin):
    """The tab *Ocean* of a run, the page *Ocean runs*, and help for the connections' Test button."""

    name = "ocean"

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The app behind the pages; workers load plugins as well, and never ask for it, which saves them seconds."""
        from airflow_ocean.ui.app import create_app

        return [{"app": create_app(), "url_prefix": URL_PREFIX, "name": "Ocean"}]

    @cached_property
    def fastapi_root_middlewares(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """What requests pass before Airflow answers them."""
        return [{"name": "Test button of Ocean connections", "middleware": PortlessConnectionTest}]

    @cached_property
    def external_views(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Where the UI shows the pages."""
        root = base_path() + URL_PREFIX
        icons = {"icon": f"{root}/static/icon.svg", "icon_dark_mode": f"{root}/static/icon-dark.svg"}
        return [
            {
                "name": "Ocean",
                "href": f"{root}/dags/{{DAG_ID}}/runs/{{RUN_ID}}",
                "destination": "dag_run",
                "url_route": RUN_TAB,
                **icons,
            },
            {
                "name": "Ocean runs",
                "href": f"{root}/runs",
                "destination": "nav",
                "url_route": "ocean-runs",
                "nav_top_level": True,
                **icons,
            },
        ]
