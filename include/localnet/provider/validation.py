"""Field rules of the endpoints and their messages, as upstream's validation library (flask-sieve) words them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from include.localnet.provider.errors import ValidationFailed
from include.localnet.provider.nonces import is_number

Rules = Mapping[str, Sequence[str]]
# Given the name of a signature rule, the field's value and the values of the rule's other fields: None when the caller is
# who they say they are, else the messages.
Authority = Callable[[str, Any, list[Any]], list[str] | str | None]

_MESSAGES = {
    "required": "The {field} field is required.",
    "required_if": "The {field} field is required when {first} is {second}.",
    "required_with": "The {field} field is required when {all} is present.",
    "required_with_all": "The {field} field is required when {all} are present.",
    "required_without": "The {field} field is required when {all} is not present.",
    "numeric": "The {field} must be a number.",
    "integer": "The {field} must be an integer.",
    "min": "The {field} must be at least {first}.",
    "in": "The selected {field} is invalid.",
    "regex": "The {field} format is invalid.",
    "timestamp": "Invalid timestamp provided.",
}
_SIGNATURE_RULES = ("signature", "download_signature", "decrypt_signature")


def is_future(timestamp: Any) -> bool:
    """Say whether a value is a Unix time (seconds) that is still to come, and that a date can hold."""
    try:
        return time.time() < int(timestamp) <= 253_402_300_799
    except (TypeError, ValueError, OverflowError):
        return False


def _value(data: Any, field: str) -> Any:
    for part in field.split("."):
        if not isinstance(data, Mapping) or part not in data:
            return None
        data = data[part]
    return data


def _present(data: Any, field: str) -> bool:
    *path, last = field.split(".")
    holder = _value(data, ".".join(path)) if path else data
    return isinstance(holder, Mapping) and last in holder


def _filled(data: Any, field: str) -> bool:
    value = _value(data, field)
    empty = not value and value is not False and value != 0
    return not empty and _present(data, field)


def _condition_holds(name: str, parameters: list[str], data: Any) -> bool:
    """Say whether a conditional rule asks for its field at all."""
    if name == "required_if":
        return str(_value(data, parameters[0])) in parameters[1:]
    present = [_present(data, parameter) for parameter in parameters]
    if name == "required_with":
        return any(present)
    if name == "required_with_all":
        return all(present)
    return not all(present)


def _simple(name: str, parameters: list[str], value: Any) -> bool:
    if name == "numeric":
        return is_number(value)
    if name == "integer":
        return str(value).isdigit()
    if name == "min":
        return not is_number(value) or float(value) >= float(parameters[0])
    if name == "in":
        return value in parameters
    if name == "regex":
        return isinstance(value, str) and re.match(parameters[0], value) is not None
    return name in ("bail", "sometimes") or (name == "timestamp" and is_future(value))


def _split(rule: str) -> tuple[str, list[str]]:
    name, _, parameters = rule.partition(":")
    if name == "regex":
        return name, [parameters]
    return name, parameters.split(",") if parameters else []


def _message(name: str, field: str, parameters: list[str]) -> str:
    return _MESSAGES[name].format(
        field=field,
        first=parameters[0] if parameters else "",
        second=parameters[1] if len(parameters) > 1 else "",
        all=", ".join(parameters),
    )


class _Field:
    """One field of a request under its rules."""

    def __init__(self, name: str, rules: Sequence[str], data: Any, authority: Authority) -> None:
        self.name = name
        self.rules = [_split(rule) for rule in rules]
        self.data = data
        self.value = _value(data, name)
        self.authority = authority
        self.bails = "bail" in rules

    def _optional(self) -> bool:
        names = [name for name, _ in self.rules]
        if self.value is None and "sometimes" in names:
            return True
        conditional = [(n, p) for n, p in self.rules if n.startswith("required_")]
        return bool(conditional) and not any(self._missing(n, p) for n, p in conditional)

    def _missing(self, name: str, parameters: list[str]) -> bool:
        asked = name == "required" or _condition_holds(name, parameters, self.data)
        return asked and not _filled(self.data, self.name)

    def messages(self) -> list[str] | str:
        """Return what is wrong with the field, nothing when all is well."""
        if self.value is None and self._optional():
            return []
        found: list[str] = []
        for name, parameters in self.rules:
            if name in _SIGNATURE_RULES:
                others = [_value(self.data, parameter) for parameter in parameters]
                refusal = self.authority(name, self.value, others)
                if isinstance(refusal, str):
                    return refusal
                found.extend(refusal or [])
            elif name.startswith("required"):
                if self._missing(name, parameters):
                    found.append(_message(name, self.name, parameters))
            elif not _simple(name, parameters, self.value):
                found.append(_message(name, self.name, parameters))
            if found and self.bails:
                break
        return found


def validate(rules: Rules, data: Any, authority: Authority) -> None:
    """Check a request's fields in order; a field with the rule ``bail`` ends the check when it is wrong.

    :raises ValidationFailed: with the messages of every wrong field
    """
    errors: dict[str, list[str] | str] = {}
    for name, field_rules in rules.items():
        field = _Field(name, field_rules, data, authority)
        messages = field.messages()
        if messages:
            errors[name] = messages
            if field.bails:
                break
    if errors:
        raise ValidationFailed(errors)
