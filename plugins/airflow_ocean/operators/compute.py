"""Operators of a compute run: pay, start, stop, fetch the results, plot them."""

from __future__ import annotations

import json
import pkgutil
from dataclasses import asdict
from io import BytesIO
from typing import TYPE_CHECKING, Any

from airflow_ocean import metrics, parameters
from airflow_ocean.artifacts import (
    MANIFEST_NAME,
    Artifact,
    Manifest,
    artifact_folder,
    check_integrity,
    open_artifact,
    path_segment,
)
from airflow_ocean.assets import OCEAN_ORDERS, order_book, tell_outlets
from airflow_ocean.c2d.errors import InvalidInputError, JobFailedError, OrderInUseError
from airflow_ocean.journal import TaskStateJournal
from airflow_ocean.lineage import Lineage
from airflow_ocean.links import OceanArtifactsLink, OceanJobLink, OceanTransactionLink
from airflow_ocean.operators.base import OceanBaseOperator, OceanStepOperator
from airflow_ocean.operators.waiting import defer_until_free

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from airflow.sdk import BaseOperatorLink, Context, ObjectStoragePath

    from airflow_ocean.c2d.client import OceanClient
    from airflow_ocean.c2d.jobs import Job, ResultFile
    from airflow_ocean.containers import ConfinedContainer

_DAY = 24 * 3600
_LONGEST_DURATION = 366 * 24 * 3600
_MEGABYTE = 1024 * 1024
LARGEST_PLOT = 100 * _MEGABYTE


