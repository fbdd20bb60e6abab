"""Verdicts on DDOs, case by case as upstream's Aquarius 5.1.8 (pySHACL 0.22.2) gives them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from include.localnet.aquarius.shapes import VERSIONS, describe, shape_of
from include.localnet.aquarius.validation import UnknownSchemaError, validation_errors

CASES = json.loads(Path(__file__).with_name("aquarius_verdicts.json").read_text())


def changed(document: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return a copy with values replaced by path (``a/0/b``); ``REMOVED`` takes one away."""
    result = copy.deepcopy(document)
    for path, value in changes.items():
        *parents, last = path.split("/")
        place: Any = result
        for key in parents:
            place = place[int(key) if isinstance(place, list) else key]
        if value == "REMOVED":
            del place[last]
        else:
            place[int(last) if isinstance(place, list) else last] = value
    return result


@pytest.mark.parametrize("case", CASES["cases"], ids=lambda case: json.dumps(case["changes"])[:60])
def test_verdict_is_upstreams(case: dict[str, Any]) -> None:
    document = changed(CASES["documents"][case["document"]], case["changes"])
    errors = validation_errors(document, document.get("chainId", ""), document.get("nftAddress", ""))
    assert errors == case["errors"]


@pytest.mark.parametrize("version", ["9.9.9", 4, ["4.5.0"], None])
def test_unknown_version(version: Any) -> None:
    document = changed(CASES["documents"]["dataset"], {"version": version})
    with pytest.raises(UnknownSchemaError, match="Can't find schema"):
        validation_errors(document, document["chainId"], document["nftAddress"])


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"metadata": None}, {"metadata"}),
        ({"metadata": 5}, {"metadata"}),
        ({"metadata/created": 5}, {"metadata"}),
        ({"metadata/updated": ["2024-01-01"]}, {"metadata"}),
        ({"nftAddress": 5}, {"nftAddress", "id"}),
        ({"nftAddress": None}, {"nftAddress", "id"}),
    ],
)
def test_wrong_types_that_upstream_stumbles_over(changes: dict[str, Any], fields: set[str]) -> None:
    document = changed(CASES["documents"]["dataset"], changes)
    assert set(validation_errors(document, document["chainId"], document["nftAddress"])) == fields


def test_chain_and_nft_of_the_event_count() -> None:
    document = CASES["documents"]["dataset"]
    wrong_did = {"id": "did is not valid for chain Id and nft address"}
    assert validation_errors(document, document["chainId"] + 1, document["nftAddress"]) == wrong_did
    other = "0x" + "1" * 40
    assert validation_errors(document, document["chainId"], other) == wrong_did


@pytest.mark.parametrize("version", VERSIONS)
def test_schema_is_described_as_upstream_does(version: str) -> None:
    described = describe(shape_of(version))
    limits = {"maxLength": 16} if version > "4.2" else {}
    assert described["version"] == {"minCount": 1, "maxCount": 1, "pattern": "^(.*)$"} | limits
    assert ("maxLength" in described["credentials"]["deny"]["type"]) == (version > "4.2")
    assert ("minLength" in described["metadata"]["name"]) == (version == "4.5.0")
    assert described["metadata"]["additionalInformation"] == {}
