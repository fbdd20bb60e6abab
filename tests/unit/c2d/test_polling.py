"""Waiting for many jobs at a time, on an event loop, at a real Provider behind a proxy that counts and fails."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import time
import tracemalloc
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from airflow_ocean.c2d import polling
from airflow_ocean.c2d.errors import (
    InvalidInputError,
    JobNotFoundError,
    RateLimitedError,
    ServiceUnavailableError,
)
from airflow_ocean.c2d.polling import waiting
from airflow_ocean.c2d.services import provider_status
from airflow_ocean.c2d.services.http import AsyncHttpSession
from airflow_ocean.c2d.services.provider_status import ProviderJobReader
from airflow_ocean.c2d.waits import SHORTEST_INTERVAL, Trouble, Wait
from include.bench.job_history import OperatorJobHistory
from tests.support.fault_proxy import Answer, FaultProxy, Request, Rule

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from airflow_ocean.c2d.jobs import Job
    from include.localnet.settings import NetworkSettings

FOR_EVER = 4e9
ENTRY = {
    "agreementId": "0x" + "ab" * 32,
    "jobId": "a",
    "owner": "0x1",
    "status": 40,
    "statusText": "Running algorithm",
    "dateCreated": "1700000000.0",
    "dateFinished": None,
    "results": [{"filename": "result", "filesize": 10, "type": "output"}] * 3,
    "algoDID": "did:op:" + "cd" * 32,
    "inputDID": ["did:op:" + "ef" * 32],
}


@pytest.fixture(scope="module")
def proxy(localnet: NetworkSettings) -> Iterator[FaultProxy]:
    proxy = FaultProxy({"provider": localnet.provider_url})
    proxy.watch(os.getpid())
    yield proxy
    proxy.close()


@pytest.fixture(autouse=True)
def unbroken(proxy: FaultProxy) -> Iterator[None]:
    proxy.arm()
    proxy.rules = []
    yield
    proxy.rules = []


@pytest.fixture
def history(localnet: NetworkSettings) -> Iterator[OperatorJobHistory]:
    history = OperatorJobHistory(localnet)
    yield history
    history.remove()


class Waiters:
    """Tasks that wait for jobs of one consumer, and all that they are told."""

    def __init__(self, proxy: FaultProxy, history: OperatorJobHistory) -> None:
        self.url, self._consumer = proxy.url("provider"), history.consumer
        self._proxy = proxy
        self.told: dict[str, list[Any]] = {}
        self.tasks: dict[str, asyncio.Task[Job | None]] = {}

    def start(self, *job_ids: str, interval: float = 0.3, deadline: float = FOR_EVER) -> None:
        """Begin to wait for jobs."""
        for job_id in job_ids:
            self.tasks[job_id] = asyncio.create_task(self._wait(job_id, interval, deadline))

    async def _wait(self, job_id: str, interval: float, deadline: float) -> Job | None:
        told = self.told[job_id] = []
        with waiting(self.url, self._consumer, job_id, interval=interval, deadline=deadline) as wait:
            while True:
                news = await wait.news()
                told.append(news)
                if news is None or (not isinstance(news, Trouble) and news.is_finished):
                    return news

    @property
    def asked(self) -> list[str | None]:
        """The job each request was about, None for a list."""
        return [about(request) for request in self._proxy.requests]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the event loop run until something is so."""
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.01)

    async def until_all_are_seen(self) -> None:
        """Let the event loop run until each job was seen."""
        await self.until(lambda: all(self.told.get(job_id) for job_id in self.tasks))

    async def looks(self, count: int) -> list[str | None]:
        """Let the event loop run for so many requests more, and return what they were about."""
        before = len(self.asked)
        await self.until(lambda: len(self.asked) >= before + count)
        return self.asked[before : before + count]

    async def end(self) -> None:
        """Cancel all that still wait."""
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


def about(request: Request) -> str | None:
    return parse_qs(urlsplit(request.path).query).get("jobId", [None])[0]


@pytest.fixture
async def waiters(proxy: FaultProxy, history: OperatorJobHistory) -> AsyncIterator[Waiters]:
    waiters = Waiters(proxy, history)
    yield waiters
    await waiters.end()
    # Nothing asks on when nobody waits.
    assert not polling._polls.get(asyncio.get_running_loop())


