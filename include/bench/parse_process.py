"""One DAG file, parsed once as the dag-processor does it, in a new process."""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

from include.bench.surroundings import tell_result

# None of these may be imported at parse time: the linter's list in pyproject.toml, and what Airflow's providers bring along.
HEAVY = (
    "ocean_lib",
    "web3",
    "matplotlib",
    "numpy",
    "docker",
    "sklearn",
    "scipy",
    "eth_account",
    "boto3",
    "pandas",
)


def main(file: str) -> dict[str, Any]:
    """Parse a file.

    :returns: seconds, megabytes that the process grew by, and the heavy modules that it has imported
    """
    from airflow.dag_processing.dagbag import DagBag

    loaded = set(sys.modules)
    memory, begun = _memory(), time.perf_counter()
    bag = DagBag(file)
    seconds = time.perf_counter() - begun
    if bag.import_errors or not bag.dags:
        raise RuntimeError(f"{file} has no DAG, or errors: {bag.import_errors}")
    heavy = [name for name in HEAVY if name in sys.modules and name not in loaded]
    return {"seconds": seconds, "memory": _memory() - memory, "heavy": heavy}


def _memory() -> float:
    """Return the most that this process ever had in memory, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    tell_result(main)
