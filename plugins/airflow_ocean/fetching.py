"""Bringing a job's results into a task's folder: each file whole or not at all, and once for all tries of the task."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from airflow_ocean.artifacts import Artifact, check_integrity, save_output
from airflow_ocean.c2d.errors import InvalidInputError
from airflow_ocean.c2d.job_files import Outputs
from airflow_ocean.c2d.result_errors import ResultTooLargeError, UndecodableResultError, shown
from airflow_ocean.c2d.results import artifact_name, save_stream

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow.sdk import ObjectStoragePath

    from airflow_ocean.c2d.jobs import Job, Jobs, ResultFile
    from airflow_ocean.c2d.journal import Journal

logger = logging.getLogger(__name__)


@dataclass
class ResultFetcher:
    """Fetches results of one job; what an earlier attempt fetched and is still there unchanged is not fetched again.

    An archive of outputs is unpacked while it is read, as if each file in it had been a result of its own.

    :param jobs: where the job is read
    :param folder: where the files go
    :param journal: where each file that is in its place is written down
    :param max_bytes: of all files together
    :param max_files: entries of an archive
    :param provider_url: the Provider that ran the job, the connection's own by default
    :param left_out: names of entries of archives that are no plain files, filled while fetching
    """

    jobs: Jobs
    job: Job
    folder: ObjectStoragePath
    journal: Journal
    max_bytes: int
    max_files: int
    provider_url: str | None = None
    left_out: list[str] = field(default_factory=list)

    def fetch(self, results: Iterable[ResultFile]) -> list[Artifact]:
        """Fetch results and return the files they are, in their order.

        :raises ResultTooLargeError: there is more than allowed; the files before that stay
        :raises UndecodableResultError: an archive is damaged
        """
        artifacts: list[Artifact] = []
        for result in results:
            left = self.max_bytes - sum(artifact.size for artifact in artifacts)
            try:
                artifacts += self._unpacked(result, left) if result.archive else [self._whole(result, left)]
            except (ResultTooLargeError, UndecodableResultError) as error:
                raise type(error)(f"Fetching {shown(result.name)} of job {self.job.id}: {error}") from error
        return artifacts

    def _whole(self, result: ResultFile, max_bytes: int) -> Artifact:
        step = f"fetch result {result.index} of {self.job.id}"
        kept = self._kept(step, str(result.index), result.type, result.name)
        if kept is not None:
            return kept
        target = self._target(result.name, str(result.index))
        with self.jobs.open_result(self.job.id, result.index, self.provider_url) as stream:
            saved = save_stream(stream.chunks, target, max_bytes)
        return self._keep(step, Artifact(result.name, str(target), result.type, saved.size, saved.sha256))

    def _unpacked(self, result: ResultFile, max_bytes: int) -> list[Artifact]:
        step = f"unpack result {result.index} of {self.job.id}"
        unpacked = self.journal.load(step)
        if unpacked is not None:
            kept = [self._kept_part(step, result, number) for number in range(unpacked["files"])]
            if None not in kept:
                self.left_out += unpacked["left_out"]
                return [artifact for artifact in kept if artifact is not None]
        artifacts: list[Artifact] = []
        earlier: dict[str, Artifact] = {}
        with self.jobs.open_result(self.job.id, result.index, self.provider_url) as stream:
            outputs = Outputs(stream.chunks, max_bytes, self.max_files, nested=True)
            for number, output in enumerate(outputs):
                artifact = self._kept_part(step, result, number, output.name)
                if artifact is None:
                    target = self._target(output.name, _part(result, number))
                    artifact = save_output(output, result.type, target, max_bytes, earlier)
                    self._keep(f"{step}: file {number}", artifact)
                artifacts.append(artifact)
                earlier[output.name] = artifact
        if outputs.left_out:
            names = ", ".join(shown(name) for name in outputs.left_out[:20])
            logger.warning(
                "%d entries of %r are no plain files: %s", len(outputs.left_out), result.name, names
            )
        self.left_out += outputs.left_out
        self.journal.save(step, {"files": len(artifacts), "left_out": outputs.left_out[:20]})
        return artifacts

    def _target(self, name: str, number: str) -> ObjectStoragePath:
        # Folders within an archive become part of the name.
        return self.folder / artifact_name(name.replace("/", "_"), number)

    def _kept_part(
        self, step: str, result: ResultFile, number: int, name: str | None = None
    ) -> Artifact | None:
        return self._kept(f"{step}: file {number}", _part(result, number), result.type, name)

    def _kept(self, step: str, number: str, kind: str, name: str | None) -> Artifact | None:
        """Return a file that an earlier attempt fetched, when it is still there as it was put down then.

        :param name: what it has to be called, None for whatever it was
        """
        try:
            artifact = Artifact(**(self.journal.load(step) or {}))
        except TypeError:
            return None
        expected = (name or artifact.name, str(self._target(artifact.name, number)), kind)
        if (artifact.name, artifact.uri, artifact.type) != expected:
            return None
        try:
            check_integrity(artifact)
        except InvalidInputError as error:
            logger.info("Fetching %s %r again: %s", artifact.type, artifact.name, error)
            return None
        logger.info("An earlier attempt fetched %s %r, %d bytes", kind, artifact.name, artifact.size)
        return artifact

    def _keep(self, step: str, artifact: Artifact) -> Artifact:
        logger.info(
            "Fetched %s %r, %d bytes, to %s", artifact.type, artifact.name, artifact.size, artifact.uri
        )
        self.journal.save(step, asdict(artifact))
        return artifact


def _part(result: ResultFile, number: int) -> str:
    return f"{result.index}.{number}"
