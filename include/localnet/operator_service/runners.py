"""Which of sandbox and Docker runs a job: what the network was told, and what this machine and the job's image allow."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from typing import TYPE_CHECKING

from include.localnet.operator_service.container_guard import ContainerGuard, remove_all
from include.localnet.operator_service.docker_engine import (
    EngineUnavailable,
    ImageUnavailable,
    connect,
    image_for,
)
from include.localnet.operator_service.docker_runner import DockerRunner
from include.localnet.operator_service.sandbox import Sandbox, SandboxUnavailable
from include.localnet.settings import RUNNERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from docker import APIClient

    from include.localnet.operator_service.jobspace import Container, Runner

logger = logging.getLogger(__name__)

LABEL = "org.oceanprotocol.localnet.state"
_DESCRIPTIONS = {
    "sandbox": "jobs run in a sandbox with this machine's Python, whatever their image",
    "docker": "jobs run in Docker, each in its image",
    "auto": "jobs run in Docker where the engine has their image, else in a sandbox with this machine's Python",
}


class RunnerUnavailable(Exception):
    """Nothing can run this job; the text is a clause and says what to do."""


class Runners:
    """Gives each job what runs it.

    :param state: the service's own folder
    :param choice: ``sandbox``, ``docker``, or ``auto``: Docker where that is possible, job by job
    :param pull: let Docker fetch images that it doesn't have
    """

    def __init__(self, state: Path, choice: str = "sandbox", *, pull: bool = False) -> None:
        self._state, self._choice, self._pull = state, choice, pull
        self._sandbox: Sandbox | None = None
        self._client: APIClient | None = None
        self._guard: ContainerGuard | None = None
        self._lock = threading.Lock()
        self._label = f"{LABEL}={hashlib.sha256(os.fsencode(state.resolve())).hexdigest()[:32]}"

    @classmethod
    def from_environment(cls, state: Path) -> Runners:
        """Read ``RUNNER`` and ``PULL_IMAGES``.

        :raises SystemExit: when the former is unknown
        """
        choice = os.environ.get("RUNNER") or "sandbox"
        if choice not in RUNNERS:
            raise SystemExit(f"RUNNER must be one of {', '.join(RUNNERS)}, not {choice!r}")
        return cls(state, choice, pull=os.environ.get("PULL_IMAGES") == "1")

    @property
    def description(self) -> str:
        """How jobs run, a clause for people."""
        return _DESCRIPTIONS[self._choice]

    def check(self) -> None:
        """Try what jobs will need, remove what an earlier service left in the engine, and log what is amiss."""
        if self._choice != "docker":
            try:
                self._get_sandbox().check()
            except SandboxUnavailable as error:
                logger.error("Jobs will fail, because no sandbox can be set up: %s", error)
        if self._choice == "sandbox":
            return
        try:
            client = self._get_client()
            logger.info("Docker engine %s", client.version()["Version"])
        except EngineUnavailable as error:
            if self._choice == "docker":
                logger.error("Jobs will fail: %s", error)
            else:
                logger.warning("Jobs will run in sandboxes: %s", error)

    def for_job(
        self,
        container: Container,
        say: Callable[[str], None] = lambda _sentence: None,
        stop_requested: Callable[[], bool] = lambda: False,
    ) -> Runner:
        """Return what runs a job, after saying so in its log.

        :param container: the image that the algorithm names
        :param say: adds a sentence to the job's log
        :raises RunnerUnavailable: when nothing can run it
        """
        name = f"{container.image}:{container.tag}"
        if self._choice != "sandbox":
            try:
                runner = self._docker(container, say, stop_requested)
            except (EngineUnavailable, ImageUnavailable) as error:
                if self._choice == "docker":
                    raise RunnerUnavailable(str(error).rstrip(".")) from error
                say(f"It is not run in Docker: {error}".rstrip(".") + ".")
            else:
                say(f"It runs in a Docker container of the image {name}.")
                return runner
        say(f"No image is run here: the sandbox's Python stands for the container image {name}.")
        try:
            return self._get_sandbox()
        except SandboxUnavailable as error:
            raise RunnerUnavailable(f"no sandbox can be set up: {error}") from error

    def close(self) -> None:
        """Remove what containers are left."""
        if self._guard is not None:
            self._guard.close()
            self._guard = None

    def _docker(
        self, container: Container, say: Callable[[str], None], stop_requested: Callable[[], bool]
    ) -> DockerRunner:
        client = self._get_client()
        try:
            image = image_for(client, container, pull=self._pull, say=say, stop_requested=stop_requested)
        except OSError as error:  # the engine has ended since
            self._client = None
            raise EngineUnavailable(f"The Docker engine does not answer any more ({error})") from error
        with self._lock:
            if self._guard is None:
                self._guard = ContainerGuard(self._label)
        name, _, value = self._label.partition("=")
        return DockerRunner(client, image, {name: value}, self._state)

    def _get_sandbox(self) -> Sandbox:
        if self._sandbox is None:
            self._sandbox = Sandbox(self._state)
        return self._sandbox

    def _get_client(self) -> APIClient:
        with self._lock:
            if self._client is None:
                client = connect()
                # This service alone works in its folder, and before the guard's start it has no containers yet.
                left = remove_all(client, self._label) if self._guard is None else 0
                if left:
                    logger.info("Removed %s containers that an earlier service had left", left)
                self._client = client
            return self._client
