"""All compute runs that a user may see: found, filtered, added up and paged in a fixed number of queries."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from sqlalchemy import ColumnElement, exists, or_, select
from sqlalchemy.orm import aliased

from airflow_ocean.ui import steps
from airflow_ocean.ui.amounts import Cost, Tokens, asset_entries, total
from airflow_ocean.ui.records import OCEAN_OPERATORS, RETURN_VALUE, SETTLED_JOB, same_task
from airflow_ocean.ui.steps import seconds_between
from airflow_ocean.ui.story import ordered_assets, short

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime

    from sqlalchemy.orm import Session

PAGE_SIZE = 25
# The newest runs that are looked through; older ones are still in Airflow's own lists.
MOST_RUNS = 5_000
_COMPUTE_OPERATORS = (steps.PAY, steps.START, steps.WAIT)
_COMPUTE_KEYS = ("order", "consumer_address")
_KEYS = (
    "order",
    "cost",
    "assets",
    "tokens",
    "asset_name",
    "datatoken_address",
    "nft_address",
    "consumer_address",
    SETTLED_JOB,
)


@dataclass
class ComputeRun:
    """One line of the page.

    :param names: DID → name, of its datasets and its algorithms
    :param settled: the jobs that its tasks brought the costs of up to date
    :param plot: task id and map index of its last plot
    """

    dag_id: str
    run_id: str
    state: str
    started: datetime | None
    ended: datetime | None
    datasets: dict[str, str] = field(default_factory=dict)
    algorithms: dict[str, str] = field(default_factory=dict)
    jobs: int = 0
    costs: list[Cost] = field(default_factory=list)
    settled: list[str] = field(default_factory=list)
    plot: tuple[str, int] | None = None

    @property
    def cost(self) -> Cost:
        """What it cost altogether."""
        return total(self.costs)

    @property
    def seconds(self) -> float | None:
        """How long it took."""
        return seconds_between(self.started, self.ended)


@dataclass(frozen=True)
class Filters:
    """What a user wants to see; empty for all.

    :param asset: part of the name, or of the DID, of a dataset or algorithm
    :param algorithm: the same of the algorithm alone
    :param state: of the run
    """

    asset: str = ""
    algorithm: str = ""
    state: str = ""
    dag: str = ""

    def accept(self, run: ComputeRun) -> bool:
        """Say whether a run is wanted."""
        return (
            self.state in ("", run.state)
            and self.dag in ("", run.dag_id)
            and _mentions(self.algorithm, run.algorithms)
            and _mentions(self.asset, run.datasets | run.algorithms)
        )

    @property
    def given(self) -> dict[str, str]:
        """Those that are set, for the addresses of other pages of the same list."""
        fields = {"asset": self.asset, "algorithm": self.algorithm, "state": self.state, "dag": self.dag}
        return {name: value for name, value in fields.items() if value}


@dataclass(frozen=True)
class Overview:
    """One page of the list, and what holds for all of it.

    :param found: how many runs the filters leave
    :param is_complete: whether all runs were looked at
    """

    runs: list[ComputeRun]
    found: int
    page: int
    pages: int
    cost: Cost
    tokens: Tokens
    states: Counter[str]
    dags: list[str]
    datasets: list[str]
    algorithms: list[str]
    is_complete: bool


def look(session: Session, dag_ids: Collection[str], filters: Filters, page: int) -> Overview:
    """Return a page of the compute runs of some DAGs, newest first."""
    runs = _runs(session, dag_ids)
    is_complete = len(runs) <= MOST_RUNS
    tokens = Tokens()
    runs = {number: runs[number] for number in list(runs)[:MOST_RUNS]}
    _describe(session, runs, tokens)
    _settle(session, dag_ids, {key: run for key, run in runs.items() if run.cost.locked or run.settled})
    listed = list(runs.values())
    wanted = [run for run in listed if filters.accept(run)]
    pages = max(1, -(-len(wanted) // PAGE_SIZE))
    page = min(max(page, 1), pages)
    shown = wanted[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]
    _find_plots(session, shown)
    return Overview(
        runs=shown,
        found=len(wanted),
        page=page,
        pages=pages,
        cost=total(run.cost for run in wanted),
        tokens=tokens,
        states=Counter(run.state for run in wanted),
        dags=sorted({run.dag_id for run in listed}),
        datasets=_names(listed, lambda run: run.datasets),
        algorithms=_names(listed, lambda run: run.algorithms),
        is_complete=is_complete,
    )


def _runs(session: Session, dag_ids: Collection[str]) -> dict[int, ComputeRun]:
    """Return the newest runs that have to do with a computation, by the run's number in the database."""
    has_task = exists().where(
        TaskInstance.dag_id == DagRun.dag_id,
        TaskInstance.run_id == DagRun.run_id,
        TaskInstance.operator.in_(_COMPUTE_OPERATORS),
    )
    has_xcom = exists().where(XComModel.dag_run_id == DagRun.id, XComModel.key.in_(_COMPUTE_KEYS))
    rows = session.execute(
        select(DagRun.id, DagRun.dag_id, DagRun.run_id, DagRun.state, DagRun.start_date, DagRun.end_date)
        .where(DagRun.dag_id.in_(dag_ids), or_(has_task, has_xcom))
        .order_by(DagRun.run_after.desc(), DagRun.id.desc())
        .limit(MOST_RUNS + 1)
    )
    return {
        row.id: ComputeRun(row.dag_id, row.run_id, str(row.state), row.start_date, row.end_date)
        for row in rows
    }


