"""The header ``Retry-After``: how long a service asks to wait before the next request."""

from __future__ import annotations

import math
import time
from email.utils import parsedate_to_datetime

# A service that asks for more does not know it either, and the task is to be looked at by then.
LONGEST = 24 * 3600.0


def seconds(header: str | None) -> float | None:
    """Return how many seconds the header asks to wait from now; None when it is not there, or says nothing sensible.

    It holds a number of seconds or a date, https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3
    """
    if header is None:
        return None
    try:
        wait = float(header)
    except ValueError:
        try:
            wait = parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
        wait = max(wait, 0.0)
    return min(wait, LONGEST) if math.isfinite(wait) and wait >= 0 else None
