"""Starting a job once, although starting is no transaction: how a retry finds the job of an earlier attempt.

Where an order serves one unfinished job at a time, the job is known by its order: :class:`BoundStart`. Where jobs keep a
label, it is known by that: :class:`LabelledStart`. A request that may be under way still is waited for in both.
"""

from __future__ import annotations

import contextlib
import logging
import random
import secrets
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_ocean.c2d.errors import (
    FatalError,
    InsufficientFundsError,
    JobNotFoundError,
    NotAllowedError,
    OrderInUseError,
    ServiceAnswerError,
    ServiceUnavailableError,
    StartLostError,
    StartUnderWayError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_ocean.c2d.escrow import Escrow
    from airflow_ocean.c2d.jobs import Job
    from airflow_ocean.c2d.journal import Journal
    from airflow_ocean.c2d.locks import Lock
    from airflow_ocean.c2d.orders import Order
    from airflow_ocean.c2d.services import EscrowPayment, JobRequest, OceanServices

logger = logging.getLogger(__name__)

# A request that nobody heard the answer of may be at work for so long, seconds, before its job is on the service's list, or
# its payment is locked. Its sender waits half a minute for the answer, and tries again soon after.
UNDER_WAY = 60.0
# So long it may be until the job is listed once its payment is locked: in between a node asks a registry for the image,
# with a client that waits five minutes for an answer and as long for the rest of it. And when to look again, seconds.
LONGEST_START, _NEXT_LOOK = 600.0, 120.0
# Seconds between two looks at the list; some services take few requests.
_PAUSES = (1.0, 8.0)


class _Start:
    """What all ways of starting have in common.

    The step's entry in the journal tells its job from others, and in ``asked_at`` when it was last asked for, None when that
    was refused. It is written before each request is sent, and with the job's id in ``job`` when that is known.

    :param order: what the job is paid with
    :param step: the step's name in the journal
    """

    def __init__(self, services: OceanServices, journal: Journal, order: Order, step: str) -> None:
        self._services, self._journal, self._order, self._step = services, journal, order, step
        self._orders = [transaction.lower() for transaction in order.transactions]
        entry = journal.load(step)
        # With other orders another job is wanted than the one that was started with those of before.
        is_of_these = entry is not None and entry.get("orders", self._orders) == self._orders
        self._entry = entry if is_of_these else None

    @property
    def _asked_at(self) -> float | None:
        """When an earlier attempt sent the request that it got no answer to, seconds since 1970."""
        return self._entry["asked_at"] if self._entry else None

    def _earlier(self, is_mine: Callable[[Job], bool]) -> Job | None:
        """Return the job of an earlier attempt, if there is one once its request can no longer be under way.

        :raises JobNotFoundError: when there was one, and the service has deleted it since
        """
        known = (self._entry or {}).get("job")
        if known is not None:
            return self._known(known)
        left = 0.0 if self._asked_at is None else self._asked_at + UNDER_WAY - time.time()
        deadline, (pause, longest) = time.monotonic() + min(left, UNDER_WAY), _PAUSES
        while True:
            left = deadline - time.monotonic()
            mine = [job for job in self._services.jobs() if is_mine(job)]
            if mine:
                return self._keep(max(mine, key=_age))
            if left <= 0:
                return None
            time.sleep(min(pause, left))
            pause = min(2 * pause, longest)

    def _known(self, job_id: str) -> Job:
        for job in self._services.jobs():
            if job.id == job_id:
                logger.info("An earlier attempt started %s", job.describe())
                return job
        raise JobNotFoundError(
            f"an earlier attempt started job {job_id}, which {self._services.url} lists no more: services delete jobs some time "
            "after their end. Nothing was started or paid; run again with force_new for another job"
        )

    def _keep(self, found: Job) -> Job:
        """Write down which job an earlier attempt started."""
        logger.info("An earlier attempt started %s", found.describe())
        self._journal.save(self._step, {**(self._entry or {}), "job": found.id})
        return found

    def _send(self, request: JobRequest, marks: dict[str, Any]) -> Job:
        """Ask for the job.

        :param marks: what tells it from others, for the journal
        """
        marks["orders"] = self._orders

        def announce() -> None:
            marks["asked_at"] = time.time()
            self._journal.save(self._step, marks)

        try:
            job = self._services.start(request, announce)
        except FatalError:
            # It was refused. What an earlier attempt heard no answer to may be under way all the same.
            self._journal.save(self._step, self._entry or {**marks, "asked_at": None})
            raise
        self._journal.save(self._step, {**marks, "job": job.id})
        logger.info("Started job %s at %s in environment %s", job.id, self._services.url, request.environment)
        return job


class BoundStart(_Start):
    """Starts a job where an order serves one unfinished job at a time.

    The journal has the jobs that the order had before; one that is there and not among them is this step's, if this step
    asked for one and was not refused.
    """

    def carry_out(self, request: JobRequest) -> Job:
        """Start the job, or return the one that an earlier attempt started."""
        agreements = set(self._orders)
        before: list[str] | None = None
        if self._entry is not None and self._asked_at is not None:
            before = self._entry["jobs"]
            others, latest = frozenset(before), self._asked_at + LONGEST_START

            def is_mine(job: Job) -> bool:
                # One that came much later is that of another run which has the order now.
                return (
                    job.agreement_id.lower() in agreements
                    and job.id not in others
                    and _age(job).timestamp() <= latest
                )

            mine = self._earlier(is_mine)
            if mine is not None:
                return mine
        present = [job for job in self._services.jobs() if job.agreement_id.lower() in agreements]
        running = next((job for job in present if not job.is_finished), None)
        if running is not None:
            raise OrderInUseError(
                f"order {running.agreement_id} runs {running.describe()}; wait for it or stop it, or pay for another order",
                job_id=running.id,
                provider_url=self._order.provider_url,
                consumer_address=running.owner,
            )
        try:
            return self._send(request, {"jobs": [job.id for job in present] if before is None else before})
        except ServiceAnswerError as error:
            if "already in use" not in error.text:
                raise NotAllowedError(f"{error}") from error
            # By another run's job; or an earlier attempt's request, the answer of which was lost, was slow.
            raise OrderInUseError(f"{error}; a retry looks whose job it is") from error


class LabelledStart(_Start):
    """Starts a job where jobs keep a label and are paid one by one, through the escrow or not at all.

    The journal has the label, which no other job has, and what was locked in the escrow before. A lock that is there later
    and belongs to no job may be of this step's request, and is not paid beside. Two requests with one label are never under
    way at a time.

    :param most_jobs: how many unfinished jobs of the algorithm the wallet may have, None for any number
    """

    def __init__(
        self,
        services: OceanServices,
        journal: Journal,
        order: Order,
        escrow: Escrow,
        step: str,
        most_jobs: int | None = None,
    ) -> None:
        super().__init__(services, journal, order, step)
        self._escrow = escrow
        self._most_jobs = most_jobs
        self._label = str(self._entry["label"]) if self._entry else secrets.token_hex(16)

    def carry_out(self, request: JobRequest) -> Job:
        """Start the job, or return the one that an earlier attempt started.

        :raises OrderInUseError: when as many jobs of the algorithm as there may be are not finished
        :raises InsufficientFundsError: when the escrow lacks the payment, and the wallet too
        :raises StartUnderWayError: when an earlier attempt's payment is locked, and its job is not there yet
        :raises StartLostError: when it does not come any more
        """
        if self._entry is not None:
            mine = self._earlier(self._is_mine)
            if mine is not None:
                return mine
        self._require_room(request.algorithm.did)
        payment = self._order.payment
        marks: dict[str, Any] = {"label": self._label}
        with contextlib.ExitStack() as stack:
            if payment is not None:
                stack.enter_context(self._escrow.turn(payment))
                locks = self._locks(payment)
                mine = self._of_lock(locks, payment)
                if mine is not None:
                    return self._keep(mine)
                # Another job may have been paid out of what was deposited for this one.
                self._escrow.provide(payment, self._step)
                marks["locks"] = [_number(lock) for lock in locks]
            job = self._ask(replace(request, label=self._label), marks)
            if payment is not None:
                self._escrow.wait_until_locked(job)
        return job

    def _require_room(self, algorithm: str) -> None:
        if self._most_jobs is None:
            return
        jobs = [
            job for job in self._services.jobs() if job.algorithm_did == algorithm and not job.is_finished
        ]
        if len(jobs) >= self._most_jobs:
            job = random.choice(jobs)  # of many that wait, some wait for each
            raise OrderInUseError(
                f"{len(jobs)} job(s) of {algorithm} are not finished, {self._most_jobs} may be, such as {job.describe()}; wait "
                "for one, or allow more at a time",
                job_id=job.id,
                provider_url=self._services.url,
                consumer_address=job.owner,
            )

    def _is_mine(self, job: Job) -> bool:
        return job.label == self._label

    def _ask(self, request: JobRequest, marks: dict[str, Any]) -> Job:
        try:
            return self._send(request, marks)
        except InsufficientFundsError as error:
            raise ServiceUnavailableError(
                f"{error}. It was there a moment ago: another machine pays out of the same deposit, and a retry fills it up"
            ) from error
        except ServiceAnswerError as error:
            raise NotAllowedError(f"{error}") from error

    def _locks(self, payment: EscrowPayment) -> list[Lock]:
        found = self._escrow.locks(payment.escrow, payment.token)
        return [lock for lock in found if lock.payee == payment.payee]

    def _of_lock(self, locks: list[Lock], payment: EscrowPayment) -> Job | None:
        """Return this step's job if it is there now; make sure that no lock can be of a request for it if it is not.

        A node locks a payment first, and stores the job at last: it may be at work in between, or have died there.

        :param locks: what was locked before the jobs are listed
        """
        if self._entry is None or self._asked_at is None:
            return None
        jobs = self._services.jobs()
        mine = next(filter(self._is_mine, jobs), None)
        if mine is not None:
            return mine
        known = {*self._entry["locks"], *(job.payment.escrow_job.lower() for job in jobs if job.payment)}
        lost = [lock for lock in locks if _number(lock) not in known and lock.expiry > time.time()]
        if not lost:
            return None
        last = max(lost, key=lambda lock: lock.expiry)
        state = (
            f"{self._services.url} was asked to start a job and has locked its payment (job {_number(last)} in the escrow "
            f"{payment.escrow}), but lists no job for it. Nothing more was paid"
        )
        if time.time() < self._asked_at + LONGEST_START:
            raise StartUnderWayError(
                f"{state}: it may be looking at the algorithm's image still. A retry looks again",
                retry_after=_NEXT_LOOK,
            )
        raise StartLostError(
            f"{state}: it must have lost the job. From {last.until} on the payment is free again once the node, or "
            "cancelExpiredLocks of the escrow, gives it back: clear this task then, and it asks for the job anew and pays out "
            "of it, or withdraw it. Not to wait, run again with force_new, which pays for another job"
        )


def _number(lock: Lock) -> str:
    """Return the number of a lock's job in the contract as services tell it."""
    return f"0x{lock.job:064x}"


def _age(job: Job) -> datetime:
    return job.created or datetime.fromtimestamp(0, UTC)
