"""The jobs and the Providers' nonces in SQLite: what is in here survives everything."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    and_,
    case,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from include.localnet.service import open_database

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sqlalchemy import Row

_NONCES_KEPT = 1024
# The operator-engine's texts; 10 is only in its table, here it is set while a job is on its way to a place.
STATUS_TEXTS = {
    1: "Warming up",
    10: "Job started",
    20: "Configuring volumes",
    30: "Provisioning success",
    31: "Data provisioning failed",
    32: "Algorithm provisioning failed",
    40: "Running algorithm",
    60: "Publishing results",
    70: "Job finished",
}

_metadata = MetaData()
_jobs = Table(
    "jobs",
    _metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("job_id", String, nullable=False, unique=True),
    Column("agreement_id", String, nullable=False),
    Column("owner", String, nullable=False),
    Column("provider", String, nullable=False),
    Column("environment", String, nullable=False),
    Column("valid_until", Float),
    Column("status", Integer, nullable=False),
    Column("status_text", String, nullable=False),
    Column("date_created", Float, nullable=False),
    Column("date_finished", Float),
    Column("stop_request", Integer, nullable=False, default=0),
    Column("removed", Integer, nullable=False, default=0),
    Column("algorithm", String, nullable=False),
    Column("inputs", String, nullable=False),
    Column("results", String),
    Column("secret", String, nullable=False),
    Column("workflow", String, nullable=False),
    Index("jobs_by_owner", "owner"),
    Index("jobs_by_agreement", "agreement_id"),
)
# This, and no look before the insert, makes sure that an agreement has one unfinished job.
Index("one_unfinished_job", _jobs.c.agreement_id, unique=True, sqlite_where=_jobs.c.date_finished.is_(None))
_nonces = Table(
    "nonces",
    _metadata,
    Column("provider", String, nullable=False),
    Column("nonce", String, nullable=False),
    UniqueConstraint("provider", "nonce"),
)


class AgreementInUse(Exception):
    """An unfinished job of this agreement exists."""


class NonceUsed(Exception):
    """A Provider's nonce was used before, or is older than all that are remembered.

    :param newest: the highest nonce seen of this Provider
    """

    def __init__(self, newest: Decimal) -> None:
        super().__init__(str(newest))
        self.newest = newest


@dataclass(frozen=True)
class Job:
    """What the engine needs to know of a job.

    :param stage: the workflow's only stage, as the Provider sent it
    :param valid_until: until when the consumer has paid (seconds since 1970), if the Provider said so
    """

    job_id: str
    environment: str
    owner: str
    date_created: float
    valid_until: float | None
    secret: str
    stage: dict[str, Any]


@dataclass(frozen=True)
class Flags:
    """What changes while a job runs."""

    status: int
    stop_requested: bool
    removed: bool
    finished: bool


def _epoch(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds:.6f}"


class Store:
    """The service's database.

    :param path: its file
    """

    def __init__(self, path: Path) -> None:
        self._engine = open_database(path)
        _metadata.create_all(self._engine)

    def add(
        self,
        *,
        agreement_id: str,
        owner: str,
        provider: str,
        environment: str,
        workflow: Mapping[str, Any],
        valid_until: float | None,
    ) -> str:
        """Store a new job and return its id.

        :raises AgreementInUse: when the agreement has an unfinished job
        """
        job_id, stage = uuid.uuid4().hex, workflow["stages"][0]
        values = {
            "job_id": job_id,
            "agreement_id": agreement_id,
            "owner": owner,
            "provider": provider,
            "environment": environment,
            "valid_until": valid_until,
            "status": 1,
            "status_text": STATUS_TEXTS[1],
            "date_created": time.time(),
            "algorithm": stage["algorithm"].get("id", "raw"),
            "inputs": json.dumps([item["id"] for item in stage["input"] if "id" in item]),
            "secret": uuid.uuid4().hex,
            "workflow": json.dumps(workflow),
        }
        try:
            with self._engine.begin() as connection:
                connection.execute(insert(_jobs).values(values))
        except IntegrityError as error:
            raise AgreementInUse(agreement_id) from error
        return job_id

    def agreement_in_use(self, agreement_id: str) -> bool:
        """Say whether an agreement has an unfinished job now."""
        wanted = and_(_jobs.c.agreement_id == agreement_id, _jobs.c.date_finished.is_(None))
        with self._engine.connect() as connection:
            return connection.execute(select(_jobs.c.number).where(wanted)).first() is not None

    def statuses(self, **criteria: str | None) -> list[dict[str, Any]]:
        """Return upstream's status objects of the jobs that match all criteria that are given.

        :param criteria: ``agreement_id``, ``job_id``, ``owner``
        """
        columns = [column for column in _jobs.c if column.name not in ("workflow", "secret")]
        query = select(*columns).order_by(_jobs.c.number)
        for name, value in criteria.items():
            if value is not None:
                query = query.where(_jobs.c[name] == value)
        with self._engine.connect() as connection:
            return [_status(row) for row in connection.execute(query)]

    def running(self) -> list[dict[str, Any]]:
        """Return upstream's shorter objects of all jobs that are not over."""
        query = select(_jobs).where(_jobs.c.date_finished.is_(None)).order_by(_jobs.c.number)
        with self._engine.connect() as connection:
            return [
                {
                    "agreementId": row.agreement_id,
                    "jobId": row.job_id,
                    "owner": row.owner,
                    "status": row.status,
                    "statusText": row.status_text,
                    "dateCreated": _epoch(row.date_created),
                    "namespace": row.environment,
                    "algoDID": row.algorithm,
                    "inputDID": json.loads(row.inputs),
                }
                for row in connection.execute(query)
            ]

    def result_list(self, job_id: str) -> tuple[str | None, str | None, list[dict[str, Any]] | None]:
        """Return a job's owner, Provider and results; Nones when there is no such job, or no results."""
        query = select(_jobs.c.owner, _jobs.c.provider, _jobs.c.results).where(_jobs.c.job_id == job_id)
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None, None, None
        return row.owner, row.provider, json.loads(row.results) if row.results else None

    def use_nonce(self, provider: str, nonce: object) -> None:
        """Remember a nonce of a Provider.

        A Provider signs in parallel and its requests overtake one another, so nonces need not rise: as in IPsec's
        window each is good once, and those older than all that are remembered never.

        :raises NonceUsed: when the nonce is not good any more
        :raises ValueError: when it is no number
        """
        try:
            number = Decimal(str(nonce))
            text = f"{number:040.9f}"
        except InvalidOperation as error:
            raise ValueError("`nonce` must be a number.") from error
        if not number.is_finite() or number < 0 or len(text) != 40:
            raise ValueError("`nonce` must be a number.")
        mine = _nonces.c.provider == provider
        with self._engine.begin() as connection:
            low, high, known = connection.execute(
                select(func.min(_nonces.c.nonce), func.max(_nonces.c.nonce), func.count()).where(mine)
            ).one()
            if known >= _NONCES_KEPT and text <= low:
                raise NonceUsed(Decimal(high).normalize())
            try:
                connection.execute(insert(_nonces).values(provider=provider, nonce=text))
            except IntegrityError as error:
                raise NonceUsed(Decimal(high).normalize()) from error
            if known >= _NONCES_KEPT:
                connection.execute(delete(_nonces).where(mine, _nonces.c.nonce == low))

    def request_stop(self, provider: str, **criteria: str | None) -> list[str]:
        """Note that a Provider's matching jobs shall stop, and return their ids."""
        query = select(_jobs.c.job_id).where(_jobs.c.provider == provider)
        for name, value in criteria.items():
            if value is not None:
                query = query.where(_jobs.c[name] == value)
        with self._engine.begin() as connection:
            found = [row.job_id for row in connection.execute(query)]
            connection.execute(update(_jobs).where(_jobs.c.job_id.in_(found)).values(stop_request=1))
        return found

    def note_time_out(self, job_id: str) -> None:
        """Note, as upstream does in the same field, that the time was up."""
        self._change(job_id, stop_request=2)

    def reach(self, job_id: str, status: int) -> None:
        """Note the next status of a job."""
        self._change(job_id, status=status, status_text=STATUS_TEXTS[status])

    def finish(
        self,
        job_id: str,
        results: list[dict[str, Any]],
        *,
        status: int | None = None,
        text: str | None = None,
    ) -> None:
        """Note, all at once, that a job is over, with its results.

        :param status: the last status, or None to leave the one it has
        :param text: another text than the status' own
        """
        values: dict[str, Any] = {
            "date_finished": time.time(),
            # Deleted while it still ran: then its results are never seen.
            "results": case((_jobs.c.removed == 0, json.dumps(results)), else_=None),
        }
        if status is not None:
            values.update(status=status, status_text=STATUS_TEXTS[status])
        if text is not None:
            values["status_text"] = text
        self._change(job_id, **values)

    def mark_removed(self, job_id: str) -> bool:
        """Note that a job has no results any more, and say whether it is over."""
        self._change(job_id, removed=1, results=None)
        with self._engine.connect() as connection:
            query = select(_jobs.c.date_finished).where(_jobs.c.job_id == job_id)
            return connection.execute(query).scalar_one() is not None

    def flags(self, job_id: str) -> Flags:
        """Return what may change while a job runs."""
        columns = (_jobs.c.status, _jobs.c.stop_request, _jobs.c.removed, _jobs.c.date_finished)
        with self._engine.connect() as connection:
            row = connection.execute(select(*columns).where(_jobs.c.job_id == job_id)).one()
        return Flags(row.status, bool(row.stop_request), bool(row.removed), row.date_finished is not None)

    def next_waiting(self, environment: str, *, stopped: bool = False) -> Job | None:
        """Return the oldest job of an environment that has not started.

        :param stopped: look at those only whose stop was asked for already
        """
        query = select(_jobs).where(
            _jobs.c.environment == environment, _jobs.c.status == 1, _jobs.c.date_finished.is_(None)
        )
        if stopped:
            query = query.where(_jobs.c.stop_request != 0)
        with self._engine.connect() as connection:
            row = connection.execute(query.order_by(_jobs.c.number).limit(1)).first()
        return None if row is None else _job(row)

    def unfinished(self) -> list[Job]:
        """Return all jobs that are not over."""
        with self._engine.connect() as connection:
            return [
                _job(row) for row in connection.execute(select(_jobs).where(_jobs.c.date_finished.is_(None)))
            ]

    def expired(self, environment: str, expiry: float) -> list[str]:
        """Return the ids of jobs whose results have been kept for ``expiry`` seconds, or were asked to be deleted."""
        query = select(_jobs.c.job_id).where(
            _jobs.c.environment == environment,
            _jobs.c.removed == 0,
            _jobs.c.date_finished < time.time() - expiry,
        )
        with self._engine.connect() as connection:
            return [row.job_id for row in connection.execute(query)]

    def known(self) -> set[str]:
        """Return the ids of all jobs whose folders are needed."""
        with self._engine.connect() as connection:
            return set(connection.execute(select(_jobs.c.job_id).where(_jobs.c.removed == 0)).scalars())

    def _change(self, job_id: str, **values: object) -> None:
        with self._engine.begin() as connection:
            connection.execute(update(_jobs).where(_jobs.c.job_id == job_id).values(**values))


def _status(row: Row[Any]) -> dict[str, Any]:
    """Return a job as upstream shows it: times are text, codes and sizes are numbers, no results is an empty text."""
    return {
        "agreementId": row.agreement_id,
        "jobId": row.job_id,
        "owner": row.owner,
        "status": row.status,
        "statusText": row.status_text,
        "dateCreated": _epoch(row.date_created),
        "dateFinished": _epoch(row.date_finished),
        "results": json.loads(row.results) if row.results else "",
        "stopreq": row.stop_request,
        "removed": row.removed,
        "algoDID": row.algorithm,
        "inputDID": json.loads(row.inputs),
    }


def _job(row: Row[Any]) -> Job:
    return Job(
        job_id=row.job_id,
        environment=row.environment,
        owner=row.owner,
        date_created=row.date_created,
        valid_until=row.valid_until,
        secret=row.secret,
        stage=json.loads(row.workflow)["stages"][0],
    )
