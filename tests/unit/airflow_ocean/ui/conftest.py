"""Fixtures for the pages: Airflow's database, and a DAG in it whose runs a test writes."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import pytest

from tests.support.airflow import migrate_database, prepare_airflow_home

prepare_airflow_home()

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy.orm import Session

    from tests.support.ocean_runs import TaskRow

RUN = "a run"


@pytest.fixture
def session() -> Iterator[Session]:
    """A session of Airflow's database."""
    migrate_database()
    from airflow.utils.session import create_session

    with create_session(scoped=False) as session:
        yield session


@pytest.fixture
def dag_id(session: Session) -> Iterator[str]:
    """A DAG of the test's own; its runs are deleted afterwards."""
    from tests.support.ocean_runs import delete_runs

    dag_id = f"dag_{uuid.uuid4().hex}"
    yield dag_id
    session.rollback()
    delete_runs(session, dag_id)


class Site:
    """The app with a run in the database and an artifact base, for a user who may see all."""

    def __init__(self, session: Session, dag_id: str, base: Path) -> None:
        from airflow.api_fastapi.core_api.security import get_user

        from airflow_ocean.ui import app as module

        self._session, self.dag_id, self.base = session, dag_id, base
        self.app = module.create_app()
        checks = [check.dependency for check in module._MAY_READ]
        for check in (*checks, get_user, module.may_read_logs, module.readable_dags):
            self.app.dependency_overrides[check] = lambda: True

    def folder(self, task_id: str) -> Path:
        from airflow_ocean.artifacts import path_segment

        folder = self.base / self.dag_id / path_segment(RUN) / task_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def keep(self, task_id: str, name: str, content: bytes) -> str:
        path = self.folder(task_id) / name
        path.write_bytes(content)
        return f"file://{path}"

    def manifest(self, *files: dict[str, Any], name: str = "manifest.json") -> str:
        content = {"job_id": "job", "algorithm_did": None, "dataset_dids": [], "files": list(files)}
        return self.keep("fetch", name, json.dumps(content).encode())

    def add(self, fetch: dict[str, Any], plot: Any = None) -> None:
        from tests.support.ocean_runs import TaskRow

        tasks = [
            TaskRow("fetch", "OceanFetchResultsOperator", xcoms=fetch),
            TaskRow("plot", "OceanPlotOperator", xcoms={"return_value": plot}),
        ]
        self.add_tasks("success", *tasks)

    def add_tasks(self, state: str, *tasks: TaskRow) -> None:
        from tests.support.ocean_runs import add_runs

        add_runs(self._session, self.dag_id, [(RUN, state, list(tasks))])

    async def get(self, path: str = "") -> httpx.Response:
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(f"/dags/{self.dag_id}/runs/{quote(RUN)}{path}")


@pytest.fixture
def site(session: Session, dag_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    base = tmp_path / "artifacts"
    base.mkdir()
    monkeypatch.setenv("AIRFLOW_OCEAN_ARTIFACTS", str(base))
    return Site(session, dag_id, base)
