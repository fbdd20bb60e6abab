"""Reading a job's result, whatever it is, without trusting it: by its content, within limits, running nothing of it."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import zipfile
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NoReturn, Protocol

from airflow_ocean.c2d.result_errors import (
    ResultTooLargeError,
    UndecodableResultError,
    UnsafeResultError,
    shown,
)

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import numpy as np

    Array = np.ndarray[Any, Any]

DEFAULT_MAX_BYTES = 64 * 1024 * 1024
"""How large a result may be to be decoded, unless the caller says otherwise, in bytes."""

MAX_VALUES = 2_000_000
"""How many values a JSON or CSV result may hold: each takes up to a hundred bytes of memory."""

MAX_DEPTH = 100
"""How deeply JSON may be nested."""

MAX_MEMBERS = 1000
"""How many arrays an .npz file may hold."""

_JSON_NESTING = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{\]}]', re.DOTALL)

ResultKind = Literal["pickle", "npy", "npz", "csv", "json", "image", "text"]

_NPY = b"\x93NUMPY"
_ZIP = b"PK\x03\x04"
_IMAGES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)


class Readable(Protocol):
    """A path of any store, such as ``pathlib.Path`` or Airflow's ``ObjectStoragePath``."""

    def open(self, mode: str) -> Any:
        """Open for reading bytes."""


@dataclass(frozen=True)
class DecodedResult:
    """What a result holds.

    :param kind: what it was recognised as
    :param value: pickle: plain data; npy: an array; npz: arrays by name; csv: rows of text; json: its data; image: its
        bytes, as they were; text: text
    :param media_type: the kind as a media type, such as ``image/png``
    """

    kind: ResultKind
    value: Any
    media_type: str


def decode_result(
    source: Readable | BinaryIO, name: str = "result", *, max_bytes: int = DEFAULT_MAX_BYTES
) -> DecodedResult:
    """Decode a result that nobody vouches for. Its content decides what it is, not its name.

    :param source: where to read: a path, or a stream open for reading bytes
    :param name: what to call it in errors
    :param max_bytes: how large it may be, as it is and when unpacked
    :raises UnsafeResultError: reading it would run code; none was run
    :raises ResultTooLargeError: it is too large, or would become so
    :raises UndecodableResultError: it is damaged, empty, or of no known kind
    """
    try:
        return _decode(_read(source, max_bytes), max_bytes)
    except (UnsafeResultError, ResultTooLargeError, UndecodableResultError) as error:
        raise type(error)(f"Result {shown(name)} was not decoded: {error}") from error


def _read(source: Readable | BinaryIO, max_bytes: int) -> bytes:
    opened: AbstractContextManager[Any] = (
        nullcontext(source) if hasattr(source, "read") else source.open("rb")
    )
    parts, size = [], 0
    with opened as stream:
        while part := stream.read(min(1024 * 1024, max_bytes + 1 - size)):
            parts.append(part)
            size += len(part)
            if size > max_bytes:
                raise ResultTooLargeError(
                    f"it is larger than the {max_bytes:,} bytes allowed; raise the limit if it may be"
                )
    return b"".join(parts)


def _decode(data: bytes, max_bytes: int) -> DecodedResult:
    if not data:
        raise UndecodableResultError("it is empty")
    for mark, media_type in _IMAGES:
        if data.startswith(mark):
            return DecodedResult("image", data, media_type)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return DecodedResult("image", data, "image/webp")
    if data.startswith(_NPY):
        return DecodedResult("npy", _npy(data), "application/x-npy")
    if data.startswith(_ZIP):
        return DecodedResult("npz", _npz(data, max_bytes), "application/x-npz")
    # Imported where they are needed: they bring NumPy, which most results do without.
    from airflow_ocean.c2d import unpickling

    if unpickling.is_pickle(data):
        return DecodedResult("pickle", unpickling.loads(data, max_bytes=max_bytes), "application/x-pickle")
    return _decode_text(data)


def _npy(data: bytes) -> Array:
    """Read an .npy file; NumPy takes the memory its header asks for, so the header is compared with the size first."""
    import numpy as np

    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read_header(stream)
        if dtype.hasobject:
            _refuse_objects()
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or not dtype.itemsize or size != len(data) - stream.tell():
            raise UndecodableResultError(
                f"it is an .npy file whose header promises an array of shape {shown(shape)} and {size:,} bytes, "
                f"but {len(data) - stream.tell():,} bytes follow"
            )
        stream.seek(0)
        array: Array = np.load(stream, allow_pickle=False)
    except (UndecodableResultError, UnsafeResultError):
        raise
    except Exception as error:  # an untrusted file can go wrong anywhere, in any way
        raise UndecodableResultError(
            f"it is an .npy file, but a damaged one: {type(error).__name__}: {shown(error)}"
        ) from error
    return array


