"""What waits for one wallet's jobs cost in one triggerer, from one to thousands of them."""

from __future__ import annotations

from include.bench.measurement import Bench, Table, Value, middle, ratio
from include.bench.surroundings import airflow_settings, local_network, run_process

COUNTS, FEW = (1, 100, 1_000, 5_000), (1, 20)
INTERVAL, SHORT_INTERVAL = 5.0, 1.0
# Looks to measure, and ends of jobs to take the time of.
INTERVALS, ENDS = 6, 5


def measure(bench: Bench) -> list[Table]:
    """Wait for so many jobs, each number in a new process, on one network whose jobs never end by themselves."""
    interval = SHORT_INTERVAL if bench.quick else INTERVAL
    rows: list[tuple[Value, ...]] = []
    for count in FEW if bench.quick else COUNTS:
        runs = []
        for repetition in range(bench.repeats):
            bench.report(f"{count} jobs, {repetition + 1} of {bench.repeats}")
            folder = bench.folder / f"{count}-{repetition}"
            with local_network(folder) as settings:
                arguments = {
                    "home": str(settings.home),
                    "count": count,
                    "interval": interval,
                    "intervals": INTERVALS,
                    "ends": ENDS,
                }
                environment = airflow_settings(folder, settings)
                runs.append(run_process(folder, "waiting_process", arguments, environment))
        requests = [run["requests"] for run in runs]
        memory = [run["memory"] for run in runs]
        rows.append(
            (
                f"{count:,}",
                [run["first_requests"] for run in runs],
                requests,
                ratio(requests, count),
                [100 * run["cpu"] for run in runs],
                memory,
                1000 * middle(memory) / count,
                [delay for run in runs for delay in run["delays"]],
                max(delay for run in runs for delay in run["delays"]),
            )
        )
    columns = (
        "jobs",
        "requests at first",
        "requests / interval",
        "x one a job",
        "CPU, %",
        "memory, MB",
        "memory / job, kB",
        "end to event, s",
        "longest, s",
    )
    return [Table(f"One event loop, {interval:.0f} s between two looks", columns, rows)]
