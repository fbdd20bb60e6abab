"""What comes after a job that was paid through the escrow: its final cost, and the rest of the deposit back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, ObjectStoragePath, PokeReturnValue
from airflow.sdk.exceptions import AirflowSkipException

from airflow_ocean import parameters
from airflow_ocean.artifacts import Manifest
from airflow_ocean.hooks import OceanHook
from airflow_ocean.links import OceanJobLink, OceanTransactionLink
from airflow_ocean.operators.base import OceanStepOperator
from airflow_ocean.retries import DEFAULT_FIRST_DELAY, DEFAULT_RETRIES, OceanRetryPolicy

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import timedelta

    from airflow.sdk import BaseOperatorLink, Context, RetryPolicy

    from airflow_ocean.c2d.client import OceanClient

_HOUR = 3600
ALL, NOTHING = "all", "0"


class OceanSettlementSensor(BaseSensorOperator):
    """Wait until the node has claimed what a job cost, and bring the cost record up to date.

    A node claims once in a while, an hourly round is usual; until then the most that the job can cost is locked. A job that
    was not paid through the escrow is settled already. Looks come from a worker, which is free in between.

    Returns what was claimed, token address → amount in its smallest unit, as text; pushes the final ``cost``: that of the
    payment with ``claimed`` in the place of ``locked``.

    :param job_id: (templated) the job; skipped without one
    :param provider_url: (templated) the node that ran it, the connection's own by default
    :param cost: (templated) the cost so far: what :class:`~airflow_ocean.operators.compute.OceanPayForComputeOperator`
        pushed as ``cost``; by default that of the manifest
    :param manifest: (templated) URI of the manifest of the job's results, in which the cost is brought up to date, too
    :param poke_interval: seconds between two looks at the job
    :param timeout: seconds to wait altogether
    :param ocean_conn_id: (templated) the connection of the wallet that started the job
    """

    template_fields: Sequence[str] = ("ocean_conn_id", "job_id", "provider_url", "cost", "manifest")
    operator_extra_links: Collection[BaseOperatorLink] = (OceanJobLink(),)
    ui_color = "#e6f4f7"

    def __init__(
        self,
        *,
        job_id: str | None,
        provider_url: str | None = None,
        cost: dict[str, Any] | str | None = None,
        manifest: str | None = None,
        ocean_conn_id: str = OceanHook.default_conn_name,
        poke_interval: timedelta | float = 120,
        timeout: timedelta | float = 24 * _HOUR,
        mode: str = "reschedule",
        retries: int = DEFAULT_RETRIES,
        retry_delay: timedelta | float = DEFAULT_FIRST_DELAY,
        retry_policy: RetryPolicy | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            poke_interval=poke_interval,
            timeout=timeout,
            mode=mode,
            retries=retries,
            retry_delay=retry_delay,
            retry_policy=retry_policy,
            **kwargs,
        )
        if retry_policy is None:
            # Set afterwards, when Airflow has made a timedelta of the delay.
            self.retry_policy = OceanRetryPolicy(self.retry_delay)
        self.job_id = job_id
        self.provider_url = provider_url
        self.cost = cost
        self.manifest = manifest
        self.ocean_conn_id = ocean_conn_id

    def poke(self, context: Context) -> PokeReturnValue:
        """Look at the job once."""
        from airflow_ocean.c2d.costs import settled

        job_id = parameters.optional_text("job_id", self.job_id)
        if job_id is None:
            raise AirflowSkipException("no job is named, so there is none to wait for")
        provider_url = parameters.optional_url("provider_url", self.provider_url)
        uri = parameters.optional_text("manifest", self.manifest)
        manifest = Manifest.read(uri) if uri else None
        cost = parameters.json_object("cost", self.cost) or (manifest.cost if manifest else None) or {}
        with OceanHook(self.ocean_conn_id).get_client() as client:
            job = client.jobs.get(job_id, provider_url)
            claimed = client.escrow.claimed(job)
            if job.payment and claimed is not None:
                token = client.datatokens.contract(job.payment.token)
                self.log.info("Job %s has cost %s", job.id, client.datatokens.describe(token, claimed))
        if job.payment is None:
            self.log.info("%s was not paid through the escrow", job.id)
            context["ti"].xcom_push("cost", cost)
            return PokeReturnValue(is_done=True, xcom_value={})
        if claimed is None:
            self.log.info("%s; its payment is locked until the node claims it", job.describe())
            return PokeReturnValue(is_done=False)
        final = settled(cost, job.payment.token, claimed)
        context["ti"].xcom_push("cost", final)
        if manifest and uri:
            replace(manifest, cost=final).write(ObjectStoragePath(uri))
        return PokeReturnValue(is_done=True, xcom_value=final["claimed"])


class OceanWithdrawFromEscrowOperator(OceanStepOperator):
    """Say what a wallet has in the escrow, and take what is not locked out of it.

    Returns what came back, token address → amount in its smallest unit, as text; pushes ``funds``, what was there before
    (``available`` and ``locked`` of each token, in whole tokens), and ``cost``.

    :param token: (templated) the token's address; by default each that the wallet has there
    :param amount: (templated) in whole tokens, as text; ``all``, or ``0`` to take nothing out and only look
    :param escrow: (templated) the contract's address, by default the one that is listed for the chain
    :param ocean_conn_id: (templated) the wallet's connection
    """

    template_fields: Sequence[str] = (*OceanStepOperator.template_fields, "token", "amount", "escrow")
    operator_extra_links: Collection[BaseOperatorLink] = (OceanTransactionLink(),)

    def __init__(
        self, *, token: str | None = None, amount: str = ALL, escrow: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.token = token
        self.amount = amount
        self.escrow = escrow

    def execute(self, context: Context) -> dict[str, str]:
        """Look, and withdraw."""
        from airflow_ocean.c2d.units import parse_units

        token = parameters.optional_address("token", self.token)
        amount = parameters.text("amount", self.amount)
        if amount != ALL:
            parse_units(amount, "amount")
        with self.client(context) as client:
            escrow = parameters.optional_address("escrow", self.escrow) or client.contract_address("Escrow")
            tokens = [token] if token else self._tokens(client, escrow)
            context["ti"].xcom_push("funds", {each: self._look(client, escrow, each) for each in tokens})
            returned: dict[str, str] = {}
            for each in tokens if amount != NOTHING else []:
                back = client.escrow.withdraw(
                    escrow, each, self._units(client, each, amount), f"withdraw {each} from {escrow}"
                )
                self.log.info("%s came back from the escrow", self._described(client, each, back))
                returned[each] = str(back)
            self.push_cost(context, client)
            self.note_explorer_pages(transactions=[mined.hash for mined in client.transactions.mined])
        return returned

    @staticmethod
    def _tokens(client: OceanClient, escrow: str) -> list[str]:
        """Return the tokens that are there, or were when the task began: the contract forgets one that is taken out."""
        journal, entry = client.transactions.journal, f"tokens in {escrow}"
        known = journal.load(entry)
        if known is None:
            known = {"tokens": client.escrow.tokens(escrow)}
            journal.save(entry, known)
        return list(known["tokens"])

    def _look(self, client: OceanClient, escrow: str, token: str) -> dict[str, str]:
        funds = client.escrow.funds(escrow, token)
        available, locked = (
            self._described(client, token, amount) for amount in (funds.available, funds.locked)
        )
        self.log.info(
            "The escrow %s has %s of %s available, %s locked", escrow, available, client.address, locked
        )
        return {"available": available, "locked": locked}

    @staticmethod
    def _described(client: OceanClient, token: str, amount: int) -> str:
        return client.datatokens.describe(client.datatokens.contract(token), amount)

    @staticmethod
    def _units(client: OceanClient, token: str, amount: str) -> int | None:
        """Return an amount in the token's smallest unit, None for all."""
        from airflow_ocean.c2d.units import parse_units

        return None if amount == ALL else parse_units(amount, "amount", client.datatokens.decimals(token))
