"""The clauses of Elasticsearch's query DSL that Aquarius understands; each becomes a function that scores a document."""

from __future__ import annotations

import re
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
from include.localnet.aquarius.query_string import parse_query_string
from include.localnet.aquarius.text import wildcard

if TYPE_CHECKING:
    from collections.abc import Callable

    from include.localnet.aquarius.matching import Matcher


# As in Elasticsearch: indices.query.bool.max_nested_depth.
_MAX_DEPTH = 30


def _one_field(clause: str, body: Any, key: str, known: set[str]) -> tuple[str, dict[str, Any]]:
    if not isinstance(body, dict) or len(body) != 1:
        raise parsing_error(f"[{clause}] query needs exactly one field")
    ((field, value),) = body.items()
    if not isinstance(value, dict):
        value = {key: value}
    found = options(clause, value, {key, "boost", *known})
    if isinstance(found.get(key), (dict, list, type(None))):
        raise parsing_error(f"[{clause}] query needs a value for field [{field}]")
    return field, found


def _scored(field: str, test: fields.Test, boost: Any, clause: str) -> Matcher:
    weighted = [(field, number(clause, "boost", boost))]
    return lambda document: document.best(weighted, test)


def _match_all(body: Any, _depth: int) -> Matcher:
    boost = number("match_all", "boost", options("match_all", body, {"boost"}).get("boost", 1))
    return lambda _document: boost


def _match_none(body: Any, _depth: int) -> Matcher:
    options("match_none", body, set())
    return lambda _document: None


def _match(body: Any, _depth: int) -> Matcher:
    field, found = _one_field("match", body, "query", {"operator", "minimum_should_match", "lenient"})
    needed = operator("match", found.get("operator", "or"))
    if "minimum_should_match" in found and needed(2) == 1:
        needed = at_least("match", found["minimum_should_match"])
    return _scored(field, fields.words(found["query"], needed), found.get("boost", 1), "match")


def _phrase(clause: str, prefix: bool) -> Callable[[Any, int], Matcher]:
    def parse(body: Any, _depth: int) -> Matcher:
        field, found = _one_field(clause, body, "query", {"slop"})
        if found.get("slop", 0) != 0:
            raise parsing_error(f"[{clause}] query does not support [slop] other than 0")
        return _scored(field, fields.phrase(found["query"], prefix=prefix), found.get("boost", 1), clause)

    return parse


def _multi_match(body: Any, _depth: int) -> Matcher:
    known = {"query", "fields", "type", "operator", "minimum_should_match", "boost", "lenient"}
    found = options("multi_match", body, known)
    if "query" not in found or isinstance(found["query"], (dict, list)):
        raise parsing_error("No text specified for multi_match query")
    kind = found.get("type", "best_fields")
    if kind not in ("best_fields", "most_fields", "phrase", "phrase_prefix"):
        raise parsing_error(f"[multi_match] query does not support type [{kind}]")
    if kind.startswith("phrase"):
        test = fields.phrase(found["query"], prefix=kind == "phrase_prefix")
    else:
        needed = operator("multi_match", found.get("operator", "or"))
        if "minimum_should_match" in found:
            needed = at_least("multi_match", found["minimum_should_match"])
        test = fields.words(found["query"], needed)
    boost = number("multi_match", "boost", found.get("boost", 1))
    weighted = [
        (name, boost * weight) for name, weight in weighted_fields("multi_match", found.get("fields", "*"))
    ]
    return lambda document: document.best(weighted, test)


def _term(body: Any, _depth: int) -> Matcher:
    field, found = _one_field("term", body, "value", {"case_insensitive"})
    test = fields.term(
        found["value"],
        identifier=fields.is_identifier(field),
        ignore_case=bool(found.get("case_insensitive")),
    )
    return _scored(field, test, found.get("boost", 1), "term")


def _terms(body: Any, _depth: int) -> Matcher:
    rest = {name: value for name, value in body.items() if name != "boost"} if isinstance(body, dict) else {}
    if len(rest) != 1:
        raise parsing_error("[terms] query requires exactly one field")
    ((field, values),) = rest.items()
    if not isinstance(values, list) or any(isinstance(value, (dict, list, type(None))) for value in values):
        raise parsing_error(f"[terms] query needs a list of values for field [{field}]")
    boost = number("terms", "boost", body.get("boost", 1))
    tests = [fields.term(value, identifier=fields.is_identifier(field)) for value in values]
    return lambda document: (
        boost if any(document.best([(field, 1)], test) is not None for test in tests) else None
    )


def _exists(body: Any, _depth: int) -> Matcher:
    found = options("exists", body, {"field", "boost"})
    field = found.get("field")
    if not isinstance(field, str):
        raise parsing_error("[exists] must be provided with a [field]")
    boost = number("exists", "boost", found.get("boost", 1))
    return lambda document: boost if field == "_id" or document.has(field) else None


