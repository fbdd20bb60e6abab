"""How requests to an Ocean Node are signed.

Source: Ocean Node 3.2.0, ``validateAuthorization``: ``personal_sign(keccak256(utf8(address + nonce + command)))``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from eth_utils import keccak

if TYPE_CHECKING:
    from airflow_ocean.c2d.wallet import Wallet

# A request that was overtaken by one of the same wallet with a higher nonce is signed again.
SIGNING_ATTEMPTS = 8


def signing_nonce(wallet: Wallet, command: str) -> int:
    """Return a nonce for a command.

    A node drops leading zero bytes of the hash that is signed, and so refuses one correct signature in 256: such a nonce
    is passed over.
    """
    while True:
        nonce = wallet.next_nonce()
        if keccak(text=f"{wallet.address}{nonce}{command}")[0]:
            return nonce


def signed_fields(wallet: Wallet, command: str, name: str = "consumerAddress") -> dict[str, str]:
    """Return the fields that make a request a wallet's.

    :param name: of the field with the address
    """
    nonce = signing_nonce(wallet, command)
    signature = wallet.sign_text(f"{wallet.address}{nonce}{command}")
    return {name: wallet.address, "nonce": str(nonce), "signature": signature}


def is_overtaken(error: Exception) -> bool:
    """Say whether a request was refused because one with a higher nonce was there before it."""
    return "is not a valid nonce" in str(error)
