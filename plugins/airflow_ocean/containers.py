"""A container without network and rights, run by an operator's task with the Docker provider's own operator.

Importing this imports docker, so operators do it inside ``execute``.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import tempfile
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import requests
from airflow.providers.common.compat.sdk import AirflowException
from airflow.providers.docker.operators.docker import DockerOperator, fetch_logs
from airflow.sdk.bases.operator import ExecutorSafeguard
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import LogConfig, Ulimit
from docker.utils import parse_bytes

from airflow_ocean.c2d.errors import (
    InvalidInputError,
    JobFailedError,
    NotAllowedError,
    ServiceUnavailableError,
    TransientError,
)
from airflow_ocean.c2d.job_files import Outputs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow.providers.docker.hooks.docker import DockerHook
    from airflow.sdk import Context

LABEL = "org.airflow-ocean."
PULL = ("missing", "never", "always")
ORDINARY_USER = "1000:1000"
_ROOT = ("", "0", "root")
_CPU_PERIOD = 100_000  # microseconds
_WATCH_SECONDS = 1.0
_LOG_BYTES = 10 << 20
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PLAIN_WORD = re.compile(r"[A-Za-z0-9_./+-]+")
_SHELL_WORDS = frozenset(
    [
        "cd",
        "exec",
        "export",
        "set",
        "test",
        "eval",
        "source",
        ".",
        "if",
        "for",
        "while",
        "case",
        "command",
        "time",
        "trap",
        "umask",
    ]
)


@dataclass(frozen=True)
class ContainerLimits:
    """What a container may use.

    :param memory: bytes; swap is none
    :param cpus: full ones
    :param seconds: until it is killed
    :param processes: processes and threads at once
    :param output: bytes it may write, and of each file
    :param files: entries in outputs and logs
    """

    memory: int
    cpus: float
    seconds: int
    processes: int = 128
    output: int = 1 << 30
    files: int = 1000


class ConfinedContainer(DockerOperator):
    """One run of an image, of which only its files come back.

    Pulling, the connection, logging in and streaming the log are those of the Docker provider's operator.

    :param image: with its tag
    :param checksum: ``sha256:…``, the image's digest or id; None takes whatever has the name
    :param pull: ``missing`` fetches the image if it is not there, ``always`` each time, ``never`` not at all
    :param entrypoint: the command, for ``sh -c``
    :param variables: the environment besides the image's own
    :param user: None for the image's own, or an ordinary one where the image would be root
    """

    def __init__(
        self,
        *,
        image: str,
        entrypoint: str,
        variables: dict[str, str],
        limits: ContainerLimits,
        checksum: str | None = None,
        pull: str = "missing",
        user: str | None = None,
        docker_url: str | None = None,
        docker_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            task_id=kwargs.pop("task_id", "container"),
            image=image,
            force_pull=pull == "always",
            mount_tmp_dir=False,
            docker_url=docker_url,
            docker_conn_id=docker_conn_id,
            user=user,
            **kwargs,
        )
        self._checksum, self._pull, self._command = checksum, pull, entrypoint
        self._variables, self._limits = variables, limits
        self._archive: Iterable[bytes] = ()
        self._ended_by = ""
        self._done = threading.Event()
        self.kept_log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by remove

    def run(self, context: Context, archive: Iterable[bytes]) -> None:
        """Run it to its end, its log going to the task's and to ``kept_log``.

        :param archive: a tar that is unpacked at ``/`` before
        :raises InvalidInputError: there is no engine, or not this image
        :raises JobFailedError: it failed, or had to be killed
        """
        self._archive = archive
        instance = context["ti"]
        index = -1 if instance.map_index is None else instance.map_index
        self.labels = {
            f"{LABEL}dag_id": instance.dag_id,
            f"{LABEL}run_id": instance.run_id,
            f"{LABEL}task_id": instance.task_id,
            f"{LABEL}map_index": str(index),
        }
        self._check_engine()
        with self._engine_errors():
            self._remove_left_behind()
            if self._pull == "never" and not self._present():
                raise InvalidInputError(
                    f"the image {self.image} is not in the Docker engine at {self.docker_url}, and pull is never: "
                    f"fetch it there (docker pull {self.image}), or set pull to missing"
                )
            # Airflow warns of operators that are run by hand; this one is run by the task on purpose.
            token = ExecutorSafeguard.tracker.set(self)
            try:
                super().execute(context)
            finally:
                ExecutorSafeguard.tracker.reset(token)

    @contextlib.contextmanager
    def outputs(self, folder: str, max_bytes: int) -> Iterator[Outputs]:
        """Yield what it wrote to a folder below ``/data``."""
        with self._engine_errors():
            chunks: Any = iter(())
            with contextlib.suppress(NotFound):  # it removed the folder
                chunks, _ = self.cli.get_archive(self.container["Id"], f"/data/{folder}")
            try:
                yield Outputs(chunks, max_bytes, self._limits.files)
            finally:
                if hasattr(chunks, "close"):
                    chunks.close()

    def remove(self) -> None:
        """Remove the container, whatever it does."""
        self._done.set()
        self.kept_log.close()
        if self.container is not None:
            with contextlib.suppress(
                DockerException, requests.RequestException
            ):  # the next attempt removes it
                self.cli.remove_container(self.container["Id"], force=True, v=True)

    def on_kill(self) -> None:
        """Remove the container; whoever waits for it gets an error."""
        self._ended_by = "kill"
        if self.container is not None:
            # The signal may have come in the middle of the other client's request.
            client = self._another_client()
            with contextlib.suppress(DockerException, requests.RequestException):
                client.remove_container(self.container["Id"], force=True, v=True)

    def _run_image(self) -> None:
        described = self.cli.inspect_image(self.image)  # type: ignore[no-untyped-call]
        check_checksum(described, self.image, self._checksum)
        self.container = self._created(described)
        identifier = self.container["Id"]
        self._check_entrypoint(identifier, described)
        self.cli.put_archive(identifier, "/", self._archive)
        size = _layer_size(self.cli, identifier)
        printed = self.cli.attach(identifier, stdout=True, stderr=True, stream=True)
        self.log.info("Running %s in the image %s", self._command, self.image)
        if self._ended_by != "kill":
            self.cli.start(identifier)
        threading.Thread(target=self._watch, args=(identifier, size), daemon=True).start()
        try:
            fetch_logs(self._kept(printed), self.log)
            self.cli.wait(identifier, timeout=self._limits.seconds + 60)
            state = self.cli.inspect_container(identifier)["State"]
        except NotFound:
            if self._ended_by != "kill":
                raise
        finally:
            self._done.set()
        if self._ended_by == "kill":
            raise TransientError("the container was removed, as the task was to be ended")
        self._judge(state)

    def _created(self, described: dict[str, Any]) -> dict[str, Any]:
        limits = self._limits
        named = str(described["Config"].get("User") or "")
        self.user = self.user or (ORDINARY_USER if named.partition(":")[0] in _ROOT else named)
        host = self.cli.create_host_config(
            network_mode="none",
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            mem_limit=limits.memory,
            memswap_limit=limits.memory,
            # A real limit, where the operator's cpus is but a share; the engine takes more of it than there are CPUs.
            cpu_period=_CPU_PERIOD,
            cpu_quota=max(1000, round(limits.cpus * _CPU_PERIOD)),
            pids_limit=limits.processes,
            ulimits=[
                Ulimit(name=name, soft=value, hard=value)
                for name, value in {"core": 0, "fsize": limits.output, "nofile": 1024}.items()
            ],
            log_config=LogConfig(type="none"),  # it is read while it is written, and kept here
        )
        created: dict[str, Any] = self.cli.create_container(
            described["Id"],
            # The engine hands out the two outputs one beside the other, which would mix up their order.
            entrypoint=["/bin/sh", "-c", f"exec 2>&1\n{self._command}"],
            command=[],
            environment=self._variables,
            working_dir="/",
            user=self.user,
            labels=self.labels,
            host_config=host,
        )
        return created

    def _check_entrypoint(self, identifier: str, described: dict[str, Any]) -> None:
        """Look for the entrypoint's program in the image, before anything is run."""
        words = [word for word in _words(self._command) if not re.match(r"\w+=", word)]
        program = words[0] if words else ""
        wanted = {"/bin/sh": ["/bin/sh"]}
        if _PLAIN_WORD.fullmatch(program) and program not in _SHELL_WORDS:
            variables = dict(item.partition("=")[::2] for item in described["Config"].get("Env") or [])
            path = variables.get("PATH") or _DEFAULT_PATH
            places = [program] if "/" in program else [f"{folder}/{program}" for folder in path.split(":")]
            wanted[program] = places
        for name, places in wanted.items():
            if not any(self._has(identifier, place) for place in places):
                raise InvalidInputError(
                    f"the image {self.image} has no program {name!r} (looked for {', '.join(places)}), which the entrypoint "
                    f"{self._command!r} needs: change the entrypoint, or the image"
                )

    def _has(self, identifier: str, place: str) -> bool:
        try:
            chunks, _ = self.cli.get_archive(identifier, place)
        except APIError:  # missing, or below something that is no folder
            return False
        chunks.close()
        return True

    def _kept(self, printed: Iterable[bytes]) -> Iterator[bytes]:
        """Pass on and keep what is printed, as far as is allowed; the rest is read and dropped."""
        left = _LOG_BYTES
        for part in printed:
            if left > 0:
                self.kept_log.write(part[:left])
                yield part[:left]
                left -= len(part)
                if left <= 0:
                    notice = f"\nThe log is longer than the {_LOG_BYTES} bytes that are kept.\n".encode()
                    self.kept_log.write(notice)
                    yield notice

    def _watch(self, identifier: str, size_before: int) -> None:
        """Kill the container when it has run too long or written too much."""
        client = self._another_client()
        deadline = time.monotonic() + self._limits.seconds
        pause = _WATCH_SECONDS
        while not self._done.wait(min(pause, max(0.05, deadline - time.monotonic()))):
            with contextlib.suppress(DockerException, requests.RequestException):
                began = time.monotonic()
                if began > deadline:
                    self._ended_by = self._ended_by or "time"
                elif _layer_size(client, identifier) - size_before > self._limits.output:
                    self._ended_by = self._ended_by or "output"
                # A layer that takes long to measure is measured less often.
                pause = max(_WATCH_SECONDS, 5 * (time.monotonic() - began))
                if self._ended_by:
                    client.kill(identifier)
                    return

    def _judge(self, state: dict[str, Any]) -> None:
        limits, status = self._limits, int(state["ExitCode"])
        if self._ended_by == "time":
            self._fail(f"it was killed after the {limits.seconds} s that it may run; raise the time limit")
        if self._ended_by == "output":
            self._fail(f"it was killed when it had written {limits.output:,} bytes; raise the output limit")
        if state.get("OOMKilled") and status:
            self._fail(f"it was killed for using {limits.memory:,} bytes of memory; raise the memory limit")
        if status in (126, 127):
            advice = f"is the entrypoint right, and may the user {self.user} run it in this image?"
            self._fail(f"its command could not be run (exit status {status}); {advice}")
        if status:
            self._fail(f"it ended with exit status {status}")

    def _fail(self, what: str) -> NoReturn:
        self.kept_log.seek(max(0, self.kept_log.tell() - 2000))
        end = self.kept_log.read().decode(errors="replace").strip()
        raise JobFailedError(
            f"{self._command!r} in the image {self.image} failed: {what}. The end of its log:\n{end or '(it printed nothing)'}"
        )

    def _another_client(self) -> Any:
        hook: DockerHook = DockerOperator.__dict__["hook"].func(self)
        return hook.api_client

    def _present(self) -> bool:
        try:
            self.cli.inspect_image(self.image)  # type: ignore[no-untyped-call]
        except ImageNotFound:
            return False
        return True

    def _remove_left_behind(self) -> None:
        """Remove the container of an earlier attempt whose worker died."""
        wanted = [f"{name}={value}" for name, value in (self.labels or {}).items()]  # type: ignore[union-attr]
        for found in self.cli.containers(all=True, filters={"label": wanted}):
            self.log.info("Removing the container %s that an earlier attempt left", found["Id"][:12])
            with contextlib.suppress(NotFound):
                self.cli.remove_container(found["Id"], force=True, v=True)

    def _check_engine(self) -> None:
        """Connect, or say why that can't be."""
        try:
            _ = self.cli
        except (AirflowException, DockerException, requests.RequestException) as error:
            url = str(self.docker_url)
            path = url.removeprefix("unix://") if url.startswith("unix://") else None
            path = path if path is None or path.startswith("/") else f"/{path}"
            if path is not None and not os.path.exists(path):
                raise InvalidInputError(
                    f"there is no Docker engine at {url} on this worker: install and start Docker there, give docker_url "
                    "or DOCKER_HOST, or do without containers"
                ) from error
            if path is not None and not os.access(path, os.R_OK | os.W_OK):
                raise NotAllowedError(
                    f"the worker's user may not use the Docker engine at {url}: add it to the group docker "
                    "(usermod -aG docker USER) and start the worker anew"
                ) from error
            raise ServiceUnavailableError(
                f"the Docker engine at {url} does not answer ({error}); is it running, and docker_url right?"
            ) from error

    @contextlib.contextmanager
    def _engine_errors(self) -> Iterator[None]:
        try:
            yield
        except ImageNotFound as error:
            raise InvalidInputError(
                f"the image {self.image} can't be fetched by the Docker engine at {self.docker_url}: {error.explanation}. "
                "Check its name and tag, or give docker_conn_id for a registry that wants a login"
            ) from error
        except APIError as error:
            kind = ServiceUnavailableError if error.is_server_error() else InvalidInputError
            raise kind(
                f"the Docker engine at {self.docker_url} refuses: {error.explanation or error} (image {self.image})"
            ) from error
        except (DockerException, requests.RequestException) as error:
            raise ServiceUnavailableError(
                f"the Docker engine at {self.docker_url} stopped answering ({error}); is it running?"
            ) from error


