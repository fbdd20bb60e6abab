"""What Aquarius makes of what happens on the chain."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psutil
import pytest
from eth_abi import encode
from eth_utils import to_checksum_address

from include.localnet import accounts
from include.localnet.ethereum import ZERO_ADDRESS, did_of, event_topic
from include.localnet.operator_service.interpreter import PROJECT
from include.localnet.settings import CHAIN_ID
from tests.support.waiting import wait_until
from tests.unit.localnet.aquarius_bench import ALICE, BOB, Bench, compact, ddo, running_bench

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with running_bench(tmp_path_factory.mktemp("indexing")) as running:
        yield running


@pytest.mark.parametrize("flags", [0, 1])
def test_published_asset_gets_aquarius_fields(bench: Bench, flags: int) -> None:
    asset = bench.publisher.create(f"Asset with flags {flags}")
    receipt = bench.publisher.set_metadata(asset, flags=flags)
    found = bench.aquarius.wait_for(asset, f"Asset with flags {flags}")

    block = bench.chain.block(int(receipt["blockNumber"], 16))
    assert block is not None
    when = datetime.fromtimestamp(int(block["timestamp"], 16), UTC).replace(tzinfo=None).isoformat()
    assert {key: found[key] for key in asset.ddo} == asset.ddo
    assert set(found) - set(asset.ddo) == {"event", "nft", "datatokens", "stats", "purgatory"}
    assert found["event"] == {
        "tx": receipt["transactionHash"],
        "block": int(receipt["blockNumber"], 16),
        "from": ALICE,
        "contract": asset.nft,
        "datetime": when,
    }
    assert found["nft"] == {
        "address": asset.nft,
        "name": f"Asset with flags {flags}",
        "symbol": "NFT",
        "state": 0,
        "tokenURI": "https://example.org/nft.json",
        "owner": ALICE,
        "created": when,
    }
    assert found["datatokens"] == [
        {
            "address": asset.datatoken,
            "name": f"Asset with flags {flags} token",
            "symbol": "DT1",
            "serviceId": "0",
        }
    ]
    assert found["stats"] == {"allocated": 0, "orders": 0, "price": {}}
    assert found["purgatory"] == {"state": False}
    assert bench.aquarius.state_of(asset) == {
        "nft": asset.nft,
        "did": asset.did,
        "chain_id": CHAIN_ID,
        "tx_id": receipt["transactionHash"],
        "valid": True,
        "error": None,
    }


def test_update_replaces_document_and_keeps_creation_time(bench: Bench) -> None:
    asset = bench.publisher.publish("Before the update")
    created = bench.aquarius.wait_for(asset, "Before the update")["nft"]["created"]
    bench.chain.request("evm_increaseTime", 60)
    updated = bench.publisher.changed(asset, name="After the update")
    receipt = bench.publisher.set_metadata(updated, flags=1)
    found = bench.aquarius.wait_for(asset, "After the update")
    assert found["event"]["tx"] == receipt["transactionHash"]
    assert found["nft"]["created"] == created < found["event"]["datetime"]
    assert len(bench.aquarius.search({"ids": {"values": [asset.did]}})) == 1


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"digest": hashlib.sha256(b"another").digest()}, "Hash check failed"),
        ({"data": b"no lzma", "flags": 1}, "Failed to decompress"),
        ({"data": b"{]", "digest": hashlib.sha256(b"{]").digest()}, "The document is not JSON"),
        ({"data": b"[]", "digest": hashlib.sha256(b"[]").digest()}, "not a JSON object"),
        ({"data": b"{}", "digest": hashlib.sha256(b"{}").digest()}, "DDO has no version."),
        ({"state": 1}, "403, Asset end of life"),
        ({"state": 2}, "403, Asset deprecated"),
        ({"state": 3}, "403, Asset revoked"),
    ],
)
def test_refused_metadata_is_not_indexed(bench: Bench, how: dict[str, object], error: str) -> None:
    asset = bench.publisher.create("To be refused")
    bench.publisher.set_metadata(asset, **how)  # type: ignore[arg-type]
    bench.aquarius.wait_for_head(bench.chain)
    assert bench.aquarius.ddo(asset.did) is None
    state = bench.aquarius.state_of(asset)
    assert state["valid"] is False
    assert error in state["error"]
    assert asset.did in bench.aquarius.log
    # Nothing about it can change, so it is not tried again.
    assert bench.aquarius.get("/state/retryQueue", did=asset.did).json()["hits"]["hits"] == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"id": "did:op:" + "0" * 64}, "id"),
        ({"metadata": {}}, "metadata"),
        ({"services": [{"id": "0"}]}, "services"),
    ],
)
def test_invalid_ddo_is_not_indexed(bench: Bench, change: dict[str, object], field: str) -> None:
    asset = bench.publisher.create("Invalid")
    did = asset.did
    asset.ddo.update(change)
    bench.publisher.set_metadata(asset)
    bench.aquarius.wait_for_head(bench.chain)
    assert bench.aquarius.ddo(did) is None
    assert f"'{field}'" in bench.aquarius.get("/state/ddo", did=did).json()["error"]


def test_unknown_version_is_not_indexed(bench: Bench) -> None:
    asset = bench.publisher.create("Version")
    asset.ddo["version"] = "9.9.9"
    bench.publisher.set_metadata(asset)
    bench.aquarius.wait_for_head(bench.chain)
    assert bench.aquarius.ddo(asset.did) is None
    assert bench.aquarius.state_of(asset)["error"] == "Can't find schema 9.9.9"


def test_refused_update_keeps_the_old_document(bench: Bench) -> None:
    asset = bench.publisher.publish("The good old one")
    bench.publisher.set_metadata(bench.publisher.changed(asset, name="Bad"), digest=bytes(32))
    bench.aquarius.wait_for_head(bench.chain)
    found = bench.aquarius.ddo(asset.did)
    assert found is not None
    assert found["metadata"]["name"] == "The good old one"
    assert bench.aquarius.state_of(asset)["valid"] is False


def test_event_of_a_contract_that_the_factory_does_not_know_is_refused(bench: Bench) -> None:
    # A contract that emits an event with whatever topics and data it is called with.
    code = "0x6015600c60003960156000f3" + "6040360380604060003760003560203591" + "6000a200"
    fields = {"from": ALICE, "data": code, "gas": hex(1_000_000)}
    impostor = to_checksum_address(bench.publisher.mined(fields)["contractAddress"])
    document = compact(ddo(impostor, ZERO_ADDRESS))
    types = ["uint8", "string", "bytes", "bytes", "bytes32", "uint256", "uint256"]
    data = encode(types, [0, "", b"\0", document, hashlib.sha256(document).digest(), 0, 0])
    topics = event_topic("ERC721Template", "MetadataCreated")[2:] + ALICE[2:].lower().rjust(64, "0")
    for payload in (data, b"malformed"):
        call = {"from": ALICE, "to": impostor, "data": "0x" + topics + payload.hex(), "gas": hex(1_000_000)}
        bench.publisher.mined(call)
    bench.aquarius.wait_for_head(bench.chain)
    did = did_of(impostor, CHAIN_ID)
    assert bench.aquarius.ddo(did) is None
    assert bench.aquarius.get("/state/ddo", did=did).json()["error"] == "nft not deployed by our factory"


@pytest.mark.parametrize("state", [2, 3])
def test_soft_deleted_asset_leaves_a_stub_and_comes_back(bench: Bench, state: int) -> None:
    asset = bench.publisher.publish("Now and again", flags=1)
    before = bench.aquarius.wait_for(asset, "Now and again")

    bench.publisher.send(asset.nft, "ERC721Template", "setMetaDataState", state)
    bench.aquarius.wait_for_head(bench.chain)
    stub = bench.aquarius.ddo(asset.did)
    assert stub is not None
    assert set(stub) == {"event", "nft", "datatokens", "stats"}
    assert stub["nft"]["state"] == state
    assert bench.aquarius.get(f"/assets/metadata/{asset.did}").status_code == 404

    bench.publisher.send(asset.nft, "ERC721Template", "setMetaDataState", 0)
    bench.aquarius.wait_for_head(bench.chain)
    assert bench.aquarius.ddo(asset.did) == before


@pytest.mark.parametrize("state", [1, 4, 5])
def test_other_states_keep_the_document(bench: Bench, state: int) -> None:
    asset = bench.publisher.publish("Stays")
    bench.publisher.send(asset.nft, "ERC721Template", "setMetaDataState", state)
    bench.aquarius.wait_for_head(bench.chain)
    found = bench.aquarius.ddo(asset.did)
    assert found is not None
    assert found["metadata"]["name"] == "Stays"
    assert found["nft"]["state"] == state


def test_asset_published_as_revoked_appears_when_it_is_activated(bench: Bench) -> None:
    asset = bench.publisher.create("Late")
    bench.publisher.set_metadata(asset, state=3)
    bench.aquarius.wait_for_head(bench.chain)
    assert bench.aquarius.ddo(asset.did) is None
    bench.publisher.send(asset.nft, "ERC721Template", "setMetaDataState", 0)
    assert bench.aquarius.wait_for(asset, "Late")["nft"]["state"] == 0


def test_revoking_update_hides_the_asset(bench: Bench) -> None:
    asset = bench.publisher.publish("Revoked by update")
    bench.publisher.set_metadata(asset, state=3)
    bench.aquarius.wait_for_head(bench.chain)
    found = bench.aquarius.ddo(asset.did)
    assert found is not None
    assert "metadata" not in found
    assert found["nft"]["state"] == 3


def test_owner_and_token_uri_are_followed(bench: Bench) -> None:
    asset = bench.publisher.publish("Sold")
    bench.publisher.send(asset.nft, "ERC721Template", "setTokenURI", 1, "https://example.org/other.json")
    bench.publisher.send(asset.nft, "ERC721Template", "transferFrom", ALICE, BOB, 1)
    bench.aquarius.wait_for_head(bench.chain)
    found = bench.aquarius.ddo(asset.did)
    assert found is not None
    assert (found["nft"]["owner"], found["nft"]["tokenURI"]) == (BOB, "https://example.org/other.json")


def test_orders_are_counted_before_and_after_publishing(bench: Bench) -> None:
    asset = bench.publisher.create("Ordered")
    bench.publisher.order(asset)
    bench.publisher.set_metadata(asset)
    bench.aquarius.wait_for_head(bench.chain)
    first = bench.aquarius.ddo(asset.did)
    assert first is not None
    assert first["stats"]["orders"] == 1
    bench.publisher.order(asset)
    bench.publisher.order(asset)
    bench.aquarius.wait_for_head(bench.chain)
    found = bench.aquarius.ddo(asset.did)
    assert found is not None
    assert found["stats"] == {"allocated": 0, "orders": 3, "price": {}}


def test_fixed_rate_price_is_followed(bench: Bench) -> None:
    asset = bench.publisher.publish("For sale")
    exchange, ocean = bench.publisher.addresses["FixedPrice"], bench.publisher.addresses["Ocean"]
    receipt = bench.publisher.send(
        asset.datatoken, "ERC20Template", "createFixedRate",
        exchange, [ocean, ALICE, ALICE, ZERO_ADDRESS], [18, 18, 4_350_000_000_000_000_000, 0, 1],
    )  # fmt: skip
    bench.aquarius.wait_for_head(bench.chain)
    found = bench.aquarius.ddo(asset.did)
    assert found is not None
    assert found["stats"]["price"] == {"value": 4.35, "tokenAddress": ocean, "tokenSymbol": "OCEAN"}

    created = bench.chain.events_of(receipt, "FixedRateExchange", "ExchangeCreated")[0]
    exchange_id = created.arguments["exchangeId"]
    bench.publisher.send(exchange, "FixedRateExchange", "setRate", exchange_id, 10**17)
    bench.aquarius.wait_for_head(bench.chain)
    found = bench.aquarius.ddo(asset.did)
    assert found is not None
    assert found["stats"]["price"]["value"] == 0.1


def test_dispenser_is_free(bench: Bench) -> None:
    asset = bench.publisher.publish("For free")
    dispenser = bench.publisher.addresses["Dispenser"]
    bench.publisher.send(
        asset.datatoken, "ERC20Template", "createDispenser", dispenser, 10**18, 10**18, True, ZERO_ADDRESS
    )
    bench.aquarius.wait_for_head(bench.chain)
    found = bench.aquarius.ddo(asset.did)
    assert found is not None
    assert found["stats"]["price"] == {"value": 0.0}


def test_validation_is_a_proof_the_contract_accepts(bench: Bench) -> None:
    asset = bench.publisher.create("Proven")
    response = bench.aquarius.http.post(
        "/api/aquarius/assets/ddo/validate",
        content=compact(asset.ddo),
        headers={"content-type": "application/octet-stream"},
    )
    proof = response.json()
    assert set(proof) == {"hash", "publicKey", "v", "r", "s"}
    assert proof["publicKey"] == accounts.AQUARIUS.address
    receipt = bench.publisher.set_metadata(
        asset,
        digest=bytes.fromhex(proof["hash"][2:]),
        proofs=[(proof["publicKey"], proof["v"], *(bytes.fromhex(proof[part][0][2:]) for part in "rs"))],
    )
    (validated,) = bench.chain.events_of(receipt, "ERC721Template", "MetadataValidated")
    assert validated.arguments["validator"] == accounts.AQUARIUS.address
    bench.aquarius.wait_for(asset, "Proven")


def test_triggered_transaction_that_does_not_exist_waits_in_the_queue(bench: Bench) -> None:
    payload = {"transactionId": "nonsense", "chain_id": CHAIN_ID}
    assert bench.aquarius.post("/assets/triggerCaching", payload).text == "Queued"

    def tried_again() -> bool:
        hits = bench.aquarius.get("/state/retryQueue", type="tx").json()["hits"]["hits"]
        return any(hit["_source"]["number_retries"] > 0 for hit in hits)

    wait_until(tried_again, "the transaction is tried again")
    # It holds up nobody.
    asset = bench.publisher.publish("After the nonsense")
    bench.aquarius.wait_for(asset, "After the nonsense")


def test_memory_stays_small(bench: Bench) -> None:
    """What it has indexed and served needs little beside what its libraries alone need."""
    bench.aquarius.wait_for_head(bench.chain)
    program = "import include.localnet.aquarius.__main__, psutil; print(psutil.Process().memory_info().rss)"
    command = [sys.executable, "-c", program]
    libraries = int(subprocess.run(command, capture_output=True, check=True, text=True, cwd=PROJECT).stdout)
    used = psutil.Process(bench.aquarius.pid).memory_info().rss
    assert used < libraries + 30e6, f"{used / 1e6:.0f} MB, libraries {libraries / 1e6:.0f} MB"
