"""The compute environment on offer: its resources and prices, and what of them a job gets."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import platform
import time
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from include.localnet.node.answers import Refused
from include.localnet.node.javascript import stringify
from include.localnet.operator_service.environments import GIGABYTE
from include.localnet.operator_service.jobspace import Limits

if TYPE_CHECKING:
    from collections.abc import Iterable

    from include.localnet.node.store import Job

# In the form of upstream's DOCKER_COMPUTE_ENVIRONMENTS. Upstream names the machine's processor and counts its disk.
_DEFAULT: dict[str, Any] = {
    "storageExpiry": 604800,
    "minJobDuration": 60,
    "maxJobDuration": 3600,
    "resources": [
        {"id": "cpu", "total": 8, "max": 4, "min": 1},
        {"id": "ram", "total": 16, "max": 8, "min": 1},
        {"id": "disk", "total": 20, "max": 10, "min": 0},
    ],
    "prices": [{"id": "cpu", "price": 1}],
    "free": {
        "minJobDuration": 10,
        "maxJobDuration": 600,
        "maxJobs": 4,
        "resources": [
            {"id": "cpu", "total": 4, "max": 1},
            {"id": "ram", "total": 4, "max": 1},
            {"id": "disk", "total": 4, "max": 1},
        ],
    },
}
VARIABLE = "DOCKER_COMPUTE_ENVIRONMENTS"


def _configured() -> dict[str, Any]:
    text = os.environ.get(VARIABLE)
    if not text:
        return _DEFAULT
    try:
        environment = json.loads(text)
        for resources in (environment["resources"], environment.get("free", {}).get("resources", [])):
            for resource in resources:
                resource["id"], resource["total"], resource["max"]
        return {**_DEFAULT, "free": None, **environment}
    except (ValueError, KeyError, TypeError) as error:
        raise SystemExit(
            f"{VARIABLE} must be JSON of an object with resources [{{id, total, max, min}}], free, prices, "
            f"minJobDuration, maxJobDuration and storageExpiry, not {text[:200]!r}: {error!r}"
        ) from error


def _hex(text: str) -> str:
    return "0x" + hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Environment:
    """The one environment of the one cluster.

    :param cluster: first part of the environment's and, at start, of a job's id
    :param fields: what never changes of the announcement
    """

    cluster: str
    fields: dict[str, Any]

    @classmethod
    def of_node(cls, address: str, chain_id: int, token: str) -> Environment:
        """Return the environment that ``DOCKER_COMPUTE_ENVIRONMENTS`` describes, else the default.

        :param address: the node's, which is paid and which orders must name as consumer
        :param token: what is paid in
        :raises SystemExit: when the variable can't be understood
        """
        configured = copy.deepcopy(_configured())
        cluster = _hex(f"docker{address}")
        resources = configured["resources"]
        for resource in resources:
            resource.setdefault("type", resource["id"])
            resource.setdefault("min", 0)
        fields: dict[str, Any] = {
            "id": f"{cluster}-{_hex(stringify(configured))}",
            "runningJobs": 0,
            "consumerAddress": address,
            "platform": {"architecture": platform.machine(), "os": "linux"},
            "access": configured.get("access", {"addresses": [], "accessLists": []}),
            "fees": configured.get(
                "fees", {str(chain_id): [{"prices": configured["prices"], "feeToken": token}]}
            ),
            "resources": resources,
            "enableNetwork": False,
            "storageExpiry": configured["storageExpiry"],
            "minJobDuration": configured["minJobDuration"],
            "maxJobDuration": configured["maxJobDuration"],
        }
        if configured["free"]:
            fields["free"] = {
                "access": {"addresses": [], "accessLists": None},
                **configured["free"],
                "allowImageBuild": False,
            }
        return cls(cluster, fields)

    @property
    def id(self) -> str:
        """The id that clients choose it by."""
        return str(self.fields["id"])

    def announcement(self, jobs: Iterable[Job]) -> dict[str, Any]:
        """Return the environment as it is listed, with what the unfinished jobs use."""
        listed = copy.deepcopy(self.fields)
        running = [job for job in jobs if not job.is_queued]
        queued = [job for job in jobs if job.is_queued]
        for resources, chosen in (
            (listed["resources"], running),
            (listed.get("free", {}).get("resources", []), [job for job in running if job.is_free]),
        ):
            for resource in resources:
                resource["inUse"] = sum(job.amount(resource["id"]) for job in chosen)
        free = [job for job in queued if job.is_free]
        listed |= {
            "runningJobs": len(running),
            "queuedJobs": len(queued),
            "queuedFreeJobs": len(free),
            "queMaxWaitTime": sum(job.max_duration for job in queued),
            "queMaxWaitTimeFree": sum(job.max_duration for job in free),
            "runMaxWaitTime": _left(running),
            "runMaxWaitTimeFree": _left([job for job in running if job.is_free]),
            "runningfreeJobs": sum(job.is_free for job in running),
        }
        return listed

    def prices(self, chain_id: Any, token: Any) -> list[dict[str, Any]]:
        """Return what a minute of each resource costs in a token, whose address is compared case-sensitively.

        :raises Refused: when it can't be paid so
        """
        for fee in (self.fields["fees"] or {}).get(str(chain_id), []):
            if fee["feeToken"] == token:
                prices: list[dict[str, Any]] = fee["prices"]
                return prices
        raise Refused(f"This compute env does not accept payments on chain: {chain_id} using token {token}")

    def cost(self, resources: list[dict[str, Any]], prices: list[dict[str, Any]], seconds: float) -> Decimal:
        """Return what resources cost for a time, in whole tokens: every minute begun counts."""
        minutes = math.ceil(max(seconds, self.fields["minJobDuration"]) / 60)
        price_of = {price["id"]: Decimal(str(price["price"])) for price in prices}
        total = sum(
            (price_of.get(item["id"], Decimal(0)) * Decimal(str(item["amount"])) for item in resources),
            Decimal(0),
        )
        return Decimal(total * minutes)

    def filled(self, wanted: Any, *, free: bool) -> list[dict[str, Any]]:
        """Return how much of each resource a job gets: what it asks for, at least the minimum.

        Resources that the environment does not have are left out without a word, as upstream.

        :raises Refused: when it asks for too much
        """
        amounts = {str(item.get("id")): item.get("amount") for item in wanted or [] if isinstance(item, dict)}
        paid = {resource["id"]: resource for resource in self.fields["resources"]}
        filled = []
        for name, resource in paid.items():
            limits = {"total": resource["total"], "max": resource["max"], "min": resource["min"]}
            if free and "resources" in self.fields["free"]:
                found = next((r for r in self.fields["free"]["resources"] if r["id"] == name), None)
                limits = {**limits, **found} if found else dict.fromkeys(limits, 0)
            amount = amounts.get(name)
            if not isinstance(amount, int | float) or not amount:
                amount = limits["min"]
            amount = max(amount, limits["min"])
            if amount > limits["max"]:
                raise Refused(
                    f"Not enough {name} resources. Requested {amount}, but max is {limits['max']}", 400
                )
            filled.append({"id": name, "amount": amount})
        return filled

    def check_available(
        self, resources: list[dict[str, Any]], unfinished: Iterable[Job], *, free: bool
    ) -> None:
        """Check that a job with these resources could start now.

        :raises Refused: naming the resource that is in use
        """
        listed = self.announcement(list(unfinished))
        offers = [(listed["resources"], "")] + (
            [(listed["free"].get("resources", []), " for free")] if free else []
        )
        for item in resources:
            for offered, suffix in offers:
                resource = next((r for r in offered if r["id"] == item["id"]), None)
                if item["amount"] and resource and resource["total"] - resource["inUse"] < item["amount"]:
                    raise Refused(f"Not enough available {item['id']}{suffix}", 400)
        if free and listed["runningfreeJobs"] + 1 > listed["free"].get("maxJobs", math.inf):
            raise Refused("Too many running free jobs ", 400)

    def check_access(self, consumer: str, *, free: bool) -> None:
        """Check that a consumer may run jobs; addresses count only beside a list of contracts, as upstream.

        :raises Refused: 403, also for whom a contract lists: there is none on the local network
        """
        if free and "free" not in self.fields:
            raise Refused("TypeError: Cannot read properties of undefined (reading 'access')", 400)
        access = (self.fields["free"] if free else self.fields)["access"]
        addresses, contracts = access["addresses"], access.get("accessLists")
        if contracts is not None and (contracts or addresses) and consumer not in addresses:
            raise Refused("Access denied", 403)

    def limits(self, job: Job) -> Limits:
        """Return what the sandbox enforces for a job."""
        disk = job.amount("disk") or next(r["total"] for r in self.fields["resources"] if r["id"] == "disk")
        return Limits(
            memory=int(job.amount("ram") * GIGABYTE),
            output=int(disk * GIGABYTE),
            wall_seconds=job.max_duration,
            cpus=max(1, int(job.amount("cpu"))),
        )


def _left(jobs: list[Job]) -> float:
    # Upstream subtracts from the longest time the time since a start that it takes for 1970 (its
    # ``buildStartTimestamp`` is the text "0", which counts as set): the sum is a large negative number.
    now = int(time.time() * 1000) / 1000
    return sum(job.max_duration - now for job in jobs)
