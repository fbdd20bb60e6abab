"""Status requests to a Provider: the only ones that are not signed, and the only ones made on an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_ocean.c2d.errors import FatalError, InvalidInputError
from airflow_ocean.c2d.jobs import Job, parse_job, select_job
from airflow_ocean.c2d.services import JobsAnswer
from airflow_ocean.c2d.services.http import AsyncHttpSession, HttpSession, open_async, read_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterator

    import httpx

# Bytes of an answer that are read where they arrive; a longer one is read in a thread.
SHORT_ANSWER = 64 * 1024

T = TypeVar("T")

_SPACE = re.compile(r"[ \t\n\r]*")


def _request(provider_url: str, consumer: str, job_id: str | None) -> tuple[str, dict[str, str], str]:
    # The path is the same in every release of Provider; asking the root for it would double the requests of a wait.
    params = {"consumerAddress": consumer, **({"jobId": job_id} if job_id else {})}
    what = f"asking for the state of job {job_id}" if job_id else f"listing the jobs of {consumer}"
    return f"{provider_url.rstrip('/')}/api/services/compute", params, what


def _read_jobs(response: httpx.Response, what: str) -> list[Job]:
    answer = read_json(response, what)
    if not isinstance(answer, list):
        raise InvalidInputError(f"{what}: the Provider answers with something that is no list of jobs")
    return [parse_job(entry) for entry in answer]


def fetch_jobs(
    provider_url: str, consumer: str, job_id: str | None, http: HttpSession | None = None
) -> list[Job]:
    """Return one job of a consumer, or all.

    :param consumer: the wallet's address in checksum form
    """
    url, params, what = _request(provider_url, consumer, job_id)
    return _read_jobs((http or HttpSession()).request("GET", url, what, params=params), what)


def fetch_job(provider_url: str, consumer: str, job_id: str) -> Job:
    """Do what :func:`airflow_ocean.c2d.services.fetch_job` does."""
    with contextlib.closing(HttpSession()) as http:
        return select_job(fetch_jobs(provider_url, consumer, job_id, http), job_id, provider_url)


class ProviderJobReader:
    """A :class:`~airflow_ocean.c2d.services.JobReader` of a Provider.

    :param consumer: the wallet's address in checksum form
    """

    def __init__(self, http: AsyncHttpSession, provider_url: str, consumer: str) -> None:
        self._http, self._url, self._consumer = http, provider_url, consumer

    async def fetch_jobs(self, job_ids: Collection[str]) -> JobsAnswer:
        """Return those of some jobs that are on the Provider's list; it has no paging, and every job of all time."""
        url, params, what = _request(self._url, self._consumer, None)
        response = await self._http.get(url, what, params)
        wanted = frozenset(job_ids)
        jobs = await _read(response, lambda: _pick(response.content, wanted, what))
        return JobsAnswer(jobs, len(response.content))

    async def fetch_job(self, job_id: str) -> JobsAnswer:
        """Return one job."""
        url, params, what = _request(self._url, self._consumer, job_id)
        response = await self._http.get(url, what, params)
        jobs = await _read(response, lambda: _read_jobs(response, what))
        return JobsAnswer({job_id: select_job(jobs, job_id, self._url)}, len(response.content))


@contextlib.asynccontextmanager
async def open_reader(provider_url: str, consumer: str) -> AsyncIterator[ProviderJobReader]:
    """Open a reader on the running event loop."""
    async with open_async() as http:
        yield ProviderJobReader(http, provider_url, consumer)


async def _read(response: httpx.Response, read: Callable[[], T]) -> T:
    """Read an answer in a thread if it is long."""
    return await asyncio.to_thread(read) if len(response.content) > SHORT_ANSWER else read()


def _pick(content: bytes, wanted: frozenset[str], what: str) -> dict[str, Job | FatalError]:
    """Read the jobs that are wanted out of a list; what is wrong with one does not touch the others."""
    picked: dict[str, Job | FatalError] = {}
    try:
        for entry in _entries(content.decode()):
            job_id = str(entry.get("jobId")) if isinstance(entry, dict) else None
            if job_id in wanted and job_id not in picked:
                try:
                    picked[job_id] = parse_job(entry)
                except InvalidInputError as error:
                    picked[job_id] = error
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(
            f"{what}: the Provider answers with something that is no list of jobs ({error})"
        ) from error
    return picked


def _entries(text: str) -> Iterator[Any]:
    """Read a JSON list entry by entry.

    Reading a list of 7 MB at once would keep the interpreter, and so the event loop too, busy for its whole length; and
    all its entries would be in memory together.

    :raises ValueError: when it is no list
    """
    decode = json.JSONDecoder().raw_decode
    position = _after_space(text, 0)
    mark, closing = text[position : position + 1], "]"
    if mark != "[":
        raise ValueError("it does not begin as a list")
    position = _after_space(text, position + 1)
    if text[position : position + 1] == closing:
        mark = closing
    while mark != closing:
        entry, position = decode(text, position)
        yield entry
        position = _after_space(text, position)
        mark = text[position : position + 1]
        if mark not in (",", closing):
            raise ValueError(f"it breaks off at character {position}")
        if mark == ",":
            position = _after_space(text, position + 1)
    if _after_space(text, position + 1) != len(text):
        raise ValueError(f"it goes on after its end, at character {position}")


def _after_space(text: str, position: int) -> int:
    space = _SPACE.match(text, position)
    assert space is not None  # it matches nothing as well
    return space.end()
