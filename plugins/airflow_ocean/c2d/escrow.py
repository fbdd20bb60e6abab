"""The escrow, through which jobs on Ocean Nodes are paid: deposits, who may lock them, what was claimed, what comes back.

A job's payment is locked by the node when the job starts, out of what the consumer has deposited and has authorized this
node to lock. After the job the node claims what it cost; the rest is the consumer's again, in the contract.
"""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_ocean.c2d.errors import InsufficientFundsError, InvalidInputError
from airflow_ocean.c2d.receipts import claimed_amounts
from airflow_ocean.c2d.units import parse_address
from airflow_ocean.c2d.wallet import machine_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_ocean.c2d.client import OceanClient
    from airflow_ocean.c2d.jobs import Job
    from airflow_ocean.c2d.services import EscrowPayment
    from airflow_ocean.c2d.transactions import MinedTransaction

logger = logging.getLogger(__name__)

# Steps of one purpose: a retry may have to top up once more, as other tasks spend from the same deposit.
_MOST_TOP_UPS = 100


@dataclass(frozen=True)
class Funds:
    """What a wallet has in the escrow of one token, in its smallest unit.

    :param available: may be locked, or withdrawn
    :param locked: for jobs that are not settled
    """

    available: int
    locked: int


@dataclass(frozen=True)
class Authorization:
    """What a payee may lock of a wallet's deposit in one token.

    :param most: in the token's smallest unit, at a time
    :param locked: what is locked now
    :param most_seconds: for how long
    :param most_locks: for how many jobs at a time
    :param locks: for how many it is now
    """

    most: int = 0
    locked: int = 0
    most_seconds: int = 0
    most_locks: int = 0
    locks: int = 0

    def allows(self, payment: EscrowPayment) -> bool:
        """Whether a payment may be locked beside what is locked."""
        return (
            self.locked + payment.amount <= self.most
            and payment.lock_seconds <= self.most_seconds
            and self.locks < self.most_locks
        )


