"""What this process has asked and need not ask again for a while: endpoints, environments, constants of a chain."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_kept: dict[tuple[Any, ...], tuple[float, Any]] = {}


def cached(key: tuple[Any, ...], seconds: float, ask: Callable[[], T]) -> T:
    """Return what was answered before, unless it is too old; an error is not kept.

    :param key: what is asked, and whom
    :param seconds: how long an answer is good
    :param ask: asks
    """
    known = _kept.get(key)
    if known is not None and time.monotonic() < known[0]:
        answer: T = known[1]
        return answer
    answer = ask()
    _kept[key] = (time.monotonic() + seconds, answer)
    return answer


def forget() -> None:
    """Ask everything anew from now on."""
    _kept.clear()
