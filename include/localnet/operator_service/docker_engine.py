"""The Docker engine that jobs may run in: reaching it, choosing a job's image, and saying what is wrong with either."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from docker import APIClient
from docker.errors import APIError, DockerException, ImageNotFound
from docker.utils import kwargs_from_env

if TYPE_CHECKING:
    from collections.abc import Callable

    from include.localnet.operator_service.jobspace import Container

_CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}")
_DEFAULT = "unix:///var/run/docker.sock"


class EngineUnavailable(Exception):
    """The Docker engine can't be used; the text says why and what to do."""


class ImageUnavailable(Exception):
    """A job's image is not there, or is another one; the text says so in a clause and what to do."""


def connect() -> APIClient:
    """Return a client of the engine that ``DOCKER_HOST`` names, or of this machine's.

    :raises EngineUnavailable: when it does not answer
    """
    options = kwargs_from_env()
    address = options.setdefault("base_url", _DEFAULT)
    try:
        return APIClient(version="auto", timeout=60, **options)
    except (DockerException, OSError) as error:
        raise EngineUnavailable(f"The Docker engine at {address} {_problem(str(error))}") from error


def _problem(text: str) -> str:
    if "FileNotFoundError" in text:
        return "is not there: start Docker, or set DOCKER_HOST to an engine."
    if "PermissionError" in text:
        return "may not be used by this user: add the user to the group docker (`usermod -aG docker USER`), then log in anew."
    return f"does not answer: is Docker running, and DOCKER_HOST right? ({text[:300]})"


def image_for(
    client: APIClient,
    container: Container,
    *,
    pull: bool,
    say: Callable[[str], None],
    stop_requested: Callable[[], bool],
) -> dict[str, Any]:
    """Return the image that a job's algorithm names, as the engine describes it.

    :param pull: fetch it when the engine doesn't have it
    :param say: adds a sentence to the job's log
    :raises ImageUnavailable: when it is not there, or its checksum is another
    """
    name = f"{container.image}:{container.tag}"
    try:
        found: dict[str, Any] = client.inspect_image(name)  # type: ignore[no-untyped-call]
    except ImageNotFound:
        if not pull:
            raise ImageUnavailable(
                f"the image {name} is not there: fetch it with `docker pull {name}`, or let the network do so "
                "(`up --runner docker --pull`)"
            ) from None
        found = _pulled(client, container, name, say, stop_requested)
    except DockerException as error:  # a name that can't be one
        raise ImageUnavailable(f"the engine refuses the image {name} ({error})") from error
    digests = {found["Id"], *(digest.partition("@")[2] for digest in found.get("RepoDigests") or [])}
    if _CHECKSUM.fullmatch(container.checksum) and container.checksum in digests:
        return found
    raise ImageUnavailable(
        f"the image {name} has the checksum {' or '.join(sorted(digests))}, and the algorithm's metadata say "
        f"{container.checksum}: publish the algorithm with the image's checksum, or fetch the image that is meant"
    )


def _pulled(
    client: APIClient,
    container: Container,
    name: str,
    say: Callable[[str], None],
    stop_requested: Callable[[], bool],
) -> dict[str, Any]:
    say(f"Fetching the image {name}.")
    try:
        for line in client.pull(container.image, tag=container.tag, stream=True, decode=True):
            if "error" in line:
                raise ImageUnavailable(f"the image {name} can't be fetched: {line['error']}")
            if stop_requested():
                raise ImageUnavailable(f"the job was stopped while the image {name} was fetched")
        found: dict[str, Any] = client.inspect_image(name)  # type: ignore[no-untyped-call]
    except (APIError, OSError) as error:
        raise ImageUnavailable(f"the image {name} can't be fetched: {error}") from error
    return found
