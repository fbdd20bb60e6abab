"""Publishes with one wallet: in processes of their own at once, as an executor's workers are, or one after another."""

from __future__ import annotations

import multiprocessing
import time
from typing import Any

from include.bench.surroundings import tell_result
from include.localnet.accounts import ALICE

_LONGEST = 600.0


def _publish(network: dict[str, str], file_url: str, number: int) -> list[int]:
    """Publish one dataset and return the blocks its transactions are in."""
    from airflow_ocean.c2d.assets import AssetSpec
    from airflow_ocean.c2d.client import OceanClient
    from airflow_ocean.c2d.network import Network

    spec = AssetSpec("dataset", f"Dataset {number}", ({"type": "url", "url": file_url},))
    with OceanClient(Network(**network), ALICE.private_key) as alice:  # type: ignore[arg-type]
        alice.assets.publish(spec)
        return [sent.block for sent in alice.transactions.mined]


def _tell(results: Any, *arguments: Any) -> None:
    try:
        results.put(_publish(*arguments))
    except BaseException as error:
        results.put(repr(error))
        raise


def _at_once(network: dict[str, str], file_url: str, count: int) -> list[list[int]]:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=_tell, args=(results, network, file_url, n)) for n in range(count)]
    for worker in workers:
        worker.start()
    answers = [results.get(timeout=_LONGEST) for _ in workers]
    for worker in workers:
        worker.join()
    failed = [answer for answer in answers if isinstance(answer, str)]
    if failed:
        raise RuntimeError(f"{len(failed)} of {count} publishes failed, the first with {failed[0]}")
    return answers


def main(network: dict[str, str], file_url: str, count: int, parallel: bool) -> dict[str, Any]:
    """Publish ``count`` datasets.

    :returns: the seconds, without imports, and the number of transactions and of the blocks they are in
    """
    import airflow_ocean.c2d.client  # noqa: F401 - so that the time begins after the imports

    begun = time.monotonic()
    if parallel:
        blocks = _at_once(network, file_url, count)
    else:
        blocks = [_publish(network, file_url, number) for number in range(count)]
    seconds = time.monotonic() - begun
    mined = [block for each in blocks for block in each]
    return {"seconds": seconds, "transactions": len(mined), "blocks": len(set(mined))}


if __name__ == "__main__":
    tell_result(main)
