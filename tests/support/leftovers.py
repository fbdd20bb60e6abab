"""Finding the processes that something under test has left behind."""

from __future__ import annotations

import contextlib
import uuid

import psutil

VARIABLE = "OCEAN_TEST_MARK"


def new_mark() -> dict[str, str]:
    """Return an environment variable whose value is inherited by all processes of one test, and has no others."""
    return {VARIABLE: uuid.uuid4().hex}


def marked_processes(mark: dict[str, str]) -> list[str]:
    """Return the command lines of the living processes with a mark."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            living = process.status() != psutil.STATUS_ZOMBIE
            if living and process.environ().get(VARIABLE) == mark[VARIABLE]:
                found.append(f"{process.pid} {' '.join(process.cmdline())}")
    return found