class Escrow:
    """The escrow as one wallet sees it; each of its transactions is a step of the client's journal."""

    def __init__(self, client: OceanClient) -> None:
        self._client = client

    def funds(self, escrow: str, token: str) -> Funds:
        """Return what the wallet has in an escrow contract."""
        available, locked = self._contract(escrow).getUserFunds(self._client.address, _address(token))
        return Funds(int(available), int(locked))

    def tokens(self, escrow: str) -> list[str]:
        """Return the tokens that the wallet has, or had, in an escrow contract."""
        return [str(token) for token in self._contract(escrow).getUserTokens(self._client.address)]

    def authorization(self, payment: EscrowPayment) -> Authorization:
        """Return what a payment's payee may lock."""
        found = self._contract(payment.escrow).getAuthorizations(
            _address(payment.token), self._client.address, payment.payee
        )
        return Authorization(*(int(value) for value in found[0][1:])) if found else Authorization()

    def missing(self, payment: EscrowPayment) -> int:
        """Return how much has to be deposited for a payment, in the token's smallest unit."""
        return max(payment.amount - self.funds(payment.escrow, payment.token).available, 0)

    # ------------------------------------------------------------------ paying

    def provide(self, payment: EscrowPayment, purpose: str) -> None:
        """Deposit exactly what a payment lacks, and let its payee lock it; what is there and enough is used.

        :param purpose: what it is for; ends the steps' names
        :raises CostLimitError: when it is more than the client's limit; nothing was sent
        :raises InsufficientFundsError: when the wallet lacks the tokens; nothing was sent
        """
        datatokens, transactions = self._client.datatokens, self._client.transactions
        contract, token = self._contract(payment.escrow), _address(payment.token)
        self._client.limit.check_tokens(purpose, {token: payment.amount}, datatokens.decimals)
        self._tell_unlisted(payment.escrow)
        deposits, authorizations = self.steps(purpose)
        missing = self.missing(payment)
        if missing:
            datatokens.require_balance(datatokens.contract(token), missing)
            step = _deposit_step(len(deposits) + 1, purpose)
            with (
                datatokens.approved(payment.escrow, {token: missing}, step),
                transactions.step(step) as tx,
            ):
                contract.deposit(token, missing, tx)
            logger.info(
                "Deposited %s in the escrow %s",
                datatokens.describe(datatokens.contract(token), missing),
                payment.escrow,
            )
        allowed = self.authorization(payment)
        if not allowed.allows(payment):
            with transactions.step(_authorization_step(len(authorizations) + 1, purpose)) as tx:
                contract.authorize(
                    token,
                    payment.payee,
                    # What is locked for other jobs counts towards the most.
                    allowed.locked + payment.amount,
                    max(payment.lock_seconds, allowed.most_seconds if allowed.locks else 0),
                    allowed.locks + 1,
                    tx,
                )

    def _tell_unlisted(self, escrow: str) -> None:
        with contextlib.suppress(InvalidInputError):  # none is listed
            listed = self._client.contract_address("Escrow")
            if listed != escrow:
                logger.warning(
                    "The node is paid through the escrow %s; the one that is listed for chain %d is %s. A node may be built "
                    "for an earlier one; the payment is at risk only where the node itself is not to be trusted",
                    escrow, self._client.chain_id, listed,
                )  # fmt: skip

    def steps(self, purpose: str) -> tuple[list[MinedTransaction], list[MinedTransaction]]:
        """Bring the deposits and authorizations that earlier attempts sent for a purpose to their end."""
        return self._sent(_deposit_step, purpose), self._sent(_authorization_step, purpose)

    def _sent(self, name: Any, purpose: str) -> list[MinedTransaction]:
        sent: list[MinedTransaction] = []
        for number in range(1, _MOST_TOP_UPS):
            step = name(number, purpose)
            self._client.datatokens.approvals(step)
            mined = self._client.transactions.resume(step)
            if mined is None:
                break
            sent.append(mined)
        return sent

    @contextlib.contextmanager
    def turn(self, payment: EscrowPayment) -> Iterator[None]:
        """Let the starts of this machine that pay out of one deposit take turns, so that each sees what the others locked."""
        with machine_lock(self._client.chain_id, f"{payment.escrow} {self._client.address}"):
            yield

    def wait_until_locked(self, job: Job) -> None:
        """Wait until the transaction that locks a started job's payment is in a block; the node does not."""
        lock = job.payment.lock if job.payment else None
        if lock is None:
            return
        deadline, pause = time.monotonic() + self._client.network.transaction_timeout, 0.1
        while self._client.transactions.chain.receipt(lock) is None:
            if time.monotonic() > deadline:
                logger.warning(
                    "Transaction %s, which locks the payment of job %s, is in no block", lock, job.id
                )
                return
            time.sleep(pause)
            pause = min(pause * 1.5, 2.0)

    # ------------------------------------------------------------------ after the job

    def claimed(self, job: Job) -> int | None:
        """Return what a settled job has cost, in the token's smallest unit; None while it is not settled.

        Source: the escrow's event ``Claimed`` of the node's claim; the cost that a node tells is a rounded number.
        """
        payment = job.payment
        if payment is None or not payment.is_settled:
            return None
        if payment.claim is None:
            return 0
        receipt = self._client.transactions.chain.receipt(payment.claim)
        if receipt is None:
            return None
        return claimed_amounts(receipt["logs"], self._client.address).get(int(payment.escrow_job, 16), 0)

    def withdraw(self, escrow: str, token: str, amount: int | None = None, step: str = "withdraw") -> int:
        """Take what is not locked out of the escrow.

        :param amount: in the token's smallest unit; all that is available by default
        :raises InsufficientFundsError: when less is available
        :return: what came back
        """
        address = _address(token)
        done = self._client.transactions.resume(step)
        if done is None:
            available = self.funds(escrow, token).available
            amount = available if amount is None else amount
            if amount > available:
                contract, datatokens = self._client.datatokens.contract(address), self._client.datatokens
                raise InsufficientFundsError(
                    f"the escrow {escrow} has {datatokens.describe(contract, available)} of {self._client.address} available, "
                    f"which is less than {datatokens.describe(contract, amount)}; what is locked comes free when the jobs are "
                    "settled. Nothing was sent"
                )
            if amount == 0:
                return 0
            with self._client.transactions.step(step) as tx:
                self._contract(escrow).withdraw([address], [amount], tx)
            done = self._client.transactions.of_step(step)
        return -done.deposited.get(address, 0)

    def _contract(self, address: str) -> Any:
        from airflow_ocean.c2d import oceanlib

        self._client.require_contract(address, "escrow")
        return oceanlib.Escrow(self._client.ocean_config, address)


def _address(token: str) -> str:
    return parse_address(token, "token")


def _deposit_step(number: int, purpose: str) -> str:
    return f"deposit {number} for {purpose}"


def _authorization_step(number: int, purpose: str) -> str:
    return f"authorization {number} for {purpose}"
