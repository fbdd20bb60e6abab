"""How a published document becomes a DDO again: decompressed here, decrypted by the Provider that encrypted it."""

from __future__ import annotations

import hashlib
import lzma
import time
from typing import TYPE_CHECKING, Any

import httpx
from eth_account import Account

from include.localnet.aquarius.documents import load_json
from include.localnet.ethereum import sign_message

if TYPE_CHECKING:
    from include.localnet.ethereum import Event

LZMA = 1
ECIES = 2
# Bytes: more than any block can carry, so that a small document cannot fill the memory.
_MAX_DOCUMENT = 8 * 1024 * 1024
# Seconds: upstream waits no longer, and neither does it here for the last byte.
_TIMEOUT = 4.0
# Seconds for which a Provider that let us wait in vain is not asked again: it would hold up everybody else's assets.
_REST = 20.0


class RefusedError(Exception):
    """The asset cannot be indexed, however often it is tried."""


class UndecryptedError(Exception):
    """The Provider did not decrypt the document now; it may do so later."""


def _decompressed(data: bytes) -> bytes:
    decompressor = lzma.LZMADecompressor(memlimit=256 * 1024 * 1024)
    try:
        document = decompressor.decompress(data, max_length=_MAX_DOCUMENT)
    except (lzma.LZMAError, EOFError) as error:
        raise RefusedError(f"Failed to decompress: {error}") from error
    if not decompressor.eof:
        raise RefusedError(f"Failed to decompress: truncated, or more than {_MAX_DOCUMENT} bytes")
    return document


def _parsed(document: bytes) -> dict[str, Any]:
    try:
        ddo = load_json(document)
    except ValueError as error:
        raise RefusedError(f"The document is not JSON: {error}") from error
    if not isinstance(ddo, dict):
        raise RefusedError("The document is not a JSON object")
    return ddo


class Decryptor:
    """Turns metadata events into DDOs.

    :param private_key: Aquarius' key, which signs the requests to Providers
    """

    #: The status of a Provider's answer that is the document.
    decrypted_status = 201

    def __init__(self, private_key: str, chain_id: int) -> None:
        self.key = private_key
        self.address: str = Account.from_key(private_key).address
        self.chain_id = chain_id
        self._resting: dict[str, float] = {}
        # A connection kept open would fail the first request after the Provider was restarted.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._http = httpx.Client(timeout=_TIMEOUT, trust_env=False, limits=limits)

    def ddo_of(self, event: Event) -> dict[str, Any]:
        """Return the DDO that a MetadataCreated or MetadataUpdated event publishes.

        :raises RefusedError: when it is damaged, or the Provider will not decrypt it for us
        :raises UndecryptedError: when the Provider does not answer, or not as it should
        """
        arguments = event.arguments
        if not arguments["flags"]:
            raise RefusedError("The event has no flags, which say how to read the document")
        flags: int = arguments["flags"][0]
        if flags & ECIES:
            return self._from_provider(event)
        data = arguments["data"]
        document = _decompressed(data) if flags & LZMA else data
        if hashlib.sha256(document).digest() != arguments["metaDataHash"]:
            raise RefusedError(
                f"Hash check failed: the document's is {hashlib.sha256(document).hexdigest()}, "
                f"metadata hash={arguments['metaDataHash'].hex()}"
            )
        return _parsed(document)

    def _from_provider(self, event: Event) -> dict[str, Any]:
        url = event.arguments["decryptorUrl"].rstrip("/") + "/api/services/decrypt"
        if time.monotonic() < self._resting.get(url, 0):
            raise UndecryptedError(f"in decrypt_ddo: {url} did not answer a moment ago")
        status, content = self._ask(url, event)
        if status == 403:
            raise RefusedError(f"403, response={content[:500]!r}")
        if status != self.decrypted_status:
            raise UndecryptedError(
                f"Provider exception on decrypt DDO. Status:{status},  {content[:500]!r}\n provider URL={url}"
            )
        if hashlib.sha256(content).digest() != event.arguments["metaDataHash"]:
            raise UndecryptedError(
                f"Hash check failed: {url} answered a document of {hashlib.sha256(content).hexdigest()}, "
                f"metadata hash={event.arguments['metaDataHash'].hex()}"
            )
        return _parsed(content)

    def payload(self, event: Event) -> dict[str, Any]:
        """Return the signed request for a document."""
        nonce = str(time.time_ns())
        message = f"{event.transaction}{self.address}{self.chain_id}{nonce}"
        return {
            "transactionId": event.transaction,
            "chainId": self.chain_id,
            "decrypterAddress": self.address,
            "dataNftAddress": event.address,
            "signature": sign_message(message, self.key),
            "nonce": nonce,
        }

    def _ask(self, url: str, event: Event) -> tuple[int, bytes]:
        deadline = time.monotonic() + _TIMEOUT
        content = bytearray()
        try:
            with self._http.stream("POST", url, json=self.payload(event)) as response:
                for chunk in response.iter_bytes():
                    content += chunk
                    if len(content) > _MAX_DOCUMENT:
                        raise UndecryptedError(
                            f"in decrypt_ddo: {url} answers more than {_MAX_DOCUMENT} bytes"
                        )
                    if time.monotonic() > deadline:
                        raise httpx.ReadTimeout(f"no whole answer within {_TIMEOUT:.0f} s")
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            if isinstance(error, httpx.TimeoutException):
                self._rest(url)
            raise UndecryptedError(
                f"Failed to get a response for decrypt DDO with provider={url}: {error!r}"
            ) from error
        return response.status_code, bytes(content)

    def _rest(self, url: str) -> None:
        now = time.monotonic()
        self._resting = {known: until for known, until in self._resting.items() if until > now}
        self._resting[url] = now + _REST
