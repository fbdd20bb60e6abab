"""Waiting for an order that another job has, without holding a worker."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk.execution_time.context import NEVER_EXPIRE

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_ocean.c2d.errors import OrderInUseError
    from airflow_ocean.operators.base import OceanBaseOperator

# How often a run that has claimed an order and not started its job yet is looked at, and a job, seconds.
POLL_INTERVAL = 15.0


def defer_until_free(
    operator: OceanBaseOperator, context: Context, error: OrderInUseError, timeout: float, method_name: str
) -> None:
    """Defer a task until the job that has its order is over; its method is then called with the trigger's event.

    :param error: says which job it is
    :param timeout: seconds to wait altogether, retries included; clearing the task begins anew
    :param method_name: of the operator
    :raises OrderInUseError: the given one, when the time is over
    """
    from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger

    from airflow_ocean.triggers import OceanComputeTrigger

    store: Any = context["task_state_store"]
    # Clearing a task raises its max_tries, a retry does not.
    key = f"ocean.order_deadline.{context['ti'].max_tries}"
    deadline = store.get(key)
    if deadline is None:
        deadline = time.time() + timeout
        store.set(key, deadline, retention=NEVER_EXPIRE)
    if time.time() >= deadline:
        raise error
    operator.log.info("%s", error)
    if error.job_id and error.provider_url and error.consumer_address:
        operator.defer(
            trigger=OceanComputeTrigger(
                job_id=error.job_id,
                provider_url=error.provider_url,
                consumer_address=error.consumer_address,
                deadline=deadline,
                poll_interval=POLL_INTERVAL,
                ocean_conn_id=operator.ocean_conn_id,
            ),
            method_name=method_name,
        )
    operator.defer(trigger=TimeDeltaTrigger(timedelta(seconds=POLL_INTERVAL)), method_name=method_name)
