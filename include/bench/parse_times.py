"""How long the dag-processor takes for each DAG file, and for an empty one."""

from __future__ import annotations

from pathlib import Path

from include.bench.measurement import Bench, Table, Value, ratio
from include.bench.surroundings import airflow_settings, run_process
from include.localnet.settings import PROJECT

EMPTY = Path(__file__).parent / "dags" / "empty.py"


def measure(bench: Bench) -> list[Table]:
    """Parse each file in new processes, by turns."""
    environment = airflow_settings(bench.folder)
    files = [EMPTY, *sorted((PROJECT / "dags").glob("*.py"))]
    seconds: dict[Path, list[float]] = {file: [] for file in files}
    memory: dict[Path, list[float]] = {file: [] for file in files}
    heavy: dict[Path, list[str]] = {}
    for repetition in range(bench.repeats):
        bench.report(f"{len(files)} files, {repetition + 1} of {bench.repeats}")
        for file in files:
            found = run_process(bench.folder, "parse_process", {"file": str(file)}, environment)
            seconds[file].append(found["seconds"])
            memory[file].append(found["memory"])
            heavy[file] = found["heavy"]
    rows: list[tuple[Value, ...]] = [
        (
            "an empty DAG" if file == EMPTY else f"{file.parent.name}/{file.name}",
            [1000 * second for second in seconds[file]],
            ratio(seconds[file], seconds[EMPTY]),
            memory[file],
            ", ".join(heavy[file]) or "none",
        )
        for file in files
    ]
    columns = ("file", "parse, ms", "x empty", "memory, MB", "heavy imports")
    return [Table("Parsed in a new process in which Airflow is imported", columns, rows)]
