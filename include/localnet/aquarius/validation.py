"""Aquarius' verdict on a DDO: its errors by field, or the signature that says it is valid."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from eth_account import Account
from eth_account.messages import encode_defunct
from eth_utils.address import is_address

from include.localnet.aquarius.shapes import CURRENT_VERSION, Field, Shape, shape_of
from include.localnet.ethereum import did_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_DATATYPES: dict[str, type] = {"string": str, "integer": int, "boolean": bool}


class UnknownSchemaError(Exception):
    """There are no rules for a DDO of this version."""


def _values(value: Any) -> Iterator[Any]:
    """Yield the values of a field as JSON-LD reads them: lists are flat sets, null is nothing."""
    if isinstance(value, list):
        for item in value:
            yield from _values(item)
    elif value is not None:
        yield value


def _distinct(value: Any) -> list[Any]:
    found: list[Any] = []
    seen = set()
    for item in _values(value):
        key = (type(item), item) if not isinstance(item, dict) else id(item)
        if key not in seen:
            seen.add(key)
            found.append(item)
    return found


def _has_datatype(value: Any, datatype: str) -> bool:
    expected = _DATATYPES[datatype]
    return isinstance(value, expected) and (expected is bool or not isinstance(value, bool))


def _length_error(values: list[Any], field: Field) -> str | None:
    lengths = [len(value) for value in values if isinstance(value, str)]
    for sign, limit, broken in (
        (">=", field.min_length, any(length < (field.min_length or 0) for length in lengths)),
        ("<=", field.max_length, any(length > (field.max_length or length) for length in lengths)),
    ):
        if limit is not None and broken:
            return f'String length not {sign} Literal("{limit}", datatype=xsd:integer)'
    return None


def _value_error(values: list[Any], field: Field) -> str | None:
    if field.datatype and not all(_has_datatype(value, field.datatype) for value in values):
        return f"Value is not Literal with datatype xsd:{field.datatype}"
    if field.shape and not all(conforms(value, field.shape) for value in values):
        return f"Value does not conform to Shape schema1:{field.shape.name}"
    if field.pattern and not all(re.search(field.pattern, str(value)) for value in values):
        return f"Value does not match pattern '{field.pattern}'"
    return _length_error(values, field)


def _field_error(name: str, value: Any, field: Field) -> str | None:
    values = _distinct(value)
    if len(values) < field.min_count:
        return f"Less than {field.min_count} value on schema1:{name}"
    if field.max_count is not None and len(values) > field.max_count:
        return f"More than {field.max_count} values on schema1:{name}"
    return _value_error(values, field)


def conforms(value: Any, shape: Shape) -> bool:
    """Say whether a value has every field as the shape wants it; a text has none of them."""
    fields = value if isinstance(value, dict) else {}
    return all(_field_error(name, fields.get(name), field) is None for name, field in shape.fields.items())


def is_iso_format(text: Any) -> bool:
    """Say whether a date is one upstream takes: Python's ISO form, with or without Z behind it."""
    try:
        datetime.fromisoformat(text.rstrip("Z"))
    except (AttributeError, ValueError):
        return False
    return True


def _expected_did(nft_address: Any, chain_id: Any) -> str | None:
    if isinstance(nft_address, str) and is_address(nft_address.lower()):
        return did_of(nft_address.lower(), chain_id)
    return None


def validation_errors(ddo: dict[str, Any], chain_id: Any, nft_address: Any) -> dict[str, str]:
    """Return what is wrong with a DDO, by its top-level field; nothing when it is valid.

    :param chain_id: chain on which the asset is, or what the DDO says about it
    :param nft_address: its data NFT, or what the DDO says about it
    :raises UnknownSchemaError: when there are no rules for the DDO's version
    """
    version = ddo.get("version", CURRENT_VERSION)
    try:
        shape = shape_of(version)
    except (KeyError, TypeError):
        raise UnknownSchemaError(f"Can't find schema {version}") from None
    errors = {
        name: error
        for name, field in shape.fields.items()
        if (error := _field_error(name, ddo.get(name), field)) is not None
    }
    if not isinstance(ddo.get("@context"), (list, dict)):
        errors["@context"] = "Context is missing or invalid."
    metadata = ddo.get("metadata")
    if metadata is None:
        errors["metadata"] = "Metadata is missing or invalid."
    for attribute in ("created", "updated"):
        if isinstance(metadata, dict) and attribute in metadata and not is_iso_format(metadata[attribute]):
            errors["metadata"] = f"{attribute} is not in iso format."
    if not chain_id:
        errors["chainId"] = "chainId is missing or invalid."
    did = _expected_did(nft_address, chain_id)
    if did is None:
        errors["nftAddress"] = "nftAddress is missing or invalid."
    if did != ddo.get("id"):
        errors["id"] = "did is not valid for chain Id and nft address"
    return errors


def signed_verdict(document: bytes, private_key: str) -> dict[str, Any]:
    """Return the hash of a valid DDO, signed as ``ERC721Template.setMetaData`` checks it in its proofs.

    :param document: the DDO's JSON, byte for byte as it will be published
    """
    digest = hashlib.sha256(document).digest()
    signed = Account.sign_message(encode_defunct(digest), private_key)
    return {
        "hash": "0x" + digest.hex(),
        "publicKey": Account.from_key(private_key).address,
        "v": signed.v,
        "r": [f"0x{signed.r:064x}"],
        "s": [f"0x{signed.s:064x}"],
    }
