"""Compute jobs: their states and what they mean, starting, finding, stopping, and waiting without a key."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_ocean.c2d.errors import FatalError, JobNotFoundError, UnreadableAnswerError
from airflow_ocean.c2d.services import JobRequest, fetch_job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from airflow_ocean.c2d.escrow import Escrow
    from airflow_ocean.c2d.journal import Journal
    from airflow_ocean.c2d.orders import Order
    from airflow_ocean.c2d.services import OceanServices, ResultStream

# Status codes of upstream's operator-service. A job is over when dateFinished is set, whatever the code says.
STATUS_RUNNING, STATUS_COMPLETED = 40, 70
STATUS_TEXTS = {
    1: "Warming up",
    10: "Job started",
    20: "Configuring volumes",
    30: "Provisioning success",
    31: "Data provisioning failed",
    32: "Algorithm provisioning failed",
    40: "Running algorithm",
    50: "Filtering results",
    60: "Publishing results",
    70: "Job completed",
}
OUTPUT = "output"
# "configrationLog" is how upstream spells it.
LOG_TYPES = ("algorithmLog", "configrationLog", "configurationLog", "publishLog", "filteringLog", "imageLog")


@dataclass(frozen=True)
class ResultFile:
    """One downloadable result of a job.

    :param index: its place in the job's result list, by which it is fetched
    :param name: the file name the job gave it: data, never a path
    :param type: ``output`` or a kind of log
    :param size: bytes
    :param archive: whether it is a tar of all outputs, to be unpacked
    """

    index: int
    name: str
    type: str
    size: int
    archive: bool = False


@dataclass(frozen=True)
class JobPayment:
    """How a job is paid through the escrow, as its service tells; what became of it only the contract knows for sure.

    :param token: the address of the token
    :param escrow_job: the job's id in the contract, 0x-hex
    :param lock: the transaction that locked the payment
    :param claim: the one that claimed what the job cost and gave the rest back, None before, and where there is none
    """

    token: str
    escrow_job: str
    lock: str | None
    claim: str | None


@dataclass(frozen=True)
class Job:
    """A compute job as its service describes it.

    :param state: the service's numeric status
    :param agreement_id: transaction id of the order the job runs on, empty where orders do not bind jobs
    :param label: what its start was marked with, None where jobs keep none
    :param payment: how it is paid through the escrow, None for all others
    """

    id: str
    state: int
    text: str
    agreement_id: str
    owner: str
    created: datetime | None
    finished: datetime | None
    results: tuple[ResultFile, ...]
    algorithm_did: str | None
    dataset_dids: tuple[str, ...]
    label: str | None = None
    payment: JobPayment | None = None

    @property
    def is_finished(self) -> bool:
        """Whether the job is over, well or not."""
        return self.finished is not None

    @property
    def is_running(self) -> bool:
        """Whether its algorithm runs now."""
        return not self.is_finished and self.state == STATUS_RUNNING

    @property
    def outputs(self) -> tuple[ResultFile, ...]:
        """The files the algorithm wrote."""
        return tuple(result for result in self.results if result.type == OUTPUT)

    @property
    def succeeded(self) -> bool:
        """Whether the job ended with something to show.

        The completed state is also reached after a killed or failing algorithm, so state and results decide.
        """
        return self.is_finished and self.state >= STATUS_COMPLETED and any(file.size for file in self.outputs)

    @property
    def duration(self) -> float | None:
        """Seconds from creation to end, None while it runs."""
        if self.created is None or self.finished is None:
            return None
        return (self.finished - self.created).total_seconds()

    def describe(self) -> str:
        """Say in a line how the job stands."""
        if not self.is_finished:
            return f"job {self.id}: {self.text} ({self.state})"
        if self.succeeded:
            return f"job {self.id} completed with {len(self.outputs)} output file(s)"
        if self.state < STATUS_COMPLETED:
            return f"job {self.id} failed: {self.text} ({self.state})"
        return f"job {self.id} ended without output: its algorithm failed or was stopped ({self.text}, {self.state})"


def parse_job(answer: Any) -> Job:
    """Read a job out of a service's answer.

    :raises UnreadableAnswerError: when the answer is not what a service gives
    """
    try:
        results = tuple(
            ResultFile(
                index=index,
                name=_text(entry.get("filename", "")),
                type=str(entry.get("type", OUTPUT)),
                size=int(entry.get("filesize") or 0),
            )
            for index, entry in enumerate(answer.get("results") or [])
        )
        if any(file.size < 0 for file in results):
            raise ValueError("a negative filesize")
        state = int(answer["status"])
        datasets = answer.get("inputDID") or []
        return Job(
            id=str(answer["jobId"]),
            state=state,
            # A node writes "Running algorithm " with a blank at its end.
            text=_text(answer.get("statusText") or "").strip() or STATUS_TEXTS.get(state, "unknown state"),
            agreement_id=str(answer.get("agreementId", "")),
            owner=str(answer.get("owner", "")),
            created=_moment(answer.get("dateCreated")),
            finished=_moment(answer.get("dateFinished")),
            results=results,
            algorithm_did=answer.get("algoDID"),
            dataset_dids=tuple(str(did) for did in ([datasets] if isinstance(datasets, str) else datasets)),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UnreadableAnswerError(
            f"the service describes a job in an unknown form ({error!r}): {str(answer)[:300]}"
        ) from error


def _text(value: Any) -> str:
    """Return a text that a file can hold: JSON may spell half a surrogate pair, of which its code is left."""
    return str(value).encode(errors="backslashreplace").decode()


def _moment(seconds: Any) -> datetime | None:
    if seconds in (None, "", "None"):
        return None
    try:
        return datetime.fromtimestamp(float(seconds), UTC)
    except OSError:  # a year that the system's calendar does not have
        raise ValueError(f"{seconds!r} is no time in seconds since 1970") from None


class Jobs:
    """Starting, finding, watching and stopping the wallet's jobs.

    :param services_at: returns the services behind a URL, for a job's id where one is known
    :param journal: where starting leaves its traces
    :param escrow: what pays for jobs where orders do not
    :param turn: returns the lock by which tasks of this machine that share the wallet take turns at something
    """

    def __init__(
        self,
        services_at: Callable[[str | None, str | None], OceanServices],
        journal: Journal,
        escrow: Escrow,
        turn: Callable[[str], AbstractContextManager[Any]],
    ) -> None:
        self._services = services_at
        self._journal = journal
        self._escrow = escrow
        self._turn = turn

    def start(
        self,
        order: Order,
        custom_data: dict[str, Any] | None = None,
        variables: dict[str, str] | None = None,
        step: str = "start job",
        most_jobs: int | None = None,
    ) -> Job:
        """Start a job on a paid order, once: a retry returns the job that an earlier attempt started.

        Starting is no transaction, so nothing on the chain tells whether it happened; how the job is found again,
        :mod:`airflow_ocean.c2d.starting` says.

        :param custom_data: parameters for the algorithm; it finds them as ``algoCustomData.json``
        :param variables: environment variables for the algorithm, where the service offers them
        :param step: the step's name in the journal
        :param most_jobs: how many unfinished jobs of the algorithm the wallet may have, where orders do not bind jobs
        :raises OrderInUseError: when another job of this order is not finished, or as many jobs as there may be are not
        :raises NotAllowedError: when the service refuses the order
        """
        from airflow_ocean.c2d.starting import BoundStart, LabelledStart

        services = self._services(order.provider_url, None)
        request = JobRequest(
            datasets=order.dataset_inputs(),
            algorithm=order.algorithm_input(),
            environment=order.environment,
            terms=order.terms,
            custom_data=custom_data,
            variables=variables,
            payment_token=order.payment.token if order.payment else None,
        )
        if services.labels_jobs:
            start = LabelledStart(services, self._journal, order, self._escrow, step, most_jobs)
            with (
                contextlib.nullcontext()
                if most_jobs is None
                else self._turn(f"jobs of {order.algorithm.did}")
            ):
                return start.carry_out(request)
        return BoundStart(services, self._journal, order, step).carry_out(request)

    def get(self, job_id: str, provider_url: str | None = None) -> Job:
        """Return a job.

        :raises JobNotFoundError: when the service knows no such job of this wallet
        """
        return self._services(provider_url, job_id).job(job_id)

    def stop(self, job_id: str, provider_url: str | None = None) -> Job:
        """Stop a job; a finished one stays as it is."""
        job = self.get(job_id, provider_url)
        return job if job.is_finished else self._services(provider_url, job_id).stop(job)

    @contextlib.contextmanager
    def open_result(self, job_id: str, index: int, provider_url: str | None = None) -> Iterator[ResultStream]:
        """Open a result for reading, in chunks."""
        with self._services(provider_url, job_id).open_result(job_id, index) as stream:
            yield stream

    def log_tail(self, job: Job, provider_url: str | None = None, max_bytes: int = 8_000) -> str:
        """Return the end of the log that says most about a job's end, empty when there is none.

        That is the algorithm's, or before it ran the configuration's. Of one that cannot be read, it says why.
        """
        problem = ""
        for kind in LOG_TYPES:
            for file in job.results:
                if file.type != kind or not file.size:
                    continue
                tail = b""
                try:
                    with self.open_result(job.id, file.index, provider_url) as stream:
                        for chunk in stream.chunks:
                            tail = (tail + chunk)[-max_bytes:]
                except FatalError as error:  # how the job ended must be told all the same
                    problem = f"it cannot be read: {error}"
                if tail.strip():
                    return tail.decode(errors="replace").strip()
        return problem


def select_job(jobs: list[Job], job_id: str, provider_url: str) -> Job:
    """Pick a job out of a service's list.

    :raises JobNotFoundError: when it is not there
    """
    for job in jobs:
        if job.id == job_id:
            return job
    raise JobNotFoundError(
        f"{provider_url} knows no job {job_id} of this consumer; is it the right Provider and wallet?"
    )


def get_job(provider_url: str, consumer_address: str, job_id: str) -> Job:
    """Return a job's state; needs no key, as status requests are not signed.

    :raises TransientError: when the service does not answer
    :raises JobNotFoundError: when it knows no such job of this consumer
    """
    return fetch_job(provider_url, consumer_address, job_id)
