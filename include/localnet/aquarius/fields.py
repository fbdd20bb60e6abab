"""A document as a query sees it: fields by dotted path, compared as Elasticsearch's dynamic mapping would compare them.

A text field holds words; ``<field>.keyword`` and the identifiers below hold whole texts. Numbers and truth values are
compared as such, texts that are ISO dates also as points in time.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from include.localnet.aquarius.documents import leaves
from include.localnet.aquarius.text import tokens, wildcard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Test = Callable[[Any, bool], float]

# Searched as whole texts, too: upstream's es_mapping.py calls them keywords.
_IDENTIFIERS = {"id", "nftAddress", "nft.address", "datatokens.address", "version"}
_KEYWORD = ".keyword"
# Elasticsearch keeps longer texts out of ``.keyword`` (``ignore_above``).
_KEYWORD_LENGTH = 256
_SATURATION = 1.2
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?$")


class Document:
    """One indexed asset.

    :param number: its place in the index
    :param did: its ``_id``
    """

    def __init__(self, number: int, did: str, source: dict[str, Any]) -> None:
        self.number = number
        self.did = did
        self._fields: dict[str, list[Any]] = {}
        for path, value in leaves(source):
            self._fields.setdefault(path, []).append(value)

    def paths(self, pattern: str) -> list[str]:
        """Return the fields that a name with ``*`` stands for; ``*`` alone is all of them."""
        if "*" not in pattern:
            return [pattern]
        return [path for path in self._fields if wildcard(pattern).fullmatch(path)]

    def values(self, field: str) -> list[Any]:
        """Return all values of a field."""
        if field == "_id":
            return [self.did]
        if field.endswith(_KEYWORD) and field not in self._fields:
            found = self._fields.get(field.removesuffix(_KEYWORD), [])
            return [v for v in found if not isinstance(v, str) or len(v) <= _KEYWORD_LENGTH]
        return self._fields.get(field, [])

    def has(self, pattern: str) -> bool:
        """Say whether a field, or a part of it, has a value."""
        if any(self.values(path) for path in self.paths(pattern)):
            return True
        return any(path.startswith(f"{pattern}.") for path in self._fields)

    def best(self, patterns: list[tuple[str, float]], test: Test) -> float | None:
        """Return the best score that a test gives any of the fields, None when it accepts none.

        :param patterns: fields with their boosts
        """
        scores = [
            boost * score
            for pattern, boost in patterns
            for path in self.paths(pattern)
            if (score := test(self.values(path), is_exact(path))) > 0
        ]
        return max(scores, default=None)


def is_exact(field: str) -> bool:
    """Say whether a field holds whole texts only."""
    return field == "_id" or field.endswith(_KEYWORD)


def is_identifier(field: str) -> bool:
    """Say whether a field's texts are found as a whole besides by their words."""
    return field in _IDENTIFIERS


def number_of(value: Any) -> float | None:
    """Return a number, also one written as text."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def moment_of(value: Any) -> float | None:
    """Return the milliseconds since 1970 of an ISO date; without a zone it is UTC."""
    if not isinstance(value, str) or not _ISO_DATE.match(value):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000


def _same_scalar(value: Any, wanted: Any) -> bool:
    if isinstance(value, bool):
        return wanted is value or (isinstance(wanted, str) and wanted.lower() == str(value).lower())
    number = number_of(wanted)
    return number is not None and number == value


def _as_text(wanted: Any) -> str:
    return str(wanted).lower() if isinstance(wanted, bool) else str(wanted)


def term(wanted: Any, *, identifier: bool = False, ignore_case: bool = False) -> Test:
    """Accept values that are, or for a text contain, exactly this term."""
    text = _as_text(wanted).lower() if ignore_case else _as_text(wanted)

    def accepts(value: Any, exact: bool) -> bool:
        if not isinstance(value, str):
            return _same_scalar(value, wanted)
        whole = value.lower() if ignore_case else value
        return (whole == text) if exact else (text in tokens(value) or (identifier and whole == text))

    return lambda values, exact: float(any(accepts(value, exact) for value in values))


def pattern(expression: re.Pattern[str]) -> Test:
    """Accept values of which a word (of a whole text: all of it) matches."""

    def accepts(value: Any, exact: bool) -> bool:
        if not isinstance(value, str):
            return False
        return any(expression.fullmatch(word) for word in ([value] if exact else [value, *tokens(value)]))

    return lambda values, exact: float(any(accepts(value, exact) for value in values))


def words(text: Any, needed: Callable[[int], int]) -> Test:
    """Accept values that together hold enough of a text's words; more occurrences score higher.

    :param needed: how many of so many different words have to be there
    """
    wanted = tokens(_as_text(text))

    def score(values: list[Any], exact: bool) -> float:
        if any(not isinstance(value, str) for value in values):
            return float(any(_same_scalar(value, text) for value in values))
        if exact:
            return float(_as_text(text) in values)
        if not wanted:
            return 0.0
        present = [word for value in values for word in tokens(value)]
        counts = [present.count(word) for word in wanted]
        if sum(1 for count in counts if count) < max(1, needed(len(wanted))):
            return 0.0
        return sum(count / (count + _SATURATION) for count in counts)

    return score


def phrase(text: Any, *, prefix: bool = False) -> Test:
    """Accept a value in which a text's words follow each other; with ``prefix`` the last may be a beginning."""
    wanted = tokens(_as_text(text))

    def found_in(value: str) -> bool:
        present = tokens(value)
        for start in range(len(present) - len(wanted) + 1):
            here = present[start : start + len(wanted)]
            if here == wanted or (prefix and here[:-1] == wanted[:-1] and here[-1].startswith(wanted[-1])):
                return True
        return False

    def score(values: list[Any], exact: bool) -> float:
        if any(not isinstance(value, str) for value in values):
            return float(any(_same_scalar(value, text) for value in values))
        if exact:
            return float(_as_text(text) in values)
        return float(len(wanted)) * any(found_in(value) for value in values) if wanted else 0.0

    return score


def within(bounds: dict[str, Any]) -> Test:
    """Accept values between bounds, which are given by ``gt``, ``gte``, ``lt`` and ``lte``."""

    def fits(value: Any, convert: Callable[[Any], Any]) -> bool:
        here = convert(value)
        limits = {name: convert(bound) for name, bound in bounds.items()}
        if here is None or None in limits.values():
            return False
        tests: dict[str, Callable[[Any], bool]] = {
            "gt": lambda limit: here > limit,
            "gte": lambda limit: here >= limit,
            "lt": lambda limit: here < limit,
            "lte": lambda limit: here <= limit,
        }
        return all(tests[name](limit) for name, limit in limits.items())

    def accepts(value: Any, exact: bool) -> bool:
        if isinstance(value, bool):
            return False
        if not isinstance(value, str):
            return fits(value, number_of)
        if moment_of(value) is not None:
            return fits(value, lambda each: moment_of(each) if isinstance(each, str) else number_of(each))
        return any(fits(word, _as_text) for word in ([value] if exact else tokens(value)))

    return lambda values, exact: float(any(accepts(value, exact) for value in values))


def sort_values(document: Document, field: str) -> Iterator[Any]:
    """Yield what a document is sorted by: numbers, points in time, or whole texts of a ``.keyword`` field."""
    for value in document.values(field):
        if isinstance(value, (bool, int, float)):
            yield value
        elif (moment := moment_of(value)) is not None:
            yield int(moment)
        elif is_exact(field) or is_identifier(field):
            yield value
        else:
            raise TypeError(f"{field} is a text")
