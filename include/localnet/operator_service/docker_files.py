"""A job's files on their way into a container and out of it: tar streams, packed from and unpacked into its folders."""

from __future__ import annotations

import io
import os
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from include.localnet.operator_service.jobspace import Folders

_CHUNK = 1 << 20
_BLOCK = tarfile.BLOCKSIZE
_DEEPEST = 64


def packed(folders: Folders) -> Iterator[bytes]:
    """Yield ``/data`` as the algorithm is to find it; what it may write to is open to whichever user the image has."""
    yield _header("data", mode=0o755, kind=tarfile.DIRTYPE)
    for folder in (folders.inputs, folders.ddos, folders.transformations):
        for place, below, files in os.walk(folder):
            inside = os.path.join("data", os.path.relpath(place, folders.root))
            below.sort()
            yield _header(inside, mode=0o755, kind=tarfile.DIRTYPE)
            for name in sorted(files):
                yield from _file(os.path.join(place, name), os.path.join(inside, name))
    for folder in (folders.outputs, folders.logs):
        yield _header(f"data/{folder.name}", mode=0o777, kind=tarfile.DIRTYPE)
    yield bytes(2 * _BLOCK)


def _header(name: str, *, mode: int, kind: bytes = tarfile.REGTYPE, size: int = 0) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.type, entry.size = mode, kind, size
    return entry.tobuf(tarfile.PAX_FORMAT)


def _file(path: str, name: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        yield _header(name, mode=os.fstat(file.fileno()).st_mode & 0o777, size=size)
        while chunk := file.read(_CHUNK):
            yield chunk
    yield bytes(-size % _BLOCK)


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
            raise TooMuch
        buffer[: len(part)] = part
        return len(part)


class TooMuch(Exception):
    """An archive is longer than was allowed."""


def unpack(chunks: Iterable[bytes], target: Path, most_bytes: int, most_files: int) -> str:
    """Unpack an archive of a folder that the algorithm wrote to, and return the limit that it passes as a clause.

    Only regular files that lie directly in the folder become files. Whatever else does, a link, a device or a folder,
    becomes an empty folder, so that it is reported and refused later and never followed.

    :param chunks: a tar of one folder, as the engine makes it
    :param target: an existing folder
    :return: empty when everything is in order
    """
    size = entries = 0
    root = ""
    # Headers take up to three blocks; names of more than a hundred bytes have one of their own.
    stream = io.BufferedReader(_Stream(chunks, most_bytes + most_files * 6 * _BLOCK + 20 * _BLOCK), _CHUNK)
    try:
        with tarfile.open(fileobj=stream, mode="r|", errors="surrogateescape") as archive:
            for member in archive:
                first, *parts = member.name.strip("/").split("/")
                root = root or first  # an engine's archive begins with the folder itself
                if first != root or not parts:
                    continue
                entries += 1
                size += member.size
                if entries > most_files:
                    return f"it made more than {most_files} files in outputs and logs"
                if size > most_bytes:
                    return f"it wrote more than {most_bytes} bytes to outputs and logs"
                if len(parts) > _DEEPEST:
                    return (
                        f"its output can't be counted, because folders are nested more than {_DEEPEST} deep"
                    )
                if len(parts) == 1:
                    _place(archive, member, os.path.join(os.fsencode(target), os.fsencode(parts[0])))
    except TooMuch:
        return f"it wrote more than {most_bytes} bytes to outputs and logs"
    return ""


def _place(archive: tarfile.TarFile, member: tarfile.TarInfo, path: bytes) -> None:
    if os.path.basename(path) in (b"", b".", b".."):
        return
    if member.isreg() and (content := archive.extractfile(member)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            while chunk := content.read(_CHUNK):
                file.write(chunk)
        return
    target = member.linkname.partition("/")[2]
    twin = os.path.join(os.path.dirname(path), os.fsencode(target))
    plain = target not in ("", ".", "..") and "/" not in target
    if member.islnk() and plain and os.path.isfile(twin):
        os.link(twin, path, follow_symlinks=False)
    else:
        os.mkdir(path, 0o700)
