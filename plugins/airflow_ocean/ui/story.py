"""From a run's records to its story: assets, orders, jobs, plots and artifacts, whatever DAG they come from."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_ocean.c2d.services import shows_running_log
from airflow_ocean.running_log import LOG_TAIL_KEY
from airflow_ocean.ui import steps
from airflow_ocean.ui.amounts import (
    Cost,
    Tokens,
    asset_entries,
    is_final,
    objects,
    settlement,
    total,
    whole_number,
)
from airflow_ocean.ui.records import RETURN_VALUE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_ocean.c2d.jobs import Job
    from airflow_ocean.ui.records import RunRecord, TaskRecord
    from airflow_ocean.ui.steps import Step

_HASH = re.compile(r"0x[0-9a-fA-F]{64}")
_EXPLORER = re.compile(r"(https?://[^\s\"'<>]+)/(?:tx|address)/0x[0-9a-fA-F]+")
_COMPLETED = 70
_MOST_ASKED = 10
# Where a job stands, by the least code of each phase.
_PHASES = ((0, "preparing"), (40, "computing"), (50, "publishing"), (_COMPLETED, "done"))


@dataclass
class Asset:
    """A dataset or an algorithm of the run."""

    did: str
    name: str = ""
    kind: str = ""
    nft_address: str = ""
    datatoken: str = ""
    transactions: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Order:
    """What a task paid for.

    :param items: DID and order transaction of each asset, the algorithm last; none where no order is needed
    :param valid_until: until when the environment is paid, None where that is not by the time
    :param cost: when it was paid
    :param final: in the end, where the job was paid through the escrow; None while that is not known
    """

    task: TaskRecord
    environment: str
    provider_url: str
    valid_until: datetime | None
    items: list[tuple[str, str]]
    cost: Cost
    final: Cost | None


@dataclass(frozen=True)
class Moment:
    """A state of a job and when it was first seen.

    :param at: None when nobody looked at that moment
    """

    text: str
    phase: str
    at: datetime | None


@dataclass(frozen=True)
class Segment:
    """A piece of a job's time line, in thousandths of its width."""

    phase: str
    text: str
    x: int
    width: int


@dataclass
class ComputeJob:
    """A compute job of the run.

    :param start: the task that started it
    :param waits: the tasks that wait for it
    :param live: how the Provider says it stands, asked while it runs
    """

    id: str
    provider_url: str = ""
    consumer_address: str = ""
    start: TaskRecord | None = None
    waits: list[TaskRecord] = field(default_factory=list)
    live: Job | None = None
    unreachable: str = ""

    @property
    def is_watched(self) -> bool:
        """Whether a task that waits for it on a triggerer keeps its time line up to date, so that nobody else need ask."""
        return any(task.state == "deferred" and task.xcoms.get("states") for task in self.waits)

    @property
    def is_running(self) -> bool:
        """Whether it runs, as far as anybody has asked."""
        return self.is_watched if self.live is None else not self.live.is_finished

    @property
    def running_log(self) -> str | None:
        """The end of what it has logged until now, None when its service does not give that before the job's end."""
        if self.is_over or (self.live is not None and self.live.is_finished):
            return None
        return next((text for task in self.waits if (text := task.text(LOG_TAIL_KEY)) is not None), None)

    @property
    def log_comes_later(self) -> bool:
        """Whether it runs, and what it logs is shown only when it is over."""
        return self.is_running and not shows_running_log(self.id)

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for it any more."""
        return bool(self.waits) and all(task.is_over for task in self.waits)

    @property
    def status(self) -> str:
        """Its last known state in words."""
        for task in self.waits:
            if text := task.text("status"):
                return text
        if self.live is not None:
            return self.live.text
        seen = self.moments
        return seen[-1].text if seen else "not started"

    @property
    def outcome(self) -> str:
        """How it stands, as one of the colours of the page."""
        states = {task.state for task in self.waits}
        if "failed" in states:
            return "failed"
        if states == {"success"}:
            return "success"
        return "waiting" if self.is_over else "running"

    @property
    def seconds(self) -> float | None:
        """How long it ran, as the Provider counts."""
        if self.live is not None and self.live.duration is not None:
            return self.live.duration
        found = [task.xcoms.get("duration") for task in self.waits]
        return next((float(item) for item in found if isinstance(item, int | float)), None)

    @property
    def moments(self) -> list[Moment]:
        """Its states, oldest first: as the waiting tasks saw them, else what its tasks' times tell."""
        seen: dict[tuple[str, str], Moment] = {}
        for task in self.waits:
            for state in objects(task.xcoms.get("states")):
                code, at = whole_number(state.get("state")), _moment(state.get("at"))
                moment = Moment(str(state.get("text") or "unknown state"), phase(code), at)
                seen.setdefault((moment.text, moment.phase), moment)
        moments = sorted(seen.values(), key=lambda moment: moment.at or datetime.max.replace(tzinfo=UTC))
        if not moments and self.start is not None and self.start.ended is not None:
            moments = [Moment("Job started", "preparing", self.start.ended)]
        if self.live is not None and self.live.text not in {moment.text for moment in moments}:
            moments.append(Moment(self.live.text, phase(self.live.state), self.live.finished))
        for task in self.waits:
            status = task.text("status")
            if status and status not in {moment.text for moment in moments}:
                moments.append(Moment(status, "done", task.ended))
        return moments

    def segments(self, now: datetime) -> list[Segment]:
        """Give its states as pieces of a line from its start to its end, or to now."""
        known = [moment for moment in self.moments if moment.at is not None]
        if not known:
            return []
        times = [moment.at for moment in known if moment.at is not None]
        # A job that failed ends in the state that it failed in.
        ended = [task.ended for task in self.waits if task.ended] if self.is_over else [now]
        end = times[-1] if known[-1].phase == "done" else max([times[-1], *ended])
        span = (end - times[0]).total_seconds() or 1.0
        found = []
        for moment, begin, until in zip(known, times, [*times[1:], end], strict=True):
            x = round(1000 * (begin - times[0]).total_seconds() / span)
            width = round(1000 * (until - begin).total_seconds() / span)
            if width > 0:
                found.append(Segment(moment.phase, moment.text, x, width))
        return found


