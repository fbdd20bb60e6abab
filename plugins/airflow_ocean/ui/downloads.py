"""Which files of a run may be read through the UI, and reading them: only its own, and only below an artifact base."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.models.connection import Connection
from airflow.sdk import ObjectStoragePath
from sqlalchemy import select

from airflow_ocean.artifacts import (
    BASE_VARIABLE,
    Artifact,
    Manifest,
    base_uri,
    default_base,
    open_artifact,
    path_segment,
)
from airflow_ocean.c2d.errors import InvalidInputError
from airflow_ocean.c2d.jobs import LOG_TYPES, OUTPUT
from airflow_ocean.ui.records import RETURN_VALUE

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from airflow_ocean.ui.records import RunRecord, TaskRecord

LARGEST_PICTURE = 20 * 1024 * 1024
_LARGEST_MANIFEST = 5 * 1024 * 1024
_PNG = b"\x89PNG\r\n\x1a\n"
_KINDS = {
    OUTPUT: "result",
    "imageLog": "log of getting the image",
    "configrationLog": "log of getting the inputs",
    "configurationLog": "log of getting the inputs",
    "algorithmLog": "algorithm's log",
    "publishLog": "log of publishing the results",
}
_ODD = re.compile(r"[\x00-\x1f\x7f\\]|%2[eEfF]")


class NotServedError(Exception):
    """A file is not given out; the message says why."""


@dataclass(frozen=True)
class Listed:
    """A file that a task's manifest lists.

    :param number: its place in the manifest, by which it is asked for
    :param kind: what it is, in words
    """

    number: int
    artifact: Artifact
    kind: str

    @property
    def is_log(self) -> bool:
        """Whether it is one of the job's logs."""
        return self.artifact.type in LOG_TYPES


@dataclass(frozen=True)
class Fetched:
    """What a task fetched.

    :param cost: what was spent for it, as far as the manifest tells
    :param problem: why the manifest cannot be shown, empty when it can
    """

    task: TaskRecord
    job_id: str
    files: list[Listed]
    cost: dict[str, Any] | None = None
    problem: str = ""


def artifact_bases(session: Session) -> list[str]:
    """Return the URIs of all artifact bases that this API server knows of.

    These are its own (``AIRFLOW_OCEAN_ARTIFACTS``, else the default) and those of the connections in the database.
    """
    bases = [os.environ.get(BASE_VARIABLE) or default_base()]
    for connection in session.scalars(select(Connection).where(Connection.conn_type == "ocean")):
        base = connection.extra_dejson.get("artifact_base")
        if isinstance(base, str) and base.strip():
            bases.append(base.strip())
    return [base_uri(base) for base in bases]


class Files:
    """The files of one run.

    :param bases: the artifact bases, as URIs
    """

    def __init__(self, run: RunRecord, bases: list[str]) -> None:
        self._run = run
        self._bases = bases

    def check(self, task: TaskRecord, uri: str) -> str:
        """Return a URI that may be read.

        :raises NotServedError: when it is not a file of this task directly in the task's folder below an artifact base
        """
        if _ODD.search(uri):
            raise NotServedError("its address has characters that no artifact has")
        base = next((base for base in self._bases if uri.startswith(f"{base}/")), None)
        if base is None:
            raise NotServedError(
                "it is kept outside of the artifact bases that the API server knows: those of the Ocean connections in "
                f"Airflow's database, and {BASE_VARIABLE} in the API server's environment"
            )
        *folder, name = uri.removeprefix(f"{base}/").split("/")
        ids = [self._run.dag_id, self._run.run_id, task.task_id]
        ids += [] if task.map_index < 0 else [str(task.map_index)]
        if folder != [path_segment(text) for text in ids] or name in ("", ".", ".."):
            raise NotServedError("it is not in the folder of this task")
        if uri.startswith("file://"):
            # A link below the base may lead anywhere.
            real, root = (os.path.realpath(text.removeprefix("file://")) for text in (uri, base))
            if os.path.commonpath([real, root]) != root:
                raise NotServedError("it leads out of the artifact base")
        return uri

    def fetched(self, task: TaskRecord) -> Fetched:
        """Read what a task fetched."""
        try:
            manifest = self._manifest(task)
            listed = [
                Listed(
                    number,
                    artifact,
                    _KINDS.get(artifact.type, "log" if artifact.type in LOG_TYPES else "file"),
                )
                for number, artifact in enumerate(manifest.files)
            ]
            return Fetched(task, manifest.job_id, listed, manifest.cost)
        except NotServedError as error:
            return Fetched(task, "", [], problem=f"The list of files is not shown: {error}.")
        except (InvalidInputError, OSError, ValueError, ImportError) as error:
            return Fetched(task, "", [], problem=f"The list of files cannot be read: {error}")

    def artifact(self, task: TaskRecord, number: int) -> Artifact:
        """Return a file that a task's manifest lists.

        :raises NotServedError: when the manifest has no such file, or the file must not be read
        """
        try:
            files = self._manifest(task).files
        except InvalidInputError as error:
            raise NotServedError(str(error)) from error
        if not 0 <= number < len(files):
            raise NotServedError("the manifest lists no such file")
        self.check(task, files[number].uri)
        return files[number]

    def _manifest(self, task: TaskRecord) -> Manifest:
        uri = self.check(task, task.text("manifest") or "")
        try:
            size = ObjectStoragePath(uri).stat().st_size
        except FileNotFoundError:
            size = 0  # reading it says what is wrong
        if size > _LARGEST_MANIFEST:
            raise NotServedError(f"{uri} is too large for a manifest")
        manifest = Manifest.read(uri)
        if not all(_is_whole(artifact) for artifact in manifest.files):
            raise InvalidInputError(f"{uri} is not a manifest of fetched results")
        return manifest

    def picture(self, task: TaskRecord) -> bytes:
        """Return the plot that a task drew.

        :raises NotServedError: when there is none, or it is something else than a PNG of a usual size
        """
        uri = self.check(task, task.text(RETURN_VALUE) or "")
        with open_artifact(uri) as stream:
            content = stream.read(LARGEST_PICTURE + 1)
        if not content.startswith(_PNG):
            raise NotServedError("it is no PNG")
        if len(content) > LARGEST_PICTURE:
            raise NotServedError("it is too large to be shown")
        return content

    def tail(self, task: TaskRecord, artifact: Artifact, most: int) -> str:
        """Return the end of a text file, from the beginning of a line.

        :param most: bytes
        """
        with open_artifact(self.check(task, artifact.uri)) as stream:
            stream.seek(max(artifact.size - most, 0))
            text = stream.read(most).decode(errors="replace")
        return text if artifact.size <= most else text.partition("\n")[2] or text


def _is_whole(artifact: Any) -> bool:
    texts = (artifact.name, artifact.uri, artifact.type, artifact.sha256)
    return all(isinstance(text, str) for text in texts) and type(artifact.size) is int
