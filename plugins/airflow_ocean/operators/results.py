"""The operator that fetches the results of a compute job."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow_ocean import parameters
from airflow_ocean.artifacts import (
    MANIFEST_NAME,
    Artifact,
    Manifest,
    artifact_folder,
    check_integrity,
)
from airflow_ocean.assets import tell_outlets
from airflow_ocean.c2d.errors import InvalidInputError, JobFailedError
from airflow_ocean.journal import TaskStateJournal
from airflow_ocean.lineage import Lineage
from airflow_ocean.links import OceanArtifactsLink, OceanJobLink
from airflow_ocean.operators.base import OceanBaseOperator

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from airflow.sdk import BaseOperatorLink, Context, ObjectStoragePath

    from airflow_ocean.c2d.client import OceanClient
    from airflow_ocean.c2d.jobs import Job, ResultFile

_MEGABYTE = 1024 * 1024


class OceanFetchResultsOperator(OceanBaseOperator):
    """Fetch the results of a compute job that is over, streamed into the artifact base.

    Returns the list of artifact URIs in the job's order; pushes the URI of the ``manifest``, a JSON file that says of
    each its name, type, size and SHA-256. A retry fetches only what is not there yet, whole and unchanged. The events of
    its Airflow outlets have ``job_id``, ``manifest`` and ``artifacts`` in their extra.

    :param job_id: (templated) the job
    :param provider_url: (templated) the Provider that ran it, the connection's own by default
    :param cost: (templated) what the job cost, for the manifest: what
        :class:`~airflow_ocean.operators.compute.OceanPayForComputeOperator` pushed as ``cost``
    :param include_logs: fetch the logs, too, not only what the algorithm wrote
    :param result_label: (templated) what tells the job from others, for the manifest
    :param max_bytes: (templated) the most one file may have, and all together
    :param artifact_base: (templated) folder or object storage URL to keep results below; by default the connection's,
        else that of the environment variable ``AIRFLOW_OCEAN_ARTIFACTS``, else ``<AIRFLOW_HOME>/artifacts``
    :param ocean_conn_id: (templated) the connection of the wallet that started the job
    """

    template_fields: Sequence[str] = (
        *OceanBaseOperator.template_fields,
        "job_id",
        "provider_url",
        "cost",
        "result_label",
        "max_bytes",
        "artifact_base",
    )
    operator_extra_links: Collection[BaseOperatorLink] = (OceanJobLink(), OceanArtifactsLink())

    def __init__(
        self,
        *,
        job_id: str,
        provider_url: str | None = None,
        cost: dict[str, Any] | str | None = None,
        result_label: str | None = None,
        include_logs: bool = True,
        max_bytes: int | str = 1024 * _MEGABYTE,
        artifact_base: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_id = job_id
        self.provider_url = provider_url
        self.cost = cost
        self.result_label = result_label
        self.include_logs = parameters.boolean("include_logs", include_logs)
        self.max_bytes = max_bytes
        self.artifact_base = artifact_base

    def execute(self, context: Context) -> list[str]:
        """Fetch the results and return where they are."""
        from airflow_ocean.c2d.results import artifact_name

        job_id = parameters.text("job_id", self.job_id)
        provider_url = parameters.optional_url("provider_url", self.provider_url)
        cost = parameters.json_object("cost", self.cost)
        label = parameters.optional_text("result_label", self.result_label)
        max_bytes = parameters.whole_number("max_bytes", self.max_bytes, least=1, most=10**15)
        folder = artifact_folder(
            context,
            parameters.optional_text("artifact_base", self.artifact_base),
            self.hook.settings.artifact_base,
        )
        journal = TaskStateJournal(context)
        with self.hook.get_client() as client:
            job = client.jobs.get(job_id, provider_url)
            files = []
            for file in self._wanted(job, max_bytes):
                target = folder / artifact_name(file.name, file.index)
                step = f"fetch result {file.index} of {job.id}"
                artifact = self._kept(journal.load(step), file, target)
                if artifact is None:
                    artifact = self._fetch(client, job, file, target, max_bytes, provider_url)
                    journal.save(step, asdict(artifact))
                files.append(artifact)
        content = Manifest(job.id, job.algorithm_did, list(job.dataset_dids), files, cost, label)
        manifest = content.write(folder / MANIFEST_NAME)
        inputs = [*job.dataset_dids, *([job.algorithm_did] if job.algorithm_did else [])]
        self.lineage = Lineage(inputs, [file.uri for file in files], job.id)
        context["ti"].xcom_push("manifest", manifest)
        artifacts = [file.uri for file in files]
        extra = {"job_id": job.id, "manifest": manifest, "artifacts": artifacts}
        tell_outlets(context, self.outlets, extra)
        return artifacts

    def _wanted(self, job: Job, max_bytes: int) -> list[ResultFile]:
        if not job.is_finished:
            raise InvalidInputError(
                f"{job.describe()}; its results are there when it is over: wait for it first"
            )
        if not job.succeeded:
            raise JobFailedError(f"{job.describe()}; it has no results to fetch")
        wanted = [file for file in job.results if self.include_logs or file in job.outputs]
        announced = sum(file.size for file in wanted)
        if announced > max_bytes:
            raise InvalidInputError(
                f"job {job.id} has {announced} bytes of results, more than max_bytes, which is {max_bytes}; "
                "raise it to fetch them. Nothing was fetched"
            )
        return wanted

    def _kept(
        self, entry: dict[str, Any] | None, file: ResultFile, target: ObjectStoragePath
    ) -> Artifact | None:
        """Return a file that an earlier attempt fetched, when it is still there as it was put down then."""
        if entry is None:
            return None
        try:
            artifact = Artifact(**entry)
        except TypeError:
            return None
        if (artifact.name, artifact.uri, artifact.type) != (file.name, str(target), file.type):
            return None
        try:
            check_integrity(artifact)
        except InvalidInputError as error:
            self.log.info("Fetching %s %r again: %s", file.type, file.name, error)
            return None
        self.log.info("An earlier attempt fetched %s %r, %d bytes", file.type, file.name, artifact.size)
        return artifact

    def _fetch(
        self,
        client: OceanClient,
        job: Job,
        file: ResultFile,
        target: ObjectStoragePath,
        max_bytes: int,
        provider_url: str | None,
    ) -> Artifact:
        from airflow_ocean.c2d.results import save_stream

        with client.jobs.open_result(job.id, file.index, provider_url) as stream:
            saved = save_stream(stream.chunks, target, max_bytes)
        self.log.info("Fetched %s %r, %d bytes, to %s", file.type, file.name, saved.size, target)
        return Artifact(name=file.name, uri=str(target), type=file.type, size=saved.size, sha256=saved.sha256)
