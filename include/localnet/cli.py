"""The command line of the local network: ``up``, ``down``, ``status`` and ``env``."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from include.localnet import network
from include.localnet.accounts import ALICE, BOB, CARLOS, DEPLOYER, NODE, PROVIDER
from include.localnet.chain import AnvilNotFound
from include.localnet.contracts import DeploymentError
from include.localnet.ethereum import RpcError
from include.localnet.processes import signals_deferred
from include.localnet.settings import (
    HOST,
    RUNNERS,
    STACKS,
    NetworkSettings,
    choose_ports,
    default_home,
    port_is_free,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from include.localnet.accounts import Account

_NOT_RUNNING = 3


def _parser() -> argparse.ArgumentParser:
    home = argparse.ArgumentParser(add_help=False)
    home.add_argument(
        "--home",
        type=lambda text: Path(text).expanduser().resolve(),
        default=default_home(),
        help="folder of the network's state (default: $OCEAN_LOCALNET_HOME or the project's .localnet)",
    )
    parser = argparse.ArgumentParser(
        prog="python -m include.localnet", description="An Ocean network on this machine."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = commands.add_parser("up", parents=[home], help="bring the network up, or what of it does not run")
    up.add_argument("--fresh", action="store_true", help="start with a new chain and empty databases")
    up.add_argument(
        "--base-port",
        type=int,
        metavar="N",
        help="first of six consecutive ports, 0 for any free ones (default: the last time's, at first barge's)",
    )
    up.add_argument(
        "--block-time",
        type=int,
        metavar="S",
        help="seconds between blocks, 0 to mine each transaction at once (default: the last time's, at first 0)",
    )
    up.add_argument(
        "--stack",
        choices=tuple(STACKS),
        help="generation of Ocean's services: provider (Provider, Aquarius, operator-service), node (Ocean Node), or "
        "both over one chain (default: the last time's, at first provider)",
    )
    up.add_argument(
        "--listen",
        metavar="ADDRESS",
        help="address to listen on (default: the last time's, at first 127.0.0.1). Whoever reaches it may spend with the "
        "published keys: for closed networks such as a compose project's only",
    )
    up.add_argument(
        "--runner",
        choices=RUNNERS,
        help="what runs jobs: a sandbox with this machine's Python, Docker containers of their images, or auto: Docker "
        "where the engine has the image, else the sandbox (default: the last time's, at first sandbox)",
    )
    up.add_argument(
        "--pull",
        action="store_true",
        default=None,
        help="let Docker fetch images it doesn't have (with --runner)",
    )
    up.add_argument("--foreground", action="store_true", help="stay until Ctrl-C, then bring it down again")
    commands.add_parser("down", parents=[home], help="stop the network and keep its state")
    status = commands.add_parser("status", parents=[home], help="exit 0 when all parts run, 3 when not")
    status.add_argument("--json", action="store_true", help="for programs")
    commands.add_parser("env", parents=[home], help="print shell exports: URLs, keys, Airflow connections")
    return parser


def resolve_settings(
    home: Path,
    base_port: int | None = None,
    block_time: int | None = None,
    fresh: bool = False,
    stack: str | None = None,
    listen: str | None = None,
    runner: str | None = None,
    pull_images: bool | None = None,
) -> NetworkSettings:
    """Return the settings for an ``up``: what is asked for, else what the home folder remembers, else barge's.

    :param base_port: as in :func:`include.localnet.settings.choose_ports`; 0 keeps remembered ports that are free,
        because published assets name the Provider's URL
    :param block_time: seconds between blocks, 0 to mine each transaction at once, None for what is remembered
    :param fresh: the network will be stopped and erased first
    :param stack: a key of :data:`include.localnet.settings.STACKS`, None for what is remembered
    :param listen: the address to listen on, None for what is remembered
    :param runner: what runs jobs, None for what is remembered
    :param pull_images: whether Docker may fetch images; None for no when a runner is given, else what is remembered
    :raises ValueError: when an option is out of range
    """
    if block_time is not None and block_time < 0:
        raise ValueError(f"--block-time {block_time}: a block takes 0 or more seconds")
    saved = NetworkSettings.load(home)
    running = saved is not None and not fresh and bool(network.running_parts(saved))
    ports = saved.ports if saved else choose_ports(base_port)
    if saved and base_port == 0 and not running:
        if fresh or not all(port_is_free(port) for port in ports.values()):
            ports = choose_ports(0)
    elif saved and base_port:
        ports = choose_ports(base_port)
    interval = (block_time or None) if block_time is not None else (saved.block_time if saved else None)
    if pull_images is None:
        pull_images = saved.pull_images if saved and runner is None else False
    return NetworkSettings(
        home,
        ports,
        interval,
        stack=stack or (saved.stack if saved else "provider"),
        listen=listen or (saved.listen if saved else HOST),
        runner=runner or (saved.runner if saved else RUNNERS[0]),
        pull_images=pull_images,
    )


def _saved_settings(home: Path) -> NetworkSettings:
    settings = NetworkSettings.load(home)
    if settings is None:
        raise network.NetworkError(
            f"there is no network in {home}: `python -m include.localnet up` makes one"
        )
    return settings


def connection(account: Account, settings: NetworkSettings) -> str:
    """Return an account as an Airflow connection of type ``ocean``, in Airflow's JSON form."""
    return json.dumps(
        {
            "conn_type": "ocean",
            "host": settings.rpc_url,
            "password": account.private_key,
            "extra": {
                "provider_url": settings.provider_url,
                "metadata_cache_url": settings.metadata_cache_url,
                "address_file": str(settings.address_file),
            },
        }
    )


