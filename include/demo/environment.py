"""The environment that an Airflow of this project runs in: where its state is, and what it may reach."""

from __future__ import annotations

import base64
import json
import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from include.localnet.settings import HOST, PROJECT, port_is_free, replace_text

if TYPE_CHECKING:
    from collections.abc import Mapping

AIRFLOW_HOME = PROJECT / ".airflow"
ARTIFACTS_VARIABLE = "AIRFLOW_OCEAN_ARTIFACTS"


def airflow_environment(
    home: Path,
    *,
    port: int,
    dags: Path = PROJECT / "dags",
    base: Mapping[str, str] = os.environ,
) -> dict[str, str]:
    """Return the whole environment of Airflow's processes.

    Airflow's settings in ``base`` are left out, because they belong to another installation, except for
    ``AIRFLOW_OCEAN_ARTIFACTS``: where the runs' results are kept, by default the project's ``artifacts`` folder.

    :param home: folder of Airflow's state
    :param port: TCP port of the API server
    :param dags: folder of the DAG files
    :param base: environment that everything else is taken from
    """
    environment = {name: value for name, value in base.items() if not name.startswith("AIRFLOW_")}
    url = f"http://{HOST}:{port}"
    settings = {
        "CORE__DAGS_FOLDER": str(dags),
        "CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__EXECUTOR": "LocalExecutor",
        # Each worker of the executor is a process of its own; more than these serve no one on a laptop.
        "CORE__PARALLELISM": "8",
        "CORE__TEST_CONNECTION": "Enabled",
        # One process at a time writes to SQLite. On a busy machine others wait for longer than the default of five seconds,
        # after which the scheduler ends.
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db?timeout=60",
        "CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        # The default asks the network's name service, which may be slow, or not there.
        "CORE__HOSTNAME_CALLABLE": "platform.node",
        # For so long a worker may overlook that its task has ended. A deferred task that its trigger resumes within that
        # time is taken for a killed one by the scheduler.
        "WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "API__HOST": HOST,
        "API__PORT": str(port),
        "API__BASE_URL": url,
        "API__WORKERS": "1",
        **_secrets(home),
    }
    environment |= {f"AIRFLOW__{name}": value for name, value in settings.items()}
    programs = str(Path(sys.executable).parent)
    return environment | {
        "AIRFLOW_HOME": str(home),
        ARTIFACTS_VARIABLE: base.get(ARTIFACTS_VARIABLE) or str(PROJECT / "artifacts"),
        "PYTHONPATH": str(PROJECT),
        "PATH": os.pathsep.join([programs, environment.get("PATH", os.defpath)]),
        "MPLBACKEND": "Agg",
        # A proxy of the machine must not stand between parts that are all on this machine.
        "NO_PROXY": f"{HOST},localhost",
        "no_proxy": f"{HOST},localhost",
    }


def _secrets(home: Path) -> dict[str, str]:
    """Return the keys that the components share, made once per home folder."""
    path = home / "secrets.json"
    if not path.exists():
        home.mkdir(parents=True, exist_ok=True)
        made = {
            "CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "API__SECRET_KEY": secrets.token_urlsafe(32),
            "API_AUTH__JWT_SECRET": secrets.token_urlsafe(64),
        }
        path.touch(mode=0o600)
        replace_text(path, json.dumps(made))
        path.chmod(0o600)
    kept: dict[str, str] = json.loads(path.read_text())
    return kept


def choose_port(preferred: int) -> int:
    """Return the preferred port, or the first free one of the next hundred."""
    return next(port for port in range(preferred, preferred + 100) if port_is_free(port))
