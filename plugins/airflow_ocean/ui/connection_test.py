"""The Test button of connections without a port, which Airflow's UI up to 3.3.2 cannot press without help."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PATH = "/api/v2/connections/test"
_CONNECTION_TYPE = "ocean"


class PortlessConnectionTest:
    """ASGI middleware that lets the Test button of Ocean connections work.

    For a connection without a port Airflow's UI sends port 0, which its API takes for another port than the stored one, and
    refuses to use the stored key for it (https://github.com/apache/airflow/pull/73298). Here that 0 becomes none again; a
    request about any other type of connection, or with a real port, passes as it is.

    :param app: what answers
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].endswith(_PATH):
            await self._app(scope, receive, send)
            return
        body = b""
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return  # the browser has gone
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        body = without_port_zero(body)
        headers = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
        scope = {**scope, "headers": [*headers, (b"content-length", str(len(body)).encode())]}
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        await self._app(scope, replay, send)


def without_port_zero(body: bytes) -> bytes:
    """Return the request's body, without its port when it is an Ocean connection's and 0."""
    try:
        fields: Any = json.loads(body)
    except ValueError:
        return body
    if not isinstance(fields, dict) or fields.get("conn_type") != _CONNECTION_TYPE or fields.get("port") != 0:
        return body
    return json.dumps({name: value for name, value in fields.items() if name != "port"}).encode()