def _describe(session: Session, runs: dict[int, ComputeRun], tokens: Tokens) -> None:
    """Fill in assets, costs and jobs."""
    for number, xcoms in _pushed(session, _KEYS, XComModel.dag_run_id.in_(runs)):
        tokens.learn(xcoms)
        _add(runs[number], xcoms)


def _pushed(
    session: Session, keys: Collection[str], *where: ColumnElement[bool]
) -> list[tuple[int, dict[str, Any]]]:
    """Return what tasks pushed, with the number of its run; a line for each task, in the order of the runs."""
    rows = session.execute(
        select(XComModel.dag_run_id, XComModel.task_id, XComModel.map_index, XComModel.key, XComModel.value)
        .where(XComModel.key.in_(keys), *where)
        .order_by(XComModel.dag_run_id)
    )
    tasks: dict[tuple[int, str, int], dict[str, Any]] = {}
    for row in rows:
        task = tasks.setdefault((row.dag_run_id, row.task_id, row.map_index), {})
        task[row.key] = XComModel.deserialize_value(row)
    return [(number, xcoms) for (number, _, _), xcoms in tasks.items()]


def _beside(key: str) -> ColumnElement[bool]:
    """Say of an XCom whether its task pushed this one, too."""
    other = aliased(XComModel)
    same = (
        getattr(other, name) == getattr(XComModel, name) for name in ("dag_run_id", "task_id", "map_index")
    )
    return exists().where(other.key == key, *same)


def _add(run: ComputeRun, xcoms: dict[str, Any]) -> None:
    names = {entry["did"]: str(entry.get("name") or "") for entry in asset_entries(xcoms) if entry.get("did")}
    for kind, entry in ordered_assets(xcoms.get("order")):
        did = entry["did"]
        found = run.datasets if kind == "dataset" else run.algorithms
        found[did] = names.get(did) or found.get(did) or short(did)
    if "consumer_address" in xcoms:
        run.jobs += 1
    if SETTLED_JOB in xcoms:
        run.settled.append(str(xcoms[SETTLED_JOB]))
    elif isinstance(xcoms.get("cost"), dict):
        # Also one of nothing, which tells a run that has paid nothing from one that has not paid.
        run.costs.append(Cost.parse(xcoms["cost"]))


def _settle(session: Session, dag_ids: Collection[str], runs: dict[int, ComputeRun]) -> None:
    """Add what was claimed for jobs to the costs of the runs that started them.

    A node claims long after a job's own run, so it is another run that says so as a rule.
    """
    if not runs:
        return
    started = _pushed(session, [RETURN_VALUE], XComModel.dag_run_id.in_(runs), _beside("consumer_address"))
    settled = _pushed(session, [SETTLED_JOB, "cost"], XComModel.dag_id.in_(dag_ids), _beside(SETTLED_JOB))
    final = {str(xcoms[SETTLED_JOB]): Cost.parse(xcoms.get("cost")) for _, xcoms in settled}
    jobs = {str(xcoms[RETURN_VALUE]): number for number, xcoms in started}
    for job, number in jobs.items():
        if job in final:
            runs[number].costs.append(final[job])
    for run in runs.values():
        run.costs += [final[job] for job in run.settled if job in final and job not in jobs]


def _find_plots(session: Session, runs: list[ComputeRun]) -> None:
    """Find the last plot of each run of the page, which sums up the others where there are several."""
    if not runs:
        return
    by_id = {(run.dag_id, run.run_id): run for run in runs}
    rows = session.execute(
        select(XComModel.dag_id, XComModel.run_id, XComModel.task_id, XComModel.map_index, XComModel.value)
        .join(TaskInstance, same_task(XComModel))
        .where(
            XComModel.dag_id.in_({run.dag_id for run in runs}),
            XComModel.run_id.in_({run.run_id for run in runs}),
            XComModel.key == RETURN_VALUE,
            TaskInstance.operator.like(OCEAN_OPERATORS),
            TaskInstance.state == "success",
        )
        .order_by(XComModel.timestamp)
    )
    for row in rows:
        run = by_id.get((row.dag_id, row.run_id))
        if run is not None and str(row.value).lower().rstrip('"').endswith(".png"):
            run.plot = (row.task_id, row.map_index)


def _mentions(text: str, names: dict[str, str]) -> bool:
    wanted = text.strip().casefold()
    return not wanted or any(wanted in part.casefold() for item in names.items() for part in item)


def _names(runs: list[ComputeRun], of: Callable[[ComputeRun], dict[str, str]]) -> list[str]:
    return sorted({name for run in runs for name in of(run).values()})