class OceanPayForComputeOperator(OceanStepOperator):
    """Order the datasets and the algorithm of a compute job, and pay the Provider's fee.

    Each new order costs one datatoken of its asset; if the wallet holds none it is taken from the asset's dispenser or
    bought at its fixed rate, where it has one.

    With ``reuse_orders``, orders are kept in the state store of the Airflow asset ``ocean_orders``, which becomes an inlet
    of the task, and are used again: one that is still good costs nothing, one whose fee's time is over is renewed, and
    only what has expired is ordered anew. An order serves one unfinished job at a time.

    Returns the list of order transaction ids, datasets first; pushes ``order``, which
    :class:`OceanStartComputeOperator` takes, ``cost``, and for people ``assets``, their names and datatokens, and
    ``tokens``, the symbol and decimals of each token that was paid with.

    :param dataset_dids: (templated) the datasets: a DID, a list of them, or its JSON text
    :param algorithm_did: (templated) the algorithm
    :param environment: (templated) where to compute: ``free``, ``cheapest``, or an environment's id
    :param duration: (templated) seconds the environment is paid for; with ``reuse_orders`` a time that several runs fall
        into costs one payment
    :param reuse_orders: use orders again, and keep the new ones for later runs
    :param when_in_use: (templated) what to do with ``reuse_orders`` when an unfinished job has the order that would be used:
        ``wait`` until it is over, deferred, or ``order_anew``, pay for another order
    :param most_orders: (templated) of how many orders to have unfinished jobs at once when ordering anew; beyond that the
        task waits. It so limits how many jobs of the algorithm (in a paid environment: on the first dataset) run at once
    :param order_wait: (templated) seconds to wait for an order altogether
    :param approve_payments: (templated) for how many payments like this one to approve the tokens that pay, when they have
        to be approved. 1, the default, approves exactly what is due; more leaves a standing approval for the datatoken's
        contract, and saves later payments a transaction
    :param max_cost: (templated) the most that prices, fees and gas may be: an amount in whole tokens that holds for each
        token that pays, or an object of token address (or ``*``, or ``gas``) → amount, or its JSON text
    :param ocean_conn_id: (templated) the consumer's connection
    """

    template_fields: Sequence[str] = (
        *OceanStepOperator.template_fields,
        "dataset_dids",
        "algorithm_did",
        "environment",
        "duration",
        "when_in_use",
        "most_orders",
        "order_wait",
        "approve_payments",
    )
    operator_extra_links: Collection[BaseOperatorLink] = (OceanTransactionLink(),)

    def __init__(
        self,
        *,
        dataset_dids: list[str] | str,
        algorithm_did: str,
        environment: str = "free",
        duration: int | str = 3600,
        reuse_orders: bool = False,
        when_in_use: str = "wait",
        most_orders: int | str = 16,
        order_wait: int | str = _DAY,
        approve_payments: int | str = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if reuse_orders:
            # Airflow hands out the state stores of a task's inlets and outlets only.
            self.add_inlets([OCEAN_ORDERS])
        self.reuse_orders = reuse_orders
        self.when_in_use = when_in_use
        self.most_orders = most_orders
        self.approve_payments = approve_payments
        self.order_wait = order_wait
        self.dataset_dids = dataset_dids
        self.algorithm_did = algorithm_did
        self.environment = environment
        self.duration = duration

    def execute(self, context: Context) -> list[str]:
        """Pay, and return the order transaction ids."""
        datasets = parameters.dids("dataset_dids", self.dataset_dids)
        algorithm = parameters.did("algorithm_did", self.algorithm_did)
        environment = parameters.text("environment", self.environment)
        duration = parameters.whole_number("duration", self.duration, least=1, most=_LONGEST_DURATION)
        when_in_use = parameters.choice("when_in_use", self.when_in_use, ("wait", "order_anew"))
        approve_payments = parameters.whole_number(
            "approve_payments", self.approve_payments, least=1, most=10**6
        )
        most_orders = parameters.whole_number("most_orders", self.most_orders, least=1, most=64)
        order_wait = parameters.whole_number("order_wait", self.order_wait, least=0, most=_LONGEST_DURATION)
        try:
            with self.client(context) as client:
                if self.reuse_orders:
                    order = order_book(client, context).pay(
                        datasets,
                        algorithm,
                        environment=environment,
                        duration=duration,
                        most_orders=1 if when_in_use == "wait" else most_orders,
                        approve_payments=approve_payments,
                    )
                else:
                    quote = client.orders.quote(
                        datasets, algorithm, environment=environment, duration=duration
                    )
                    order = client.orders.pay(quote, approve_payments=approve_payments)
                tokens = client.datatokens.units(order.cost["tokens"])
                metrics.orders_paid(order.transactions, client.transactions.mined)
        except OrderInUseError as error:
            defer_until_free(self, context, error, order_wait, "go_on")
        self.lineage = Lineage(inputs=[*datasets, algorithm], cost=order.cost)
        self.note_explorer_pages(transactions=order.transactions)
        # By way of its text, as an XCom keeps tuples as objects of Airflow's own and not as plain JSON.
        context["ti"].xcom_push("order", json.loads(json.dumps(order.to_dict())))
        context["ti"].xcom_push("cost", order.cost)
        context["ti"].xcom_push("assets", order.assets())
        context["ti"].xcom_push("tokens", tokens)
        return list(order.transactions)

    def go_on(self, context: Context, event: Any) -> list[str]:
        """Try again after a wait; whatever the job's end was, its order is free."""
        return self.execute(context)


class OceanStartComputeOperator(OceanStepOperator):
    """Start a compute job on a paid order.

    Returns the job id; pushes ``provider_url`` and ``consumer_address``, with which anybody may ask how the job is.

    :param order: (templated) what :class:`OceanPayForComputeOperator` pushed as ``order``
    :param custom_data: (templated) parameters for the algorithm, a JSON object or its text; it finds them in
        ``/data/inputs/algoCustomData.json``
    :param wait_for_order: when another unfinished job has the order, wait until it is over, deferred, and start then;
        otherwise the task is retried like after any error that may pass
    :param order_wait: (templated) seconds to wait for the order altogether
    :param ocean_conn_id: (templated) the consumer's connection
    """

    template_fields: Sequence[str] = (
        *OceanStepOperator.template_fields,
        "order",
        "custom_data",
        "order_wait",
    )
    operator_extra_links: Collection[BaseOperatorLink] = (OceanJobLink(),)

    def __init__(
        self,
        *,
        order: dict[str, Any] | str,
        custom_data: dict[str, Any] | str | None = None,
        wait_for_order: bool = False,
        order_wait: int | str = _DAY,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.order = order
        self.custom_data = custom_data
        self.wait_for_order = wait_for_order
        self.order_wait = order_wait
        self.job_id: str | None = None

    def execute(self, context: Context) -> str:
        """Start the job and return its id."""
        from airflow_ocean.c2d.orders import Order

        order_wait = parameters.whole_number("order_wait", self.order_wait, least=0, most=_LONGEST_DURATION)
        described = parameters.json_object("order", self.order)
        if described is None:
            raise InvalidInputError("order is empty; it is what the task that paid pushed as 'order'")
        order = Order.from_dict(described)
        custom_data = parameters.json_object("custom_data", self.custom_data)
        try:
            with self.client(context) as client:
                job = client.jobs.start(order, custom_data=custom_data)
                consumer_address = client.address
        except OrderInUseError as error:
            if self.wait_for_order:
                defer_until_free(self, context, error, order_wait, "go_on")
            raise
        self.job_id = job.id  # for the link
        metrics.job_started()
        inputs = [item.did for item in (*order.datasets, order.algorithm)]
        self.lineage = Lineage(inputs=inputs, job_id=job.id)
        context["ti"].xcom_push("provider_url", order.provider_url)
        context["ti"].xcom_push("consumer_address", consumer_address)
        return job.id

    def go_on(self, context: Context, event: Any) -> str:
        """Try again after a wait; whatever the other job's end was, the order is free."""
        return self.execute(context)


class OceanStopComputeOperator(OceanBaseOperator):
    """Stop a compute job; one that is over stays as it is.

    Returns the job id; pushes ``status``.

    :param job_id: (templated) the job
    :param provider_url: (templated) the Provider that runs it, the connection's own by default
    :param ocean_conn_id: (templated) the connection of the wallet that started it
    """

    template_fields: Sequence[str] = (
        *OceanBaseOperator.template_fields,
        "job_id",
        "provider_url",
    )
    operator_extra_links: Collection[BaseOperatorLink] = (OceanJobLink(),)

    def __init__(self, *, job_id: str, provider_url: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job_id = job_id
        self.provider_url = provider_url

    def execute(self, context: Context) -> str:
        """Stop the job and return its id."""
        job_id = parameters.text("job_id", self.job_id)
        with self.hook.get_client() as client:
            job = client.jobs.stop(job_id, parameters.optional_text("provider_url", self.provider_url))
        self.log.info("Asked for the end of %s", job.describe())
        context["ti"].xcom_push("status", job.text)
        return job_id


class OceanFetchResultsOperator(OceanBaseOperator):
    """Fetch the results of a compute job that is over, streamed into the artifact base.

    Returns the list of artifact URIs in the job's order; pushes the URI of the ``manifest``, a JSON file that says of
    each its name, type, size and SHA-256. A retry fetches only what is not there yet, whole and unchanged. The events of
    its Airflow outlets have ``job_id``, ``manifest`` and ``artifacts`` in their extra.

    :param job_id: (templated) the job
    :param provider_url: (templated) the Provider that ran it, the connection's own by default
    :param cost: (templated) what the job cost, for the manifest: what :class:`OceanPayForComputeOperator` pushed as ``cost``
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
        self.include_logs = include_logs
        self.max_bytes = max_bytes
        self.artifact_base = artifact_base

    def execute(self, context: Context) -> list[str]:
        """Fetch the results and return where they are."""
        from airflow_ocean.c2d.results import artifact_name

        job_id = parameters.text("job_id", self.job_id)
        provider_url = parameters.optional_text("provider_url", self.provider_url)
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


class OceanPlotOperator(OceanBaseOperator):
    """Draw a fetched result as a PNG beside the other artifacts.

    The result is decoded without executing anything that is in it, after its SHA-256 was compared with the manifest's.

    Returns the artifact URI of the PNG.

    :param manifest: (templated) URI of the manifest that :class:`OceanFetchResultsOperator` pushed
    :param render: the function that draws, as ``module.path:function``; called with the decoded result and a binary
        stream to write the PNG to
    :param render_options: (templated) further keyword arguments for it
    :param result_name: (templated) which of the job's output files to draw, by its name; needed when there are several
    :param plot_name: (templated) file name of the PNG
    :param render_in_docker: (templated) decode and draw in a container, without network and rights
    :param render_image: (templated) the container's image with its tag; it needs Python 3.11 or later, NumPy, and what
        the function imports from elsewhere than its own package
    :param docker_url: (templated) the engine; by default that of ``DOCKER_HOST``, or the worker's own
    :param artifact_base: (templated) see :class:`OceanFetchResultsOperator`
    :param ocean_conn_id: (templated) the connection, for its artifact base
    """

    template_fields: Sequence[str] = (
        *OceanBaseOperator.template_fields,
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
        save_stream([picture], target, LARGEST_PLOT)
        self.lineage = Lineage([result.uri], [str(target)])
        self.log.info("Drew the result %r as %s", result.name, target)
        return str(target)

    def on_kill(self) -> None:
        """Remove the container, if there is one."""
        if self._container is not None:
            self._container.on_kill()

    def _drawn(self, result: Artifact, draw: Callable[..., Any]) -> bytes:
        from airflow_ocean.c2d.results import decode_result

        with open_artifact(result.uri) as stream:
            decoded = decode_result(stream, result.name)
        picture = BytesIO()
        try:
            draw(decoded.value, picture, **(self.render_options or {}))
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
                options=self.render_options or {},
                largest=LARGEST_PLOT,
            )

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
