"""The files of a compute job as tar streams: ``/data`` as it goes in, outputs as they come out and are not trusted."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_ocean.c2d.result_errors import ResultTooLargeError, UndecodableResultError, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_CHUNK = 1 << 20
_BLOCK = tarfile.BLOCKSIZE

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
    """A regular file that lies directly in the folder a job wrote to.

    :param name: as the job chose it: data, never a path
    :param size: bytes
    :param chunks: its content, to be read before the next output is asked for; None for a hard link
    :param same_as: for a hard link, the earlier output that it is
    """

    name: str
    size: int
    chunks: Iterator[bytes] | None
    same_as: str | None = None


@dataclass
class Outputs:
    """The outputs in an archive that the engine makes of a folder.

    As in a compute environment only regular files directly in the folder count. Nothing is unpacked to a path.

    :param chunks: the archive
    :param max_bytes: of all content together
    :param max_files: entries of any kind
    :param left_out: names of entries that are no results, filled while the outputs are read
    """

    chunks: Iterable[bytes]
    max_bytes: int
    max_files: int
    left_out: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Output]:
        """Yield the outputs.

        :raises ResultTooLargeError: there is more than allowed
        :raises UndecodableResultError: the archive is damaged
        """
        kept: set[str] = set()
        root = ""
        longest = self.max_bytes + (self.max_files + 1) * 6 * _BLOCK + 20 * _BLOCK
        stream = io.BufferedReader(_Stream(self.chunks, longest), _CHUNK)
        try:
            with tarfile.open(fileobj=stream, mode="r|", errors="backslashreplace") as archive:
                size = 0
                for number, member in enumerate(archive):
                    size += member.size
                    if size > self.max_bytes or number > self.max_files:
                        raise ResultTooLargeError(
                            f"The outputs are more than {self.max_bytes:,} bytes or {self.max_files:,} files; raise the "
                            "limit if they may be"
                        )
                    first, *parts = member.name.strip("/").split("/")
                    root = root or first  # an engine's archive begins with the folder itself
                    output = self._output(archive, member, parts, kept) if first == root else None
                    if output is not None:
                        kept.add(output.name)
                        yield output
        except tarfile.TarError as error:
            raise UndecodableResultError(
                f"The archive of the outputs is damaged: {shown(error)}; is the engine well?"
            ) from error

    def _output(
        self, archive: tarfile.TarFile, member: tarfile.TarInfo, parts: list[str], kept: set[str]
    ) -> Output | None:
        if len(parts) != 1 or parts[0] in ("", ".", ".."):
            return None
        _, _, target = member.linkname.partition("/")
        if member.islnk() and target in kept:
            return Output(parts[0], 0, None, same_as=target)
        content = archive.extractfile(member) if member.isreg() else None
        if content is None:
            self.left_out.append(parts[0])
            return None
        return Output(parts[0], member.size, iter(lambda: content.read(_CHUNK), b""))


class _Stream(io.RawIOBase):
    """Chunks as a file to read from, of which only so many bytes are ever taken."""

    def __init__(self, chunks: Iterable[bytes], limit: int) -> None:
        self._chunks, self._rest, self._left = iter(chunks), b"", limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            try:
                self._rest = next(self._chunks)
            except StopIteration:
                return 0
        part, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        self._left -= len(part)
        if self._left < 0:
            raise ResultTooLargeError("The archive of the outputs is longer than all of them may be")
        buffer[: len(part)] = part
        return len(part)
