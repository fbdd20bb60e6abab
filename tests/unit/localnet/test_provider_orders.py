"""Access services: the quote, the order as it is found on the chain, and the download."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from include.localnet import accounts
from include.localnet.ethereum import ZERO_ADDRESS, encode_call
from tests.support.waiting import wait_until
from tests.unit.localnet.provider_bench import Bench, Published, fee_tuple, running_bench

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

BOB, COMPUTE, ALICE = accounts.BOB, accounts.COMPUTE, accounts.ALICE
ACCESS, COMPUTING = 0, 1
CONTENT = b"0123456789" * 20_000


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with running_bench(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture(scope="module")
def files(bench: Bench) -> list[dict[str, Any]]:
    url = bench.cupboard.put("/data.csv", CONTENT, Content_Type="text/csv")
    return [{"type": "url", "url": url + "?key=of-the-publisher", "method": "GET"}]


@pytest.fixture(scope="module")
def asset(bench: Bench, files: list[dict[str, Any]]) -> Published:
    return bench.publish(files)


def initialize(bench: Bench, asset: Published, consumer: str = BOB.address, **more: Any) -> httpx.Response:
    fields = {"documentId": asset.did, "serviceId": "access", "consumerAddress": consumer, **more}
    return bench.http.get("/initialize", params=fields)


def ordered(bench: Bench, asset: Published, consumer: accounts.Account = BOB) -> str:
    fee = initialize(bench, asset, consumer.address).json()["providerFee"]
    return bench.order(asset, fee, ACCESS, consumer)


def download(
    bench: Bench,
    asset: Published,
    order: str,
    consumer: accounts.Account = BOB,
    headers: dict[str, str] | None = None,
    **more: Any,
) -> httpx.Response:
    fields = {
        "documentId": asset.did,
        "serviceId": "access",
        "consumerAddress": consumer.address,
        "transferTxId": order,
        "fileIndex": 0,
        **bench.signed(consumer, asset.did),
        **more,
    }
    return bench.http.get("/download", params=fields, headers=headers)


def error(answer: httpx.Response) -> str:
    assert answer.status_code == 400, answer.text
    text = answer.json()["error"]
    assert isinstance(text, str)
    return text


# --- initialize --------------------------------------------------------------------------------------------------


def test_a_quote(bench: Bench, asset: Published) -> None:
    quote = initialize(bench, asset, accounts.DEPLOYER.address, fileIndex=0).json()
    assert (quote["datatoken"], quote["nonce"]) == (asset.token, None)
    fee = quote["providerFee"]
    assert fee["providerFeeAddress"] == accounts.PROVIDER.address
    assert fee["providerFeeToken"] == bench.addresses["Ocean"]
    assert (fee["providerFeeAmount"], fee["validUntil"]) == ("0", 0)
    data = json.loads(bytes.fromhex(fee["providerData"][2:]))
    assert (data["environment"], data["dt"], data["id"]) == (None, asset.token, "access")


def test_quotes_refused(bench: Bench, asset: Published, files: list[dict[str, Any]]) -> None:
    prefix = "Provider Ganache: "
    assert error(initialize(bench, asset, documentId="did:op:0")) == "Cannot resolve DID"
    assert error(initialize(bench, asset, documentId="../../../x")) == "Cannot resolve DID"
    assert error(initialize(bench, asset, serviceId="x")) == prefix + "Invalid serviceId."
    assert error(initialize(bench, asset, serviceId="compute")) == (
        prefix + "Use the initializeCompute endpoint to initialize compute jobs."
    )
    assert error(initialize(bench, asset, fileIndex=1)) == prefix + "No such fileIndex 1"
    broken = bench.publish([{"type": "url", "url": bench.cupboard.url + "/none", "method": "GET"}])
    assert error(initialize(bench, broken, fileIndex=0)).startswith(
        prefix + "Asset URL not found, not available or invalid. Payload was: {"
    )


def test_a_valid_order_is_offered_again(bench: Bench, asset: Published) -> None:
    order = ordered(bench, asset)
    assert initialize(bench, asset, transferTxId=order).json() == {"validOrder": order}
    for useless in ("0x" + "1" * 64, "nonsense", "0x"):
        assert "providerFee" in initialize(bench, asset, transferTxId=useless).json()


# --- download ----------------------------------------------------------------------------------------------------


def test_a_download(bench: Bench, asset: Published) -> None:
    order = ordered(bench, asset)
    answer = download(bench, asset, order)
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["content-type"] == "text/csv"
    # The URL's query may be the publisher's key.
    assert answer.headers["content-disposition"] == "attachment;filename=data.csv"
    assert answer.headers["content-length"] == str(len(CONTENT))


def test_userdata_reaches_the_files_server(bench: Bench, asset: Published) -> None:
    order = ordered(bench, asset)
    assert download(bench, asset, order, userdata='{"year": 2020}').status_code == 200
    assert bench.cupboard.requests("GET", "/data.csv")[-1].query == {
        "key": "of-the-publisher",
        "year": "2020",
    }


def test_a_range(bench: Bench) -> None:
    url = bench.cupboard.put("/part", b"123", status=206, Content_Range="bytes 1-3/10")
    asset = bench.publish([{"type": "url", "url": url, "method": "GET"}])
    answer = download(bench, asset, ordered(bench, asset), headers={"Range": "bytes=1-3"})
    assert (answer.status_code, answer.content) == (206, b"123")
    assert answer.headers["content-range"] == "bytes 1-3/10"
    assert bench.cupboard.requests("GET", "/part")[-1].headers["Range"] == "bytes=1-3"


@pytest.mark.parametrize(
    "name", ["a;b.csv", '"q".csv', "ü.csv", "x%0d%0aSet-Cookie:%20a", "..%2f..%2fpasswd"]
)
def test_file_names_are_harmless(bench: Bench, name: str) -> None:
    url = bench.cupboard.put("/named", b"x", Content_Disposition="attachment; filename*=UTF-8''" + name)
    asset = bench.publish([{"type": "url", "url": url, "method": "GET"}])
    answer = download(bench, asset, ordered(bench, asset))
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers
    offered = answer.headers["content-disposition"].removeprefix("attachment;filename=")
    assert offered
    assert not set(offered) & set('/\\";\r\n')


def test_downloads_refused(bench: Bench, asset: Published) -> None:
    order = ordered(bench, asset)
    prefix = "Provider Ganache: "
    assert error(download(bench, asset, order, serviceId="x")) == prefix + "Invalid serviceId."
    assert error(download(bench, asset, order, serviceId="compute")) == (
        prefix + "Service with index=compute is not an access service."
    )
    for index in (1, -1, "x"):
        assert error(download(bench, asset, order, fileIndex=index)) == prefix + f"No such fileIndex {index}"
    unknown = "0x" + "1" * 64
    assert error(download(bench, asset, unknown)).startswith(
        prefix + f"Order with tx_id {unknown} could not be validated due to error: "
    )
    stranger = error(download(bench, asset, order, consumer=accounts.CARLOS))
    assert stranger.endswith("sender of order transaction is not the consumer/payer.")


def test_a_refused_download_uses_no_nonce(bench: Bench, asset: Published) -> None:
    order = ordered(bench, asset)
    signed = bench.signed(BOB, asset.did)
    assert download(bench, asset, "0x" + "1" * 64, **signed).status_code == 400
    assert download(bench, asset, order, **signed).status_code == 200
    assert download(bench, asset, order, **signed).status_code == 503


def test_the_files_server_fails(bench: Bench) -> None:
    asset = bench.publish([{"type": "url", "url": bench.cupboard.url + "/none", "method": "GET"}])
    assert error(download(bench, asset, ordered(bench, asset))) == (
        "Provider Ganache: Asset URL not found, not available or invalid."
    )


def test_the_compute_environment_downloads_compute_services(bench: Bench, asset: Published) -> None:
    quote = initialize(bench, asset, COMPUTE.address).json()["providerFee"]
    order = bench.order(asset, quote, COMPUTING, COMPUTE)
    # The fee must name the service, and this one names the other.
    refused = error(download(bench, asset, order, COMPUTE, serviceId="compute"))
    assert "Cannot find the event for the provider fee" in refused
    request = {
        "datasets": [asset.reference("compute")],
        "algorithm": {"meta": {"rawcode": "x"}},
        "compute": {"env": "free-environment", "validUntil": 4_000_000_000},
        "consumerAddress": COMPUTE.address,
    }
    asset.ddo["services"][1]["compute"] = {"allowRawAlgorithm": True}
    bench.index(asset)
    fee = bench.http.post("/initializeCompute", json=request).json()["datasets"][0]["providerFee"]
    order = bench.order(asset, fee, COMPUTING, COMPUTE)
    assert download(bench, asset, order, COMPUTE, serviceId="compute").content == CONTENT
    assert download(bench, asset, order, BOB, serviceId="compute").status_code == 400


# --- what counts as an order -------------------------------------------------------------------------------------


def test_an_order_of_another_token_does_not_count(bench: Bench, asset: Published) -> None:
    """Upstream takes the events of any contract: Bob could order his own worthless token with Alice's fee."""
    worthless = bench.publish([])
    fee = initialize(bench, asset).json()["providerFee"]
    order = bench.order(asset, fee, ACCESS, BOB, token=worthless.token)
    assert "Cannot find the event for the provider fee" in error(download(bench, asset, order))


