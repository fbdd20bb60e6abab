"""The endpoints ``encrypt`` and ``decrypt``, and the Provider's own reading of a service's encrypted files."""

from __future__ import annotations

import hashlib
import json
import lzma
from typing import TYPE_CHECKING, Any

import ecies
from eth_keys import keys
from eth_utils import is_address, to_checksum_address
from starlette.responses import PlainTextResponse, Response

from include.localnet.ethereum import RpcError
from include.localnet.provider.errors import Refused

if TYPE_CHECKING:
    from include.localnet.provider.assets import Asset, Service
    from include.localnet.provider.calls import Call
    from include.localnet.provider.configuration import Provider

COMPRESSED, ENCRYPTED = 1, 2
_READABLE_STATES = (0, 4, 5)
_UNREADABLE = {1: "Asset end of life", 2: "Asset deprecated", 3: "Asset revoked"}
# A small compressed document must not unpack to more than the process may use.
_MAX_DOCUMENT = 16 * 2**20


def _public_key(private_key: str) -> str:
    return str(keys.PrivateKey(bytes.fromhex(private_key.removeprefix("0x"))).public_key.to_hex())


def encrypt(provider: Provider, call: Call) -> Response:
    """Encrypt the body with the Provider's public key (ECIES) and answer it as 0x-hex."""
    if call.headers.get("content-type") != "application/octet-stream":
        raise Refused("Invalid request content type: should be application/octet-stream")
    chain_id = call.query.get("chainId")
    if not chain_id:
        raise Refused("Missing chainId query parameter.")
    if chain_id != str(provider.chain.chain_id):
        raise Refused("Failed to encrypt.")
    return PlainTextResponse(encrypted(provider.configuration.private_key, call.body), 201)


def encrypted(private_key: str, document: bytes) -> str:
    """Encrypt a document so that only the holder of the key can read it; 0x-hex."""
    return "0x" + bytes(ecies.encrypt(_public_key(private_key), document)).hex()


def decrypted(private_key: str, document: bytes) -> bytes:
    """Decrypt what was encrypted for the holder of the key.

    :raises ValueError: when it was not
    """
    try:
        return bytes(ecies.decrypt(private_key, document))
    except Exception as error:  # coincurve and cryptography raise unrelated types for broken input
        raise ValueError("not encrypted for this key") from error


def _bytes_of(text: Any) -> bytes:
    return bytes.fromhex(str(text).removeprefix("0x"))


def _document_on_chain(provider: Provider, transaction: str, nft_address: str) -> tuple[bytes, int, bytes]:
    """Return data, flags and hash of the data NFT's metadata event in a transaction."""
    receipt = provider.chain.receipt(transaction)
    if receipt is None:
        raise ValueError("unknown transaction")
    # Only this data NFT's events: upstream takes the transaction's first, whosever it is.
    events = [
        event
        for name in ("MetadataCreated", "MetadataUpdated")
        for event in provider.chain.events_of(receipt, "ERC721Template", name, nft_address)
    ]
    values = events[0].arguments
    flags = values["flags"]
    return values["data"], flags[0] if flags else 0, values["metaDataHash"]


def _document_sent(data: dict[str, Any]) -> tuple[bytes, int, bytes]:
    flags = int(data["flags"])
    flags.to_bytes(1, "big")
    return _bytes_of(data["encryptedDocument"]), flags, _bytes_of(data["documentHash"])


def _check_decrypter(provider: Provider, data: dict[str, Any]) -> str:
    """Check who asks and for what; return the data NFT's address."""
    if str(data["chainId"]) != str(provider.chain.chain_id):
        raise Refused(f"Unsupported chain ID {data['chainId']}")
    authorized = provider.configuration.authorized_decrypters
    if authorized and str(data["decrypterAddress"]).lower() not in authorized:
        raise Refused("Decrypter not authorized", 403)
    not_deployed = Refused("Asset not deployed by the data NFT factory.")
    if not is_address(data["dataNftAddress"]):
        raise not_deployed
    nft_address = str(to_checksum_address(data["dataNftAddress"]))
    factory = provider.contracts["ERC721Factory"]
    if provider.chain.call(factory, "ERC721Factory", "erc721List", nft_address) != nft_address:
        raise not_deployed
    return nft_address


def _check_state(provider: Provider, nft_address: str) -> None:
    state = provider.chain.call(nft_address, "ERC721Template", "getMetaData")[2]
    if state in _UNREADABLE:
        raise Refused(_UNREADABLE[state], 403)
    if state not in _READABLE_STATES:
        raise Refused("Invalid MetadataState")


def decrypt(provider: Provider, call: Call) -> Response:
    """Decrypt a DDO, given by its transaction or by itself, and check its hash."""
    data = call.data
    provider.nonces.claim(str(data["decrypterAddress"]), data["nonce"])
    nft_address = _check_decrypter(provider, data)
    if data.get("transactionId"):
        try:
            document, flags, digest = _document_on_chain(provider, str(data["transactionId"]), nft_address)
        except (RpcError, ValueError, IndexError) as error:
            raise Refused("Failed to process transaction id.") from error
    else:
        try:
            document, flags, digest = _document_sent(data)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise Refused("Failed to convert input args to bytes.") from error
    _check_state(provider, nft_address)
    if flags & ENCRYPTED:
        try:
            document = decrypted(provider.configuration.private_key, document)
        except ValueError as error:
            raise Refused("Failed to decrypt.") from error
    if flags & COMPRESSED:
        document = _decompressed(document)
    if hashlib.sha256(document).digest() != digest:
        raise Refused("Checksum doesn't match.")
    return Response(document, 201, media_type="text/plain")


def _decompressed(document: bytes) -> bytes:
    decompressor = lzma.LZMADecompressor()
    try:
        content = decompressor.decompress(document, _MAX_DOCUMENT)
    except lzma.LZMAError as error:
        raise Refused("Failed to decompress") from error
    if not decompressor.eof:
        raise Refused("Failed to decompress")
    return content


def files_of(private_key: str, asset: Asset, service: Service) -> list[Any] | None:
    """Return a service's file objects, None when they were not encrypted for this key and this asset."""
    try:
        content = json.loads(decrypted(private_key, _bytes_of(service.files)))
        # Until 4.0.0 the list stood alone; since then it names its owner, so that no other asset can carry it.
        if asset.version != "4.0.0":
            same_token = to_checksum_address(content["datatokenAddress"]) == service.datatoken
            if not same_token or to_checksum_address(content["nftAddress"]) != to_checksum_address(
                asset.nft_address
            ):
                return None
            content = content["files"]
    except (ValueError, KeyError, TypeError):
        return None
    return content if isinstance(content, list) and content else None
