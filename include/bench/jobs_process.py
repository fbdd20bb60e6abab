"""Compute jobs on a local network: assets published, each job paid with an order of its own, started."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from include.bench.surroundings import tell_result
from include.localnet.accounts import ALICE, BOB

if TYPE_CHECKING:
    from airflow_ocean.c2d.client import OceanClient

_CONTAINER = ("oceanprotocol/algo_dockers", "python-branin", "sha256:" + "8" * 64)
_LONGEST = 900.0


def main(
    network: dict[str, str],
    data_url: str,
    algorithm_url: str,
    custom_data: list[dict[str, Any] | None],
    wait: bool,
) -> list[str]:
    """Start a job for each custom data.

    :param wait: let each job end well before the next one is started
    :returns: the jobs' ids
    """
    from airflow_ocean.c2d.assets import AlgorithmContainer, AssetSpec, ComputePolicy, Pricing
    from airflow_ocean.c2d.client import OceanClient
    from airflow_ocean.c2d.network import Network

    def client(key: str) -> OceanClient:
        return OceanClient(Network(**network), key)  # type: ignore[arg-type]

    free = Pricing.dispenser()
    with client(ALICE.private_key) as alice:
        dataset = alice.assets.publish(
            AssetSpec(
                "dataset",
                "Bench",
                ({"type": "url", "url": data_url},),
                pricing=free,
                compute=ComputePolicy(open_to_all=True),
            )
        )
    with client(ALICE.private_key) as alice:
        algorithm = alice.assets.publish(
            AssetSpec(
                "algorithm",
                "Bench",
                ({"type": "url", "url": algorithm_url},),
                container=AlgorithmContainer(*_CONTAINER),
                pricing=free,
            )
        )
    jobs = []
    for data in custom_data:
        with client(BOB.private_key) as bob:
            order = bob.orders.pay(bob.orders.quote([dataset.did], algorithm.did))
            job = bob.jobs.start(order, data)
            jobs.append(job.id)
            if wait:
                _wait(bob, job.id)
    return jobs


def _wait(client: OceanClient, job_id: str) -> None:
    deadline = time.monotonic() + _LONGEST
    while not (job := client.jobs.get(job_id)).is_finished:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{job.describe()} after {_LONGEST:.0f} s")
        time.sleep(0.5)
    if not job.succeeded:
        raise RuntimeError(f"{job.describe()}: {client.jobs.log_tail(job)}")


if __name__ == "__main__":
    tell_result(main)
