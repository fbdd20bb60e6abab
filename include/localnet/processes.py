"""Child processes that outlive the command which started them: started detached, recognised later, stopped for good."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]

from include.localnet.settings import PROJECT, replace_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType

_GRACE = 10.0  # seconds between SIGTERM and SIGKILL
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# Children of this very process, so that their exit status is collected; a dead one would stay as a zombie otherwise.
_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class ProcessRecord:
    """What is needed to find a process again.

    :param pid: process id
    :param started: when it started; tells it from a later process with the same id
    """

    pid: int
    started: str


def _start_time(pid: int) -> str | None:
    """Return a text that no other process with this id ever has; None when it does not run (any more)."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        if sys.platform == "linux":
            # psutil derives the time from the wall clock, which may be set; these ticks count from the boot.
            ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            return f"{boot} {ticks}"
        return str(process.create_time())
    except (psutil.Error, OSError):
        return None


@contextlib.contextmanager
def signals_deferred() -> Iterator[None]:
    """Let Ctrl-C and requests to end wait until the block is through, so that no child is lost track of."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    previous = {number: signal.signal(number, remember) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        for deferred in received:
            signal.raise_signal(deferred)


class ProcessTable:
    """The processes of one home folder, by name.

    :param home: folder that gets ``run/<name>.json`` and ``logs/<name>.log``
    """

    def __init__(self, home: Path) -> None:
        self._run = home / "run"
        self._logs = home / "logs"

    def log(self, name: str) -> Path:
        """Return the file with a process's output."""
        return self._logs / f"{name}.log"

    def end_of_log(self, name: str, lines: int = 20) -> str:
        """Return the last lines of a process's output."""
        try:
            content = self.log(name).read_text(errors="replace").splitlines()
        except OSError as error:
            return f"(no log: {error})"
        return "\n".join(content[-lines:]) or "(it wrote nothing)"

    def start(self, name: str, command: list[str], environment: dict[str, str]) -> ProcessRecord:
        """Start a process in a session of its own, so that a Ctrl-C in this terminal does not reach it.

        :param environment: added to this process's environment
        :raises OSError: when the command cannot be run
        """
        self._run.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        with signals_deferred(), self.log(name).open("ab") as output:
            child = subprocess.Popen(
                command,
                cwd=PROJECT,
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            _children[child.pid] = child
            # One that is over already has no start time; its record then fits no process.
            record = ProcessRecord(child.pid, _start_time(child.pid) or "ended")
            replace_text(self._run / f"{name}.json", json.dumps(asdict(record)))
        return record

    def running(self, name: str) -> ProcessRecord | None:
        """Return a process that runs, None when it was never started, has ended, or its id belongs to another."""
        try:
            record = ProcessRecord(**json.loads((self._run / f"{name}.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None
        child = _children.get(record.pid)
        if child is not None:
            # Until all its threads are gone a killed process holds its ports, though its state is "zombie" already.
            return record if child.poll() is None else None
        return record if _start_time(record.pid) == record.started else None

    def was_stopped(self, name: str) -> bool:
        """Say whether a process was stopped on purpose or never started; False for one that died by itself."""
        return not (self._run / f"{name}.json").exists()

    def stop(self, names: Iterable[str]) -> None:
        """End processes, all at once: SIGTERM, after a grace period SIGKILL to what is left of their groups."""
        with signals_deferred():
            found = {name: record for name in names if (record := self.running(name))}
            for record in found.values():
                _signal(record.pid, signal.SIGTERM)
            deadline = time.monotonic() + _GRACE
            while any(self.running(name) for name in found) and time.monotonic() < deadline:
                time.sleep(0.02)
            for name, record in found.items():
                # What a process leaves behind in its group goes with it; the group is gone when nothing is left.
                _signal_group(record.pid, signal.SIGKILL)
                while self.running(name):
                    time.sleep(0.02)
            for name in names:
                (self._run / f"{name}.json").unlink(missing_ok=True)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _signal_group(pid: int, number: signal.Signals) -> None:
    # macOS answers EPERM for a group of which only zombies are left.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def memory_of(pid: int) -> float:
    """Return the resident memory of a process and all below it in MB, 0 when it has ended."""
    total = 0.0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for member in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):  # a child that has just ended
                total += float(member.memory_info().rss) / 1e6
    return total
