"""Processes that a command starts, watches and ends together with everything they have started."""

from __future__ import annotations

import contextlib
import subprocess
import time
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class CommandError(Exception):
    """A command of the demo cannot go on; the text says what was tried and what to do."""


def start(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    log: Path,
    stdin: int = subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[str]:
    """Start a process in a session of its own, so that Ctrl-C in the terminal reaches only the one who ends it.

    :param command: program and arguments
    :param environment: its whole environment
    :param log: file that its output is added to
    :param stdin: as :class:`subprocess.Popen` takes it
    :param pass_fds: file descriptors that it inherits
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env=dict(environment),
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=pass_fds,
            text=True,
        )


def stop(processes: Sequence[subprocess.Popen[str]], grace: float) -> None:
    """End processes and their descendants: politely first, after ``grace`` seconds by force.

    :param grace: seconds that all of them have together
    """
    family = _families(processes)
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + grace
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(deadline - time.monotonic(), 0))
    # Whoever is left now has lost its parent, or the parent did not heed the request.
    left = [member for member in family | _families(processes) if member.is_running()]
    for member in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(left, timeout=5)
    for process in processes:
        process.wait(5)


def _families(processes: Sequence[subprocess.Popen[str]]) -> set[psutil.Process]:
    found: set[psutil.Process] = set()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            leader = psutil.Process(process.pid)
            found |= {leader, *leader.children(recursive=True)}
    return found


def end_of(log: Path, lines: int = 30, start_at: int = 0) -> str:
    """Return the last lines of a log.

    :param start_at: offset in bytes before which nothing is of interest
    """
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(start_at, file.tell() - 64_000))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
