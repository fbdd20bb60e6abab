"""The key of one account: its address, Ocean's message signatures, and the lock that orders its transactions."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from eth_account import Account
from eth_account.messages import encode_defunct
from eth_utils import keccak
from filelock import FileLock

from airflow_ocean.c2d.errors import InvalidInputError

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

# eth_account brings in py_ecc, which raises the limit to 100,000: deeply nested JSON from outside then overflows the C
# stack and kills the process instead of raising RecursionError. Airflow itself works with up to 5,000.
sys.setrecursionlimit(min(sys.getrecursionlimit(), 5_000))


class Wallet:
    """An account that signs; the key never shows in ``repr``, errors or logs.

    :param private_key: 32 bytes as hexadecimal text, with or without ``0x``
    :raises InvalidInputError: when it is no private key
    """

    _last_nonce = 0
    _nonce_guard = threading.Lock()

    def __init__(self, private_key: str) -> None:
        try:
            self.account: LocalAccount = Account.from_key(private_key)
        except Exception:  # the key libraries raise several types, some with the key in their text
            raise InvalidInputError(
                "the private key is not valid: expected 64 hexadecimal digits, with or without 0x in front"
            ) from None

    def __repr__(self) -> str:
        return f"Wallet({self.address})"

    @property
    def address(self) -> str:
        """The checksummed address."""
        return str(self.account.address)

    def sign_text(self, message: str) -> str:
        """Sign as Ocean's services expect it: ``personal_sign`` over keccak-256 of the UTF-8 text.

        Source: Provider ``user_nonce.verify_signature``.
        """
        signed = self.account.sign_message(encode_defunct(keccak(text=message)))
        return "0x" + bytes(signed.signature).hex()

    @classmethod
    def next_nonce(cls) -> int:
        """Return a nonce for a signed request to a service: milliseconds since 1970, rising within the process.

        Services take any nonce above the last one they saw. A clock needs no look-up and no coordination between
        machines; two requests that overtake each other on the way are repeated with a new one. Milliseconds are
        what ocean.js uses: a finer clock would lock that client out of the same wallet.
        """
        with cls._nonce_guard:
            cls._last_nonce = max(cls._last_nonce + 1, time.time_ns() // 1_000_000)
            return cls._last_nonce

    def lock(self, chain_id: int) -> FileLock:
        """Return the lock under which this account's transactions get their nonces on this machine."""
        return machine_lock(chain_id, self.address)


def machine_lock(chain_id: int, what: str) -> FileLock:
    """Return a lock that all of this user's processes on this machine share; it goes with the process that holds it.

    :param what: an address or a DID on that chain
    """
    name = hashlib.sha256(f"{chain_id}:{what}".encode()).hexdigest()[:24]
    return FileLock(lock_folder() / f"{name}.lock")


def lock_folder() -> Path:
    """Return the folder of the locks by which this user's processes on this machine take turns."""
    folder = Path(tempfile.gettempdir()) / f"airflow-ocean-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