def test_an_order_of_another_service_does_not_count(bench: Bench, asset: Published) -> None:
    fee = initialize(bench, asset).json()["providerFee"]
    order = bench.order(asset, fee, COMPUTING, BOB)
    assert "Cannot find the event for the order transaction" in error(download(bench, asset, order))


def test_a_fee_of_another_provider_does_not_count(bench: Bench, asset: Published) -> None:
    with bench.another_provider("foreign", private_key=accounts.CARLOS.private_key) as client:
        fields = {"documentId": asset.did, "serviceId": "access", "consumerAddress": BOB.address}
        fee = client.get("/initialize", params=fields).json()["providerFee"]
    assert fee["providerFeeAddress"] == accounts.CARLOS.address
    order = bench.order(asset, fee, ACCESS, BOB)
    assert f"The providerFeeAddress {accounts.CARLOS.address} in the event does not" in error(
        download(bench, asset, order)
    )


def test_a_token_of_another_nft_does_not_count(bench: Bench, asset: Published) -> None:
    thief = bench.publish([])
    thief.ddo["services"][0]["datatokenAddress"] = asset.token
    bench.index(thief)
    assert "is not one of the asset's data NFT" in error(download(bench, thief, ordered(bench, asset)))


def test_a_failed_transaction_does_not_count(bench: Bench, asset: Published) -> None:
    data = encode_call("ERC20Template", "mint", BOB.address, 1)
    call = {"from": BOB.address, "to": asset.token, "data": data, "gas": hex(100_000)}
    failed = bench.chain.request("eth_sendTransaction", call)
    wait_until(lambda: bench.chain.receipt(failed), "the transaction is mined")
    assert error(download(bench, asset, failed)).endswith("order transaction failed.")


