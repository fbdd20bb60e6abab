"""The local network as a whole: which parts it has, bringing them up and down, and how they are."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import shutil
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from include.localnet import chain
from include.localnet.accounts import AQUARIUS, COMPUTE, NODE, PROVIDER
from include.localnet.contracts import ensure_deployed
from include.localnet.ethereum import RpcError
from include.localnet.processes import ProcessTable, memory_of, signals_deferred
from include.localnet.settings import HOST, PROJECT, STACKS, NetworkSettings, port_is_free

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CHAIN = "chain"
ALL_SERVICES = STACKS["both"]

_READY_SECONDS = 60.0
_LOCK_SECONDS = 60.0
# A part that was killed a moment ago may hold its port until the system has cleared it away.
_PORT_SECONDS = 1.0


def parts_of(settings: NetworkSettings) -> tuple[str, ...]:
    """Return the names of the parts that a network consists of."""
    return (CHAIN, *settings.services)


class NetworkError(Exception):
    """The network could not be brought up or down; the message says what to do."""


@dataclass(frozen=True)
class PartStatus:
    """How one part is.

    :param pid: process id, None when it does not run
    :param memory: resident memory of it and the processes that it has started, in MB
    :param healthy: it runs and answers
    """

    name: str
    url: str
    pid: int | None
    memory: float
    healthy: bool
    log: str


# For Python processes that stay: output at once, and little memory.
_PYTHON = {
    "PYTHONUNBUFFERED": "1",
    "MALLOC_ARENA_MAX": "2",  # glibc's default of 8 per core keeps 20 MB a service for nothing
}


def _environment(part: str, settings: NetworkSettings) -> dict[str, str]:
    common = _PYTHON | {
        "HOST": settings.listen,
        "PORT": str(settings.ports[part]),
        "STATE_DIR": str(settings.state_of(part)),
        # The services find each other on loopback, which no proxy reaches.
        "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY"), HOST, "localhost"])),
    }
    on_chain = {"RPC_URL": settings.rpc_url, "ADDRESS_FILE": str(settings.address_file)}
    own = {
        "aquarius": {**on_chain, "PRIVATE_KEY": AQUARIUS.private_key},
        "provider": {
            **on_chain,
            "PRIVATE_KEY": PROVIDER.private_key,
            "AQUARIUS_URL": settings.metadata_cache_url,
            "OPERATOR_SERVICE_URL": settings.operator_url,
        },
        "operator_service": {
            **on_chain,
            "COMPUTE_PRIVATE_KEY": COMPUTE.private_key,
            "RUNNER": settings.runner,
            "PULL_IMAGES": "1" if settings.pull_images else "0",
        },
        "node": {**on_chain, "PRIVATE_KEY": NODE.private_key},
        "files": {
            "FILES_ROOTS": os.pathsep.join([str(settings.files_folder), str(PROJECT / "include" / "branin")])
        },
    }
    return common | own[part]


@functools.cache
def _http() -> httpx.Client:
    # One for all polls: each new client would read the system's certificates first.
    return httpx.Client(timeout=5, trust_env=False)


def _answers(part: str, settings: NetworkSettings) -> bool:
    if part == CHAIN:
        return chain.answers(settings.rpc_url)
    # One that says that it was asked too often is well, too.
    well = (httpx.codes.OK, httpx.codes.TOO_MANY_REQUESTS)
    try:
        return _http().get(settings.url(part)).status_code in well
    except httpx.HTTPError:
        return False


@contextlib.contextmanager
def _locked(home: Path) -> Iterator[None]:
    """Let one command at a time change a network."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as file:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise NetworkError(
                        f"another up or down has been at work on {home} for {_LOCK_SECONDS:.0f} seconds; "
                        "wait for it or end it, then try again"
                    ) from None
                time.sleep(0.1)
        yield


def running_parts(settings: NetworkSettings) -> list[str]:
    """Return the names of the parts whose processes run."""
    table = ProcessTable(settings.home)
    return [part for part in (CHAIN, *ALL_SERVICES) if table.running(part)]


def _check_ports(parts: list[str], settings: NetworkSettings) -> None:
    deadline = time.monotonic() + _PORT_SECONDS
    while taken := [part for part in parts if not port_is_free(settings.ports[part])]:
        if time.monotonic() > deadline:
            named = ", ".join(f"{settings.ports[part]} ({part})" for part in taken)
            raise NetworkError(
                f"something else listens on port {named} of {HOST}: end it, or choose other ports with "
                "--base-port N, or free ones with --base-port 0"
            )
        time.sleep(0.05)


def _start(part: str, settings: NetworkSettings, table: ProcessTable) -> None:
    if part == CHAIN:
        command = chain.anvil_command(
            settings.ports[part], settings.state_of(part), settings.block_time, settings.listen
        )
        table.start(part, command, _PYTHON)
        return
    settings.state_of(part).mkdir(parents=True, exist_ok=True)
    settings.files_folder.mkdir(parents=True, exist_ok=True)
    table.start(part, [sys.executable, "-m", f"include.localnet.{part}"], _environment(part, settings))


