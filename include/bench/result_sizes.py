"""Fetching small and large results: the package's throughput and memory beside curl's and ocean-lib's."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from include.bench.measurement import Bench, Table, Value, ratio
from include.bench.surroundings import airflow_settings, local_network, place, run_process

SIZES, SMALL = (10**6, 10**8, 10**9), (10**6, 10**7)
WAYS = ("curl", "package", "ocean-lib")
ALGORITHM = Path(__file__).parent / "algorithms" / "write_bytes.py"


def measure(bench: Bench) -> list[Table]:
    """Let a job write each size, then fetch its output each way, by turns.

    :raises FileNotFoundError: when there is no curl
    """
    if shutil.which("curl") is None:
        raise FileNotFoundError("curl is not installed, with which fetching is compared (apt install curl)")
    rows: list[tuple[Value, ...]] = []
    with local_network(bench.folder) as settings:
        settings.files_folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(ALGORITHM, settings.files_folder)
        sizes = SMALL if bench.quick else SIZES
        environment = airflow_settings(bench.folder)
        bench.report("jobs that write the results")
        jobs = {
            "network": place(settings),
            "data_url": f"{settings.files_url}/branin.arff",
            "algorithm_url": f"{settings.files_url}/{ALGORITHM.name}",
            "custom_data": [{"bytes": size} for size in sizes],
            "wait": True,
        }
        for size, job_id in zip(sizes, run_process(bench.folder, "jobs_process", jobs), strict=True):
            found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
            for repetition in range(bench.repeats):
                bench.report(f"{size // 10**6:,} MB, {repetition + 1} of {bench.repeats}")
                for way in WAYS:
                    fetch: dict[str, Any] = {
                        "network": place(settings),
                        "how": way,
                        "job_id": job_id,
                    }
                    fetch["target"] = str(bench.folder / "fetched")
                    run = run_process(bench.folder, "fetch_process", fetch, environment)
                    if run["bytes"] != size:
                        raise RuntimeError(f"{way} fetched {run['bytes']:.0f} bytes instead of {size}")
                    found[way].append(run)
            rows += [_row(size, way, found) for way in WAYS]
    columns = ("result", "by", "MB/s", "x curl", "more memory, MB")
    return [Table("Throughput, and memory beside what the process has before", columns, rows)]


def _row(size: int, way: str, found: dict[str, list[dict[str, Any]]]) -> tuple[Value, ...]:
    speed = {name: [size / 1e6 / run["seconds"] for run in found[name]] for name in (way, "curl")}
    return (
        f"{size // 10**6:,} MB",
        way,
        speed[way],
        ratio(speed[way], speed["curl"]),
        None if way == "curl" else [run["memory"] for run in found[way]],
    )
