"""Where results live: one base for all workers, below it a folder for each task, in it the files and their manifest."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow.sdk import ObjectStoragePath

from airflow_ocean.c2d.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow.sdk import Context

    from airflow_ocean.c2d.job_files import Output

BASE_VARIABLE = "AIRFLOW_OCEAN_ARTIFACTS"
MANIFEST_NAME = "manifest.json"
_LONGEST_SEGMENT = 120
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Artifact:
    """One file of a job that was fetched.

    :param name: the file name as the job gave it: data, never a path
    :param uri: where it is kept
    :param type: ``output`` or a kind of log
    :param size: bytes
    :param sha256: of its content, hexadecimal
    """

    name: str
    uri: str
    type: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a task fetched, and from which job.

    :param job_id: the compute job
    :param algorithm_did: the algorithm it ran
    :param dataset_dids: the datasets it read
    :param files: what is kept, in the job's order
    :param cost: what was spent for it, as the task that paid tells it
    :param label: what tells the job from others
    """

    job_id: str
    algorithm_did: str | None
    dataset_dids: list[str]
    files: list[Artifact]
    cost: dict[str, Any] | None = None
    label: str | None = None

    def write(self, path: ObjectStoragePath) -> str:
        """Write it as JSON, whole or not at all, and return its URI."""
        from airflow_ocean.c2d.results import save_stream

        content = json.dumps(asdict(self), indent=2, ensure_ascii=False).encode()
        return save_stream([content], path, len(content)).uri

    @classmethod
    def read(cls, uri: str) -> Manifest:
        """Read one back.

        :raises InvalidInputError: when there is none at this URI, or it is something else
        """
        try:
            with open_artifact(uri) as stream:
                content: dict[str, Any] = json.loads(stream.read())
            return cls(**{**content, "files": [Artifact(**file) for file in content["files"]]})
        except FileNotFoundError:
            raise InvalidInputError(
                f"there is no manifest at {uri}; was it deleted, or is the artifact base not shared between the workers?"
            ) from None
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidInputError(f"{uri} is not a manifest of fetched results: {error!r}") from error


def artifact_folder(context: Context, *bases: str | None) -> ObjectStoragePath:
    """Return the folder of a task instance, made if it is a local one: ``<base>/<dag_id>/<run_id>/<task_id>``.

    A mapped task has one folder for each index below that.

    :param bases: where to keep artifacts, in the order of preference; the first given counts. Without any it is the
        environment variable ``AIRFLOW_OCEAN_ARTIFACTS``, at last ``<AIRFLOW_HOME>/artifacts``
    :raises InvalidInputError: when nothing can be kept there
    """
    base = base_uri(
        next((base for base in (*bases, os.environ.get(BASE_VARIABLE)) if base), None) or default_base()
    )
    instance = context["ti"]
    segments = [instance.dag_id, instance.run_id, instance.task_id]
    if instance.map_index is not None and instance.map_index >= 0:
        segments.append(str(instance.map_index))
    try:
        folder = ObjectStoragePath(base)
        for segment in segments:
            folder = folder / path_segment(segment)
        # Looked up before anything is written: an object store needs its Airflow provider.
        if folder.protocol == "file":
            folder.mkdir(parents=True, exist_ok=True)
        elif not folder.fs.exists(folder.bucket):
            raise InvalidInputError(
                f"artifact base {base}: there is no bucket {folder.bucket}; make it, or correct the name"
            )
    except (ValueError, ImportError) as error:
        raise InvalidInputError(
            f"artifact base {base}: {error}; is the store's provider installed?"
        ) from error
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise InvalidInputError(f"artifact base {base}: cannot make the folder {folder}: {error}") from error
    return folder


def default_base() -> str:
    """Return where artifacts are kept when nothing says otherwise."""
    return f"{os.environ.get('AIRFLOW_HOME', '~/airflow')}/artifacts"


def base_uri(base: str) -> str:
    """Return an artifact base, a folder or a URL, as a URL without a slash at its end."""
    if "://" not in base:
        base = f"file://{os.path.abspath(os.path.expanduser(base))}"
    return base.rstrip("/")


def open_artifact(location: ObjectStoragePath | str, mode: str = "rb") -> BinaryIO:
    """Open an artifact as a binary stream."""
    stream: BinaryIO = ObjectStoragePath(location).open(mode)  # type: ignore[no-untyped-call]
    return stream


def artifact_chunks(location: ObjectStoragePath | str) -> Iterator[bytes]:
    """Open an artifact at once, so that a missing one is known before anything is done, and return it in pieces."""
    stream = open_artifact(location)

    def pieces() -> Iterator[bytes]:
        with stream:
            while piece := stream.read(_CHUNK):
                yield piece

    return pieces()


def save_output(
    output: Output, kind: str, target: ObjectStoragePath, max_bytes: int, earlier: Mapping[str, Artifact]
) -> Artifact:
    """Keep a file out of an archive of outputs.

    :param kind: the artifact's type
    :param target: where to
    :param max_bytes: how large it may be
    :param earlier: what was kept of the archive before, by the outputs' names: a hard link is one of those again
    """
    from airflow_ocean.c2d.results import save_stream

    chunks = output.chunks if output.same_as is None else artifact_chunks(earlier[output.same_as].uri)
    saved = save_stream(chunks or (), target, max_bytes)
    return Artifact(output.name, str(target), kind, saved.size, saved.sha256)


def path_segment(text: str) -> str:
    """Return an id as one readable path segment that every store takes; different ids stay different.

    Run ids contain ``:`` and ``+``, which object stores and shells treat specially. What is replaced is made up for
    by a piece of the id's hash.
    """
    safe = re.sub(r"[^A-Za-z0-9._=-]+", "-", text).lstrip(".")[:_LONGEST_SEGMENT]
    if safe == text:
        return safe
    return f"{safe}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def check_integrity(artifact: Artifact) -> None:
    """Compare a kept file with what its manifest says about it.

    :raises InvalidInputError: when it is missing or another content
    """
    digest = hashlib.sha256()
    try:
        for chunk in artifact_chunks(artifact.uri):
            digest.update(chunk)
    except FileNotFoundError:
        raise InvalidInputError(
            f"the result {artifact.uri} is gone; run the task that fetched it again"
        ) from None
    if digest.hexdigest() != artifact.sha256:
        raise InvalidInputError(
            f"the result {artifact.uri} was changed after it was fetched: its SHA-256 is {digest.hexdigest()}, the "
            f"manifest says {artifact.sha256}; fetch it again"
        )
