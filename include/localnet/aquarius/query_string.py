"""The Lucene syntax of ``query_string``: ``field:value``, quotes, wildcards, ranges, AND, OR, NOT, +, - and brackets."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from include.localnet.aquarius import fields
from include.localnet.aquarius.matching import (
    QueryError,
    at_least,
    combined,
    number,
    operator,
    options,
    parsing_error,
    weighted_fields,
)
from include.localnet.aquarius.text import wildcard

if TYPE_CHECKING:
    from collections.abc import Callable

    from include.localnet.aquarius.fields import Document
    from include.localnet.aquarius.matching import Matcher

_MAX_LENGTH = 10_000
_MAX_BRACKETS = 30
_OPTIONS = {
    "query",
    "default_field",
    "fields",
    "default_operator",
    "lenient",
    "analyze_wildcard",
    "allow_leading_wildcard",
    "minimum_should_match",
    "type",
    "boost",
}
_TYPES = ("best_fields", "most_fields", "cross_fields", "phrase")

_LEXER = re.compile(
    r"""\s*(?:
      (?P<open>\() | (?P<close>\))
    | (?P<and>AND(?![^\s()])|&&) | (?P<or>OR(?![^\s()])|\|\|) | (?P<not>NOT(?![^\s()])|!)
    | (?P<plus>\+) | (?P<minus>-)
    | (?P<field>(?:\\.|[^\s"\\:()\[\]{}^~+\-!]|(?<=\S)[+\-!])+):(?=\s*\S)
    | (?P<range>[\[{]\s*(?P<low>\S+)\s+TO\s+(?P<high>[^\s\]}]+)\s*[\]}])
    | (?P<phrase>"(?:\\.|[^"\\])*")
    | (?P<compare>(?:>=|<=|>|<)(?P<limit>[^\s()]+))
    | (?P<term>(?:\\.|[^\s"\\:()\[\]{}^~])+)
    | (?P<boost>\^(?P<weight>\d+(?:\.\d+)?))
    )""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class _Scope:
    """Where terms are looked for, and how.

    :param all_words: whether words without an operator between them all have to be there
    """

    where: list[tuple[str, float]]
    all_words: bool
    only_phrases: bool


@dataclass
class _Clause:
    matcher: Matcher
    occurrence: str  # must, should or must_not


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _has_wildcard(text: str) -> bool:
    return bool(re.search(r"[*?]", re.sub(r"\\.", "", text)))


class _Parser:
    """A recursive-descent parser of one query text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._place = 0
        self._brackets = 0

    def error(self, why: str) -> QueryError:
        return QueryError("query_shard_exception", f"Failed to parse query [{self._text}]: {why}")

    def _peek(self) -> re.Match[str] | None:
        if not self._text[self._place :].strip():
            return None
        found = _LEXER.match(self._text, self._place)
        if found is None:
            rest = self._text[self._place :].strip()
            raise self.error(f"cannot read [{rest[:40]}]; special characters are escaped with a backslash")
        return found

    def _take(self, *kinds: str) -> re.Match[str] | None:
        found = self._peek()
        if found is not None and found.lastgroup in kinds:
            self._place = found.end()
            return found
        return None

    def whole(self, scope: _Scope, needed: Callable[[int], int] | None) -> Matcher:
        matcher = self._sequence(scope, needed)
        if self._peek() is not None:
            raise self.error("a closing bracket too many")
        return matcher

    def _sequence(self, scope: _Scope, needed: Callable[[int], int] | None = None) -> Matcher:
        """Parse clauses up to a closing bracket, with Lucene's rules for AND, OR and NOT."""
        clauses: list[_Clause] = []
        while (found := self._peek()) is not None and found.lastgroup != "close":
            joint = self._take("and", "or")
            kind = joint.lastgroup if joint else None
            if joint and not clauses:
                raise self.error(f"{joint[0].strip()} has nothing before it")
            if kind == "and" and clauses[-1].occurrence == "should":
                clauses[-1].occurrence = "must"
            if kind == "or" and scope.all_words and clauses[-1].occurrence == "must":
                clauses[-1].occurrence = "should"
            sign = self._take("not", "plus", "minus")
            mark = sign.lastgroup if sign else None
            matcher = self._operand(scope)
            if mark in ("not", "minus"):
                occurrence = "must_not"
            elif mark == "plus" or kind == "and" or (scope.all_words and kind != "or"):
                occurrence = "must"
            else:
                occurrence = "should"
            clauses.append(_Clause(matcher, occurrence))
        by = {
            name: [clause.matcher for clause in clauses if clause.occurrence == name]
            for name in ("must", "should", "must_not")
        }
        if not clauses:
            return lambda _document: None
        least = 0 if by["must"] or not by["should"] else 1
        return combined(by["must"], [], by["should"], by["must_not"], needed=needed or (lambda _total: least))

    def _operand(self, scope: _Scope) -> Matcher:
        matcher = self._bare(scope)
        boost = self._take("boost")
        if boost is None:
            return matcher
        weight = float(boost["weight"])
        return lambda document: None if (score := matcher(document)) is None else score * weight

    def _bare(self, scope: _Scope) -> Matcher:
        found = self._peek()
        if found is None or found.lastgroup in ("close", "boost", "and", "or"):
            raise self.error("a term is missing")
        self._place = found.end()
        kind = found.lastgroup
        if kind == "open":
            return self._group(scope)
        if kind == "field":
            return self._of_field(_unescaped(found["field"]), scope)
        if kind == "range":
            return self._range(found, scope)
        if kind == "phrase":
            return _best(scope, fields.phrase(_unescaped(found["phrase"][1:-1])))
        if kind == "compare":
            name = {">=": "gte", ">": "gt", "<=": "lte", "<": "lt"}[
                found["compare"].removesuffix(found["limit"])
            ]
            return _best(scope, fields.within({name: _unescaped(found["limit"])}))
        return self._term(found["term"] if kind == "term" else found[0].strip(), scope)

    def _group(self, scope: _Scope) -> Matcher:
        self._brackets += 1
        if self._brackets > _MAX_BRACKETS:
            raise self.error(f"more than {_MAX_BRACKETS} brackets")
        matcher = self._sequence(scope)
        if self._take("close") is None:
            raise self.error("a closing bracket is missing")
        return matcher

    def _of_field(self, name: str, scope: _Scope) -> Matcher:
        if name == "_exists_":
            found = self._take("term")
            if found is None:
                raise self.error("_exists_ needs the name of a field")
            return _exists(_unescaped(found["term"]))
        following = self._peek()
        if following is not None and following.lastgroup == "field":
            raise self.error(
                f"two fields in a row, {name} and {following['field']}; escape a colon that is meant literally"
            )
        return self._bare(replace(scope, where=[(name, 1.0)]))

    def _range(self, found: re.Match[str], scope: _Scope) -> Matcher:
        text = found["range"]
        ends = {
            "gte" if text[0] == "[" else "gt": found["low"],
            "lte" if text[-1] == "]" else "lt": found["high"],
        }
        bounds = {name: _unescaped(end).strip('"') for name, end in ends.items() if end != "*"}
        return _best(scope, fields.within(bounds))

    def _term(self, text: str, scope: _Scope) -> Matcher:
        if text == "*":
            names = [name for name, _boost in scope.where]
            return (lambda _document: 1.0) if names == ["*"] else _exists(*names)
        if text.startswith("/") and text.endswith("/") and len(text) > 1:
            raise self.error("regular expressions are not supported; escape the slashes to search for them")
        if _has_wildcard(text):
            return _best(scope, fields.pattern(wildcard(text, ignore_case=True)))
        word = _unescaped(text)
        test = fields.phrase(word) if scope.only_phrases else fields.words(word, lambda total: total)
        exact = [
            (name, boost, fields.term(word, identifier=True))
            for name, boost in scope.where
            if fields.is_identifier(name)
        ]

        def matcher(document: Document) -> float | None:
            scores = [document.best([(name, boost)], test_) for name, boost, test_ in exact]
            scores.append(document.best(scope.where, test))
            return max((score for score in scores if score is not None), default=None)

        return matcher


def _best(scope: _Scope, test: fields.Test) -> Matcher:
    return lambda document: document.best(scope.where, test)


def _exists(*names: str) -> Matcher:
    return lambda document: 1.0 if any(document.has(name) for name in names) else None


def parse_query_string(body: Any) -> Matcher:
    """Return the matcher of a ``query_string`` clause.

    :raises QueryError: when the clause or its text is malformed
    """
    found = options("query_string", body, _OPTIONS)
    query = found.get("query")
    if isinstance(query, (int, float)) and not isinstance(query, bool):
        query = str(query)
    if not isinstance(query, str):
        raise parsing_error("[query_string] must be provided with a [query]")
    if len(query) > _MAX_LENGTH:
        raise parsing_error(f"[query_string] is longer than {_MAX_LENGTH} characters")
    kind = found.get("type", "best_fields")
    if kind not in _TYPES:
        raise parsing_error(f"[query_string] query does not support type [{kind}]")
    where = found.get("fields", found.get("default_field", "*"))
    scope = _Scope(
        where=weighted_fields("query_string", where),
        all_words=operator("query_string", found.get("default_operator", "or"))(2) == 2,
        only_phrases=kind == "phrase",
    )
    needed = None
    if "minimum_should_match" in found:
        needed = at_least("query_string", found["minimum_should_match"])
    matcher = _Parser(query).whole(scope, needed)
    boost = number("query_string", "boost", found.get("boost", 1))
    return lambda document: None if (score := matcher(document)) is None else score * boost
