"""Aquarius' HTTP API: good and bad requests, with every status code and error text it can give."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct

from include.localnet import accounts
from include.localnet.settings import CHAIN_ID
from tests.support.waiting import wait_until
from tests.unit.localnet.aquarius_bench import Asset, Bench, Service, compact, running_bench

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

OCTETS = "application/octet-stream"
UNKNOWN = "did:op:" + "0" * 64


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with running_bench(tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture(scope="module")
def aquarius(bench: Bench) -> Service:
    return bench.aquarius


@pytest.fixture(scope="module")
def asset(bench: Bench) -> Asset:
    published = bench.publisher.publish("Branin points")
    bench.aquarius.wait_for(published, "Branin points")
    return published


def validate(aquarius: Service, content: bytes, content_type: str | None = OCTETS) -> httpx.Response:
    headers = {"content-type": content_type} if content_type else {}
    return aquarius.http.post("/api/aquarius/assets/ddo/validate", content=content, headers=headers)


def test_root_and_health(aquarius: Service) -> None:
    assert aquarius.http.get("/").json() == {"plugin": "module", "software": "Aquarius", "version": "5.1.8"}
    health = aquarius.http.get("/health")
    assert (health.status_code, health.text) == (200, "Elasticsearch connected")


def test_specification_and_documentation(aquarius: Service) -> None:
    info = aquarius.http.get("/spec").json()["info"]
    assert (info["title"], info["version"]) == ("Aquarius", "1.0")
    assert info["connected"] == ["Elasticsearch connected", 200]
    assert "/api/aquarius/assets/ddo/{did}" in aquarius.http.get("/spec").json()["paths"]
    assert aquarius.http.get("/api/docs").status_code == 200


def test_ddo(aquarius: Service, asset: Asset) -> None:
    response = aquarius.get(f"/assets/ddo/{asset.did}")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json()["id"] == asset.did
    missing = aquarius.get(f"/assets/ddo/{UNKNOWN}")
    assert missing.status_code == 404
    assert missing.json() == {"error": f"Asset DID {UNKNOWN} not found in Elasticsearch."}


@pytest.mark.parametrize("did", ["1", "%00", "%ff%fe", "'; drop table assets; --", "é", "a" * 5000])
def test_strange_dids_are_not_found(aquarius: Service, did: str) -> None:
    assert aquarius.get(f"/assets/ddo/{did}").status_code == 404
    assert aquarius.get(f"/assets/metadata/{did}").status_code == 404


def test_metadata(aquarius: Service, asset: Asset) -> None:
    assert aquarius.get(f"/assets/metadata/{asset.did}").json() == asset.ddo["metadata"]
    missing = aquarius.get("/assets/metadata/x")
    assert missing.status_code == 404
    reason = """NotFoundError(404, "{'_index': 'aquarius', '_id': 'x', 'found': False}")"""
    assert missing.json() == {"error": f"Error encountered while retrieving metadata: {reason}."}


def test_names(aquarius: Service, asset: Asset) -> None:
    response = aquarius.post("/assets/names", {"didList": [asset.did, UNKNOWN]})
    assert response.status_code == 200
    assert response.json() == {asset.did: "Branin points", UNKNOWN: ""}


NOT_A_DICT = "Invalid payload. The request could not be converted into a dict."


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        ({"notTheDidList": ["a"]}, "`didList` is required in the request payload."),
        ({"didList": []}, "The requested didList can not be empty."),
        ({"didList": "text"}, "The didList must be a list."),
        ("text", NOT_A_DICT),
        ([], NOT_A_DICT),
        (None, NOT_A_DICT),
    ],
)
def test_bad_names_requests(aquarius: Service, payload: Any, error: str) -> None:
    response = aquarius.http.post(
        "/api/aquarius/assets/names",
        content=json.dumps(payload),
        headers={"content-type": "application/json"},
    )
    assert (response.status_code, response.json()) == (400, {"error": error})


def test_strange_dids_have_no_names(aquarius: Service) -> None:
    body = b'{"didList": [1, null, {}, [], "\\ud800", "x"]}'
    response = aquarius.http.post(
        "/api/aquarius/assets/names", content=body, headers={"content-type": "application/json"}
    )
    assert response.status_code == 200
    assert set(response.json().values()) == {""}


@pytest.mark.parametrize("path", ["names", "query", "triggerCaching"])
@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{}", "text/plain", 415),
        (b"{}", None, 415),
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"[" * 80 + b"]" * 80, "application/json", 400),
        (b'{"a": NaN}', "application/json", 400),
        (b'"' + b"a" * 9_000_000 + b'"', "application/json", 413),
    ],
)
def test_bodies_that_are_no_json(
    aquarius: Service, path: str, body: bytes, content_type: str | None, status: int
) -> None:
    headers = {"content-type": content_type} if content_type else {}
    response = aquarius.http.post(f"/api/aquarius/assets/{path}", content=body, headers=headers)
    assert response.status_code == status
    assert set(response.json()) == {"error"}


def test_valid_ddo_is_signed(aquarius: Service, asset: Asset) -> None:
    document = compact(asset.ddo)
    response = validate(aquarius, document)
    assert response.status_code == 200
    verdict = response.json()
    digest = hashlib.sha256(document).digest()
    assert verdict["hash"] == "0x" + digest.hex()
    assert verdict["publicKey"] == accounts.AQUARIUS.address
    (r,), (s,) = verdict["r"], verdict["s"]
    assert verdict["v"] in (27, 28)
    vrs = (verdict["v"], int(r, 16), int(s, 16))
    assert Account.recover_message(encode_defunct(digest), vrs=vrs) == accounts.AQUARIUS.address
    assert len(r) == len(s) == 66


def test_hash_is_of_the_bytes_that_came(aquarius: Service, asset: Asset) -> None:
    document = json.dumps(asset.ddo, indent=2).encode()
    assert validate(aquarius, document).json()["hash"] == "0x" + hashlib.sha256(document).hexdigest()


def test_invalid_ddo_gets_errors_by_field(aquarius: Service, asset: Asset) -> None:
    document = copy.deepcopy(asset.ddo)
    del document["@context"]
    del document["metadata"]["name"]
    document["chainId"] = "8996"
    response = validate(aquarius, compact(document))
    assert response.status_code == 400
    assert response.json() == {
        "errors": {
            "@context": "Context is missing or invalid.",
            "chainId": "Value is not Literal with datatype xsd:integer",
            "metadata": "Value does not conform to Shape schema1:MetadataShape",
        }
    }


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", None, f"{OCTETS}; charset=utf-8"])
def test_validate_wants_octets(aquarius: Service, asset: Asset, content_type: str | None) -> None:
    response = validate(aquarius, compact(asset.ddo), content_type)
    assert response.status_code == 400
    assert response.json() == {"error": "Invalid request content type: should be application/octet-stream"}


@pytest.mark.parametrize(
    "body", [b"", b"no json", b"[]", b"5", b"null", b"\xff", b"[" * 100_000, b'{"a":NaN}']
)
def test_validate_wants_a_json_object(aquarius: Service, body: bytes) -> None:
    response = validate(aquarius, body)
    assert (response.status_code, response.json()) == (400, {"error": NOT_A_DICT})


@pytest.mark.parametrize("body", [b"{}", b'{"version": ""}', b'{"version": null}'])
def test_validate_wants_a_version(aquarius: Service, body: bytes) -> None:
    response = validate(aquarius, body)
    assert (response.status_code, response.json()) == (400, [{"message": "no version provided for DDO."}])


def test_validate_of_unknown_version(aquarius: Service) -> None:
    response = validate(aquarius, b'{"version": "9.9.9"}')
    assert response.status_code == 500
    error = "Encountered error when validating asset: Can't find schema 9.9.9."
    assert response.json() == {"error": error}


def test_validate_too_large(aquarius: Service) -> None:
    assert validate(aquarius, b"a" * 9_000_000).status_code == 413


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        ({}, "Invalid transactionId or chain_id"),
        ({"transactionId": "0x1"}, "Invalid transactionId or chain_id"),
        ({"chain_id": 1}, "Invalid transactionId or chain_id"),
        ([], NOT_A_DICT),
    ],
)
def test_bad_trigger_requests(aquarius: Service, payload: Any, error: str) -> None:
    response = aquarius.post("/assets/triggerCaching", payload)
    assert (response.status_code, response.json()) == (400, {"error": error})


@pytest.mark.parametrize("index", ["x", None, [], {}])
def test_bad_log_index(aquarius: Service, index: Any) -> None:
    payload = {"transactionId": "0x1", "chain_id": CHAIN_ID, "logIndex": index}
    response = aquarius.post("/assets/triggerCaching", payload)
    assert response.status_code == 400
    assert response.json()["error"].startswith("Encountered error when triggering caching: ")


def test_triggered_transaction_of_another_chain_is_kept_for_it(aquarius: Service) -> None:
    query = {"transactionId": "0xabc", "chain_id": "1", "logIndex": "2"}
    response = aquarius.http.post("/api/aquarius/assets/triggerCaching", params=query)
    assert (response.status_code, response.text) == (200, "Queued")
    assert response.headers["content-type"] == "application/json"
    (hit,) = aquarius.get("/state/retryQueue", chainId=1).json()["hits"]["hits"]
    assert hit["_source"]["data"] == {"txId": "0xabc", "log_index": 2}
    assert hit["_source"]["type"] == "tx"
    assert hit["_source"]["number_retries"] == 0
    assert hit["_id"] == hit["_source"]["id"]
    assert aquarius.get("/state/retryQueue", chainId=2).json()["hits"]["total"]["value"] == 0


def test_triggered_transaction_is_done_and_leaves_the_queue(bench: Bench) -> None:
    published = bench.publisher.create("Triggered")
    receipt = bench.publisher.set_metadata(published)
    payload = {"transactionId": receipt["transactionHash"], "chain_id": CHAIN_ID}
    assert bench.aquarius.post("/assets/triggerCaching", payload).status_code == 200
    bench.aquarius.wait_for(published, "Triggered")

    def is_done() -> bool:
        hits = bench.aquarius.get("/state/retryQueue", chainId=CHAIN_ID).json()["hits"]["hits"]
        return all(hit["_source"]["data"]["txId"] != receipt["transactionHash"] for hit in hits)

    wait_until(is_done, "the transaction left the queue")
    assert len(bench.aquarius.search({"ids": {"values": [published.did]}})) == 1


def test_chains(bench: Bench) -> None:
    assert bench.aquarius.get("/chains/list").json() == {"8996": True}
    bench.aquarius.wait_for_head(bench.chain)
    status = bench.aquarius.get(f"/chains/status/{CHAIN_ID}").json()
    assert status == {"last_block": bench.chain.block_number(), "version": "5.1.8"}
    for other in ("1", "x", "08996"):
        response = bench.aquarius.get(f"/chains/status/{other}")
        assert (response.status_code, response.json()) == (404, {"error": f"Chain {other} is not indexed."})


@pytest.mark.parametrize("key", ["did", "nft", "txId"])
def test_state_of_an_asset(aquarius: Service, asset: Asset, key: str) -> None:
    document = aquarius.ddo(asset.did)
    assert document is not None
    value = {"did": asset.did, "nft": asset.nft, "txId": document["event"]["tx"]}[key]
    state = aquarius.get("/state/ddo", **{key: value})
    assert state.status_code == 200
    assert state.json() == {
        "nft": asset.nft,
        "did": asset.did,
        "chain_id": CHAIN_ID,
        "tx_id": document["event"]["tx"],
        "valid": True,
        "error": None,
    }
    assert aquarius.get("/state/ddo", chainId=1, **{key: value}).status_code == 500


def test_state_without_and_with_unknown_key(aquarius: Service) -> None:
    response = aquarius.get("/state/ddo")
    assert response.status_code == 400
    assert response.json() == {"error": "You need to specify one of: nft, txId, did"}
    response = aquarius.get("/state/ddo", did=UNKNOWN)
    assert response.status_code == 500
    assert response.json() == {"error": "Encountered error : list index out of range."}


def test_validation_schema(aquarius: Service) -> None:
    assert aquarius.get("/validation/schema").json()["version"]["maxLength"] == 16
    assert "maxLength" not in aquarius.get("/validation/schema", version="4.1.0").json()["version"]
    response = aquarius.get("/validation/schema", version="5.0.0")
    assert (response.status_code, response.json()) == (404, {"erorr": "Schema version not found."})


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/api/aquarius/assets/query", 405),
        ("POST", "/api/aquarius/assets/ddo/x", 405),
        ("DELETE", "/api/aquarius/chains/list", 405),
    ],
)
def test_unknown_paths_and_methods(aquarius: Service, method: str, path: str, status: int) -> None:
    assert aquarius.http.request(method, path).status_code == status


def test_browsers_of_other_sites_may_ask(aquarius: Service) -> None:
    origin = {"Origin": "https://market.example.org"}
    assert aquarius.http.get("/", headers=origin).headers["access-control-allow-origin"] == "*"
