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
from airflow_ocean.c2d.locks import find_locking, read_locks
from airflow_ocean.c2d.network import known_escrows
from airflow_ocean.c2d.receipts import CANCEL_TOPIC, CLAIM_TOPIC, canceled_amounts, released_amounts
from airflow_ocean.c2d.units import ZERO_ADDRESS, parse_address
from airflow_ocean.c2d.wallet import machine_lock

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from airflow_ocean.c2d.client import OceanClient
    from airflow_ocean.c2d.jobs import Job, JobPayment
    from airflow_ocean.c2d.locks import Lock, Locking
    from airflow_ocean.c2d.mined_transaction import MinedTransaction
    from airflow_ocean.c2d.services import EscrowPayment

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


@dataclass(frozen=True)
class Settlement:
    """What became of a job's payment.

    :param claimed: what the job has cost, in the token's smallest unit; None while more can be claimed
    :param lock: what is locked for it still. Beside ``claimed`` it has expired, and comes back when it is cancelled
    """

    claimed: int | None = None
    lock: Lock | None = None


class Escrow:
    """The escrow as one wallet sees it; each of its transactions is a step of the client's journal."""

    def __init__(self, client: OceanClient) -> None:
        self._client = client

    def funds(self, escrow: str, token: str) -> Funds:
        """Return what the wallet has in an escrow contract."""
        available, locked = self._contract(escrow).getUserFunds(self._client.address, _address(token))
        return Funds(int(available), int(locked))

    def tokens(self, escrow: str) -> list[str]:
        """Return the tokens that the wallet has, or had, in an escrow contract, and OCEAN.

        The contract forgets a token when all that is free is taken out, even if some of it is locked and comes back later.
        """
        found = [str(token) for token in self._contract(escrow).getUserTokens(self._client.address)]
        with contextlib.suppress(InvalidInputError):  # not every network has it
            found.append(self._client.contract_address("Ocean"))
        return list(dict.fromkeys(found))

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
        self._client.check_spending(purpose, {token: payment.amount})
        self._tell_unknown(payment.escrow)
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

    def _tell_unknown(self, escrow: str) -> None:
        with contextlib.suppress(InvalidInputError):  # none is known
            known = self.known()
            if escrow not in known:
                logger.warning(
                    "The node is paid through the escrow %s; those that are known for chain %d are %s. A node may be built "
                    "for another one; the payment is at risk only where the node itself is not to be trusted",
                    escrow, self._client.chain_id, ", ".join(known),
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

    def settlement(self, job: Job) -> Settlement:
        """Return what became of a job's payment.

        Source: the escrow itself. A node tells the transaction of its claim only as long as nothing goes wrong, never settles
        a job that failed before its algorithm ran, and tells a rounded cost.

        :raises InvalidInputError: when what the node calls the locking of the payment locked nothing for this job
        """
        payment, chain = job.payment, self._client.transactions.chain
        if payment is None:
            return Settlement(claimed=0)
        receipt = chain.receipt(payment.lock) if payment.lock else None
        if receipt is None:
            return Settlement()
        if int(receipt["status"], 16) != 1:  # a node starts the job without waiting for it
            return Settlement(claimed=0)
        number, token = int(payment.escrow_job, 16), _address(payment.token)
        locking = find_locking(receipt, self._client.address, number)
        if locking is None:
            raise InvalidInputError(
                f"transaction {payment.lock}, which locked the payment of job {job.id} as the node says, locked nothing of "
                f"{self._client.address} for it; is this the node, and the wallet, of the job?"
            )
        # Asked before the locks: what a later block still has cannot be claimed any more.
        now = chain.newest_block_time()
        held = self._locks_of(locking.escrow, token, locking.payee)
        lock = next((each for each in held if each.job == number), None)
        if lock is None:
            return Settlement(claimed=self._claimed(payment, locking, number))
        return Settlement(0 if lock.expiry < now else None, lock)

    def _claimed(self, payment: JobPayment, locking: Locking, number: int) -> int | None:
        """Return what was claimed of a lock that is gone.

        :return: None when a node that has not seen yet how it went answers in the place of the one that has
        """
        chain = self._client.transactions.chain
        receipt = chain.receipt(payment.claim) if payment.claim else None
        logs = receipt["logs"] if receipt else []
        released = released_amounts(logs, locking.escrow, self._client.address)
        if number not in released:
            logs = chain.logs(locking.escrow, [CLAIM_TOPIC, CANCEL_TOPIC], locking.block)
            released = released_amounts(logs, locking.escrow, self._client.address)
        return released.get(number)

    def known(self) -> list[str]:
        """Return the Escrow contracts that the wallet may have something in: the listed one, and others of the chain.

        :raises InvalidInputError: when none is known
        """
        others = known_escrows(self._client.chain_id)
        try:
            listed = [self._client.contract_address("Escrow")]
        except InvalidInputError:
            if not others:
                raise
            listed = []
        return list(dict.fromkeys(listed + others))

    def locks(self, escrow: str, token: str) -> list[Lock]:
        """Return what is locked of the wallet's deposit in a token, whoever locked it."""
        address = _address(token)
        found = self._contract(escrow).getAuthorizations(address, self._client.address, ZERO_ADDRESS)
        payees = [str(payee) for payee, *_, locks in found if locks]
        return [lock for payee in payees for lock in self._locks_of(escrow, address, payee)]

    def _locks_of(self, escrow: str, token: str, payee: str) -> list[Lock]:
        wallet, contract = self._client.address, self._contract(escrow).contract
        call = {"to": escrow, "data": contract.encodeABI("getLocks", [token, wallet, payee])}
        # Read here, as the contracts of a chain answer in different forms.
        answer = self._client.transactions.chain.view([call, "latest"])["result"]
        return read_locks(answer, wallet, token, payee)

    def cancel_expired(
        self, escrow: str, tokens: Collection[str], step: str = "cancel expired locks"
    ) -> dict[str, int]:
        """Give back what nobody claimed in time of the wallet's deposit; no node is needed for that.

        :param tokens: those to look at
        :return: token address → what is available again
        """
        transactions, wallet = self._client.transactions, self._client.address
        step = f"{step} in {escrow}"
        done = transactions.resume(step)
        if done is None:
            now = transactions.chain.newest_block_time()
            expired = [lock for token in tokens for lock in self.locks(escrow, token) if lock.expiry < now]
            if not expired:
                return {}
            with transactions.step(step) as tx:
                self._contract(escrow).cancelExpiredLocks(
                    [lock.job for lock in expired],
                    [lock.token for lock in expired],
                    [wallet for _ in expired],
                    [lock.payee for lock in expired],
                    tx,
                )
            done = transactions.of_step(step)
        receipt = transactions.chain.receipt(done.hash)
        return canceled_amounts(receipt["logs"], escrow, wallet) if receipt else {}

    def withdraw(
        self, escrows: list[str], token: str, amount: int | None = None, step: str = "withdraw"
    ) -> int:
        """Take what is not locked out of escrows, of one after the other.

        :param amount: in the token's smallest unit; all that is available by default
        :param step: begins the steps' names
        :raises InsufficientFundsError: when less is available
        :return: what came back
        """
        address, transactions = _address(token), self._client.transactions
        steps = {escrow: f"{step} {address} from {escrow}" for escrow in escrows}
        earlier = {escrow: transactions.resume(name) for escrow, name in steps.items()}
        back = -sum(mined.deposited.get(address, 0) for mined in earlier.values() if mined)
        free = {
            escrow: self.funds(escrow, address).available for escrow, mined in earlier.items() if not mined
        }
        available = sum(free.values())
        rest = available if amount is None else amount - back
        if rest > available:
            contract, datatokens = self._client.datatokens.contract(address), self._client.datatokens
            raise InsufficientFundsError(
                f"{' and '.join(free)} have {datatokens.describe(contract, available)} of {self._client.address} available, "
                f"which is less than {datatokens.describe(contract, rest)}; what is locked comes free when the jobs are "
                "settled, or when its time is over. Nothing was sent"
            )
        for escrow, most in free.items():
            part = min(most, rest)
            if part <= 0:
                continue
            with transactions.step(steps[escrow]) as tx:
                self._contract(escrow).withdraw([address], [part], tx)
            rest -= part
            back -= transactions.of_step(steps[escrow]).deposited.get(address, 0)
        return back

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
