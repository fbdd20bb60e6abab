"""Docker's log frames, in which an Ocean Node gives an algorithm's log: 8 bytes of header, then output or errors.

Source: Docker Engine API, "Attach to a container", stream format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_ocean.c2d.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FRAME_HEADER = 8
# Docker cuts lines far below this; a longer frame is no frame.
_LONGEST_FRAME = 1024 * 1024


class FrameDecoder:
    """Takes a log apart that arrives in pieces; both streams stay in the order of the log.

    A log that does not begin with a frame is plain text, and passes: of a program that could not be started a node writes
    there why. Source: Ocean Node 3.2.0, ``C2DEngineDocker.processJob``.


    :param what: what is done with the log, for the message
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._rest = b""
        self._framed: bool | None = None

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Yield what is in the frames that are complete now.

        :raises InvalidInputError: when something else follows a frame
        """
        self._rest += piece
        if self._framed is None and len(self._rest) >= FRAME_HEADER:
            self._framed = _begins_frame(self._rest)
        if self._framed is False:
            yield self._rest
            self._rest = b""
        while self._framed and len(self._rest) >= FRAME_HEADER:
            if not _begins_frame(self._rest):
                raise InvalidInputError(
                    f"{self._what}: what comes is no log in Docker's frames all through; does something between here and the "
                    "node change answers?"
                )
            end = FRAME_HEADER + _length(self._rest)
            if len(self._rest) < end:
                return
            yield self._rest[FRAME_HEADER:end]
            self._rest = self._rest[end:]

    def finish(self) -> bytes:
        """Return what there is of a frame that was cut off, as the log of a job that was killed may be."""
        return self._rest[FRAME_HEADER:] if _begins_frame(self._rest) else self._rest


def _begins_frame(content: bytes) -> bool:
    """Say whether content, or the little that there is of it, begins with the header of a frame."""
    return content[:1] <= b"\2" and not any(content[1:4]) and _length(content) <= _LONGEST_FRAME


def _length(content: bytes) -> int:
    return int.from_bytes(content[4:FRAME_HEADER], "big")


def decode_frames(pieces: Iterable[bytes], what: str) -> Iterator[bytes]:
    """Yield what is in the frames of a whole log, or the log itself when it has none.

    :param what: what is done with the log, for the message
    :raises InvalidInputError: when something else follows a frame
    """
    decoder = FrameDecoder(what)
    for piece in pieces:
        yield from decoder.feed(piece)
    if rest := decoder.finish():
        yield rest
