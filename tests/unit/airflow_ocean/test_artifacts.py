"""Where artifacts go, under which names, and what a manifest says about them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from airflow.sdk import ObjectStoragePath

from airflow_ocean.artifacts import (
    Artifact,
    Manifest,
    artifact_folder,
    check_integrity,
    open_artifact,
    path_segment,
)
from airflow_ocean.c2d.errors import InvalidInputError


def test_the_folder_of_a_task(tmp_path, context):
    folder = artifact_folder(context, str(tmp_path / "with a space"))
    assert folder.protocol == "file"
    assert str(folder).startswith(f"file://{tmp_path}/with a space/a_dag/manual__2025-01-02T03-04-05-00-00-")
    assert str(folder).endswith("/a_task")
    assert (tmp_path / "with a space" / "a_dag").is_dir()


def test_a_mapped_task_has_a_folder_for_each_index(tmp_path, context):
    context["ti"].map_index = 3
    assert artifact_folder(context, str(tmp_path)).path.endswith("/a_task/3")


def test_the_first_base_given_counts(tmp_path, context, monkeypatch):
    monkeypatch.setenv("AIRFLOW_OCEAN_ARTIFACTS", f"file://{tmp_path}/variable")
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "home"))
    argument, connection = f"{tmp_path}/argument", f"{tmp_path}/connection"

    def base(*bases):
        return artifact_folder(context, *bases).path.removeprefix(str(tmp_path)).split("/a_dag/")[0]

    assert base(argument, connection) == "/argument"
    assert base(None, connection) == "/connection"
    assert base(None, None) == "/variable"
    monkeypatch.delenv("AIRFLOW_OCEAN_ARTIFACTS")
    assert base(None, None) == "/home/artifacts"


@pytest.mark.parametrize("base", ["nostore://bucket", "{file}/below"])
def test_a_base_that_cannot_be_used_is_refused(tmp_path, context, base):
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInputError, match="artifact base"):
        artifact_folder(context, base.format(file=tmp_path / "file"))


@pytest.mark.parametrize(
    "text", ["..", ".", "../../etc/passwd", "a/b", "a\\b", "a b", "a:b", "x" * 500, "ä", "-", ".x"]
)
def test_ids_become_one_safe_segment(text):
    segment = path_segment(text)
    assert segment not in ("", ".", "..")
    assert not set(segment) & set("/\\: +%?#")
    assert segment.isascii()
    assert len(segment) < 200


def test_different_ids_stay_different():
    ids = ["a:b", "a+b", "a b", "a-b", "a/b", "a--b", ".a-b", "x" * 300, "x" * 301]
    assert len({path_segment(text) for text in ids}) == len(ids)


def test_readable_ids_stay_as_they_are():
    assert path_segment("fetch_and_plot.fetch_results") == "fetch_and_plot.fetch_results"


def test_a_manifest_reads_back(tmp_path, context):
    folder = artifact_folder(context, str(tmp_path))
    file = Artifact("../résultat", str(folder / "0-resultat"), "output", 5, "ab" * 32)
    manifest = Manifest("job-1", None, ["did:op:1"], [file])
    assert Manifest.read(manifest.write(folder / "manifest.json")) == manifest


def test_a_manifest_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = ObjectStoragePath(f"file://{tmp_path}/manifest.json")
    manifest = Manifest("job-1", None, ["did:op:1"], [])
    uri = manifest.write(path)

    def full(*_arguments):
        raise OSError("no space left")

    monkeypatch.setattr(type(path), "replace", full)
    with pytest.raises(OSError, match="no space"):
        replace(manifest, job_id="job-2").write(path)
    assert Manifest.read(uri) == manifest
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"files": 1}', '{"files": [{}]}', '{"files": [], "other": 1}']
)
def test_something_else_is_no_manifest(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(InvalidInputError, match=r"manifest\.json"):
        Manifest.read(f"file://{tmp_path}/manifest.json")


def test_a_changed_result_is_noticed(tmp_path):
    path = tmp_path / "result"
    path.write_bytes(b"hello")
    sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    artifact = Artifact("result", f"file://{path}", "output", 5, sha256)
    check_integrity(artifact)
    with open_artifact(artifact.uri, "wb") as stream:
        stream.write(b"HELLO")
    with pytest.raises(InvalidInputError, match="changed after it was fetched"):
        check_integrity(artifact)
    path.unlink()
    with pytest.raises(InvalidInputError, match="gone"):
        check_integrity(artifact)