LISTS, SINGLES = (lambda request: about(request) is None), (lambda request: about(request) is not None)


def answers(status: int, content: Any = "as told", **headers: str) -> Callable[[Answer], Answer]:
    """Make a change to such an answer, whatever the Provider said."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _answer: Answer(status, json.dumps(content).encode(), headers)


# ---------------------------------------------------------------------- how many requests


@pytest.mark.parametrize("count", [2, 100, 1000])
async def test_all_waits_share_one_request(waiters, history, count):
    jobs = history.add(count)
    waiters.start(*jobs)
    await waiters.until_all_are_seen()
    assert waiters.asked == [None]
    assert await waiters.looks(3) == [None] * 3
    # Nothing new is told of a state that stays.
    assert all(len(waiters.told[job]) == 1 for job in jobs)


async def test_one_wait_asks_for_its_job(waiters, history):
    history.add(3, finished=True)
    [job] = history.add(1)
    waiters.start(job)
    assert await waiters.looks(3) == [job] * 3


async def test_thousands_that_begin_after_a_restart_make_few_requests(waiters, history):
    jobs = history.add(5000)

    async def start_one_after_another() -> None:
        # As the triggerer does: it gives way to what else there is after each.
        for job in jobs:
            waiters.start(job, interval=5, deadline=time.time() - 1 if job in jobs[::2] else FOR_EVER)
            await asyncio.sleep(0)

    await start_one_after_another()
    # Those whose deadline passed while nobody ran are looked at once.
    await asyncio.gather(*(waiters.tasks[job] for job in jobs[::2]))
    await waiters.until_all_are_seen()
    assert len(waiters.asked) <= 3
    assert set(waiters.asked) == {None}
    odd = {
        tuple(waiters.told[job])
        for job in jobs[::2]
        if waiters.told[job][-1] is not None or len(waiters.told[job]) != 2
    }
    assert not odd


async def test_a_finished_job_is_noticed_at_the_next_look(waiters, history):
    jobs = history.add(50)
    waiters.start(*jobs)
    await waiters.until_all_are_seen()
    history.finish(jobs[7])
    before = len(waiters.asked)
    job = await waiters.tasks[jobs[7]]
    # One look may have been under way.
    assert len(waiters.asked) - before <= 2
    assert job is not None
    assert job.succeeded
    assert not any(task.done() for name, task in waiters.tasks.items() if name != jobs[7])


async def test_each_new_state_is_told_once(waiters, history):
    jobs = history.add(3)
    waiters.start(*jobs)
    await waiters.until_all_are_seen()
    history.reach(jobs[0], 60)
    await waiters.until(lambda: len(waiters.told[jobs[0]]) == 2)
    history.finish(jobs[0])
    await waiters.tasks[jobs[0]]
    assert [job.state for job in waiters.told[jobs[0]]] == [40, 60, 70]


async def test_the_smallest_interval_holds_for_the_list(waiters, history):
    patient, *others = history.add(4)
    waiters.start(patient, interval=3600)
    await waiters.until_all_are_seen()
    waiters.start(*others, interval=0.1)
    await waiters.until_all_are_seen()
    history.finish(patient)
    assert (await waiters.tasks[patient]).is_finished
    assert await waiters.looks(2) == [None] * 2


def test_nobody_makes_all_ask_without_a_pause():
    """A stored trigger may have any interval."""
    assert Wait("job", 0, 0.0).interval == SHORTEST_INTERVAL


async def test_two_may_wait_for_the_same_job(proxy, history):
    [job] = history.add(1)
    both = [Waiters(proxy, history) for _ in range(2)]
    for waiters in both:
        waiters.start(job)
        await waiters.until_all_are_seen()
    history.finish(job)
    assert {(await waiters.tasks[job]).id for waiters in both} == {job}


async def test_a_wait_that_is_cancelled_does_not_touch_the_others(waiters, history):
    jobs = history.add(4)
    waiters.start(*jobs)
    await waiters.until_all_are_seen()
    for job in jobs[:2]:
        waiters.tasks[job].cancel()
    await waiters.looks(2)
    history.finish(jobs[2])
    assert (await waiters.tasks[jobs[2]]).is_finished
    assert not waiters.tasks[jobs[3]].done()
    assert waiters.tasks[jobs[0]].cancelled()


# ---------------------------------------------------------------------- the list, or job by job


async def test_few_waits_on_a_long_history_ask_job_by_job(waiters, history):
    history.add(5_000, finished=True)
    jobs = history.add(3)
    waiters.start(*jobs)
    await waiters.until_all_are_seen()
    await waiters.until(lambda: waiters.asked[-3:].count(None) == 0)
    assert set(await waiters.looks(6)) == set(jobs)
    # Many waits are worth the list.
    more = history.add(300)
    waiters.start(*more)
    await waiters.until_all_are_seen()
    assert waiters.asked[-1] is None
    assert len(waiters.asked) < 100


@pytest.mark.parametrize(
    "refusal",
    [
        answers(400, {"error": "jobId is required"}),
        answers(403),
        answers(404),
        answers(200, []),
        answers(200, {"error": "no list"}),
        answers(200, "x" * 100_000),
    ],
)
async def test_a_provider_that_does_not_list_is_asked_job_by_job(waiters, history, proxy, refusal):
    proxy.rules = [Rule(LISTS, refusal)]
    jobs = history.add(12)
    waiters.start(*jobs)
    await waiters.until_all_are_seen()
    assert waiters.asked[0] is None
    assert set(waiters.asked[1:]) == set(jobs)
    history.finish(jobs[9])
    assert (await waiters.tasks[jobs[9]]).is_finished
    assert waiters.asked.count(None) == 1


async def test_a_provider_whose_list_always_fails_is_asked_job_by_job(waiters, history, proxy):
    proxy.rules = [Rule(LISTS, answers(504))]
    jobs = history.add(5)
    waiters.start(*jobs, interval=0.05)
    await waiters.until_all_are_seen()
    await waiters.until(
        lambda: all(any(not isinstance(told, Trouble) for told in waiters.told[job]) for job in jobs)
    )
    lists = waiters.asked.count(None)
    assert lists == polling.SUSPICIOUS + 1
    await waiters.looks(10)
    assert waiters.asked.count(None) == lists


async def test_only_so_many_requests_are_under_way_at_a_time(waiters, history, proxy):
    now, most = 0, 0

    def slowly(answer: Answer) -> Answer:
        nonlocal now, most
        now += 1
        most = max(most, now)
        time.sleep(0.02)
        now -= 1
        return answer

    proxy.rules = [Rule(LISTS, answers(404)), Rule(SINGLES, slowly)]
    waiters.start(*history.add(30))
    await waiters.until_all_are_seen()
    assert 1 < most <= polling.CONCURRENCY


# ---------------------------------------------------------------------- errors


async def test_a_rate_limit_is_kept_to(waiters, history, proxy):
    proxy.rules = [Rule(LISTS, answers(429, Retry_After="1"))]
    jobs = history.add(40)
    waiters.start(*jobs, interval=0.05)
    await waiters.until_all_are_seen()
    asked = time.monotonic()
    assert {type(told[0].error) for told in waiters.told.values()} == {RateLimitedError}
    assert all(told[0].pause >= 1 for told in waiters.told.values())
    assert waiters.asked == [None]
    proxy.rules = []
    await waiters.until(lambda: len(waiters.asked) > 1)
    assert time.monotonic() - asked >= 0.9
    await waiters.until(lambda: all(len(told) > 1 for told in waiters.told.values()))
    assert not any(isinstance(told[-1], Trouble) for told in waiters.told.values())


async def test_who_may_not_ask_so_often_takes_the_list(waiters, history, proxy):
    history.add(5_000, finished=True)
    jobs = history.add(3)
    waiters.start(*jobs)
    await waiters.until_all_are_seen()
    await waiters.until(lambda: waiters.asked[-3:].count(None) == 0)
    proxy.rules = [Rule(SINGLES, answers(429, Retry_After="0"))]
    await waiters.looks(1)
    await waiters.until(lambda: waiters.asked[-1] is None)
    history.finish(jobs[0])
    assert (await waiters.tasks[jobs[0]]).is_finished


async def test_where_only_some_requests_pass_every_job_gets_its_turn(waiters, history, proxy):
    passed: list[Request] = []

    def some(answer: Answer) -> Answer:
        passed.append(proxy.requests[-1])
        return answer if len(passed) % 6 else Answer(429, b"", {"Retry-After": "0"})

    proxy.rules = [Rule(LISTS, answers(404)), Rule(SINGLES, some)]
    jobs = history.add(30)
    waiters.start(*jobs, interval=0.05)
    await waiters.until_all_are_seen()
    await waiters.until(
        lambda: all(any(not isinstance(told, Trouble) for told in waiters.told[job]) for job in jobs)
    )


@pytest.mark.parametrize("count", [1, 200])
async def test_a_provider_that_is_away_is_asked_once_after_growing_pauses(waiters, history, proxy, count):
    proxy.rules = [Rule(lambda _request: True, answers(503))]
    jobs = history.add(count)
    waiters.start(*jobs, interval=0.02)
    await waiters.until(lambda: len(waiters.told.get(jobs[0], [])) >= 5)
    troubles = waiters.told[jobs[0]]
    assert {type(trouble.error) for trouble in troubles} == {ServiceUnavailableError}
    pauses = [trouble.pause for trouble in troubles]
    assert pauses == sorted(pauses)
    assert pauses[-1] > 8 * pauses[0]
    # Two for each look at most: when a list fails time and again, a single job tells whether it is the list.
    assert len(waiters.asked) <= 2 * len(troubles) + 2
    proxy.rules = []
    history.finish(jobs[0])
    assert (await waiters.tasks[jobs[0]]).is_finished


async def test_what_fails_for_one_job_does_not_touch_the_others(waiters, history, proxy):
    bad, *jobs = history.add(20)
    proxy.rules = [
        Rule(LISTS, answers(404)),
        Rule(lambda request: about(request) == bad, answers(500)),
    ]
    waiters.start(bad, *jobs, interval=0.1)
    await waiters.until_all_are_seen()
    assert isinstance(waiters.told[bad][0], Trouble)
    assert not any(isinstance(told, Trouble) for job in jobs for told in waiters.told[job])
    history.finish(jobs[0])
    assert (await waiters.tasks[jobs[0]]).is_finished


async def test_a_job_nobody_knows_ends_its_own_wait_only(waiters, history):
    jobs = history.add(3)
    waiters.start(*jobs, "0" * 32)
    with pytest.raises(JobNotFoundError, match="knows no job 0000"):
        await waiters.tasks["0" * 32]
    await waiters.looks(2)
    assert not any(waiters.tasks[job].done() for job in jobs)
    # The list is none the worse for it.
    assert waiters.asked.count("0" * 32) == 1
    assert set(await waiters.looks(2)) == {None}


async def test_a_job_that_is_described_badly_ends_its_own_wait_only(waiters, history, proxy):
    bad, *jobs = history.add(3)

    def spoilt(answer: Answer) -> Answer:
        content = answer.json()
        for entry in content:
            if entry["jobId"] == bad:
                entry["status"] = "soon"
        return Answer.of_json([*content, "and this is no job at all", None])

    proxy.rules = [Rule(LISTS, spoilt)]
    waiters.start(bad, *jobs)
    with pytest.raises(InvalidInputError, match="unknown form.*soon"):
        await waiters.tasks[bad]
    await waiters.looks(2)
    assert not any(waiters.tasks[job].done() for job in jobs)


async def test_a_mistake_in_the_poll_ends_all_waits(waiters, history, monkeypatch):
    async def broken(_poll, _reader):
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr(polling.Poll, "_look", broken)
    jobs = history.add(3)
    waiters.start(*jobs)
    for job in jobs:
        with pytest.raises(RuntimeError, match=f"{job}.*a mistake"):
            await waiters.tasks[job]


# ---------------------------------------------------------------------- deadlines


async def test_a_last_look_is_taken_at_the_deadline(waiters, history, monkeypatch):
    monkeypatch.setattr(polling, "DEADLINE_SPACING", 0.1)
    late, other = history.add(2)
    waiters.start(late, interval=3600, deadline=time.time() + 1)
    waiters.start(other, interval=3600)
    await waiters.until_all_are_seen()
    history.finish(late)
    assert (await waiters.tasks[late]).is_finished
    assert len(waiters.asked) == 2


async def test_after_the_deadline_waiting_ends(waiters, history, monkeypatch):
    monkeypatch.setattr(polling, "DEADLINE_SPACING", 0.1)
    jobs = history.add(20)
    waiters.start(*jobs[:10], interval=3600, deadline=time.time() + 1)
    waiters.start(*jobs[10:], interval=3600)
    assert await asyncio.gather(*(waiters.tasks[job] for job in jobs[:10])) == [None] * 10
    assert len(waiters.asked) == 2
    assert not any(waiters.tasks[job].done() for job in jobs[10:])


async def test_a_rate_limit_is_kept_to_at_the_deadline_as_well(waiters, history, proxy):
    proxy.rules = [Rule(lambda _request: True, answers(429, Retry_After="3600"))]
    jobs = history.add(3)
    waiters.start(*jobs, deadline=time.time() + 1)
    assert await asyncio.gather(*waiters.tasks.values()) == [None] * 3
    assert len(waiters.asked) == 1


async def test_who_was_never_seen_is_looked_at_when_a_short_silence_is_over(waiters, history, proxy):
    """As after a restart of the triggerer behind the deadline, when somebody else has asked too often."""
    refused = iter([True])
    proxy.rules = [Rule(lambda _request: next(refused, False), answers(429, Retry_After="1"))]
    (job,) = history.add(1)
    history.finish(job)
    waiters.start(job, deadline=time.time() - 1)
    assert (await waiters.tasks[job]).is_finished
    assert len(waiters.asked) == 2


async def test_a_service_that_always_refuses_ends_no_deadline(waiters, history, proxy):
    proxy.rules = [Rule(lambda _request: True, answers(429, Retry_After="1"))]
    (job,) = history.add(1)
    waiters.start(job, deadline=time.time() - 1)
    assert await waiters.tasks[job] is None
    assert len(waiters.asked) == 2


# ---------------------------------------------------------------------- what it costs here


async def test_a_waiting_job_takes_some_kilobytes(proxy, history):
    sizes = []
    for count in (100, 1100):
        waiters = Waiters(proxy, history)
        jobs = history.add(count)
        gc.collect()
        tracemalloc.start()
        waiters.start(*jobs, interval=3600)
        await waiters.until_all_are_seen()
        gc.collect()
        sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        await waiters.end()
    assert (sizes[1] - sizes[0]) / 1000 < 8 * 1024


async def test_a_long_list_leaves_room_for_others_while_it_is_read():
    entries = [{**ENTRY, "jobId": f"job-{number}"} for number in range(30_000)]

    class LongList(httpx.AsyncBaseTransport):
        async def handle_async_request(self, _request: httpx.Request) -> httpx.Response:
            return httpx.Response(200, content=content)

    content = json.dumps(entries).encode()
    gaps, began = [], time.perf_counter()

    async def others() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            gaps.append(time.perf_counter() - last)
            last += gaps[-1]

    async with httpx.AsyncClient(transport=LongList()) as client:
        reader = ProviderJobReader(AsyncHttpSession(client), "http://127.0.0.1", "0x1")
        task = asyncio.create_task(others())
        answer = await reader.fetch_jobs(["job-29999"])
        took = time.perf_counter() - began
        task.cancel()
    assert answer.size == len(content) > 10_000_000
    assert [*answer.jobs] == ["job-29999"]
    # json.loads in a thread would keep the loop out for nearly all of the time.
    assert max(gaps) < took / 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[",
        "[{]",
        '[{"jobId": "a"} {}]',
        '[{"jobId": "a"},]',
        "[]]",
        "[" * 100_000,
        b"[\xff]",
        "null",
    ],
)
def test_what_is_no_list_is_an_error(text):
    content = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(InvalidInputError, match="reading: .* no list of jobs"):
        provider_status._pick(content, frozenset(), "reading")


@pytest.mark.parametrize(
    "layout", ["[%s]", " [ %s ] ", "[\n%s\n]\n", '["x", 1, null, [], {}, %s, {"jobId": "b"}]']
)
def test_a_list_is_read_however_it_is_laid_out(layout):
    content = (layout % json.dumps(ENTRY)).encode()
    assert [*provider_status._pick(content, frozenset(["a", "c"]), "reading")] == ["a"]
    assert provider_status._pick(b" [ ] ", frozenset(["a"]), "reading") == {}
