"""Which requests to the API server of an Airflow on SQLite take turns."""

from __future__ import annotations

import asyncio
import runpy
from typing import TYPE_CHECKING

import httpx
import pytest

from plugins import one_writer_plugin
from plugins.one_writer_plugin import OneWriter, OneWriterPlugin

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


class Meeting:
    """An application that counts the requests that it handles at once."""

    def __init__(self) -> None:
        self.here = 0
        self.most = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.here += 1
        self.most = max(self.most, self.here)
        for _ in range(100):
            await asyncio.sleep(0)
        self.here -= 1
        if scope["path"] == "/broken":
            raise RuntimeError("this request fails")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def most_at_once(*requests: tuple[str, str]) -> int:
    app = Meeting()
    transport = httpx.ASGITransport(OneWriter(app), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://airflow") as client:
        await asyncio.gather(*(client.request(method, path) for method, path in requests))
    return app.most


@pytest.mark.parametrize(
    "request_",
    [
        ("POST", "/api/v2/dags"),
        ("PUT", "/api/v2/dags"),
        ("PATCH", "/api/v2/dags"),
        ("DELETE", "/api/v2/dags"),
        # A connection with the id "test".
        ("PATCH", "/api/v2/connections/test"),
        ("DELETE", "/api/v2/connections/test"),
    ],
)
async def test_requests_that_write_take_turns(request_: tuple[str, str]) -> None:
    assert await most_at_once(request_, ("PATCH", "/execution/run")) == 1


async def test_a_request_that_fails_ends_its_turn() -> None:
    assert await most_at_once(("POST", "/broken"), ("POST", "/broken"), ("POST", "/api/v2/dags")) == 1


@pytest.mark.parametrize(
    "other",
    [
        ("GET", "/api/v2/dags"),
        ("HEAD", "/"),
        ("OPTIONS", "/"),
        ("POST", "/some/prefix/api/v2/connections/test"),
    ],
)
async def test_others_wait_for_nobody(other: tuple[str, str]) -> None:
    assert await most_at_once(("POST", "/api/v2/dags"), other, other) == 3


def test_the_plugin_is_there_where_the_database_is_sqlite() -> None:
    # The tests' own Airflow is on SQLite.
    assert [entry["middleware"] for entry in OneWriterPlugin.fastapi_root_middlewares] == [OneWriter]


def test_other_databases_have_no_need_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql+psycopg2://airflow@127.0.0.1/airflow"
    )
    loaded = runpy.run_path(one_writer_plugin.__file__)
    assert loaded["OneWriterPlugin"].fastapi_root_middlewares == []
