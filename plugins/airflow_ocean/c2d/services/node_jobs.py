"""The jobs of an Ocean Node: read from its answers, and watched without a key on an event loop."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from airflow_ocean.c2d.errors import FatalError, InvalidInputError, UnreadableAnswerError
from airflow_ocean.c2d.jobs import OUTPUT, STATUS_COMPLETED, Job, JobPayment, parse_job, select_job
from airflow_ocean.c2d.services import JobsAnswer, node_answers
from airflow_ocean.c2d.services.http import HttpSession, open_async, read_json, reading
from airflow_ocean.c2d.services.node_answers import HASH
from airflow_ocean.c2d.services.pacing import pace_of
from airflow_ocean.c2d.units import parse_address

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from airflow_ocean.c2d.services.http import AsyncHttpSession

# What a job's metadata hold under these names: the label that it was started with, and what it computes on, which a node
# does not tell by itself. They may be so long as JSON.
LABEL, ALGORITHM, DATASETS = "label", "algorithm", "datasets"
LONGEST_METADATA = 1024
STATUS_SETTLING = 71


@dataclass(frozen=True)
class NodeJob(Job):
    """A job of a node.

    :param exit_code: the algorithm's, None before its end and when it never ran
    """

    exit_code: int | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the algorithm ended well: only its exit code tells. Its results are ready before it is settled."""
        return self.is_finished and self.state >= STATUS_COMPLETED and self.exit_code == 0

    def describe(self) -> str:
        """Say in a line how the job stands."""
        if self.is_finished and self.exit_code:
            return f"job {self.id} failed: its algorithm ended with exit code {self.exit_code}"
        return super().describe()


def read_job(entry: Any, what: str) -> NodeJob:
    """Read a job; its id gets the cluster before it, which only the answer to a start has.

    :raises UnreadableAnswerError: when it is described in an unknown form
    """
    with reading(what, "the node describes a job in an unknown form"):
        return _read_job(entry)


def _read_job(entry: dict[str, Any]) -> NodeJob:
    job_id = _id_of(entry)
    if job_id is None:
        raise ValueError(f"no jobId in {str(entry)[:300]}")
    ended, marks = _object(entry.get("terminationDetails")), _object(entry.get("metadata"))
    assets = {"algoDID": marks.get(ALGORITHM), "inputDID": marks.get(DATASETS) or []}
    job = parse_job({**entry, **assets, "jobId": job_id, "agreementId": ""})
    code, label = ended.get("exitCode"), marks.get(LABEL)
    if isinstance(code, bool) or not isinstance(code, int | None):
        raise ValueError(f"exitCode {code!r}")
    known = {field.name: getattr(job, field.name) for field in fields(Job)} | {
        # All outputs come as one tar.
        "results": tuple(replace(file, archive=file.type == OUTPUT) for file in job.results),
        "label": label if isinstance(label, str) else None,
        "payment": _payment(entry),
    }
    if job.state == STATUS_SETTLING:
        # The node's "Job settling" reads as if one had to wait, but all results are there.
        known["text"] = "Job finished"
    return NodeJob(**known, exit_code=code)


def _id_of(entry: Any) -> str | None:
    """Return a job's id with the cluster before it, None when it has none."""
    if not isinstance(entry, dict) or not entry.get("jobId"):
        return None
    job_id, environment = str(entry["jobId"]), str(entry.get("environment", ""))
    if "-" not in job_id and "-" in environment:
        job_id = f"{environment.partition('-')[0]}-{job_id}"
    return job_id


def metadata_of(label: str, algorithm: str, datasets: list[str]) -> dict[str, Any]:
    """Return the metadata to start a job with; as much of them as a node takes."""
    marks = {LABEL: label, ALGORITHM: algorithm, DATASETS: datasets}
    while len(json.dumps(marks, separators=(",", ":"))) > LONGEST_METADATA:
        marks.popitem()
    return marks


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _payment(entry: dict[str, Any]) -> JobPayment | None:
    paid = entry.get("payment")
    if paid is None:
        return None
    parse_address(paid["token"], "token")
    lock, claim = paid.get("lockTx"), str(paid.get("claimTx"))
    return JobPayment(
        token=paid["token"],
        escrow_job=_hash(entry["jobIdHash"], "jobIdHash"),
        lock=_hash(lock, "lockTx") if lock else None,
        # A node that finds nothing locked when it comes to claim says "nolock" in the place of a transaction.
        claim=claim if HASH.fullmatch(claim) else None,
    )


