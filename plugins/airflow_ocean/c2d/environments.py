"""Compute environments: what a Provider offers to run jobs in, and how one is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_ocean.c2d.errors import InvalidInputError

if TYPE_CHECKING:
    from decimal import Decimal


@dataclass(frozen=True)
class ComputeEnvironment:
    """One environment of a Provider.

    :param consumer_address: the address every order for this environment must name as its consumer
    :param price_per_minute: in whole fee tokens; 0 for a free environment
    :param max_job_duration: seconds
    """

    id: str
    consumer_address: str
    price_per_minute: Decimal
    fee_token: str | None
    max_job_duration: int
    cpu_number: int
    ram_gb: int
    description: str
    raw: dict[str, Any]

    @property
    def is_free(self) -> bool:
        """Whether jobs cost nothing here besides the assets."""
        return self.price_per_minute == 0


def choose(environments: list[ComputeEnvironment], choice: str, provider_url: str) -> ComputeEnvironment:
    """Pick an environment: ``free``, ``cheapest``, or one by its id.

    :raises InvalidInputError: when there is none such; the message lists what there is
    """
    found = None
    if choice == "free":
        found = next((environment for environment in environments if environment.is_free), None)
    elif choice == "cheapest":
        found = min(environments, key=lambda environment: environment.price_per_minute, default=None)
    else:
        found = next((environment for environment in environments if environment.id == choice), None)
    if found is None:
        offered = ", ".join(
            f"{environment.id} ({'free' if environment.is_free else f'{environment.price_per_minute} a minute'})"
            for environment in environments
        )
        raise InvalidInputError(
            f"no compute environment {choice!r} at {provider_url}; it offers: {offered or 'none at all'}"
        )
    return found
