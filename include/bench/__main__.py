"""The command line of ``make bench``."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from include.bench import (
    demo_runs,
    network_memory,
    parse_times,
    request_counts,
    result_sizes,
    shared_wallet,
    waiting_jobs,
    wall_times,
)
from include.bench.measurement import Bench, Measurement, Outcome
from include.bench.tables import machine, to_json, to_markdown, write_docs
from include.demo.interrupts import Teardown
from include.localnet.settings import PROJECT

if TYPE_CHECKING:
    from collections.abc import Sequence

MEASUREMENTS = (
    Measurement("requests", "Requests, transactions and gas", request_counts.measure),
    Measurement("time", "Time of the flow", wall_times.measure),
    Measurement("publishing", "Publishing with one wallet, all at once", shared_wallet.measure),
    Measurement("waiting", "Waiting jobs in one triggerer", waiting_jobs.measure),
    Measurement("parsing", "Parsing the DAG files", parse_times.measure),
    Measurement("demo", "`make demo` again", demo_runs.measure),
    Measurement("memory", "Memory of the local network", network_memory.measure),
    Measurement("results", "Fetching results", result_sizes.measure),
)
PAGE = PROJECT / "docs" / "benchmarks.md"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make bench ARGS=…",
        description="Measure what the project costs, side by side with a straight ocean-lib script and with empty operators.",
    )
    names = [measurement.name for measurement in MEASUREMENTS]
    parser.add_argument(
        "--only",
        action="append",
        choices=names,
        metavar="NAME",
        help=f"one of {', '.join(names)}; repeatable",
    )
    parser.add_argument("--quick", action="store_true", help="the smallest sizes, once each: does it work?")
    parser.add_argument("--repeats", type=int, default=3, help="how many the medians are of (default: 3)")
    parser.add_argument(
        "--output",
        type=lambda text: Path(text).expanduser().resolve(),
        default=PROJECT / "build",
        help="folder for bench.json and bench.md (default: build)",
    )
    parser.add_argument(
        "--write-docs",
        action="store_true",
        help="put the tables into docs/benchmarks.md; all of them, not --quick",
    )
    return parser


def _run(measurement: Measurement, quick: bool, repeats: int) -> Outcome:
    def report(step: str) -> None:
        print(
            f"  {measurement.name:<12} {time.monotonic() - begun:6.1f} s  {step}", file=sys.stderr, flush=True
        )

    begun = time.monotonic()
    outcome = Outcome(measurement.name, measurement.title, 0.0)
    with tempfile.TemporaryDirectory(prefix="ocean-bench-", ignore_cleanup_errors=True) as folder:
        try:
            outcome.tables = measurement.measure(Bench(Path(folder), quick, repeats, report))
        except Exception as error:  # the others are worth having; the exit status tells
            outcome.error = f"{type(error).__name__}: {error}"
            report(f"failed: {outcome.error}")
    outcome.seconds = time.monotonic() - begun
    return outcome


def bench(arguments: argparse.Namespace) -> int:
    """Measure, print, write; return 1 when something could not be measured."""
    chosen = [m for m in MEASUREMENTS if not arguments.only or m.name in arguments.only]
    repeats = 1 if arguments.quick else arguments.repeats
    measured_on = machine()
    outcomes = [_run(measurement, arguments.quick, repeats) for measurement in chosen]
    options = {"quick": arguments.quick, "repeats": repeats, "only": arguments.only}
    markdown = to_markdown(measured_on, options, outcomes)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "bench.md").write_text(markdown)
    content = json.dumps(to_json(measured_on, options, outcomes), indent=2)
    (arguments.output / "bench.json").write_text(content + "\n")
    print(markdown)
    print(f"Written: {arguments.output / 'bench.md'}, {arguments.output / 'bench.json'}")
    failed = [outcome.name for outcome in outcomes if outcome.error]
    if failed:
        print(f"error: not measured: {', '.join(failed)}", file=sys.stderr)
        return 1
    if arguments.write_docs:
        write_docs(PAGE, markdown)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.repeats < 1:
        parser.error("--repeats must be 1 or more")
    if arguments.write_docs and (arguments.quick or arguments.only):
        parser.error("--write-docs wants all measurements at full size: leave --quick and --only out")
    return Teardown().run(lambda: bench(arguments))


if __name__ == "__main__":
    sys.exit(main())
