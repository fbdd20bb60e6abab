"""Searching what a person can read of a run for what nobody may: private keys, signatures and passwords."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from include.localnet.accounts import ACCOUNTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# A signature alone is 65 bytes, the last of which says which of two keys signed. The same length elsewhere is not one: a
# public key ends in any byte, and what a contract is called with is longer.
_SIGNATURE = re.compile(r"(?<![0-9a-f])(?:0x)?[0-9a-f]{128}(?:00|01|1b|1c)(?![0-9a-f])", re.IGNORECASE)
# In a field of that name any long hexadecimal number is one, however its quotes are written.
_SIGNATURE_FIELD = re.compile(r"signature[\\\"'\s]*[:=][\\\"'\s]*(?:0x)?[0-9a-f]{64,}", re.IGNORECASE)


def leaks(texts: Mapping[str, str], passwords: Iterable[str]) -> list[str]:
    """Return what must not be in the texts and is, each with where it is.

    :param texts: where from → text
    :param passwords: those of keystore files
    """
    found = []
    for source, text in texts.items():
        lower = text.lower()
        for account in ACCOUNTS:
            if account.private_key.removeprefix("0x").lower() in lower:
                found.append(f"{source}: the private key of {account.name}")
        found += [f"{source}: a keystore password" for password in passwords if password in text]
        found += [
            f"{source}: a signature, after {text[max(0, match.start() - 80) : match.start()]!r}"
            for pattern in (_SIGNATURE, _SIGNATURE_FIELD)
            for match in pattern.finditer(text)
        ]
    return found
