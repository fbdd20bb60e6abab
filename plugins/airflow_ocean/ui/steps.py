"""What each task of a run is for and what it is doing now, in sentences for a person who does not know Ocean."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from airflow_ocean.ui.records import TaskRecord

PUBLISH_DATASET = "OceanPublishDatasetOperator"
PUBLISH_ALGORITHM = "OceanPublishAlgorithmOperator"
PAY = "OceanPayForComputeOperator"
START = "OceanStartComputeOperator"
WAIT = "OceanComputeSensor"
FETCH = "OceanFetchResultsOperator"
PLOT = "OceanPlotOperator"

# Operator → what the step is, and what it does while it runs.
_STEPS = {
    "OceanApproveSpendingOperator": (
        "Approve the spending",
        "adding up what the run will cost at most",
    ),
    "OceanChooseAssetsOperator": (
        "Choose what to compute with",
        "looking for what was given, or published last",
    ),
    "OceanRehearseAlgorithmOperator": (
        "Rehearse the algorithm",
        "running it in its own image on sample data; nothing is paid",
    ),
    PUBLISH_DATASET: (
        "Publish the dataset",
        "making its tokens on the chain and writing its encrypted description",
    ),
    PUBLISH_ALGORITHM: (
        "Publish the algorithm",
        "making its tokens on the chain and writing its encrypted description",
    ),
    "OceanAllowAlgorithmOperator": (
        "Allow the algorithm on the dataset",
        "adding the algorithm to the dataset's list of trusted ones",
    ),
    "OceanTransferDatatokensOperator": (
        "Get datatokens to the consumer",
        "moving datatokens, each of which pays for one use of an asset",
    ),
    PAY: (
        "Pay for the computation",
        "asking the Provider for its price and paying it; nothing is paid twice",
    ),
    START: ("Start the job", "handing the paid order to the Provider"),
    WAIT: ("Wait for the job", "looking at the job from time to time"),
    "OceanSettlementSensor": (
        "Settle the payment",
        "looking whether the node has claimed what the job cost",
    ),
    "OceanWithdrawFromEscrowOperator": (
        "Withdraw from the escrow",
        "looking what is there, getting back what nobody claimed in time, and taking out what is free",
    ),
    "OceanStopComputeOperator": ("Stop the job", "asking the Provider for the job's end"),
    FETCH: ("Fetch the results", "streaming the job's results to the artifact base"),
    PLOT: ("Draw the plot", "drawing the result"),
    "OceanPlotSeveralOperator": ("Draw the results together", "drawing the results"),
}
# State in Airflow → its name here, and the colour it has in Airflow.
STATES = {
    None: ("not started", "waiting"),
    "scheduled": ("about to start", "waiting"),
    "queued": ("about to start", "waiting"),
    "running": ("running", "running"),
    "restarting": ("restarting", "running"),
    "deferred": ("waiting", "running"),
    "awaiting_input": ("waiting for a person", "attention"),
    "up_for_retry": ("will try again", "attention"),
    "up_for_reschedule": ("waiting", "running"),
    "success": ("done", "success"),
    "failed": ("failed", "failed"),
    "upstream_failed": ("not run", "waiting"),
    "skipped": ("skipped", "waiting"),
    "removed": ("removed", "waiting"),
}


REJECT = "Reject"
_ANSWERS = {"Approve": ("approved", "success"), REJECT: ("rejected", "attention")}


@dataclass(frozen=True)
class Step:
    """A task of the run, for the page's list of steps.

    :param now: what it is doing, or waiting for; empty when it is over or has not begun
    """

    task: TaskRecord
    title: str
    state: str
    colour: str
    now: str

    @property
    def asks(self) -> bool:
        """Whether it waits for a person's answer."""
        return is_asking(self.task)

    @property
    def seconds(self) -> float | None:
        """How long it took."""
        return seconds_between(self.task.started, self.task.ended) if self.task.is_over else None


def describe(task: TaskRecord, name: str | None = None) -> Step:
    """Say of a task what it is and does.

    :param name: of the asset that it is about
    """
    title, work = _STEPS.get(task.operator, (_title(task), "at work"))
    if name:
        title = f"{title} “{name}”"
    state, colour = answered(task) or STATES.get(task.state, (task.state or "", "waiting"))
    return Step(task, title, state, colour, _now(task, work))


def answered(task: TaskRecord) -> tuple[str, str] | None:
    """Say what a person answered to a task's question, and in which colour, None where nobody has.

    A task that asks is done after a rejection, too.
    """
    answer, who = task.text("answer"), task.text("answered_by")
    if not answer or not task.is_over:
        return None
    said, colour = _ANSWERS.get(answer, (answer, "success"))
    return (f"{said} by {who}" if who else said), colour


def is_rejected(task: TaskRecord) -> bool:
    """Whether a person has rejected what a task asked for, so that nothing came after it."""
    return task.is_over and task.text("answer") == REJECT


def _now(task: TaskRecord, work: str) -> str:
    if task.approval is not None and is_asking(task):
        return f"waiting for somebody to answer: {task.approval[0]}"
    if task.state in ("running", "restarting"):
        return work
    if task.state in ("deferred", "up_for_reschedule"):
        return f"{work}; no worker is taken meanwhile"
    if task.state == "up_for_retry":
        due = next_try(task)
        when = f" at {due:%H:%M:%S} UTC" if due else " soon"
        return f"an error that may pass stopped it; it tries again{when}"
    return ""


def is_asking(task: TaskRecord) -> bool:
    """Say whether a task waits for a person's answer."""
    return task.approval is not None and not task.is_over and not task.approval[1]


def next_try(task: TaskRecord) -> datetime | None:
    """Return when a task tries again, None when Airflow works that out from the DAG."""
    if task.ended is None or task.retry_delay is None:
        return None
    return task.ended + timedelta(seconds=task.retry_delay)


def seconds_between(begin: datetime | None, end: datetime | None) -> float | None:
    """Return the seconds from one moment to another, None when either is missing."""
    return None if begin is None or end is None else (end - begin).total_seconds()


def duration(seconds: float | None) -> str:
    """Give a length of time for people: ``8.2 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{max(seconds, 0):.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} days {hours % 24} h"


def _title(task: TaskRecord) -> str:
    if task.approval is not None:
        return "Ask for approval"
    words = re.sub(r"(Operator|Sensor)$", "", task.operator.removeprefix("Ocean"))
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", words).capitalize() or task.label
