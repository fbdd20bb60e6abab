"""The node's jobs in SQLite: what is in here survives everything."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Float, Integer, MetaData, String, Table, Text, delete, insert, select, update

from include.localnet.node.escrow import job_hash
from include.localnet.node.javascript import now_text
from include.localnet.service import open_database

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from sqlalchemy import Engine

QUEUED, EXPIRED, PULLING, CONFIGURING, PROVISIONING = 1, 2, 10, 20, 30
DATA_FAILED, ALGORITHM_PROVISIONING_FAILED, RUNNING, ALGORITHM_FAILED, DISK_FULL = 31, 32, 40, 41, 42
PUBLISHING, FINISHED, SETTLING = 60, 70, 71
STATUS_TEXTS = {
    QUEUED: "Job queued",
    EXPIRED: "Job expired in queue",
    PULLING: "Pulling algorithm image",
    CONFIGURING: "Configuring volumes",
    PROVISIONING: "Provisioning data",
    DATA_FAILED: "Data provisioning failed",
    ALGORITHM_PROVISIONING_FAILED: "Algorithm provisioning failed",
    RUNNING: "Running algorithm ",
    ALGORITHM_FAILED: "Failed to run algorithm",
    DISK_FULL: "Error: disk quota exceeded",
    PUBLISHING: "Publishing results",
    FINISHED: "Job finished",
    SETTLING: "Job settling",
}
# The states whose payment is claimed.
TO_SETTLE = (ALGORITHM_FAILED, DISK_FULL, SETTLING)

_metadata = MetaData()
_jobs = Table(
    "jobs",
    _metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("job_id", String, nullable=False, unique=True),
    Column("owner", String, nullable=False, index=True),
    Column("status", Integer, nullable=False, index=True),
    Column("finished", Float),
    Column("body", Text, nullable=False),
    Column("order_body", Text, nullable=False),
)


@dataclass(frozen=True)
class Job:
    """A job as it was stored at one moment.

    :param body: what clients see of it
    :param order: what its owner ordered: ``algorithm``, ``assets`` and ``containerImage``
    """

    body: dict[str, Any]
    order: dict[str, Any]

    @classmethod
    def new(
        cls,
        job_id: str,
        owner: str,
        environment: str,
        order: dict[str, Any],
        *,
        duration: float,
        resources: list[dict[str, Any]],
        payment: dict[str, Any] | None = None,
        metadata: Any = None,
        viewers: list[str] | None = None,
        queue_wait: float = 0,
    ) -> Job:
        """Return a job that begins now, or waits for resources if it may.

        :param duration: seconds that its algorithm may run
        :param payment: None for a free one
        :param queue_wait: seconds
        """
        begins = QUEUED if queue_wait else PULLING
        body = {
            "owner": owner,
            "did": None,
            "jobId": job_id,
            "jobIdHash": job_hash(job_id),
            "dateCreated": now_text(),
            "dateFinished": None,
            "status": begins,
            "statusText": STATUS_TEXTS[begins],
            "results": [],
            "inputDID": None,
            "algoDID": None,
            "agreementId": None,
            "maxJobDuration": duration,
            "environment": environment,
            "stopRequested": False,
            "resources": resources,
            "isFree": payment is None,
            "algoStartTimestamp": "0",
            "algoStopTimestamp": "0",
            "payment": payment,
            "metadata": metadata,
            "additionalViewers": viewers,
            "terminationDetails": {"exitCode": None, "OOMKilled": None},
            "algoDuration": 0,
            "queueMaxWaitTime": queue_wait,
            "buildStartTimestamp": "0",
            "buildStopTimestamp": "0",
        }
        return cls(body, order)

    @property
    def id(self) -> str:
        """The id without its cluster."""
        return str(self.body["jobId"])

    @property
    def status(self) -> int:
        """Upstream's number."""
        return int(self.body["status"])

    @property
    def owner(self) -> str:
        """The consumer's address as he wrote it."""
        return str(self.body["owner"])

    @property
    def is_queued(self) -> bool:
        """Whether it waits for resources.

        Upstream takes every job that may wait for one that does, also when it runs and uses resources.
        """
        return self.status == QUEUED

    @property
    def is_free(self) -> bool:
        """Whether nothing is paid for it."""
        return bool(self.body["isFree"])

    @property
    def is_finished(self) -> bool:
        """Whether it is over, settled or not."""
        return self.body["dateFinished"] is not None

    @property
    def max_duration(self) -> float:
        """Seconds that its algorithm may run."""
        return float(self.body["maxJobDuration"])

    def amount(self, resource: str) -> float:
        """Return how much of a resource it has."""
        return next((item["amount"] for item in self.body["resources"] if item["id"] == resource), 0)


