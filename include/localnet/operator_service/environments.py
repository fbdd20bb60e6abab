"""The compute environments on offer: what they announce, and the limits that a job in them gets."""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from include.localnet.operator_service.jobspace import Limits

if TYPE_CHECKING:
    from pathlib import Path

GIGABYTE = 1 << 30
NETWORK = "development"


@dataclass(frozen=True)
class Environment:
    """A compute environment, named as barge names its namespaces.

    :param name: the id clients choose it by
    :param description: a sentence for people
    :param cpu_number: threads a numerical library may use
    :param ram_gb: memory of all processes of a job together (GiB)
    :param disk_gb: inputs of a job, and separately its outputs (GiB)
    :param price_minute: fee in whole fee tokens a minute; 0 is free
    :param max_jobs: jobs that run at once, the rest waits
    :param max_job_duration: longest run of an algorithm (seconds)
    :param storage_expiry: how long results are kept after the end of a job (seconds)
    """

    name: str
    description: str
    cpu_number: int
    ram_gb: int
    disk_gb: int
    price_minute: int
    max_jobs: int
    max_job_duration: int
    storage_expiry: int

    def limits(self, wall_seconds: float) -> Limits:
        """Return what is enforced for a job that may run for ``wall_seconds``."""
        return Limits(
            memory=self.ram_gb * GIGABYTE,
            output=self.disk_gb * GIGABYTE,
            wall_seconds=wall_seconds,
            cpus=self.cpu_number,
        )

    def announcement(self, running: int, consumer: str, network: dict[str, Any]) -> dict[str, Any]:
        """Return the environment as ``GET environments`` lists it.

        The fields are those the operator-engine announces every five seconds, and those the Provider adds for clients.
        Numbers are numbers as in the engine's defaults: ocean.js looks for ``priceMin === 0``.

        :param running: jobs that run now
        :param consumer: address that fetches inputs and that orders must name as consumer
        :param network: the network's entry in the address file
        """
        return {
            "id": self.name,
            "cpuNumber": self.cpu_number,
            "cpuType": platform.machine(),
            "gpuNumber": 0,
            "gpuType": "",
            "ramGB": self.ram_gb,
            "diskGB": self.disk_gb,
            "priceMin": self.price_minute,
            "desc": self.description,
            "currentJobs": running,
            "maxJobs": self.max_jobs,
            "consumerAddress": consumer,
            "storageExpiry": self.storage_expiry,
            "maxJobDuration": self.max_job_duration,
            "lastSeen": f"{time.time():.6f}",
            "chainId": network["chainId"],
            "feeToken": network["Ocean"],
            "free": self.price_minute == 0,
        }


def environments_on_offer(how: str) -> dict[str, Environment]:
    """Return the environments by id; ``MAX_JOBS``, ``MAX_JOB_DURATION`` and ``STORAGE_EXPIRY`` change their sizes.

    :param how: how jobs run, a clause
    :raises SystemExit: when one of these variables is no positive number
    """
    max_jobs = _number("MAX_JOBS", 4)
    duration = _number("MAX_JOB_DURATION", 3600)
    expiry = _number("STORAGE_EXPIRY", 7 * 24 * 3600)
    offered = [
        Environment("ocean-compute", f"Free environment; {how}", 1, 1, 1, 0, max_jobs, duration, expiry),
        Environment("ocean-compute-env2", f"Paid environment; {how}", 2, 2, 2, 1, max_jobs, duration, expiry),
    ]
    return {environment.name: environment for environment in offered}


def network_addresses(address_file: Path, *contracts: str) -> dict[str, Any]:
    """Return chain id and contract addresses of the development network.

    :param contracts: names of the contracts besides OCEAN
    :raises SystemExit: when the file lacks them
    """
    names = ("chainId", "Ocean", *contracts)
    try:
        entry: dict[str, Any] = json.loads(address_file.read_text())[NETWORK]
        return {name: entry[name] for name in names}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(
            f"ADDRESS_FILE {address_file} gives no {', '.join(names)} of the network {NETWORK!r} "
            f"({type(error).__name__}: {error}); `python -m include.localnet up` writes it"
        ) from error


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdigit() or int(text) < 1:
        raise SystemExit(f"{name} must be a whole number above 0, not {text!r}")
    return int(text)
