"""A function that draws, for the plot operator under faults: at its first call it has its own process killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, BinaryIO

# Large, so that saving it takes long enough to be killed in the middle.
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(60_000_000)


def draw(_value: Any, stream: BinaryIO, *, marker: str, dies: str) -> None:
    """Write a picture.

    :param marker: file that is there from the first call on
    :param dies: ``before`` it draws anything, in the ``middle``, or ``never``
    """
    first = not Path(marker).exists()
    Path(marker).touch()
    if first and dies == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    stream.write(PICTURE[: len(PICTURE) // 2])
    if first and dies == "middle":
        os.kill(os.getpid(), signal.SIGKILL)
    stream.write(PICTURE[len(PICTURE) // 2 :])
