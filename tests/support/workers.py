"""Several test processes side by side (pytest-xdist): what runs in which, and an end that leaves nothing running."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.workermanage import WorkerController

# Files whose tests share what takes long to start: a browser's Airflow, an Airflow whose processes are killed, dockerd.
_TOGETHER = {
    "tests/docker/": "docker",
    "tests/unit/localnet/test_sandbox.py": "docker",
    "tests/e2e/browser/": "browser",
    "tests/e2e/test_cancelling.py": "mortal Airflow",
    "tests/e2e/test_chaos.py": "mortal Airflow",
    "tests/e2e/test_waiting.py": "mortal Airflow",
}
# The signal that has ended the tests of this process.
_ended_by: list[str] = []
# Seconds that a worker may take to stop the networks and Airflows which it has started.
_PATIENCE = 120.0


class FilesTogether(LoadScopeScheduling):
    """Gives each worker whole files, as their fixtures are costly, in the order in which they were collected.

    That order has the long ones first, so that at the end all workers are busy.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return next((group for begin, group in _TOGETHER.items() if path.startswith(begin)), path)


class Workers:
    """Ends the workers of a run that is interrupted as the run itself is ended: they stop what they have started.

    pytest-xdist by itself kills workers ten seconds after an interrupt, and their processes would stay.
    """

    def __init__(self) -> None:
        self._at_work: set[WorkerController] = set()

    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Producer) -> FilesTogether | None:
        """Distribute the tests, unless another way was chosen."""
        if config.getvalue("dist") != "load":
            return None
        config.option.loadscopereorder = False
        return FilesTogether(config, log)

    def pytest_testnodeready(self, node: WorkerController) -> None:
        """Remember a worker, which may run tests from now on."""
        self._at_work.add(node)

    def pytest_testnodedown(self, node: WorkerController) -> None:
        """Forget a worker that has ended by itself."""
        self._at_work.discard(node)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """End those that are still at work, and wait for them."""
        for worker in self._at_work:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.gateway._rinfo().pid, signal.SIGTERM)
        for worker in self._at_work:
            try:
                worker.channel.waitclose(_PATIENCE)
            except worker.channel.TimeoutError:
                what = f"{worker} did not end within {_PATIENCE:.0f} s and is killed: look for processes that it leaves"
                print(what, file=sys.stderr)
            except (worker.channel.RemoteError, EOFError):
                pass  # It was just done, or has died.


def end_at_a_signal(*numbers: signal.Signals) -> None:
    """Let the first of some signals end the tests; those that follow must not disturb the clean-up."""

    def end(number: int, _frame: object) -> None:
        for each in numbers:
            signal.signal(each, lambda *_: None)
        _ended_by.append(signal.Signals(number).name)
        end_if_told()

    for number in numbers:
        signal.signal(number, end)


def end_if_told() -> None:
    """End the tests after a signal; again after each test, as the code under test may have taken the end for one of its own."""
    if _ended_by:
        # Not pytest.exit(): that is an Exception, which more code catches.
        raise KeyboardInterrupt(_ended_by[0])
