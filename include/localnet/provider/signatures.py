"""Who sent a request: the signature over its fields, or an authentication token instead of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eth_utils import is_address, to_checksum_address

from include.localnet.ethereum import signer_of
from include.localnet.provider.nonces import NonceTooLow, is_number

if TYPE_CHECKING:
    from include.localnet.provider.configuration import Provider

_NOT_SIGNED = ["Invalid signature provided. Please check the nonce or documentId."]


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _signed_by(rule: str, fields: list[Any]) -> tuple[str, str, Any]:
    """Return the claimed signer, the message without its nonce, and the nonce."""
    if rule == "download_signature":
        owner, did, nonce = fields
        return _text(owner), _text(did), nonce
    if rule == "decrypt_signature":
        transaction_id, nft_address, decrypter, chain_id, nonce = fields
        subject = _text(transaction_id) or _text(nft_address)
        return _text(decrypter), f"{subject}{_text(decrypter)}{_text(chain_id)}", nonce
    owner, did, job_id, nonce = fields
    return _text(owner), f"{_text(owner)}{_text(job_id)}{_text(did)}", nonce


class RequestAuthority:
    """Checks the signature rules of one request.

    :param auth_token: the request's ``AuthToken`` header; a signature takes precedence over it
    """

    def __init__(self, provider: Provider, auth_token: str | None) -> None:
        self._provider = provider
        self._token = auth_token

    def __call__(self, rule: str, signature: Any, fields: list[Any]) -> list[str] | str | None:
        """Return None when the request was sent by whom it says, else the messages."""
        owner, message, nonce = _signed_by(rule, fields)
        if not is_number(nonce):
            return _NOT_SIGNED
        try:
            if signature:
                self._provider.nonces.check(owner, nonce)
                return self._signature_problem(owner, message, nonce, str(signature))
            if self._token and not self._provider.tokens.problem(self._token, owner):
                self._provider.nonces.check(owner, nonce)
                return None
        except NonceTooLow as error:
            return str(error)
        return _NOT_SIGNED

    def _signature_problem(self, owner: str, message: str, nonce: Any, signature: str) -> str | None:
        problem = f"Invalid signature {signature} for ethereum address {owner}, message {message} and nonce {nonce}."
        try:
            signer = signer_of(f"{message}{nonce}", signature)
        except ValueError as error:
            return f"{problem} Got {error}"
        if not is_address(owner) or to_checksum_address(owner) != signer:
            return f"{problem} Got {signer.lower()}"
        return None
