"""A job's files as tar archives: what goes in comes out, and hostile archives do no harm."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

import pytest

from airflow_ocean.c2d.job_files import JobFile, Outputs, packed
from airflow_ocean.c2d.result_errors import ResultTooLargeError, UndecodableResultError
from include.localnet.operator_service.docker_files import unpack

if TYPE_CHECKING:
    from pathlib import Path


def archive(*members: tuple[str, bytes, bytes | str]) -> list[bytes]:
    """Return an archive of the folder ``outputs``; members are (name, type, content or link target)."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, kind, content in members:
            entry = tarfile.TarInfo(name)
            entry.type = kind
            if isinstance(content, str):
                entry.linkname, content = content, b""
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return [stream.getvalue()[start : start + 1000] for start in range(0, len(stream.getvalue()), 1000)]


HOSTILE = archive(
    ("outputs", tarfile.DIRTYPE, b""),
    ("outputs/good", tarfile.REGTYPE, b"content"),
    ("outputs/twin", tarfile.LNKTYPE, "outputs/good"),
    ("outputs/../../up", tarfile.REGTYPE, b"x"),
    ("outputs/..", tarfile.REGTYPE, b"x"),
    ("/etc/passwd", tarfile.REGTYPE, b"x"),
    ("outputs/link", tarfile.SYMTYPE, "/etc/passwd"),
    ("outputs/outside", tarfile.LNKTYPE, "/etc/passwd"),
    ("outputs/disk", tarfile.BLKTYPE, b""),
    ("outputs/folder", tarfile.DIRTYPE, b""),
    ("outputs/folder/inner", tarfile.REGTYPE, b"x"),
)


def contents(outputs: Outputs) -> dict[str, bytes | str]:
    return {output.name: b"".join(output.chunks) if output.chunks else output.same_as for output in outputs}


def test_only_plain_files_of_the_folder_come_out() -> None:
    outputs = Outputs(HOSTILE, 1000, 100)
    assert contents(outputs) == {"good": b"content", "twin": "good"}
    assert set(outputs.left_out) == {"link", "outside", "disk", "folder"}


def test_the_local_network_unpacks_nothing_elsewhere(tmp_path: Path) -> None:
    target = tmp_path / "job" / "outputs"
    target.mkdir(parents=True)
    assert unpack(HOSTILE, target, 1000, 100) == ""
    assert {path.name for path in tmp_path.iterdir()} == {"job"}
    assert {path.name for path in target.parent.iterdir()} == {"outputs"}
    assert (target / "good").read_bytes() == (target / "twin").read_bytes() == b"content"
    assert {path.name for path in target.iterdir() if path.is_dir()} == {"link", "outside", "disk", "folder"}
    assert not any(path.is_symlink() for path in target.rglob("*"))


@pytest.mark.parametrize(
    "members",
    [
        [("outputs/big", tarfile.REGTYPE, bytes(2000))],
        [(f"outputs/{n}", tarfile.REGTYPE, bytes(300)) for n in range(5)],
        [(f"outputs/{n}", tarfile.REGTYPE, b"") for n in range(50)],
        [("outputs/folder/hidden", tarfile.REGTYPE, bytes(2000))],
        [("outputs/" + "n" * 60_000, tarfile.REGTYPE, b"")],
    ],
    ids=["file", "together", "number", "below", "name"],
)
def test_too_much_is_refused(members: list[tuple[str, bytes, bytes]], tmp_path: Path) -> None:
    hostile = archive(*members)
    with pytest.raises(ResultTooLargeError):
        contents(Outputs(hostile, 1000, 10))
    assert unpack(hostile, tmp_path, 1000, 10).startswith("it ")


def test_a_damaged_archive_is_refused() -> None:
    with pytest.raises(UndecodableResultError, match="damaged"):
        contents(Outputs([b"no archive" * 200], 10_000, 10))


def test_what_goes_in(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"x" * 3000)
    files = [JobFile("inputs/ab/0", tmp_path / "data"), JobFile("transformations/algorithm", b"code", True)]
    with tarfile.open(fileobj=io.BytesIO(b"".join(packed(files)))) as tar:
        modes = {member.name: member.mode for member in tar}
        assert modes == {
            "data": 0o755,
            "data/inputs": 0o755,
            "data/ddos": 0o755,
            "data/transformations": 0o755,
            "data/outputs": 0o777,
            "data/logs": 0o777,
            "data/inputs/ab": 0o755,
            "data/inputs/ab/0": 0o644,
            "data/transformations/algorithm": 0o755,
        }
        content = tar.extractfile("data/inputs/ab/0")
        assert content is not None
        assert content.read() == b"x" * 3000
