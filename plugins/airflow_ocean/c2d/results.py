"""Bringing a job's results home: streamed to where artifacts are kept, under safe names, with size and hash.

What reads them afterwards is :func:`decode_result`, which is offered here as well.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
import time
import unicodedata
from contextlib import suppress
from dataclasses import dataclass
from glob import escape
from typing import TYPE_CHECKING, Any, Protocol, Self

from airflow_ocean.c2d.decoding import DecodedResult, decode_result
from airflow_ocean.c2d.result_errors import (
    ResultTooLargeError,
    UndecodableResultError,
    UnsafeResultError,
    shown,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "DecodedResult",
    "ResultTooLargeError",
    "SavedArtifact",
    "UndecodableResultError",
    "UnsafeResultError",
    "artifact_name",
    "decode_result",
    "save_stream",
]

logger = logging.getLogger(__name__)

# Seconds between two lines in the log that say how far a long download is.
NEWS_INTERVAL = 10.0
_LONGEST_NAME = 120
_LONGEST_SUFFIX = 16
# What ``protocol`` is for paths of a file system; those of ``pathlib`` have none.
_WITH_FOLDERS = ("", "file", "local")


class ArtifactPath(Protocol):
    """Where an artifact goes: what ``pathlib.Path`` and Airflow's ``ObjectStoragePath`` have in common."""

    @property
    def name(self) -> str:
        """The last part of the path."""

    @property
    def parent(self) -> Self:
        """The folder."""

    def with_name(self, name: str) -> Self:
        """Another file of the same folder."""

    def mkdir(self, mode: int = ..., parents: bool = ..., exist_ok: bool = ...) -> None:
        """Make the folder, where the store has folders."""

    def open(self, mode: str) -> Any:
        """Open for writing bytes."""

    def replace(self, target: Any) -> Any:
        """Give the file another name."""

    def unlink(self, missing_ok: bool = ...) -> None:
        """Remove the file."""

    def glob(self, pattern: str) -> Iterator[Self]:
        """List the folder's files of a pattern."""


@dataclass(frozen=True)
class SavedArtifact:
    """An artifact that is complete and in its place.

    :param uri: where it is, in the notation of the path it was saved to
    :param name: its file name
    :param size: bytes
    :param sha256: hash of the content, 64 hexadecimal digits
    """

    uri: str
    name: str
    size: int
    sha256: str


def save_stream(chunks: Iterable[bytes], target: ArtifactPath, max_bytes: int) -> SavedArtifact:
    """Write a download to its place, chunk by chunk, so that the place holds all of it or nothing.

    It is written under a temporary name beside the target and renamed when it is complete. What an earlier attempt left
    there when its process was killed is removed first.

    :param chunks: the content; closed in the end, if it can be
    :param target: where to, its folder is made where the store has folders; a file that is there is replaced
    :param max_bytes: how large it may be
    :raises ResultTooLargeError: there is more than that; nothing is kept
    """
    if getattr(target, "protocol", "") in _WITH_FOLDERS:  # in an object store this would make the bucket
        target.parent.mkdir(parents=True, exist_ok=True)
    for left_over in list(target.parent.glob(f".{escape(target.name)}.*.part")):
        left_over.unlink(missing_ok=True)
    unfinished = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    digest, size = hashlib.sha256(), 0
    news = time.monotonic() + NEWS_INTERVAL
    try:
        with unfinished.open("wb") as stream:
            for chunk in chunks:
                size += len(chunk)
                if size > max_bytes:
                    raise ResultTooLargeError(
                        f"The result {shown(target.name)} is larger than the {max_bytes:,} bytes allowed; "
                        "nothing of it was kept. Raise the limit if it may be"
                    )
                digest.update(chunk)
                stream.write(chunk)
                if time.monotonic() >= news:
                    logger.info("%s: %.1f MB until now", shown(target.name), size / 1e6)
                    news = time.monotonic() + NEWS_INTERVAL
        unfinished.replace(target)
    except BaseException:  # an interrupt or a task's time-out, too, may not leave half a file
        with suppress(Exception):
            unfinished.unlink(missing_ok=True)
        raise
    finally:
        if hasattr(chunks, "close"):
            chunks.close()  # ends the download behind a generator that was not read to its end
    return SavedArtifact(uri=str(target), name=target.name, size=size, sha256=digest.hexdigest())


def artifact_name(untrusted: str, index: int | str) -> str:
    """Make a file name out of one that comes from outside; it can be read, but never be a path.

    Letters and digits of any script, ``.``, ``_`` and ``-`` stay; everything else becomes ``_``. The index in front makes it
    unique within its job, keeps it off names that a system reserves, and off hidden ones.

    :param untrusted: the name the service gave, whatever it is
    :param index: the result's number in its job; what is unpacked of a result has another behind it, such as ``3.0``
    """
    # Full-width dots and slashes become plain ones here, before paths are cut off.
    text = unicodedata.normalize("NFKC", untrusted)
    text = re.split(r"[/\\]", text.rstrip("/\\"))[-1]
    text = "".join(sign if sign.isalnum() or sign in "._-" else "_" for sign in text)
    text = re.sub(r"_{2,}", "_", re.sub(r"\.{2,}", ".", text)).strip("._- ")
    return f"{index}-{_shortened(text) or 'unnamed'}"


def _shortened(text: str) -> str:
    """Cut a name to what file systems take, and keep its suffix."""
    if len(text.encode()) <= _LONGEST_NAME:
        return text
    stem, suffix = os.path.splitext(text)
    if len(suffix.encode()) > _LONGEST_SUFFIX:
        stem, suffix = text, ""
    kept = stem.encode()[: _LONGEST_NAME - len(suffix.encode())]
    return kept.decode(errors="ignore") + suffix
