"""Operators of a compute job: pay for it, start it, stop it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow_ocean import metrics, parameters
from airflow_ocean.assets import OCEAN_ORDERS, order_book
from airflow_ocean.c2d.errors import InvalidInputError, OrderInUseError
from airflow_ocean.lineage import Lineage
from airflow_ocean.links import OceanJobLink, OceanTransactionLink
from airflow_ocean.operators.base import OceanBaseOperator, OceanStepOperator
from airflow_ocean.operators.waiting import ORDER_WAIT, defer_until_free

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from airflow.sdk import BaseOperatorLink, Context


_LONGEST_DURATION = 366 * 24 * 3600


class OceanPayForComputeOperator(OceanStepOperator):
    """Order the datasets and the algorithm of a compute job, and pay the Provider's fee.

    On an Ocean Node, which is paid through the escrow, the most that the job can cost is deposited there instead, and this
    node alone is authorized to lock it; what is there already is used. Starting the job locks it, and what the job has not
    used comes back. In the free part of a node's environment no order is needed at all.

    Each new order costs one datatoken of its asset; if the wallet holds none it is taken from the asset's dispenser or
    bought at its fixed rate, where it has one.

    With ``reuse_orders``, orders are kept in the state store of the Airflow asset ``ocean_orders``, which becomes an inlet
    of the task, and are used again: one that is still good costs nothing, one whose fee's time is over is renewed, and
    only what has expired is ordered anew. An order serves one unfinished job at a time.

    Returns the list of order transaction ids, datasets first, empty where none is needed; pushes ``order``, which
    :class:`OceanStartComputeOperator` takes, ``cost``, and for people ``assets``, their names and datatokens, and
    ``tokens``, the symbol and decimals of each token that was paid with.

    :param dataset_dids: (templated) the datasets: a DID, a list of them, or its JSON text
    :param algorithm_did: (templated) the algorithm
    :param environment: (templated) where to compute: ``free``, ``cheapest``, or an environment's id
    :param duration: (templated) seconds. A Provider's environment is paid for so long; with ``reuse_orders`` a time that
        several runs fall into costs one payment. On an Ocean Node the most that the job may run, of which every begun minute
        is locked in the escrow
    :param job_resources: (templated) what the job gets on an Ocean Node: amounts by the names of its environment, e.g.
        ``{"cpu": 2, "ram": 4}``, or the JSON text; the least of what is not named
    :param queue_wait: (templated) seconds that the job may wait for an Ocean Node's resources; 0: it starts at once or not at
        all
    :param variables: (templated) as at :class:`OceanStartComputeOperator`, so that those which it would refuse cost nothing
    :param reuse_orders: use orders again, and keep the new ones for later runs
    :param when_in_use: (templated) what to do with ``reuse_orders`` when an unfinished job has the order that would be used:
        ``wait`` until it is over, deferred, or ``order_anew``, pay for another order
    :param most_orders: (templated) of how many orders to have unfinished jobs at once when ordering anew; beyond that the
        task waits. It so limits how many jobs of the algorithm (in a paid environment: on the first dataset) run at once
    :param order_wait: (templated) seconds to wait for an order altogether
    :param approve_payments: (templated) for how many payments like this one to approve the tokens that pay, when they have
        to be approved. 1, the default, approves exactly what is due; more leaves a standing approval for the datatoken's
        contract, and saves later payments a transaction
    :param max_cost: (templated) the most that prices, fees and gas may be: an amount in whole tokens that holds for each
        token that pays, or an object of token address (or ``*``, or ``gas``) → amount, or its JSON text
    :param ocean_conn_id: (templated) the consumer's connection
    """

    template_fields: Sequence[str] = (
        *OceanStepOperator.template_fields,
        "dataset_dids",
        "algorithm_did",
        "environment",
        "duration",
        "job_resources",
        "queue_wait",
        "variables",
        "when_in_use",
        "most_orders",
        "order_wait",
        "approve_payments",
    )
    operator_extra_links: Collection[BaseOperatorLink] = (OceanTransactionLink(),)

    def __init__(
        self,
        *,
        dataset_dids: list[str] | str,
        algorithm_did: str,
        environment: str = "free",
        duration: int | str = 3600,
        job_resources: dict[str, float] | str | None = None,
        queue_wait: int | str = 0,
        variables: dict[str, str] | str | None = None,
        reuse_orders: bool = False,
        when_in_use: str = "wait",
        most_orders: int | str = 16,
        order_wait: int | str = ORDER_WAIT,
        approve_payments: int | str = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.reuse_orders = parameters.boolean("reuse_orders", reuse_orders)
        if self.reuse_orders:
            # Airflow hands out the state stores of a task's inlets and outlets only.
            self.add_inlets([OCEAN_ORDERS])
        self.when_in_use = when_in_use
        self.most_orders = most_orders
        self.approve_payments = approve_payments
        self.order_wait = order_wait
        self.dataset_dids = dataset_dids
        self.algorithm_did = algorithm_did
        self.environment = environment
        self.duration = duration
        self.job_resources = job_resources
        self.queue_wait = queue_wait
        self.variables = variables

    def execute(self, context: Context) -> list[str]:
        """Pay, and return the order transaction ids."""
        datasets = parameters.dids("dataset_dids", self.dataset_dids)
        algorithm = parameters.did("algorithm_did", self.algorithm_did)
        environment = parameters.text("environment", self.environment)
        duration = parameters.whole_number("duration", self.duration, least=1, most=_LONGEST_DURATION)
        resources = parameters.resources("job_resources", self.job_resources)
        queue_wait = parameters.whole_number("queue_wait", self.queue_wait, least=0, most=_LONGEST_DURATION)
        variables = parameters.variables("variables", self.variables)
        when_in_use = parameters.choice("when_in_use", self.when_in_use, ("wait", "order_anew"))
        approve_payments = parameters.whole_number(
            "approve_payments", self.approve_payments, least=1, most=10**6
        )
        most_orders = parameters.whole_number("most_orders", self.most_orders, least=1, most=64)
        order_wait = parameters.whole_number("order_wait", self.order_wait, least=0, most=_LONGEST_DURATION)
        try:
            with self.client(context) as client:
                if self.reuse_orders:
                    order = order_book(client, context).pay(
                        datasets,
                        algorithm,
                        environment=environment,
                        duration=duration,
                        resources=resources,
                        queue_wait=queue_wait,
                        variables=variables,
                        most_orders=1 if when_in_use == "wait" else most_orders,
                        approve_payments=approve_payments,
                    )
                else:
                    quote = client.orders.quote(
                        datasets,
                        algorithm,
                        environment=environment,
                        duration=duration,
                        resources=resources,
                        queue_wait=queue_wait,
                        variables=variables,
                    )
                    order = client.orders.pay(quote, approve_payments=approve_payments)
                tokens = client.datatokens.units({**order.cost["tokens"], **order.cost["locked"]})
                metrics.orders_paid(order.transactions, client.transactions.mined)
        except OrderInUseError as error:
            defer_until_free(self, context, error, order_wait, "go_on")
        self.lineage = Lineage(inputs=[*datasets, algorithm], cost=order.cost)
        self.note_explorer_pages(transactions=order.transactions)
        # By way of its text, as an XCom keeps tuples as objects of Airflow's own and not as plain JSON.
        context["ti"].xcom_push("order", json.loads(json.dumps(order.to_dict())))
        context["ti"].xcom_push("cost", order.cost)
        context["ti"].xcom_push("assets", order.assets())
        context["ti"].xcom_push("tokens", tokens)
        return list(order.transactions)

    def go_on(self, context: Context, event: Any) -> list[str]:
        """Try again after a wait; whatever the job's end was, its order is free."""
        return self.execute(context)


