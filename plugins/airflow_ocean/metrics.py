"""What the package counts, through Airflow's own metrics: StatsD, OpenTelemetry, or nothing, as ``[metrics]`` says.

Each name stands behind Airflow's prefix, ``airflow.`` by default. A task counts when it succeeds, once; what it repeats
without doing it again, such as an order that was already paid, is not counted again.

================================ =====================================================================================
``ocean.jobs.started``           jobs started
``ocean.jobs.finished``          jobs that a sensor saw succeed
``ocean.jobs.failed``            jobs that a sensor saw fail
``ocean.jobs.duration``          how long each of them took (timer, milliseconds; of those the Provider gives times for)
``ocean.orders.new``             orders paid
``ocean.orders.renewed``         orders whose fee was paid anew
``ocean.orders.reused``          orders that were still good
``ocean.spent.gas_gwei``         the chain's coin for gas, in 10**-9
``ocean.spent.microtokens``      tokens that left the wallet, or that were claimed of its deposit in the escrow when a sensor
                                 saw it, in 10**-6 of each; the tag ``token`` has the address
``ocean.poll_errors``            looks at jobs that failed, and were tried again
================================ =====================================================================================
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from airflow.sdk.observability.stats import Stats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_ocean.c2d.mined_transaction import MinedTransaction

_GWEI = 10**9
_MICRO = 6


def job_started() -> None:
    """Count a job that was started."""
    Stats.incr("ocean.jobs.started")


def job_ended(succeeded: bool, duration: float | None) -> None:
    """Count a job that is over.

    :param duration: seconds that it took, None when they are not known
    """
    Stats.incr("ocean.jobs.finished" if succeeded else "ocean.jobs.failed")
    if duration is not None:
        Stats.timing("ocean.jobs.duration", timedelta(seconds=duration))


def orders_paid(orders: Iterable[str], mined: Iterable[MinedTransaction]) -> None:
    """Count a task's orders by how it came by them.

    :param orders: ids of the order transactions
    :param mined: the task's own transactions
    """
    steps = {transaction.hash: transaction.step for transaction in mined}
    for order in orders:
        step = steps.get(order)
        way = "reused" if step is None else "renewed" if step.startswith("renew ") else "new"
        Stats.incr(f"ocean.orders.{way}")


def spent(mined: Iterable[MinedTransaction], decimals: Callable[[str], int]) -> None:
    """Count what a task's transactions took from the wallet.

    Whole numbers of small units, as counters are whole numbers in StatsD and 64 bits wide in OpenTelemetry.

    :param decimals: returns the number of a token's decimals
    """
    gas, tokens = 0, dict[str, int]()
    for transaction in mined:
        gas += transaction.fee
        for token, amount in transaction.spent.items():
            tokens[token] = tokens.get(token, 0) + amount
    if gas:
        Stats.incr("ocean.spent.gas_gwei", -(-gas // _GWEI))
    for token, amount in tokens.items():
        tokens_spent(token, amount, decimals)


def tokens_spent(token: str, amount: int, decimals: Callable[[str], int]) -> None:
    """Count tokens that were spent.

    :param amount: in the token's smallest unit
    :param decimals: returns the number of a token's decimals
    """
    if amount > 0:
        micro = -(-amount * 10**_MICRO // 10 ** decimals(token))
        Stats.incr("ocean.spent.microtokens", micro, tags={"token": token})


def poll_failed() -> None:
    """Count a look at a job that failed, and will be tried again."""
    Stats.incr("ocean.poll_errors")
