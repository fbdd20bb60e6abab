"""The signed fee that goes with an order, the same for both generations of services."""

from __future__ import annotations

import re
from typing import Any

from eth_account import Account
from eth_account.messages import encode_defunct
from eth_utils import keccak

from airflow_ocean.c2d.services.fields import whole_number
from airflow_ocean.c2d.units import MAX_UINT256, parse_address

_WORD = re.compile("0x[0-9a-fA-F]{1,64}")
_BYTES = re.compile("0x([0-9a-fA-F]{2})*")


def check_offered(order: Any, *offered: str | None) -> None:
    """Check that an order which a service takes is one of those that it was offered."""
    if str(order).lower() not in {given.lower() for given in offered if given}:
        raise ValueError(f"validOrder {order}, which nobody offered")


def check_fee(fee: dict[str, Any]) -> None:
    """Check a signed fee as the contract does, so that a wrong one is found before anything is approved.

    Source: ``ERC20Template._checkProviderFee``.
    """
    for name, largest in (("providerFeeAmount", MAX_UINT256), ("validUntil", MAX_UINT256), ("v", 255)):
        whole_number(fee, name, largest)
    for name in ("providerFeeAddress", "providerFeeToken"):
        parse_address(fee[name], name)
    for name, form in (("r", _WORD), ("s", _WORD), ("providerData", _BYTES)):
        if not form.fullmatch(fee[name]):
            raise ValueError(f"{name} {str(fee[name])[:80]!r}")
    digest = keccak(
        bytes.fromhex(fee["providerData"][2:])
        + bytes.fromhex(fee["providerFeeAddress"][2:] + fee["providerFeeToken"][2:])
        + int(fee["providerFeeAmount"]).to_bytes(32, "big")
        + int(fee["validUntil"]).to_bytes(32, "big")
    )
    signature = (int(fee["v"]), int(fee["r"], 16), int(fee["s"], 16))
    try:
        signer = Account.recover_message(encode_defunct(digest), vrs=signature)
    except Exception:  # the key libraries raise several types
        signer = None
    if signer != parse_address(fee["providerFeeAddress"], "providerFeeAddress"):
        raise ValueError(f"a signature that is not that of {fee['providerFeeAddress']}")
