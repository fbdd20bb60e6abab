"""Elasticsearch queries over documents, as a table of what they find."""

from __future__ import annotations

from typing import Any

import pytest

from include.localnet.aquarius.matching import QueryError
from include.localnet.aquarius.search import Search, UnknownArgumentError
from include.localnet.aquarius.text import tokens

ALICE = "0x02354A1F160A3fd7ac8b02ee91F04104440B28E7"
BOB = "0x529043886F21D9bc1AE0feDb751e34265a246e47"


def document(name: str, kind: str, owner: str, orders: int, created: str, **more: Any) -> dict[str, Any]:
    return {
        "id": f"did:op:{name.split()[0].lower()}",
        "chainId": 8996,
        "nftAddress": owner,
        "metadata": {"name": name, "type": kind, "author": "Ada Lovelace", "created": created, **more},
        "services": [
            {"type": "compute", "timeout": 3600, "compute": {"allowRawAlgorithm": kind == "dataset"}},
            *([{"type": "access", "timeout": 0}] if kind == "dataset" else []),
        ],
        "nft": {"owner": owner, "state": 0, "created": created},
        "stats": {"orders": orders},
        "purgatory": {"state": False},
    }


DOCUMENTS = {
    "branin": document("Branin function values", "dataset", ALICE, 3, "2024-01-10T00:00:00", tags=["math", "2D"]),
    "gauss": document("Gaussian process", "algorithm", ALICE, 10, "2024-02-10T00:00:00Z", tags=["math"]),
    "cities": document("City-trees of Berlin", "dataset", BOB, 0, "2023-12-31T23:59:59", description="A NOT so big (list): 3.5 MB"),
    "empty": {"nft": {"state": 3, "owner": BOB}, "stats": {"orders": 1}},
}  # fmt: skip


def search(request: dict[str, Any]) -> dict[str, Any]:
    return Search(request).run(DOCUMENTS.items(), DOCUMENTS.get)


def found(query: Any) -> set[str]:
    return {hit["_id"] for hit in search({"query": query})["hits"]["hits"]}


