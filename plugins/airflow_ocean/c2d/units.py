"""Amounts and addresses from text, exactly: wei are integers, whole tokens are decimals, never floats."""

from __future__ import annotations

from decimal import Context, Decimal, InvalidOperation

from eth_utils import is_address, to_checksum_address

from airflow_ocean.c2d.errors import InvalidInputError

ETHER_DECIMALS = 18
MAX_UINT256 = 2**256 - 1
ZERO_ADDRESS = "0x" + "0" * 40
# A uint256 has 78 digits; the default context would round at 28.
_EXACT = Context(prec=200)


def parse_units(amount: str | int | Decimal, name: str = "amount", decimals: int = ETHER_DECIMALS) -> int:
    """Turn an amount of whole tokens into the token's smallest unit (wei for 18 decimals).

    :raises InvalidInputError: for floats, negative or non-finite amounts, too many decimals, or more than a uint256
    """
    if isinstance(amount, bool) or not isinstance(amount, (str, int, Decimal)):
        raise InvalidInputError(
            f"{name} must be text, an integer or a Decimal, not {type(amount).__name__} {amount!r}"
        )
    try:
        value = Decimal(amount.strip() if isinstance(amount, str) else amount)
    except InvalidOperation:
        raise InvalidInputError(f"{name} {amount!r} is not a number") from None
    if not value.is_finite() or value < 0:
        raise InvalidInputError(f"{name} must be a finite amount of 0 or more, not {amount!r}")
    if value.adjusted() > 78:
        raise InvalidInputError(f"{name} {amount!r} is more than a token can have")
    shifted = value.scaleb(decimals, _EXACT)
    if shifted != shifted.to_integral_value(context=_EXACT):
        raise InvalidInputError(f"{name} {amount!r} has more than {decimals} decimals")
    units = int(shifted)
    if units > MAX_UINT256:
        raise InvalidInputError(f"{name} {amount!r} is more than a token can have")
    return units


def format_units(units: int, decimals: int = ETHER_DECIMALS) -> str:
    """Give an amount of the smallest unit as whole tokens, without trailing zeros."""
    text = f"{Decimal(units).scaleb(-decimals, _EXACT):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def parse_address(value: object, name: str) -> str:
    """Return an Ethereum address in checksum form.

    :raises InvalidInputError: when it is none, or its mixed case fails the checksum (EIP-55)
    """
    if not isinstance(value, str) or not is_address(value):
        raise InvalidInputError(
            f"{name} {value!r} is not an Ethereum address: expected 0x and 40 hexadecimal digits with a right checksum"
        )
    return str(to_checksum_address(value))
