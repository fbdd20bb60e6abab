"""Runs of the DAG while workers, triggerer, scheduler, API server, local services and chain are killed at random moments.

``OCEAN_CHAOS=long`` makes it 20 runs (or ``OCEAN_CHAOS_RUNS``), ``OCEAN_CHAOS_SEED`` chooses other moments,
``OCEAN_CHAOS_VICTIMS`` (separated by commas) who is killed; ``OCEAN_CHAOS_REPORT`` names a file for a report.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from tests.support.chaos import TASKS, VICTIMS, Chaos, Ledger, plans, report
from tests.support.reports import write_section

if TYPE_CHECKING:
    from include.localnet.settings import NetworkSettings
    from tests.support.running_airflow import MortalAirflow

pytestmark = [pytest.mark.e2e, pytest.mark.chaos, pytest.mark.both_stacks]

LONG = os.environ.get("OCEAN_CHAOS") == "long"
RUNS = int(os.environ.get("OCEAN_CHAOS_RUNS") or (20 if LONG else 2))
SEED = int(os.environ.get("OCEAN_CHAOS_SEED") or 20250102)
AT_ONCE = 2
# Seconds for the runs that go on at once; each may lose several tries, and the machine may be busy.
PATIENCE = 1800


def _victims() -> list[str]:
    named = os.environ.get("OCEAN_CHAOS_VICTIMS")
    victims = named.split(",") if named else list(VICTIMS)
    assert set(victims) <= VICTIMS.keys(), f"OCEAN_CHAOS_VICTIMS may name {', '.join(VICTIMS)}"
    return victims


@pytest.mark.timeout(PATIENCE * (RUNS + 1))
def test_every_run_ends_well_and_nothing_is_done_twice(
    mortal_airflow: MortalAirflow, mortal_network: NetworkSettings
) -> None:
    print(f"seed {SEED}, {RUNS} runs")
    chaos, ledger = Chaos(mortal_airflow, mortal_network), Ledger(mortal_airflow, mortal_network)
    before = ledger.totals()
    conf = ledger.conf()
    (fault_free,) = chaos.run({0: []}, PATIENCE, **conf)
    assert fault_free.state == "success"
    assert fault_free.tries == dict.fromkeys(TASKS, 1)
    expected = ledger.of_run(fault_free.run)
    assert {"orders": 2, "jobs": 1}.items() <= expected.items()
    begun = ledger.totals()
    each = {name: count - before[name] for name, count in begun.items()}
    assert (each["NFTCreated"], each["TokenCreated"], each["jobs"]) == (2, 2, 1)

    planned = plans(random.Random(SEED), _victims(), RUNS)
    runs = []
    for first in range(1, RUNS + 1, AT_ONCE):
        batch = {number: planned[number] for number in range(first, min(first + AT_ONCE, RUNS + 1))}
        runs += chaos.run(batch, PATIENCE, **conf)
        text = report(SEED, runs, fault_free.seconds)
        write_section(text)
    print(text)

    assert {run.number: run.state for run in runs} == dict.fromkeys(planned, "success"), text
    for run in runs:
        assert ledger.of_run(run.run) == expected, f"run {run.number}\n{text}"
    grown = {name: count - begun[name] for name, count in ledger.totals().items()}
    assert grown == {name: RUNS * count for name, count in each.items()}, text
    assert not list(mortal_airflow.home.rglob("*.part")), text
    if LONG:
        # A run may be over before all that was planned for it has come about, but not each time.
        assert {victim for run in runs for victim, _ in run.kills} == set(_victims()), text
