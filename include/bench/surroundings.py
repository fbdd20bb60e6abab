"""What measurements run on: a local network of their own, and processes that end with them."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
from typing import TYPE_CHECKING, Any

from include.demo.environment import ARTIFACTS_VARIABLE, airflow_environment
from include.demo.processes import CommandError, end_of, start, stop
from include.localnet import network
from include.localnet.cli import exports
from include.localnet.settings import PROJECT, NetworkSettings, choose_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

_LONGEST = 3600.0


@contextlib.contextmanager
def local_network(folder: Path, block_time: int | None = None, **variables: str) -> Iterator[NetworkSettings]:
    """Bring up a new local network at free ports, and down at the end.

    :param folder: for all of its state
    :param block_time: seconds between blocks; None mines each transaction at once
    :param variables: environment variables of its services
    """
    settings = NetworkSettings(folder / "net", choose_ports(0), block_time)
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        network.up(settings)
        yield settings
    finally:
        network.down(settings.home)
        os.environ.clear()
        os.environ.update(before)


def place(settings: NetworkSettings) -> dict[str, str]:
    """Return where a network is, as the fields of :class:`airflow_ocean.c2d.network.Network`."""
    return {
        "rpc_url": settings.rpc_url,
        "provider_url": settings.provider_url,
        "metadata_cache_url": settings.metadata_cache_url,
        "address_file": str(settings.address_file),
    }


def airflow_settings(
    folder: Path,
    settings: NetworkSettings | None = None,
    dags: Path = PROJECT / "dags",
    port: int | None = None,
) -> dict[str, str]:
    """Return the environment of an Airflow of the measurement's own.

    :param folder: for its state and artifacts
    :param settings: the local network that its connections lead to
    :param dags: folder of the DAG files
    :param port: of the API server
    """
    base = {**os.environ, ARTIFACTS_VARIABLE: str(folder / "artifacts")}
    port = port or choose_ports(0)["chain"]
    environment = airflow_environment(folder / "airflow", port=port, dags=dags, base=base)
    return environment | (exports(settings) if settings else {})


def run_process(
    folder: Path,
    module: str,
    arguments: dict[str, Any],
    environment: Mapping[str, str] | None = None,
    started: Callable[[int], None] = lambda pid: None,
) -> Any:
    """Run one of the modules that end in ``_process`` or ``_script`` and return its result.

    :param folder: for its log and result
    :param module: its name within this package
    :param arguments: what its ``main`` gets
    :param environment: its environment; by default this process's
    :param started: called with its process id
    :raises CommandError: when it fails; the text has the end of its log
    """
    name = f"{module}-{secrets.token_hex(4)}"
    log, result = folder / f"{name}.log", folder / f"{name}.json"
    surroundings = {**(environment or os.environ), "PYTHONPATH": str(PROJECT)}
    process = start(
        [sys.executable, "-m", f"include.bench.{module}", json.dumps(arguments), str(result)],
        environment=surroundings,
        log=log,
    )
    try:
        started(process.pid)
        status = process.wait(_LONGEST)
    finally:
        if process.poll() is None:
            stop((process, 5))
    if status or not result.exists():
        raise CommandError(f"{module} ended with status {status}. The end of its log:\n{end_of(log)}")
    return json.loads(result.read_text())


def tell_result(work: Callable[..., Any]) -> None:
    """Be such a process: call ``work`` with the arguments as keywords and write down what it returns."""
    arguments, result = sys.argv[1:]
    value = work(**json.loads(arguments))
    with open(result, "w") as file:
        json.dump(value, file)