@dataclass
class Story:
    """All that the Ocean tab of a run shows, apart from what is read from files and logs."""

    run: RunRecord
    steps: list[Step]
    assets: dict[str, Asset]
    orders: list[Order]
    jobs: list[ComputeJob]
    cost: Cost
    tokens: Tokens
    explorer: str

    @property
    def plots(self) -> list[TaskRecord]:
        """The tasks that drew a plot."""
        return [task for task in self.run.tasks if is_plot(task)]

    @property
    def jobs_to_ask(self) -> list[ComputeJob]:
        """The jobs that may still run and that nobody else asks for, as many as a page asks for."""
        unknown = [job for job in self.jobs if job.provider_url and not job.is_over and not job.is_watched]
        return unknown[:_MOST_ASKED]

    @property
    def is_rejected(self) -> bool:
        """Whether the run is over because a person has rejected it."""
        return self.run.is_over and any(steps.is_rejected(task) for task in self.run.tasks)

    @property
    def current(self) -> list[Step]:
        """The steps that are doing something now."""
        return [step for step in self.steps if step.now]

    @property
    def failures(self) -> list[TaskRecord]:
        """The tasks that an error stopped, for good or until the next try."""
        return [task for task in self.run.tasks if task.state in ("failed", "up_for_retry")]

    def name(self, did: str) -> str:
        """Return an asset's name, else the beginning of its DID."""
        asset = self.assets.get(did)
        return asset.name if asset and asset.name else short(did)


def fetches(run: RunRecord) -> list[TaskRecord]:
    """Return the tasks that fetched results."""
    return [task for task in run.tasks if task.text("manifest")]


def tell(run: RunRecord, manifests: Iterable[Any] = ()) -> Story:
    """Make a run's story.

    :param manifests: the costs that the manifests of its results tell; claims come after the run
    """
    tokens = Tokens()
    for task in run.tasks:
        tokens.learn(task.xcoms)
    assets = _assets(run.tasks)
    records = [task.xcoms.get("cost") for task in run.tasks]
    # The task that waits for a claim writes the same record into the manifest.
    records += [record for record in manifests if is_final(record) and record not in records]
    costs = [Cost.parse(record) for record in records]
    return Story(
        run=run,
        steps=[steps.describe(task, _published_name(task)) for task in run.tasks],
        assets=assets,
        orders=[order for task in run.tasks if (order := _order(task, costs)) is not None],
        jobs=_jobs(run.tasks),
        cost=total(costs),
        tokens=tokens,
        explorer=_explorer(run.tasks),
    )


def is_plot(task: TaskRecord) -> bool:
    """Say whether a task drew a picture."""
    return task.state == "success" and (task.text(RETURN_VALUE) or "").lower().endswith(".png")


def transactions(task: TaskRecord) -> list[str]:
    """Return the hashes of the transactions that a task made, or whose orders it uses."""
    cost = task.xcoms.get("cost")
    candidates = (
        task.xcoms.get("transactions"),
        cost.get("transactions") if isinstance(cost, dict) and not is_final(cost) else None,
        task.xcoms.get(RETURN_VALUE),
    )
    found = [item for items in candidates if isinstance(items, list) for item in items]
    return list(dict.fromkeys(item for item in found if isinstance(item, str) and _HASH.fullmatch(item)))


