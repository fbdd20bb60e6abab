"""Jobs written straight into the operator-service's database: as many, as old and as long-running as one needs."""

from __future__ import annotations

import contextlib
import json
import secrets
import sqlite3
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from include.localnet.settings import NetworkSettings

_RESULTS = [
    {"filename": "result", "filesize": 1200, "type": "output"},
    {"filename": "algorithm.log", "filesize": 300, "type": "algorithmLog"},
    {"filename": "configure.log", "filesize": 300, "type": "configrationLog"},
    {"filename": "publish.log", "filesize": 300, "type": "publishLog"},
]
_COLUMNS = (
    "job_id, agreement_id, owner, provider, environment, status, status_text, date_created, date_finished, "
    "stop_request, removed, algorithm, inputs, results, secret, workflow"
)


class JobHistory:
    """Jobs of a consumer, by default of one nobody else has.

    :param settings: a local network that is up
    """

    def __init__(self, settings: NetworkSettings, consumer: str | None = None) -> None:
        self._path = settings.home / "state" / "operator_service" / "operator.sqlite"
        assert self._path.is_file()
        self.consumer = consumer or "0x" + secrets.token_hex(20)
        self._added: list[str] = []

    def add(self, count: int, *, finished: bool = False) -> list[str]:
        """Add jobs, which run unless they are over, and return their ids."""
        ids = [secrets.token_hex(16) for _ in range(count)]
        self._added += ids
        now = time.time()
        rows = [
            (
                job_id,
                "0x" + secrets.token_hex(32),
                self.consumer,
                "0x" + "00" * 20,
                "nowhere",  # so that no engine takes it for its own
                70 if finished else 40,
                "Job finished" if finished else "Running algorithm",
                now - 60,
                now if finished else None,
                0,
                0,
                "did:op:" + secrets.token_hex(32),
                json.dumps(["did:op:" + secrets.token_hex(32)]),
                json.dumps(_RESULTS) if finished else None,
                "",
                "{}",
            )
            for job_id in ids
        ]
        with self._database() as database:
            database.executemany(f"INSERT INTO jobs ({_COLUMNS}) VALUES ({', '.join('?' * 16)})", rows)
        return ids

    def reach(self, job_id: str, status: int, text: str) -> None:
        """Let a job come to a state."""
        self._update(job_id, "status = ?, status_text = ?", status, text)

    def finish(self, job_id: str) -> None:
        """Let a job end well."""
        self._update(
            job_id,
            "status = 70, status_text = 'Job finished', date_finished = ?, results = ?",
            time.time(),
            json.dumps(_RESULTS),
        )

    def remove(self) -> None:
        """Delete all that was added."""
        with self._database() as database:
            database.executemany("DELETE FROM jobs WHERE job_id = ?", [(job_id,) for job_id in self._added])

    def _update(self, job_id: str, changes: str, *values: object) -> None:
        with self._database() as database:
            changed = database.execute(f"UPDATE jobs SET {changes} WHERE job_id = ?", (*values, job_id))
            assert changed.rowcount == 1

    @contextlib.contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(self._path, timeout=30)
        with contextlib.closing(database), database:
            yield database
