"""`make up`: the local network and the Airflow UI, with the connections in place, until Ctrl-C."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from include.demo.airflow import Airflow
from include.demo.environment import AIRFLOW_HOME, ARTIFACTS_VARIABLE, airflow_environment, choose_port
from include.demo.progress import Progress
from include.demo.run import DAG_ID
from include.demo.state import claim
from include.localnet import network
from include.localnet.cli import exports, resolve_settings
from include.localnet.settings import HOST, default_home, port_is_free

if TYPE_CHECKING:
    from include.demo.interrupts import Teardown
    from include.localnet.settings import NetworkSettings

_CONNECTION_VARIABLE = "AIRFLOW_CONN_"


def _network(teardown: Teardown, stack: str | None) -> NetworkSettings:
    """Bring the network up at the ports it had or barge's, at free ones when those are taken."""
    home = default_home()
    settings = resolve_settings(home, stack=stack)
    running = network.running_parts(settings)
    if not running:
        if not all(port_is_free(port) for port in settings.ports.values()):
            settings = resolve_settings(home, base_port=0, stack=stack)
        # One that ran before stays: it was brought up for something else as well.
        teardown.add(lambda: network.down(settings.home))
    network.up(settings)
    return settings


def _connection_fields(connection_id: str, text: str) -> dict[str, Any]:
    """Turn a connection's JSON in the environment into the REST API's."""
    fields = json.loads(text)
    return {**fields, "extra": json.dumps(fields["extra"]), "connection_id": connection_id}


def set_connections(airflow: Airflow, variables: dict[str, str]) -> list[str]:
    """Write the connections into Airflow's database, where the UI shows them.

    :param variables: environment variables, those of connections among them
    :returns: the ids of connections that lead to another machine and were left alone
    """
    foreign = []
    for name, text in variables.items():
        if not name.startswith(_CONNECTION_VARIABLE):
            continue
        connection_id = name.removeprefix(_CONNECTION_VARIABLE).lower()
        fields = _connection_fields(connection_id, text)
        present = airflow.find(f"/api/v2/connections/{connection_id}")
        if present is None:
            airflow.request("POST", "/api/v2/connections", json=fields)
        elif urlsplit(present["host"] or "").hostname in (None, HOST, "localhost"):
            airflow.request("PATCH", f"/api/v2/connections/{connection_id}", json=fields)
        else:
            foreign.append(connection_id)
    return foreign


def up(teardown: Teardown, port: int = 8080, stack: str | None = None) -> int:
    """Run until interrupted.

    :param teardown: what ends everything
    :param port: TCP port wished for the UI
    :param stack: a key of :data:`include.localnet.settings.STACKS`, None for what the network had before
    :raises CommandError: when something does not come up, or ends by itself
    :raises NetworkError: the same of the local network
    """
    begun = time.monotonic()
    progress = Progress(sys.stdout)
    with claim(AIRFLOW_HOME):
        progress.begin("local network")
        settings = _network(teardown, stack)
        progress.end("local network", "up", time.monotonic() - begun, settings.provider_url)
        progress.begin("Airflow")
        variables = exports(settings)
        environment = airflow_environment(AIRFLOW_HOME, port=choose_port(port))
        environment["OCEAN_FILES_URL"] = variables["OCEAN_FILES_URL"]
        airflow = Airflow(environment, AIRFLOW_HOME, teardown)
        airflow.start()
        airflow.wait_until_ready()
        foreign = set_connections(airflow, variables)
        airflow.wait_for_dag(DAG_ID)
        airflow.unpause(DAG_ID)
        progress.end("Airflow", "up", time.monotonic() - begun, airflow.url)
        print(_welcome(airflow, settings, foreign), flush=True)
        while True:
            airflow.check()
            _check_network(settings)
            time.sleep(1)


def _check_network(settings: NetworkSettings) -> None:
    ended = [part for part in network.parts_of(settings) if part not in network.running_parts(settings)]
    if ended:
        raise network.NetworkError(
            f"{', '.join(ended)} of the local network ended; see the logs in {settings.home / 'logs'}"
        )


def _services(settings: NetworkSettings) -> str:
    if settings.stack == "node":
        return f"Ocean Node {settings.node_url}"
    return f"Provider {settings.provider_url}, Aquarius {settings.metadata_cache_url}"


def _welcome(airflow: Airflow, settings: NetworkSettings, foreign: list[str]) -> str:
    user, password = airflow.credentials
    lines = [
        "",
        f"Airflow    {airflow.url}  user: {user}  password: {password}",
        f"the DAG    {airflow.url}/dags/{DAG_ID}",
        f"network    chain {settings.rpc_url}, {_services(settings)}",
        f"artifacts  {airflow.environment[ARTIFACTS_VARIABLE]}",
        f"logs       {airflow.home / 'logs'}, {settings.home / 'logs'}",
    ]
    for connection in foreign:
        lines.append(f"The connection {connection} leads to another network and was left as it is.")
    return "\n".join([*lines, "", "Ctrl-C ends all of it; runs and assets are still there the next time."])
