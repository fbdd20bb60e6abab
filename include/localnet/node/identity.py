"""The names a node has besides its address: its public key and the libp2p peer id made of it."""

from __future__ import annotations

from eth_keys import keys

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
# An identity multihash (0x00) of 37 bytes: protobuf with the key's type (secp256k1) and its 33 bytes.
# https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md
_PREFIX = bytes.fromhex("002508021221")


def public_key(private_key: str) -> bytes:
    """Return the compressed public key."""
    key = keys.PrivateKey(bytes.fromhex(private_key.removeprefix("0x"))).public_key
    return bytes(key.to_compressed_bytes())


def peer_id(private_key: str) -> str:
    """Return the peer id, ``16Uiu2HA…``."""
    content = _PREFIX + public_key(private_key)
    number, digits = int.from_bytes(content, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        digits = _ALPHABET[digit] + digits
    return "1" * (len(content) - len(content.lstrip(b"\0"))) + digits
