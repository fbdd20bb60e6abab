"""What the HTTP services have in common: settings from the environment, a database, and a quiet server."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.pool import NullPool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi import FastAPI


@dataclass(frozen=True)
class ServiceSettings:
    """Settings every service reads from its environment.

    :param host: address to listen on
    :param port: TCP port to listen on
    :param state: folder of the service's own state
    """

    host: str
    port: int
    state: Path

    @classmethod
    def from_environment(cls) -> ServiceSettings:
        """Read ``HOST``, ``PORT`` and ``STATE_DIR``."""
        return cls(
            host=os.environ.get("HOST", "127.0.0.1"),
            port=int(required("PORT")),
            state=Path(required("STATE_DIR")),
        )


def required(name: str) -> str:
    """Return an environment variable or end the process with a sentence that names it."""
    value = os.environ.get(name)
    if not value:
        raise SystemExit(
            f"{name} is not set; `python -m include.localnet up` sets it for the services it starts"
        )
    return value


@contextlib.contextmanager
def alone_in(state: Path, name: str) -> Iterator[None]:
    """Keep a second process of a service out of its state: it would take the first one's jobs for leftovers.

    :param name: of the service, for the message
    :raises SystemExit: when another one is at work there
    """
    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SystemExit(f"Another {name} works in {state}; stop it first") from error
        yield


def open_database(path: Path) -> Engine:
    """Open an SQLite database that survives SIGKILL and lets readers and a writer work side by side."""
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool, connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def _configure(connection: object, _record: object) -> None:
        cursor = connection.cursor()  # type: ignore[attr-defined]
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    return engine


def serve(app: FastAPI, settings: ServiceSettings) -> None:
    """Serve until SIGTERM or SIGINT; one line a request goes to the service's log."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        timeout_graceful_shutdown=5,
        server_header=False,
    )
