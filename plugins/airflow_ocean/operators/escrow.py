"""What comes after a job that was paid through the escrow: its final cost, and the rest of the deposit back."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.sdk import ObjectStoragePath, PokeReturnValue
from airflow.sdk.exceptions import AirflowSkipException

from airflow_ocean import metrics, parameters
from airflow_ocean.artifacts import Manifest
from airflow_ocean.base_sensor import OceanBaseSensor
from airflow_ocean.c2d.errors import TransientError
from airflow_ocean.links import OceanJobLink, OceanTransactionLink
from airflow_ocean.operators.base import OceanStepOperator

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import timedelta

    from airflow.sdk import BaseOperatorLink, Context

    from airflow_ocean.c2d.client import OceanClient
    from airflow_ocean.c2d.escrow import Settlement
    from airflow_ocean.c2d.jobs import Job

_HOUR = 3600
ALL, NOTHING = "all", "0"


class OceanSettlementSensor(OceanBaseSensor):
    """Wait until what a job cost is final, and bring the cost record up to date.

    A node claims once in a while, an hourly round is usual; until then the most that the job can cost is locked. For a job that
    failed before its algorithm ran a node claims nothing; the wait then ends when the lock expires, and the cost is 0:
    :class:`OceanWithdrawFromEscrowOperator` gets back what nobody claimed. A job that was not paid through the escrow is
    settled already. Looks, at the escrow on the chain, come from a worker, which is free in between.

    Returns what was claimed, token address → amount in its smallest unit, as text; pushes the final ``cost``: that of the
    payment with ``claimed`` in the place of ``locked``, and for people ``tokens``, the symbol and decimals of each token in it,
    and ``settled_job``, the job's id.

    :param job_id: (templated) the job; skipped without one
    :param provider_url: (templated) the node that ran it, the connection's own by default
    :param cost: (templated) the cost so far: what :class:`~airflow_ocean.operators.compute.OceanPayForComputeOperator`
        pushed as ``cost``; by default that of the manifest
    :param manifest: (templated) URI of the manifest of the job's results, in which the cost is brought up to date, too
    :param poke_interval: seconds between two looks at the job
    :param timeout: seconds to wait altogether; a lock lasts as long as the job may wait and run, and for the node's claim
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
        poke_interval: timedelta | float = 120,
        timeout: timedelta | float = 24 * _HOUR,
        mode: str = "reschedule",
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, timeout=timeout, mode=mode, **kwargs)
        self.job_id = job_id
        self.provider_url = provider_url
        self.cost = cost
        self.manifest = manifest

    def execute(self, context: Context) -> Any:
        """Look until what the job cost is final."""
        return self.poke_until(self.deadline(context), context)

    def poke(self, context: Context) -> PokeReturnValue:
        """Look at the job once. What may pass is waited out: a day's wait may not end with an outage of a minute."""
        try:
            return self._look(context)
        except TransientError as error:
            metrics.poll_failed()
            self.log.warning(
                "Cannot see what job %s cost for now, trying again in %.0f s: %s",
                self.job_id,
                self.poke_interval,
                error,
            )
            return PokeReturnValue(is_done=False)

    def _look(self, context: Context) -> PokeReturnValue:
        from airflow_ocean.c2d.costs import settled

        job_id = parameters.optional_text("job_id", self.job_id)
        if job_id is None:
            raise AirflowSkipException("no job is named, so there is none to wait for")
        provider_url = parameters.optional_url("provider_url", self.provider_url)
        uri = parameters.optional_text("manifest", self.manifest)
        manifest = Manifest.read(uri) if uri else None
        cost = parameters.json_object("cost", self.cost) or (manifest.cost if manifest else None) or {}
        with self.hook.get_client() as client:
            job = client.jobs.get(job_id, provider_url)
            settlement = client.escrow.settlement(job)
            self.log.info("%s; %s", job.describe(), _told(client, job, settlement))
            if job.payment is None:
                final = settled(cost, {})
            elif settlement.claimed is None:
                return PokeReturnValue(is_done=False)
            else:
                final = settled(cost, {job.payment.token: settlement.claimed})
            tokens = client.datatokens.units({**cost.get("tokens", {}), **final["claimed"]})
        context["ti"].xcom_push("cost", final)
        context["ti"].xcom_push("tokens", tokens)
        context["ti"].xcom_push("settled_job", job_id)
        if manifest and uri and job.payment:
            replace(manifest, cost=final).write(ObjectStoragePath(uri))
        # At last, as a try that fails on the way is made again.
        for token, claimed in final["claimed"].items():
            metrics.tokens_spent(token, int(claimed), lambda token: int(tokens[token]["decimals"]))
        return PokeReturnValue(is_done=True, xcom_value=final["claimed"])


