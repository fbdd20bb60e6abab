"""Starting a job once, although starting is no transaction: how a retry finds the job of an earlier attempt.

Where an order serves one unfinished job at a time, the job is known by its order: :class:`BoundStart`. Where jobs keep a
label, it is known by that: :class:`LabelledStart`.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_ocean.c2d.errors import (
    InsufficientFundsError,
    NotAllowedError,
    OceanError,
    OrderInUseError,
    ServiceAnswerError,
    ServiceUnavailableError,
    TransientError,
    UnreadableAnswerError,
)

if TYPE_CHECKING:
    from airflow_ocean.c2d.escrow import Escrow
    from airflow_ocean.c2d.jobs import Job
    from airflow_ocean.c2d.journal import Journal
    from airflow_ocean.c2d.orders import Order
    from airflow_ocean.c2d.services import JobRequest, OceanServices

logger = logging.getLogger(__name__)

# A request that nobody heard the answer of may be at work for so long, seconds, before its job is on the service's list.
UNDER_WAY = 10.0


class BoundStart:
    """Starts a job where an order serves one unfinished job at a time.

    The jobs that the order had before are written to the journal first; one that is there and not among them is this
    step's.

    :param step: the step's name in the journal
    """

    def __init__(self, services: OceanServices, journal: Journal, step: str) -> None:
        self._services, self._journal, self._step = services, journal, step

    def carry_out(self, order: Order, request: JobRequest) -> Job:
        """Start the job, or return the one that an earlier attempt started."""
        present = self._jobs_of(order)
        entry = self._journal.load(self._step)
        before = None if entry is None else entry["jobs"]
        if before is not None:
            mine = [job for job in present if job.id not in before]
            if mine:
                logger.info("An earlier attempt started %s", mine[-1].describe())
                return mine[-1]
        running = next((job for job in present if not job.is_finished), None)
        if running is not None:
            raise OrderInUseError(
                f"order {running.agreement_id} runs {running.describe()}; wait for it or stop it, or pay for another order",
                job_id=running.id,
                provider_url=order.provider_url,
                consumer_address=running.owner,
            )
        if before is None:
            self._journal.save(self._step, {"jobs": [job.id for job in present]})
        try:
            return _started(self._services, request)
        except ServiceAnswerError as error:
            if "already in use" not in error.text:
                raise NotAllowedError(f"{error}") from error
            if before is None:
                # This step's first and only request was refused: the job that has the order is another run's, and must
                # not be taken for this one's later.
                self._journal.save(self._step, {"jobs": [job.id for job in self._jobs_of(order)]})
            # Otherwise an earlier attempt's request, the answer of which was lost, may have been quicker.
            raise OrderInUseError(f"{error}; a retry looks whose job it is") from error

    def _jobs_of(self, order: Order) -> list[Job]:
        """Return every job of an order, oldest first."""
        agreements = {transaction.lower() for transaction in order.transactions}
        jobs = [job for job in self._services.jobs() if job.agreement_id.lower() in agreements]
        return sorted(jobs, key=lambda job: job.created or datetime.fromtimestamp(0, UTC))


class LabelledStart:
    """Starts a job where jobs keep a label and are paid one by one, through the escrow or not at all.

    The label is written to the journal first; a job that has it is this step's. Two requests with one label are never
    under way at a time.

    :param step: the step's name in the journal
    """

    def __init__(self, services: OceanServices, journal: Journal, escrow: Escrow, step: str) -> None:
        self._services, self._journal, self._escrow, self._step = services, journal, escrow, step

    def carry_out(self, order: Order, request: JobRequest) -> Job:
        """Start the job, or return the one that an earlier attempt started.

        :raises InsufficientFundsError: when the escrow lacks the payment, and the wallet too
        """
        entry = self._journal.load(self._step)
        if entry is None:
            label = secrets.token_hex(16)
            self._journal.save(self._step, {"label": label, "asked_at": None})
        else:
            label = str(entry["label"])
            if entry["asked_at"] is not None and (mine := self._earlier(label, entry["asked_at"])):
                logger.info("An earlier attempt started %s", mine.describe())
                return mine
        with contextlib.ExitStack() as stack:
            if order.payment is not None:
                stack.enter_context(self._escrow.turn(order.payment))
                # Another job may have been paid out of what was deposited for this one.
                self._escrow.provide(order.payment, self._step)
            self._journal.save(self._step, {"label": label, "asked_at": time.time()})
            job = self._ask(replace(request, label=label), label)
            if order.payment is not None:
                self._escrow.wait_until_locked(job)
        return job

    def _ask(self, request: JobRequest, label: str) -> Job:
        try:
            return _started(self._services, request)
        except (TransientError, UnreadableAnswerError):
            raise  # the request may have arrived, and started the job
        except OceanError as error:
            # It was refused, so nothing is under way.
            self._journal.save(self._step, {"label": label, "asked_at": None})
            if isinstance(error, InsufficientFundsError):
                raise ServiceUnavailableError(
                    f"{error}. It was there a moment ago: another machine pays out of the same deposit, and a retry fills it up"
                ) from error
            if isinstance(error, ServiceAnswerError):
                raise NotAllowedError(f"{error}") from error
            raise

    def _earlier(self, label: str, asked_at: float) -> Job | None:
        """Return the job of an earlier attempt, once its request can no longer be under way."""
        while True:
            waited = time.time() - asked_at
            found = next((job for job in self._services.jobs() if job.label == label), None)
            if found is not None or waited > UNDER_WAY:
                return found
            time.sleep(min(max(UNDER_WAY - waited, 0.1), 2.0))


def _started(services: OceanServices, request: JobRequest) -> Job:
    job = services.start(request)
    logger.info("Started job %s at %s in environment %s", job.id, services.url, request.environment)
    return job