def _refuse_objects() -> NoReturn:
    raise UnsafeResultError(
        "it is an .npy file of Python objects, which are pickled inside; nothing of it was executed. "
        "Let the algorithm save arrays of numbers"
    )


def _npz(data: bytes, max_bytes: int) -> dict[str, Array]:
    # The directory is read into memory whole when the archive is opened, thus counted before.
    if data.count(b"PK\x01\x02") > MAX_MEMBERS:
        raise ResultTooLargeError(f"it is a zip archive of more than {MAX_MEMBERS} files")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if not members or not all(member.filename.endswith(".npy") for member in members):
                raise UndecodableResultError("it is a zip archive, but not one of .npy files alone")
            size = sum(member.file_size for member in members)
            if size > max_bytes:
                raise ResultTooLargeError(
                    f"it is an .npz file that unpacks to {size:,} bytes; {max_bytes:,} are allowed"
                )
            return {
                member.filename.removesuffix(".npy"): _npy(_unpacked(archive, member)) for member in members
            }
    except (UnsafeResultError, ResultTooLargeError, UndecodableResultError):
        raise
    except Exception as error:  # an untrusted file can go wrong anywhere, in any way
        raise UndecodableResultError(
            f"it is a zip archive, but a damaged one: {type(error).__name__}: {shown(error)}"
        ) from error


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Return a member's content; one that holds more than it says fails by its check sum."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UndecodableResultError("it is a zip archive of another compression than NumPy's")
    with archive.open(member) as stream:
        # With a size: without one, zipfile unpacks what is there before it looks at what was promised.
        return stream.read(member.file_size)


def _decode_text(data: bytes) -> DecodedResult:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _unknown(data) from error
    if "\0" in text:
        raise _unknown(data)
    if (parsed := _json(text)) is not None:
        return DecodedResult("json", parsed[0], "application/json")
    if (rows := _csv(text)) is not None:
        return DecodedResult("csv", rows, "text/csv")
    return DecodedResult("text", text, "text/plain")


def _unknown(data: bytes) -> UndecodableResultError:
    return UndecodableResultError(
        "it is no pickle, .npy, .npz, CSV, JSON, PNG, JPEG, GIF, WebP or UTF-8 text; "
        f"it begins with the bytes {data[:8].hex(' ')}"
    )


def _json(text: str) -> tuple[Any] | None:
    """Return the data in a tuple (it may be None itself), or None where the text is not JSON."""
    begin = text.lstrip(" \t\r\n")[:1]
    if begin not in tuple('{["-0123456789tfnNI'):
        return None
    if begin in ("{", "[") and sum(text.count(sign) for sign in "[{,") > MAX_VALUES:
        raise ResultTooLargeError(f"it looks like JSON of more than {MAX_VALUES:,} values")
    # Not left to the parser: it recurses in C, and where a library has raised Python's limit, that ends the process.
    depth = 0
    for found in _JSON_NESTING.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found[0], 0)
        if depth > MAX_DEPTH:
            raise UndecodableResultError(f"it is nested deeper than {MAX_DEPTH}, if it is JSON")
    try:
        return (json.loads(text),)
    except ValueError:
        return None


def _csv(text: str) -> list[list[str]] | None:
    """Return the rows, or None where the text is no table: every row as long as the first, of two cells at least.

    A single column counts as a table where every cell is a number.
    """
    first = next((line for line in io.StringIO(text) if line.strip()), "")
    delimiter = max(",;\t|", key=first.count)
    if sum(text.count(sign) for sign in (delimiter, "\n", "\r")) > MAX_VALUES:
        raise ResultTooLargeError(f"it looks like a table of more than {MAX_VALUES:,} cells")
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        rows = [row for row in reader if row]
    except csv.Error:
        return None
    width = len(rows[0]) if rows else 0
    if not width or any(len(row) != width for row in rows):
        return None
    enough = width > 1 and len(rows) > 1
    return rows if enough or all(_is_number(cell) for row in rows for cell in row) else None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
