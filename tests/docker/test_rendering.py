"""Decoding and drawing results in a container."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import pytest

from airflow_ocean.artifacts import Artifact, Manifest
from airflow_ocean.c2d.errors import InvalidInputError
from airflow_ocean.operators.plots import OceanPlotOperator, OceanPlotSeveralOperator
from include.branin.data import surface
from tests.docker.conftest import CONN_ID

if TYPE_CHECKING:
    from tests.support.docker_engine import Engine, Image


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("ran",)


def plotting(
    content: bytes, folder: Path, engine: Engine, image: Image, **arguments: Any
) -> OceanPlotOperator:
    from airflow.sdk import ObjectStoragePath

    path = folder / "0-result"
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    artifact = Artifact("result", f"file://{path}", "output", len(content), digest)
    manifest = Manifest("job", None, [], [artifact]).write(
        ObjectStoragePath(f"file://{folder}/manifest.json")
    )
    return OceanPlotOperator(
        task_id="plot",
        ocean_conn_id=CONN_ID,
        manifest=manifest,
        **{
            "render": "include.branin.plot:plot_surface",
            "render_in_docker": "True",
            "render_image": image.name,
            "docker_url": engine.url,
            **arguments,
        },
    )


@pytest.fixture
def where(docker_engine: Engine, docker_images: dict[str, Image], artifacts: Path, tmp_path: Path) -> tuple:
    return tmp_path, docker_engine, docker_images["plain"]


def test_a_result_is_drawn(where: tuple, context: dict[str, Any], docker_engine: Engine) -> None:
    operator = plotting(pickle.dumps(numpy.array(surface())), *where, render_options={"width": 600})
    picture = Path(operator.execute(context).removeprefix("file://")).read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert int.from_bytes(picture[16:20], "big") == 600
    assert not docker_engine.containers("org.airflow-ocean.task_id=a_task")


@pytest.mark.parametrize(
    ("content", "words"),
    [(pickle.dumps(Evil()), "was not decoded"), (b"[1, 2]", "cannot draw the result")],
    ids=["code", "shape"],
)
def test_what_cannot_be_drawn_is_refused(
    where: tuple, context: dict[str, Any], content: bytes, words: str
) -> None:
    with pytest.raises(InvalidInputError, match=words):
        plotting(content, *where).execute(context)


def test_a_renderer_that_is_not_there(where: tuple, context: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="no_such_module is not found"):
        plotting(b"[1]", *where, render="no_such_module:draw").execute(context)
    with pytest.raises(InvalidInputError, match="render_image is empty"):
        plotting(b"[1]", *where, render_image=None).execute(context)


def test_several_results_are_not_drawn_without_the_wall_that_was_asked_for(context: dict[str, Any]) -> None:
    operator = OceanPlotSeveralOperator(
        task_id="plot", manifest=["file:///none"], render="math:sqrt", render_in_docker=True
    )
    with pytest.raises(InvalidInputError, match="one result"):
        operator.execute(context)
