"""One result fetched once, in a process of its own: by the package, by ocean-lib, or by curl."""

from __future__ import annotations

import resource
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from include.bench.surroundings import tell_result
from include.localnet.accounts import BOB

if TYPE_CHECKING:
    from collections.abc import Callable

# Of a job's results: what the algorithm wrote, and its log.
OUTPUT, LOG = 0, 1
LIMIT = 10**12


def main(network: dict[str, str], how: str, job_id: str, target: str) -> dict[str, Any]:
    """Fetch a job's output, after its log: what a process does once is done then.

    :param how: ``package``, ``ocean-lib`` or ``curl``
    :param target: file to write
    :returns: seconds, bytes, and MB of memory that the process's peak grew by, None of curl
    """
    fetch = {"package": _package, "ocean-lib": _ocean_lib, "curl": _curl}[how](network, job_id, target)
    fetch(LOG)
    before, begun = _peak(), time.perf_counter()
    fetch(OUTPUT)
    seconds = time.perf_counter() - begun
    # What the system tells of a child's peak is at least what this process had when it began it.
    memory = None if how == "curl" else (_peak() - before) / 1024
    size = Path(target).stat().st_size
    Path(target).unlink()
    return {"seconds": seconds, "bytes": size, "memory": memory}


def _peak() -> int:
    """Return the most memory that this process ever had, in kB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _package(network: dict[str, str], job_id: str, target: str) -> Callable[[int], Any]:
    """Do what OceanFetchResultsOperator does with each file: stream it to the artifact base, with its hash."""
    from airflow.sdk import ObjectStoragePath

    from airflow_ocean.c2d.client import OceanClient
    from airflow_ocean.c2d.network import Network
    from airflow_ocean.c2d.results import save_stream

    client = OceanClient(Network(**network), BOB.private_key)  # type: ignore[arg-type]
    path = ObjectStoragePath(f"file://{target}")

    def fetch(index: int) -> None:
        with client.jobs.open_result(job_id, index) as stream:
            save_stream(stream.chunks, path, LIMIT)

    return fetch


def _ocean_lib(network: dict[str, str], job_id: str, target: str) -> Callable[[int], Any]:
    from eth_account import Account

    from include.bench.ocean_py_script import make_ocean

    ocean, bob = make_ocean(**network), Account.from_key(BOB.private_key)
    service = SimpleNamespace(service_endpoint=network["provider_url"], type="compute")

    def fetch(index: int) -> None:
        Path(target).write_bytes(ocean.compute.result(None, service, job_id, index, bob))

    return fetch


def _curl(network: dict[str, str], job_id: str, target: str) -> Callable[[int], Any]:
    from airflow_ocean.c2d.wallet import Wallet

    wallet = Wallet(BOB.private_key)

    def fetch(index: int) -> None:
        nonce = str(wallet.next_nonce())
        query = {
            "consumerAddress": wallet.address,
            "jobId": job_id,
            "index": index,
            "nonce": nonce,
            "signature": wallet.sign_text(f"{wallet.address}{job_id}{index}{nonce}"),
        }
        url = f"{network['provider_url']}/api/services/computeResult?{urlencode(query)}"
        subprocess.run(["curl", "--silent", "--show-error", "--fail", "--output", target, url], check=True)

    return fetch


if __name__ == "__main__":
    tell_result(main)
