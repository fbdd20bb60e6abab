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

LIMIT = 10**12


def main(network: dict[str, str], how: str, job_id: str, index: int, target: str) -> dict[str, float]:
    """Fetch a result.

    :param how: ``package``, ``ocean-lib`` or ``curl``
    :param index: the result's number in its job
    :param target: file to write
    :returns: seconds, bytes, and MB of memory that were needed beside what the process had before
    """
    fetch = {"package": _package, "ocean-lib": _ocean_lib, "curl": _curl}[how](network, job_id, index, target)
    who = resource.RUSAGE_CHILDREN if how == "curl" else resource.RUSAGE_SELF
    before, begun = resource.getrusage(who).ru_maxrss, time.perf_counter()
    fetch()
    seconds = time.perf_counter() - begun
    memory = (resource.getrusage(who).ru_maxrss - before) / 1024
    size = Path(target).stat().st_size
    Path(target).unlink()
    return {"seconds": seconds, "bytes": size, "memory": memory}


def _package(network: dict[str, str], job_id: str, index: int, target: str) -> Callable[[], Any]:
    """Do what OceanFetchResultsOperator does with each file: stream it to the artifact base, with its hash."""
    from airflow.sdk import ObjectStoragePath

    from airflow_ocean.c2d.client import OceanClient
    from airflow_ocean.c2d.network import Network
    from airflow_ocean.c2d.results import save_stream

    client = OceanClient(Network(**network), BOB.private_key)  # type: ignore[arg-type]
    client.jobs.get(job_id)
    path = ObjectStoragePath(f"file://{target}")
    list(path.parent.glob("nothing"))  # loads the file system

    def fetch() -> None:
        with client.jobs.open_result(job_id, index) as stream:
            save_stream(stream.chunks, path, LIMIT)

    return fetch


def _ocean_lib(network: dict[str, str], job_id: str, index: int, target: str) -> Callable[[], Any]:
    from eth_account import Account

    from include.bench.ocean_py_script import make_ocean

    ocean, bob = make_ocean(**network), Account.from_key(BOB.private_key)
    service = SimpleNamespace(service_endpoint=network["provider_url"], type="compute")

    def fetch() -> None:
        Path(target).write_bytes(ocean.compute.result(None, service, job_id, index, bob))

    return fetch


def _curl(network: dict[str, str], job_id: str, index: int, target: str) -> Callable[[], Any]:
    from airflow_ocean.c2d.wallet import Wallet

    wallet = Wallet(BOB.private_key)

    def fetch() -> None:
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