def size(name: str, value: object, *, least: int) -> int:
    """Return a number of bytes, from itself or a text like ``512m``.

    :raises InvalidInputError: when it is none, or too small
    """
    try:
        found = int(parse_bytes(str(value).strip()))
    except (DockerException, ValueError):
        found = 0
    if found < least:
        raise InvalidInputError(f"{name} must be a size from {least} bytes up, such as 512m, not {value!r}")
    return found


def check_checksum(described: dict[str, Any], name: str, checksum: str | None) -> None:
    """Compare an image with the checksum that an algorithm is published with.

    :param described: the image as the engine describes it
    :raises InvalidInputError: when it is another
    """
    found = {described["Id"], *(d.partition("@")[2] for d in described.get("RepoDigests") or [])}
    if checksum is not None and checksum not in found:
        raise InvalidInputError(
            f"the image {name} has the checksum {' or '.join(sorted(found))}, not {checksum}: nothing was run. Give the "
            "image's own checksum, or fetch the image that is meant"
        )


def _layer_size(client: Any, identifier: str) -> int:
    """Return the bytes of a container's own layer."""
    found = client.containers(all=True, size=True, filters={"id": identifier})
    return int(found[0].get("SizeRw") or 0) if found else 0


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:  # an open quotation mark; the shell will say so
        return []
