"""Waiting for a condition, never for a time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str, timeout: float = 120.0, pause: float = 0.02) -> T:
    """Return the first true value of a condition.

    :param what: the condition in words, for the failure
    :param timeout: seconds until the test fails
    :param pause: seconds between two looks, where looking costs something
    """
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"after {timeout:.0f} s it is still not so that {what}")
        time.sleep(pause)
