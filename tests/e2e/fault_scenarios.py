"""Every way of using the operators that talks to the network, for the faults to strike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.e2e.fault_cases_before_paying import allow, approve, buy, dispense, mint, publish, transfer
from tests.e2e.fault_cases_computing import fetch, start, stop, wait_deferred, wait_failed, wait_poking
from tests.e2e.fault_cases_paying import RenewingOperator, pay, renew

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.fault_case import Case
    from tests.e2e.fault_world import World

OPERATORS = "airflow_ocean.operators"
PUBLISH_DATASET = f"{OPERATORS}.assets:OceanPublishDatasetOperator"
PUBLISH_ALGORITHM = f"{OPERATORS}.assets:OceanPublishAlgorithmOperator"
ALLOW = f"{OPERATORS}.assets:OceanAllowAlgorithmOperator"
TRANSFER = f"{OPERATORS}.datatokens:OceanTransferDatatokensOperator"
APPROVE = f"{OPERATORS}.approval:OceanApproveSpendingOperator"
PAY = f"{OPERATORS}.compute:OceanPayForComputeOperator"
RENEW = f"{RenewingOperator.__module__}:{RenewingOperator.__name__}"
START = f"{OPERATORS}.compute:OceanStartComputeOperator"
STOP = f"{OPERATORS}.compute:OceanStopComputeOperator"
WAIT = "airflow_ocean.sensors:OceanComputeSensor"
FETCH = f"{OPERATORS}.results:OceanFetchResultsOperator"


@dataclass(frozen=True)
class Scenario:
    """One way of using an operator.

    :param operator: ``module:Class``
    :param prepare: makes a fresh case; gets a folder of its own
    :param state: how the task ends
    :param retry_after: seconds an answer 429 asks to wait
    :param full: it stands for its operator: in the long form it meets every fault at every request
    """

    name: str
    operator: str
    prepare: Callable[[World, Path], Case]
    state: str = "success"
    retry_after: int = 60
    full: bool = False

    @property
    def group(self) -> str:
        """The operator whose scenarios share a sample of the faults."""
        return {RENEW: PAY, PUBLISH_ALGORITHM: PUBLISH_DATASET}.get(self.operator, self.operator)


_PRICE = {"type": "fixed_rate", "rate": "1.5"}
_HELD = {"dataset": "held", "algorithm": "quick", "held": ("held", "quick"), "got": 0}
_QUICK = {"algorithm": "quick", "held": ("quick",), "got": 1}
_GIVEN = {"algorithm": "quick dispensed", "got": 2}

# Every way of using the operators that talks to the network: those that are the same on each generation of services, and
# how orders are paid for and used on a Provider.
BEFORE_PAYING = (
    Scenario("publish dataset", PUBLISH_DATASET, lambda w, _: publish(w, None, algorithm=False), full=True),
    Scenario(
        "publish algorithm", PUBLISH_ALGORITHM, lambda w, _: publish(w, _PRICE, algorithm=True), full=True
    ),
    Scenario("allow", ALLOW, allow, full=True),
    Scenario("mint", TRANSFER, mint),
    Scenario("transfer", TRANSFER, transfer, full=True),
    Scenario("dispense", TRANSFER, dispense),
    Scenario("buy", TRANSFER, buy),
    Scenario("approve", APPROVE, approve, full=True),
)
AFTER_STARTING = (
    Scenario("wait poking", WAIT, wait_poking),
    Scenario("wait deferred", WAIT, wait_deferred, retry_after=1),
    Scenario("wait for a failure", WAIT, wait_failed, state="failed"),
    Scenario("stop", STOP, stop),
    Scenario("fetch", FETCH, fetch),
)
SCENARIOS = (
    *BEFORE_PAYING,
    Scenario("pay held", PAY, lambda w, _: pay(w, **_HELD, transactions=2)),
    Scenario("pay dispensed", PAY, lambda w, _: pay(w, "dispensed", **_GIVEN, transactions=4)),
    Scenario("pay bought", PAY, lambda w, _: pay(w, "sold", **_QUICK, transactions=4)),
    Scenario("pay template 2", PAY, lambda w, _: pay(w, "sold 2", **_QUICK, transactions=3)),
    Scenario("pay environment", PAY, lambda w, _: pay(w, **_HELD, transactions=3, paid=True)),
    Scenario(
        "pay all at once", PAY, lambda w, _: pay(w, "sold 2", **_GIVEN, transactions=4, paid=True), full=True
    ),
    Scenario("renew", RENEW, lambda w, _: renew(w, paid=False)),
    Scenario("renew environment", RENEW, lambda w, _: renew(w, paid=True)),
    Scenario("start", START, lambda w, _: start(w)),
    Scenario("start paid", START, lambda w, _: start(w, paid=True)),
    Scenario("start renewed", START, lambda w, _: start(w, paid=True, renewed=True)),
    *AFTER_STARTING,
)
