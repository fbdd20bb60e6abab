"""The command line, on a whole network: what it prints and returns, and that it leaves no process behind."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest

from include.localnet import cli, network
from include.localnet.accounts import ALICE, BOB, CARLOS, DEPLOYER
from include.localnet.processes import ProcessTable
from include.localnet.settings import DEFAULT_PORTS, HOST, PROJECT, NetworkSettings, choose_ports
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PARTS = ("chain", "operator_service", "provider", "aquarius", "files")
COMMAND = [sys.executable, "-m", "include.localnet"]


@dataclass(frozen=True)
class Result:
    """What a command returned and printed."""

    returncode: int
    stdout: str
    stderr: str


def run(home: Path, *words: str) -> Result:
    """Run a command in this process, which saves its start."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([*words, "--home", str(home)])
    return Result(code, out.getvalue(), err.getvalue())


def start(home: Path, *words: str) -> subprocess.Popen[str]:
    command = [*COMMAND, *words, "--home", str(home)]
    return subprocess.Popen(
        command,
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def processes_of(home: Path) -> list[str]:
    """Return the command lines of all processes that belong to a network, found without its own records."""
    found = []
    for process in psutil.process_iter():
        try:
            texts = [*process.cmdline(), *process.environ().values()]
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(str(home) in text for text in texts):
            found.append(f"{process.pid} {shlex.join(process.cmdline())}")
    return found


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "it's a home"
    yield folder
    network.down(folder)


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A running network whose tests leave it running."""
    folder = tmp_path_factory.mktemp("cli") / "shared home"
    try:
        process = start(folder, "up", "--base-port", "0")
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
        yield folder
    finally:
        network.down(folder)


def parts_of(home: Path) -> dict[str, dict[str, Any]]:
    parts: dict[str, dict[str, Any]] = json.loads(run(home, "status", "--json").stdout)["parts"]
    return parts


def test_status_of_a_running_network(shared_home: Path) -> None:
    result = run(shared_home, "status", "--json")
    assert result.returncode == 0
    content = json.loads(result.stdout)
    assert content["running"] is True
    assert content["block"] > 0
    assert set(content["parts"]) == set(PARTS)
    for part in content["parts"].values():
        assert psutil.pid_exists(part["pid"])
        assert part["memory"] > 1
    assert content["memory"] < 500

    text = run(shared_home, "status").stdout
    assert text.count("running") == len(PARTS)


def test_the_environment_survives_a_shell(shared_home: Path) -> None:
    script = f"""eval "$({shlex.join([*COMMAND, "env", "--home", str(shared_home)])})" && env -0"""
    output = subprocess.run(["sh", "-c", script], cwd=PROJECT, capture_output=True, check=True).stdout
    environment = dict(line.split("=", 1) for line in output.decode().split("\0") if "=" in line)

    settings = NetworkSettings.load(shared_home)
    assert settings
    expected = {
        "OCEAN_RPC_URL": settings.rpc_url,
        "OCEAN_PROVIDER_URL": settings.provider_url,
        "OCEAN_METADATA_CACHE_URL": settings.metadata_cache_url,
        "OCEAN_OPERATOR_URL": settings.operator_url,
        "OCEAN_FILES_URL": settings.files_url,
        "ADDRESS_FILE": str(settings.address_file),
        "TEST_PRIVATE_KEY1": ALICE.private_key,
        "TEST_PRIVATE_KEY2": BOB.private_key,
        "TEST_PRIVATE_KEY3": CARLOS.private_key,
        "FACTORY_DEPLOYER_PRIVATE_KEY": DEPLOYER.private_key,
    }
    assert {name: environment.get(name) for name in expected} == expected
    for name in ("OCEAN_PROVIDER_URL", "OCEAN_METADATA_CACHE_URL", "OCEAN_OPERATOR_URL", "OCEAN_FILES_URL"):
        assert httpx.get(environment[name], trust_env=False).status_code == 200
    for name, account in (("ALICE", ALICE), ("BOB", BOB)):
        assert json.loads(environment[f"AIRFLOW_CONN_OCEAN_{name}"]) == {
            "conn_type": "ocean",
            "host": settings.rpc_url,
            "password": account.private_key,
            "extra": {
                "provider_url": settings.provider_url,
                "metadata_cache_url": settings.metadata_cache_url,
                "address_file": str(settings.address_file),
            },
        }


def test_up_again_changes_nothing(shared_home: Path) -> None:
    before = parts_of(shared_home)
    for words in (["up"], ["up", "--base-port", "0"]):
        result = run(shared_home, *words)
        assert result.returncode == 0, result.stderr
        assert "running already" in result.stdout
    after = parts_of(shared_home)
    assert {name: part["pid"] for name, part in after.items()} == {
        name: part["pid"] for name, part in before.items()
    }


@pytest.mark.parametrize("words", [["--base-port", "12345"], ["--block-time", "7"]])
def test_up_with_other_options_while_it_runs_is_an_error(shared_home: Path, words: list[str]) -> None:
    result = run(shared_home, "up", *words)
    assert result.returncode == 1
    assert "`down` first" in result.stderr
    assert run(shared_home, "status").returncode == 0


def test_a_part_that_died_is_reported_and_started_again(shared_home: Path) -> None:
    before = parts_of(shared_home)
    os.kill(before["provider"]["pid"], signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(before["provider"]["pid"]), "the Provider is dead")
    result = run(shared_home, "status", "--json")
    assert result.returncode == 3
    assert [n for n, p in json.loads(result.stdout)["parts"].items() if not p["healthy"]] == ["provider"]

    result = run(shared_home, "up")
    assert result.returncode == 0, result.stderr
    after = parts_of(shared_home)
    assert [name for name in after if after[name]["pid"] != before[name]["pid"]] == ["provider"]
    assert after["provider"]["healthy"]


def test_two_networks_side_by_side_then_down(shared_home: Path, home: Path) -> None:
    taken = {part["pid"] for part in parts_of(shared_home).values()}
    result = run(home, "up", "--base-port", "0")
    assert result.returncode == 0, result.stderr
    assert len(processes_of(home)) >= len(PARTS)
    assert taken.isdisjoint({part["pid"] for part in parts_of(home).values()})

    result = run(home, "down")
    assert result.returncode == 0
    assert all(part in result.stdout for part in PARTS)
    assert processes_of(home) == []
    assert run(shared_home, "status").returncode == 0
    assert run(home, "status").returncode == 3
    again = run(home, "down")
    assert (again.returncode, "no network is running" in again.stdout) == (0, True)


def test_state_and_ports_are_remembered(home: Path) -> None:
    assert run(home, "up", "--base-port", "0").returncode == 0
    first = json.loads(run(home, "status", "--json").stdout)
    run(home, "down")
    assert run(home, "up").returncode == 0
    second = json.loads(run(home, "status", "--json").stdout)
    assert second["block"] == first["block"]
    assert {n: p["url"] for n, p in second["parts"].items()} == {
        n: p["url"] for n, p in first["parts"].items()
    }


def test_the_stack_is_chosen_and_remembered(home: Path) -> None:
    assert run(home, "up", "--base-port", "0", "--stack", "both").returncode == 0
    parts = parts_of(home)
    assert set(parts) == {*PARTS, "node"}
    variables = run(home, "env").stdout
    assert f"OCEAN_NODE_URL={parts['node']['url']}" in variables
    assert f"OCEAN_PROVIDER_URL={parts['provider']['url']}" in variables
    assert httpx.get(parts["node"]["url"]).json()["software"] == "Ocean-Node"
    other = run(home, "up", "--stack", "provider")
    assert (other.returncode, "bring it `down` first" in other.stderr) == (1, True)

    run(home, "down")
    assert run(home, "up", "--stack", "node").returncode == 0
    run(home, "down")
    assert run(home, "up").returncode == 0
    parts = parts_of(home)
    assert set(parts) == {"chain", "node", "files"}
    assert f"OCEAN_PROVIDER_URL={parts['node']['url']}" in run(home, "env").stdout


def test_a_taken_port_is_named_and_nothing_stays(home: Path) -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        base = port - list(DEFAULT_PORTS).index("provider")
        result = run(home, "up", "--base-port", str(base))
    assert result.returncode == 1
    assert f"{port} (provider)" in result.stderr
    assert "--base-port" in result.stderr
    assert processes_of(home) == []


def test_a_part_that_ends_while_starting_shows_its_log(home: Path) -> None:
    state = home / "state" / "chain"
    state.mkdir(parents=True)
    (state / "chain.json").write_text('"no chain"')
    result = run(home, "up", "--base-port", "0")
    assert result.returncode == 1
    assert "chain ended while starting" in result.stderr
    assert (home / "logs" / "chain.log").read_text().splitlines()[-1] in result.stderr
    assert processes_of(home) == []


def test_when_one_part_cannot_be_started_the_others_are_stopped(home: Path) -> None:
    (home / "logs" / "files.log").mkdir(parents=True)
    result = run(home, "up", "--base-port", "0")
    assert result.returncode == 1
    assert "files.log" in result.stderr
    assert (home / "logs" / "chain.log").exists()
    assert processes_of(home) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_up_leaves_nothing(home: Path, number: signal.Signals) -> None:
    process = start(home, "up", "--base-port", "0")
    wait_until(lambda: (home / "run" / "provider.json").exists(), "the services are being started")
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "interrupted" in output
    assert processes_of(home) == []


def start_in_the_foreground(home: Path, *words: str) -> subprocess.Popen[str]:
    process = start(home, "up", "--foreground", *words)
    assert process.stdout
    assert any("Ctrl-C" in line for line in process.stdout), "it ended without saying how to stop it"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_the_foreground_it_ends_with_the_command(home: Path, number: signal.Signals) -> None:
    process = start_in_the_foreground(home, "--base-port", "0")
    assert run(home, "status").returncode == 0
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert processes_of(home) == []


def test_in_the_foreground_it_notices_a_death_and_a_down(home: Path) -> None:
    process = start_in_the_foreground(home, "--base-port", "0")
    record = ProcessTable(home).running("files")
    assert record
    os.kill(record.pid, signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "files has died" in output
    assert processes_of(home) == []

    process = start_in_the_foreground(home)
    assert run(home, "down").returncode == 0
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output


def test_two_ups_on_one_home_do_not_collide(home: Path) -> None:
    NetworkSettings(home, choose_ports(0)).save()
    both = [start(home, "up"), start(home, "up")]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert sum("running already" in output for output in outputs) == 1
    assert run(home, "status").returncode == 0


def test_a_recycled_process_id_is_not_killed(home: Path) -> None:
    table = ProcessTable(home)
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        NetworkSettings(home, choose_ports(0)).save()
        (home / "run").mkdir()
        record = {"pid": bystander.pid, "started": "long ago"}
        (home / "run" / "provider.json").write_text(json.dumps(record))
        assert table.running("provider") is None
        assert run(home, "down").returncode == 0
        assert bystander.poll() is None
    finally:
        bystander.communicate(b"\n")


def test_commands_without_a_network_say_so(tmp_path: Path) -> None:
    for command in ("status", "env"):
        result = run(tmp_path / "nothing", command)
        assert result.returncode == 1
        assert "include.localnet up" in result.stderr
    assert run(tmp_path / "nothing", "down").returncode == 0
    assert not (tmp_path / "nothing").exists()


def test_damaged_settings_are_named(tmp_path: Path) -> None:
    (tmp_path / "network.json").write_text("{")
    for command in ("up", "status", "env"):
        result = run(tmp_path, command)
        assert result.returncode == 1
        assert "network.json is damaged" in result.stderr


@pytest.mark.parametrize("words", [["--base-port", "80"], ["--base-port", "65535"], ["--block-time", "-1"]])
def test_options_out_of_range(tmp_path: Path, words: list[str]) -> None:
    result = run(tmp_path, "up", *words)
    assert result.returncode == 1
    assert words[1] in result.stderr


def test_ports_are_barges_unless_told_otherwise(tmp_path: Path) -> None:
    def ports(**options: Any) -> dict[str, int]:
        return cli.resolve_settings(tmp_path, **options).ports

    assert ports() == {
        "chain": 8545,
        "aquarius": 5000,
        "provider": 8030,
        "operator_service": 8050,
        "files": 8060,
        "node": 8001,
    }
    assert list(ports(base_port=9000).values()) == list(range(9000, 9006))
    assert len(set(ports(base_port=0).values())) == 6
    NetworkSettings(tmp_path, choose_ports(9000), block_time=5).save()
    assert cli.resolve_settings(tmp_path) == NetworkSettings(tmp_path, choose_ports(9000), 5)
    assert cli.resolve_settings(tmp_path, block_time=0).block_time is None
    assert list(ports(base_port=9100).values()) == list(range(9100, 9106))
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        NetworkSettings(tmp_path, {**choose_ports(0), "files": other.getsockname()[1]}).save()
        assert other.getsockname()[1] not in ports(base_port=0).values()


def test_it_listens_on_loopback_alone_unless_told_otherwise(home: Path) -> None:
    settings = cli.resolve_settings(home, base_port=0)
    assert settings.listen == "127.0.0.1"
    settings = cli.resolve_settings(home, base_port=0, listen="0.0.0.0")
    try:
        network.up(settings, services=("files",))
        # Another address of the loopback interface stands for another machine.
        elsewhere = [settings.url(part).replace("127.0.0.1", "127.0.0.2") for part in ("chain", "files")]
        request = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}
        assert httpx.post(elsewhere[0], json=request, trust_env=False).json()["result"] == hex(8996)
        assert httpx.get(elsewhere[1], trust_env=False).status_code == 200
        assert cli.resolve_settings(home).listen == "0.0.0.0"
    finally:
        network.down(home)
