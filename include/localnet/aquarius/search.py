"""Search requests as Elasticsearch takes them, and its answers: query, paging, order and the fields to return."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from include.localnet.aquarius import fields
from include.localnet.aquarius.clauses import parse_clause
from include.localnet.aquarius.fields import Document
from include.localnet.aquarius.matching import QueryError, parsing_error
from include.localnet.aquarius.text import wildcard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from include.localnet.aquarius.matching import Matcher

INDEX = "aquarius"
# As in Elasticsearch: index.max_result_window, and the point from which totals are no longer counted.
_WINDOW = 10_000
_KEYS = {"query", "from", "from_", "size", "sort", "_source", "source", "track_total_hits", "track_scores"}


class SortField:
    """One criterion of order.

    :param name: a dotted field, ``_score`` or ``_doc``
    """

    def __init__(self, name: str, given: Any) -> None:
        settings = given if isinstance(given, dict) else {"order": given}
        for key in settings:
            if key not in ("order", "missing", "mode", "unmapped_type"):
                raise parsing_error(f"[sort] of [{name}] does not support [{key}]")
        order = settings.get("order") or ("desc" if name == "_score" else "asc")
        if order not in ("asc", "desc"):
            raise parsing_error(f"[sort] of [{name}]: order [{order}] is neither asc nor desc")
        mode = settings.get("mode") or ("max" if order == "desc" else "min")
        if mode not in ("min", "max"):
            raise parsing_error(f"[sort] of [{name}] does not support mode [{mode}]")
        missing = settings.get("missing", "_last")
        if missing not in ("_last", "_first"):
            raise parsing_error(f"[sort] of [{name}] does not support missing [{missing}]")
        self.name = name
        self.descending = order == "desc"
        self.unmapped_is_fine = "unmapped_type" in settings
        self._choose: Callable[[list[Any]], Any] = max if mode == "max" else min
        self._missing_first = missing == "_first"

    def value(self, document: Document, score: float) -> Any:
        """Return what a document is sorted by, None when it has no such field."""
        if self.name == "_score":
            return score
        if self.name == "_doc":
            return document.number
        try:
            found = list(fields.sort_values(document, self.name))
            return self._choose(found) if found else None
        except TypeError:
            raise QueryError(
                "search_phase_execution_exception",
                f"Text fields are not optimised for sorting: use [{self.name}.keyword] instead of [{self.name}]",
            ) from None

    def key(self, value: Any) -> tuple[bool, int, Any]:
        """Return a key for a sort in this criterion's direction (which reverses it when descending)."""
        if value is None:
            return (self._missing_first is self.descending, 0, 0)
        # Numbers and texts cannot be compared with each other; that one comes before the other is arbitrary.
        return (self._missing_first is not self.descending, 1 if isinstance(value, str) else 0, value)


def _sort_fields(given: Any) -> list[SortField]:
    criteria = given if isinstance(given, list) else [given]
    found: list[SortField] = []
    for criterion in criteria:
        if isinstance(criterion, str):
            name, _, order = criterion.partition(":")
            found.append(SortField(name, order or None))
        elif isinstance(criterion, dict):
            found.extend(SortField(name, order) for name, order in criterion.items())
        else:
            raise parsing_error(
                "malformed sort format, either start array, start object, or an actual string"
            )
    return found


def _count(name: str, given: Any, default: int) -> int:
    value = default if given is None else fields.number_of(given)
    if value is None or isinstance(given, float) or value != int(value):
        raise parsing_error(f"[{name}] must be a whole number, not {given!r}")
    if value < 0:
        raise QueryError(
            "illegal_argument_exception", f"[{name}] parameter cannot be negative, found [{given}]"
        )
    return int(value)


def _source_filter(given: Any) -> Callable[[dict[str, Any]], dict[str, Any] | None]:
    """Return what takes the wanted parts out of a document."""
    if isinstance(given, bool):
        return (lambda source: source) if given else (lambda _source: None)
    rules = given if isinstance(given, dict) else {"includes": given}
    lists: dict[str, list[str]] = {}
    for key, value in rules.items():
        names = value if isinstance(value, list) else [value]
        if key not in ("includes", "include", "excludes", "exclude") or not all(
            isinstance(n, str) for n in names
        ):
            raise parsing_error(f"[_source] does not support [{key}]: {value!r}")
        lists[key.removesuffix("s")] = names
    includes, excludes = lists.get("include", []), lists.get("exclude", [])
    return lambda source: _part(source, "", includes, excludes) or {}


