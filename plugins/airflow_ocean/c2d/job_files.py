"""The files of a compute job as tar streams: ``/data`` as it goes in, outputs as they come out and are not trusted."""

from __future__ import annotations

import contextlib
import io
import struct
import tarfile
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Self

from airflow_ocean.c2d.result_errors import ResultTooLargeError, UndecodableResultError, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_CHUNK = 1 << 20
_BLOCK = tarfile.BLOCKSIZE
# How much of an archive is read ahead, bytes.
_BUFFER = tarfile.RECORDSIZE
# All headers of one entry, bytes: those of two paths of Linux's longest, with room. Of all entries: some blocks for each.
_LONGEST_HEADERS = 16 * 1024
_LONGEST_PATH = 4096

ALGORITHM = "/data/transformations/algorithm"
"""Where the algorithm lies in a compute job; an entrypoint's ``$ALGO``."""

CUSTOM_DATA = "inputs/algoCustomData.json"
WRITABLE = ("outputs", "logs")
FOLDERS = ("inputs", "ddos", "transformations")


@dataclass(frozen=True)
class JobFile:
    """A file that a job finds.

    :param name: where, below ``/data``
    :param content: a local file, or the bytes themselves
    """

    name: str
    content: Path | bytes
    executable: bool = False


def packed(files: Iterable[JobFile]) -> Iterator[bytes]:
    """Yield a tar of ``/data`` for unpacking at ``/``; what a job may write to is open to every user of the container."""
    made = {""}
    for name, mode in (("", 0o755), *((f, 0o755) for f in FOLDERS), *((f, 0o777) for f in WRITABLE)):
        made.add(name)
        yield _header(name, mode, kind=tarfile.DIRTYPE)
    for file in files:
        parts = file.name.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            if folder not in made:
                made.add(folder)
                yield _header(folder, 0o755, kind=tarfile.DIRTYPE)
        yield from _packed_file(file)
    yield bytes(2 * _BLOCK)


def _packed_file(file: JobFile) -> Iterator[bytes]:
    mode = 0o755 if file.executable else 0o644
    if isinstance(file.content, bytes):
        yield _header(file.name, mode, len(file.content))
        yield file.content
        size = len(file.content)
    else:
        size = file.content.stat().st_size
        yield _header(file.name, mode, size)
        with file.content.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                yield chunk
    yield bytes(-size % _BLOCK)


def _header(name: str, mode: int, size: int = 0, kind: bytes = tarfile.REGTYPE) -> bytes:
    entry = tarfile.TarInfo(f"data/{name}".rstrip("/"))
    entry.mode, entry.size, entry.type = mode, size, kind
    return entry.tobuf(tarfile.PAX_FORMAT)


@dataclass
class Output:
    """A regular file in the folder a job wrote to.

    :param name: as the job chose it, below that folder, with slashes where it lies deeper: data, never a path
    :param size: bytes
    :param chunks: its content, to be read before the next output is asked for; None for a hard link
    :param same_as: for a hard link, the name of the earlier output that it is
    """

    name: str
    size: int
    chunks: Iterator[bytes] | None
    same_as: str | None = None


def most_headers(max_files: int) -> int:
    """Return how long an archive without content can be, bytes, that has no more entries than these."""
    return (max_files + 1) * 6 * _BLOCK + 20 * _BLOCK