class JobStore:
    """The database of the node's jobs."""

    def __init__(self, path: Path) -> None:
        self.engine: Engine = open_database(path)
        _metadata.create_all(self.engine)

    def add(self, job: Job) -> None:
        """Store a new job."""
        values = {
            "job_id": job.id,
            "owner": job.owner,
            "status": job.status,
            "body": json.dumps(job.body),
            "order_body": json.dumps(job.order),
        }
        with self.engine.begin() as connection:
            connection.execute(insert(_jobs).values(values))

    def change(self, job_id: str, status: int | None = None, *, finish: bool = False, **fields: Any) -> Job:
        """Change a job and return it as it is then.

        :param status: the next status, with its text
        :param finish: whether it is over now
        :param fields: of the body
        """
        if status is not None:
            fields |= {"status": status, "statusText": STATUS_TEXTS[status]}
        if finish:
            fields["dateFinished"] = now_text()
        with self.engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            row = connection.execute(select(_jobs).where(_jobs.c.job_id == job_id)).one()
            job = Job({**json.loads(row.body), **fields}, json.loads(row.order_body))
            finished = job.body["dateFinished"]
            values = {
                "status": job.status,
                "finished": None if finished is None else float(finished),
                "body": json.dumps(job.body),
            }
            connection.execute(update(_jobs).where(_jobs.c.job_id == job_id).values(values))
            connection.commit()
        return job

    def find(self, job_id: str | None = None, owner: str | None = None) -> list[Job]:
        """Return the jobs with an id, of an owner, or both, oldest first."""
        query = select(_jobs.c.body, _jobs.c.order_body).order_by(_jobs.c.number)
        if job_id:
            query = query.where(_jobs.c.job_id == job_id)
        if owner:
            query = query.where(_jobs.c.owner == owner)
        return self._all(query)

    def unfinished(self) -> list[Job]:
        """Return the jobs that are not over, oldest first."""
        query = select(_jobs.c.body, _jobs.c.order_body).where(_jobs.c.finished.is_(None))
        return self._all(query.order_by(_jobs.c.number))

    def to_settle(self) -> list[Job]:
        """Return the jobs whose payment is to be claimed."""
        query = select(_jobs.c.body, _jobs.c.order_body)
        return self._all(query.where(_jobs.c.status.in_(TO_SETTLE), _jobs.c.finished.is_not(None)))

    def finished_before(self, moment: float) -> list[str]:
        """Return the ids of the settled jobs that were over before a moment (seconds since 1970)."""
        query = select(_jobs.c.job_id).where(_jobs.c.finished < moment, _jobs.c.status.not_in(TO_SETTLE))
        with self.engine.connect() as connection:
            return list(connection.execute(query).scalars())

    def remove(self, job_id: str) -> None:
        """Forget a job."""
        with self.engine.begin() as connection:
            connection.execute(delete(_jobs).where(_jobs.c.job_id == job_id))

    def known(self) -> set[str]:
        """Return the ids of all jobs."""
        with self.engine.connect() as connection:
            return set(connection.execute(select(_jobs.c.job_id)).scalars())

    def _all(self, query: Any) -> list[Job]:
        with self.engine.connect() as connection:
            rows: Iterable[Any] = connection.execute(query)
            return [Job(json.loads(row.body), json.loads(row.order_body)) for row in rows]
