"""Fixtures for tests with containers: an Airflow connection, and a rehearsal of the Branin example."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.airflow import PROJECT, prepare_airflow_home, recorded_context

prepare_airflow_home()

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_ocean.operators.rehearsal import OceanRehearseAlgorithmOperator
    from tests.support.docker_engine import Engine, Image

CONN_ID = "ocean_test"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(PROJECT / "tests" / "docker"):
            item.add_marker(pytest.mark.docker)
            item.add_marker(pytest.mark.timeout(300))  # the first one starts the engine and makes the images


@pytest.fixture
def artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The artifact base of the connection ``ocean_test``, which needs no network."""
    extra = {"provider_url": "http://127.0.0.1:2", "artifact_base": str(tmp_path / "artifacts")}
    content = {
        "conn_type": "ocean",
        "host": "http://127.0.0.1:1",
        "password": "0x" + "11" * 32,
        "extra": extra,
    }
    monkeypatch.setenv(f"AIRFLOW_CONN_{CONN_ID.upper()}", json.dumps(content))
    return tmp_path / "artifacts"


@pytest.fixture
def context() -> dict[str, Any]:
    """A task's context."""
    return recorded_context()


@pytest.fixture
def rehearsal(
    docker_engine: Engine, docker_images: dict[str, Image], artifacts: Path, tmp_path: Path
) -> Callable[..., OceanRehearseAlgorithmOperator]:
    """Make the operator for some code, or for the example."""
    from airflow_ocean.operators.rehearsal import OceanRehearseAlgorithmOperator

    def make(code: str | None = None, **arguments: Any) -> OceanRehearseAlgorithmOperator:
        algorithm = PROJECT / "include" / "branin" / "algorithm.py"
        if code is not None:
            algorithm = tmp_path / "algorithm.py"
            algorithm.write_text(code)
        container = docker_images[arguments.pop("tag_of_image", "plain")].container()
        return OceanRehearseAlgorithmOperator(
            task_id="rehearse",
            ocean_conn_id=CONN_ID,
            **{
                **container,
                "algorithm": str(algorithm),
                "sample_data": [str(PROJECT / "include" / "branin" / "branin.arff")],
                "docker_url": docker_engine.url,
                "time_limit": 120,
                **arguments,
            },
        )

    return make
