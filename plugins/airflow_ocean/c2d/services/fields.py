"""Fields of services' answers, which may be anything."""

from __future__ import annotations

from typing import Any

from airflow_ocean.c2d.units import MAX_UINT256


def whole_number(fields: dict[str, Any], name: str, largest: int = MAX_UINT256) -> int:
    """Return a field that has to be a number from 0 on without a fraction.

    :raises ValueError: when it is none, or larger than allowed
    """
    if isinstance(fields[name], bool | float) or not 0 <= int(fields[name]) <= largest:
        raise ValueError(f"{name} {fields[name]!r}")
    return int(fields[name])


def optional_text(fields: dict[str, Any], name: str) -> str | None:
    """Return a field that has to be a text where it is there.

    :raises ValueError: when it is none
    """
    value = fields.get(name)
    if not isinstance(value, str | None):
        raise ValueError(f"{name} {value!r}")
    return value
