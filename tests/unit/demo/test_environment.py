"""The environment of Airflow: complete, its own, and nothing of another installation."""

from __future__ import annotations

import socket
import stat
from typing import TYPE_CHECKING

from include.demo.environment import airflow_environment, choose_port

if TYPE_CHECKING:
    from pathlib import Path


def test_settings_of_another_airflow_are_left_out(tmp_path: Path) -> None:
    base = {
        "AIRFLOW_HOME": "/elsewhere",
        "AIRFLOW__CORE__SQL_ALCHEMY_CONN": "postgresql://elsewhere",
        "AIRFLOW_CONN_OCEAN_ALICE": "elsewhere",
        "HTTP_PROXY": "http://proxy:3128",
        "PATH": "/bin",
        "LANG": "C",
    }
    environment = airflow_environment(tmp_path, port=12345, base=base)
    assert "elsewhere" not in "".join(environment.values())
    assert environment["AIRFLOW_HOME"] == str(tmp_path)
    assert environment["LANG"] == "C"
    assert environment["PATH"].endswith(":/bin")
    assert "127.0.0.1" in environment["NO_PROXY"]
    assert environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:12345/execution/"


def test_artifacts_may_be_kept_elsewhere(tmp_path: Path) -> None:
    assert airflow_environment(tmp_path, port=1, base={})["AIRFLOW_OCEAN_ARTIFACTS"].endswith("/artifacts")
    base = {"AIRFLOW_OCEAN_ARTIFACTS": "s3://bucket/results"}
    assert (
        airflow_environment(tmp_path, port=1, base=base)["AIRFLOW_OCEAN_ARTIFACTS"] == "s3://bucket/results"
    )


def test_keys_stay_the_same_and_are_the_owner_s_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first, second = (airflow_environment(home, port=1, base={}) for _ in range(2))
    other = airflow_environment(tmp_path / "other", port=1, base={})
    for key in ("AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET", "AIRFLOW__API__SECRET_KEY"):
        assert first[key] == second[key] != other[key]
    assert stat.S_IMODE((home / "secrets.json").stat().st_mode) == 0o600


def test_choose_port_takes_the_next_one_when_the_first_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert port < choose_port(port) < port + 100
    assert choose_port(port) == port
