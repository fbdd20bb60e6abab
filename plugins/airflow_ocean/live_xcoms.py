"""XComs of a deferred task, written from the triggerer while the task waits."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import weakref
from typing import Any

from airflow.sdk import BaseXCom
from airflow.sdk.exceptions import AirflowRuntimeError

logger = logging.getLogger(__name__)


class LiveXCom:
    """An XCom that grows while its task waits.

    All of an event loop take turns: each request is answered by the triggerer's only parent process, which has to tell
    Airflow meanwhile that it is alive. An XCom that cannot be written is not worth a failure.

    :param instance: anything with the ids of a task instance
    :param key: the XCom's
    """

    def __init__(self, instance: Any, key: str) -> None:
        self.key = key
        self.ids = {
            "dag_id": instance.dag_id,
            "run_id": instance.run_id,
            "task_id": instance.task_id,
            "map_index": instance.map_index,
        }

    async def value(self) -> Any:
        """Return what to write, asked when it is this one's turn."""
        raise NotImplementedError

    def write_soon(self) -> None:
        """Write the XCom when its turn comes."""
        _Turns.of_this_loop().take(self)

    def close(self) -> None:
        """Write nothing any more."""
        _Turns.of_this_loop().give_up(self)


class _Turns:
    """The XComs of an event loop that have something to write, in turn."""

    _of_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = weakref.WeakKeyDictionary()

    def __init__(self) -> None:
        self._waiting: dict[LiveXCom, None] = {}
        self._current: LiveXCom | None = None
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def of_this_loop(cls) -> _Turns:
        return cls._of_loop.setdefault(asyncio.get_running_loop(), cls())

    def take(self, xcom: LiveXCom) -> None:
        self._waiting[xcom] = None
        if self._task is None or self._task.done():
            # Of its own context: what it logs belongs to no one of the tasks that wait.
            self._task = asyncio.get_running_loop().create_task(
                self._write_all(), name="live XComs of Ocean jobs", context=contextvars.Context()
            )

    def give_up(self, xcom: LiveXCom) -> None:
        self._waiting.pop(xcom, None)
        if self._current is xcom:
            self._current = None

    async def _write_all(self) -> None:
        while self._waiting:
            xcom = self._current = next(iter(self._waiting))
            del self._waiting[xcom]
            try:
                value = await xcom.value()
                if self._current is xcom:
                    await BaseXCom.aset(xcom.key, value, **xcom.ids)
            except (AirflowRuntimeError, TypeError) as error:
                logger.warning("The XCom %s of a task cannot be written for now: %s", xcom.key, error)
        self._current = None
