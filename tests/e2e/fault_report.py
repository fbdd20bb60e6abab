"""What came of the fault cases: counts for the terminal, and a file with all of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.task_runner import FinishedTask


@dataclass
class CaseResult:
    """One task that was run under faults.

    :param planned: the faults, by the number of the request
    :param requests: how many the task makes without faults, where this was counted
    :param struck: those that came about: fault and request
    :param delays: seconds Airflow would have waited before each retry
    :param problem: what was wrong, None when all was right
    """

    scenario: str
    operator: str
    planned: list[str] = field(default_factory=list)
    struck: list[tuple[str, str]] = field(default_factory=list)
    state: str = ""
    tries: int = 0
    kills: int = 0
    delays: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0
    requests: int = 0
    problem: str | None = None

    def note(self, finished: FinishedTask) -> None:
        """Keep how the task ended."""
        self.state, self.tries, self.kills = finished.state, finished.tries, finished.kills
        self.delays, self.errors = finished.delays, finished.errors

    def __str__(self) -> str:
        return f"{self.scenario}, {self.planned}, struck {self.struck}: {self.problem}"


class FaultReport:
    """All results of a test run.

    :param seed: of the sample
    :param long: whether all cases run
    """

    def __init__(self, seed: int, long: bool) -> None:
        self.seed, self.long = seed, long
        self.results: list[CaseResult] = []

    def add(self, result: CaseResult) -> None:
        """Keep a result."""
        self.results.append(result)

    def summary(self) -> str:
        """Say in a line how many cases there were."""
        struck = sum(len(result.struck) for result in self.results)
        failed = sum(result.problem is not None for result in self.results)
        seconds = sum(result.seconds for result in self.results)
        which = "all" if self.long else "a sample"
        return (
            f"faults: {len(self.results)} cases ({which}, seed {self.seed}), {struck} faults struck, "
            f"{sum(result.kills for result in self.results)} processes killed, "
            f"{sum(result.tries > 1 for result in self.results)} tasks retried, {failed} failed, in {seconds:.0f} s"
        )

    def markdown(self) -> str:
        """Return the report."""
        names = list(dict.fromkeys(result.scenario for result in self.results))
        cases, failed = Counter[str](), Counter[str]()
        struck, tries = Counter[tuple[str, str]](), Counter[str]()
        for result in self.results:
            cases[result.scenario] += 1
            failed[result.scenario] += result.problem is not None
            tries[result.scenario] += result.tries
            for fault, _ in result.struck:
                struck[result.scenario, fault] += 1
        faults = list(dict.fromkeys(fault for _, fault in struck))
        requests = {result.scenario: result.requests for result in self.results if result.requests}
        head = ["scenario", "requests", "cases", "failed", "tries", *faults]
        lines = ["# Faults at requests", "", self.summary(), "", _row(head), _row(["---"] * len(head))]
        for name in names:
            counts = [str(struck[name, fault]) for fault in faults]
            lines.append(
                _row(
                    [
                        name,
                        str(requests.get(name, "")),
                        str(cases[name]),
                        str(failed[name]),
                        str(tries[name]),
                        *counts,
                    ]
                )
            )
        problems = [result for result in self.results if result.problem]
        lines += ["", "## Failed cases", "", *([f"```\n{result}\n```" for result in problems] or ["None."])]
        return "\n".join(lines) + "\n"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