@dataclass
class Outputs:
    """The outputs in an archive that was made of the folder a job wrote to; it begins with that folder itself.

    Nothing is unpacked to a path, and no more of the archive is in memory than a piece of a file or an entry's headers.

    :param chunks: the archive, a tar that is not compressed
    :param max_bytes: of all content together
    :param max_files: entries of any kind
    :param nested: whether files in folders below count, too, as for an Ocean Node; for a Provider they don't
    :param left_out: names of entries that are no results, filled while the outputs are read
    """

    chunks: Iterable[bytes]
    max_bytes: int
    max_files: int
    nested: bool = False
    left_out: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Output]:
        """Yield the outputs.

        :raises ResultTooLargeError: there is more than allowed
        :raises UndecodableResultError: the archive is damaged, or cut off
        """
        root, total, sizes = "", 0, dict[str, int]()
        position, headers = 0, most_headers(self.max_files)
        stream = _Stream(self.chunks)
        with (
            _damage_named(),
            tarfile.open(
                fileobj=stream, mode="r|", bufsize=_BUFFER, tarinfo=_Header, errors="backslashreplace"
            ) as archive,
        ):
            number = 0
            while (member := archive.next()) is not None:
                # Otherwise both grow with every entry. Headers for all further entries, which no engine writes, hold for
                # the next one only.
                archive.members.clear()  # type: ignore[attr-defined]
                archive.pax_headers = {}
                if member.size < 0:
                    raise tarfile.ReadError("an entry has a negative size")
                first, *parts = member.name.strip("/").split("/")
                root = root or first
                output = self._output(archive, member, parts if first == root else None, sizes)
                total += max(member.size, output.size if output else 0)
                if total > self.max_bytes or number > self.max_files:
                    raise ResultTooLargeError(
                        f"The outputs are more than {self.max_bytes:,} bytes or {self.max_files:,} files; raise the "
                        "limit if they may be"
                    )
                headers -= member.offset_data - position
                position = archive.offset
                stream.allow(position)
                if output is not None:
                    sizes[output.name] = output.size
                    yield output
                stream.allow(position + min(_LONGEST_HEADERS, headers))
                number += 1

    def _output(
        self,
        archive: tarfile.TarFile,
        member: tarfile.TarInfo,
        parts: list[str] | None,
        sizes: dict[str, int],
    ) -> Output | None:
        """Return an entry as an output, None when it is none.

        :param parts: of its name below the folder, None when it is not below it
        :param sizes: by name, those of earlier outputs, for hard links
        """
        if parts == [] or (member.isdir() and parts and self.nested):
            return None
        name = "/".join(parts or ())
        if not parts or len(name) > _LONGEST_PATH or not {"", ".", ".."}.isdisjoint(parts):
            self.left_out.append(member.name)
            return None
        if len(parts) > 1 and not self.nested:
            return None  # the folder is among those that are left out
        _, _, target = member.linkname.partition("/")
        if member.islnk() and target in sizes:
            return Output(name, sizes[target], None, same_as=target)
        # No engine writes sparse entries, and reading one that was made up may never end.
        content = archive.extractfile(member) if member.isreg() and not member.issparse() else None
        if content is None:
            self.left_out.append(name)
            return None
        return Output(name, member.size, _content(content))


class _Header(tarfile.TarInfo):
    """A header; one that cannot be read is an error, and not taken for the archive's end as it usually is."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise  # a block of zeros, which is the end
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


@contextlib.contextmanager
def _damage_named() -> Iterator[None]:
    # The reader lets numbers and texts that are none, or headers within headers, through to where they fail.
    try:
        yield
    except (
        tarfile.TarError,
        ArithmeticError,
        LookupError,
        RecursionError,
        ValueError,
        struct.error,
    ) as error:
        raise UndecodableResultError(
            f"The archive of the outputs is damaged: {shown(error)}; is the service that packed it well?"
        ) from error


def _content(file: IO[bytes]) -> Iterator[bytes]:
    with _damage_named():
        while chunk := file.read(_CHUNK):
            yield chunk


class _Stream(io.RawIOBase):
    """Chunks as a file to read from, of which only so many bytes are ever taken."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks, self._rest, self._taken = iter(chunks), b"", 0
        self.allow(_LONGEST_HEADERS)

    def allow(self, until: int) -> None:
        """Let the archive be read until a position, bytes."""
        self._limit = until + _BUFFER

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            try:
                self._rest = next(self._chunks)
            except StopIteration:
                return 0
        part, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        self._taken += len(part)
        if self._taken > self._limit:
            raise ResultTooLargeError(
                "The archive of the outputs is longer than all of them may be, or has an entry with too long a description"
            )
        buffer[: len(part)] = part
        return len(part)
