"""The folders that `make demo` and `make up` keep their state in, one command at a time."""

from __future__ import annotations

import fcntl
import os
from typing import IO, TYPE_CHECKING

from include.demo.processes import CommandError
from include.localnet.settings import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

DEMO_HOME = PROJECT / ".demo"


def claim(home: Path) -> IO[str]:
    """Take a folder for this process, until the returned file is closed.

    :raises CommandError: when another process has it
    """
    home.mkdir(parents=True, exist_ok=True)
    file = (home / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip()
        file.close()
        raise CommandError(
            f"process {owner} is at work in {home}: wait for it or end it, or use another copy of the project"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file
