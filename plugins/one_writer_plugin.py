"""Requests that write take turns, where Airflow's database is SQLite.

Airflow's API server writes what a user does to its audit log in its event loop. SQLite has one writer at a time: when
another request has just written and needs the event loop to commit, each waits for the other, until the database's
time-out ends the user's request with a 500 and "database is locked".
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class OneWriter:
    """ASGI middleware that lets one request at a time write.

    :param app: the API server's
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._turn = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, one that writes when those before it are through."""
        if _writes(scope):
            async with self._turn:
                await self._app(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _writes(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["method"] in _READING:
        return False
    # The test button of the connection form writes nothing, and may wait for services. Other methods at its path are for a
    # connection of that name.
    return not (scope["method"] == "POST" and scope["path"].endswith("/connections/test"))


def _database_is_sqlite() -> bool:
    return conf.get("database", "sql_alchemy_conn").startswith("sqlite")


class OneWriterPlugin(AirflowPlugin):
    """Puts :class:`OneWriter` around the API server of an Airflow on SQLite; other databases have no need of it."""

    name = "one_writer"
    fastapi_root_middlewares = (
        [{"name": "One writer", "middleware": OneWriter}] if _database_is_sqlite() else []
    )
