"""What a job leaves behind: its logs, and its outputs as one tar."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tarfile
import time
from typing import TYPE_CHECKING, Any

from include.localnet.node.layout import NodeFolders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from include.localnet.node.store import Job

_CHUNK = 64 * 1024
_LOOK_SECONDS = 0.1


def results_of(folders: NodeFolders, job: Job) -> list[dict[str, Any]]:
    """Return what there is of a job so far, with the index by which it is asked for."""
    found: list[dict[str, Any]] = []
    for path, name, kind in _files(folders, job):
        with contextlib.suppress(FileNotFoundError):
            entry = {"filename": name, "filesize": path.stat().st_size, "type": kind, "index": len(found)}
            found.append(entry)
    return found


def result_file(folders: NodeFolders, job: Job, index: int) -> tuple[Path, str] | None:
    """Return the file of a result and its content type, None when there is no such result."""
    existing = [entry for entry in _files(folders, job) if entry[0].exists()]
    if index >= len(existing):
        return None
    path, _, kind = existing[index]
    return path, "application/octet-stream" if kind == "output" else "text/plain; charset=utf-8"


def _files(folders: NodeFolders, job: Job) -> list[tuple[Path, str, str]]:
    files = [
        (folders.image_log, "image.log", "imageLog"),
        (folders.configuration_log, "configuration.log", "configurationLog"),
    ]
    if job.is_finished:  # upstream takes these from the container in the end
        files += [
            (folders.algorithm_log, "algorithm.log", "algorithmLog"),
            (folders.outputs_tar, "outputs.tar", "output"),
        ]
    return files


def pack_outputs(folders: NodeFolders) -> None:
    """Make the tar that Docker makes of ``/data/outputs``."""
    if os.geteuid() != 0:
        # Root reads everything; an ordinary user what the algorithm lets him, whose files are his own.
        subprocess.run(["chmod", "-R", "u+rwX", "--", folders.outputs], check=False)
    temporary = folders.outputs_tar.with_suffix(".part")
    with tarfile.open(temporary, "w", format=tarfile.GNU_FORMAT) as archive:
        archive.add(folders.outputs, "outputs", filter=_owned)
    temporary.replace(folders.outputs_tar)


def _owned(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Give an entry the owner that it has in upstream's containers."""
    if entry.name == "outputs":
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = "root"
    else:
        entry.uid = entry.gid = NodeFolders.uid_inside or 0
        entry.uname = entry.gname = ""
    return entry


def follow(path: Path, runs: Callable[[], bool]) -> Iterator[bytes]:
    """Yield a log's content from its beginning, and what is added to it while its job runs.

    :param runs: asked when there is nothing more for now
    """
    with path.open("rb") as file:
        while True:
            running = runs()  # before reading, so that what comes last is read, too
            while chunk := file.read(_CHUNK):
                yield chunk
            if not running:
                return
            time.sleep(_LOOK_SECONDS)
