"""A job's files as tar archives: what goes in comes out, and hostile archives do no harm."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from airflow_ocean.c2d.job_files import JobFile, Outputs, packed
from airflow_ocean.c2d.result_errors import ResultTooLargeError, UndecodableResultError
from include.localnet.operator_service.docker_files import unpack

if TYPE_CHECKING:
    from collections.abc import Iterator
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
    ("outputs/folder/../../up", tarfile.REGTYPE, b"x"),
    ("outputs/folder/twin", tarfile.LNKTYPE, "outputs/folder/inner"),
    ("outputs/folder/pipe", tarfile.FIFOTYPE, b""),
    ("outputs/folder/terminal", tarfile.CHRTYPE, b""),
    ("elsewhere/file", tarfile.REGTYPE, b"x"),
    ("outputs/folder//double", tarfile.REGTYPE, b"x"),
)


def contents(outputs: Outputs) -> dict[str, bytes | str]:
    return {output.name: b"".join(output.chunks) if output.chunks else output.same_as for output in outputs}


def test_only_plain_files_of_the_folder_come_out() -> None:
    outputs = Outputs(HOSTILE, 1000, 100)
    assert contents(outputs) == {"good": b"content", "twin": "good"}
    outside = {"outputs/../../up", "outputs/..", "/etc/passwd", "outputs/folder/../../up", "elsewhere/file"}
    assert set(outputs.left_out) - outside == {"link", "outside", "disk", "folder", "outputs/folder//double"}


def test_files_in_folders_come_out_where_they_count() -> None:
    outputs = Outputs(HOSTILE, 1000, 100, nested=True)
    assert contents(outputs) == {
        "good": b"content",
        "twin": "good",
        "folder/inner": b"x",
        "folder/twin": "folder/inner",
    }
    assert set(outputs.left_out) == {
        "outputs/../../up",
        "outputs/..",
        "/etc/passwd",
        "link",
        "outside",
        "disk",
        "outputs/folder/../../up",
        "folder/pipe",
        "folder/terminal",
        "elsewhere/file",
        "outputs/folder//double",
    }


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


def header(
    name: str = "outputs/file", kind: bytes = tarfile.REGTYPE, size: bytes = b"", link: str = ""
) -> bytes:
    """Return the header of an entry, with a size as it stands there when one is given, and the checksum that fits."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, link
    block = bytearray(entry.tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape"))
    if size:
        block[124:136] = size.ljust(12, b"\0")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(records: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """Return an extended header of records as they are."""
    return header("pax", kind, b"%011o" % len(records)) + records.ljust(-(-len(records) // 512) * 512, b"\0")


def record(name: str, value: str) -> bytes:
    """Return a record of an extended header."""
    text = f" {name}={value}\n".encode()
    length = len(text) + 1
    while len(str(length)) + len(text) != length:
        length += 1
    return str(length).encode() + text


END = bytes(1024)
BEGINNING = header("outputs", tarfile.DIRTYPE)
NEGATIVE = b"\xff" * 12
WHOLE = b"".join(archive(("outputs", tarfile.DIRTYPE, b""), ("outputs/a", tarfile.REGTYPE, b"x" * 2000),
                         ("outputs/b", tarfile.REGTYPE, b"y")))  # fmt: skip
SPARSE_WITHOUT_MAP = record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0")


@pytest.mark.parametrize(
    "content",
    [
        b"no archive" * 200,
        b"",
        WHOLE[:700],
        WHOLE[: 4 * 512],
        WHOLE[: 6 * 512],
        WHOLE[: 6 * 512 + 100],
        WHOLE[: 6 * 512] + b"\x01" * 512 + WHOLE[6 * 512 :],
        gzip.compress(WHOLE),
        BEGINNING + header(size=NEGATIVE) + END,
        BEGINNING + pax(record("size", "-512")) + header() + END,
        BEGINNING + pax(SPARSE_WITHOUT_MAP) + header(size=b"%011o" % 512) + b"none\n".ljust(512, b"\0") + END,
        BEGINNING + pax(record("GNU.sparse.size", "many")) + header() + END,
        BEGINNING + pax(b"0 path=x\n") + header() + END,
        BEGINNING + pax(b"9" * 5000 + b" path=x\n") + header() + END,
        BEGINNING + pax(record("path", "outputs/x")) + END,
    ],
    ids=["text", "empty", "content", "entry", "no-end", "header", "garbage", "compressed", "negative", "pax-negative",
         "sparse-map", "sparse-size", "pax-zero", "pax-number", "pax-alone"],
)  # fmt: skip
def test_a_damaged_archive_is_refused(content: bytes) -> None:
    with pytest.raises(UndecodableResultError, match="damaged"):
        contents(Outputs([content], 10_000, 10))


@pytest.mark.parametrize(
    "content",
    [
        # Nothing of these is more than a few kilobytes on the wire.
        BEGINNING + header(size=b"%011o" % 2000) + END,
        BEGINNING + header(size=b"\x80".ljust(4, b"\0") + b"\x7f" * 8) + END,
        BEGINNING + pax(record("size", "9" * 30)) + header() + END,
        BEGINNING + pax(SPARSE_WITHOUT_MAP + record("GNU.sparse.realsize", "9" * 30))
        + header(size=b"%011o" % 512) + b"0\n".ljust(512, b"\0") + END,
        BEGINNING + header("outputs/a", size=b"%011o" % 600) + bytes(1024)
        + b"".join(header(f"outputs/{n}", tarfile.LNKTYPE, link="outputs/a") for n in range(2)) + END,
    ],
    ids=["size", "base256", "pax-size", "sparse", "links"],
)  # fmt: skip
def test_a_small_archive_of_much_content_is_refused(content: bytes) -> None:
    with pytest.raises(ResultTooLargeError):
        contents(Outputs([content], 1000, 10))


@pytest.mark.parametrize(
    "content",
    [
        pax(record("comment", "x" * 100_000)) + header(),
        pax(b"".join(record(f"GNU.sparse.{n}", "1") for n in range(5000))) + header(),
        header("././@LongLink", tarfile.GNUTYPE_LONGNAME, b"%011o" % 100_000) + bytes(100_352) + header(),
        b"".join(pax(b"") for _ in range(1000)) + header(),
        b"".join(pax(record("comment", "x"), tarfile.XGLTYPE) for _ in range(500)) + header(),
        pax(SPARSE_WITHOUT_MAP) + header(size=b"%011o" % 500_224) + (b"100000\n" + b"1\n" * 250_000)[:500_224],
    ],
    ids=["pax", "records", "long-name", "headers-of-headers", "global", "sparse-map"],
)  # fmt: skip
def test_too_long_descriptions_are_refused_before_they_are_read(content: bytes) -> None:
    taken = 0

    def chunks() -> Iterator[bytes]:
        nonlocal taken
        for start in range(0, len(content), 1000):
            taken += 1000
            yield (BEGINNING + content)[start : start + 1000]

    with pytest.raises(ResultTooLargeError, match="too long a description"):
        contents(Outputs(chunks(), 10**9, 10_000))
    assert taken < 100_000


def test_what_is_sparse_is_left_out() -> None:
    """Reading it may not end: here no part of the map covers the content."""
    sparse = pax(
        SPARSE_WITHOUT_MAP + record("GNU.sparse.name", "outputs/s") + record("GNU.sparse.realsize", "9")
    )
    sparse += header(size=b"%011o" % 512) + b"1\n-5\n3\n".ljust(512, b"\0")
    outputs = Outputs([BEGINNING + sparse + header("outputs/good") + END], 1000, 10)
    assert contents(outputs) == {"good": b""}
    assert outputs.left_out == ["s"]


def test_headers_for_all_entries_do_not_add_up() -> None:
    """A thousand of them would be copied for every entry that follows."""
    entries = [
        pax(b"".join(record(f"{n}.{k}", "x") for k in range(700)), tarfile.XGLTYPE) + header(f"outputs/{n}")
        for n in range(100)
    ]
    content = [BEGINNING, *entries, END]
    assert len(contents(Outputs(content, 1000, 1000))) == 100
    tracemalloc.start()
    try:
        contents(Outputs(content, 1000, 1000))
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_odd_names_are_data(tmp_path: Path) -> None:
    names = [
        "a\nb",
        "a\\b",
        "\u202egnp.exe",
        "c:\\x",
        "%2e%2e",
        "ä" * 100,
        "n" * 255,
        " ",
        "CON",
        "-rf",
        ".hidden",
    ]
    outputs = Outputs(archive(*[(f"outputs/{n}", tarfile.REGTYPE, n.encode()) for n in names]), 10_000, 100)
    assert contents(outputs) == {name: name.encode() for name in names}
    no_text = header("outputs/\udcff")
    assert contents(Outputs([BEGINNING + no_text + END], 10, 10)) == {"\\xff": b""}


def test_a_file_that_was_not_read_is_passed_over() -> None:
    names = [output.name for output in Outputs([WHOLE], 10_000, 10)]
    assert names == ["a", "b"]


def test_a_large_archive_is_never_in_memory() -> None:
    size = 300 * 1024 * 1024
    piece = bytes(1 << 20)

    def chunks() -> Iterator[bytes]:
        yield BEGINNING + header("outputs/large", size=b"%011o" % size)
        yield from (piece for _ in range(300))
        yield END

    tracemalloc.start()
    try:
        outputs = iter(Outputs(chunks(), size, 10))
        output = next(outputs)
        assert sum(len(chunk) for chunk in output.chunks or ()) == size
        assert next(outputs, None) is None
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


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
