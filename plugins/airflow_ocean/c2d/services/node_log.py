"""The log of a job that runs on an Ocean Node, while it grows, on an event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_ocean.c2d.errors import NotAllowedError
from airflow_ocean.c2d.services import node_answers
from airflow_ocean.c2d.services.docker_frames import FrameDecoder
from airflow_ocean.c2d.services.http import open_async
from airflow_ocean.c2d.services.node_jobs import check_job_id
from airflow_ocean.c2d.services.node_signing import SIGNING_ATTEMPTS, is_overtaken, signed_fields
from airflow_ocean.c2d.services.pacing import pace_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_ocean.c2d.wallet import Wallet

# A job may say nothing for as long as it likes, so that the time to read has no end.
_SILENCE = None


async def follow(url: str, wallet: Wallet, job_id: str) -> AsyncIterator[bytes]:
    """Do what :func:`airflow_ocean.c2d.services.follow_log` does."""
    check_job_id(job_id)
    what, address = (
        f"reading the log of job {job_id}",
        f"{url.rstrip('/')}/api/services/computeStreamableLogs",
    )
    async with open_async(node_answers.check) as http:
        for attempt in range(1, SIGNING_ATTEMPTS + 1):
            decoder = FrameDecoder(what)
            try:
                async with pace_of(url).turn():
                    # Signed when its turn has come: later requests of the wallet would overtake the nonce meanwhile.
                    query = {"jobId": job_id, **signed_fields(wallet, "getComputeStreamableLogs")}
                    async with http.stream(address, what, query, _SILENCE) as pieces:
                        async for piece in pieces:
                            for content in decoder.feed(piece):
                                yield content
                return
            except NotAllowedError as error:
                if attempt == SIGNING_ATTEMPTS or not is_overtaken(error):
                    raise