def _wait_ready(
    parts: list[str], settings: NetworkSettings, table: ProcessTable, report: Callable[[str], None]
) -> None:
    waiting = list(parts)
    deadline = time.monotonic() + _READY_SECONDS
    while waiting:
        for part in list(waiting):
            # Asked first: what answers but has died is not ours.
            answering = _answers(part, settings)
            if table.running(part) is None:
                raise NetworkError(_failure(part, "ended while starting", table))
            if answering:
                waiting.remove(part)
                report(f"{part:<17} {settings.url(part)}")
            elif time.monotonic() > deadline:
                raise NetworkError(_failure(part, f"does not answer after {_READY_SECONDS:.0f} s", table))
        if waiting:
            time.sleep(0.05)


def _failure(part: str, what: str, table: ProcessTable) -> str:
    return f"{part} {what}. The end of {table.log(part)}:\n{table.end_of_log(part)}"


def _erase(settings: NetworkSettings) -> None:
    """Delete what the network has written, and nothing else that may be in a folder chosen as its home."""
    for name in ("state", "run", "logs"):
        shutil.rmtree(settings.home / name, ignore_errors=True)
    settings.address_file.unlink(missing_ok=True)


def up(
    settings: NetworkSettings,
    *,
    fresh: bool = False,
    services: tuple[str, ...] | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> list[str]:
    """Bring up what does not run yet, and return the names of the parts that were started.

    When one of them fails, or on an interruption, those started by this call are stopped again.

    :param fresh: stop what runs and delete the network's state first
    :param services: the parts wanted besides the chain; by default those of the settings' stack
    :param report: called with a line for each part that is ready
    :raises NetworkError: when a port is taken, a part does not come up, or the home folder is busy
    """
    table = ProcessTable(settings.home)
    with _locked(settings.home):
        if fresh:
            _stop(table)
            _erase(settings)
        if running_parts(settings) and NetworkSettings.load(settings.home) != settings:
            raise NetworkError(
                f"the network in {settings.home} is running with other ports, block time, runner, stack or address to listen on: "
                "bring it `down` first, or leave these options out"
            )
        wanted = settings.services if services is None else services
        missing = [part for part in (CHAIN, *wanted) if not table.running(part)]
        if not missing:
            return []
        _check_ports(missing, settings)
        settings.save()
        try:
            if CHAIN in missing:
                _start(CHAIN, settings, table)
                _wait_ready([CHAIN], settings, table, report)
            ensure_deployed(chain.node(settings.rpc_url), settings.address_file)
            others = [part for part in missing if part != CHAIN]
            for part in others:
                _start(part, settings, table)
            _wait_ready(others, settings, table, report)
        except BaseException:
            table.stop([part for part in missing if part != CHAIN])
            if CHAIN in missing:
                table.stop([CHAIN])
            raise
        return missing


def _stop(table: ProcessTable) -> list[str]:
    running = [part for part in (CHAIN, *ALL_SERVICES) if table.running(part)]
    # The services first: each may have something to finish that needs the chain.
    with signals_deferred():
        table.stop(ALL_SERVICES)
        table.stop([CHAIN])
    return running


def down(home: Path) -> list[str]:
    """Stop all parts, keep their state, and return the names of those that were running.

    :raises NetworkError: when another command is at work on the home folder
    """
    if not home.is_dir():
        return []
    with _locked(home):
        return _stop(ProcessTable(home))


def status(settings: NetworkSettings) -> list[PartStatus]:
    """Return how each part is."""
    table = ProcessTable(settings.home)
    found = []
    for part in parts_of(settings):
        record = table.running(part)
        found.append(
            PartStatus(
                name=part,
                url=settings.url(part),
                pid=record.pid if record else None,
                memory=round(memory_of(record.pid), 1) if record else 0.0,
                healthy=record is not None and _answers(part, settings),
                log=str(table.log(part)),
            )
        )
    return found


def block_number(settings: NetworkSettings) -> int | None:
    """Return the newest block's number, None when the chain does not answer."""
    try:
        return chain.node(settings.rpc_url).block_number()
    except (httpx.HTTPError, RpcError, ValueError):
        return None


def watch(settings: NetworkSettings, interval: float = 1.0) -> None:
    """Return when the network is brought down by another command.

    :param interval: seconds between two looks
    :raises NetworkError: when a part dies
    """
    table = ProcessTable(settings.home)
    parts = parts_of(settings)
    while True:
        if any(table.running(part) is None for part in parts):
            # With the lock no other command is half-way through stopping or starting the parts.
            with _locked(settings.home):
                ended = [part for part in parts if table.running(part) is None]
                died = [part for part in ended if not table.was_stopped(part)]
            if died:
                raise NetworkError(_failure(died[0], "has died", table))
            if ended:
                return
        time.sleep(interval)