ALL = {"branin", "gauss", "cities", "empty"}
CLAUSES: list[tuple[Any, set[str]]] = [
    ({"match_all": {}}, ALL),
    ({"match_none": {}}, set()),
    # match: words, in any case, through lists
    ({"match": {"metadata.name": "branin"}}, {"branin"}),
    ({"match": {"metadata.name": "BRANIN process"}}, {"branin", "gauss"}),
    ({"match": {"metadata.name": {"query": "function branin", "operator": "and"}}}, {"branin"}),
    ({"match": {"metadata.name": {"query": "branin process", "operator": "AND"}}}, set()),
    ({"match": {"metadata.name": {"query": "a b branin values", "minimum_should_match": 2}}}, {"branin"}),
    ({"match": {"metadata.name": {"query": "a b branin values", "minimum_should_match": "75%"}}}, set()),
    ({"match": {"metadata.name": "bran"}}, set()),
    ({"match": {"metadata.name": "city"}}, {"cities"}),
    ({"match": {"metadata.name": ""}}, set()),
    ({"match": {"metadata.name.keyword": "Gaussian process"}}, {"gauss"}),
    ({"match": {"metadata.name.keyword": "gaussian process"}}, set()),
    ({"match": {"metadata.tags": "math"}}, {"branin", "gauss"}),
    ({"match": {"services.type": "access"}}, {"branin", "cities"}),
    ({"match": {"chainId": 8996}}, {"branin", "gauss", "cities"}),
    ({"match": {"chainId": "8996"}}, {"branin", "gauss", "cities"}),
    ({"match": {"chainId": "x"}}, set()),
    ({"match": {"purgatory.state": False}}, {"branin", "gauss", "cities"}),
    ({"match": {"purgatory.state": "false"}}, {"branin", "gauss", "cities"}),
    ({"match": {"services.compute.allowRawAlgorithm": True}}, {"branin", "cities"}),
    ({"match": {"_id": "gauss"}}, {"gauss"}),
    ({"match": {"no.such.field": "x"}}, set()),
    ({"match": {"nftAddress": ALICE}}, {"branin", "gauss"}),
    # phrases
    ({"match_phrase": {"metadata.name": "function values"}}, {"branin"}),
    ({"match_phrase": {"metadata.name": "values function"}}, set()),
    ({"match_phrase": {"metadata.tags": "math 2d"}}, set()),
    ({"match_phrase_prefix": {"metadata.name": "function val"}}, {"branin"}),
    ({"multi_match": {"query": "branin math", "fields": ["metadata.name", "metadata.tags"]}}, {"branin", "gauss"}),
    ({"multi_match": {"query": "function values", "type": "phrase", "fields": "metadata.*"}}, {"branin"}),
    # term: one word exactly as it is in the index
    ({"term": {"metadata.type": "dataset"}}, {"branin", "cities"}),
    ({"term": {"metadata.name": "branin"}}, {"branin"}),
    ({"term": {"metadata.name": "Branin"}}, set()),
    ({"term": {"metadata.name": {"value": "BRANIN", "case_insensitive": True}}}, {"branin"}),
    ({"term": {"metadata.name.keyword": "Gaussian process"}}, {"gauss"}),
    ({"term": {"nft.owner": BOB.lower()}}, {"cities", "empty"}),
    ({"term": {"nft.owner": BOB}}, set()),
    ({"term": {"nftAddress": BOB}}, {"cities"}),
    ({"term": {"_id": "branin"}}, {"branin"}),
    ({"term": {"stats.orders": 3}}, {"branin"}),
    ({"term": {"purgatory.state": "false"}}, {"branin", "gauss", "cities"}),
    ({"term": {"purgatory.state": True}}, set()),
    ({"terms": {"_id": ["branin", "gauss", "other"]}}, {"branin", "gauss"}),
    ({"terms": {"stats.orders": [0, 10]}}, {"cities", "gauss"}),
    ({"terms": {"metadata.type": []}}, set()),
    ({"ids": {"values": ["branin", "x"]}}, {"branin"}),
    # existence, patterns, ranges
    ({"exists": {"field": "metadata.tags"}}, {"branin", "gauss"}),
    ({"exists": {"field": "metadata"}}, {"branin", "gauss", "cities"}),
    ({"prefix": {"metadata.name": "bran"}}, {"branin"}),
    ({"prefix": {"metadata.name.keyword": {"value": "gauss", "case_insensitive": True}}}, {"gauss"}),
    ({"wildcard": {"metadata.name": "*tree?"}}, {"cities"}),
    ({"wildcard": {"metadata.name": {"wildcard": "b*n"}}}, {"branin", "cities"}),
    ({"wildcard": {"metadata.name": {"value": "tree\\?"}}}, set()),
    ({"range": {"stats.orders": {"gte": 1, "lt": 10}}}, {"branin", "empty"}),
    ({"range": {"stats.orders": {"gt": "3"}}}, {"gauss"}),
    ({"range": {"metadata.created": {"gte": "2024-01-01", "lte": "2024-01-31"}}}, {"branin"}),
    ({"range": {"nft.created": {"lt": "2024-01-01T00:00:00Z"}}}, {"cities"}),
    ({"range": {"nft.created": {"gte": 1707523200000}}}, {"gauss"}),
    ({"range": {"metadata.type": {"lt": "b"}}}, {"gauss"}),
    # bool
    ({"bool": {}}, ALL),
    ({"bool": {"must": [{"match": {"metadata.type": "dataset"}}, {"match": {"nft.owner": ALICE}}]}}, {"branin"}),
    ({"bool": {"filter": {"term": {"metadata.type": "dataset"}}}}, {"branin", "cities"}),
    ({"bool": {"must_not": {"exists": {"field": "metadata"}}}}, {"empty"}),
    ({"bool": {"should": [{"term": {"_id": "branin"}}, {"term": {"_id": "gauss"}}]}}, {"branin", "gauss"}),
    ({"bool": {"filter": [{"exists": {"field": "metadata"}}], "should": [{"term": {"_id": "x"}}]}}, {"branin", "gauss", "cities"}),
    ({"bool": {"filter": [{"exists": {"field": "metadata"}}], "should": [{"term": {"_id": "gauss"}}], "minimum_should_match": 1}}, {"gauss"}),
    ({"bool": {"must": [{"bool": {"should": [{"term": {"_id": "gauss"}}]}}]}}, {"gauss"}),
    ({"constant_score": {"filter": {"term": {"_id": "gauss"}}}}, {"gauss"}),
]  # fmt: skip