def test_an_unmined_order_is_waited_for(bench: Bench, asset: Published) -> None:
    fee = initialize(bench, asset).json()["providerFee"]
    data = encode_call(
        "ERC20Template", "startOrder", BOB.address, ACCESS, fee_tuple(fee), (ZERO_ADDRESS, ZERO_ADDRESS, 0)
    )
    call = {"from": BOB.address, "to": asset.token, "data": data, "gas": hex(1_000_000)}
    bench.chain.request("evm_setAutomine", False)
    try:
        pending = bench.chain.request("eth_sendTransaction", call)
        answers: list[httpx.Response] = []
        waiting = threading.Thread(target=lambda: answers.append(download(bench, asset, pending)))
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
        bench.chain.request("evm_mine")
        waiting.join(30)
    finally:
        bench.chain.request("evm_setAutomine", True)
    assert answers[0].content == CONTENT


def test_orders_expire(bench: Bench, files: list[dict[str, Any]]) -> None:
    asset = bench.publish(files, timeout=1)
    order = ordered(bench, asset)
    wait_until(
        lambda: "providerFee" in initialize(bench, asset, transferTxId=order).json(), "the order expires"
    )
    assert "The order has expired." in error(download(bench, asset, order))
    # Without a time-out the same order is good for ever.
    asset.ddo["services"][0]["timeout"] = 0
    bench.index(asset)
    assert download(bench, asset, order).status_code == 200


