"""Operators that draw results: that of one job, and those of several together."""

from __future__ import annotations

import pkgutil
from io import BytesIO
from typing import TYPE_CHECKING, Any

from airflow_ocean import parameters
from airflow_ocean.artifacts import (
    Artifact,
    Manifest,
    artifact_folder,
    check_integrity,
    open_artifact,
    path_segment,
)
from airflow_ocean.c2d.errors import InvalidInputError
from airflow_ocean.lineage import Lineage
from airflow_ocean.links import OceanArtifactsLink
from airflow_ocean.operators.base import OceanOptionalOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from airflow.sdk import BaseOperatorLink, Context

    from airflow_ocean.containers import ConfinedContainer

_LARGEST_PLOT = 100 * 1024 * 1024


class OceanPlotOperator(OceanOptionalOperator):
    """Draw a fetched result as a PNG beside the other artifacts.

    The result is decoded without executing anything that is in it, after its SHA-256 was compared with the manifest's.

    Returns the artifact URI of the PNG.

    :param manifest: (templated) URI of the manifest that
        :class:`~airflow_ocean.operators.results.OceanFetchResultsOperator` pushed
    :param render: the function that draws, as ``module.path:function``; called with the decoded result and a binary
        stream to write the PNG to
    :param render_options: (templated) further keyword arguments for it
    :param result_name: (templated) which of the job's output files to draw, by its name; needed when there are several
    :param plot_name: (templated) file name of the PNG
    :param render_in_docker: (templated) decode and draw in a container, without network and rights
    :param render_image: (templated) the container's image with its tag; it needs Python 3.11 or later, NumPy, and what
        the function imports from elsewhere than its own package
    :param docker_url: (templated) the engine; by default that of ``DOCKER_HOST``, or the worker's own
    :param artifact_base: (templated) see :class:`~airflow_ocean.operators.results.OceanFetchResultsOperator`
    :param ocean_conn_id: (templated) the connection, for its artifact base
    """

    template_fields: Sequence[str] = (
        *OceanOptionalOperator.template_fields,
        "manifest",
        "render_options",
        "result_name",
        "plot_name",
        "render_in_docker",
        "render_image",
        "docker_url",
        "artifact_base",
    )
    operator_extra_links: Collection[BaseOperatorLink] = (OceanArtifactsLink(),)

    def __init__(
        self,
        *,
        manifest: str,
        render: str,
        render_options: dict[str, Any] | None = None,
        result_name: str | None = None,
        plot_name: str = "plot.png",
        render_in_docker: bool | str = False,
        render_image: str | None = None,
        docker_url: str | None = None,
        artifact_base: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.manifest = manifest
        self.render = render
        self.render_options = render_options
        self.result_name = result_name
        self.plot_name = plot_name
        self.render_in_docker = render_in_docker
        self.render_image = render_image
        self.docker_url = docker_url
        self.artifact_base = artifact_base
        self._container: ConfinedContainer | None = None

    def execute(self, context: Context) -> str:
        """Draw the plot and return where it is."""
        self.skip_unless_enabled()
        from airflow_ocean.c2d.results import save_stream

        in_docker = parameters.boolean("render_in_docker", self.render_in_docker)
        draw = None if in_docker else self._renderer()
        result = self._result(Manifest.read(parameters.text("manifest", self.manifest)))
        check_integrity(result)
        picture = self._drawn_in_docker(context, result) if draw is None else self._drawn(result, draw)
        folder = artifact_folder(
            context,
            parameters.optional_text("artifact_base", self.artifact_base),
            self.hook.settings.artifact_base,
        )
        target = folder / path_segment(parameters.text("plot_name", self.plot_name))
        save_stream([picture], target, _LARGEST_PLOT)
        self.lineage = Lineage([result.uri], [str(target)])
        self.log.info("Drew the result %r as %s", result.name, target)
        return str(target)

    def on_kill(self) -> None:
        """Remove the container, if there is one."""
        if self._container is not None:
            self._container.on_kill()

    def _drawn(self, result: Artifact, draw: Callable[..., Any]) -> bytes:
        from airflow_ocean.c2d.results import decode_result

        options = self._options()
        with open_artifact(result.uri) as stream:
            decoded = decode_result(stream, result.name)
        picture = BytesIO()
        try:
            draw(decoded.value, picture, **options)
        except (TypeError, ValueError) as error:
            raise InvalidInputError(f"{self.render} cannot draw the result {result.uri}: {error}") from error
        return picture.getvalue()

    def _drawn_in_docker(self, context: Context, result: Artifact) -> bytes:
        from airflow_ocean.c2d.decoding import DEFAULT_MAX_BYTES
        from airflow_ocean.rendering import draw_in_container, render_container

        if result.size > DEFAULT_MAX_BYTES:
            raise InvalidInputError(
                f"the result {result.uri} has {result.size} bytes; {DEFAULT_MAX_BYTES} can be drawn"
            )
        docker_url = parameters.optional_text("docker_url", self.docker_url)
        image = parameters.text("render_image", self.render_image)
        self._container = render_container(image, docker_url)
        with open_artifact(result.uri) as stream:
            return draw_in_container(
                self._container,
                context,
                stream.read(),
                name=result.name,
                render=parameters.text("render", self.render),
                options=self._options(),
                largest=_LARGEST_PLOT,
            )

    def _options(self) -> dict[str, Any]:
        return dict(parameters.json_object("render_options", self.render_options) or {})

    def _renderer(self) -> Callable[..., Any]:
        try:
            draw = pkgutil.resolve_name(parameters.text("render", self.render))
        except (ImportError, AttributeError, ValueError) as error:
            raise InvalidInputError(
                f"render {self.render!r} cannot be imported: {error}; it must be module.path:function, and its folder "
                "on the PYTHONPATH of the worker"
            ) from error
        if not callable(draw):
            raise InvalidInputError(f"render {self.render!r} is not a function")
        found: Callable[..., Any] = draw
        return found

    def _result(self, manifest: Manifest) -> Artifact:
        wanted = parameters.optional_text("result_name", self.result_name)
        outputs = [file for file in manifest.files if file.type == "output" and wanted in (None, file.name)]
        if len(outputs) != 1:
            names = ", ".join(repr(file.name) for file in manifest.files if file.type == "output")
            raise InvalidInputError(
                f"job {manifest.job_id} has the output files {names or 'none'}; result_name must name one of them, "
                f"it is {wanted!r}"
            )
        return outputs[0]


class OceanPlotSeveralOperator(OceanPlotOperator):
    """Draw the fetched results of several jobs in one PNG, those of the tasks that succeeded.

    Returns the artifact URI of the PNG.

    :param manifest: (templated) URIs of the manifests that :class:`~airflow_ocean.operators.results.OceanFetchResultsOperator`
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
        self.skip_unless_enabled()
        from airflow_ocean.c2d.results import decode_result, save_stream

        if parameters.boolean("render_in_docker", self.render_in_docker):
            raise InvalidInputError(
                "render_in_docker is for one result; several are drawn on the worker only"
            )
        draw = self._renderer()
        results: list[tuple[str, Any]] = []
        read: list[str] = []
        for uri in self._uris(self.manifest):
            manifest = Manifest.read(parameters.text("manifest", uri))
            result = self._result(manifest)
            check_integrity(result)
            with open_artifact(result.uri) as stream:
                decoded = decode_result(stream, result.name)
            results.append((manifest.label or manifest.job_id, decoded.value))
            read.append(result.uri)
        if not results:
            raise InvalidInputError("there is no manifest to plot the result of; did all jobs fail?")
        options = self._options()
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
        save_stream([picture.getvalue()], target, _LARGEST_PLOT)
        self.lineage = Lineage(read, [str(target)])
        self.log.info("Drew %d results as %s", len(results), target)
        return str(target)

    @staticmethod
    def _uris(given: Any) -> Iterable[str]:
        if isinstance(given, str):
            # Airflow hands over what a single mapped task pushed as it is, and not as a list of one.
            return (
                parameters.json_list("manifest", given) or [] if given.lstrip().startswith("[") else [given]
            )
        return [uri for uri in given or [] if uri]