class OceanStartComputeOperator(OceanStepOperator):
    """Start a compute job on a paid order.

    Returns the job id; pushes ``provider_url`` and ``consumer_address``, with which anybody may ask how the job is. Where
    another job has been paid out of the deposit in the escrow meanwhile, it is filled up, and ``cost`` pushed.

    :param order: (templated) what :class:`OceanPayForComputeOperator` pushed as ``order``
    :param custom_data: (templated) parameters for the algorithm, a JSON object or its text; it finds them in
        ``/data/inputs/algoCustomData.json``
    :param variables: (templated) environment variables for the algorithm, a JSON object of texts or its text; only on an
        Ocean Node
    :param most_jobs: (templated) how many unfinished jobs of the algorithm the wallet may have on an Ocean Node, any number by
        default; on a Provider it is the orders that limit them, see ``most_orders`` of :class:`OceanPayForComputeOperator`
    :param wait_for_order: when another unfinished job has the order, or there are ``most_jobs``, wait until it is over,
        deferred, and start then; otherwise the task is retried like after any error that may pass
    :param order_wait: (templated) seconds to wait for the order altogether
    :param ocean_conn_id: (templated) the consumer's connection
    """

    template_fields: Sequence[str] = (
        *OceanStepOperator.template_fields,
        "order",
        "custom_data",
        "variables",
        "most_jobs",
        "order_wait",
    )
    operator_extra_links: Collection[BaseOperatorLink] = (OceanJobLink(),)

    def __init__(
        self,
        *,
        order: dict[str, Any] | str,
        custom_data: dict[str, Any] | str | None = None,
        variables: dict[str, str] | str | None = None,
        most_jobs: int | str | None = None,
        wait_for_order: bool = False,
        order_wait: int | str = ORDER_WAIT,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.order = order
        self.custom_data = custom_data
        self.variables = variables
        self.most_jobs = most_jobs
        self.wait_for_order = parameters.boolean("wait_for_order", wait_for_order)
        self.order_wait = order_wait
        self.job_id: str | None = None

    def execute(self, context: Context) -> str:
        """Start the job and return its id."""
        from airflow_ocean.c2d.orders import Order

        order_wait = parameters.whole_number("order_wait", self.order_wait, least=0, most=_LONGEST_DURATION)
        described = parameters.json_object("order", self.order)
        if described is None:
            raise InvalidInputError("order is empty; it is what the task that paid pushed as 'order'")
        order = Order.from_dict(described)
        custom_data = parameters.json_object("custom_data", self.custom_data)
        variables = parameters.variables("variables", self.variables)
        most_jobs = None
        if self.most_jobs is not None:
            most_jobs = parameters.whole_number("most_jobs", self.most_jobs, least=1, most=10**6)
        try:
            with self.client(context) as client:
                job = client.jobs.start(order, custom_data, variables, most_jobs=most_jobs)
                consumer_address = client.address
                if client.transactions.mined:  # what filled up a deposit that another job was paid out of
                    self.push_cost(context, client)
        except OrderInUseError as error:
            if self.wait_for_order:
                defer_until_free(self, context, error, order_wait, "go_on")
            raise
        self.job_id = job.id  # for the link
        metrics.job_started()
        inputs = [item.did for item in (*order.datasets, order.algorithm)]
        self.lineage = Lineage(inputs=inputs, job_id=job.id)
        context["ti"].xcom_push("provider_url", order.provider_url)
        context["ti"].xcom_push("consumer_address", consumer_address)
        return job.id

    def go_on(self, context: Context, event: Any) -> str:
        """Try again after a wait; whatever the other job's end was, the order is free."""
        return self.execute(context)


class OceanStopComputeOperator(OceanBaseOperator):
    """Stop a compute job; one that is over stays as it is.

    Returns the job id; pushes ``status``.

    :param job_id: (templated) the job
    :param provider_url: (templated) the Provider that runs it, the connection's own by default
    :param ocean_conn_id: (templated) the connection of the wallet that started it
    """

    template_fields: Sequence[str] = (
        *OceanBaseOperator.template_fields,
        "job_id",
        "provider_url",
    )
    operator_extra_links: Collection[BaseOperatorLink] = (OceanJobLink(),)

    def __init__(self, *, job_id: str, provider_url: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job_id = job_id
        self.provider_url = provider_url

    def execute(self, context: Context) -> str:
        """Stop the job and return its id."""
        job_id = parameters.text("job_id", self.job_id)
        provider_url = parameters.optional_url("provider_url", self.provider_url)
        with self.hook.get_client() as client:
            job = client.jobs.stop(job_id, provider_url)
        self.log.info("Asked for the end of %s", job.describe())
        context["ti"].xcom_push("status", job.text)
        return job_id
