"""Decoding and drawing a result in a container: what goes in, and the PNG that comes out."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import airflow_ocean
from airflow_ocean.c2d.errors import InvalidInputError, JobFailedError
from airflow_ocean.c2d.job_files import JobFile, packed
from airflow_ocean.c2d.render_in_container import REFUSED
from airflow_ocean.containers import ConfinedContainer, ContainerLimits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.sdk import Context

_MODULES = "transformations/modules"
_OWN = (
    "__init__.py",
    "c2d/__init__.py",
    "c2d/decoding.py",
    "c2d/errors.py",
    "c2d/pickled_values.py",
    "c2d/render_in_container.py",
    "c2d/result_errors.py",
    "c2d/unpickling.py",
)
_LARGEST_MODULES = 10 << 20
_PNG = b"\x89PNG\r\n\x1a\n"


def render_container(image: str, docker_url: str | None) -> ConfinedContainer:
    """Return the container that draws, not yet run; its image has Python 3.11 or later, NumPy and what the renderer needs.

    :param image: with its tag; fetched if it is not there
    :param docker_url: the engine, None for ``DOCKER_HOST``'s or the worker's own
    """
    return ConfinedContainer(
        image=image,
        entrypoint="python -B -m airflow_ocean.c2d.render_in_container",
        variables={"PYTHONPATH": f"/data/{_MODULES}", "HOME": "/tmp", "MPLCONFIGDIR": "/tmp/matplotlib"},
        limits=ContainerLimits(memory=1 << 30, cpus=1, seconds=300, output=200 << 20),
        docker_url=docker_url,
    )


def draw_in_container(
    container: ConfinedContainer,
    context: Context,
    result: bytes,
    *,
    name: str,
    render: str,
    options: dict[str, Any],
    largest: int,
) -> bytes:
    """Return the PNG that a function draws of a result that nobody vouches for.

    :param result: the result's bytes
    :param name: what to call it
    :param render: ``module.path:function``; its module's folder is copied into the container, with the packages above it
    :param options: keyword arguments for it
    :param largest: bytes of the PNG
    :raises InvalidInputError: the result can't be drawn
    """
    order = {"render": render, "name": name, "options": options}
    files = [
        JobFile("inputs/result", result),
        JobFile("inputs/order.json", json.dumps(order).encode()),
        *_modules(render),
    ]
    try:
        container.run(context, packed(files))
        pictures = {}
        with container.outputs("outputs", largest) as outputs:
            for output in outputs:
                pictures[output.name] = b"".join(output.chunks or ())
    except JobFailedError as error:
        if f"exit status {REFUSED}." in str(error):
            raise InvalidInputError(str(error)) from error
        raise
    finally:
        container.remove()
    picture = pictures.get("plot.png", b"")
    if not picture.startswith(_PNG):
        raise InvalidInputError(f"{render} drew no PNG of the result {name!r}")
    return picture


def _modules(render: str) -> Iterator[JobFile]:
    """Yield the package's modules that decode, and those beside the renderer's."""
    root = Path(airflow_ocean.__file__).parent
    for name in _OWN:
        yield JobFile(f"{_MODULES}/airflow_ocean/{name}", root / name)
    module = render.partition(":")[0]
    yield from _packages_of(module)
    spec = _spec(module)
    assert spec.origin is not None
    inside = module.split(".")[:-1]
    if not inside:
        yield JobFile(f"{_MODULES}/{Path(spec.origin).name}", Path(spec.origin))
        return
    folder, size = Path(spec.origin).parent, 0
    for path in sorted(folder.rglob("*.py")):
        relative = path.relative_to(folder).as_posix()
        size += path.stat().st_size
        if size > _LARGEST_MODULES:
            raise InvalidInputError(
                f"the folder of {module} has more than {_LARGEST_MODULES} bytes of modules: move the renderer to one of its own"
            )
        yield JobFile("/".join([_MODULES, *inside, relative]), path)


def _packages_of(module: str) -> Iterator[JobFile]:
    """Yield the ``__init__`` of each package above the renderer's own."""
    names = module.split(".")[:-1]
    for depth in range(1, len(names)):
        origin = _spec(".".join(names[:depth])).origin
        if origin is not None:  # a namespace package has none
            yield JobFile("/".join([_MODULES, *names[:depth], "__init__.py"]), Path(origin))


def _spec(module: str) -> Any:
    """Find a module without running it."""
    found = sys.modules.get(module)
    spec = found.__spec__ if found is not None else importlib.util.find_spec(module)
    if spec is None:
        raise InvalidInputError(
            f"the renderer's module {module} is not found on the PYTHONPATH of the worker"
        )
    return spec