def phase(code: int | None) -> str:
    """Name the phase that a job's state is in."""
    return next(name for least, name in reversed(_PHASES) if (code or 0) >= least)


def short(text: str, begin: int = 14, end: int = 4) -> str:
    """Shorten an identifier in its middle."""
    return text if len(text) <= begin + end + 1 else f"{text[:begin]}…{text[-end:]}"


def _published_name(task: TaskRecord) -> str | None:
    return task.text("asset_name") if task.text("nft_address") else None


def _assets(tasks: tuple[TaskRecord, ...]) -> dict[str, Asset]:
    found: dict[str, Asset] = {}

    def asset(did: Any) -> Asset:
        return found.setdefault(str(did), Asset(str(did)))

    for task in tasks:
        did = task.text(RETURN_VALUE)
        if did and task.text("nft_address"):
            published = asset(did)
            published.name = task.text("asset_name") or published.name
            published.kind = "algorithm" if "Algorithm" in task.operator else "dataset"
            published.nft_address = task.text("nft_address") or ""
            published.datatoken = task.text("datatoken_address") or ""
            published.transactions = transactions(task)
        for entry in asset_entries(task.xcoms):
            if entry.get("did"):
                known = asset(entry["did"])
                known.name = known.name or str(entry.get("name") or "")
                known.datatoken = known.datatoken or str(entry.get("datatoken") or "")
        for kind, entry in ordered_assets(task.xcoms.get("order")):
            asset(entry["did"]).kind = kind
    return dict(sorted(found.items(), key=lambda item: (item[1].kind != "dataset", item[1].name)))


def ordered_assets(order: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return the kind and the entry of each asset of an XCom ``order``, the algorithm last."""
    if not isinstance(order, dict):
        return []
    found = [("dataset", entry) for entry in objects(order.get("datasets"))]
    found += [("algorithm", entry) for entry in objects([order.get("algorithm")])]
    return [(kind, entry) for kind, entry in found if isinstance(entry.get("did"), str)]


def _order(task: TaskRecord, costs: list[Cost]) -> Order | None:
    order = task.xcoms.get("order")
    entries = ordered_assets(order)
    if not entries or not isinstance(order, dict):
        return None
    cost = Cost.parse(task.xcoms.get("cost") or order.get("cost"))
    items = [(entry["did"], str(entry.get("transaction") or "")) for _, entry in entries]
    is_timed = any(transaction for _, transaction in items) and not cost.locked
    return Order(
        task=task,
        environment=str(order.get("environment") or ""),
        provider_url=str(order.get("provider_url") or ""),
        valid_until=_moment(order.get("valid_until")) if is_timed else None,
        items=items,
        cost=cost,
        final=settlement(cost, costs),
    )


def _jobs(tasks: tuple[TaskRecord, ...]) -> list[ComputeJob]:
    """Put the tasks of each job together, by the job's id.

    Where Airflow no longer knows what a task waited for, it is the job that was started at the same map index, or the only
    one.
    """
    jobs: dict[str, ComputeJob] = {}
    for task in tasks:
        if (job_id := task.text(RETURN_VALUE)) and task.text("consumer_address"):
            job = jobs.setdefault(job_id, ComputeJob(job_id))
            job.start = task
            job.provider_url = task.text("provider_url") or ""
            job.consumer_address = task.text("consumer_address") or ""
    for task in tasks:
        if not is_wait(task):
            continue
        if job_id := task.text(RETURN_VALUE) or task.awaited_job:
            jobs.setdefault(job_id, ComputeJob(job_id)).waits.append(task)
        elif owner := _awaited(task, list(jobs.values())):
            owner.waits.append(task)
    return list(jobs.values())


def is_wait(task: TaskRecord) -> bool:
    """Say whether a task waits for a job."""
    return task.operator == steps.WAIT or "duration" in task.xcoms or "deadline" in task.xcoms


def _awaited(task: TaskRecord, jobs: list[ComputeJob]) -> ComputeJob | None:
    def same(job: ComputeJob) -> bool:
        return job.start is not None and job.start.map_index == task.map_index

    candidates = jobs if len(jobs) == 1 else [job for job in jobs if same(job)]
    return candidates[0] if len(candidates) == 1 else None


def _explorer(tasks: tuple[TaskRecord, ...]) -> str:
    """Return the root URL of the block explorer that the tasks' connections name, if they do."""
    for task in tasks:
        for key, value in task.xcoms.items():
            if key.startswith("_link_") and isinstance(value, str) and (match := _EXPLORER.fullmatch(value)):
                return match[1]
    return ""


def _moment(seconds: Any) -> datetime | None:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None
