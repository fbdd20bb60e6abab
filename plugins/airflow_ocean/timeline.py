"""The states of a job over time, in an XCom of the task that waits for it, also while it waits."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
import weakref
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseXCom
from airflow.sdk.exceptions import AirflowRuntimeError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_ocean.c2d.jobs import Job

# XCom of the waiting task: [{"at": seconds since 1970, "state": 40, "text": "Running algorithm"}, …], oldest first; "at"
# is when the state was first seen.
STATES_KEY = "states"

logger = logging.getLogger(__name__)


def seen(job: Job) -> dict[str, Any]:
    """Return the entry for a job's present state."""
    return {"at": round(time.time(), 3), "state": job.state, "text": job.text}


def is_news(job: Job, states: list[dict[str, Any]]) -> bool:
    """Say whether a job is in another state than the one it was seen in last."""
    return not states or (states[-1]["state"], states[-1]["text"]) != (job.state, job.text)


def merged(*histories: Iterable[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Join what several observers saw, oldest first, each state once where several saw it."""
    states: list[dict[str, Any]] = []
    entries = (entry for history in histories for entry in history or ())
    for entry in sorted(entries, key=lambda entry: float(entry["at"])):
        if not states or (states[-1]["state"], states[-1]["text"]) != (entry["state"], entry["text"]):
            states.append(entry)
    return states


def elapsed(job: Job, states: list[dict[str, Any]]) -> float:
    """Return for how long there has been a job, in seconds, as far as this machine's clock and the service's agree."""
    begun = [entry["at"] for entry in states[:1]]
    if job.created is not None:
        begun.append(job.created.timestamp())
    return max(time.time() - min(begun, default=time.time()), 0.0)


class TimelineWriter:
    """Keeps the XCom of a deferred task up to date, from the triggerer.

    All writers of an event loop take turns: each request is answered by the triggerer's only parent process, which has
    to tell Airflow meanwhile that it is alive. An XCom that cannot be written is not worth a failure: the task writes it
    again when it ends.

    :param instance: anything with the ids of a task instance
    :param states: what was seen before
    """

    def __init__(self, instance: Any, states: list[dict[str, Any]]) -> None:
        self._ids = {
            "dag_id": instance.dag_id,
            "run_id": instance.run_id,
            "task_id": instance.task_id,
            "map_index": instance.map_index,
        }
        self.states = states
        self._known = False

    def note(self, entry: dict[str, Any]) -> None:
        """Take a state in, and write the XCom soon if it is a new one."""
        states = merged(self.states, [entry])
        if len(states) != len(self.states):
            self.states = states
            _Turns.of_this_loop().take(self)

    def close(self) -> None:
        """Write nothing any more."""
        _Turns.of_this_loop().give_up(self)

    async def write(self, turns: _Turns) -> None:
        """Write the XCom."""
        if not self._known:
            # What a triggerer before this one saw.
            earlier = await BaseXCom.aget_one(key=STATES_KEY, **self._ids)
            self.states, self._known = merged(earlier, self.states), True
        if turns.is_at(self):
            await BaseXCom.aset(STATES_KEY, self.states, **self._ids)


class _Turns:
    """The writers of an event loop that have something to write, in turn."""

    _of_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = weakref.WeakKeyDictionary()

    def __init__(self) -> None:
        self._waiting: dict[TimelineWriter, None] = {}
        self._current: TimelineWriter | None = None
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def of_this_loop(cls) -> _Turns:
        return cls._of_loop.setdefault(asyncio.get_running_loop(), cls())

    def take(self, writer: TimelineWriter) -> None:
        self._waiting[writer] = None
        if self._task is None or self._task.done():
            # Of its own context: what it logs belongs to no one of the tasks that wait.
            self._task = asyncio.get_running_loop().create_task(
                self._write_all(), name="time lines of Ocean jobs", context=contextvars.Context()
            )

    def give_up(self, writer: TimelineWriter) -> None:
        self._waiting.pop(writer, None)
        if self._current is writer:
            self._current = None

    def is_at(self, writer: TimelineWriter) -> bool:
        """Say whether it is still a writer's turn."""
        return self._current is writer

    async def _write_all(self) -> None:
        while self._waiting:
            self._current = next(iter(self._waiting))
            del self._waiting[self._current]
            try:
                await self._current.write(self)
            except (AirflowRuntimeError, TypeError) as error:
                logger.warning("The time line of a job cannot be written for now: %s", error)
        self._current = None
