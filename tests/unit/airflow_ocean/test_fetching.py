"""Fetching results: an archive of outputs becomes the same artifacts as files of their own, once, and whole."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tarfile
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from airflow.sdk import ObjectStoragePath

from airflow_ocean.artifacts import Manifest, check_integrity, open_artifact
from airflow_ocean.c2d.errors import InvalidInputError, JobFailedError, ServiceUnavailableError
from airflow_ocean.c2d.jobs import Jobs, ResultFile
from airflow_ocean.c2d.journal import MemoryJournal
from airflow_ocean.c2d.result_errors import ResultTooLargeError, UndecodableResultError
from airflow_ocean.c2d.services import ResultStream
from airflow_ocean.c2d.services.node_jobs import NodeJob
from airflow_ocean.fetching import ResultFetcher
from airflow_ocean.hooks import OceanHook
from airflow_ocean.operators.plots import OceanPlotOperator
from airflow_ocean.operators.results import OceanFetchResultsOperator

LOG = ResultFile(2, "algorithm.log", "algorithmLog", 4)
FILES = {"result.json": b'{"a": [1, 2]}', "folds/1/result.json": b"[1]", "folds/2/result.json": b"[2]"}


def packed(files, links=()) -> bytes:
    """Return the archive of a folder with files in it, as a node gives it; links are pairs of name and other file."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
        folders = {"outputs"}
        for name in files:
            folders |= {
                "/".join(["outputs", *name.split("/")[:depth]]) for depth in range(name.count("/") + 1)
            }
        for folder in sorted(folders):
            entry = tarfile.TarInfo(folder)
            entry.type = tarfile.DIRTYPE
            tar.addfile(entry)
        for name, content in files.items():
            entry = tarfile.TarInfo(f"outputs/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        for name, kind, target in links:
            entry = tarfile.TarInfo(f"outputs/{name}")
            entry.type, entry.linkname = kind, target
            tar.addfile(entry)
    return stream.getvalue()


class Node:
    """A service with one job that is over, whose connection breaks where a test wants it to."""

    def __init__(self, archive: bytes) -> None:
        self.archive = archive
        self.breaks_at: int | None = None
        self.downloads: list[int] = []
        output = ResultFile(3, "outputs.tar", "output", len(archive), archive=True)
        moment = datetime(2026, 1, 2, tzinfo=UTC)
        self.finished = NodeJob(
            "c-1", 70, "", "", "0x", moment, moment, (LOG, output), None, ("did:op:1",), exit_code=0
        )

    def job(self, _job_id):
        return self.finished

    @contextlib.contextmanager
    def open_result(self, _job_id, index):
        self.downloads.append(index)
        yield ResultStream(self._chunks(b"log\n" if index == 2 else self.archive), None)

    def _chunks(self, content):
        for start in range(0, len(content), 100):
            if self.breaks_at is not None and start >= self.breaks_at:
                raise ServiceUnavailableError("the connection broke")
            yield content[start : start + 100]


class World:
    """A node's job, a folder and a journal that last, and fetchers that come and go."""

    def __init__(self, folder) -> None:
        self.folder = ObjectStoragePath(f"file://{folder}/task")
        self.path = folder / "task"
        self.journal = MemoryJournal()

    def serve(self, node: Node) -> Node:
        self.node = node
        return node

    def fetch(self, *, max_bytes=1000, max_files=20, folder=None):
        jobs = Jobs(lambda *_: self.node, self.journal, None, None)
        self.fetcher = ResultFetcher(
            jobs, self.node.finished, folder or self.folder, self.journal, max_bytes, max_files
        )
        return self.fetcher.fetch(self.node.finished.results)

    def names(self):
        return sorted(path.name for path in self.path.iterdir())


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_files_of_an_archive_are_results_of_their_own(world):
    world.serve(Node(packed(FILES)))
    log, *outputs = world.fetch()
    assert {artifact.name: read(artifact) for artifact in outputs} == FILES
    assert [artifact.type for artifact in (log, *outputs)] == ["algorithmLog", "output", "output", "output"]
    for artifact in outputs:
        assert artifact.sha256 == hashlib.sha256(FILES[artifact.name]).hexdigest()
        assert artifact.size == len(FILES[artifact.name])
    assert world.names() == [
        "2-algorithm.log",
        "3.0-result.json",
        "3.1-folds_1_result.json",
        "3.2-folds_2_result.json",
    ]


def read(artifact):
    with open_artifact(artifact.uri) as stream:
        return stream.read()


def test_names_are_unique_and_never_paths(world):
    names = ["a/b", "a_b", "a／b", "..%2f", "CON", "…/…", "x" * 250, "ｅtc．．／passwd"]
    world.serve(Node(packed({name: name.encode() for name in names})))
    artifacts = world.fetch(max_bytes=10_000)[1:]
    assert [artifact.name for artifact in artifacts] == names
    assert [read(artifact).decode() for artifact in artifacts] == names
    assert len({artifact.uri for artifact in artifacts}) == len(names)
    assert len(world.names()) == len(names) + 1
    assert all(ObjectStoragePath(artifact.uri).parent == world.folder for artifact in artifacts)


def test_links_are_copies_or_left_out(world):
    links = [
        ("again", tarfile.LNKTYPE, "outputs/result.json"),
        ("secrets", tarfile.SYMTYPE, "/etc/passwd"),
        ("outside", tarfile.LNKTYPE, "/etc/passwd"),
        ("pipe", tarfile.FIFOTYPE, ""),
        ("folds/disk", tarfile.BLKTYPE, ""),
    ]
    world.serve(Node(packed(FILES, links)))
    artifacts = {artifact.name: artifact for artifact in world.fetch()}
    assert set(artifacts) == {LOG.name, *FILES, "again"}
    assert read(artifacts["again"]) == FILES["result.json"]
    assert not any(path.is_symlink() for path in world.path.iterdir())
    assert world.fetcher.left_out == ["secrets", "outside", "pipe", "folds/disk"]
    world.fetch()
    assert world.fetcher.left_out == ["secrets", "outside", "pipe", "folds/disk"]


def test_a_retry_fetches_only_what_is_missing(world):
    node = world.serve(Node(packed({"a": b"a" * 300, "b": b"b" * 2000, "c": b"c" * 10})))
    node.breaks_at = 2800  # in b
    with pytest.raises(ServiceUnavailableError):
        world.fetch(max_bytes=5000)
    assert world.names() == ["2-algorithm.log", "3.0-a"]
    first = (world.path / "3.0-a").stat().st_mtime_ns
    node.breaks_at, node.downloads = None, []
    artifacts = world.fetch(max_bytes=5000)
    assert node.downloads == [3]
    assert [read(artifact)[:1] for artifact in artifacts[1:]] == [b"a", b"b", b"c"]
    assert (world.path / "3.0-a").stat().st_mtime_ns == first
    node.downloads = []
    assert world.fetch(max_bytes=5000) == artifacts
    assert node.downloads == []


def test_what_was_changed_is_fetched_again_and_nothing_else(world):
    node = world.serve(Node(packed(FILES)))
    artifacts = world.fetch()
    (world.path / "3.1-folds_1_result.json").write_bytes(b"changed")
    others = {name: (world.path / name).stat().st_mtime_ns for name in world.names() if "3.1" not in name}
    node.downloads = []
    assert world.fetch() == artifacts
    assert node.downloads == [3]
    for artifact in artifacts:
        check_integrity(artifact)
    assert others == {name: (world.path / name).stat().st_mtime_ns for name in others}


def test_another_folder_gets_everything(world, tmp_path):
    world.serve(Node(packed(FILES)))
    world.fetch()
    folder = ObjectStoragePath(f"file://{tmp_path}/other")
    artifacts = world.fetch(folder=folder)
    assert all(artifact.uri.startswith(str(folder)) for artifact in artifacts)


@pytest.mark.parametrize(
    ("files", "limits"),
    [
        ({"a": b"x" * 101}, {"max_bytes": 104}),
        ({"a": b"x" * 60, "b": b"x" * 60}, {"max_bytes": 104}),
        ({str(n): b"" for n in range(10)}, {"max_files": 9}),
    ],
    ids=["one", "together", "number"],
)
def test_limits_hold_for_what_is_in_an_archive(world, files, limits):
    world.serve(Node(packed(files)))
    with pytest.raises(ResultTooLargeError):
        world.fetch(**limits)
    assert not [name for name in world.names() if "part" in name]
    limits = {name: limit + 50 for name, limit in limits.items()}
    assert len(world.fetch(**limits)) == len(files) + 1


@pytest.mark.parametrize("archive", [b"", b"no archive", packed(FILES)[:-9728]], ids=["empty", "text", "cut"])
def test_a_damaged_archive_is_an_error(world, archive):
    world.serve(Node(archive))
    with pytest.raises(UndecodableResultError, match="damaged"):
        world.fetch()


def renderer(value, stream):
    stream.write(json.dumps(value).encode())


@pytest.fixture
def operators(world, connection, monkeypatch, tmp_path):
    connection()
    client = SimpleNamespace(jobs=Jobs(lambda *_: world.node, world.journal, None, None))
    monkeypatch.setattr(OceanHook, "get_client", lambda _hook: contextlib.nullcontext(client))

    def make(operator, **arguments):
        return operator(
            task_id="t", ocean_conn_id="ocean_test", artifact_base=str(tmp_path / "kept"), **arguments
        )

    return make


def test_a_plot_is_drawn_of_a_file_of_an_archive(world, operators, context):
    world.serve(Node(packed(FILES)))
    uris = operators(OceanFetchResultsOperator, job_id="c-1").execute(context)
    manifest = context["ti"].xcoms["manifest"]
    assert uris == [file.uri for file in Manifest.read(manifest).files]
    draw = {"manifest": manifest, "render": f"{__name__}:renderer"}
    plot = operators(OceanPlotOperator, **draw, result_name="folds/2/result.json").execute(context)
    with open_artifact(plot) as stream:
        assert stream.read() == b"[2]"
    with pytest.raises(InvalidInputError, match=r"'folds/1/result\.json'.*result_name must name one"):
        operators(OceanPlotOperator, **draw).execute(context)


def test_the_only_file_is_drawn_without_naming_it(world, operators, context):
    world.serve(Node(packed({"result.json": b"[3]"})))
    operators(OceanFetchResultsOperator, job_id="c-1").execute(context)
    draw = {"manifest": context["ti"].xcoms["manifest"], "render": f"{__name__}:renderer"}
    with open_artifact(operators(OceanPlotOperator, **draw).execute(context)) as stream:
        assert stream.read() == b"[3]"


@pytest.mark.parametrize(
    ("files", "links", "said"),
    [
        ({}, [], "wrote nothing to /data/outputs; the end of its log:\nlog"),
        ({"empty": b""}, [], "wrote nothing"),
        ({}, [("result", tarfile.SYMTYPE, "/etc/passwd")], "no plain file: 'result'; the end"),
    ],
    ids=["nothing", "empty file", "link"],
)
def test_a_job_that_wrote_nothing_has_failed(world, operators, context, files, links, said):
    world.serve(Node(packed(files, links)))
    with pytest.raises(JobFailedError, match=said):
        operators(OceanFetchResultsOperator, job_id="c-1").execute(context)
    assert context["ti"].xcoms == {}


def test_an_archive_may_be_longer_than_its_content(world, operators, context):
    world.serve(Node(packed({"a": b"x" * 96})))
    assert world.node.finished.results[1].size > 1000
    assert len(operators(OceanFetchResultsOperator, job_id="c-1", max_bytes=100).execute(context)) == 2


def test_far_too_much_is_refused_before_anything_is_fetched(world, operators, context):
    node = world.serve(Node(packed({"a": b"x" * 20_000_000})))
    with pytest.raises(InvalidInputError, match="Nothing was fetched"):
        operators(OceanFetchResultsOperator, job_id="c-1", max_bytes=1000).execute(context)
    assert node.downloads == []
