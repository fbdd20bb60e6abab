"""What a running sandbox uses, measured from outside: processes, memory, files. No limit of a single process knows the sum."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_BLOCK = 512
_DEEPEST = 64


@dataclass
class Usage:
    """A sum over all processes of a sandbox.

    :param tasks: processes and threads
    :param memory: resident bytes; pages that several processes share count once if the kernel tells
    """

    tasks: int = 0
    memory: int = 0


class Unmeasurable(Exception):
    """A folder's content can't be counted, with the reason as a clause that fits behind "because"."""


def _processes(first: int) -> list[int]:
    """Return the ids of a process and everything below it: in a pid namespace orphans fall to its first process."""
    found, pending = [], [first]
    while pending:
        process = pending.pop()
        found.append(process)
        try:
            threads = os.listdir(f"/proc/{process}/task")
        except OSError:
            continue
        for thread in threads:
            try:
                with open(f"/proc/{process}/task/{thread}/children") as file:
                    pending.extend(int(child) for child in file.read().split())
            except OSError:
                continue
    return found


def _resident(process: int) -> int:
    try:
        with open(f"/proc/{process}/statm") as file:
            return int(file.read().split()[1]) * _PAGE
    except OSError:  # it has ended
        return 0


def _proportional(process: int) -> int:
    """Return a process's memory, of shared pages its share only."""
    try:
        with open(f"/proc/{process}/smaps_rollup") as file:
            for line in file:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
    except PermissionError:
        return _resident(process)
    except OSError:  # it has ended
        pass
    return 0


def usage_of(first: int, memory_limit: int) -> Usage:
    """Measure the sandbox whose first process is ``first``.

    :param first: host's id of the first process in the sandbox's pid namespace
    :param memory_limit: shared pages are told apart, which is dear, only when the plain sum is above this (bytes)
    """
    usage = Usage()
    processes = _processes(first)
    for process in processes:
        usage.memory += _resident(process)
        with contextlib.suppress(OSError):
            usage.tasks += len(os.listdir(f"/proc/{process}/task"))
    for _ in range(2):  # shares grow while others end, so one sum alone may be too high
        if usage.memory > memory_limit:
            usage.memory = min(usage.memory, sum(_proportional(process) for process in processes))
    return usage


def temporary_use(first: int) -> tuple[int, int]:
    """Return bytes and files in the sandbox's ``/tmp``, which lies in memory; zeros when it is just beginning or ending."""
    try:
        if os.path.samefile(f"/proc/{first}/root", "/"):
            return 0, 0  # bubblewrap has not mounted anything yet: this would be the machine's own
        status = os.statvfs(f"/proc/{first}/root/tmp")
    except OSError:
        return 0, 0
    return (status.f_blocks - status.f_bfree) * status.f_frsize, status.f_files - status.f_ffree


def folder_use(folders: list[Path], most_files: int) -> tuple[int, int]:
    """Return the bytes on disk and the number of entries below some folders, following no link.

    :param most_files: counting stops above this number
    :raises Unmeasurable: when something is nested too deep, or a folder can't be read
    """
    size = entries = 0
    pending = [(str(folder), 0) for folder in folders]
    while pending and entries <= most_files:
        folder, depth = pending.pop()
        if depth > _DEEPEST:
            raise Unmeasurable(f"folders are nested more than {_DEEPEST} deep")
        try:
            with os.scandir(folder) as listing:
                for entry in listing:
                    entries += 1
                    if entries > most_files:
                        break
                    status = os.lstat(entry.path)
                    size += status.st_blocks * _BLOCK
                    if stat.S_ISDIR(status.st_mode):
                        pending.append((entry.path, depth + 1))
        except FileNotFoundError:  # removed meanwhile
            continue
        except OSError as error:
            raise Unmeasurable(f"a folder can't be read ({error.strerror})") from error
    return size, entries