# --- state and credentials ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [1, 2, 3, 4, 5])
def test_states(bench: Bench, files: list[dict[str, Any]], state: int) -> None:
    asset = bench.publish(files)
    bench.transact(ALICE, asset.ddo["nftAddress"], "ERC721Template", "setMetaData", *metadata(state))
    answer = initialize(bench, asset)
    if state == 5:
        assert answer.status_code == 200
    else:
        assert error(answer) == "Provider Ganache: Asset is not consumable."
    asset.ddo["nft"]["state"] = 4
    bench.index(asset)
    if state == 5:
        assert error(initialize(bench, asset)).endswith("with code: ConsumableCodes.ASSET_DISABLED.")


def metadata(state: int) -> tuple[Any, ...]:
    return (state, "", "", b"\0", b"x", b"\0" * 32, [])


def addresses(*values: str) -> list[dict[str, Any]]:
    return [{"type": "address", "values": list(values)}]


def test_allow_and_deny_lists(bench: Bench, files: list[dict[str, Any]]) -> None:
    asset = bench.publish(files)
    order = ordered(bench, asset)

    def with_lists(allow: Any, deny: Any) -> httpx.Response:
        asset.ddo["credentials"] = {"allow": allow, "deny": deny}
        bench.index(asset)
        return download(bench, asset, order)

    not_allowed = f"Error: Access to asset {asset.did} was denied with code: "
    assert with_lists(addresses(BOB.address.lower()), []).status_code == 200
    assert with_lists(addresses(BOB.address), addresses(BOB.address)).status_code == 200
    assert error(with_lists(addresses(ALICE.address), [])) == (
        f"Provider Ganache: {not_allowed}ConsumableCodes.CREDENTIAL_NOT_IN_ALLOW_LIST."
    )
    assert error(with_lists([], addresses(BOB.address.lower()))) == (
        f"Provider Ganache: {not_allowed}ConsumableCodes.CREDENTIAL_IN_DENY_LIST."
    )
    assert with_lists([], addresses(ALICE.address)).status_code == 200
    malformed = with_lists([{"type": "address"}], [])
    assert error(malformed).endswith("No values key in the address credential.")
    assert with_lists([{"type": "other", "values": []}], None).status_code == 200


def test_required_consumer_parameters(bench: Bench, asset: Published) -> None:
    asset.ddo["services"][0]["consumerParameters"] = [
        {"name": "year", "type": "number", "required": True},
        {"name": "kind", "type": "select", "options": [{"a": "A"}, {"b": "B"}]},
    ]
    bench.index(asset)
    order = ordered(bench, asset)
    try:
        missing = download(bench, asset, order)
        assert (missing.status_code, missing.json()) == (
            400,
            {"error": {"userdata": "missing_consumer_parameter year"}},
        )
        wrong = download(bench, asset, order, userdata='{"year": 1, "kind": "c"}')
        assert wrong.json() == {"error": {"userdata": "invalid_consumer_parameter kind"}}
        assert download(bench, asset, order, userdata='{"year": "1", "kind": "b"}').status_code == 200
    finally:
        del asset.ddo["services"][0]["consumerParameters"]
        bench.index(asset)


# --- neighbours that fail ----------------------------------------------------------------------------------------


def test_neighbours_that_do_not_answer(bench: Bench, asset: Published) -> None:
    nowhere = "http://127.0.0.1:1"
    fields = {"documentId": asset.did, "serviceId": "access", "consumerAddress": BOB.address}
    with bench.another_provider("no-aquarius", aquarius_url=nowhere) as client:
        answer = client.get("/initialize", params=fields)
        assert answer.status_code == 503
        assert "AQUARIUS_URL" in answer.json()["error"]
        assert answer.json()["context"] == fields
    with bench.another_provider("no-chain", rpc_url=nowhere) as client:
        answer = client.get("/initialize", params=fields)
        assert answer.status_code == 503
        assert "RPC_URL" in answer.json()["error"]
    bench.cupboard.put("/api/aquarius/assets/ddo/did:op:sick", {}, status=500)
    sick = initialize(bench, asset, documentId="did:op:sick")
    assert sick.status_code == 503
    bench.cupboard.put("/api/aquarius/assets/ddo/did:op:odd", b"<html>")
    assert initialize(bench, asset, documentId="did:op:odd").status_code == 503
    bench.cupboard.put("/api/aquarius/assets/ddo/did:op:bare", {"id": "did:op:bare"})
    assert error(initialize(bench, asset, documentId="did:op:bare")) == "Asset malformed or disabled."
