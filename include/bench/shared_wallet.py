"""Many tasks publish with one wallet, on a chain that makes a block a second: all at once, and one after another."""

from __future__ import annotations

from typing import Any

from include.bench.measurement import Bench, Table, Value, ratio
from include.bench.surroundings import local_network, place, run_process

TASKS, FEW = 16, 3


def measure(bench: Bench) -> list[Table]:
    """Publish both ways on one network, by turns."""
    count = FEW if bench.quick else TASKS
    found: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    with local_network(bench.folder, block_time=1) as settings:
        for repetition in range(bench.repeats):
            for parallel in (True, False):
                way = "at once" if parallel else "one after another"
                bench.report(f"{count} publishes {way}, {repetition + 1} of {bench.repeats}")
                arguments = {
                    "network": place(settings),
                    "file_url": f"{settings.files_url}/branin.arff",
                    "count": count,
                    "parallel": parallel,
                }
                found[parallel].append(run_process(bench.folder, "publishing_process", arguments))
    seconds = {way: [run["seconds"] for run in runs] for way, runs in found.items()}
    rows: list[tuple[Value, ...]] = [
        (
            f"{count} {'at once' if way else 'one after another'}",
            seconds[way],
            ratio(seconds[way], seconds[False]),
            [run["transactions"] for run in found[way]],
            [run["blocks"] for run in found[way]],
        )
        for way in (False, True)
    ]
    columns = ("publishes", "seconds", "x one after another", "transactions", "blocks they are in")
    return [Table("One wallet, a block a second", columns, rows)]
