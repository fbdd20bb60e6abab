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

    :param what: what is done with the log, for the message
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._rest = b""

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Yield what is in the frames that are complete now.

        :raises InvalidInputError: when the log is no sequence of frames
        """
        self._rest += piece
        while len(self._rest) >= FRAME_HEADER:
            length = int.from_bytes(self._rest[4:FRAME_HEADER], "big")
            if self._rest[0] > 2 or self._rest[1:4] != bytes(3) or length > _LONGEST_FRAME:
                raise InvalidInputError(
                    f"{self._what}: what comes is no log in Docker's frames; does something between here and the node change "
                    "answers?"
                )
            if len(self._rest) < FRAME_HEADER + length:
                return
            yield self._rest[FRAME_HEADER : FRAME_HEADER + length]
            self._rest = self._rest[FRAME_HEADER + length :]

    def finish(self) -> bytes:
        """Return what there is of a frame that was cut off, as the log of a job that was killed may be."""
        return self._rest[FRAME_HEADER:]


def decode_frames(pieces: Iterable[bytes], what: str) -> Iterator[bytes]:
    """Yield what is in the frames of a whole log.

    :param what: what is done with the log, for the message
    :raises InvalidInputError: when the log is no sequence of frames
    """
    decoder = FrameDecoder(what)
    for piece in pieces:
        yield from decoder.feed(piece)
    if rest := decoder.finish():
        yield rest
