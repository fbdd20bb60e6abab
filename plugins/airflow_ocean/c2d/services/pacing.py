"""Room between the requests of one process to a service that takes only so many a minute."""

from __future__ import annotations

import asyncio
import weakref

# Seconds between two status requests to an Ocean Node. In its stock configuration it takes 30 requests a minute from an
# address: half of them are left to the tasks that publish, pay, start and fetch.
STATUS_SPACING = 4.0


class Pace:
    """Lets requests go one after another, in their order, with room between them.

    :param spacing: seconds
    """

    def __init__(self, spacing: float) -> None:
        self._spacing = spacing
        self._next = 0.0

    async def wait(self) -> None:
        """Wait for one's turn."""
        loop = asyncio.get_running_loop()
        turn = max(self._next, loop.time())
        self._next = turn + self._spacing
        await asyncio.sleep(turn - loop.time())


def pace_of(url: str, spacing: float = STATUS_SPACING) -> Pace:
    """Return what all requests to a service from the running event loop share."""
    paces = _paces.setdefault(asyncio.get_running_loop(), {})
    return paces.setdefault(url.rstrip("/"), Pace(spacing))


_paces: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Pace]] = weakref.WeakKeyDictionary()
