"""Operator arguments as they arrive from templates and XComs, made into what the library takes, or refused by name."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from airflow_ocean.c2d.errors import InvalidInputError

if TYPE_CHECKING:
    from airflow_ocean.c2d.limits import CostLimit

_DID = re.compile(r"did:op:[0-9a-f]{64}")
# What a template renders for an argument that was left out.
_ABSENT = ("", "None", "null")
_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")


def optional_text(name: str, value: object) -> str | None:
    """Return text without surrounding blanks; None for an empty one and for a rendered ``None``."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidInputError(f"{name} must be text, not {type(value).__name__} {value!r}")
    text = value.strip()
    return None if text in _ABSENT else text


def text(name: str, value: object) -> str:
    """Return text that must not be empty."""
    found = optional_text(name, value)
    if found is None:
        raise InvalidInputError(f"{name} is empty; it has to be given")
    return found


def optional_url(name: str, value: object) -> str | None:
    """Return the URL of a service, None when it is not given."""
    found = optional_text(name, value)
    if found is not None and not re.match(r"https?://[^/]", found):
        raise InvalidInputError(f"{name} must be a URL that begins with http:// or https://, not {found!r}")
    if found is not None and "@" in found.split("/")[2]:
        raise InvalidInputError(f"{name} is told to others, so it cannot hold a user and a password")
    return found


def choice(name: str, value: object, offered: tuple[str, ...]) -> str:
    """Return one of the offered words."""
    word = text(name, value)
    if word not in offered:
        raise InvalidInputError(f"{name} must be one of {', '.join(offered)}, not {word!r}")
    return word


def did(name: str, value: object) -> str:
    """Return a DID of Ocean: ``did:op:`` and 64 lower-case hexadecimal digits."""
    found = text(name, value)
    if not _DID.fullmatch(found):
        raise InvalidInputError(f"{name} {found!r} is not a DID: expected did:op: and 64 hexadecimal digits")
    return found


def dids(name: str, value: object) -> list[str]:
    """Return one DID or more, from a DID, a list of them, or a JSON list; twice the same is refused."""
    given = value
    if isinstance(value, str):
        given = json_value(name, value, list) if value.lstrip().startswith("[") else [value]
    if not isinstance(given, (list, tuple)) or not given:
        raise InvalidInputError(f"{name} must be a DID or a list of DIDs, not {value!r}")
    found = [did(name, item) for item in given]
    if len(set(found)) != len(found):
        raise InvalidInputError(f"{name} names an asset twice: {', '.join(found)}")
    return found


def whole_number(name: str, value: object, *, least: int, most: int) -> int:
    """Return a whole number within limits, from a number or its text."""
    if isinstance(value, bool) or not re.fullmatch(r"[+-]?[0-9]{1,18}", str(value).strip()):
        raise InvalidInputError(f"{name} must be a whole number, not {value!r}")
    number = int(str(value))
    if not least <= number <= most:
        raise InvalidInputError(f"{name} must be from {least} to {most}, not {number}")
    return number


def boolean(name: str, value: object) -> bool:
    """Return a truth value, from itself or its text."""
    word = str(value).strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise InvalidInputError(f"{name} must be true or false, not {value!r}")


def token_amount(name: str, value: object) -> int:
    """Return an amount of whole tokens in wei, exactly; it must be above 0."""
    from airflow_ocean.c2d.units import parse_units

    given: Any = value
    amount = parse_units(given, name)
    if amount == 0:
        raise InvalidInputError(f"{name} must be above 0")
    return amount


def cost_limit(name: str, value: object) -> CostLimit:
    """Return a limit on what may be spent: an amount of whole tokens, an object of amounts, or its JSON text."""
    from airflow_ocean.c2d.limits import CostLimit

    if isinstance(value, str):
        given = value.strip()
        return CostLimit.parse(
            json_object(name, given) if given.startswith("{") else optional_text(name, given), name
        )
    return CostLimit.parse(value, name)


def optional_address(name: str, value: object) -> str | None:
    """Return an Ethereum address in checksum form, None when it is not given."""
    from airflow_ocean.c2d.units import parse_address

    found = optional_text(name, value)
    return None if found is None else parse_address(found, name)


def json_value(name: str, value: object, kind: type[dict[str, Any]] | type[list[Any]]) -> Any:
    """Return a JSON object or list, from itself or its text; None when it is not given."""
    given = value
    if isinstance(given, str):
        if given.strip() in _ABSENT:
            return None
        try:
            given = json.loads(given)
        except ValueError as error:
            raise InvalidInputError(f"{name} is not JSON ({error}): {given[:200]!r}") from None
    if given is None:
        return None
    expected = "object" if kind is dict else "list"
    if not isinstance(given, kind):
        raise InvalidInputError(
            f"{name} must be a JSON {expected}, not {type(given).__name__} {str(given)[:200]!r}"
        )
    try:
        json.dumps(given, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{name} cannot be written as JSON: {error}") from None
    return given


def json_object(name: str, value: object) -> dict[str, Any] | None:
    """Return a JSON object, from itself or its text; None when it is not given."""
    found: dict[str, Any] | None = json_value(name, value, dict)
    return found


def json_list(name: str, value: object) -> list[Any] | None:
    """Return a JSON list, from itself or its text; None when it is not given."""
    found: list[Any] | None = json_value(name, value, list)
    return found


def resources(name: str, value: object) -> dict[str, float]:
    """Return amounts of resources by their names, from an object or its JSON text; nothing means the least of each."""
    found = json_object(name, value) or {}
    for resource, amount in found.items():
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 < amount < 10**9:
            raise InvalidInputError(f"{name}: {resource} must be a number above 0, not {amount!r}")
    return found


def variables(name: str, value: object) -> dict[str, str] | None:
    """Return environment variables, from an object of texts or its JSON text; None when there are none."""
    found = json_object(name, value)
    for variable, content in (found or {}).items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable) or not isinstance(content, str):
            raise InvalidInputError(
                f"{name} must be names of letters, digits and _, each with a text, not {variable!r}: {content!r}"
            )
    return found or None
