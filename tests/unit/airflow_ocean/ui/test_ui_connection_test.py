"""The middleware for the Test button: what it changes, and that it changes nothing else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from airflow_ocean.ui.connection_test import PortlessConnectionTest

if TYPE_CHECKING:
    from starlette.requests import Request

TEST = "/airflow/api/v2/connections/test"
OCEAN = {
    "connection_id": "ocean_bob",
    "conn_type": "ocean",
    "host": "http://127.0.0.1:8545",
    "password": "***",
}


@pytest.fixture(scope="module")
def echo():
    """An application that answers with the body it gets, and with the length it was told of."""

    async def answer(request: Request) -> Response:
        return Response(await request.body(), headers={"told": request.headers["content-length"]})

    app = Starlette(routes=[Route("/{path:path}", answer, methods=["POST"])])
    app.add_middleware(PortlessConnectionTest)
    return TestClient(app)


def test_port_zero_of_an_ocean_connection_is_none(echo):
    answer = echo.post(TEST, json={**OCEAN, "port": 0})
    assert answer.json() == OCEAN
    assert int(answer.headers["told"]) == len(answer.content)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (TEST, json.dumps({**OCEAN, "port": 8545})),
        (TEST, json.dumps({**OCEAN, "port": None})),
        (TEST, json.dumps({**OCEAN, "conn_type": "http", "port": 0})),
        (TEST, json.dumps([0])),
        (TEST, "no JSON"),
        (TEST, b"\xff"),
        (TEST, "x" * 300_000),
        ("/airflow/api/v2/connections", json.dumps({**OCEAN, "port": 0})),
    ],
)
def test_all_else_passes_as_it_is(echo, path, body):
    answer = echo.post(path, content=body)
    assert answer.content == (body if isinstance(body, bytes) else body.encode())
    assert int(answer.headers["told"]) == len(answer.content)
