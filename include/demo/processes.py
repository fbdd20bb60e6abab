"""Processes that a command starts, watches and ends together with everything they have started."""

from __future__ import annotations

import contextlib
import subprocess
from typing import IO, TYPE_CHECKING

import psutil  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from include.demo.interrupts import Teardown


class CommandError(Exception):
    """A command of the demo cannot go on; the text says what was tried and what to do."""


def start(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    log: Path,
    teardown: Teardown,
    grace: float = 15.0,
    stdin: int | IO[str] = subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[str]:
    """Start a process in a session of its own, so that Ctrl-C in the terminal reaches only the one who ends it.

    :param command: program and arguments
    :param environment: its whole environment
    :param log: file that its output is added to
    :param teardown: what will end it
    :param grace: seconds between the request to end and the end by force
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output, teardown.held():
        process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=pass_fds,
            text=True,
        )
        teardown.add(lambda: stop(process, grace))
    return process


def stop(process: subprocess.Popen[str], grace: float) -> None:
    """End a process and its descendants: politely first, after ``grace`` seconds by force."""
    family = _family(process)
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    # Whoever is left now has lost its parent, or the parent did not heed the request.
    family |= _family(process)
    left = [member for member in family if member.is_running()]
    for member in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(left, timeout=5)
    process.wait(5)


def _family(process: subprocess.Popen[str]) -> set[psutil.Process]:
    try:
        leader = psutil.Process(process.pid)
        return {leader, *leader.children(recursive=True)}
    except psutil.NoSuchProcess:
        return set()


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
