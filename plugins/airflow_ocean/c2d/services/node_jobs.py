"""The jobs of an Ocean Node: read from its answers, their logs decoded, and watched without a key on an event loop."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from airflow_ocean.c2d.errors import InvalidInputError
from airflow_ocean.c2d.jobs import STATUS_COMPLETED, Job, parse_job, select_job
from airflow_ocean.c2d.services import JobsAnswer
from airflow_ocean.c2d.services.http import open_async, read_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable, Iterator

    from airflow_ocean.c2d.services.http import AsyncHttpSession

FRAME_HEADER = 8
# Docker cuts lines far below this; a longer frame is no frame.
_LONGEST_FRAME = 1024 * 1024


@dataclass(frozen=True)
class NodeJob(Job):
    """A job of a node.

    :param exit_code: the algorithm's, None before its end and when it never ran
    :param payment: chainId, token, lockTx, claimTx, cancelTx and cost; None for a free job
    """

    exit_code: int | None = None
    payment: dict[str, Any] | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the algorithm ended well: only its exit code tells. Its results are ready before it is settled."""
        return self.is_finished and self.state >= STATUS_COMPLETED and self.exit_code == 0

    def describe(self) -> str:
        """Say in a line how the job stands."""
        if self.is_finished and self.exit_code:
            return f"job {self.id} failed: its algorithm ended with exit code {self.exit_code}"
        return super().describe()


def read_job(entry: Any) -> NodeJob:
    """Read a job; its id gets the cluster before it, which only the answer to a start has.

    :raises InvalidInputError: when it is described in an unknown form
    """
    if not isinstance(entry, dict):
        raise InvalidInputError(f"the node describes a job in an unknown form: {str(entry)[:300]}")
    job_id, environment = str(entry.get("jobId", "")), str(entry.get("environment", ""))
    if "-" not in job_id and "-" in environment:
        job_id = f"{environment.partition('-')[0]}-{job_id}"
    job = parse_job({**entry, "jobId": job_id, "agreementId": "", "inputDID": []})
    ended, payment = entry.get("terminationDetails") or {}, entry.get("payment")
    code = ended.get("exitCode") if isinstance(ended, dict) else None
    return NodeJob(
        **{field.name: getattr(job, field.name) for field in fields(Job)},
        exit_code=int(code) if isinstance(code, int) else None,
        payment=payment if isinstance(payment, dict) else None,
    )


def read_jobs(answer: Any, what: str) -> list[NodeJob]:
    """Read a list of jobs.

    :raises InvalidInputError: when it is none
    """
    if not isinstance(answer, list):
        raise InvalidInputError(f"{what}: the node answers with something that is no list of jobs")
    return [read_job(entry) for entry in answer]


def decode_frames(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what is in Docker's log frames, both streams in the order of the log.

    :raises InvalidInputError: when the log is no sequence of frames
    """
    buffer = b""
    for chunk in chunks:
        buffer += chunk
        while len(buffer) >= FRAME_HEADER:
            length = int.from_bytes(buffer[4:FRAME_HEADER], "big")
            if buffer[0] > 2 or buffer[1:4] != bytes(3) or length > _LONGEST_FRAME:
                raise InvalidInputError("the algorithm's log is not in Docker's frames")
            if len(buffer) < FRAME_HEADER + length:
                break
            yield buffer[FRAME_HEADER : FRAME_HEADER + length]
            buffer = buffer[FRAME_HEADER + length :]
    if buffer:
        yield buffer[FRAME_HEADER:]  # cut off, as the log of a job that was killed may be


class NodeJobReader:
    """A :class:`~airflow_ocean.c2d.services.JobReader` of a node.

    :param consumer: the wallet's address in checksum form
    """

    def __init__(self, http: AsyncHttpSession, url: str, consumer: str) -> None:
        self._http, self._url, self._consumer = http, f"{url.rstrip('/')}/api/services/compute", consumer

    async def fetch_jobs(self, job_ids: Collection[str]) -> JobsAnswer:
        """Return those of some jobs that are on the node's list of all jobs of the consumer."""
        what = f"listing the jobs of {self._consumer}"
        response = await self._http.get(self._url, what, {"consumerAddress": self._consumer})
        wanted = frozenset(job_ids)
        found = read_jobs(read_json(response, what), what)
        return JobsAnswer({job.id: job for job in found if job.id in wanted}, len(response.content))

    async def fetch_job(self, job_id: str) -> JobsAnswer:
        """Return one job."""
        check_job_id(job_id)
        what = f"asking for the state of job {job_id}"
        query = {"consumerAddress": self._consumer, "jobId": job_id}
        response = await self._http.get(self._url, what, query)
        found: list[Job] = list(read_jobs(read_json(response, what), what))
        return JobsAnswer({job_id: select_job(found, job_id, self._url)}, len(response.content))


@contextlib.asynccontextmanager
async def open_reader(url: str, consumer: str) -> AsyncIterator[NodeJobReader]:
    """Open a reader on the running event loop."""
    async with open_async() as http:
        yield NodeJobReader(http, url, consumer)


def check_job_id(job_id: str) -> None:
    """Refuse an id without its cluster: a node takes it for none, and lists every job.

    :raises InvalidInputError: when it is one
    """
    if "-" not in job_id:
        raise InvalidInputError(
            f"{job_id} is no id of an Ocean Node's job: it begins with the cluster and a dash, as its start returned it"
        )
