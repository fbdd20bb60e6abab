"""Collects what a job leaves behind, as upstream's pod-publishing does, and throws the rest away.

A result is moved to a file that is named by its index: its own name, which the algorithm chose, is only ever data.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from include.localnet.operator_service.jobspace import Folders

_TYPES = {"algorithm.log": "algorithmLog", "configure.log": "configrationLog", "publish.log": "publishLog"}


def publish(folders: Folders, limit: int, *, with_outputs: bool = True) -> list[dict[str, Any]]:
    """Return the results in upstream's order: outputs, the algorithm's logs, the service's own.

    As upstream, only regular files that lie directly in the folders count.

    :param limit: bytes of outputs that are kept together
    :param with_outputs: False leaves out what an interrupted algorithm made so far
    """
    folders.results.mkdir(mode=0o700, exist_ok=True)
    results: list[dict[str, Any]] = []
    refused: list[str] = []
    if with_outputs:
        for folder in (folders.outputs, folders.logs):
            names = sorted(os.listdir(os.fsencode(folder))) if folder.is_dir() else []
            for name in names:
                source = os.path.join(os.fsencode(folder), name)
                status = os.lstat(source)
                if folder == folders.logs and name == b"algorithm.log":
                    continue  # the place where the real one was mounted
                if not stat.S_ISREG(status.st_mode):
                    refused.append(f"{_shown(name)!r} is no regular file")
                elif status.st_size > limit:
                    refused.append(f"{_shown(name)!r} is too large")
                else:
                    limit -= status.st_size
                    _keep(folders, source, _shown(name), "output", results)
            if folder == folders.outputs:
                outputs = len(results)
    _keep(folders, os.fsencode(folders.algorithm_log), "algorithm.log", _TYPES["algorithm.log"], results)
    _keep(folders, os.fsencode(folders.configuration_log), "configure.log", _TYPES["configure.log"], results)
    lines = [f"{outputs if with_outputs else 0} outputs are published."]
    lines += [f"Left out: {reason}." for reason in refused]
    folders.publishing_log.write_text("\n".join(lines) + "\n")
    _keep(folders, os.fsencode(folders.publishing_log), "publish.log", _TYPES["publish.log"], results)
    return results


def _keep(folders: Folders, source: bytes, name: str, kind: str, results: list[dict[str, Any]]) -> None:
    target = folders.results / str(len(results))
    if not os.path.lexists(source):  # the service died before it wrote this one, or while it published
        if not target.exists():
            target.touch()
    else:
        os.rename(source, target)
    os.chmod(target, 0o600)
    if os.geteuid() == 0:
        os.chown(target, 0, 0)
    results.append({"filename": name, "filesize": target.stat().st_size, "type": kind})


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def discard_all_but_results(folders: Folders) -> None:
    """Delete a job's inputs and everything else that is not a result."""
    for path in folders.root.iterdir() if folders.root.is_dir() else []:
        if path != folders.results:
            discard(path)


def discard(path: Path) -> None:
    """Delete a tree however deep it is and whatever rights its folders have; ``rm`` and ``chmod`` can, ``shutil`` can't."""
    if path.is_dir() and not path.is_symlink():
        subprocess.run(["chmod", "-R", "u+rwX", "--", path], check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["rm", "-rf", "--", path], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
