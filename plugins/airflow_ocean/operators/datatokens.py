"""Operators that move datatokens, the tokens that an order of an asset costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_ocean import parameters
from airflow_ocean.c2d.errors import InvalidInputError
from airflow_ocean.hooks import OceanHook
from airflow_ocean.links import OceanTransactionLink
from airflow_ocean.operators.base import OceanStepOperator

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from decimal import Decimal

    from airflow.sdk import BaseOperatorLink, Context

    from airflow_ocean.c2d.assets import Asset
    from airflow_ocean.c2d.client import OceanClient

METHODS = ("mint", "transfer", "dispense", "buy")


class OceanTransferDatatokensOperator(OceanStepOperator):
    """Get datatokens of one asset or several to a consumer.

    ``mint``: the publisher makes new ones for the consumer. ``transfer``: the connection's wallet hands over some of
    its own. ``dispense`` and ``buy``: the connection's wallet is the consumer and takes free ones from the asset's
    dispenser, or buys them at its fixed rate.

    Returns the list of transaction hashes; pushes ``cost``.

    :param asset_dids: (templated) whose datatokens: a DID, a list of them, or its JSON text
    :param amount: (templated) of each asset, in whole datatokens; text or Decimal, never a float
    :param method: (templated) mint, transfer, dispense or buy
    :param to: (templated) the consumer's address; for ``dispense`` and ``buy`` it is the connection's wallet
    :param to_conn_id: (templated) the consumer's Airflow connection, instead of ``to``
    :param max_cost: (templated) the most that prices and gas may be; ``buy`` needs one, here or in the connection: an
        amount in whole tokens that holds for each token that pays, or an object of token address (or ``*``, or
        ``gas``) → amount, or its JSON text
    :param ocean_conn_id: (templated) the connection of the wallet that acts
    """

    template_fields: Sequence[str] = (
        *OceanStepOperator.template_fields,
        "asset_dids",
        "amount",
        "method",
        "to",
        "to_conn_id",
    )
    operator_extra_links: Collection[BaseOperatorLink] = (OceanTransactionLink(),)

    def __init__(
        self,
        *,
        asset_dids: list[str] | str,
        amount: str | int | Decimal = 1,
        method: str = "mint",
        to: str | None = None,
        to_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.asset_dids = asset_dids
        self.amount = amount
        self.method = method
        self.to = to
        self.to_conn_id = to_conn_id

    def execute(self, context: Context) -> list[str]:
        """Move the datatokens and return the transactions' hashes."""
        asset_dids = parameters.dids("asset_dids", self.asset_dids)
        amount = parameters.token_amount("amount", self.amount)
        method = parameters.choice("method", self.method, METHODS)
        consumer = self._consumer(method)
        transactions: list[str] = []
        with self.client(context) as client:
            if method == "buy" and not client.limit.amounts:
                raise InvalidInputError("max_cost is not given; buying needs a limit of what may be paid")
            receiver = consumer or client.address
            # All are looked up before the first transaction, so that a wrong DID costs nothing.
            assets = [client.assets.resolve(did) for did in asset_dids]
            if method == "buy" and len(assets) > 1:
                steps = {_datatoken(asset): _step(method, asset) for asset in assets}
                client.datatokens.check_purchases(steps, amount)
            for asset in assets:
                transactions += _move(client, method, asset, amount, receiver)
            self.push_cost(context, client)
        self.note_explorer_pages(transactions=transactions)
        return transactions

    def _consumer(self, method: str) -> str | None:
        """Return the consumer's address, None for the connection's own wallet."""
        to = parameters.optional_address("to", self.to)
        to_conn_id = parameters.optional_text("to_conn_id", self.to_conn_id)
        if method in ("dispense", "buy"):
            if to is not None or to_conn_id is not None:
                raise InvalidInputError(
                    f"{method} is done by the consumer itself: leave to and to_conn_id out"
                )
            return None
        if (to is None) == (to_conn_id is None):
            raise InvalidInputError(f"give either to or to_conn_id: the consumer that {method} is for")
        return to if to_conn_id is None else str(OceanHook(to_conn_id).client.address)


def _move(client: OceanClient, method: str, asset: Asset, amount: int, receiver: str) -> list[str]:
    """Move the datatokens of one asset."""
    datatoken, step = _datatoken(asset), _step(method, asset)
    if method == "dispense":
        return [client.datatokens.dispense(datatoken, amount, step=step)]
    if method == "buy":
        return client.datatokens.buy(datatoken, amount, step=step)
    move = client.datatokens.mint if method == "mint" else client.datatokens.transfer
    return [move(datatoken, receiver, amount, step=step)]


def _datatoken(asset: Asset) -> str:
    return asset.service("compute", "access").datatoken


def _step(method: str, asset: Asset) -> str:
    """Name a step in the journal; the asset's DID is in it, as a task may move the datatokens of several."""
    return f"{method} {asset.did}"
