"""Which generation of Ocean's services answers at a URL, found out by asking it once in a while."""

from __future__ import annotations

import contextlib
import re
from typing import Any

from airflow_ocean.c2d.cache import cached
from airflow_ocean.c2d.errors import InvalidInputError
from airflow_ocean.c2d.services.http import HttpSession, read_json, shown_url

NODE_SOFTWARE = "Ocean-Node"
# How long a service's own description may be kept, seconds: it changes with a release.
ROOT_TTL = 600.0
_CLUSTER = re.compile(r"0x[0-9a-fA-F]+-")


def root_of(url: str) -> dict[str, Any]:
    """Return what a service says of itself: name, version, endpoints, chains.

    :raises InvalidInputError: when what answers is no service of Ocean
    """

    def ask() -> dict[str, Any]:
        with contextlib.closing(HttpSession()) as http:
            what = "asking what kind of service this is"
            root = read_json(http.request("GET", url, what), what)
        if not isinstance(root, dict):
            raise InvalidInputError(
                f"{shown_url(url)} answers, but not as an Ocean Provider or an Ocean Node does; check provider_url"
            )
        return root

    return cached(("root", url.rstrip("/")), ROOT_TTL, ask)


def is_node(url: str) -> bool:
    """Say whether an Ocean Node answers at a URL, and not a Provider.

    :raises InvalidInputError: when neither does
    """
    return describes_node(root_of(url.rstrip("/")))


def describes_node(root: dict[str, Any]) -> bool:
    """Say whether a service's own description is an Ocean Node's. Its version says nothing: it is always 0.0.1."""
    return root.get("software") == NODE_SOFTWARE


def is_node_job(job_id: str) -> bool:
    """Say whether a job runs on an Ocean Node: its id, as starting it returned it, begins with the cluster's hash and a dash.

    A Provider's id is 32 hexadecimal digits.
    """
    return _CLUSTER.match(job_id) is not None
