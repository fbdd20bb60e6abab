"""The compose file, as the composer on this machine reads it: complete, and safe by what it says."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_ocean.connections import OceanConnection
from include.localnet.accounts import ALICE, BOB
from include.localnet.settings import DEFAULT_PORTS
from tests.support.airflow import PROJECT, prepare_airflow_home
from tests.support.compose_stack import REQUIRED, clean_environment, composer, write_settings

prepare_airflow_home()

COMPONENTS = {"apiserver", "scheduler", "dag-processor", "triggerer", "worker", "init"}


def run_config(folder: Path, *profiles: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Have a composer read the project's file beside an ``.env`` of the test's own."""
    command = composer()
    if command is None:
        pytest.skip("no composer: apt install docker-compose")
    shutil.copy(PROJECT / "docker-compose.yaml", folder)
    write_settings(folder / ".env", **settings)
    words = [word for profile in profiles for word in ("--profile", profile)]
    return subprocess.run(
        [*command, *words, "config"],
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    result = run_config(tmp_path_factory.mktemp("compose"), "localnet", "flower", **REQUIRED)
    assert result.returncode == 0, result.stderr
    content: dict[str, Any] = yaml.safe_load(result.stdout)
    return content


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((PROJECT / "docker-compose.yaml").read_text())
    return content


@pytest.mark.parametrize("name", REQUIRED)
def test_nothing_starts_without_its_secrets(tmp_path, name):
    result = run_config(tmp_path, **{**REQUIRED, name: ""})
    assert result.returncode != 0
    assert f"{name} is not set" in result.stderr


def test_all_of_airflow_is_there(composed):
    names = set(composed["services"])
    assert {f"airflow-{name}" for name in COMPONENTS} | {"postgres", "redis"} <= names
    assert {"localnet", "flower"} <= names


def test_profiles_are_left_out_by_default(written):
    optional = {
        name: service["profiles"] for name, service in written["services"].items() if "profiles" in service
    }
    assert optional == {"flower": ["flower"], "localnet": ["localnet"]}
    # A service that is always there and waits for an optional one could not start without it.
    for service in written["services"].values():
        assert not set(service.get("depends_on", {})) & set(optional)


def test_every_service_is_watched_and_none_is_root(written):
    for name, service in written["services"].items():
        assert service["restart"] in ("unless-stopped", "on-failure"), name
        user = str(service["user"])
        assert user.split(":")[0] not in ("", "0", "root"), name
        if name != "airflow-init":
            assert service["healthcheck"]["test"], name
            assert {"interval", "timeout", "retries", "start_period"} <= set(service["healthcheck"]), name


def test_the_components_share_secrets_volumes_and_image(composed):
    services = {
        name: service for name, service in composed["services"].items() if name.startswith("airflow-")
    }
    api = services["airflow-apiserver"]
    for name, service in services.items():
        own = {"DUMB_INIT_SETSID"} | {key for key in service["environment"] if key.startswith("_AIRFLOW_")}
        assert {key: value for key, value in service["environment"].items() if key not in own} == api[
            "environment"
        ]
        assert service["volumes"] == api["volumes"], name
        assert service["image"] == api["image"], name
    environment = api["environment"]
    assert environment["AIRFLOW__API_AUTH__JWT_SECRET"] == REQUIRED["AIRFLOW_JWT_SECRET"]
    assert environment["AIRFLOW__CORE__FERNET_KEY"] == REQUIRED["AIRFLOW_FERNET_KEY"]
    assert "/opt/airflow" in environment["PYTHONPATH"].split(":")


def test_settings_of_the_operating_page_reach_every_component_from_the_env_file(tmp_path):
    page = (PROJECT / "docs" / "operating.md").read_text()
    shown = {
        name: "5"
        for name in re.findall(r"AIRFLOW__[A-Z_]+[A-Z]", page[page.index("## Artifacts and XComs on S3") :])
    }
    assert {"AIRFLOW__CORE__XCOM_BACKEND", "AIRFLOW__METRICS__STATSD_ON"} <= shown.keys()
    composed = [
        yaml.safe_load(run_config(tmp_path, **REQUIRED, **settings).stdout)["services"]
        for settings in (shown, {})
    ]
    for name in COMPONENTS:
        given, otherwise = (services[f"airflow-{name}"]["environment"] for services in composed)
        assert {variable: str(given[variable]) for variable in shown} == shown
        # Unset, and not an empty text, which for Airflow would be a value.
        assert {otherwise.get(variable) for variable in shown} == {None}


def test_no_secret_is_written_into_the_file():
    text = (PROJECT / "docker-compose.yaml").read_text()
    assert ALICE.private_key[2:] not in text
    assert BOB.private_key[2:] not in text
    for line in text.splitlines():
        name, _, value = line.strip().partition(": ")
        if re.search("KEY|SECRET|PASSWORD", name) and not line.strip().startswith("#"):
            assert value.startswith("${"), line


def test_ports_are_published_on_loopback_only(written):
    for name, service in written["services"].items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
    assert "ports" not in written["services"]["localnet"]


def test_only_the_local_network_has_rights_beside_the_usual(written):
    special = {"privileged", "cap_add", "security_opt", "devices", "pid", "network_mode"}
    assert {name for name, service in written["services"].items() if special & set(service)} == {"localnet"}
    assert "no-new-privileges:true" in written["services"]["localnet"]["security_opt"]


@pytest.mark.parametrize(("name", "account"), [("alice", ALICE), ("bob", BOB)])
def test_the_wallets_of_the_example_reach_the_local_network(composed, name, account):
    from airflow.sdk import Connection

    value = composed["services"]["airflow-worker"]["environment"][f"AIRFLOW_CONN_OCEAN_{name.upper()}"]
    settings = OceanConnection.parse(Connection.from_json(value, conn_id=name))
    assert settings.private_key() == account.private_key
    assert settings.rpc_url == f"http://localnet:{DEFAULT_PORTS['chain']}"
    assert settings.provider_url == f"http://localnet:{DEFAULT_PORTS['provider']}"
    assert settings.metadata_cache_url == f"http://localnet:{DEFAULT_PORTS['aquarius']}"
    worker, network = composed["services"]["airflow-worker"], composed["services"]["localnet"]
    folder = str(Path(settings.address_file or "").parent)
    assert any(f":{folder}" in str(volume) or folder in str(volume) for volume in worker["volumes"])
    assert any(folder in str(volume) for volume in network["volumes"])


def test_the_commands_and_the_image_exist(written):
    """What the containers run is there in this version of Airflow and of the local network."""
    from airflow.cli.cli_parser import airflow_commands

    known = {command.name for command in airflow_commands}
    for name in (
        "airflow-apiserver",
        "airflow-scheduler",
        "airflow-dag-processor",
        "airflow-triggerer",
        "airflow-init",
    ):
        assert written["services"][name]["command"] in known
    from include.localnet.cli import _parser

    docker = (PROJECT / "Dockerfile").read_text()
    command = json.loads(re.findall(r"^CMD (.*)$", docker, re.MULTILINE)[0])
    assert _parser().parse_args(command).listen == "0.0.0.0"


def test_the_image_gets_what_is_copied_and_no_more():
    docker = (PROJECT / "Dockerfile").read_text()
    allowed = {
        line[1:] for line in (PROJECT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    copied = set()
    for words in re.findall(r"^COPY (?!--from=chain)(.*)$", docker, re.MULTILINE):
        copied |= {word for word in words.split()[:-1] if not word.startswith("--")}
    assert copied == allowed
    assert all((PROJECT / path).exists() for path in copied)


def test_the_image_gets_only_what_its_base_lacks():
    script = PROJECT / "deploy" / "image_requirements.py"
    lock = """
    # compiled
    no-such-package==1.0 ; python_full_version >= '3.11'
        # via something
    for-another-system==2.0 ; sys_platform == 'win32'
    numpy==0.1
    """
    assert runpy.run_path(str(script))["missing"](lock) == ["no-such-package==1.0"]
    # All of the locks is installed here, and one package is replaced in any case.
    locks = [PROJECT / "requirements.txt", PROJECT / "requirements-extra.txt"]
    printed = subprocess.run(
        [sys.executable, script, *locks], capture_output=True, text=True, check=True
    ).stdout
    assert [line.split("==")[0] for line in printed.split()] == ["setuptools"]
