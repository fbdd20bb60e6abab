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
    if is_known(key):
        answer: T = _kept[key][1]
        return answer
    answer = ask()
    keep(key, seconds, answer)
    return answer


def keep(key: tuple[Any, ...], seconds: float, answer: Any) -> None:
    """Keep what was learned in another way than by asking for it."""
    _kept[key] = (time.monotonic() + seconds, answer)


def is_known(key: tuple[Any, ...]) -> bool:
    """Say whether there is an answer that is not too old."""
    return key in _kept and time.monotonic() < _kept[key][0]


def forget() -> None:
    """Ask everything anew from now on."""
    _kept.clear()
