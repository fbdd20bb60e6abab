"""What the clauses of the query DSL share: scores, options, errors, and how matchers are combined."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from include.localnet.aquarius.fields import Document, number_of

# The score of a document, None when it does not match.
Matcher = Callable[[Document], float | None]


class QueryError(Exception):
    """The query cannot be answered, in the words of Elasticsearch's error."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(f"BadRequestError(400, '{kind}', '{reason}')")


def parsing_error(reason: str) -> QueryError:
    """Return an error about the form of a query."""
    return QueryError("parsing_exception", reason)


def options(clause: str, given: Any, known: set[str]) -> dict[str, Any]:
    """Check that a clause's body is an object with known keys only."""
    if not isinstance(given, dict):
        raise parsing_error(f"[{clause}] query malformed, no start_object after query name")
    for name in given:
        if name not in known:
            raise parsing_error(f"[{clause}] query does not support [{name}]")
    return given


def number(clause: str, name: str, value: Any) -> float:
    """Read a number among a clause's options."""
    found = number_of(value)
    if found is None:
        raise parsing_error(f"[{clause}] failed to parse field [{name}]: {value!r} is not a number")
    return found


def at_least(clause: str, wanted: Any) -> Callable[[int], int]:
    """Read ``minimum_should_match``: a count or a percentage, negative for how many may be missing."""
    match = re.fullmatch(r"(-?\d{1,6})(%?)", str(wanted))
    if not match or isinstance(wanted, bool):
        raise parsing_error(f"[{clause}] unsupported minimum_should_match [{wanted}]")
    amount, percent = int(match[1]), bool(match[2])

    def needed(total: int) -> int:
        part = int(total * amount / 100) if percent else amount
        return max(0, total + part if amount < 0 else part)

    return needed


def operator(clause: str, wanted: Any) -> Callable[[int], int]:
    """Read an operator: ``or`` needs one word, ``and`` all."""
    name = str(wanted).lower()
    if name not in ("and", "or"):
        raise parsing_error(f"[{clause}] operator [{wanted}] is neither and nor or")
    return (lambda total: total) if name == "and" else (lambda _total: 1)


def weighted_fields(clause: str, given: Any) -> list[tuple[str, float]]:
    """Read field names, each with an optional ``^boost``."""
    names = given if isinstance(given, list) else [given]
    if not names or not all(isinstance(name, str) for name in names):
        raise parsing_error(f"[{clause}] fields must be names")
    parts = [name.partition("^") for name in names]
    return [(name, number(clause, "boost", boost) if mark else 1.0) for name, mark, boost in parts]


def combined(
    must: list[Matcher],
    filters: list[Matcher],
    should: list[Matcher],
    must_not: list[Matcher],
    *,
    needed: Callable[[int], int],
    boost: float = 1.0,
) -> Matcher:
    """Combine matchers as a ``bool`` query does."""
    only_excludes = not (must or filters or should)

    def matcher(document: Document) -> float | None:
        if any(each(document) is not None for each in must_not):
            return None
        if any(each(document) is None for each in filters):
            return None
        required = [each(document) for each in must]
        optional = [score for each in should if (score := each(document)) is not None]
        if None in required or len(optional) < needed(len(should)):
            return None
        if only_excludes:
            return 0.0 if must_not else boost
        return boost * (sum(score for score in required if score is not None) + sum(optional))

    return matcher
