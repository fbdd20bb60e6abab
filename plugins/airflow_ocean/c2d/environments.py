"""Compute environments: what a Provider offers to run jobs in, and how one is chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from airflow_ocean.c2d.errors import InvalidInputError


@dataclass(frozen=True)
class ComputeEnvironment:
    """One environment of a Provider.

    :param consumer_address: the address every order for this environment must name as its consumer
    :param price_per_minute: in whole fee tokens, of the smallest job; 0 for a free environment
    :param max_job_duration: seconds
    :param needs_orders: whether its jobs need orders of their assets
    :param resource_prices: what a unit of each resource costs a minute, in whole fee tokens, where a job is paid for by what
        it uses, through the escrow
    :param least_resources: how much of each a job gets that does not ask for more
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
    needs_orders: bool = True
    resource_prices: dict[str, Decimal] = field(default_factory=dict)
    least_resources: dict[str, Decimal] = field(default_factory=dict)

    @property
    def is_free(self) -> bool:
        """Whether jobs cost nothing here besides the assets."""
        return self.price_per_minute == 0 and not self.resource_prices

    def price(self, duration: int, resources: dict[str, float] | None = None) -> Decimal:
        """Return what the environment costs at most, in whole fee tokens.

        :param duration: seconds
        :param resources: amounts by their names; the least of what is not named
        """
        if not self.resource_prices:
            return self.price_per_minute * duration / 60
        amounts = self.least_resources | {
            name: Decimal(str(amount)) for name, amount in (resources or {}).items()
        }
        per_minute = sum(
            (price * amounts.get(name, Decimal(0)) for name, price in self.resource_prices.items()),
            Decimal(0),
        )
        # Every minute begun counts. Source: Ocean Node 3.2.0, C2D engine ``calculateResourcesCost``.
        return per_minute * math.ceil(min(duration, self.max_job_duration or duration) / 60)


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
