"""Gas: what an estimate reckons with, what was signed for, and what the chain asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_ocean.c2d.limits import GAS
from airflow_ocean.c2d.transactions import highest_fee
from airflow_ocean.c2d.units import parse_units

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_ocean.c2d.client import OceanClient
    from airflow_ocean.c2d.estimates import Estimate
    from airflow_ocean.c2d.mined_transaction import MinedTransaction
    from include.localnet.ethereum import Chain


def gas_of(estimate: Estimate, client: OceanClient) -> int:
    """Return the gas that an estimate reckons with for a wallet, as long as there was no block since."""
    return estimate.totals(client.address).get(GAS, 0) // highest_fee(client.transactions.chain.fees(None))


def gas_signed_for(client: OceanClient, sent: Iterable[MinedTransaction] | None = None) -> int:
    """Return how much gas transactions may have taken, which a limit is compared with, and not what they took.

    :param sent: all of the client's by default
    """
    chain = client.transactions.chain
    mined = client.transactions.mined if sent is None else sent
    return sum(int(chain.request("eth_getTransactionByHash", one.hash)["gas"], 16) for one in mined)


def set_base_fee(chain: Chain, gwei: str) -> None:
    """Let the chain's newest block have a base fee; each that is not half full has an eighth less than the one before."""
    chain.request("anvil_setNextBlockBaseFeePerGas", hex(parse_units(gwei, "gwei", 9)))
    chain.request("anvil_mine", "0x1")
