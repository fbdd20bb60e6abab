"""A look at every part of a network, for a person who tests a connection: what is well, and what is not and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_ocean.c2d.errors import InsufficientFundsError, OceanError
from airflow_ocean.c2d.network import origin
from airflow_ocean.c2d.services import service_looks
from airflow_ocean.c2d.units import format_units

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_ocean.c2d.client import OceanClient


@dataclass(frozen=True)
class Check:
    """What a look at one part of the network found."""

    part: str
    ok: bool
    detail: str


def check_network(client: OceanClient) -> list[Check]:
    """Look at the chain, Ocean's contracts on it, each service, and the wallet's balance, once.

    Each is looked at whether or not those before it are well.
    """

    def chain() -> str:
        rpc = origin(client.network.rpc_url)
        return f"chain {client.chain_id} at {rpc}, block {client.web3.eth.block_number}"

    def contracts() -> str:
        client.require_contract(client.contract_address("ERC721Factory"), "ERC721Factory")
        name, _ = client.network.contracts(client.chain_id)
        return f"those of network {name} are there"

    def wallet() -> str:
        held = client.web3.eth.get_balance(client.address)
        if held == 0:
            raise InsufficientFundsError(
                f"{client.address} holds none of the chain's coin and cannot pay for gas; send it some"
            )
        coins = f"{client.address} holds {format_units(held)} of the chain's coin"
        if "Ocean" not in client.network.contracts(client.chain_id)[1]:
            return f"{coins}; no OCEAN token is listed for this network"
        ocean = client.datatokens.balance(client.contract_address("Ocean"))
        return f"{coins} and {format_units(ocean)} OCEAN"

    found = [_look("Chain", chain)]
    chain_id = client.chain_id if found[0].ok else None
    looks = {"Contracts": contracts, **service_looks(client.network, chain_id), "Wallet": wallet}
    return found + [_look(part, look) for part, look in looks.items()]


def _look(part: str, look: Callable[[], str]) -> Check:
    try:
        return Check(part, True, look())
    except OceanError as error:
        return Check(part, False, str(error))
