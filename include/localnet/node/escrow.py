"""The node's side of the Escrow contract: what a consumer has locked there for a job, and what the node takes of it."""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eth_account import Account

from include.localnet.ethereum import ZERO_ADDRESS, Event, RpcError, encode_call
from include.localnet.node.answers import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from decimal import Decimal

    from include.localnet.ethereum import Chain

EVENTS = ("Auth", "Lock", "Claimed", "Canceled", "Deposit", "Withdraw")
_AUTHORIZATION_TRIES = 2
_TRY_AGAIN_SECONDS = 1.0


@dataclass(frozen=True)
class Lock:
    """What is locked for a job.

    :param job: the job's id as the contract knows it
    :param amount: in the token's smallest unit
    :param expiry: seconds since 1970
    """

    job: int
    payer: str
    amount: int
    expiry: int
    token: str


@dataclass(frozen=True)
class Claim:
    """What is taken for a job.

    :param amount: in the token's smallest unit; 0 gives the payer all back
    :param proof: what was done for it
    """

    job_id: str
    token: str
    payer: str
    amount: int
    proof: str


def job_hash(job_id: str) -> str:
    """Return a job's id in the contract: SHA-256 of its text, 0x-hex."""
    return "0x" + hashlib.sha256(job_id.encode()).hexdigest()


def _number(job_id: str) -> int:
    return int(job_hash(job_id), 16)


class Escrow:
    """Reads the contract, and sends the node's transactions to it.

    :param address: the contract's
    :param private_key: the payee's
    :param claim_seconds: how long after a job's longest time its payment can still be claimed
    """

    def __init__(self, chain: Chain, address: str, private_key: str, claim_seconds: int) -> None:
        self.address = address
        self._chain = chain
        self._key = private_key
        self._payee: str = Account.from_key(private_key).address
        self._claim_seconds = claim_seconds
        self._decimals: dict[str, int] = {}
        self._sending = threading.Lock()

    def lock_seconds(self, duration: float) -> int:
        """Return for how long a payment must be locked for a job of a duration (seconds)."""
        return int(duration) + self._claim_seconds

    def amount(self, cost: Decimal, token: str) -> int:
        """Return a cost in whole tokens in the token's smallest unit."""
        if token not in self._decimals:
            self._decimals[token] = int(self._chain.call(token, "ERC20Template", "decimals"))
        return int(cost.scaleb(self._decimals[token]))

    def lock(self, job_id: str, token: str, payer: str, amount: int, seconds: int) -> str:
        """Lock a consumer's money for a job and return the transaction.

        :raises Refused: when he has not deposited enough, or not allowed this much, this long or this often
        """
        available, _ = self._chain.call(self.address, "Escrow", "getUserFunds", payer, token)
        if available < amount:
            raise Refused(f"User {payer} does not have enough funds", 400)
        authorization = self._authorization(token, payer)
        _, most_locked, locked, most_seconds, most_locks, locks = authorization
        if locked + amount > most_locked:
            raise Refused("No valid escrow auths found(will go over limit)", 400)
        if most_seconds < seconds:
            raise Refused("No valid escrow auths found(maxLockSeconds too low)", 400)
        if locks + 1 > most_locks:
            raise Refused("No valid escrow auths found(too many active locks)", 400)
        try:
            return self._send("createLock", _number(job_id), token, payer, amount, seconds)
        except RpcError as error:
            raise Refused(str(error), 400) from error

    def _authorization(self, token: str, payer: str) -> tuple[Any, ...]:
        found: list[tuple[Any, ...]] = []
        for attempt in range(_AUTHORIZATION_TRIES):
            if attempt:
                time.sleep(_TRY_AGAIN_SECONDS)  # it may be on its way into a block
            found = list(
                self._chain.call(self.address, "Escrow", "getAuthorizations", token, payer, self._payee)
            )
            if len(found) == 1:
                return found[0]
        raise Refused(
            f"No escrow auths found for: chain={self._chain.chain_id}, token={token}, payer={payer}, "
            f"nodeAddress={self._payee}. Found {len(found)} authorizations.",
            400,
        )

    def locks(self) -> list[Lock]:
        """Return everything that is locked for this node."""
        found = self._chain.call(self.address, "Escrow", "getLocks", ZERO_ADDRESS, ZERO_ADDRESS, self._payee)
        return [Lock(job, payer, amount, expiry, token) for job, payer, amount, expiry, token in found]

    def claim(self, claims: list[Claim]) -> str:
        """Take what is due of several jobs at once; the rest goes back to the payers."""
        return self._send(
            "claimLocksAndWithdraw",
            [_number(claim.job_id) for claim in claims],
            [claim.token for claim in claims],
            [claim.payer for claim in claims],
            [claim.amount for claim in claims],
            [claim.proof.encode() for claim in claims],
        )

    def cancel(self, locks: Iterable[Lock]) -> str:
        """Give expired locks back."""
        chosen = list(locks)
        return self._send(
            "cancelExpiredLocks",
            [lock.job for lock in chosen],
            [lock.token for lock in chosen],
            [lock.payer for lock in chosen],
            [self._payee for _ in chosen],
        )

    def _send(self, function: str, *arguments: Any) -> str:
        """Send a transaction and return its hash at once, mined or not, as upstream does.

        :raises RpcError: when it would revert
        """
        data = encode_call("Escrow", function, *arguments)
        with self._sending:
            request = self._chain.request
            gas = int(request("eth_estimateGas", {"from": self._payee, "to": self.address, "data": data}), 16)
            transaction = {
                "type": 2,
                "chainId": self._chain.chain_id,
                "nonce": int(request("eth_getTransactionCount", self._payee, "pending"), 16),
                "gas": gas * 6 // 5,
                "maxFeePerGas": 2 * int(request("eth_gasPrice"), 16),
                "maxPriorityFeePerGas": 10**9,
                "value": 0,
                "to": self.address,
                "data": data,
            }
            signed = Account.sign_transaction(transaction, self._key)
            sent: str = request("eth_sendRawTransaction", "0x" + bytes(signed.rawTransaction).hex())
        return sent

    def events(self, criteria: Mapping[str, str]) -> list[dict[str, Any]]:
        """Return what happened in the contract, oldest first.

        :param criteria: ``eventType``, ``payer``, ``payee``, ``token``, ``jobId`` and ``txId``, of which all must fit
        """
        found = self._chain.logs("Escrow", list(EVENTS), 0, self._chain.block_number(), address=self.address)
        records = [self._record(event) for event in found]
        wanted = {("txHash" if key == "txId" else key): value for key, value in criteria.items()}
        lower = ("payer", "payee", "token")
        return [
            record
            for record in records
            if all(
                record.get(key) == (value.lower() if key in lower else value) for key, value in wanted.items()
            )
        ]

    def _record(self, event: Event) -> dict[str, Any]:
        record: dict[str, Any] = {
            "id": f"{event.transaction}-{event.index}",
            "eventType": event.name,
            "chainId": self._chain.chain_id,
            "contract": event.address.lower(),
            "block": event.block,
            "txHash": event.transaction,
        }
        for name, value in event.arguments.items():
            record[name] = "0x" + value.hex() if isinstance(value, bytes) else str(value)
            if name in ("payer", "payee", "token"):
                record[name] = record[name].lower()
        return record
