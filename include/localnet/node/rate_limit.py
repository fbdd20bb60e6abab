"""The limit of requests a minute and client, upstream's ``MAX_REQ_PER_MINUTE``."""

from __future__ import annotations

import math
import threading
import time

_WINDOW = 60.0


class RateLimit:
    """Counts each client's requests in windows of a minute that begin with a request.

    :param limit: requests a window; 0 for no limit
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._windows: dict[str, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def refusal(self, client: str) -> str:
        """Count a request and return why it is refused, an empty text when it is not.

        :param client: its address, or what the request itself says in ``X-Forwarded-For``, as upstream
        """
        if not self._limit:
            return ""
        now = time.monotonic()
        with self._lock:
            began, count = self._windows.get(client, (now, 0))
            if now - began > _WINDOW:
                began, count = now, 0
            if count >= self._limit:
                left = math.ceil(_WINDOW - (now - began))
                return f"Rate limit exceeded. Try again in {left} seconds."
            self._windows[client] = began, count + 1
        return ""
