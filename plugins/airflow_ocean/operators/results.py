"""The operator that fetches the results of a compute job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_ocean import parameters
from airflow_ocean.artifacts import MANIFEST_NAME, Manifest, artifact_folder
from airflow_ocean.assets import tell_outlets
from airflow_ocean.c2d.errors import InvalidInputError, JobFailedError
from airflow_ocean.journal import TaskStateJournal
from airflow_ocean.lineage import Lineage
from airflow_ocean.links import OceanArtifactsLink, OceanJobLink
from airflow_ocean.operators.base import OceanBaseOperator

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from airflow.sdk import BaseOperatorLink, Context

    from airflow_ocean.c2d.jobs import Job, ResultFile
    from airflow_ocean.fetching import ResultFetcher

_MEGABYTE = 1024 * 1024


class OceanFetchResultsOperator(OceanBaseOperator):
    """Fetch the results of a compute job that is over, streamed into the artifact base.

    Returns the list of artifact URIs in the job's order; pushes the URI of the ``manifest``, a JSON file that says of
    each its name, type, size and SHA-256. The archive of all outputs that an Ocean Node gives is unpacked: each file in it
    is one of those results; one in a folder has the folder in its name. A retry fetches only what is not there yet, whole
    and unchanged. The events of its Airflow outlets have ``job_id``, ``manifest`` and ``artifacts`` in their extra.

    :param job_id: (templated) the job
    :param provider_url: (templated) the Provider that ran it, the connection's own by default
    :param cost: (templated) what the job cost, for the manifest: what
        :class:`~airflow_ocean.operators.compute.OceanPayForComputeOperator` pushed as ``cost``
    :param include_logs: fetch the logs, too, not only what the algorithm wrote
    :param result_label: (templated) what tells the job from others, for the manifest
    :param max_bytes: (templated) the most one file may have, and all together
    :param max_files: (templated) the most files and folders that an Ocean Node's archive of outputs may have
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
        "max_files",
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
        max_files: int | str = 1000,
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
        self.max_files = max_files
        self.artifact_base = artifact_base

    def execute(self, context: Context) -> list[str]:
        """Fetch the results and return where they are."""
        from airflow_ocean.c2d.jobs import OUTPUT
        from airflow_ocean.fetching import ResultFetcher

        job_id = parameters.text("job_id", self.job_id)
        provider_url = parameters.optional_url("provider_url", self.provider_url)
        cost = parameters.json_object("cost", self.cost)
        label = parameters.optional_text("result_label", self.result_label)
        max_bytes = parameters.whole_number("max_bytes", self.max_bytes, least=1, most=10**15)
        max_files = parameters.whole_number("max_files", self.max_files, least=1, most=10**6)
        folder = artifact_folder(
            context,
            parameters.optional_text("artifact_base", self.artifact_base),
            self.hook.settings.artifact_base,
        )
        with self.hook.get_client() as client:
            job = client.jobs.get(job_id, provider_url)
            wanted = self._wanted(job, max_bytes, max_files)
            fetcher = ResultFetcher(
                client.jobs, job, folder, TaskStateJournal(context), max_bytes, max_files, provider_url
            )
            files = fetcher.fetch(wanted)
            if not any(file.size for file in files if file.type == OUTPUT):
                raise JobFailedError(self._no_output(fetcher))
        content = Manifest(job.id, job.algorithm_did, list(job.dataset_dids), files, cost, label)
        manifest = content.write(folder / MANIFEST_NAME)
        inputs = [*job.dataset_dids, *([job.algorithm_did] if job.algorithm_did else [])]
        self.lineage = Lineage(inputs, [file.uri for file in files], job.id)
        context["ti"].xcom_push("manifest", manifest)
        artifacts = [file.uri for file in files]
        extra = {"job_id": job.id, "manifest": manifest, "artifacts": artifacts}
        tell_outlets(context, self.outlets, extra)
        return artifacts

    def _wanted(self, job: Job, max_bytes: int, max_files: int) -> list[ResultFile]:
        from airflow_ocean.c2d.job_files import most_headers

        if not job.is_finished:
            raise InvalidInputError(
                f"{job.describe()}; its results are there when it is over: wait for it first"
            )
        if not job.succeeded:
            raise JobFailedError(f"{job.describe()}; it has no results to fetch")
        wanted = [file for file in job.results if self.include_logs or file in job.outputs]
        # Of an archive nobody knows beforehand how much is no content; the reader counts.
        headers = sum(most_headers(max_files) for file in wanted if file.archive)
        announced = sum(file.size for file in wanted)
        if announced > max_bytes + headers:
            raise InvalidInputError(
                f"job {job.id} has {announced} bytes of results, more than max_bytes, which is {max_bytes}; "
                "raise it to fetch them. Nothing was fetched"
            )
        return wanted

    def _no_output(self, fetcher: ResultFetcher) -> str:
        from airflow_ocean.c2d.result_errors import shown

        job, left_out = fetcher.job, fetcher.left_out
        names = ", ".join(shown(name) for name in left_out[:20])
        found = f"; what is there is no plain file: {names}" if left_out else ""
        log = fetcher.jobs.log_tail(job, fetcher.provider_url)
        return f"job {job.id} ended well, but its algorithm wrote nothing to /data/outputs{found}; " + (
            f"the end of its log:\n{log}" if log else "it left no log"
        )
