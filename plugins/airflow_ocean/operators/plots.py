"""The operator that draws the results of several jobs together."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

from airflow_ocean import parameters
from airflow_ocean.artifacts import Manifest, artifact_folder, check_integrity, open_artifact, path_segment
from airflow_ocean.c2d.errors import InvalidInputError
from airflow_ocean.operators.compute import LARGEST_PLOT, OceanPlotOperator

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow.sdk import Context


class OceanPlotSeveralOperator(OceanPlotOperator):
    """Draw the fetched results of several jobs in one PNG, those of the tasks that succeeded.

    Returns the artifact URI of the PNG.

    :param manifest: (templated) URIs of the manifests that :class:`~airflow_ocean.operators.compute.OceanFetchResultsOperator`
        pushed, e.g. of all members of a mapped task group; those of failed members are not there
    :param render: the function that draws, as ``module.path:function``; called with a list of pairs of label and decoded
        result and a binary stream to write the PNG to. The label is the manifest's, else the job's id
    :param expected: (templated) how many results there would be if no job had failed; handed to ``render`` as ``missing``,
        the number that is not there
    """

    template_fields: Sequence[str] = (*OceanPlotOperator.template_fields, "expected")

    def __init__(self, *, manifest: Any, expected: int | str | None = None, **kwargs: Any) -> None:
        super().__init__(manifest=manifest, **kwargs)
        self.expected = expected

    def execute(self, context: Context) -> str:
        """Draw the plot and return where it is."""
        from airflow_ocean.c2d.results import decode_result, save_stream

        if parameters.boolean("render_in_docker", self.render_in_docker):
            raise InvalidInputError(
                "render_in_docker is for one result; several are drawn on the worker only"
            )
        draw = self._renderer()
        results = []
        for uri in self._uris(self.manifest):
            manifest = Manifest.read(parameters.text("manifest", uri))
            result = self._result(manifest)
            check_integrity(result)
            with open_artifact(result.uri) as stream:
                decoded = decode_result(stream, result.name)
            results.append((manifest.label or manifest.job_id, decoded.value))
        if not results:
            raise InvalidInputError("there is no manifest to plot the result of; did all jobs fail?")
        options = dict(self.render_options or {})
        if self.expected is not None:
            expected = parameters.whole_number("expected", self.expected, least=0, most=10**6)
            options["missing"] = max(expected - len(results), 0)
        folder = artifact_folder(
            context,
            parameters.optional_text("artifact_base", self.artifact_base),
            self.hook.settings.artifact_base,
        )
        target = folder / path_segment(parameters.text("plot_name", self.plot_name))
        picture = BytesIO()
        try:
            draw(results, picture, **options)
        except (TypeError, ValueError) as error:
            raise InvalidInputError(
                f"{self.render} cannot draw the {len(results)} results: {error}"
            ) from error
        save_stream([picture.getvalue()], target, LARGEST_PLOT)
        self.log.info("Drew %d results as %s", len(results), target)
        return str(target)

    @staticmethod
    def _uris(given: Any) -> Iterable[str]:
        if isinstance(given, str):
            return parameters.json_list("manifest", given) or []
        return [uri for uri in given or [] if uri]
