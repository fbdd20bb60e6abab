"""`make demo` when everything is installed: the first time in a new folder, and again, phase by phase."""

from __future__ import annotations

import os
import re
import sys
import time
from typing import TYPE_CHECKING

from include.bench.measurement import Bench, Table, Value, ratio
from include.demo.environment import ARTIFACTS_VARIABLE
from include.demo.processes import CommandError, end_of, start, stop
from include.localnet.settings import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

_STEP = re.compile(r"^  (\S.*?) {2,}(?:up|ready|success) +([0-9.]+) s", re.MULTILINE)
_LONGEST = 600.0


def measure(bench: Bench) -> list[Table]:
    """Run the demo once more often than it is repeated."""
    home = bench.folder / "demo"
    bench.report("the first time")
    first = _run(bench.folder, home)
    again = []
    for repetition in range(bench.repeats):
        bench.report(f"again, {repetition + 1} of {bench.repeats}")
        again.append(_run(bench.folder, home))
    rows: list[tuple[Value, ...]] = []
    for step, seconds in first.items():
        later = [run[step] for run in again]
        rows.append((step, seconds, later, ratio(later, seconds)))
    return [Table("Seconds", ("step", "first", "again", "again / first"), rows)]


def _run(folder: Path, home: Path) -> dict[str, float]:
    """Run the demo and return each step's seconds; those of the network and of Airflow are since the begin."""
    log = folder / "demo.log"
    log.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "PYTHONPATH": str(PROJECT),
        ARTIFACTS_VARIABLE: str(folder / "artifacts"),
    }
    begun = time.monotonic()
    command = [sys.executable, "-m", "include.demo", "run", "--home", str(home)]
    process = start(command, environment=environment, log=log)
    try:
        status = process.wait(_LONGEST)
        seconds = time.monotonic() - begun
    finally:
        if process.poll() is None:
            stop((process, 30))
    if status:
        raise CommandError(f"the demo ended with status {status}: {end_of(log)}")
    steps = {step: float(text) for step, text in _STEP.findall(log.read_text())}
    return {**steps, "all, its end included": seconds}
