"""The compose file of this project: its composer and settings, and the whole stack brought up in an engine."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import secrets
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import httpx

from include.demo.environment import choose_port
from tests.support.airflow import PROJECT
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.support.docker_engine import Engine

REQUIRED = {
    "AIRFLOW_FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    "AIRFLOW_JWT_SECRET": secrets.token_urlsafe(64),
    "AIRFLOW_SECRET_KEY": secrets.token_urlsafe(64),
    "AIRFLOW_ADMIN_PASSWORD": secrets.token_hex(16),
    "POSTGRES_PASSWORD": secrets.token_hex(16),
}
_PROJECT_LABEL, _SERVICE_LABEL = "com.docker.compose.project", "com.docker.compose.service"
_SECONDS_TO_BUILD, _SECONDS_TO_START, _SECONDS_TO_STOP = 2400, 1200, 300


def composer() -> list[str] | None:
    """Return the command of the composer that is installed: Compose v2, else docker-compose, else None."""
    if shutil.which("docker"):
        found = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        if found.returncode == 0:
            return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None


def clean_environment() -> dict[str, str]:
    """Return what a composer needs of the environment; the rest would have precedence over its settings."""
    return {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}


def write_settings(path: Path, **settings: str) -> None:
    """Write a file of settings: those of the example that are filled in there, and more.

    :param path: the file, usually ``.env``
    """
    example = (PROJECT / ".env.example").read_text().splitlines()
    lines = [line for line in example if not re.match(r"\w+=$", line)]
    lines += [f"{name}={value}" for name, value in settings.items()]
    path.write_text("\n".join([*lines, ""]))


class ComposeError(Exception):
    """A composer failed, or the stack's API refused; says what was tried and what was answered."""


