"""Memory of the local network: when nothing happens, and while eight jobs run."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import httpx

from include.bench.measurement import Bench, Table, Value
from include.bench.surroundings import local_network, place, run_process
from include.localnet import network
from include.localnet.accounts import BOB
from include.localnet.settings import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable

    from include.localnet.settings import NetworkSettings

JOBS, FEW = 8, 2
SAMPLES = 5
_RUNNING = 40
# The example's jobs would be over before all are started: each stays so many seconds longer, with all that it has loaded.
_STAY, _STAY_OF_FEW = 20, 5
_LONGEST = 600.0


def measure(bench: Bench) -> list[Table]:
    """Look at all processes of a network, idle and busy."""
    count = FEW if bench.quick else JOBS
    with local_network(bench.folder, MAX_JOBS=str(count)) as settings:
        bench.report("idle")
        idle: dict[str, list[float]] = {}
        for _ in range(SAMPLES):
            for part, memory in _memory(settings).items():
                idle.setdefault(part, []).append(memory)
            time.sleep(0.2)
        bench.report(f"{count} jobs")
        peak, most = _with_jobs(bench, settings, count)
    rows: list[tuple[Value, ...]] = [
        (part, idle[part], peak[part], peak[part] - min(idle[part])) for part in (*idle,)
    ]
    columns = ("part", "idle, MB", f"with {count} jobs at most, MB", "more, MB")
    return [Table(f"Resident memory; {most} jobs ran at once", columns, rows)]


def _memory(settings: NetworkSettings) -> dict[str, float]:
    parts = {part.name: part.memory for part in network.status(settings)}
    return {**parts, "all": sum(parts.values())}


def _with_jobs(bench: Bench, settings: NetworkSettings, count: int) -> tuple[dict[str, float], int]:
    """Run jobs of the example; return the most memory of each part, and how many jobs ran at once."""
    peak: dict[str, float] = {}
    running: list[int] = [0]
    jobs_started = threading.Event()

    def look() -> bool:
        for part, memory in _memory(settings).items():
            peak[part] = max(peak.get(part, 0.0), memory)
        jobs = _jobs(settings)
        running.append(sum(int(job["status"]) == _RUNNING for job in jobs))
        return jobs_started.is_set() and len(jobs) == count and all(job["dateFinished"] for job in jobs)

    settings.files_folder.mkdir(parents=True, exist_ok=True)
    example = (PROJECT / "include/branin/algorithm.py").read_text()
    stay = _STAY_OF_FEW if bench.quick else _STAY
    staying = example.replace(
        "sys.exit(main())", f'status = main()\n    __import__("time").sleep({stay})\n    sys.exit(status)'
    )
    (settings.files_folder / "staying.py").write_text(staying)
    sampler = _Sampler(look)
    sampler.start()
    try:
        arguments = {
            "network": place(settings),
            "data_url": f"{settings.files_url}/branin.arff",
            "algorithm_url": f"{settings.files_url}/staying.py",
            "custom_data": [{"seed": seed} for seed in range(count)],
            "wait": False,
        }
        run_process(bench.folder, "jobs_process", arguments)
        jobs_started.set()
    finally:
        sampler.finish(_LONGEST if jobs_started.is_set() else 0.0)
    return peak, max(running)


class _Sampler(threading.Thread):
    """Looks again and again until there is nothing more to see."""

    def __init__(self, look: Callable[[], bool]) -> None:
        super().__init__(daemon=True)
        self._look, self._ending, self._error = look, threading.Event(), None

    _error: Exception | None

    def run(self) -> None:
        try:
            while not self._ending.is_set() and not self._look():
                self._ending.wait(0.1)
        except Exception as error:  # told by finish()
            self._error = error

    def finish(self, seconds: float) -> None:
        """Wait for the end, but not longer than this.

        :raises TimeoutError: when it takes longer
        """
        self.join(seconds)
        late = self.is_alive()
        self._ending.set()
        self.join()
        if self._error is not None:
            raise self._error
        if late and seconds:
            raise TimeoutError(f"the jobs were not over after {seconds:.0f} s")


def _jobs(settings: NetworkSettings) -> list[dict[str, Any]]:
    url = f"{settings.provider_url}/api/services/compute"
    answer = httpx.get(url, params={"consumerAddress": BOB.address}, timeout=60, trust_env=False)
    answer.raise_for_status()
    listed: list[dict[str, Any]] = answer.json()
    return listed