QUERY_STRINGS: list[tuple[str, set[str]]] = [
    ("branin", {"branin"}),
    ("Ada", {"branin", "gauss", "cities"}),
    ("branin gaussian", {"branin", "gauss"}),
    ("branin AND values", {"branin"}),
    ("branin AND gaussian", set()),
    ("branin && values", {"branin"}),
    ("branin OR gaussian", {"branin", "gauss"}),
    ("branin || berlin", {"branin", "cities"}),
    ("math NOT gaussian", {"branin"}),
    ("math -gaussian", {"branin"}),
    ("+math +gaussian", {"gauss"}),
    ("math !branin", {"gauss"}),
    ('"function values"', {"branin"}),
    ('"values function"', set()),
    ("metadata.name:branin", {"branin"}),
    ("metadata.name:(branin OR gaussian)", {"branin", "gauss"}),
    ('metadata.name:"gaussian process"', {"gauss"}),
    ("metadata.type:dataset AND nft.owner:" + BOB, {"cities"}),
    ("(metadata.type:dataset AND branin) OR gaussian", {"branin", "gauss"}),
    ("metadata.type:dataset AND -metadata.name:branin", {"cities"}),
    ("NOT metadata.type:dataset", {"gauss", "empty"}),
    ("bran*", {"branin"}),
    ("BRAN*", {"branin"}),
    ("metadata.name:*tree?", {"cities"}),
    ("metadata.name:*", {"branin", "gauss", "cities"}),
    ("*", ALL),
    ("*:*", ALL),
    ("_exists_:metadata.tags", {"branin", "gauss"}),
    ("stats.orders:[1 TO 3]", {"branin", "empty"}),
    ("stats.orders:{1 TO *}", {"branin", "gauss"}),
    ("stats.orders:>3", {"gauss"}),
    ("stats.orders:>=3", {"branin", "gauss"}),
    ("stats.orders:<1", {"cities"}),
    ("nft.created:[2024-01-01 TO 2024-01-31]", {"branin"}),
    ("id:did\\:op\\:branin", {"branin"}),
    ("did\\:op\\:branin", {"branin"}),
    (ALICE, {"branin", "gauss"}),
    ("chainId:8996", {"branin", "gauss", "cities"}),
    ("purgatory.state:false", {"branin", "gauss", "cities"}),
    ("branin^2 gaussian", {"branin", "gauss"}),
    ("city-trees", {"cities"}),
    ("\\(list\\)\\:", {"cities"}),
    ("orders", set()),
    ("", set()),
    ("   ", set()),
]


def case_id(value: Any) -> str:
    """Name a case the same in every process, whatever order a set has there."""
    return str(sorted(value) if isinstance(value, set) else value)[:70]


@pytest.mark.parametrize(("query", "expected"), CLAUSES, ids=case_id)
def test_clause(query: Any, expected: set[str]) -> None:
    assert found(query) == expected


@pytest.mark.parametrize(("text", "expected"), QUERY_STRINGS)
def test_query_string(text: str, expected: set[str]) -> None:
    assert found({"query_string": {"query": text}}) == expected


def test_query_string_options() -> None:
    def names(query: Any, **more: Any) -> set[str]:
        return found({"query_string": {"query": query, **more}})

    assert names("dataset", default_field="metadata.name") == set()
    assert names(ALICE, default_field="nft.owner") == {"branin", "gauss"}
    assert names("branin gaussian", default_operator="AND") == set()
    assert names("branin OR gaussian", default_operator="and") == {"branin", "gauss"}
    assert names("math", fields=["metadata.name", "metadata.tags^3"]) == {"branin", "gauss"}
    assert names("values process math", fields=["metadata.*"], minimum_should_match=2) == {"branin", "gauss"}
    assert names(8996, default_field="chainId") == {"branin", "gauss", "cities"}


