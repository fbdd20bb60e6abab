"""How running jobs stand, which the Provider tells without a key."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from airflow_ocean.c2d.errors import FatalError, OceanError
from airflow_ocean.c2d.services import open_job_reader

if TYPE_CHECKING:
    from airflow_ocean.ui.story import ComputeJob

# A page does not wait longer for a Provider, in seconds.
_PATIENCE = 3.0


async def ask_provider(job: ComputeJob) -> None:
    """Note in a job how its Provider says it stands, or that the Provider does not say."""
    try:
        async with (
            asyncio.timeout(_PATIENCE),
            open_job_reader(job.provider_url, job.consumer_address, job.id) as reader,
        ):
            found = (await reader.fetch_job(job.id)).jobs[job.id]
        if isinstance(found, FatalError):
            raise found
        job.live = found
    except TimeoutError:
        job.unreachable = (
            f"The Provider {job.provider_url} has not said within {_PATIENCE:.0f} s how the job stands."
        )
    except OceanError as error:
        job.unreachable = f"The Provider does not say how the job stands: {error}"
