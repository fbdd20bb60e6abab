"""The Airflow assets of this package: what was published and allowed, new results, and the orders kept from run to run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowRuntimeError

from airflow_ocean.c2d.errors import InvalidInputError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_ocean.c2d.client import OceanClient
    from airflow_ocean.c2d.order_book import OrderBook

# The x- in the URIs keeps Airflow from looking for a provider that knows the scheme: each process that reads a DAG file would
# import every provider with asset URIs for that, Amazon's boto3 among them, which takes most of the reading's time.
# Events of the first three are emitted by the operators that have them as outlets; what their extra holds is said there.
OCEAN_DATASET = Asset("ocean_dataset", uri="x-ocean://dataset")
OCEAN_ALGORITHM = Asset("ocean_algorithm", uri="x-ocean://algorithm")
OCEAN_COMPUTABLE = Asset("ocean_computable", uri="x-ocean://computable")
OCEAN_RESULT = Asset("ocean_result", uri="x-ocean://result")
_FINISHED = ("success", "failed", "skipped", "upstream_failed", "removed")
# Has no events: its state store keeps the orders. A task reaches the store of an asset that is one of its inlets.
OCEAN_ORDERS = Asset("ocean_orders", uri="x-ocean://orders")


def tell_outlets(context: Context, outlets: list[Any], extra: dict[str, Any]) -> None:
    """Put what a task did into the events of its outlets, which Airflow makes when the task succeeds.

    :param outlets: the task's; what is no asset is left alone
    :param extra: plain JSON
    """
    for outlet in outlets:
        if isinstance(outlet, Asset):
            context["outlet_events"][outlet].extra.update(extra)


class AssetStateOrders:
    """The orders in the state store of :data:`OCEAN_ORDERS`, which lasts across runs and DAGs.

    :param context: the context of a task that has the asset as an inlet
    :raises InvalidInputError: when the context has no asset state store
    """

    def __init__(self, context: Context) -> None:
        stores = context.get("asset_state_store")
        if stores is None:
            raise InvalidInputError(
                "this task has no asset_state_store, in which orders are kept from run to run; run it with Airflow 3.3 or "
                "later, by a scheduler or dag.test(), or set reuse_orders to False"
            )
        self._store: Any = stores[OCEAN_ORDERS]

    def get(self, key: str) -> Any:
        """Return what is kept, None when nothing is."""
        return self._store.get(key)

    def set(self, key: str, value: Any) -> None:
        """Keep a value."""
        self._store.set(key, value)


def order_book(client: OceanClient, context: Context, *, own_claims: bool = True) -> OrderBook:
    """Return the orders that are kept from run to run, for a task that has :data:`OCEAN_ORDERS` as an inlet.

    :param own_claims: whether an order is in use that another task of the same run has claimed
    """
    from airflow_ocean.c2d.order_book import OrderBook

    def is_claimed(holder: str) -> bool:
        of_this_run = json.loads(holder)[:2] == [context["ti"].dag_id, context["ti"].run_id]
        return (own_claims or not of_this_run) and is_live(context, holder)

    return OrderBook(client, AssetStateOrders(context), holder_of(context), is_claimed)


def holder_of(context: Context) -> str:
    """Name the task instance of a context, for a claim on an order."""
    instance = context["ti"]
    return json.dumps([instance.dag_id, instance.run_id, instance.task_id, instance.map_index])


def is_live(context: Context, holder: str) -> bool:
    """Say whether the run of a holder goes on, so that it may still start the job that it paid for.

    Of a mapped task group only the holder's own member counts: another one may go on for long after it has failed.
    """
    dag_id, run_id, _, map_index = json.loads(holder)
    instance: Any = context["ti"]
    try:
        if map_index is None or map_index < 0:
            # An enumeration of text: equal to the word, but str() of it is something else.
            return instance.get_dagrun_state(dag_id, run_id) in ("running", "queued")
        states = instance.get_task_states(dag_id, map_index=map_index, run_ids=[run_id])
        return any(state not in _FINISHED for tasks in states.values() for state in tasks.values())
    except AirflowRuntimeError:  # the run was deleted
        return False
