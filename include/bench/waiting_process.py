"""Waiting triggers on one event loop, as a triggerer has them, in a process of its own."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil  # type: ignore[import-untyped]

from include.bench.job_history import OperatorJobHistory
from include.bench.surroundings import tell_result
from include.localnet.settings import NetworkSettings

if TYPE_CHECKING:
    from airflow_ocean.triggers import OceanComputeTrigger

# How many intervals the first looks of all that wait get, before the steady state is measured.
SETTLING = 2
_LONGEST = 1000.0


class Waits:
    """Triggers that wait for jobs, and when each of them fired.

    :param interval: seconds between two looks
    """

    def __init__(self, settings: NetworkSettings, consumer: str, interval: float) -> None:
        self._settings, self._consumer, self._interval = settings, consumer, interval
        self._tasks: list[asyncio.Task[None]] = []
        self.fired: dict[str, float] = {}

    def _trigger(self, job_id: str) -> OceanComputeTrigger:
        from airflow_ocean.triggers import OceanComputeTrigger

        return OceanComputeTrigger(
            job_id=job_id,
            provider_url=self._settings.provider_url,
            consumer_address=self._consumer,
            deadline=time.time() + 24 * 3600,
            poll_interval=self._interval,
            ocean_conn_id="unused",
        )

    async def _wait(self, job_id: str) -> None:
        async for event in self._trigger(job_id).run():
            assert event.payload["event"] == "finished", event.payload
            self.fired[job_id] = time.time()

    async def start(self, job_ids: list[str]) -> None:
        """Begin to wait, one trigger after another, as a triggerer does."""
        for job_id in job_ids:
            self._tasks.append(asyncio.create_task(self._wait(job_id)))
            await asyncio.sleep(0)

    async def end(self) -> None:
        """Give up."""
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    async def until_fired(self, job_id: str) -> float:
        """Return when a trigger fired, in seconds since 1970."""
        async with asyncio.timeout(_LONGEST):
            while job_id not in self.fired:
                await asyncio.sleep(0.005)
                for task in self._tasks:
                    if task.done() and task.exception():
                        task.result()
        return self.fired[job_id]


class Load:
    """What a stretch of time cost: requests to the Provider, and this process's computing time."""

    def __init__(self, settings: NetworkSettings) -> None:
        self._log = settings.home / "logs" / "provider.log"
        self._requests, self._cpu, self._begun = self._asked(), time.process_time(), time.monotonic()

    def _asked(self) -> int:
        return self._log.read_text().count('"GET /api/services/compute')

    def so_far(self) -> tuple[int, float, float]:
        """Return requests, seconds of computing, and seconds."""
        return (
            self._asked() - self._requests,
            time.process_time() - self._cpu,
            time.monotonic() - self._begun,
        )


def _memory() -> float:
    gc.collect()
    return float(psutil.Process().memory_info().rss) / 1e6


async def _measure(
    settings: NetworkSettings, count: int, interval: float, intervals: int, ends: int
) -> dict[str, Any]:
    history = OperatorJobHistory(settings)
    job_ids = history.add(count)
    # What comes with the first trigger of all is the triggerer's and not a job's: modules, certificates, a thread.
    warm = OperatorJobHistory(settings)
    [first] = warm.add(1)
    warm.finish(first)
    warming = Waits(settings, warm.consumer, interval)
    await warming.start([first])
    await warming.until_fired(first)
    memory, beginning = _memory(), Load(settings)
    waits = Waits(settings, history.consumer, interval)
    await waits.start(job_ids)
    await asyncio.sleep(SETTLING * interval)
    first_requests, first_cpu, _ = beginning.so_far()
    grown = _memory() - memory
    steady = Load(settings)
    await asyncio.sleep(intervals * interval)
    requests, cpu, seconds = steady.so_far()
    delays = []
    for job_id in random.sample(job_ids, min(count, ends)):
        await asyncio.sleep(random.uniform(0, interval))
        history.finish(job_id)
        ended = time.time()
        delays.append(await waits.until_fired(job_id) - ended)
    await waits.end()
    return {
        "first_requests": first_requests,
        "first_cpu": first_cpu,
        "requests": requests / seconds * interval,
        "cpu": cpu / seconds,
        "memory": grown,
        "delays": delays,
        "median_delay": statistics.median(delays),
    }


def main(home: str, count: int, interval: float, intervals: int, ends: int) -> dict[str, Any]:
    """Wait for ``count`` jobs of one consumer.

    :param home: the local network's folder
    :param interval: seconds between two looks
    :param intervals: for how many of them to measure the steady state
    :param ends: of how many jobs to take the time from end to event
    """
    settings = NetworkSettings.load(Path(home))
    assert settings is not None
    import airflow_ocean.triggers  # noqa: F401 - Airflow sets up its logging

    logging.disable(logging.INFO)  # each trigger's log line goes to a file of its own in a triggerer
    return asyncio.run(_measure(settings, count, interval, intervals, ends))


if __name__ == "__main__":
    tell_result(main)