BAD: list[tuple[Any, str]] = [
    ({"foo": {}}, "unknown query [foo]"),
    ({"fuzzy": {"metadata.name": "x"}}, "unknown query [fuzzy]"),
    ({"regexp": {"metadata.name": "x"}}, "unknown query [regexp]"),
    ({"nested": {"path": "services"}}, "unknown query [nested]"),
    ({"script_score": {}}, "unknown query [script_score]"),
    ({}, "empty clause"),
    ("text", "query malformed"),
    (5, "query malformed"),
    ([], "query malformed"),
    ({"match_all": {}, "match": {}}, "expected one clause"),
    ({"match": {}}, "[match] query needs exactly one field"),
    ({"match": "x"}, "[match] query needs exactly one field"),
    ({"match": {"a": "x", "b": "y"}}, "[match] query needs exactly one field"),
    ({"match": {"a": {"query": "x", "fuzziness": 1}}}, "[match] query does not support [fuzziness]"),
    ({"match": {"a": {"query": "x", "operator": "xor"}}}, "[match] operator [xor]"),
    ({"match": {"a": {"operator": "and"}}}, "[match] query needs a value"),
    ({"match": {"a": ["x"]}}, "[match] query needs a value"),
    ({"match": {"a": None}}, "[match] query needs a value"),
    ({"match_phrase": {"a": {"query": "x", "slop": 2}}}, "[slop]"),
    ({"term": {"a": {"values": "x"}}}, "[term] query does not support [values]"),
    ({"terms": {"a": "x"}}, "[terms] query needs a list"),
    ({"terms": {"a": [{}]}}, "[terms] query needs a list"),
    ({"terms": {}}, "[terms]"),
    ({"terms": []}, "[terms]"),
    ({"exists": {}}, "[exists] must be provided"),
    ({"range": {"a": {"from": 1}}}, "[range] query does not support [from]"),
    ({"range": {"a": {"gte": "now-1d"}}}, "date math"),
    ({"range": {"a": {"gte": []}}}, "[range] [gte]"),
    ({"range": {"a": 5}}, "[range]"),
    ({"ids": {}}, "[ids] query needs [values]"),
    ({"bool": {"must": [{"foo": {}}]}}, "unknown query [foo]"),
    ({"bool": {"would": []}}, "[bool] query does not support [would]"),
    ({"bool": []}, "[bool] query malformed"),
    ({"bool": {"must": "x"}}, "query malformed"),
    ({"bool": {"minimum_should_match": "2<50%"}}, "minimum_should_match"),
    ({"match_all": {"boost": "x"}}, "[boost]"),
    ({"multi_match": {"query": "x", "type": "bool_prefix"}}, "type [bool_prefix]"),
    ({"query_string": {}}, "[query_string] must be provided with a [query]"),
    ({"query_string": {"query": ["x"]}}, "[query_string] must be provided with a [query]"),
    ({"query_string": {"query": "x", "fuzziness": 2}}, "[query_string] query does not support [fuzziness]"),
    ({"query_string": {"query": "a AND"}}, "Failed to parse query [a AND]"),
    ({"query_string": {"query": "AND a"}}, "Failed to parse query"),
    ({"query_string": {"query": "(a"}}, "a closing bracket is missing"),
    ({"query_string": {"query": "a)"}}, "a closing bracket too many"),
    ({"query_string": {"query": '"a'}}, "Failed to parse query"),
    ({"query_string": {"query": "did:op:1"}}, "Failed to parse query"),
    ({"query_string": {"query": "a~2"}}, "Failed to parse query"),
    ({"query_string": {"query": "/a.*/"}}, "regular expressions are not supported"),
    ({"query_string": {"query": "(" * 40 + "a" + ")" * 40}}, "brackets"),
    ({"query_string": {"query": "a" * 20_000}}, "longer than"),
]


@pytest.mark.parametrize(("query", "error"), BAD, ids=lambda value: str(value)[:60])
def test_bad_query_names_its_clause(query: Any, error: str) -> None:
    with pytest.raises(QueryError) as caught:
        search({"query": query})
    assert error in str(caught.value)
    assert str(caught.value).startswith("BadRequestError(400, ")


def test_query_nested_too_deeply() -> None:
    query: Any = {"match_all": {}}
    for _ in range(40):
        query = {"bool": {"must": query}}
    with pytest.raises(QueryError, match="nested deeper"):
        search({"query": query})


def order(**request: Any) -> list[str]:
    return [hit["_id"] for hit in search(request)["hits"]["hits"]]


def test_answer_has_elasticsearchs_envelope() -> None:
    answer = search({"query": {"term": {"_id": "branin"}}})
    hit = {"_index": "aquarius", "_id": "branin", "_score": 1.0, "_source": DOCUMENTS["branin"]}
    assert isinstance(answer.pop("took"), int)
    assert answer == {
        "timed_out": False,
        "_shards": {"total": 1, "successful": 1, "skipped": 0, "failed": 0},
        "hits": {"total": {"value": 1, "relation": "eq"}, "max_score": 1.0, "hits": [hit]},
    }
    nothing = search({"query": {"match_none": {}}})["hits"]
    assert nothing == {"total": {"value": 0, "relation": "eq"}, "max_score": None, "hits": []}


def test_no_query_finds_all() -> None:
    assert search({})["hits"]["total"]["value"] == 4


def test_sort() -> None:
    everything = ["cities", "empty", "branin", "gauss"]
    assert order(sort={"stats.orders": "asc"}) == everything
    assert order(sort=[{"stats.orders": {"order": "desc"}}]) == everything[::-1]
    assert order(sort="stats.orders:desc") == everything[::-1]
    assert order(sort=["stats.orders"]) == everything
    # Those without the field come last either way.
    assert order(sort={"nft.created": "asc"}) == ["cities", "branin", "gauss", "empty"]
    assert order(sort={"nft.created": "desc"}) == ["gauss", "branin", "cities", "empty"]
    assert order(sort={"nft.created": {"order": "desc", "missing": "_first"}})[0] == "empty"
    assert order(sort={"metadata.name.keyword": "asc"}) == ["branin", "cities", "gauss", "empty"]
    assert order(sort=[{"nft.state": "desc"}, {"stats.orders": "desc"}]) == [
        "empty",
        "gauss",
        "branin",
        "cities",
    ]
    assert order(sort={"services.timeout": "asc"})[:2] == ["branin", "cities"]


