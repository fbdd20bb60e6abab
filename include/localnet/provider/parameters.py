"""Consumer parameters: which of them a publisher requires, and whether the consumer's values fit."""

from __future__ import annotations

import json
from typing import Any

from include.localnet.provider.errors import Refused


def _object(values: Any) -> dict[str, Any]:
    if isinstance(values, str):
        try:
            values = json.loads(values)
        except ValueError:
            return {}
    return values if isinstance(values, dict) else {}


def _options(parameter: dict[str, Any]) -> list[str]:
    """Return the keys of a select's options: a list of one-entry objects, or its JSON text."""
    options = parameter.get("options") or []
    if isinstance(options, str):
        try:
            options = json.loads(options)
        except ValueError:
            return []
    return [str(key) for option in options if isinstance(option, dict) for key in option]


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return not isinstance(value, bool)


def _fits(parameter: dict[str, Any], value: Any) -> bool:
    kind = parameter.get("type")
    if kind == "number":
        return _is_number(value)
    if kind == "boolean":
        return isinstance(value, bool) or str(value).lower() in ("true", "false")
    if kind == "select":
        options = _options(parameter)
        return not options or str(value) in options
    return isinstance(value, str | int | float)


def check_parameters(resource: str, declared: Any, values: Any) -> None:
    """Check a consumer's values against what a service or an algorithm declares.

    The declaration is the DDO's ``consumerParameters``
    (https://docs.oceanprotocol.com/developers/did-ddo#consumer-parameters); undeclared values pass.

    :param resource: name of the request's field, for the refusal
    :raises Refused: when a required value is missing or a value is not of its type
    """
    given = _object(values)
    for parameter in declared if isinstance(declared, list) else []:
        if not isinstance(parameter, dict):
            continue
        name = str(parameter.get("name"))
        if given.get(name) is None:
            if parameter.get("required") is True or str(parameter.get("required")).lower() == "true":
                raise Refused({resource: f"missing_consumer_parameter {name}"})
        elif not _fits(parameter, given[name]):
            raise Refused({resource: f"invalid_consumer_parameter {name}"})
