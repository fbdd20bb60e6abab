"""Compute environments: what a Provider offers to run jobs in, and how one is chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from airflow_ocean.c2d.errors import InvalidInputError, NotAllowedError

# Whether the wallet may run jobs in an environment: yes; only if a contract lists it, which is not looked up here; no.
Access = Literal["open", "listed", "closed"]
_FOR_WHOM: dict[Access, str] = {
    "open": "",
    "listed": ", for those whom a contract lists",
    "closed": ", not for this wallet",
}


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
    :param most_resources: how much of each a job may ask for; empty where it may not ask
    :param access: whether the wallet may run jobs in it
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
    most_resources: dict[str, Decimal] = field(default_factory=dict)
    access: Access = "open"

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

    The first two pick what is open to the wallet. One that is open to those whom a contract lists has to be named: whoever
    is not on the list learns it when the job is started, and has paid for the orders by then.

    :raises InvalidInputError: when there is none such; the message lists what there is
    :raises NotAllowedError: when the one that is named is closed to the wallet
    """
    open_ones = [environment for environment in environments if environment.access == "open"]
    offered = f"it offers: {', '.join(map(_offer, environments)) or 'none at all'}"
    found = None
    if choice == "free":
        found = next((environment for environment in open_ones if environment.is_free), None)
    elif choice == "cheapest":
        found = min(open_ones, key=lambda environment: environment.price_per_minute, default=None)
    else:
        found = next((environment for environment in environments if environment.id == choice), None)
    if found is None:
        raise InvalidInputError(f"no compute environment {choice!r} at {provider_url}; {offered}")
    if found.access == "closed":
        raise NotAllowedError(
            f"compute environment {choice} at {provider_url} does not let this wallet in: ask its owner to, or take another; "
            f"{offered}"
        )
    return found


def _offer(environment: ComputeEnvironment) -> str:
    price = "free" if environment.is_free else f"{environment.price_per_minute} a minute"
    return f"{environment.id} ({price}{_FOR_WHOM[environment.access]})"
