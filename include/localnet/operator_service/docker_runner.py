"""Runs a job's algorithm in a container of its image, with the sandbox's layout, limits and outcomes.

Files go in and out through the engine's API, not by mounts, so the engine need not see this machine's folders. What the
algorithm writes lies in the container's own layer, whose growth is watched; ``/tmp`` lies in memory.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

from docker.errors import APIError, DockerException, NotFound
from docker.types import LogConfig, Ulimit

from include.localnet.operator_service.docker_engine import EngineUnavailable
from include.localnet.operator_service.docker_files import packed, unpack
from include.localnet.operator_service.jobspace import MEGABYTE, Folders, Limits, Outcome
from include.localnet.operator_service.supervisor import Log, ending

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from docker import APIClient

_INTERVAL = 0.1
_SIZE_SECONDS = 1.0
_KILL_SECONDS = 10
# An engine learns that the memory was too small from another source than the end, and on a busy machine later, seconds.
_NOTICE_SECONDS = 3.0
_KILLED = 128 + signal.SIGKILL
_CPU_PERIOD = 100_000  # microseconds
_ORDINARY_USER = "1000:1000"
_ROOT = ("", "0", "root")


class DockerRunner:
    """Runs commands in containers of one image.

    :param client: of the engine
    :param image: the image as the engine describes it
    :param labels: of every container; whoever clears up finds them by these
    :param state: the service's own folder
    """

    advice = (
        "Jobs run in Docker containers. `docker info` says whether the engine is well; `up --runner sandbox` does "
        "without it."
    )

    def __init__(self, client: APIClient, image: dict[str, Any], labels: dict[str, str], state: Path) -> None:
        self._client, self._image, self._labels, self._state = client, image, labels, state

    def run(
        self,
        folders: Folders,
        command: str,
        variables: dict[str, str],
        limits: Limits,
        stop_requested: Callable[[], bool],
    ) -> Outcome:
        """Run a shell command until it ends or has to be ended, its output going to the job's algorithm log.

        :param folders: the job's, created
        :param command: for ``sh -c``, instead of the image's own entrypoint
        :param variables: the algorithm's environment besides the image's
        :param stop_requested: asked several times a second
        """
        log = Log(folders.algorithm_log, limits.log)
        container = ""
        try:
            container = self._create(folders.root.name, command, variables, limits)
            self._client.put_archive(container, "/", packed(folders))
            outcome = _Run(self._client, container, folders, limits, log).until_end(stop_requested)
        except (DockerException, OSError) as error:
            outcome = Outcome(None, "sandbox", f"The container could not be run: {error}")
        finally:
            if container:
                with contextlib.suppress(DockerException, OSError):  # the guard removes it in the end
                    self._client.remove_container(container, force=True, v=True)
        if outcome.reason:
            log.line(outcome.reason)
        log.close()
        return outcome

    def check(self) -> None:
        """Run a trivial command.

        :raises EngineUnavailable: when that fails
        """
        folders = Folders(self._state / f"check-{os.getpid()}")
        shutil.rmtree(folders.root, ignore_errors=True)
        try:
            folders.create()
            limits = Limits(memory=512 * MEGABYTE, output=MEGABYTE, wall_seconds=60)
            outcome = self.run(folders, "true", {}, limits, lambda: False)
            if outcome != Outcome(0, "itself"):
                raise EngineUnavailable(f"{outcome.reason} {self.advice}")
        finally:
            shutil.rmtree(folders.root, ignore_errors=True)

    def _create(self, job: str, command: str, variables: dict[str, str], limits: Limits) -> str:
        host = self._client.create_host_config(
            network_mode="none",
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            mem_limit=limits.memory,
            memswap_limit=limits.memory,
            # Not nano_cpus: the engine refuses more of those than the machine has.
            cpu_period=_CPU_PERIOD,
            cpu_quota=limits.cpus * _CPU_PERIOD,
            pids_limit=limits.processes,
            shm_size=limits.temporary,
            tmpfs={
                "/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={limits.temporary},nr_inodes={limits.files}"
            },
            ulimits=[
                Ulimit(name=name, soft=value, hard=value)
                for name, value in {
                    "core": 0,
                    "cpu": int(limits.wall_seconds * limits.cpus) + 1,
                    "fsize": limits.output,
                    "nofile": limits.open_files,
                    "msgqueue": 0,
                }.items()
            ],
            log_config=LogConfig(type="none"),
        )
        user = str(self._image["Config"].get("User") or "")
        created = self._client.create_container(
            self._image["Id"],
            # The engine hands out the two outputs one beside the other, which would mix up their order.
            entrypoint=["/bin/sh", "-c", f"exec 2>&1\n{command}"],
            command=[],
            environment={**limits.variables(), **variables},
            working_dir="/",
            user=_ORDINARY_USER if user.partition(":")[0] in _ROOT else user,
            hostname="sandbox",
            labels={**self._labels, "org.oceanprotocol.localnet.job": job},
            host_config=host,
        )
        identifier: str = created["Id"]
        return identifier


class _Run:
    """One run of a container that was created and has its files."""

    def __init__(self, client: APIClient, container: str, folders: Folders, limits: Limits, log: Log) -> None:
        self._client, self._container = client, container
        self._folders, self._limits, self._log = folders, limits, log
        self._size_before = self._size()
        self._next_size = 0.0

    def until_end(self, stop_requested: Callable[[], bool]) -> Outcome:
        """Start the command, wait for it or end it, and bring home what it made."""
        printed = self._client.attach(self._container, stdout=True, stderr=True, stream=True)
        reader = threading.Thread(target=self._relay, args=(printed,), daemon=True)
        reader.start()
        self._client.start(self._container)
        deadline = time.monotonic() + self._limits.wall_seconds
        outcome = None
        while (state := self._state())["Running"]:
            outcome = self._interruption(deadline, stop_requested)
            if outcome is not None:
                self._kill()
                break
            time.sleep(_INTERVAL)
        reader.join(_KILL_SECONDS)
        breach = self._collect()
        if outcome is not None:
            return outcome
        status = int(state["ExitCode"])
        if status and self._ran_out_of_memory(state):
            words = f"it used more than {self._limits.memory} bytes of memory"
            return Outcome(status, "limit", f"The algorithm was killed: {words}.")
        if breach:
            return Outcome(status, "limit", f"The algorithm's results are refused: {breach}.")
        return ending(status)

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = self._client.inspect_container(self._container)["State"]
        return state

    def _ran_out_of_memory(self, state: dict[str, Any]) -> bool:
        """Say whether the kernel killed a command that has ended for the memory it used."""
        deadline = time.monotonic() + _NOTICE_SECONDS
        while state["ExitCode"] == _KILLED and not state["OOMKilled"] and time.monotonic() < deadline:
            time.sleep(_INTERVAL)
            state = self._state()
        return bool(state["OOMKilled"])

    def _size(self) -> int:
        """Return the bytes of the container's own layer."""
        found = self._client.containers(all=True, size=True, filters={"id": self._container})
        return int(found[0].get("SizeRw") or 0) if found else 0

    def _relay(self, printed: Iterable[bytes]) -> None:
        for part in printed:
            self._log.write(part)
            if self._log.full:
                time.sleep(0.01)  # an endless printer waits for its reader

    def _interruption(self, deadline: float, stop_requested: Callable[[], bool]) -> Outcome | None:
        if stop_requested():
            return Outcome(None, "stop", "The algorithm was stopped on request.")
        if time.monotonic() > deadline:
            seconds = f"{self._limits.wall_seconds:g}"
            return Outcome(
                None, "time", f"The algorithm was killed: it ran longer than the {seconds} s it had."
            )
        began = time.monotonic()
        if began < self._next_size:
            return None
        written = self._size() - self._size_before
        # A layer that takes long to measure is measured less often.
        self._next_size = time.monotonic() + max(_SIZE_SECONDS, 5 * (time.monotonic() - began))
        if written <= self._limits.output:
            return None
        words = f"it wrote more than {self._limits.output} bytes to outputs and logs"
        return Outcome(None, "limit", f"The algorithm was killed: {words}.")

    def _kill(self) -> None:
        with contextlib.suppress(APIError):  # it has ended by itself just now
            self._client.kill(self._container)
        self._client.wait(self._container, timeout=_KILL_SECONDS)

    def _collect(self) -> str:
        """Unpack outputs and logs, and return the limit that they pass."""
        left, breach = self._limits.output, ""
        for folder in (self._folders.outputs, self._folders.logs):
            try:
                chunks, _ = self._client.get_archive(self._container, f"/data/{folder.name}")
            except NotFound:  # the algorithm has removed it
                continue
            with contextlib.closing(chunks):
                breach = breach or unpack(chunks, folder, left, self._limits.files)
            left -= sum(path.lstat().st_size for path in folder.iterdir())
        return breach
