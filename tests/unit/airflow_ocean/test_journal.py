"""The journal on Airflow's task state store."""

from __future__ import annotations

import pytest
from airflow.sdk.execution_time.context import NEVER_EXPIRE

from airflow_ocean.c2d.errors import InvalidInputError
from airflow_ocean.journal import TaskStateJournal


def test_an_entry_reads_back_and_never_expires(context):
    journal = TaskStateJournal(context)
    assert journal.load("order") is None
    journal.save("order", {"raw": "0x01"})
    assert TaskStateJournal(context).load("order") == {"raw": "0x01"}
    ((_, retention),) = context["task_state_store"].entries.values()
    # Airflow compares by identity.
    assert retention is NEVER_EXPIRE


def test_without_a_store_it_is_refused():
    with pytest.raises(InvalidInputError, match="task_state_store"):
        TaskStateJournal({})


def test_something_else_in_the_store_is_refused(context):
    TaskStateJournal(context).save("order", {})
    (key,) = context["task_state_store"].entries
    context["task_state_store"].set(key, "free text")
    with pytest.raises(InvalidInputError, match="order"):
        TaskStateJournal(context).load("order")


def test_force_new_begins_anew_when_the_task_is_cleared_but_not_in_a_retry(context):
    context["ti"].max_tries = 3
    TaskStateJournal(context).save("order", {"raw": "0x01"})
    cleared = TaskStateJournal(context, force_new=True)
    assert cleared.load("order") is None
    cleared.save("order", {"raw": "0x02"})
    assert TaskStateJournal(context, force_new=True).load("order") == {"raw": "0x02"}
    # Airflow raises max_tries when it clears a task that ran.
    context["ti"].max_tries = 7
    assert TaskStateJournal(context, force_new=True).load("order") is None
    assert TaskStateJournal(context).load("order") == {"raw": "0x01"}
