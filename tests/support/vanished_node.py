"""A node that takes a wallet's money for a job and is never heard of again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_ocean.c2d.services import EscrowPayment
from include.localnet.accounts import CARLOS
from include.localnet.ethereum import Chain
from include.localnet.node.escrow import Escrow
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from airflow_ocean.c2d.client import OceanClient


def leave_expired_lock(client: OceanClient, escrow: str, token: str, amount: int) -> None:
    """Deposit an amount, in the token's smallest unit, have all of it locked, and wait until the lock has expired."""
    chain = Chain(client.network.rpc_url)
    payment = EscrowPayment(escrow, CARLOS.address, token, amount, 1)
    client.escrow.provide(payment, "a job that nobody runs")
    name = f"a job of {client.address}"
    Escrow(chain, escrow, CARLOS.private_key, 0).lock(name, token, client.address, amount, 1)
    (lock,) = wait_until(
        lambda: [lock for lock in client.escrow.locks(escrow, token) if lock.payee == CARLOS.address],
        "the payment is locked",
    )

    def is_past() -> bool:
        chain.request("evm_mine")
        return client.transactions.chain.newest_block_time() > lock.expiry

    wait_until(is_past, "the lock has expired", 30)
