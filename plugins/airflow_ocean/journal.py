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
    :param force_new: begin with an empty journal when the task was cleared; retries share theirs in any case
    :raises InvalidInputError: when the context has no task state store
    """

    def __init__(self, context: Context, *, force_new: bool = False) -> None:
        store = context.get("task_state_store")
        if store is None:
            raise InvalidInputError(
                "this task has no task_state_store, in which the transactions it signs are kept so that a retry does "
                "not pay again; run it with Airflow 3.3 or later, by a scheduler or dag.test()"
            )
        self._store: Any = store
        # Clearing a task raises its max_tries, a retry does not: each clearing gets entries of its own.
        self._prefix = f"{_PREFIX}{context['ti'].max_tries}." if force_new else _PREFIX

    def load(self, step: str) -> dict[str, Any] | None:
        """Return the entry of a step, None when the step never began."""
        entry = self._store.get(self._prefix + step)
        if entry is not None and not isinstance(entry, dict):
            raise InvalidInputError(
                f"the task state store holds something else than a transaction under {self._prefix + step!r}; "
                "it records what was already paid: look the wallet's transactions up before you delete it"
            )
        return entry

    def save(self, step: str, entry: dict[str, Any]) -> None:
        """Replace the entry of a step; in Airflow's database when this returns."""
        self._store.set(self._prefix + step, entry, retention=NEVER_EXPIRE)
