"""What all of the package's operators have in common: the connection, the journal, retries and links."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from airflow_ocean import metrics, parameters
from airflow_ocean.hooks import OceanHook
from airflow_ocean.journal import TaskStateJournal
from airflow_ocean.retries import DEFAULT_FIRST_DELAY, DEFAULT_RETRIES, OceanRetryPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta
    from decimal import Decimal

    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context, RetryPolicy

    from airflow_ocean.c2d.client import OceanClient
    from airflow_ocean.lineage import Lineage


class OceanBaseOperator(BaseOperator):
    """The base of the package's operators.

    :param ocean_conn_id: (templated) the Airflow connection, a wallet on a network
    :param retries: how often to try again after a transient error
    :param retry_delay: the wait before the first retry, doubled with each further one
    :param retry_policy: which errors to retry; by default transient ones, while fatal ones fail at once
    """

    template_fields: Sequence[str] = ("ocean_conn_id",)
    ui_color = "#e6f4f7"
    # What this task read and wrote; set while it runs.
    lineage: Lineage | None = None

    def __init__(
        self,
        *,
        ocean_conn_id: str = OceanHook.default_conn_name,
        retries: int = DEFAULT_RETRIES,
        retry_delay: timedelta | float = DEFAULT_FIRST_DELAY,
        retry_policy: RetryPolicy | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(retries=retries, retry_delay=retry_delay, retry_policy=retry_policy, **kwargs)
        if retry_policy is None:
            # Set afterwards, when Airflow has made a timedelta of the delay.
            self.retry_policy = OceanRetryPolicy(self.retry_delay)
        self.ocean_conn_id = ocean_conn_id

    @cached_property
    def hook(self) -> OceanHook:
        """The hook of the operator's connection."""
        return OceanHook(self.ocean_conn_id)

    def get_openlineage_facets_on_complete(self, _task_instance: Any) -> OperatorLineage[Any, Any] | None:
        """Tell OpenLineage what the task read and wrote; called by its Airflow provider."""
        return None if self.lineage is None else self.lineage.to_openlineage()


class OceanOptionalOperator(OceanBaseOperator):
    """The base of operators that a run may leave out.

    :param enabled: (templated) when false the task is skipped
    """

    template_fields: Sequence[str] = (*OceanBaseOperator.template_fields, "enabled")

    def __init__(self, *, enabled: bool | str = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.enabled = enabled

    def skip_unless_enabled(self) -> None:
        """End the task as skipped when it was switched off."""
        if not parameters.boolean("enabled", self.enabled):
            raise AirflowSkipException("it is switched off: enabled is false")


class OceanStepOperator(OceanBaseOperator):
    """The base of operators that change something: each step of theirs is done once, however often the task runs.

    :param max_cost: (templated) the most the task may spend, beside the connection's own limit: an amount in whole
        tokens that holds for each token that pays, or an object of token address (or ``*``, or ``gas``) → amount, or
        its JSON text
    :param force_new: (templated) when the task is cleared, do everything anew instead of returning what was done
        before. Retries of the same run still do nothing twice
    """

    template_fields: Sequence[str] = (*OceanBaseOperator.template_fields, "max_cost", "force_new")

    def __init__(
        self,
        *,
        max_cost: str | int | Decimal | dict[str, str] | None = None,
        force_new: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.max_cost = max_cost
        self.force_new = force_new
        self.explorer_pages: dict[str, str] = {}
        self._client: OceanClient | None = None

    def client(self, context: Context) -> OceanClient:
        """Return a client, a context manager, whose transactions a retry of this task continues."""
        journal = TaskStateJournal(context, force_new=parameters.boolean("force_new", self.force_new))
        self._client = self.hook.get_client(journal, parameters.cost_limit("max_cost", self.max_cost))
        return self._client

    def post_execute(self, context: Context, result: Any = None) -> None:
        """Count what the task has spent, when it has succeeded."""
        if self._client is not None:
            try:
                metrics.spent(self._client.transactions.mined, self._client.datatokens.decimals)
            except Exception as error:  # whatever it is: what is paid is paid, and the task has succeeded
                self.log.warning("The task's spending was not counted: %s", error)
        super().post_execute(context, result)

    def push_cost(self, context: Context, client: OceanClient) -> None:
        """Push what the task's transactions cost, those of its earlier tries included, as ``cost``."""
        from airflow_ocean.c2d.costs import Cost

        context["ti"].xcom_push("cost", Cost.of(client.transactions.mined).to_dict())

    def note_explorer_pages(
        self, *, transactions: list[str] | tuple[str, ...] = (), nft_address: str | None = None
    ) -> None:
        """Put down the pages that the task's links lead to.

        :param transactions: hashes; the last one gets the link
        :param nft_address: the asset's data NFT
        """
        explorer = self.hook.settings.explorer_url
        if explorer is None:
            return
        if transactions:
            self.explorer_pages["Transaction"] = f"{explorer}/tx/{transactions[-1]}"
        if nft_address is not None:
            self.explorer_pages["Asset on the chain"] = f"{explorer}/address/{nft_address}"
