"""The states of a job over time, in an XCom of the task that waits for it, also while it waits."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseXCom

from airflow_ocean.live_xcoms import LiveXCom

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_ocean.c2d.jobs import Job

# XCom of the waiting task: [{"at": seconds since 1970, "state": 40, "text": "Running algorithm"}, …], oldest first; "at"
# is when the state was first seen.
STATES_KEY = "states"


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


class TimelineWriter(LiveXCom):
    """Keeps the XCom of a deferred task up to date, from the triggerer.

    :param instance: anything with the ids of a task instance
    :param states: what was seen before
    """

    def __init__(self, instance: Any, states: list[dict[str, Any]]) -> None:
        super().__init__(instance, STATES_KEY)
        self.states = states
        self._known = False

    def note(self, entry: dict[str, Any]) -> None:
        """Take a state in, and write the XCom soon if it is a new one."""
        states = merged(self.states, [entry])
        if len(states) != len(self.states):
            self.states = states
            self.write_soon()

    async def value(self) -> list[dict[str, Any]]:
        """Return all that was seen, what a triggerer before this one saw included."""
        if not self._known:
            earlier = await BaseXCom.aget_one(key=self.key, **self.ids)
            self.states, self._known = merged(earlier, self.states), True
        return self.states
