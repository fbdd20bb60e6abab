"""Fixtures for the pages: Airflow's database, and a DAG in it whose runs a test writes."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from tests.support.airflow import migrate_database, prepare_airflow_home

prepare_airflow_home()

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session


@pytest.fixture
def session() -> Iterator[Session]:
    """A session of Airflow's database."""
    migrate_database()
    from airflow.utils.session import create_session

    with create_session(scoped=False) as session:
        yield session


@pytest.fixture
def dag_id(session: Session) -> Iterator[str]:
    """A DAG of the test's own; its runs are deleted afterwards."""
    from tests.support.ocean_runs import delete_runs

    dag_id = f"dag_{uuid.uuid4().hex}"
    yield dag_id
    session.rollback()
    delete_runs(session, dag_id)
