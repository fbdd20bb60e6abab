"""Ctrl-C and its relatives: they end a command once, and never in the middle of cleaning up."""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """The person, or the system, asked the command to end.

    :param signal_number: the signal that asked
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.exit_status = 128 + signal_number


class Teardown:
    """What must be undone at the end, latest first, whatever the end is.

    The first signal raises :class:`Interrupted`; further ones are ignored, because the end is under way then.
    """

    def __init__(self) -> None:
        self._callbacks: list[Callable[[], object]] = []
        self._received: int | None = None
        self._holds = 0

    def _receive(self, signal_number: int, _frame: Any) -> None:
        if self._received is not None:
            return
        self._received = signal_number
        if not self._holds:
            raise Interrupted(signal_number)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Put off an interrupt while something is begun and its undoing is added."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
        if self._received is not None and not self._holds:
            raise Interrupted(self._received)

    def add(self, callback: Callable[[], object]) -> None:
        """Add what has to be done at the end; it may be called twice."""
        self._callbacks.append(callback)

    def _undo(self) -> None:
        while self._callbacks:
            try:
                self._callbacks[-1]()
            except Exception as error:  # the rest must be undone all the same
                print(f"while ending: {error}", file=sys.stderr)
            self._callbacks.pop()

    def run(self, work: Callable[[], int]) -> int:
        """Do the work, undo what was added meanwhile, and return the exit status."""
        for number in _SIGNALS:
            # nohup makes a process deaf to SIGHUP: it stays so.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._receive)
        try:
            try:
                return work()
            finally:
                self._undo()
        except Interrupted as interrupted:
            # The signal may have come in the middle of the line above; from now on none raises.
            self._undo()
            return interrupted.exit_status
