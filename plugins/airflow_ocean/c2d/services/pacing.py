"""Room between the requests of one process to a service that takes only so many a minute."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from typing import TYPE_CHECKING

from airflow_ocean.c2d.errors import RateLimitedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# Seconds between two status requests to an Ocean Node. In its stock configuration it takes 30 requests a minute from an
# address: half of them are left to the tasks that publish, pay, start and fetch.
STATUS_SPACING = 4.0
# After a refusal there is twice the room, as somebody else at the same address asks as well; after a success a bit less again.
_SLOWER, _QUICKER, _WIDEST = 2.0, 0.9, 60.0
# Seconds until a node that does not say when may be asked again.
_NEXT_TRY = 20.0


class Pace:
    """Lets requests go one after another, in their order, with room between them.

    :param spacing: seconds
    """

    def __init__(self, spacing: float) -> None:
        self._least = self._spacing = spacing
        # When the next turn is, and until when the service wants to be left alone, on the loop's clock.
        self._next = self._quiet_until = 0.0
        self._turns = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for one's turn, and learn from the answer. Whoever is cancelled while waiting takes no turn.

        :raises RateLimitedError: when the service has asked somebody else for silence: whoever wants a turn may have a
            deadline before its end
        """
        loop = asyncio.get_running_loop()
        async with self._turns:
            while True:
                if (quiet := self._quiet_until - loop.time()) > 0:
                    raise RateLimitedError(
                        f"the service wants no request from this machine for another {quiet:.0f} s",
                        retry_after=quiet,
                    )
                if (left := self._next - loop.time()) <= 0:
                    break
                await asyncio.sleep(left)
            self._next = loop.time() + self._spacing
        try:
            yield
        except RateLimitedError as error:
            self._spacing = min(self._spacing * _SLOWER, _WIDEST)
            self._quiet_until = max(self._quiet_until, loop.time() + (error.retry_after or _NEXT_TRY))
            raise
        self._spacing = max(self._spacing * _QUICKER, self._least)


def pace_of(url: str, spacing: float = STATUS_SPACING) -> Pace:
    """Return what all requests to a service from the running event loop share."""
    paces = _paces.setdefault(asyncio.get_running_loop(), {})
    return paces.setdefault(url.rstrip("/"), Pace(spacing))


_paces: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Pace]] = weakref.WeakKeyDictionary()
