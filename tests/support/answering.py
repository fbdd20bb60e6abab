"""A person who answers the question of a run that ``dag.test()`` runs, by way of Airflow's own REST API."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# What dag.test() logs when a run has nothing to do but to wait for an answer, and when it begins to wait for a trigger.
ASKS, DEFERS = "Waiting for Human-in-the-loop input for tasks", "[DAG TEST] running trigger in line"
_LOGGER = "airflow.sdk.definitions.dag"


class _Ear(logging.Handler):
    """Does something whenever a message is logged."""

    def __init__(self, message: str, act: Callable[[], None]) -> None:
        super().__init__()
        self._message, self._act = message, act

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith(self._message):
            self._act()


@contextmanager
def whenever(message: str, act: Callable[[], None]) -> Iterator[None]:
    """Do something, in the midst of ``dag.test()``, whenever that has logged a message."""
    logger, ear = logging.getLogger(_LOGGER), _Ear(message, act)
    level = logger.level
    logger.addHandler(ear)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(ear)
        logger.setLevel(level)


@contextmanager
def answering(option: str, first: Callable[[], None] = lambda: None) -> Iterator[list[dict[str, Any]]]:
    """Let an administrator answer every question that is open; yields the questions, filled while runs go on.

    :param first: called before each answer
    """
    from airflow.api_fastapi.app import create_app
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from fastapi.testclient import TestClient

    questions: list[dict[str, Any]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "the secret of these tests " * 4)
        app = create_app(apps="core")
        token = app.state.auth_manager.generate_jwt(SimpleAuthManagerUser(username="admin", role="admin"))
        api = TestClient(app, headers={"Authorization": f"Bearer {token}"})

        def answer() -> None:
            listed = api.get("/api/v2/dags/~/dagRuns/~/hitlDetails", params={"response_received": False})
            (question,) = listed.json()["hitl_details"]
            questions.append(question)
            first()
            task = question["task_instance"]
            path = (
                f"/api/v2/dags/{task['dag_id']}/dagRuns/{task['dag_run_id']}/taskInstances/{task['task_id']}"
            )
            said = {"chosen_options": [option], "params_input": {}}
            answered = api.patch(f"{path}/{task['map_index']}/hitlDetails", json=said)
            assert answered.status_code == 200, answered.text

        with whenever(ASKS, answer):
            yield questions
