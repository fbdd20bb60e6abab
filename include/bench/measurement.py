"""What a measurement is given, and what it gives: tables of figures."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from pathlib import Path

# A list holds the repetitions of one figure; it is shown as their median.
Value: TypeAlias = str | float | int | None | Sequence[float]


@dataclass(frozen=True)
class Table:
    """Figures side by side.

    :param columns: headings, with units
    :param rows: as many values each; None where there is nothing to compare
    """

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Value, ...]]


@dataclass(frozen=True)
class Bench:
    """One measurement's surroundings.

    :param folder: an empty folder of its own, deleted afterwards
    :param quick: take the smallest sizes: to see that it works, not for figures to be shown
    :param repeats: how often to repeat what a median is taken of
    :param report: called with a line for each step
    """

    folder: Path
    quick: bool
    repeats: int
    report: Callable[[str], None]


@dataclass(frozen=True)
class Measurement:
    """A part of `make bench`.

    :param name: what ``--only`` takes
    :param title: its heading
    :param measure: does it
    """

    name: str
    title: str
    measure: Callable[[Bench], list[Table]]


@dataclass
class Outcome:
    """What came of a measurement.

    :param seconds: how long it took
    :param error: why there are no tables
    """

    name: str
    title: str
    seconds: float
    tables: list[Table] = field(default_factory=list)
    error: str | None = None


def middle(value: Value) -> Any:
    """Return the median of repetitions, any other value as it is."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return statistics.median(value) if value else None
    return value


def ratio(value: Value, base: Value) -> float | None:
    """Return how many times one figure is another, by their medians; None without a base."""
    part, whole = middle(value), middle(base)
    return None if part is None or not whole else float(part) / float(whole)
