"""The trigger that waits for a compute job on the triggerer's event loop; it never holds the wallet's key."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_ocean.c2d.errors import FatalError, TransientError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_ocean.c2d.jobs import Job

LONGEST_PAUSE = 300.0


class OceanComputeTrigger(BaseTrigger):
    """Wait until a compute job is over.

    Ends with one event, a dictionary whose ``event`` is ``finished`` (with ``status``, ``succeeded`` and
    ``duration``), ``timeout``, or ``error`` (with the error's ``type`` and ``message``); ``job_id`` is in all of them.
    Errors that may pass, such as a Provider that restarts, are logged and waited out.

    :param job_id: the job
    :param provider_url: the Provider that runs it
    :param consumer_address: the wallet that started it
    :param deadline: when to give up, in seconds since 1970; it is absolute so that it survives restarts
    :param poll_interval: seconds between two looks at the job
    :param ocean_conn_id: the wallet's connection, read only to stop the job
    :param stop_on_kill: whether to stop the job when a user marks the task failed or clears it
    """

    def __init__(
        self,
        *,
        job_id: str,
        provider_url: str,
        consumer_address: str,
        deadline: float,
        poll_interval: float,
        ocean_conn_id: str,
        stop_on_kill: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.job_id = job_id
        self.provider_url = provider_url
        self.consumer_address = consumer_address
        self.deadline = deadline
        self.poll_interval = poll_interval
        self.ocean_conn_id = ocean_conn_id
        self.stop_on_kill = stop_on_kill

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what another triggerer needs to go on waiting."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "job_id": self.job_id,
                "provider_url": self.provider_url,
                "consumer_address": self.consumer_address,
                "deadline": self.deadline,
                "poll_interval": self.poll_interval,
                "ocean_conn_id": self.ocean_conn_id,
                "stop_on_kill": self.stop_on_kill,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look at the job until it is over or the deadline has passed."""
        try:
            job = await self._until_finished()
        except FatalError as error:
            yield self._event("error", type=type(error).__name__, message=str(error))
            return
        if job is None:
            yield self._event("timeout")
            return
        yield self._event("finished", status=job.text, succeeded=job.succeeded, duration=job.duration)

    def _event(self, event: str, **details: Any) -> TriggerEvent:
        return TriggerEvent({"event": event, "job_id": self.job_id, **details})  # type: ignore[no-untyped-call]

    async def _until_finished(self) -> Job | None:
        """Return the finished job, None when the deadline passes first; the job is looked at once in any case."""
        failures, last_state = 0, None
        while True:
            pause = self.poll_interval
            try:
                job = await self._look()
            except TransientError as error:
                failures += 1
                pause = self._pause_after(failures, error)
                self.log.warning(
                    "Cannot see job %s for now, trying again in %.0f s: %s", self.job_id, pause, error
                )
            else:
                failures = 0
                if job.is_finished:
                    return job
                if job.state != last_state:
                    last_state = job.state
                    self.log.info("Compute %s", job.describe())
            left = self.deadline - time.time()
            if left <= 0:
                return None
            # The last look is at the deadline itself.
            await asyncio.sleep(min(pause, left))

    async def _look(self) -> Job:
        """Ask for the job's state; the one place where waiting meets the network."""
        from airflow_ocean.c2d.jobs import async_get_job

        return await async_get_job(self.provider_url, self.consumer_address, self.job_id)

    def _pause_after(self, failures: int, error: TransientError) -> float:
        pause = min(self.poll_interval * 2.0 ** min(failures, 10), max(LONGEST_PAUSE, self.poll_interval))
        return max(pause, error.retry_after or 0.0)

    async def on_kill(self) -> None:
        """Stop the job, as its task was marked failed or cleared; not called when a triggerer restarts."""
        if not self.stop_on_kill:
            return
        from airflow_ocean.hooks import OceanHook

        hook = await OceanHook.acreate(self.ocean_conn_id)
        job = await asyncio.to_thread(self._stop, hook)
        self.log.info("The task was killed; asked for the end of %s", job.describe())

    def _stop(self, hook: Any) -> Job:
        with hook.get_client() as client:
            job: Job = client.jobs.stop(self.job_id, self.provider_url)
        return job
