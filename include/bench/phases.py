"""The flow's phases, by the names under which script and DAG are compared, and the time each takes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from include.bench.proxy import mark

if TYPE_CHECKING:
    from collections.abc import Iterable

# In the order of the flow; "rehearse", which is skipped, "approve" and "plot" are the DAG's alone.
PHASES = (
    "connect",
    "rehearse",
    "approve",
    "publish dataset",
    "publish algorithm",
    "allow",
    "transfer",
    "choose",
    "pay",
    "start",
    "wait",
    "fetch",
    "plot",
)
# What is asked between two tasks.
BETWEEN = "between tasks"
PHASE_OF_TASK = {
    "rehearse_algorithm": "rehearse",
    "approve_spending": "approve",
    "publish_dataset": "publish dataset",
    "publish_algorithm": "publish algorithm",
    "allow_algorithm": "allow",
    "transfer_datatokens": "transfer",
    "choose_assets": "choose",
    "pay_for_compute": "pay",
    "start_compute": "start",
    "wait_for_compute": "wait",
    "fetch_and_plot.fetch_results": "fetch",
    "fetch_and_plot.plot": "plot",
}


def in_order(found: Iterable[str]) -> list[str]:
    """Sort phases as the flow has them; those that are not known come last."""
    names = set(found)
    return [*(phase for phase in PHASES if phase in names), *sorted(names.difference(PHASES))]


class Stopwatch:
    """Seconds of each phase of a run; every phase is told to the counting proxy, if there is one.

    :param run: name of the run, which stands before the phase's
    """

    def __init__(self, run: str) -> None:
        self._run, self._begun = run, time.monotonic()
        self._current: str | None = None
        self.seconds: dict[str, float] = {}

    def begin(self, phase: str | None) -> None:
        """End the current phase and begin another, or none."""
        now = time.monotonic()
        if self._current is not None:
            self.seconds[self._current] = self.seconds.get(self._current, 0.0) + now - self._begun
        if phase != self._current:
            mark(f"{self._run}: {phase or BETWEEN}")
        self._current, self._begun = phase, time.monotonic()
