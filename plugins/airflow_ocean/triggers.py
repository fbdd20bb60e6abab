"""The trigger that waits for a compute job on the triggerer's event loop; the wallet's key is not among what it is given."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseXCom, TaskInstanceState
from airflow.sdk.exceptions import AirflowRuntimeError
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_ocean import metrics, timeline
from airflow_ocean.c2d.errors import FatalError, TransientError
from airflow_ocean.running_log import RunningLog
from airflow_ocean.timeline import TimelineWriter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_ocean.c2d.jobs import Job
    from airflow_ocean.c2d.waits import Trouble

# XCom of the waiting task: when it gives up, in seconds since 1970. It also tells one wait from another.
DEADLINE_KEY = "deadline"
# Pauses between the attempts to stop a job, in seconds; Airflow allows 30 s altogether ([triggerer] on_kill_timeout).
_STOP_PAUSES = (1.0, 2.0, 4.0, 8.0)
# How long the rest of a job's log may take to come when the job is over, seconds.
_LOG_GRACE = 2.0

# States besides a wait's own in which somebody wants the result.
_WANTED = (TaskInstanceState.SUCCESS.value, TaskInstanceState.UP_FOR_RETRY.value)

_can_ask = False
# Stops of jobs under way: the event loop itself would not keep them from the garbage collector.
_stopping: set[asyncio.Task[None]] = set()


class OceanComputeTrigger(BaseTrigger):
    """Wait until a compute job is over.

    Ends with one event, a dictionary whose ``event`` is ``finished`` (with ``status``, ``succeeded`` and
    ``duration``), ``timeout``, or ``error`` (with the error's ``type`` and ``message``); ``job_id`` is in all of them, and
    ``states``, what was seen of the job over time. Errors that may pass, such as a Provider that restarts, are logged and
    waited out.

    All triggers of one triggerer that wait for jobs of the same consumer at the same Provider share their requests, see
    :mod:`airflow_ocean.c2d.polling`. Each new state is logged, and written to the waiting task's XCom ``states``.

    Restarts of the triggerer, and its death, do not touch the job: the next triggerer goes on waiting, with the same
    deadline. When a user gives the task up while no triggerer runs, nobody is there to stop the job: Airflow deletes the
    trigger before the next triggerer sees it. The job then goes on; ``OceanStopComputeOperator`` stops it.

    :param job_id: the job
    :param provider_url: the Provider that runs it
    :param consumer_address: the wallet that started it
    :param deadline: when to give up, in seconds since 1970; it is absolute so that it survives restarts
    :param poll_interval: seconds between two looks at the job
    :param ocean_conn_id: the wallet's connection, read only to stop the job and to follow its log
    :param stop_on_kill: whether to stop the job when a user marks the task failed or skipped, or clears it
    :param states: what was seen of the job before, as in the XCom
    :param show_log: whether to show the job's log while it runs, where the service does
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
        states: list[dict[str, Any]] | None = None,
        show_log: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.job_id = job_id
        self.provider_url = provider_url
        self.consumer_address = consumer_address
        self.deadline = deadline
        self.poll_interval = poll_interval
        self.ocean_conn_id = ocean_conn_id
        self.stop_on_kill = stop_on_kill
        self.states = states or []
        self.show_log = show_log

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
                "states": self.states,
                "show_log": self.show_log,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait until the job is over or the deadline has passed."""
        await self._prepare_to_stop()
        writer = None if self.task_instance is None else TimelineWriter(self.task_instance, self.states)
        log = RunningLog(self.provider_url, self.job_id, self.ocean_conn_id, self.log, self.task_instance)
        try:
            job = await self._until_finished(writer, log)
            await log.end(_LOG_GRACE)
        except FatalError as error:
            yield self._event("error", type=type(error).__name__, message=str(error))
            return
        finally:
            await log.end()
            if writer is not None:
                writer.close()
        if job is None:
            yield self._event("timeout")
            return
        yield self._event("finished", status=job.text, succeeded=job.succeeded, duration=job.duration)

    def _event(self, event: str, **details: Any) -> TriggerEvent:
        content = {"event": event, "job_id": self.job_id, "states": self.states, **details}
        return TriggerEvent(content)  # type: ignore[no-untyped-call]

    async def _until_finished(self, writer: TimelineWriter | None, log: RunningLog) -> Job | None:
        """Return the finished job, None when the deadline passes first; the job is looked at once in any case."""
        from airflow_ocean.c2d.polling import waiting
        from airflow_ocean.c2d.waits import Trouble

        with waiting(
            self.provider_url,
            self.consumer_address,
            self.job_id,
            interval=self.poll_interval,
            deadline=self.deadline,
        ) as wait:
            while True:
                news = await wait.news()
                if isinstance(news, Trouble):
                    self._wait_out(news)
                    continue
                if news is None:
                    return None
                self._note(news, writer)
                if news.is_finished:
                    return news
                log.note(runs=self.show_log and news.is_running)

    def _wait_out(self, trouble: Trouble) -> None:
        """Say that a look at the job failed and will be repeated; the one place where such an error passes."""
        metrics.poll_failed()
        self.log.warning(
            "Cannot see job %s for now, trying again in %.0f s: %s", self.job_id, trouble.pause, trouble.error
        )

    def _note(self, job: Job, writer: TimelineWriter | None) -> None:
        """Keep and log a new state of the job."""
        entry = timeline.seen(job)
        self.states = timeline.merged(self.states, [entry])
        self.log.info("Compute %s, after %.0f s", job.describe(), timeline.elapsed(job, self.states))
        if writer is not None and not job.is_finished:
            writer.note(entry)

    async def _prepare_to_stop(self) -> None:
        """Ask Airflow something, once in the process.

        The first such question makes the triggerer build a whole API server within itself. On a busy machine that takes
        so long that nothing would be left of the time that :meth:`on_kill` has.
        """
        global _can_ask
        if self.stop_on_kill and self.task_instance is not None and not _can_ask:
            _can_ask = True
            try:
                await asyncio.to_thread(task_state, self.task_instance)
            except AirflowRuntimeError as error:
                self.log.warning("Airflow does not tell the task's state for now: %s", error)

    async def on_kill(self) -> None:
        """Stop the job, if told to, when a user has given the task up; not called when a triggerer is shut down."""
        if not self.stop_on_kill:
            return
        # Airflow 3.3 cancels a trigger again about every second until it has ended, and with it what this waits for.
        stopping = asyncio.create_task(self._stop_if_given_up())
        _stopping.add(stopping)
        stopping.add_done_callback(_stopping.discard)
        await asyncio.shield(stopping)

    async def _stop_if_given_up(self) -> None:
        if await self._is_still_wanted():
            self.log.info("Job %s goes on: its task was not given up", self.job_id)
            return
        from airflow_ocean.hooks import OceanHook

        hook = await OceanHook.acreate(self.ocean_conn_id)
        for pause in _STOP_PAUSES:
            try:
                job = await asyncio.to_thread(self._stop, hook)
                break
            except TransientError as error:
                self.log.warning(
                    "Cannot stop job %s for now, trying again in %.0f s: %s", self.job_id, pause, error
                )
                await asyncio.sleep(pause)
        else:
            job = await asyncio.to_thread(self._stop, hook)
        self.log.info("The task was given up; asked for the end of %s", job.describe())

    async def _is_still_wanted(self) -> bool:
        """Say whether the result is wanted although Airflow cancels this trigger.

        Airflow 3.3 cancels, as if by a user, every trigger that the database no longer assigns to its triggerer. That
        is so, too, when another triggerer has taken the trigger over, because this one was suspended or cut off for a
        while, and when the task was marked successful. A task that is up for a retry was not cleared.
        """
        instance = self.task_instance
        if instance is None:
            return False
        state = await asyncio.to_thread(task_state, instance)
        if state == TaskInstanceState.DEFERRED.value:
            # The same wait, elsewhere; or the next one, when the task was cleared and was quick to get here again.
            return bool(await self._announced_deadline(instance) == self.deadline)
        return state in _WANTED

    async def _announced_deadline(self, instance: Any) -> Any:
        return await BaseXCom.aget_one(
            key=DEADLINE_KEY,
            dag_id=instance.dag_id,
            task_id=instance.task_id,
            run_id=instance.run_id,
            map_index=instance.map_index,
        )

    def _stop(self, hook: Any) -> Job:
        with hook.get_client() as client:
            job: Job = client.jobs.stop(self.job_id, self.provider_url)
        return job


def task_state(instance: Any) -> str | None:
    """Return the state that Airflow's database has for a task instance, None when it is cleared or deleted.

    :param instance: anything with the ids of a task instance
    """
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    states = RuntimeTaskInstance.get_task_states(
        dag_id=instance.dag_id,
        task_ids=[instance.task_id],
        run_ids=[instance.run_id],
        map_index=instance.map_index,
    )
    of_run = states.get(instance.run_id, {})
    # One entry at most; a mapped instance has its index in the key.
    return next(iter(of_run.values()), None)