def _stack_exports(settings: NetworkSettings) -> dict[str, str]:
    variables = {}
    if "provider" in settings.services:
        variables["OCEAN_OPERATOR_URL"] = settings.operator_url
        variables["PROVIDER_PRIVATE_KEY"] = PROVIDER.private_key
    if "node" in settings.services:
        variables["OCEAN_NODE_URL"] = settings.node_url
        variables["NODE_PRIVATE_KEY"] = NODE.private_key
    return variables


def exports(settings: NetworkSettings) -> dict[str, str]:
    """Return the environment variables that ocean.py's documentation, its tests and this project read."""
    return {
        "OCEAN_RPC_URL": settings.rpc_url,
        "OCEAN_PROVIDER_URL": settings.provider_url,
        "OCEAN_METADATA_CACHE_URL": settings.metadata_cache_url,
        **_stack_exports(settings),
        "OCEAN_FILES_URL": settings.files_url,
        "ADDRESS_FILE": str(settings.address_file),
        "TEST_PRIVATE_KEY1": ALICE.private_key,
        "TEST_PRIVATE_KEY2": BOB.private_key,
        "TEST_PRIVATE_KEY3": CARLOS.private_key,
        "FACTORY_DEPLOYER_PRIVATE_KEY": DEPLOYER.private_key,
        "AIRFLOW_CONN_OCEAN_ALICE": connection(ALICE, settings),
        "AIRFLOW_CONN_OCEAN_BOB": connection(BOB, settings),
    }


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _ended_like_ctrl_c() -> Iterator[None]:
    """Let whatever ends this command early pass through the clean-up that Ctrl-C passes through."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    previous = [signal.signal(number, _interrupt) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)


def _up(arguments: argparse.Namespace) -> int:
    with _ended_like_ctrl_c():
        return _up_interruptible(arguments)


def _up_interruptible(arguments: argparse.Namespace) -> int:
    settings = resolve_settings(
        arguments.home,
        arguments.base_port,
        arguments.block_time,
        arguments.fresh,
        stack=arguments.stack,
        listen=arguments.listen,
        runner=arguments.runner,
        pull_images=arguments.pull,
    )
    started = network.up(settings, fresh=arguments.fresh, report=lambda line: print(line, flush=True))
    home = shlex.quote(str(settings.home))
    option = "" if settings.home == default_home() else f" --home {home}"
    if not started:
        print(f"the network in {settings.home} is running already")
    print(f'to use it:   eval "$(python -m include.localnet env{option})"')
    if not arguments.foreground:
        print(f"to stop it:  python -m include.localnet down{option}", flush=True)
        return 0
    print("to stop it:  Ctrl-C", flush=True)
    try:
        network.watch(settings)
    except KeyboardInterrupt:
        pass  # the way this command is meant to end
    finally:
        with signals_deferred():
            network.down(settings.home)
    print("the network is down", flush=True)
    return 0


def _down(arguments: argparse.Namespace) -> int:
    stopped = network.down(arguments.home)
    print(f"stopped {', '.join(stopped)}" if stopped else f"no network is running in {arguments.home}")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    settings = _saved_settings(arguments.home)
    parts = network.status(settings)
    block = network.block_number(settings)
    healthy = all(part.healthy for part in parts)
    if arguments.json:
        content = {
            "home": str(settings.home),
            "running": healthy,
            "block": block,
            "memory": round(sum(part.memory for part in parts), 1),
            "parts": {part.name: asdict(part) for part in parts},
        }
        print(json.dumps(content, indent=2))
    else:
        for part in parts:
            state = "running" if part.healthy else "no answer" if part.pid else "stopped"
            process = f"pid {part.pid:<8} {part.memory:6.1f} MB" if part.pid else ""
            print(f"{part.name:<17} {state:<10} {part.url:<23} {process}".rstrip())
        print(
            f"block {block}, {sum(part.memory for part in parts):.0f} MB" if block is not None else "no chain"
        )
    return 0 if healthy else _NOT_RUNNING


def _env(arguments: argparse.Namespace) -> int:
    for name, value in exports(_saved_settings(arguments.home)).items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


_COMMANDS = {"up": _up, "down": _down, "status": _status, "env": _env}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the process's exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return _COMMANDS[arguments.command](arguments)
    except KeyboardInterrupt:
        undone = ": what this command had started is stopped again" if arguments.command == "up" else ""
        print(f"interrupted{undone}", file=sys.stderr)
        return 130
    except (network.NetworkError, AnvilNotFound, DeploymentError, RpcError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
    except (httpx.HTTPError, OSError) as error:
        problem = f"{type(error).__name__}: {error}"
        print(f"error: {arguments.command} of {arguments.home} failed: {problem}", file=sys.stderr)
    return 1