def test_sorted_hits_tell_by_what() -> None:
    hits = search({"sort": [{"nft.created": "desc"}], "size": 1})["hits"]
    assert hits["max_score"] is None
    assert hits["hits"][0]["_score"] is None
    assert hits["hits"][0]["sort"] == [1707523200000]


def test_best_match_comes_first() -> None:
    query = {
        "bool": {
            "should": [{"match": {"metadata.name": "gaussian process"}}, {"match": {"metadata.tags": "math"}}]
        }
    }
    answer = search({"query": query})["hits"]
    assert [hit["_id"] for hit in answer["hits"]] == ["gauss", "branin"]
    assert answer["max_score"] == answer["hits"][0]["_score"] > answer["hits"][1]["_score"]
    boosted = {"query_string": {"query": "metadata.name:gaussian metadata.name:branin^5"}}
    assert order(query=boosted) == ["branin", "gauss"]


def test_paging() -> None:
    by_orders = {"sort": {"stats.orders": "asc"}}
    assert order(**by_orders, size=2) == ["cities", "empty"]
    assert order(**by_orders, size=2, **{"from": 2}) == ["branin", "gauss"]
    assert order(**by_orders, size=2, **{"from": 4}) == []
    assert order(size=0) == []
    assert search({"size": 0})["hits"]["total"]["value"] == 4


def test_source_filter() -> None:
    def source(wanted: Any) -> Any:
        return search({"query": {"term": {"_id": "branin"}}, "_source": wanted})["hits"]["hits"][0].get(
            "_source"
        )

    assert source(False) is None
    assert source(True) == DOCUMENTS["branin"]
    assert source("metadata.name") == {"metadata": {"name": "Branin function values"}}
    assert source(["id", "nft.*"]) == {"id": "did:op:branin", "nft": DOCUMENTS["branin"]["nft"]}
    assert source({"includes": ["nft"], "excludes": ["nft.owner"]}) == {
        "nft": {"state": 0, "created": "2024-01-10T00:00:00"}
    }
    assert source({"includes": "services.type"}) == {"services": [{"type": "compute"}, {"type": "access"}]}


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"size": -1}, "[size] parameter cannot be negative"),
        ({"size": "x"}, "[size] must be a whole number"),
        ({"size": 1.5}, "[size] must be a whole number"),
        ({"from": [1]}, "[from] must be a whole number"),
        ({"size": 10_001}, "Result window is too large"),
        ({"sort": {"metadata.name": "asc"}}, "use [metadata.name.keyword]"),
        ({"sort": {"no.such": "asc"}}, "No mapping found for [no.such]"),
        ({"sort": {"stats.orders": "up"}}, "order [up]"),
        ({"sort": {"stats.orders": {"nested": {}}}}, "does not support [nested]"),
        ({"sort": [5]}, "malformed sort"),
        ({"_source": 5}, "[_source] does not support"),
        ({"_source": {"only": "x"}}, "[_source] does not support [only]"),
    ],
)
def test_bad_search_options(request_: dict[str, Any], error: str) -> None:
    with pytest.raises(QueryError) as caught:
        search(request_)
    assert error in str(caught.value)


def test_sort_on_a_field_nobody_has_is_fine_when_told_or_when_there_is_nothing() -> None:
    assert len(order(sort={"no.such": {"unmapped_type": "long"}})) == 4
    assert Search({"sort": {"nft.created": "asc"}}).run([], lambda _did: None)["hits"]["hits"] == []


@pytest.mark.parametrize("name", ["aggs", "didList", "script_fields", "search_after"])
def test_unknown_argument(name: str) -> None:
    with pytest.raises(UnknownArgumentError, match=f"unexpected keyword argument '{name}'"):
        search({name: {}})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("City-trees of Berlin", ["city", "trees", "of", "berlin"]),
        ("did:op:abc", ["did:op:abc"]),
        ("did:op:1abc", ["did:op", "1abc"]),
        ("3.5 MB, O'Neil's file_1.csv", ["3.5", "mb", "o'neil's", "file_1", "csv"]),
        ("0xAbC123", ["0xabc123"]),
        ("日本", ["日", "本"]),
        ("_ -- !", []),
    ],
)
def test_tokens(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected
