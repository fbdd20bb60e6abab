"""Checks that a Provider signed a request, and that it is allowed to use this service."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from include.localnet.ethereum import signer_of
from include.localnet.operator_service.store import NonceUsed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from include.localnet.operator_service.store import Store


class Refused(Exception):
    """A request that is answered with an error.

    :param message: upstream's words
    :param status: HTTP status code
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.message, self.status = message, status


def allowed_providers() -> list[str] | None:
    """Return the addresses in ``ALLOWED_PROVIDERS`` (a JSON list) in lower case, or None when everyone is allowed.

    :raises SystemExit: when it is no such list
    """
    text = os.environ.get("ALLOWED_PROVIDERS")
    if not text:
        return None
    try:
        addresses = json.loads(text)
        if isinstance(addresses, list):
            return [str(address).lower() for address in addresses]
    except ValueError:
        pass
    raise SystemExit(f"ALLOWED_PROVIDERS must be a JSON list of addresses, not {text!r}")


def signing_provider(data: Mapping[str, Any], message: str, store: Store, allowed: list[str] | None) -> str:
    """Return the address of the Provider that signed ``message`` and its nonce, and use up the nonce.

    Upstream recovers the address from the message without the nonce, which the Provider signs along, so that every
    request seems to come from another account; here it is the Provider's.

    :param data: the request's parameters
    :raises Refused: when signature or nonce are no good, or the Provider is not allowed
    """
    signature, nonce = data.get("providerSignature"), data.get("nonce")
    signed = f"{message}{nonce}"
    try:
        address = signer_of(signed, str(signature))
    except ValueError as error:
        raise Refused("Failed to recover address") from error
    if allowed is not None and address.lower() not in allowed:
        raise Refused(
            f"Invalid signature {signature} of documentId {signed},"
            f"the signing ethereum account {address} is not authorized to use this service.",
            401,
        )
    try:
        store.use_nonce(address, nonce)
    except NonceUsed as error:
        raise Refused(
            f"Invalid signature expected nonce ({error.newest:f}) > current nonce ({nonce})."
        ) from error
    except ValueError as error:
        raise Refused(str(error)) from error
    return address
