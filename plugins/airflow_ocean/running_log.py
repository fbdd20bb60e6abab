"""The log of a running job, in the log of the task that waits for it, and its end in an XCom; where the service shows it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from airflow_ocean.c2d.errors import FatalError, JobNotFoundError, RateLimitedError, TransientError
from airflow_ocean.live_xcoms import LiveXCom

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_ocean.c2d.wallet import Wallet

# XCom of the waiting task: the end of what the job has written so far, as text.
LOG_TAIL_KEY = "log_tail"
LONGEST_TAIL = 16_000
# What of a job's log goes into the task's; all of it is among the results.
MOST_LINES, LONGEST_LINE = 10_000, 2_000
# Jobs of a triggerer whose logs are followed at a time; each is a connection that stays open.
MOST_FOLLOWED = 16
# Seconds between two writes of the XCom, and before a log that broke off, or is not there yet, is opened again.
_WRITE_PAUSE, _OPEN_PAUSE = 3.0, 10.0

_turns = asyncio.Semaphore(MOST_FOLLOWED)


class LogTail(LiveXCom):
    """The end of a job's log."""

    def __init__(self, instance: Any) -> None:
        super().__init__(instance, LOG_TAIL_KEY)
        self._text = ""
        self._written = 0.0

    def add(self, line: str) -> None:
        """Take a line in, and write the XCom once in a while."""
        self._text = (self._text + line + "\n")[-LONGEST_TAIL:]
        if time.monotonic() - self._written > _WRITE_PAUSE:
            self._written = time.monotonic()
            self.write_soon()

    async def value(self) -> str:
        """Return it."""
        return self._text


class RunningLog:
    """Follows the log of one job until the job ends.

    :param ocean_conn_id: the wallet's connection, whose key signs the request
    :param log: the task's
    :param instance: the task instance, None when nobody is there to read an XCom
    """

    def __init__(
        self, provider_url: str, job_id: str, ocean_conn_id: str, log: Any, instance: Any | None
    ) -> None:
        self._provider_url, self._job_id, self._conn_id, self._log = provider_url, job_id, ocean_conn_id, log
        self._tail = None if instance is None else LogTail(instance)
        self._lines = self._known = 0
        self._runs = False
        self._pause = _OPEN_PAUSE
        self._task: asyncio.Task[None] | None = None

    def note(self, *, runs: bool) -> None:
        """Take in whether the job runs now: while it does, its log is followed."""
        self._runs = runs
        if runs and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._follow(), name=f"log of job {self._job_id}")

    async def end(self, grace: float = 0.0) -> None:
        """Follow it no more.

        :param grace: seconds in which the rest of it may still come
        """
        if self._task is None:
            return
        task, self._task = self._task, None
        try:
            await asyncio.wait({task}, timeout=grace)
        finally:
            task.cancel()
            if self._tail is not None:
                self._tail.close()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def _follow(self) -> None:
        self._known = 0
        try:
            wallet = await self._wallet()
            while self._runs:
                async with _turns:
                    if await self._has_ended(wallet):
                        return
                await asyncio.sleep(self._pause)
        except FatalError as error:
            # It is not worth a failure: the log is among the results as well.
            self._log.info("The log of job %s is not shown while it runs: %s", self._job_id, error)
        except Exception as error:
            # Neither are those of Airflow, such as a connection that only the workers have.
            self._log.warning("The log of job %s is not shown while it runs: %s", self._job_id, error)

    async def _has_ended(self, wallet: Wallet) -> bool:
        """Show the log as long as it goes on, and say whether that was all of it."""
        from airflow_ocean.c2d.services import follow_log

        pieces = follow_log(self._provider_url, wallet, self._job_id)
        if pieces is None:
            return True
        self._pause = _OPEN_PAUSE
        try:
            await self._read(pieces)
        except RateLimitedError as error:
            self._pause = max(error.retry_after or 0.0, _OPEN_PAUSE)
            return False
        except JobNotFoundError:
            # A job's state says that it runs a little before its container does, and after.
            return False
        except TransientError as error:
            self._log.warning("The log of job %s breaks off: %s", self._job_id, error)
            return False
        return True

    async def _wallet(self) -> Wallet:
        from airflow_ocean.c2d.wallet import Wallet
        from airflow_ocean.hooks import OceanHook

        hook = await OceanHook.acreate(self._conn_id)
        return await asyncio.to_thread(Wallet, hook.private_key)

    async def _read(self, pieces: AsyncIterator[bytes]) -> None:
        """Show a log line by line, without the bytes that were shown before."""
        seen, rest = 0, b""
        try:
            async for piece in pieces:
                seen += len(piece)
                fresh = piece[max(len(piece) - (seen - self._known), 0) :] if seen > self._known else b""
                self._known = max(self._known, seen)
                *lines, rest = (rest + fresh).split(b"\n")
                for line in lines:
                    self._show(line)
        finally:
            if rest:
                self._show(rest)

    def _show(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip("\r")
        if self._tail is not None:
            self._tail.add(text)
        self._lines += 1
        if self._lines < MOST_LINES:
            self._log.info("[job] %s", text[:LONGEST_LINE])
        elif self._lines == MOST_LINES:
            self._log.info("[job] … more than %d lines; all of the log is among the results", MOST_LINES)
