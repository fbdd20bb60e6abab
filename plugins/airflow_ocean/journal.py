"""The journal of a task's transactions on Airflow's task state store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk.execution_time.context import NEVER_EXPIRE

from airflow_ocean.c2d.errors import InvalidInputError

if TYPE_CHECKING:
    from airflow.sdk import Context

_PREFIX = "ocean.step."


class TaskStateJournal:
    """Keeps the signed transactions of a task instance where its retries find them.

    The store belongs to the task instance, not to the try: clearing the task keeps it, as Airflow does, so the same
    run gives the same order. It never expires, because an entry says what is already paid.

    :param context: the task's context
    :raises InvalidInputError: when the context has no task state store
    """

    def __init__(self, context: Context) -> None:
        store = context.get("task_state_store")
        if store is None:
            raise InvalidInputError(
                "this task has no task_state_store, in which the transactions it signs are kept so that a retry does "
                "not pay again; run it with Airflow 3.3 or later, by a scheduler or dag.test()"
            )
        self._store: Any = store

    def load(self, step: str) -> dict[str, Any] | None:
        """Return the entry of a step, None when the step never began."""
        entry = self._store.get(_PREFIX + step)
        if entry is not None and not isinstance(entry, dict):
            raise InvalidInputError(
                f"the task state store holds something else than a transaction under {_PREFIX + step!r}; "
                "it records what was already paid: look the wallet's transactions up before you delete it"
            )
        return entry

    def save(self, step: str, entry: dict[str, Any]) -> None:
        """Replace the entry of a step; in Airflow's database when this returns."""
        self._store.set(_PREFIX + step, entry, retention=NEVER_EXPIRE)