def _hash(value: str, name: str) -> str:
    if not HASH.fullmatch(value):
        raise ValueError(f"{name} {value!r}")
    return value


def read_jobs(answer: Any, what: str) -> list[NodeJob]:
    """Read a list of jobs.

    :raises UnreadableAnswerError: when it is none
    """
    return [read_job(entry, what) for entry in _listed(answer, what)]


def _listed(answer: Any, what: str) -> list[Any]:
    if not isinstance(answer, list):
        raise UnreadableAnswerError(f"{what}: the node answers with something that is no list of jobs")
    return answer


def _pick(answer: Any, wanted: Collection[str], what: str) -> dict[str, Job | FatalError]:
    """Read the jobs that are wanted out of a list; what is wrong with one does not touch the others."""
    picked: dict[str, Job | FatalError] = {}
    for entry in _listed(answer, what):
        job_id = _id_of(entry)
        if job_id is not None and job_id in wanted:
            try:
                picked[job_id] = read_job(entry, what)
            except UnreadableAnswerError as error:
                picked[job_id] = error
    return picked


class NodeJobReader:
    """A :class:`~airflow_ocean.c2d.services.JobReader` of a node.

    :param consumer: the wallet's address in checksum form
    """

    def __init__(self, http: AsyncHttpSession, url: str, consumer: str) -> None:
        self._http, self._url, self._consumer = http, f"{url.rstrip('/')}/api/services/compute", consumer
        self._pace = pace_of(url)

    async def fetch_jobs(self, job_ids: Collection[str]) -> JobsAnswer:
        """Return those of some jobs that are on the node's list of all jobs of the consumer."""
        what = f"listing the jobs of {self._consumer}"
        async with self._pace.turn():
            response = await self._http.get(self._url, what, {"consumerAddress": self._consumer})
        picked = _pick(read_json(response, what), frozenset(job_ids), what)
        return JobsAnswer(picked, len(response.content))

    async def fetch_job(self, job_id: str) -> JobsAnswer:
        """Return one job."""
        check_job_id(job_id)
        what = f"asking for the state of job {job_id}"
        query = {"consumerAddress": self._consumer, "jobId": job_id}
        async with self._pace.turn():
            response = await self._http.get(self._url, what, query)
        found: list[Job] = list(read_jobs(read_json(response, what), what))
        return JobsAnswer({job_id: select_job(found, job_id, self._url)}, len(response.content))


@contextlib.asynccontextmanager
async def open_reader(url: str, consumer: str) -> AsyncIterator[NodeJobReader]:
    """Open a reader on the running event loop."""
    async with open_async(node_answers.check) as http:
        yield NodeJobReader(http, url, consumer)


def fetch_job(url: str, consumer: str, job_id: str) -> Job:
    """Do what :func:`airflow_ocean.c2d.services.fetch_job` does."""
    check_job_id(job_id)
    what = f"asking for the state of job {job_id}"
    query = {"consumerAddress": consumer, "jobId": job_id}
    with contextlib.closing(HttpSession(node_answers.check)) as http:
        answer = http.request("GET", f"{url.rstrip('/')}/api/services/compute", what, params=query)
    return select_job(list[Job](read_jobs(read_json(answer, what), what)), job_id, url)


def check_job_id(job_id: str) -> None:
    """Refuse an id without its cluster: a node takes it for none, and lists every job.

    :raises InvalidInputError: when it is one
    """
    if "-" not in job_id:
        raise InvalidInputError(
            f"{job_id} is no id of an Ocean Node's job: it begins with the cluster and a dash, as its start returned it"
        )
