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


def stop(*processes: tuple[subprocess.Popen[str], float]) -> None:
    """End processes, all at once, and their descendants: politely first, after a while by force.

    :param processes: each with the seconds it has
    """
    families = {process: _family(process) for process, _ in processes}
    begun = time.monotonic()
    for process in families:
        process.terminate()
    for process, grace in sorted(processes, key=lambda entry: entry[1]):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(begun + grace - time.monotonic(), 0))
        # Whoever is left now has lost its parent, or the parent did not heed the request.
        left = [member for member in families[process] | _family(process) if member.is_running()]
        for member in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait(5)  # before psutil, which would take the exit status away
        psutil.wait_procs(left, timeout=5)


def _family(process: subprocess.Popen[str]) -> set[psutil.Process]:
    try:
        leader = psutil.Process(process.pid)
        return {leader, *leader.children(recursive=True)}
    except psutil.NoSuchProcess:
        return set()


def end_of(log: Path, lines: int = 30, begin: int = 0, end: int | None = None) -> str:
    """Return the last lines of a log, or of a part of it.

    :param begin: offset in bytes of the part
    :param end: offset in bytes behind the part, None for the end of the file
    """
    try:
        with log.open("rb") as file:
            end = file.seek(0, 2) if end is None else end
            file.seek(max(begin, end - 64_000))
            text = file.read(end - file.tell()).decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
