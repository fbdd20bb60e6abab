"""Jobs written straight into a service's database: as many, as old and as long-running as one needs."""

from __future__ import annotations

import contextlib
import json
import secrets
import sqlite3
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import httpx

from include.localnet.node import store as node_store
from include.localnet.node.layout import NodeFolders
from include.localnet.operator_service.publishing import discard
from include.localnet.operator_service.store import STATUS_TEXTS

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
_RUNNING, _FINISHED = 40, 70


class JobHistory(ABC):
    """Jobs of a consumer, by default of one nobody else has. Each stays as it is until it is told to go on.

    :param consumer: address
    """

    def __init__(self, consumer: str | None = None) -> None:
        self.consumer = consumer or "0x" + secrets.token_hex(20)
        self._added: list[str] = []

    @abstractmethod
    def add(self, count: int, *, finished: bool = False) -> list[str]:
        """Add jobs, whose algorithms run unless they are over, and return their ids as clients know them."""

    @abstractmethod
    def reach(self, job_id: str, status: int) -> None:
        """Let a job come to a state."""

    @abstractmethod
    def finish(self, job_id: str) -> None:
        """Let a job end well."""

    @abstractmethod
    def remove(self) -> None:
        """Delete all that was added."""


def job_history(settings: NetworkSettings, consumer: str | None = None) -> JobHistory:
    """Return jobs of the service that runs a network's jobs.

    :param settings: a local network that is up
    :param consumer: address, by default of one nobody else has
    """
    kind = NodeJobHistory if settings.stack == "node" else OperatorJobHistory
    return kind(settings, consumer)


class OperatorJobHistory(JobHistory):
    """Jobs of the operator-service."""

    def __init__(self, settings: NetworkSettings, consumer: str | None = None) -> None:
        super().__init__(consumer)
        self._path = settings.home / "state" / "operator_service" / "operator.sqlite"
        assert self._path.is_file()

    def add(self, count: int, *, finished: bool = False) -> list[str]:
        """Add jobs."""
        ids = [secrets.token_hex(16) for _ in range(count)]
        self._added += ids
        now = time.time()
        status = _FINISHED if finished else _RUNNING
        rows = [
            (
                job_id,
                "0x" + secrets.token_hex(32),
                self.consumer,
                "0x" + "00" * 20,
                "nowhere",  # so that no engine takes it for its own
                status,
                STATUS_TEXTS[status],
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

    def reach(self, job_id: str, status: int) -> None:
        """Let a job come to a state."""
        self._update(job_id, "status = ?, status_text = ?", status, STATUS_TEXTS[status])

    def finish(self, job_id: str) -> None:
        """Let a job end well."""
        self.reach(job_id, _FINISHED)
        self._update(job_id, "date_finished = ?, results = ?", time.time(), json.dumps(_RESULTS))

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


class NodeJobHistory(JobHistory):
    """Free jobs of an Ocean Node that use none of its resources.

    A node begins with stored jobs only when it is started, so that it leaves these alone until then.
    """

    def __init__(self, settings: NetworkSettings, consumer: str | None = None) -> None:
        super().__init__(consumer)
        state = settings.home / "state" / "node"
        assert (state / "jobs.sqlite").is_file()
        self._jobs = node_store.JobStore(state / "jobs.sqlite")
        self._folders = state / "jobs"
        listed = httpx.get(f"{settings.node_url}/api/services/computeEnvironments", trust_env=False)
        self._environment = str(listed.raise_for_status().json()[0]["id"])

    def add(self, count: int, *, finished: bool = False) -> list[str]:
        """Add jobs."""
        return [self._add(finished=finished) for _ in range(count)]

    def _add(self, *, finished: bool) -> str:
        number = secrets.token_hex(32)
        job = node_store.Job.new(number, self.consumer, self._environment, {}, duration=3600, resources=[])
        NodeFolders(self._folders / number).create()  # with the log that the node streams
        self._jobs.add(job)
        job_id = f"{self._environment.partition('-')[0]}-{number}"
        self._added.append(job_id)
        self.reach(job_id, _RUNNING)
        if finished:
            self.finish(job_id)
        return job_id

    def reach(self, job_id: str, status: int) -> None:
        """Let a job come to a state."""
        self._jobs.change(_number(job_id), status)

    def finish(self, job_id: str) -> None:
        """Let a job end well."""
        ended = {"exitCode": 0, "OOMKilled": False}
        self._jobs.change(_number(job_id), _FINISHED, finish=True, terminationDetails=ended)

    def remove(self) -> None:
        """Delete all that was added."""
        for job_id in self._added:
            self._jobs.remove(_number(job_id))
            discard(self._folders / _number(job_id))


def _number(job_id: str) -> str:
    """Return the id without its cluster."""
    return job_id.partition("-")[2]
