"""The operator that tells what a run will cost, and asks a person first when it is much."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator

from airflow_ocean import parameters
from airflow_ocean.assets import OCEAN_ORDERS, order_book
from airflow_ocean.c2d.errors import InvalidInputError, OrderInUseError
from airflow_ocean.hooks import OceanHook
from airflow_ocean.operators.base import OceanBaseOperator
from airflow_ocean.operators.waiting import ORDER_WAIT, defer_until_free

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

    from airflow.sdk import Context

    from airflow_ocean.c2d.client import OceanClient
    from airflow_ocean.c2d.estimates import Estimate
    from airflow_ocean.c2d.limits import CostLimit
    from airflow_ocean.c2d.quotes import Quote
    from airflow_ocean.c2d.services import JobTerms

_LONGEST_DURATION = 366 * 24 * 3600
_MAX_COST = "max_cost"


class OceanApproveSpendingOperator(OceanBaseOperator, ApprovalOperator):
    """Tell what a compute run will cost at most, and wait for a person's approval when it is above a limit.

    Below the limit, and without one, nothing stops. Above it the task waits, without taking a worker, until somebody
    approves or rejects under *Required Actions*; rejecting skips all tasks after this one, before the first transaction.

    More than a connection's own spending limit is refused before anybody is asked. An order that an unfinished job has is
    waited for, deferred, as paying would: only then is it known what is to pay.

    Returns what paying may cost, for the ``max_cost`` of :class:`~airflow_ocean.operators.compute.OceanPayForComputeOperator`:
    what was approved, or the limit, or nothing when there is none. A price that rises in between is refused there. Gas is
    quoted at the highest price that would be signed for now; when it is paid it may cost what it can at the connection's
    fee cap, without one twice the quote, and any amount where the limit names no ``gas``.

    Pushes ``quote``: the lines, the totals and the wallets' balances; when a person was asked also ``answer``, ``Approve``
    or ``Reject``, and ``answered_by``, nothing where silence was the answer.

    :param dataset_dids: (templated) the datasets: a DID, a list of them, or its JSON text. Left out together with
        ``algorithm_did`` when the run is still to publish one dataset and one algorithm
    :param algorithm_did: (templated) the algorithm
    :param environment: (templated) where to compute: ``free``, ``cheapest``, or an environment's id
    :param duration: (templated) as at the operator that pays
    :param job_resources: (templated) as at the operator that pays
    :param queue_wait: (templated) as at the operator that pays
    :param variables: (templated) as at the operator that starts the job, which would refuse bad ones when all is paid
    :param custom_data: (templated) as at the operator that starts the job, likewise
    :param reuse_orders: take into account that paying uses kept orders again; as at the operator that pays
    :param when_in_use: (templated) as at the operator that pays
    :param most_orders: (templated) as at the operator that pays
    :param order_wait: (templated) seconds to wait for an order altogether
    :param spending_limit: (templated) what a run may cost without asking: an amount in whole tokens that holds for each
        token that pays, or an object of token address (or ``*``, or ``gas``) → amount, or its JSON text. Nothing means
        that nobody is asked
    :param subject: (templated) the question that the person reads first
    :param publisher_conn_id: (templated) the connection of the wallet that publishes, where the run is to publish
    :param ocean_conn_id: (templated) the consumer's connection
    :param response_timeout: how long to wait for an answer; with ``defaults`` (``"Reject"`` or ``"Approve"``) for what
        silence means, else the task fails
    """

    template_fields: Sequence[str] = (
        *OceanBaseOperator.template_fields,
        "dataset_dids",
        "algorithm_did",
        "environment",
        "duration",
        "job_resources",
        "queue_wait",
        "variables",
        "custom_data",
        "when_in_use",
        "most_orders",
        "order_wait",
        "spending_limit",
        "publisher_conn_id",
        "subject",
    )

    def __init__(
        self,
        *,
        dataset_dids: list[str] | str | None = None,
        algorithm_did: str | None = None,
        environment: str = "free",
        duration: int | str = 3600,
        job_resources: dict[str, float] | str | None = None,
        queue_wait: int | str = 0,
        variables: dict[str, str] | str | None = None,
        custom_data: dict[str, Any] | str | None = None,
        reuse_orders: bool = False,
        when_in_use: str = "wait",
        most_orders: int | str = 16,
        order_wait: int | str = ORDER_WAIT,
        spending_limit: str | int | Decimal | dict[str, str] | None = None,
        publisher_conn_id: str | None = None,
        subject: str = "May this run spend more than its limit?",
        ignore_downstream_trigger_rules: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            subject=subject, ignore_downstream_trigger_rules=ignore_downstream_trigger_rules, **kwargs
        )
        self.reuse_orders = parameters.boolean("reuse_orders", reuse_orders)
        if self.reuse_orders:
            self.add_inlets([OCEAN_ORDERS])
        self.when_in_use = when_in_use
        self.most_orders = most_orders
        self.order_wait = order_wait
        self.dataset_dids = dataset_dids
        self.algorithm_did = algorithm_did
        self.environment = environment
        self.duration = duration
        self.job_resources = job_resources
        self.queue_wait = queue_wait
        self.variables = variables
        self.custom_data = custom_data
        self.spending_limit = spending_limit
        self.publisher_conn_id = publisher_conn_id

    def execute(self, context: Context) -> Any:
        """Estimate; return at once, or ask."""
        limit = parameters.cost_limit("spending_limit", self.spending_limit)
        order_wait = parameters.whole_number("order_wait", self.order_wait, least=0, most=_LONGEST_DURATION)
        try:
            estimate = self._estimate(context)
        except OrderInUseError as error:
            defer_until_free(self, context, error, order_wait, "go_on")
        estimate.require_balances()
        estimate.require_limits()
        context["ti"].xcom_push("quote", estimate.to_dict())
        totals = estimate.to_dict()["texts"]
        self.log.info("The run costs at most %s", ", ".join(totals.values()) or "nothing")
        above = estimate.above(limit)
        if not above:
            return limit.to_dict()
        context["ti"].xcom_push(_MAX_COST, approved_cost(estimate, limit).to_dict())
        self.body = _explanation(estimate, limit)
        self.log.info("That is above the limit: somebody has to approve it under Required Actions")
        return super().execute(context)

    def go_on(self, context: Context, event: Any) -> Any:
        """Estimate again after a wait; whatever the other job's end was, its order is free."""
        return self.execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Go on after an approval; skip what follows after a rejection."""
        if "error" not in event:  # nobody has answered
            # Before a rejection is carried out, which ends the task.
            who = event["responded_by_user"]
            context["ti"].xcom_push("answer", event["chosen_options"][0])
            context["ti"].xcom_push("answered_by", who["name"] if who else None)
        answer = super().execute_complete(context, event)
        if answer["chosen_options"] != [self.APPROVE]:
            return None
        return context["ti"].xcom_pull(
            task_ids=self.task_id, key=_MAX_COST, map_indexes=context["ti"].map_index
        )

    def _estimate(self, context: Context) -> Estimate:
        from airflow_ocean.c2d import estimates
        from airflow_ocean.c2d.services import JobTerms

        environment = parameters.text("environment", self.environment)
        terms = JobTerms(
            parameters.whole_number("duration", self.duration, least=1, most=_LONGEST_DURATION),
            parameters.resources("job_resources", self.job_resources),
            parameters.whole_number("queue_wait", self.queue_wait, least=0, most=_LONGEST_DURATION),
        )
        variables = parameters.variables("variables", self.variables)
        parameters.json_object("custom_data", self.custom_data)  # which paying has no use for
        algorithm = parameters.optional_text("algorithm_did", self.algorithm_did)
        if bool(algorithm) != bool(self.dataset_dids):
            raise InvalidInputError(
                "give dataset_dids and algorithm_did, or neither for a run that is still to publish both"
            )
        with self.hook.get_client() as consumer:
            if algorithm:
                datasets = parameters.dids("dataset_dids", self.dataset_dids)
                algorithm = parameters.did("algorithm_did", algorithm)
                quote = self._quote(context, consumer, datasets, algorithm, environment, terms, variables)
                return estimates.of_payment(consumer, quote, terms.duration)
            publisher_conn_id = parameters.text("publisher_conn_id", self.publisher_conn_id)
            with OceanHook(publisher_conn_id).get_client() as publisher:
                return estimates.of_publishing_and_payment(publisher, consumer, environment, terms, variables)

    def _quote(
        self,
        context: Context,
        client: OceanClient,
        datasets: list[str],
        algorithm: str,
        environment: str,
        terms: JobTerms,
        variables: dict[str, str] | None,
    ) -> Quote:
        job = {**asdict(terms), "variables": variables}
        if not self.reuse_orders:
            return client.orders.quote(datasets, algorithm, environment=environment, **job)
        when_in_use = parameters.choice("when_in_use", self.when_in_use, ("wait", "order_anew"))
        most_orders = parameters.whole_number("most_orders", self.most_orders, least=1, most=64)
        return order_book(client, context, own_claims=False).quote(
            datasets,
            algorithm,
            environment=environment,
            most_orders=1 if when_in_use == "wait" else most_orders,
            **job,
        )


def approved_cost(estimate: Estimate, limit: CostLimit) -> CostLimit:
    """Return the limit that holds for paying once an estimate is approved: its totals, else the limit.

    Of gas it is what that may cost when it is paid later, as the one who approves was told, and nothing where nobody limits gas.
    """
    from airflow_ocean.c2d.limits import GAS, CostLimit

    approved = {
        token.lower(): amount * 10**18 // 10 ** estimate.tokens[token].decimals
        for token, amount in estimate.totals().items()
        if token != GAS
    }
    if limit.of(GAS) is not None:
        approved[GAS] = estimate.gas_later
    # Of what is below the limit as much may be spent as without asking.
    for token in approved:
        approved[token] = max(approved[token], limit.of(token) or 0)
    return CostLimit({**limit.amounts, **approved})


def _explanation(estimate: Estimate, limit: CostLimit) -> str:
    """Say in Markdown what the run costs, for the one who decides."""
    from airflow_ocean.c2d.units import format_units

    rows = [
        f"| {_cell(line.what)} | `{line.payer}` | {'' if line.kind == 'datatoken' else 'up to '}"
        f"{_cell(estimate.tokens[line.token].write(line.amount))}{' (held)' if line.kind == 'datatoken' else ''} |"
        for line in estimate.lines
    ]
    totals = [
        f"**{_cell(estimate.tokens[token].write(amount))}**" for token, amount in estimate.totals().items()
    ]
    over = [
        f"{_cell(estimate.tokens[token].write(amount))}, the limit is {format_units(limit.of(token) or 0)}"
        for token, amount in estimate.above(limit).items()
    ]
    balances = [
        f"- `{payer}` holds {_cell(estimate.tokens[token].write(amount))}"
        for payer, held in estimate.balances.items()
        for token, amount in held.items()
    ]
    return "\n".join(
        [
            f"Computing in `{_cell(estimate.environment)}` for {estimate.duration} s costs up to {' and '.join(totals)}.",
            "",
            f"Above the limit: {'; '.join(over)}.",
            "",
            "| What | Who pays | Cost |",
            "|---|---|---|",
            *rows,
            "",
            *balances,
            "",
            *([_about_gas(estimate, limit), ""] if estimate.gas_later else []),
            "Nothing has been spent yet. *Reject* ends the run without a transaction.",
        ]
    )


def _about_gas(estimate: Estimate, limit: CostLimit) -> str:
    """Say what gas may cost when it is paid, which is later than it is quoted."""
    from airflow_ocean.c2d.limits import GAS

    now = "Gas is quoted at the highest price that would be signed for now."
    if limit.of(GAS) is None:
        return f"{now} No limit of this run holds for it, should it get dearer until it is paid."
    most = estimate.tokens[GAS].write(max(estimate.gas_later, limit.of(GAS) or 0))
    return f"{now} It may get dearer until it is paid: approving allows up to **{_cell(most)}** for it."


def _cell(text: str) -> str:
    """Keep names from the chain from being taken for Markdown."""
    return "".join(f"\\{sign}" if sign in r"\`*_{}[]<>()#|!" else sign for sign in " ".join(text.split()))