class OceanWithdrawFromEscrowOperator(OceanStepOperator):
    """Say what a wallet has in the escrow, get back what nobody claimed in time, and take out what is not locked.

    What a node has locked and not claimed when the lock expires, because the job failed early or the node is gone, anybody may
    give back to the wallet, so this task does; the node is not needed.

    Returns what was taken out, token address → amount in its smallest unit, as text; pushes ``funds``, what was there before:
    of each contract and token what is ``available`` and ``locked``, in whole tokens, and of each of the ``locks`` the
    ``amount`` and ``until`` when it can be claimed; and ``cost``.

    :param token: (templated) the token's address; by default each that the contract lists for the wallet, and OCEAN. A contract
        lists a token no more when all was taken out that was not locked
    :param amount: (templated) in whole tokens, as text; ``all``, or ``0`` to take nothing out
    :param escrow: (templated) the contract's address; by default each that is known for the chain: that of the connection's
        address list, and on the public networks the newest one and the one that Ocean Node 3.2 is built for
    :param cancel_expired: (templated) whether what has expired is given back first; a transaction for each contract that has any
    :param ocean_conn_id: (templated) the wallet's connection
    """

    template_fields: Sequence[str] = (
        *OceanStepOperator.template_fields,
        "token",
        "amount",
        "escrow",
        "cancel_expired",
    )
    operator_extra_links: Collection[BaseOperatorLink] = (OceanTransactionLink(),)

    def __init__(
        self,
        *,
        token: str | None = None,
        amount: str = ALL,
        escrow: str | None = None,
        cancel_expired: bool | str = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.token = token
        self.amount = amount
        self.escrow = escrow
        self.cancel_expired = cancel_expired

    def execute(self, context: Context) -> dict[str, str]:
        """Look, give back, and withdraw."""
        from airflow_ocean.c2d.units import parse_units

        token = parameters.optional_address("token", self.token)
        amount = parameters.text("amount", self.amount)
        if amount != ALL:
            parse_units(amount, "amount")
        chosen = parameters.optional_address("escrow", self.escrow)
        cancel_expired = parameters.boolean("cancel_expired", self.cancel_expired)
        with self.client(context) as client:
            tokens = {
                escrow: [token] if token else self._tokens(client, escrow)
                for escrow in ([chosen] if chosen else client.escrow.known())
            }
            funds = {
                escrow: {each: self._look(client, escrow, each) for each in there}
                for escrow, there in tokens.items()
            }
            context["ti"].xcom_push("funds", funds)
            for escrow, there in tokens.items() if cancel_expired else ():
                for each, units in client.escrow.cancel_expired(escrow, there).items():
                    self.log.info(
                        "%s, which nobody claimed in time, is free again in %s",
                        _described(client, each, units), escrow,
                    )  # fmt: skip
            returned: dict[str, str] = {}
            for each in dict.fromkeys(itertools.chain(*tokens.values())) if amount != NOTHING else ():
                holding = [escrow for escrow, there in tokens.items() if each in there]
                units = client.escrow.withdraw(holding, each, self._units(client, each, amount))
                self.log.info("%s came back from the escrow", _described(client, each, units))
                returned[each] = str(units)
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

    def _look(self, client: OceanClient, escrow: str, token: str) -> dict[str, Any]:
        funds = client.escrow.funds(escrow, token)
        available, locked = (_described(client, token, units) for units in (funds.available, funds.locked))
        self.log.info(
            "The escrow %s has %s of %s available, %s locked", escrow, available, client.address, locked
        )
        locks = client.escrow.locks(escrow, token) if funds.locked else []
        told = [{"amount": _described(client, token, lock.amount), "until": lock.until} for lock in locks]
        for lock, each in zip(locks, told, strict=True):
            self.log.info(
                "%s of it are locked by %s, which can claim them until %s",
                each["amount"],
                lock.payee,
                lock.until,
            )
        return {"available": available, "locked": locked, "locks": told}

    @staticmethod
    def _units(client: OceanClient, token: str, amount: str) -> int | None:
        """Return an amount in the token's smallest unit, None for all."""
        from airflow_ocean.c2d.units import parse_units

        return None if amount == ALL else parse_units(amount, "amount", client.datatokens.decimals(token))


def _told(client: OceanClient, job: Job, settlement: Settlement) -> str:
    """Say what became of a job's payment."""
    if job.payment is None:
        return "it was not paid through the escrow"
    token, lock = job.payment.token, settlement.lock
    if settlement.claimed is None:
        if lock is None:
            return "the chain does not show yet what became of its payment"
        return f"{_described(client, token, lock.amount)} are locked until the node claims its cost, or until {lock.until}"
    cost = f"it has cost {_described(client, token, settlement.claimed)}"
    if lock is None:
        return f"{cost}, and nothing is locked for it any more"
    return (
        f"{cost}: nobody claimed it until {lock.until}. {_described(client, token, lock.amount)} come back when the lock is "
        "cancelled, which OceanWithdrawFromEscrowOperator does (withdraw in ocean_escrow)"
    )


def _described(client: OceanClient, token: str, units: int) -> str:
    return client.datatokens.describe(client.datatokens.contract(token), units)
