"""What is locked in an escrow for jobs, read off the contract's answers and the events in receipts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from eth_utils import keccak, to_checksum_address

from airflow_ocean.c2d.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK_TOPIC = "0x" + keccak(text="Lock(address,address,uint256,uint256,uint256,address)").hex()
# jobId, payer, amount, expiry and token. The Escrow of ocean-contracts 3 has another field after them.
_LOCK_FIELDS = 5


@dataclass(frozen=True)
class Lock:
    """What a payee has locked of a wallet's deposit for a job.

    :param job: the job's number in the contract
    :param amount: in the token's smallest unit
    :param expiry: seconds since 1970; later blocks can't claim it, and anybody can give it back
    """

    job: int
    payee: str
    token: str
    amount: int
    expiry: int

    @property
    def until(self) -> str:
        """The expiry for people."""
        return f"{datetime.fromtimestamp(self.expiry, UTC):%Y-%m-%d %H:%M:%S} UTC"


@dataclass(frozen=True)
class Locking:
    """Where and by whom a job's payment was locked.

    :param escrow: the contract
    :param block: from which on it can be claimed
    """

    escrow: str
    payee: str
    block: int


def read_locks(answer: str, payer: str, token: str, payee: str) -> list[Lock]:
    """Read what ``getLocks`` answers; it also holds others' locks, as its filters are an OR.

    :param answer: 0x-hex
    :raises InvalidInputError: when it has an unknown form
    """
    words = list(_words(answer))
    count = words[1] if len(words) > 1 else -1
    if count == 0:
        return []
    size, rest = divmod(len(words) - 2, max(count, 1))
    if count < 0 or rest or size < _LOCK_FIELDS:
        raise InvalidInputError(f"an escrow contract lists locks in an unknown form: {answer[:300]}")
    entries = [words[start : start + size] for start in range(2, len(words), size)]
    return [
        Lock(job, payee, token, amount, expiry)
        for job, locked_for, amount, expiry, locked_token, *_ in entries
        if (_address(locked_for), _address(locked_token)) == (payer, token)
    ]


def find_locking(receipt: dict[str, Any], payer: str, job: int) -> Locking | None:
    """Return what a transaction locked for a job of a wallet, None when it locked nothing for it."""
    for log in receipt["logs"]:
        if log["topics"][:1] != [LOCK_TOPIC]:
            continue
        locked_for, payee, number, *_ = _words(log["data"])
        if (_address(locked_for), number) == (payer, job):
            escrow = str(to_checksum_address(log["address"]))
            return Locking(escrow, _address(payee), int(receipt["blockNumber"], 16))
    return None


def _words(data: str) -> Iterator[int]:
    return (int(data[start : start + 64], 16) for start in range(2, len(data), 64))


def _address(word: int) -> str:
    return str(to_checksum_address(f"0x{word:040x}"[-42:]))
