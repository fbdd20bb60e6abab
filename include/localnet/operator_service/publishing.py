"""Collects what a job leaves behind, as upstream's pod-publishing does, and throws the rest away.

A result becomes a file that is named by its index: its own name, which the algorithm chose, is only ever data.
"""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from include.localnet.operator_service.jobspace import Folders


def publish(folders: Folders, limit: int, *, with_outputs: bool = True) -> list[dict[str, Any]]:
    """Return the results in upstream's order: outputs, the algorithm's logs, the service's own.

    As upstream, only regular files that lie directly in the folders count. Nothing is moved, so that this can be done
    again when the service dies in the middle.

    :param limit: bytes of outputs that are kept together
    :param with_outputs: False leaves out what an interrupted algorithm made so far
    """
    discard(folders.results)
    folders.results.mkdir(mode=0o700)
    outputs, refused = _made_by_algorithm(folders.outputs, limit) if with_outputs else ([], [])
    logs, refused_logs = _made_by_algorithm(folders.logs, limit) if with_outputs else ([], [])
    entries = [(path, _shown(name), "output") for name, path in outputs]
    entries += [(path, _shown(name), "output") for name, path in logs]
    entries += [(os.fsencode(folders.algorithm_log), "algorithm.log", "algorithmLog")]
    entries += [(os.fsencode(folders.configuration_log), "configure.log", "configrationLog")]
    lines = [f"{len(outputs)} outputs are published."]
    lines += [f"Left out: {reason}." for reason in (*refused, *refused_logs)]
    folders.publishing_log.write_text("\n".join(lines) + "\n")
    entries += [(os.fsencode(folders.publishing_log), "publish.log", "publishLog")]
    return [_keep(folders.results / str(index), *entry) for index, entry in enumerate(entries)]


def _made_by_algorithm(folder: Path, limit: int) -> tuple[list[tuple[bytes, bytes]], list[str]]:
    """Return name and path of a folder's plain files, and why others are left out."""
    kept, refused = [], []
    for name in sorted(os.listdir(os.fsencode(folder))) if folder.is_dir() else []:
        path = os.path.join(os.fsencode(folder), name)
        status = os.lstat(path)
        if folder.name == "logs" and name == b"algorithm.log":
            continue  # only the place where the real one was mounted
        if not stat.S_ISREG(status.st_mode):
            refused.append(f"{_shown(name)!r} is no regular file")
        elif status.st_size > limit:
            refused.append(f"{_shown(name)!r} is too large")
        else:
            limit -= status.st_size
            kept.append((name, path))
    return kept, refused


def _keep(target: Path, source: bytes, name: str, kind: str) -> dict[str, Any]:
    if os.path.lexists(source):
        os.link(source, target, follow_symlinks=False)
    else:  # the service died before it made this log
        target.touch()
    os.chmod(target, 0o600)
    if os.geteuid() == 0:
        os.chown(target, 0, 0)
    return {"filename": name, "filesize": target.stat().st_size, "type": kind}


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def discard_all_but_results(folders: Folders) -> None:
    """Delete a job's inputs and everything else that is not a result."""
    with contextlib.suppress(FileNotFoundError):  # the whole folder may be deleted meanwhile
        for path in folders.root.iterdir():
            if path != folders.results:
                discard(path)


def discard(path: Path) -> None:
    """Delete a tree however deep it is and whatever rights its folders have: ``rm`` and ``chmod`` can, ``shutil`` can't."""
    if path.is_dir() and not path.is_symlink():
        for command in (["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
            subprocess.run([*command, "--", path], check=False, stderr=subprocess.DEVNULL)
    else:
        path.unlink(missing_ok=True)
