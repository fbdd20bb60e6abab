"""Which generation of Ocean's services answers at a URL, found out by asking it once in a while.

A service says it at its root. Where its compute environments are needed anyway, their list says it too, and saves a request.
"""

from __future__ import annotations

import contextlib
import logging
import re
from typing import TYPE_CHECKING, Any

from airflow_ocean.c2d.cache import cached, is_known, keep
from airflow_ocean.c2d.errors import FatalError, InvalidInputError, ServiceUnavailableError
from airflow_ocean.c2d.services.http import HttpSession, read_json, shown_url

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

NODE_SOFTWARE = "Ocean-Node"
# How long a service's own description may be kept, seconds: it changes with a release.
ROOT_TTL = 600.0
# How long a list of environments may be kept, seconds: prices and limits change while a service runs.
ENVIRONMENTS_TTL = 60.0
# Where both generations list their environments.
ENVIRONMENTS_PATH = "/api/services/computeEnvironments"
# What the root of a Provider says of the paths of its services; it is the same in every release since 1.0.
_PROVIDER_ENDPOINTS = {
    "encrypt": ["POST", "/api/services/encrypt"],
    "fileinfo": ["POST", "/api/services/fileinfo"],
    "initializeCompute": ["POST", "/api/services/initializeCompute"],
    "computeEnvironments": ["GET", ENVIRONMENTS_PATH],
    "computeStart": ["POST", "/api/services/compute"],
    "computeStop": ["PUT", "/api/services/compute"],
    "computeResult": ["GET", "/api/services/computeResult"],
}
# With the hash of its cluster before it, as its start returns it; a node's list of jobs leaves that out.
_NODE_JOB = re.compile(r"0x[0-9a-fA-F]+-|[0-9a-fA-F]{64}$")


def root_of(url: str) -> dict[str, Any]:
    """Return what a service says of itself: software and endpoints, and whatever else unless that was learned otherwise.

    :raises InvalidInputError: when what answers is no service of Ocean
    """

    def ask() -> dict[str, Any]:
        root = _get(url, "asking what kind of service this is")
        if not isinstance(root, dict):
            raise InvalidInputError(
                f"{shown_url(url)} answers, but not as an Ocean Provider or an Ocean Node does; check provider_url"
            )
        return root

    return cached(_root_key(url), ROOT_TTL, ask)


def environments_of(url: str, ask: Callable[[], Any]) -> Any:
    """Return a service's list of environments as it gives it.

    :param ask: asks for it
    """
    return cached(("environments", url.rstrip("/")), ENVIRONMENTS_TTL, ask)


def learn_from_environments(url: str) -> None:
    """Ask a service that nothing is known of for its environments first, and learn from their list which kind it is.

    Where the list does not say it, or there is none, the root is asked when it has to be known.
    """
    if is_known(_root_key(url)):
        return
    what = "listing the compute environments"
    try:
        listed = environments_of(url, lambda: _get(url.rstrip("/") + ENVIRONMENTS_PATH, what))
    except (FatalError, ServiceUnavailableError) as error:
        logger.debug("Its environments do not say what kind of service this is: %s", error)
        return
    root = _root_behind(listed)
    if root is not None:
        keep(_root_key(url), ROOT_TTL, root)


def _root_behind(listed: Any) -> dict[str, Any] | None:
    """Return what the root of a service says, by its list of environments; None when that may be of either kind.

    A Provider lists them by the chain, a node in one list, of which each has what it costs on each chain, or is free.
    """
    if isinstance(listed, dict) and listed and all(chain.isdecimal() for chain in listed):
        return {"software": "Provider", "serviceEndpoints": _PROVIDER_ENDPOINTS}
    if isinstance(listed, list) and any(
        isinstance(entry, dict) and ("fees" in entry or "free" in entry) for entry in listed
    ):
        return {"software": NODE_SOFTWARE}
    return None


def _root_key(url: str) -> tuple[str, str]:
    return "root", url.rstrip("/")


def _get(url: str, what: str) -> Any:
    with contextlib.closing(HttpSession()) as http:
        return read_json(http.request("GET", url, what), what)


def is_node(url: str) -> bool:
    """Say whether an Ocean Node answers at a URL, and not a Provider.

    :raises InvalidInputError: when neither does
    """
    return describes_node(root_of(url.rstrip("/")))


def describes_node(root: dict[str, Any]) -> bool:
    """Say whether a service's own description is an Ocean Node's. Its version says nothing: it is always 0.0.1."""
    return root.get("software") == NODE_SOFTWARE


def is_node_job(job_id: str) -> bool:
    """Say whether a job runs on an Ocean Node: its id has 64 hexadecimal digits, behind the cluster's hash and a dash.

    A Provider's id has 32.
    """
    return _NODE_JOB.match(job_id) is not None
