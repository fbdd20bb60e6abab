"""The operator that runs an algorithm in its own image on sample data, before anything is published or paid."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_ocean import parameters
from airflow_ocean.artifacts import (
    MANIFEST_NAME,
    Artifact,
    Manifest,
    artifact_folder,
    open_artifact,
    save_output,
)
from airflow_ocean.c2d.errors import InvalidInputError, JobFailedError
from airflow_ocean.lineage import Lineage
from airflow_ocean.operators.base import OceanOptionalOperator

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow.sdk import Context, ObjectStoragePath

    from airflow_ocean.c2d.job_files import JobFile
    from airflow_ocean.containers import ConfinedContainer, ContainerLimits

_LONGEST_SECONDS = 7 * 24 * 3600
_PREFIX = "did:op:"


class OceanRehearseAlgorithmOperator(OceanOptionalOperator):
    """Run an algorithm in its image on sample data, as a compute environment would, and check what it makes.

    The algorithm finds what it would find in a compute job: the layout of ``/data``, the environment variables, the
    working directory ``/``, no network, no rights, limits. Image, checksum and entrypoint are compared with the Docker
    engine's before it runs. It fails when the algorithm does, when it makes no output, or one that can't be decoded.

    The container is run with the Docker provider's ``DockerOperator``, which is loaded when the task runs, not when the
    DAG file is parsed.

    Returns the list of artifact URIs, outputs first, then the log; pushes ``manifest``, which
    :class:`~airflow_ocean.operators.plots.OceanPlotOperator` takes.

    :param image: (templated) the container image
    :param tag: (templated) the image's tag
    :param checksum: (templated) the image's digest, ``sha256:`` and 64 hexadecimal digits
    :param entrypoint: (templated) the command; ``$ALGO`` stands for the algorithm's file
    :param algorithm: (templated) the algorithm's file: a URL, or a path that the worker can read
    :param sample_data: (templated) the datasets, a list or its JSON text: each a URL or path, a list of those for several
        files, or ``{"did": "did:op:…", "files": […]}``
    :param custom_data: (templated) parameters for the algorithm, a JSON object
    :param memory: (templated) bytes of memory, also as ``512m`` or ``1g``
    :param cpus: (templated) CPUs, as a number
    :param time_limit: (templated) seconds until the algorithm is killed
    :param max_processes: (templated) processes and threads at once
    :param max_output: (templated) bytes that it may write, also as ``1g``, and that each file of its inputs may have
    :param user: (templated) who it runs as, such as ``1000:1000``, or ``0`` for an image that needs root; by default the
        image's user, or an ordinary one where that is root
    :param pull: (templated) ``missing`` fetches the image where it is not there, ``always``, or ``never``
    :param decode_outputs: whether all outputs must be of a kind that can be decoded; False for models and the like
    :param docker_url: (templated) the engine; by default that of ``DOCKER_HOST``, or the worker's own
    :param docker_conn_id: (templated) a Docker connection, for a registry that wants a login
    :param artifact_base: (templated) where to keep outputs and log; see
        :class:`~airflow_ocean.operators.results.OceanFetchResultsOperator`
    :param ocean_conn_id: (templated) a connection, for its artifact base; nothing is done on its network
    """

    template_fields: Sequence[str] = (
        *OceanOptionalOperator.template_fields,
        "image",
        "tag",
        "checksum",
        "entrypoint",
        "algorithm",
        "sample_data",
        "custom_data",
        "memory",
        "cpus",
        "time_limit",
        "max_processes",
        "max_output",
        "user",
        "pull",
        "docker_url",
        "docker_conn_id",
        "artifact_base",
    )

    def __init__(
        self,
        *,
        image: str,
        tag: str,
        checksum: str,
        algorithm: str,
        sample_data: list[Any] | str,
        entrypoint: str = "python $ALGO",
        custom_data: dict[str, Any] | str | None = None,
        memory: int | str = "1g",
        cpus: float | str = 1,
        time_limit: int | str = 600,
        max_processes: int | str = 128,
        max_output: int | str = "1g",
        user: str | None = None,
        pull: str = "missing",
        decode_outputs: bool = True,
        docker_url: str | None = None,
        docker_conn_id: str | None = None,
        artifact_base: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.image = image
        self.tag = tag
        self.checksum = checksum
        self.entrypoint = entrypoint
        self.algorithm = algorithm
        self.sample_data = sample_data
        self.custom_data = custom_data
        self.memory = memory
        self.cpus = cpus
        self.time_limit = time_limit
        self.max_processes = max_processes
        self.max_output = max_output
        self.user = user
        self.pull = pull
        self.decode_outputs = parameters.boolean("decode_outputs", decode_outputs)
        self.docker_url = docker_url
        self.docker_conn_id = docker_conn_id
        self.artifact_base = artifact_base
        self._container: ConfinedContainer | None = None

    def execute(self, context: Context) -> list[str]:
        """Run the algorithm and return where its outputs and its log are."""
        self.skip_unless_enabled()
        from airflow_ocean.c2d.job_files import packed

        limits = self._limits()
        datasets = self._datasets()
        self._container = self._new_container(limits, list(datasets))
        folder = artifact_folder(
            context,
            parameters.optional_text("artifact_base", self.artifact_base),
            self.hook.settings.artifact_base,
        )
        try:
            with tempfile.TemporaryDirectory(prefix="ocean-rehearsal-") as worker_folder:
                files = list(self._job_files(datasets, Path(worker_folder), limits.output))
                try:
                    self._container.run(context, packed(files))
                except JobFailedError:
                    self._save_log(folder, 0)
                    raise
            outputs = self._save_outputs(folder, limits.output)
            kept = [*outputs, self._save_log(folder, len(outputs))]
            self._check(outputs)
        finally:
            self._container.remove()
        job_id = f"rehearsal-{self._container.container['Id'][:12]}"
        dids = [f"{_PREFIX}{did}" for did in datasets]
        manifest = Manifest(job_id, None, dids, kept).write(folder / MANIFEST_NAME)
        context["ti"].xcom_push("manifest", manifest)
        artifacts = [artifact.uri for artifact in kept]
        # Of what it read the published datasets only: where files are need not be known to those who read lineage.
        published = [
            f"{_PREFIX}{did}" for number, did in enumerate(datasets) if did != _stand_in(f"dataset {number}")
        ]
        self.lineage = Lineage(published, artifacts)
        return artifacts

    def on_kill(self) -> None:
        """Remove the container."""
        if self._container is not None:
            self._container.on_kill()

    def _limits(self) -> ContainerLimits:
        from airflow_ocean.containers import ContainerLimits, size

        try:
            cpus = float(self.cpus)
        except (TypeError, ValueError):
            cpus = 0
        if not 0.01 <= cpus <= 1024:
            raise InvalidInputError(f"cpus must be a number from 0.01 to 1024, not {self.cpus!r}")
        return ContainerLimits(
            memory=size("memory", self.memory, least=6 << 20),
            cpus=cpus,
            seconds=parameters.whole_number("time_limit", self.time_limit, least=1, most=_LONGEST_SECONDS),
            processes=parameters.whole_number("max_processes", self.max_processes, least=1, most=100_000),
            output=size("max_output", self.max_output, least=1),
        )

    def _new_container(self, limits: ContainerLimits, dids: list[str]) -> ConfinedContainer:
        from airflow_ocean.c2d.job_files import ALGORITHM
        from airflow_ocean.c2d.specs import AlgorithmContainer
        from airflow_ocean.containers import PULL, ConfinedContainer

        published = AlgorithmContainer(
            image=parameters.text("image", self.image),
            tag=parameters.text("tag", self.tag),
            checksum=parameters.text("checksum", self.checksum),
            entrypoint=parameters.text("entrypoint", self.entrypoint),
        )
        return ConfinedContainer(
            image=f"{published.image}:{published.tag}",
            checksum=published.checksum,
            pull=parameters.choice("pull", self.pull, PULL),
            entrypoint=published.entrypoint.replace("$ALGO", ALGORITHM),
            variables={
                "DIDS": json.dumps(dids),
                "TRANSFORMATION_DID": _stand_in("algorithm"),
                "VOLUME": "/data",
                "LOGS": "/data/logs",
                "INPUTS": "/data/inputs",
                "OUTPUTS": "/data/outputs",
                "secret": secrets.token_hex(16),
            },
            limits=limits,
            user=parameters.optional_text("user", self.user),
            docker_url=parameters.optional_text("docker_url", self.docker_url),
            docker_conn_id=parameters.optional_text("docker_conn_id", self.docker_conn_id),
        )

    def _datasets(self) -> dict[str, list[str]]:
        """Return the files of each dataset by its DID without prefix."""
        given = parameters.json_list("sample_data", self.sample_data)
        if not given:
            raise InvalidInputError(
                "sample_data is empty; give a list of URLs or paths, one for each dataset"
            )
        datasets: dict[str, list[str]] = {}
        for number, entry in enumerate(given):
            name = f"sample_data[{number}]"
            did = _stand_in(f"dataset {number}")
            if isinstance(entry, dict):
                did = parameters.did(f"{name}.did", entry.get("did")).removeprefix(_PREFIX)
                entry = entry.get("files")
            files = entry if isinstance(entry, list) else [entry]
            if not files or did in datasets:
                raise InvalidInputError(f"{name} has no files, or the DID of another dataset")
            datasets[did] = [parameters.text(name, file) for file in files]
        return datasets

    def _job_files(self, datasets: dict[str, list[str]], folder: Path, largest: int) -> Iterator[JobFile]:
        """Fetch what the job finds to this worker, and yield it."""
        from airflow_ocean.c2d.job_files import CUSTOM_DATA, JobFile

        custom_data = parameters.json_object("custom_data", self.custom_data)
        if custom_data is not None:
            yield JobFile(CUSTOM_DATA, _compact(custom_data))
        sources = {"transformations/algorithm": parameters.text("algorithm", self.algorithm)}
        documents = {_stand_in("algorithm"): "algorithm"}
        for did, files in datasets.items():
            documents[did] = "dataset"
            sources |= {f"inputs/{did}/{index}": file for index, file in enumerate(files)}
        for number, (name, source) in enumerate(sources.items()):
            target = folder / str(number)
            _fetch(source, target, largest)
            self.log.info("/data/%s: %d bytes", name, target.stat().st_size)
            yield JobFile(name, target, executable=name.startswith("transformations/"))
        for did, kind in documents.items():
            document = {
                "id": f"{_PREFIX}{did}",
                "version": "4.1.0",
                "metadata": {"type": kind},
                "services": [],
            }
            yield JobFile(f"ddos/{did}", _compact(document))

    def _save_outputs(self, folder: ObjectStoragePath, max_bytes: int) -> list[Artifact]:
        from airflow_ocean.c2d.results import artifact_name

        assert self._container is not None
        saved: list[Artifact] = []
        left = max_bytes
        for name in ("outputs", "logs"):
            with self._container.outputs(name, left) as outputs:
                of_folder: dict[str, Artifact] = {}
                for output in outputs:
                    target = folder / artifact_name(output.name, len(saved))
                    artifact = save_output(output, "output", target, left, of_folder)
                    self.log.info("Kept the output %r, %d bytes, as %s", output.name, artifact.size, target)
                    of_folder[output.name] = artifact
                    saved.append(artifact)
                    left -= artifact.size
                if outputs.left_out:
                    self.log.warning("No results, as they are no plain files: %s", outputs.left_out[:20])
        return saved

    def _save_log(self, folder: ObjectStoragePath, index: int) -> Artifact:
        from airflow_ocean.c2d.results import artifact_name, save_stream

        assert self._container is not None
        self._container.kept_log.seek(0)
        target = folder / artifact_name("algorithm.log", index)
        saved = save_stream(iter(lambda: self._read_log(), b""), target, 1 << 30)
        return Artifact("algorithm.log", str(target), "algorithmLog", saved.size, saved.sha256)

    def _read_log(self) -> bytes:
        assert self._container is not None
        return self._container.kept_log.read(1 << 20)

    def _check(self, outputs: list[Artifact]) -> None:
        """Refuse a rehearsal whose outputs would be of no use."""
        from airflow_ocean.c2d.results import decode_result

        if not outputs:
            raise JobFailedError(
                f"the algorithm ended well, but made no output: it must write plain files to /data/outputs (image {self.image})"
            )
        if not self.decode_outputs:
            return
        for output in outputs:
            with open_artifact(output.uri) as stream:
                decoded = decode_result(stream, output.name)
            self.log.info("The output %r is a %s", output.name, decoded.kind)


def _stand_in(what: str) -> str:
    """Return what stands for the DID, without prefix, of an asset that isn't published yet."""
    return hashlib.sha256(f"rehearsal {what}".encode()).hexdigest()


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _fetch(source: str, target: Path, largest: int) -> None:
    """Bring a file to the worker.

    :param source: a URL, or a path
    :raises InvalidInputError: when it can't be read, or is too large
    """
    from airflow_ocean.c2d.results import save_stream
    from airflow_ocean.c2d.services.http import HttpSession

    if source.startswith(("http://", "https://")):
        session = HttpSession()
        try:
            with session.stream(
                "GET", source, "fetching it for the rehearsal", follow_redirects=True
            ) as answer:
                save_stream(answer.iter_bytes(), target, largest)
        finally:
            session.close()
        return
    location = source if "://" in source else f"file://{os.path.abspath(os.path.expanduser(source))}"
    try:
        with open_artifact(location) as stream:
            save_stream(iter(lambda: stream.read(1 << 20), b""), target, largest)
    except (OSError, ValueError, ImportError) as error:
        raise InvalidInputError(
            f"{source} can't be read on this worker ({error}): give a URL, or a path that every worker has"
        ) from error
