"""Numbers and JSON as JavaScript writes them, because they are signed, hashed and compared as text."""

from __future__ import annotations

import json
import re
import time
from decimal import Decimal
from typing import Any

_INTEGER = re.compile(r"\s*([+-]?\d+)")
# Above this JavaScript writes an exponent.
_LARGEST_PLAIN = 10**21


def parse_int(text: Any) -> int | None:
    """Return what ``parseInt`` makes of a value, as the double that JavaScript has for it; None for NaN."""
    found = _INTEGER.match(str(text))
    if found is None:
        return None
    number = Decimal(found[1])
    # repr has the shortest digits that are this double, which is what JavaScript prints, too.
    return int(Decimal(repr(float(number)))) if abs(number) < _LARGEST_PLAIN else int(number)


def number_text(number: float) -> str:
    """Return a number as ``String(number)`` does."""
    return str(int(number)) if float(number).is_integer() else repr(float(number))


def now_text() -> str:
    """Return the time as the node stores it: seconds with at most three decimals."""
    return number_text(int(time.time() * 1000) / 1000)


def stringify(value: Any) -> str:
    """Return JSON as ``JSON.stringify`` writes it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
