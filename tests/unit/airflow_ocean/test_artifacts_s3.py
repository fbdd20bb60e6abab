"""Artifacts on an S3 server: streamed, complete or not there at all, checked, and refused in good words."""

from __future__ import annotations

import hashlib
import json

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
from airflow_ocean.c2d.results import ResultTooLargeError, decode_result, save_stream
from tests.support.s3 import BUCKET, CONNECTION_VARIABLE, S3Server

MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def s3():
    with S3Server() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv(CONNECTION_VARIABLE, server.connection)
        yield server


@pytest.fixture
def folder(s3, context, request):
    return artifact_folder(context, f"{s3.base}/{path_segment(request.node.name)}")


def test_the_folder_of_a_task(s3, context):
    folder = artifact_folder(context, f"{s3.base}/")
    assert str(folder).startswith(f"s3://ocean_s3@{BUCKET}/ocean/a_dag/manual__2025-01-02T03-04-05-00-00-")


def test_a_large_result_is_streamed_and_complete(s3, folder):
    """Larger than one part of an upload, and never whole in memory."""
    digest, given = hashlib.sha256(), []

    def chunks():
        for number in range(120):
            chunk = bytes([number]) * (MEGABYTE // 2)
            digest.update(chunk)
            given.append(len(s3.uploads()))
            yield chunk

    saved = save_stream(chunks(), folder / "0-result", 100 * MEGABYTE)
    assert saved.size == 60 * MEGABYTE
    assert saved.sha256 == digest.hexdigest()
    # The upload had begun before the download was over.
    assert max(given) == 1
    assert s3.sizes(folder) == {"0-result": 60 * MEGABYTE}
    check_integrity(Artifact("result", saved.uri, "output", saved.size, saved.sha256))


class Interrupted(BaseException):
    """What a task's time-out or Ctrl-C is like."""


@pytest.mark.parametrize("error", [ConnectionError, Interrupted])
@pytest.mark.parametrize("megabytes", [1, 60])
def test_nothing_is_left_of_a_download_that_breaks_off(s3, folder, error, megabytes):
    def chunks():
        for _ in range(megabytes):
            yield b"x" * MEGABYTE
        raise error("the connection broke")

    with pytest.raises(error):
        save_stream(chunks(), folder / "0-result", 1000 * MEGABYTE)
    assert s3.sizes(folder) == {}
    assert s3.uploads() == []


@pytest.mark.parametrize("megabytes", [1, 60])
def test_nothing_is_left_of_a_result_that_is_too_large(s3, folder, megabytes):
    with pytest.raises(ResultTooLargeError):
        save_stream([b"x" * MEGABYTE] * (megabytes + 1), folder / "0-result", megabytes * MEGABYTE)
    assert s3.sizes(folder) == {}
    assert s3.uploads() == []


def test_a_failed_attempt_keeps_what_an_earlier_one_has_saved(s3, folder):
    target = folder / "0-result"
    save_stream([b"whole"], target, 100)
    with pytest.raises(ResultTooLargeError):
        save_stream([b"x" * 200], target, 100)
    with open_artifact(target) as stream:
        assert stream.read() == b"whole"
    save_stream([b"another"], target, 100)
    with open_artifact(target) as stream:
        assert stream.read() == b"another"


def test_what_a_killed_attempt_left_is_cleared_away(s3, folder):
    left_over = folder / ".0-result.0badc0de.part"
    with open_artifact(left_over, "wb") as stream:
        stream.write(b"half")
    save_stream([b"whole"], folder / "0-result", 100)
    assert s3.sizes(folder) == {"0-result": 5}


def test_a_manifest_and_a_result_read_back(s3, folder):
    content = json.dumps({"x": [1, 2]}).encode()
    saved = save_stream([content], folder / "0-result.json", 1000)
    file = Artifact("result.json", saved.uri, "output", saved.size, saved.sha256)
    manifest = Manifest("job-1", None, ["did:op:1"], [file])
    uri = manifest.write(folder / "manifest.json")
    assert Manifest.read(uri) == manifest
    check_integrity(file)
    with open_artifact(file.uri) as stream:
        assert decode_result(stream, "result.json").value == {"x": [1, 2]}


def test_a_changed_or_deleted_result_is_noticed(s3, folder):
    saved = save_stream([b"hello"], folder / "0-result", 100)
    artifact = Artifact("result", saved.uri, "output", 5, saved.sha256)
    with open_artifact(artifact.uri, "wb") as stream:
        stream.write(b"HELLO")
    with pytest.raises(InvalidInputError, match="changed after it was fetched"):
        check_integrity(artifact)
    ObjectStoragePath(artifact.uri).unlink()
    with pytest.raises(InvalidInputError, match="gone"):
        check_integrity(artifact)
    with pytest.raises(InvalidInputError, match="no manifest at"):
        Manifest.read(str(folder / "manifest.json"))


def test_a_bucket_that_is_not_there_is_named_and_not_made(s3, context):
    with pytest.raises(InvalidInputError, match="no bucket no-such-bucket"):
        artifact_folder(context, "s3://ocean_s3@no-such-bucket/ocean")
    assert [bucket["Name"] for bucket in s3.client.list_buckets()["Buckets"]] == [BUCKET]