def _part(value: Any, path: str, includes: list[str], excludes: list[str]) -> Any:
    if path and any(wildcard(name).fullmatch(path) for name in excludes):
        return None
    if path and any(wildcard(name).fullmatch(path) for name in includes):
        includes = []
    if isinstance(value, dict):
        parts = {
            key: part
            for key, child in value.items()
            if (part := _part(child, f"{path}.{key}" if path else key, includes, excludes)) is not None
        }
        return parts if parts or not includes else None
    if isinstance(value, list):
        items = [part for child in value if (part := _part(child, path, includes, excludes)) is not None]
        return items if items or not includes else None
    return None if includes else value


class Search:
    """A search request.

    :raises QueryError: when it is malformed, or asks for what is not understood
    """

    def __init__(self, request: dict[str, Any]) -> None:
        for name in request:
            if name not in _KEYS:
                # These are the words of upstream's Python client, which makes keyword arguments of the keys.
                raise UnknownArgumentError(
                    f"Elasticsearch.search() got an unexpected keyword argument '{name}'"
                )
        query = request.get("query")
        self._matcher: Matcher = parse_clause({"match_all": {}} if query is None else query)
        self._first = _count("from", request.get("from", request.get("from_")), 0)
        self._size = _count("size", request.get("size"), 10)
        if self._first + self._size > _WINDOW:
            raise QueryError(
                "search_phase_execution_exception",
                "Result window is too large, from + size must be less than or equal to: "
                f"[{_WINDOW}] but was [{self._first + self._size}]",
            )
        sort = request.get("sort")
        self._sort = _sort_fields(sort) if sort not in (None, [], {}) else []
        source = request.get("_source", request.get("source"))
        self._source = _source_filter(True if source is None else source)
        self._scored = not self._sort or any(each.name == "_score" for each in self._sort)

    def run(
        self, documents: Iterable[tuple[str, dict[str, Any]]], load: Callable[[str], Any]
    ) -> dict[str, Any]:
        """Answer from documents.

        :param load: returns a document again, so that only those on the page are held in memory
        """
        started = time.monotonic()
        found = list(self._found(documents))
        for place in reversed(range(len(self._sort))):
            criterion = self._sort[place]
            found.sort(
                key=lambda hit, p=place, c=criterion: c.key(hit[2][p]),
                reverse=criterion.descending,
            )
        if not self._sort:
            found.sort(key=lambda hit: hit[1], reverse=True)
        scores = [score for _did, score, _values in found]
        page = found[self._first : self._first + self._size]
        return {
            "took": int((time.monotonic() - started) * 1000),
            "timed_out": False,
            "_shards": {"total": 1, "successful": 1, "skipped": 0, "failed": 0},
            "hits": {
                "total": {"value": len(found), "relation": "eq"},
                "max_score": max(scores, default=None) if self._scored else None,
                "hits": [hit for each in page if (hit := self._hit(*each, load)) is not None],
            },
        }

    def _found(
        self, documents: Iterable[tuple[str, dict[str, Any]]]
    ) -> Iterator[tuple[str, float, list[Any]]]:
        mapped = {criterion.name for criterion in self._sort if criterion.name in ("_score", "_doc")}
        empty = True
        for number, (did, source) in enumerate(documents):
            empty = False
            document = Document(number, did, source)
            mapped |= {
                each.name for each in self._sort if document.has(each.name) or document.values(each.name)
            }
            score = self._matcher(document)
            if score is not None:
                yield did, score, [criterion.value(document, score) for criterion in self._sort]
        for criterion in self._sort:
            if not empty and criterion.name not in mapped and not criterion.unmapped_is_fine:
                raise QueryError(
                    "search_phase_execution_exception",
                    f"No mapping found for [{criterion.name}] in order to sort on",
                )

    def _hit(
        self, did: str, score: float, values: list[Any], load: Callable[[str], Any]
    ) -> dict[str, Any] | None:
        source = load(did)
        if source is None:
            return None
        hit: dict[str, Any] = {"_index": INDEX, "_id": did, "_score": score if self._scored else None}
        part = self._source(source)
        if part is not None:
            hit["_source"] = part
        if self._sort:
            hit["sort"] = values
        return hit


class UnknownArgumentError(Exception):
    """The request has a key that a search does not take."""