class ComposeStack:
    """The services of ``docker-compose.yaml``, the local network's as well, under a name of their own.

    :param engine: where they run
    :param folder: an empty one, for settings
    :param changes: a compose file whose content comes on top
    :param settings: those of ``.env``, besides the secrets
    """

    def __init__(self, engine: Engine, folder: Path, changes: Path, settings: Mapping[str, str]) -> None:
        self._engine = engine
        self._client = engine.client()
        self.name = f"oceantest{secrets.token_hex(4)}"
        port = choose_port(28180)
        write_settings(folder / ".env", **REQUIRED, **settings, AIRFLOW_PORT=str(port))
        command = composer()
        assert command is not None
        self._command = [*command, "--project-name", self.name, "--project-directory", str(PROJECT)]
        self._command += ["--file", str(PROJECT / "docker-compose.yaml"), "--file", str(changes)]
        self._command += ["--env-file", str(folder / ".env"), "--profile", "localnet"]
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)

    # ------------------------------------------------------------------ the stack

    @contextlib.contextmanager
    def up(self, logs: Path, **scales: int) -> Iterator[None]:
        """Build the images, start all services and wait until they are healthy; in the end remove all of it.

        :param logs: a file for what the services printed
        :param scales: service → number of its containers
        """
        # One of the services with the image of Airflow, and the one with its own.
        self.compose("build", "airflow-init", "localnet", timeout=_SECONDS_TO_BUILD)
        try:
            words = [word for service, count in scales.items() for word in ("--scale", f"{service}={count}")]
            self.compose("up", "--detach", "--no-build", *words, timeout=_SECONDS_TO_START)
            wait_until(self._is_healthy, "all services are healthy", _SECONDS_TO_START, 1)
            self._log_in()
            yield
        finally:
            self.http.close()
            logs.parent.mkdir(parents=True, exist_ok=True)
            logs.write_text(self.compose("logs", "--no-color", timeout=_SECONDS_TO_STOP))
            self.compose("down", "--volumes", "--timeout", "20", timeout=_SECONDS_TO_STOP)
        assert self._left() == []

    def compose(self, *words: str, timeout: float = 120) -> str:
        """Run a command of the composer, and return what it printed.

        :param timeout: seconds
        :raises ComposeError: when it fails
        """
        environment = clean_environment() | {
            "DOCKER_HOST": self._engine.url,
            # docker-compose would call a client that may lack the builder.
            "COMPOSE_DOCKER_CLI_BUILD": "0",
            "COMPOSE_HTTP_TIMEOUT": str(int(timeout)),
        }
        done = subprocess.run(
            [*self._command, *words],
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise ComposeError(
                f"{' '.join([*self._command, *words])} ended with {done.returncode}:\n"
                f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}\n{self._states()}"
            )
        return done.stdout

    def containers(self, service: str | None = None) -> list[dict[str, Any]]:
        """Return what the engine knows of the containers of a service, or of all."""
        labels = [f"{_PROJECT_LABEL}={self.name}"]
        labels += [f"{_SERVICE_LABEL}={service}"] if service else []
        return [self._client.inspect_container(found) for found in self._engine.containers(*labels)]

    def _is_healthy(self) -> bool:
        states = self._states()
        init = [state for service, state in states if service == "airflow-init"]
        assert init in (["running"], ["exited 0"]), f"airflow-init: {init}"
        return all(state == "healthy" for service, state in states if service != "airflow-init")

    def _states(self) -> list[tuple[str, str]]:
        """Return the services with their container's state, the health of those that are watched."""
        found = []
        for container in self.containers():
            state = container["State"]
            text = state["Status"]
            if text == "exited":
                text = f"exited {state['ExitCode']}"
            elif "Health" in state:
                text = state["Health"]["Status"]
            found.append((container["Config"]["Labels"][_SERVICE_LABEL], text))
        return sorted(found)

    def _left(self) -> list[str]:
        filters = {"label": f"{_PROJECT_LABEL}={self.name}"}
        return [
            *(container["Name"] for container in self.containers()),
            *(volume["Name"] for volume in self._client.volumes(filters=filters)["Volumes"] or []),
            *(network["Name"] for network in self._client.networks(filters=filters)),
        ]

    # ------------------------------------------------------------------ its containers

    def address(self, service: str) -> str:
        """Return the address of a service's container, which only this machine and the other services reach."""
        (container,) = self.containers(service)
        (network,) = container["NetworkSettings"]["Networks"].values()
        return str(network["IPAddress"])

    def read_file(self, service: str, path: str) -> bytes:
        """Return the content of a file as a service sees it."""
        container = self.containers(service)[0]["Id"]
        started = self._client.exec_create(container, ["cat", path])["Id"]
        content: bytes = self._client.exec_start(started, demux=True)[0] or b""
        code = self._client.exec_inspect(started)["ExitCode"]
        assert code == 0, f"{service} cannot read {path}"
        return content

    def pause(self, container: str) -> None:
        """Freeze all processes of a container where they are."""
        self._client.pause(container)

    def unpause(self, container: str) -> None:
        """Let the processes of a container go on."""
        self._client.unpause(container)

    def kill(self, container: str) -> None:
        """Kill a container, as the loss of its machine does: it does not come back."""
        self._client.kill(container)

    # ------------------------------------------------------------------ its API

    def _log_in(self) -> None:
        body = {"username": "admin", "password": REQUIRED["AIRFLOW_ADMIN_PASSWORD"]}
        token = self.request("POST", "/auth/token", json=body)["access_token"]
        self.http.headers["Authorization"] = f"Bearer {token}"

    def request(self, method: str, path: str, **options: Any) -> Any:
        """Send a request to the REST API and return the answer's JSON.

        :raises ComposeError: when it is refused
        """
        response = self.http.request(method, path, **options)
        if response.is_error:
            raise ComposeError(f"{method} {path} was answered {response.status_code}: {response.text[:2000]}")
        return response.json() if response.content else None

    def find(self, path: str) -> Any:
        """Return what the REST API has at a path, None when there is nothing."""
        response = self.http.get(path)
        if response.status_code == httpx.codes.NOT_FOUND:
            return None
        response.raise_for_status()
        return response.json()
