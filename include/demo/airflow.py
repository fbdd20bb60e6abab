"""A whole Airflow on this machine: its database, its four components, and its REST API."""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx

from include.demo.processes import CommandError, end_of, start, stop

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence
    from pathlib import Path

    from include.demo.interrupts import Teardown

_API_SERVER = "api-server"
_COMPONENTS = {
    _API_SERVER: (),
    "scheduler": ("--skip-serve-logs",),
    "dag-processor": (),
    "triggerer": ("--skip-serve-logs",),
}
_USER = "admin"
_READY_SECONDS = 180.0
# Seconds between the request to end and the end by force. Running tasks get some time. A triggerer that has run a trigger
# waits for ten seconds in vain, and an API server for as long as a browser has the UI open.
_RUNNING_TASKS_GRACE = 10.0
_GRACE = 3.0


def schema_is_current(home: Path) -> bool:
    """Say whether the database was made, or brought up to date, by the installed Airflow."""
    try:
        return (home / "schema").read_text() == importlib.metadata.version("apache-airflow-core")
    except FileNotFoundError:
        return False


def remember_schema(home: Path) -> None:
    """Note that the database is up to date; asking the database itself takes seconds."""
    (home / "schema").write_text(importlib.metadata.version("apache-airflow-core"))


class Airflow:
    """API server, scheduler, dag-processor and triggerer, as processes of their own.

    :param environment: as :func:`include.demo.environment.airflow_environment` returns it, and connections
    :param home: folder of Airflow's state
    :param teardown: what will end it
    """

    def __init__(self, environment: dict[str, str], home: Path, teardown: Teardown) -> None:
        self.environment = environment
        self.home = home
        self.url = environment["AIRFLOW__API__BASE_URL"]
        self.components: dict[str, subprocess.Popen[str]] = {}
        self._teardown = teardown
        # Longer than the API server itself waits for SQLite: see DATABASE__SQL_ALCHEMY_CONN in the environment.
        self._http = httpx.Client(base_url=self.url, timeout=90, trust_env=False)

    def log(self, component: str) -> Path:
        """Return the file that a component's output goes to."""
        return self.home / "logs" / f"{component}.log"

    @property
    def credentials(self) -> tuple[str, str]:
        """User and password, which the API server makes at its first start."""
        path = self.home / "simple_auth_manager_passwords.json.generated"
        return _USER, json.loads(path.read_text())[_USER]

    def start(self) -> None:
        """Bring the database up to date and start the components.

        :raises CommandError: when the database cannot be brought up to date
        """
        self._teardown.add(self.stop)
        if not schema_is_current(self.home):
            self._start("db-migrate", ("db", "migrate"))
            failed = self.components["db-migrate"].wait()
            del self.components["db-migrate"]
            if failed:
                raise CommandError(
                    f"Airflow's database in {self.home} could not be brought up to date; "
                    f"`make clean` makes a new one. The end of the log:\n{end_of(self.log('db-migrate'))}"
                )
            remember_schema(self.home)
        for component, options in _COMPONENTS.items():
            self._start(component, (component, *options))

    def _start(self, name: str, arguments: Sequence[str]) -> None:
        with self._teardown.held():
            self.components[name] = start(
                [sys.executable, "-m", "airflow", *arguments],
                environment=self.environment,
                log=self.log(name),
            )

    def stop(self) -> None:
        """End all components, the API server last: the others report to it."""
        self._http.close()
        components = dict(self.components)
        api_server = components.pop(_API_SERVER, None)
        graces = {"scheduler": _RUNNING_TASKS_GRACE}
        stop(*((process, graces.get(name, _GRACE)) for name, process in components.items()))
        if api_server:
            stop((api_server, _GRACE))

    def wait_until_ready(self) -> None:
        """Wait until every component says that it is alive, and log in to the REST API.

        :raises CommandError: when a component ends, or is not there within three minutes
        """
        since = datetime.now(UTC)
        deadline = time.monotonic() + _READY_SECONDS
        while waiting := self._not_ready(since):
            self.check()
            if time.monotonic() > deadline:
                first = waiting[0]
                raise CommandError(
                    f"Airflow's {', '.join(waiting)} did not become ready within {_READY_SECONDS:.0f} seconds. "
                    f"The end of {self.log(first)}:\n{end_of(self.log(first))}"
                )
            time.sleep(0.2)
        user, password = self.credentials
        token = self.request("POST", "/auth/token", json={"username": user, "password": password})
        self._http.headers["Authorization"] = f"Bearer {token['access_token']}"

    def _not_ready(self, since: datetime) -> list[str]:
        try:
            health = self.request("GET", "/api/v2/monitor/health")
            # Builds the API of the tasks, which would take the first of them seconds.
            self.request("GET", "/execution/health")
        except (httpx.HTTPError, CommandError):
            return [_API_SERVER]
        waiting = []
        for name in ("scheduler", "dag-processor", "triggerer"):
            part = health[name.replace("-", "_")]
            key = f"latest_{name.replace('-', '_')}_heartbeat"
            # An old heartbeat is of the process that ran before this one.
            if not part[key] or datetime.fromisoformat(part[key]) < since:
                waiting.append(name)
        return waiting

    def check(self) -> None:
        """Look after the components.

        :raises CommandError: when one has ended
        """
        for name, process in self.components.items():
            if process.poll() is not None:
                raise CommandError(
                    f"Airflow's {name} has ended with status {process.returncode}. "
                    f"The end of {self.log(name)}:\n{end_of(self.log(name))}"
                )

    def request(self, method: str, path: str, **options: Any) -> Any:
        """Send a request to the REST API and return the answer's JSON.

        :raises CommandError: when it is refused
        :raises httpx.HTTPError: when the API server does not answer
        """
        response = self._http.request(method, path, **options)
        if response.is_error:
            answered = f"{method} {path} was answered {response.status_code}: {response.text[:2000]}"
            if response.is_server_error:
                log = self.log(_API_SERVER)
                answered += f"\nThe end of {log}:\n{end_of(log)}"
            raise CommandError(answered)
        return response.json() if response.content else None

    def find(self, path: str) -> Any:
        """Return what the REST API has at a path, None when there is nothing."""
        response = self._http.get(path)
        if response.status_code == httpx.codes.NOT_FOUND:
            return None
        response.raise_for_status()
        return response.json()

    def wait_for_dag(self, dag_id: str) -> None:
        """Wait until the dag-processor has read a DAG.

        :raises CommandError: when its file cannot be read, or it does not turn up within a minute
        """
        deadline = time.monotonic() + 60
        while self.find(f"/api/v2/dags/{dag_id}") is None:
            self.check()
            errors = self.request("GET", "/api/v2/importErrors")["import_errors"]
            if errors:
                raise CommandError("\n".join(f"{e['filename']}:\n{e['stack_trace']}" for e in errors))
            if time.monotonic() > deadline:
                raise CommandError(
                    f"there is no DAG {dag_id} in {self.environment['AIRFLOW__CORE__DAGS_FOLDER']}"
                )
            time.sleep(0.2)

    def unpause(self, dag_id: str) -> None:
        """Let a DAG's runs begin as soon as they are triggered."""
        self.request("PATCH", f"/api/v2/dags/{dag_id}", json={"is_paused": False})
