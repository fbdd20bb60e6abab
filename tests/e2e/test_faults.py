"""Every operator under every fault at every request: what it does is there exactly once.

By default a seeded sample runs, which has each operator under each fault that leaves open whether the request was carried
out, and under one of the others. With OCEAN_CHAOS=long a fault strikes at each request of each scenario, and each fault at
each request of those that stand for an operator.
OCEAN_CHAOS_SEED changes the sample, OCEAN_CHAOS_REPORT names a Markdown file for the results, and OCEAN_CHAOS_REQUESTS has
a part of the long form: "5-8" are these requests of each scenario, "5-" what is left of one that was cut off there.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from airflow.sdk import ObjectStoragePath

from airflow_ocean.artifacts import Artifact, Manifest
from tests.conftest import STACK
from tests.e2e import fault_scenarios, fault_scenarios_node
from tests.e2e.fault_drawing import PICTURE, draw
from tests.e2e.fault_report import CaseResult, FaultReport
from tests.e2e.fault_scenarios import FETCH, Scenario
from tests.support.fault_proxy import Fault
from tests.support.reports import write_section
from tests.support.task_runner import FinishedTask, Task, TaskRunner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.fault_case import Case
    from tests.e2e.fault_world import World
    from tests.support.fault_proxy import Request

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.chaos,
    pytest.mark.both_stacks,
    pytest.mark.timeout(4 * 3600),
]
SCENARIOS = fault_scenarios_node.NODE_SCENARIOS if STACK == "node" else fault_scenarios.SCENARIOS

LONG = os.environ.get("OCEAN_CHAOS") == "long"
SEED = int(os.environ.get("OCEAN_CHAOS_SEED", "20250102"))
PART = os.environ.get("OCEAN_CHAOS_REQUESTS", "1-")
CONNECTION = "ocean_faulty"
PLOT = "airflow_ocean.operators.plots:OceanPlotOperator"
# What a hanging service costs a test, seconds, where real life waits for half a minute. It holds for the requests that no
# fault strikes, too, and those take a second where the machine has much else to do.
TIMEOUT = 3.0
TIMEOUTS = {
    "airflow_ocean.c2d.chain:RPC_TIMEOUT": TIMEOUT,
    "airflow_ocean.c2d.services.http:TIMEOUT": httpx.Timeout(TIMEOUT),
}
# How long a start that nobody heard the answer of is waited for: longer than the time-out, as in real life.
UNDER_WAY = {"airflow_ocean.c2d.starting:UNDER_WAY": 2 * TIMEOUT}

# What strikes one case: for each attempt, the number of the request and the fault.
Strikes = list[tuple[int, Fault]]


@pytest.fixture(scope="module")
def report(pytestconfig: pytest.Config) -> Iterator[FaultReport]:
    made = FaultReport(SEED, LONG)
    yield made
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(f"\n{made.summary()}")
    write_section(made.markdown())


def sampled() -> dict[str, list[tuple[float, Fault]]]:
    """Choose, for each scenario, faults and how far into the task they strike.

    Each operator meets each fault that leaves open what was done in one of its scenarios, and one of the others.
    """
    chance = random.Random(SEED)
    chosen: dict[str, list[tuple[float, Fault]]] = {scenario.name: [] for scenario in SCENARIOS}
    others = [fault for fault in Fault if not fault.may_be_done]
    chance.shuffle(others)
    turns = itertools.cycle(others)
    for _, group in itertools.groupby(SCENARIOS, key=lambda scenario: scenario.group):
        names = [scenario.name for scenario in group]
        faults = [fault for fault in Fault if fault.may_be_done]
        faults.append(next(turns))
        chance.shuffle(faults)
        # In turn, so that no scenario stays without a fault.
        for name, fault in zip(itertools.cycle(names), faults, strict=False):
            chosen[name].append((chance.random(), fault))
    return chosen


SAMPLED = sampled()


class Faulty:
    """Runs cases of one scenario, each in a folder of its own."""

    def __init__(self, world: World, scenario: Scenario, folder: Path, report: FaultReport) -> None:
        self.world, self.scenario, self.folder, self.report = world, scenario, folder, report
        self.requests = 0
        self.attempts: list[list[Request]] = []
        self._numbers = itertools.count()

    def run(self, strikes: Strikes) -> CaseResult:
        """Run a fresh case; without strikes it measures how many requests there are, and is cleared and run again."""
        folder = self.folder / str(next(self._numbers))
        folder.mkdir()
        case = self.scenario.prepare(self.world, folder)
        began = time.monotonic()
        result = CaseResult(self.scenario.name, self.scenario.operator)
        self.world.proxy.struck.clear()
        self.attempts.clear()
        runner = self._runner(case, folder, strikes)
        try:
            finished = runner.run()
            result.note(finished)
            if not strikes:
                self.requests = result.requests = len(self.world.proxy.requests)
            self._judge(case, finished, strikes)
            if not strikes:
                self._clear(case, runner, finished)
        except pytest.exit.Exception:  # is an Exception, too; the whole test run was told to end
            raise
        except Exception as error:
            result.problem = f"{type(error).__name__}: {error}\n{_end_of(folder / 'log')}"
        finally:
            runner.close()
            self.world.proxy.watch()
        result.struck = [(fault.value, request.describe()) for fault, request in self.world.proxy.struck]
        result.planned = [f"{fault.name} at request {number}" for number, fault in strikes]
        result.seconds = round(time.monotonic() - began, 3)
        self.report.add(result)
        if result.problem is None:
            shutil.rmtree(folder)
        return result

    def _runner(self, case: Case, folder: Path, strikes: Strikes) -> TaskRunner:
        proxy = self.world.proxy

        def arm(attempt: int) -> None:
            faults = dict([strikes[attempt - 1]]) if attempt <= len(strikes) else {}
            proxy.arm(faults, self.scenario.retry_after)
            self.attempts.append(proxy.requests)

        task = Task(
            self.scenario.operator,
            {"ocean_conn_id": CONNECTION, **case.arguments},
            {f"AIRFLOW_CONN_{CONNECTION.upper()}": self.world.connection(case.private_key)},
            UNDER_WAY | (TIMEOUTS if any(fault.hangs for _, fault in strikes) else {}),
        )
        return TaskRunner(task, folder / "database", folder / "log", arm, proxy.watch)

    def _judge(self, case: Case, finished: FinishedTask, strikes: Strikes) -> None:
        struck = self.world.proxy.struck
        assert finished.state == self.scenario.state, f"it ended {finished.state}: {finished.errors}"
        assert finished.tries <= 1 + len(struck), f"{finished.tries} tries: {finished.errors}"
        assert finished.kills == sum(fault.kills for fault, _ in struck)
        if [fault for fault, _ in struck] == [Fault.ERROR_429] and finished.tries > 1:
            assert finished.delays[0] >= self.scenario.retry_after, "Retry-After was not kept to"
        case.verify(finished)

    def _clear(self, case: Case, runner: TaskRunner, before: FinishedTask) -> None:
        """Run the task again as Airflow does when it is cleared: all is as it was."""
        again = runner.run()
        assert again.state == before.state
        assert again.xcoms.get("return_value") == before.xcoms.get("return_value")
        case.verify(again)


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:] if log.exists() else ""


def _is_full(scenario: Scenario, requests: int) -> bool:
    """Say whether the long form has each fault at each request; in variants of another scenario two of them do."""
    return scenario.full or requests <= 12


def _chosen_requests(requests: int) -> range:
    """Return the numbers of the requests that the long form breaks."""
    matched = re.fullmatch(r"(\d+)-(\d*)", PART)
    assert matched, f'OCEAN_CHAOS_REQUESTS is "{PART}"; it is to be like "5-8" or "5-"'
    first, last = matched.groups()
    chosen = range(max(int(first), 1), min(int(last or requests), requests) + 1)
    if not chosen:
        pytest.skip(f"it makes {requests} requests, none of them in OCEAN_CHAOS_REQUESTS={PART}")
    return chosen


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_everything_is_there_exactly_once(
    world: World, scenario: Scenario, tmp_path: Path, report: FaultReport
) -> None:
    faulty = Faulty(world, scenario, tmp_path, report)
    assert faulty.run([]).problem is None, report.results[-1].problem
    assert faulty.requests
    chance = random.Random(f"{SEED} {scenario.name}")
    chosen = _chosen_requests(faulty.requests) if LONG else range(1, faulty.requests + 1)
    if LONG:
        single = [
            (number, fault)
            for number in chosen
            for fault in (
                list(Fault) if _is_full(scenario, faulty.requests) else chance.sample(list(Fault), 2)
            )
        ]
        doubles = max(len(single) // 10, 10)
    else:
        single = [(1 + int(far * faulty.requests), fault) for far, fault in SAMPLED[scenario.name]]
        doubles = 0
    cases: list[Strikes] = [[strike] for strike in single]
    for _ in range(doubles):
        cases.append([(chance.choice(chosen), chance.choice(list(Fault))) for _ in range(2)])
    failed = [result for result in map(faulty.run, cases) if result.problem]
    write_section(report.markdown())
    assert not failed, "\n\n".join(str(result) for result in failed)


def _downloads(requests: list[Request]) -> list[str]:
    """Return the results that were asked for, by their number in the job."""
    urls = [urlsplit(request.path) for request in requests]
    return [parse_qs(url.query)["index"][0] for url in urls if "computeResult" in url.path]


def test_a_fetch_goes_on_with_what_is_missing(world: World, tmp_path: Path, report: FaultReport) -> None:
    (scenario,) = [scenario for scenario in SCENARIOS if scenario.operator == FETCH]
    faulty = Faulty(world, scenario, tmp_path, report)
    measured = faulty.run([])
    assert measured.problem is None, measured.problem
    whole, cleared = map(_downloads, faulty.attempts)
    assert len(whole) == len(set(whole)) > 2
    assert cleared == []
    (last,) = [
        number for number, request in enumerate(faulty.attempts[0], 1) if _downloads([request]) == whole[-1:]
    ]
    interrupted = faulty.run([(last, Fault.KILL_WITHIN)])
    assert interrupted.problem is None, interrupted.problem
    first, second = map(_downloads, faulty.attempts)
    assert (first, second) == (whole, whole[-1:])


def test_a_file_that_was_damaged_is_fetched_again(world: World, tmp_path: Path, report: FaultReport) -> None:
    (scenario,) = [scenario for scenario in SCENARIOS if scenario.operator == FETCH]
    faulty = Faulty(world, scenario, tmp_path, report)
    case = scenario.prepare(world, tmp_path)
    runner = faulty._runner(case, tmp_path, [])
    runner.run()
    (large,) = tmp_path.rglob("*-large")
    large.write_bytes(large.read_bytes()[:-1])
    case.verify(runner.run())
    runner.close()
    world.proxy.watch()
    # Of a file out of an archive the name begins with the archive's number, a dot, and its own.
    assert _downloads(faulty.attempts[-1]) == [large.name.split("-")[0].split(".")[0]]


@pytest.mark.parametrize("dies", ["before", "middle", "saving", "saved"])
def test_a_plot_is_there_whole(tmp_path: Path, airflow_home: Path, report: FaultReport, dies: str) -> None:
    """Plotting asks nobody, so its process is killed where it works on files."""
    result = b"1,2\n3,4\n"
    (tmp_path / "result.csv").write_bytes(result)
    digest = hashlib.sha256(result).hexdigest()
    artifact = Artifact("result.csv", f"file://{tmp_path}/result.csv", "output", len(result), digest)
    manifest = Manifest("a job", None, [], [artifact]).write(ObjectStoragePath(f"file://{tmp_path}/manifest"))
    base = tmp_path / "artifacts"
    arguments = {
        "manifest": manifest,
        "render": f"{draw.__module__}:{draw.__name__}",
        "render_options": {"marker": f"{tmp_path}/marker", "dies": dies},
        "artifact_base": str(base),
        "ocean_conn_id": CONNECTION,
    }
    connection = {
        "conn_type": "ocean",
        "host": "http://127.0.0.1:9",
        "extra": {"provider_url": "http://127.0.0.1:9"},
    }
    task = Task(PLOT, arguments, {f"AIRFLOW_CONN_{CONNECTION.upper()}": json.dumps(connection)})
    pids: list[int] = []
    runner = TaskRunner(task, tmp_path / "database", tmp_path / "log", on_process=pids.append)
    with _killing(pids, base, dies):
        finished = runner.run()
    runner.close()
    outcome = CaseResult("plot", PLOT, [f"killed {dies}"])
    outcome.note(finished)
    report.add(outcome)
    assert finished.state == "success", finished.errors
    if dies in ("before", "middle"):
        assert (finished.tries, finished.kills) == (2, 1)
    (plot,) = [path for path in base.rglob("*") if path.is_file()]
    assert finished.xcoms["return_value"] == f"file://{plot}"
    assert plot.read_bytes() == PICTURE


@contextlib.contextmanager
def _killing(pids: list[int], base: Path, dies: str) -> Iterator[None]:
    """Kill the first process when it has begun to save, or has just saved."""
    if dies in ("before", "middle"):
        yield
        return
    pattern = ".*.part" if dies == "saving" else "plot.png"
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            if pids and any(base.rglob(pattern)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pids[0], signal.SIGKILL)
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
