"""How the services of a network are, each asked once: for a person who tests a connection."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from airflow_ocean.c2d.errors import InvalidInputError, OceanError
from airflow_ocean.c2d.services.generation import describes_node
from airflow_ocean.c2d.services.http import HttpSession, read_json, shown_url

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_ocean.c2d.network import Network


def looks(network: Network, chain_id: int | None) -> dict[str, Callable[[], str]]:
    """Return what :func:`~airflow_ocean.c2d.services.service_looks` offers."""
    try:
        root = _ask(network.provider_url)
    except OceanError as error:
        reason = error  # the variable of the clause ends with it

        def missing() -> str:
            raise reason

        found: dict[str, Callable[[], str]] = {"Provider": missing}
        return found | ({"Aquarius": lambda: _aquarius(network)} if network.metadata_cache_url else {})
    if describes_node(root):
        return {"Ocean Node": lambda: _node(network, root, chain_id)}
    return {
        "Provider": lambda: _provider(network, root, chain_id),
        "Aquarius": lambda: _aquarius(network),
    }


def _ask(url: str) -> dict[str, Any]:
    what = "asking for the version"
    with contextlib.closing(HttpSession()) as http:
        root = read_json(http.request("GET", url, what), what)
    return root if isinstance(root, dict) else {}


def _named(root: dict[str, Any], url: str, software: str) -> str:
    if root.get("software") != software:
        raise InvalidInputError(f"{shown_url(url)} answers, but not as {software} does; is the URL right?")
    return f"version {root.get('version', 'unknown')} at {shown_url(url)}"


def _provider(network: Network, root: dict[str, Any], chain_id: int | None) -> str:
    found = _named(root, network.provider_url, "Provider")
    _check_chain(network.provider_url, root.get("chainIds"), chain_id)
    return found


def _node(network: Network, root: dict[str, Any], chain_id: int | None) -> str:
    chains = root.get("chainIds")
    served = [int(chain) for chain in chains] if isinstance(chains, list) else None
    _check_chain(network.provider_url, served, chain_id)
    return f"{root.get('providerAddress', 'no address')} at {shown_url(network.provider_url)}"


def _check_chain(url: str, served: Any, chain_id: int | None) -> None:
    if isinstance(served, list) and chain_id is not None and chain_id not in served:
        raise InvalidInputError(f"the one at {shown_url(url)} serves the chains {served}, not {chain_id}")


def _aquarius(network: Network) -> str:
    url = network.metadata_cache_url
    if url is None:
        raise InvalidInputError("the connection names no metadata_cache_url, its root URL")
    return _named(_ask(url), url, "Aquarius")