def _range(body: Any, _depth: int) -> Matcher:
    limits = {"gt", "gte", "lt", "lte"}
    if not isinstance(body, dict) or len(body) != 1:
        raise parsing_error("[range] query needs exactly one field")
    ((field, given),) = body.items()
    found = options("range", given, limits | {"boost"})
    bounds = {name: found[name] for name in limits if found.get(name) is not None}
    for name, bound in bounds.items():
        if isinstance(bound, (dict, list, bool)):
            raise parsing_error(f"[range] [{name}] of field [{field}] must be a number or a text")
        if isinstance(bound, str) and (bound.startswith("now") or "||" in bound):
            raise parsing_error(f"[range] query does not support date math in [{name}]: {bound}")
    return _scored(field, fields.within(bounds), found.get("boost", 1), "range")


def _ids(body: Any, _depth: int) -> Matcher:
    found = options("ids", body, {"values", "boost"})
    values = found.get("values")
    if isinstance(values, str):
        values = [values]
    if not isinstance(values, list):
        raise parsing_error("[ids] query needs [values]")
    boost = number("ids", "boost", found.get("boost", 1))
    wanted = {value for value in values if isinstance(value, str)}
    return lambda document: boost if document.did in wanted else None


def _prefix(body: Any, _depth: int) -> Matcher:
    field, found = _one_field("prefix", body, "value", {"case_insensitive"})
    flags = re.IGNORECASE if found.get("case_insensitive") else 0
    expression = re.compile(re.escape(str(found["value"])) + ".*", re.DOTALL | flags)
    return _scored(field, fields.pattern(expression), found.get("boost", 1), "prefix")


def _wildcard(body: Any, _depth: int) -> Matcher:
    if isinstance(body, dict) and len(body) == 1:
        ((name, value),) = body.items()
        if isinstance(value, dict) and "wildcard" in value:
            body = {name: {("value" if key == "wildcard" else key): each for key, each in value.items()}}
    field, found = _one_field("wildcard", body, "value", {"case_insensitive"})
    expression = wildcard(str(found["value"]), bool(found.get("case_insensitive")))
    return _scored(field, fields.pattern(expression), found.get("boost", 1), "wildcard")


def _query_string(body: Any, _depth: int) -> Matcher:
    return parse_query_string(body)


def _constant_score(body: Any, depth: int) -> Matcher:
    found = options("constant_score", body, {"filter", "boost"})
    inner = parse_clause(found.get("filter"), depth + 1)
    boost = number("constant_score", "boost", found.get("boost", 1))
    return lambda document: boost if inner(document) is not None else None


def _bool(body: Any, depth: int) -> Matcher:
    occurrences = ("must", "filter", "should", "must_not")
    found = options("bool", body, {*occurrences, "minimum_should_match", "boost"})
    inner = {
        name: [parse_clause(clause, depth + 1) for clause in (given if isinstance(given, list) else [given])]
        for name in occurrences
        if (given := found.get(name)) is not None
    }
    # Without must and filter at least one should has to match.
    default = 0 if inner.get("must") or inner.get("filter") or not inner.get("should") else 1
    needed = at_least("bool", found.get("minimum_should_match", default))
    return combined(
        inner.get("must", []),
        inner.get("filter", []),
        inner.get("should", []),
        inner.get("must_not", []),
        needed=needed,
        boost=number("bool", "boost", found.get("boost", 1)),
    )


_CLAUSES: dict[str, Callable[[Any, int], Matcher]] = {
    "match_all": _match_all,
    "match_none": _match_none,
    "match": _match,
    "match_phrase": _phrase("match_phrase", prefix=False),
    "match_phrase_prefix": _phrase("match_phrase_prefix", prefix=True),
    "multi_match": _multi_match,
    "term": _term,
    "terms": _terms,
    "exists": _exists,
    "range": _range,
    "ids": _ids,
    "prefix": _prefix,
    "wildcard": _wildcard,
    "query_string": _query_string,
    "constant_score": _constant_score,
    "bool": _bool,
}


def parse_clause(query: Any, depth: int = 0) -> Matcher:
    """Return the function that scores documents for a query.

    :raises QueryError: when it is malformed, or of a kind that is not understood
    """
    if depth > _MAX_DEPTH:
        raise QueryError("illegal_argument_exception", f"the query is nested deeper than {_MAX_DEPTH} levels")
    if not isinstance(query, dict):
        raise parsing_error("query malformed, must start with start_object")
    if not query:
        raise QueryError("illegal_argument_exception", "query malformed, empty clause found")
    if len(query) > 1:
        names = ", ".join(f"[{name}]" for name in query)
        raise parsing_error(f"query malformed, expected one clause but found {names}")
    ((name, body),) = query.items()
    if name not in _CLAUSES:
        raise parsing_error(f"unknown query [{name}]; understood are {', '.join(sorted(_CLAUSES))}")
    return _CLAUSES[name](body, depth)
