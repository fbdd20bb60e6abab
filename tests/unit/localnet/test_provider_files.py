"""The kinds of files a Provider hands out: what it says of them, and what it asks their servers for."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from include.localnet import accounts
from include.localnet.ethereum import artifact
from include.localnet.provider.configuration import FileSettings
from tests.unit.localnet.provider_bench import Bench, running_bench

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

CONTENT = b"a,b\n1,2\n" * 1000


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with running_bench(tmp_path_factory.mktemp("provider")) as running:
        yield running


def info(bench: Bench, client: httpx.Client | None = None, **file: Any) -> Any:
    answer = (client or bench.http).post("/fileinfo", json=file)
    assert answer.status_code == 200, answer.text
    return answer.json()[0]


def refusal(bench: Bench, client: httpx.Client | None = None, **file: Any) -> tuple[int, str]:
    answer = (client or bench.http).post("/fileinfo", json=file)
    return answer.status_code, answer.json()["error"]


def test_a_url(bench: Bench) -> None:
    url = bench.cupboard.put("/data/table.csv", CONTENT, Content_Type="text/csv; charset=utf-8")
    known = {
        "index": 0,
        "valid": True,
        "type": "url",
        "contentLength": "8000",
        "contentType": "text/csv",
        "filename": "table.csv",
    }
    assert info(bench, type="url", url=url) == known
    assert info(bench, type="url", url=url, checksum=1) == {
        **known,
        "checksum": hashlib.sha256(CONTENT).hexdigest(),
        "checksumType": "sha256",
    }


def test_a_url_with_headers_method_and_userdata(bench: Bench) -> None:
    url = bench.cupboard.put("/api", b"x", method="POST")
    bench.cupboard.put("/api", b"x")
    headers = {"Authorization": "Bearer of-the-publisher"}
    data = {"year": 2020}
    assert info(bench, type="url", url=url + "?key=1", headers=headers, userdata=data)["valid"]
    seen = bench.cupboard.requests("GET", "/api")[-1]
    assert seen.query == {"key": "1", "year": "2020"}
    assert seen.headers["Authorization"] == "Bearer of-the-publisher"
    assert info(bench, type="url", url=url, method="POST", headers=headers, userdata='{"year": 2021}')[
        "valid"
    ]
    seen = bench.cupboard.requests("POST", "/api")[-1]
    assert seen.json == {"year": 2021}
    # Upstream sends without parameters what it cannot read.
    assert info(bench, type="url", url=url, userdata="not json")["valid"]
    assert bench.cupboard.requests("GET", "/api")[-1].query == {}


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/nobody-listens",
        "http://",
        "http://[broken",
        "ftp://127.0.0.1",
        "justaname",
        "http://name.invalid/x",
    ],
)
def test_urls_that_lead_nowhere(bench: Bench, url: str) -> None:
    if url.startswith("ftp"):
        assert refusal(bench, type="url", url=url)[0] == 400
        return
    assert info(bench, type="url", url=url) == {"index": 0, "valid": False, "type": "url"}


def test_answers_that_are_no_file(bench: Bench) -> None:
    url = bench.cupboard.put("/gone", b"", status=404)
    assert not info(bench, type="url", url=url)["valid"]


def test_redirects_are_followed_and_end(bench: Bench) -> None:
    goal = bench.cupboard.put("/goal.bin", CONTENT)
    hop = bench.cupboard.put("/hop", b"", status=302, Location=goal)
    found = info(bench, type="url", url=hop, checksum=True)
    assert found["checksum"] == hashlib.sha256(CONTENT).hexdigest()
    assert found["filename"] == "goal.bin"
    loop = bench.cupboard.put("/loop", b"", status=302, Location="/loop")
    assert not info(bench, type="url", url=loop)["valid"]


def test_cookies_of_one_asset_stay_out_of_anothers(bench: Bench) -> None:
    url = bench.cupboard.put("/cookie", b"x", Set_Cookie="session=alice")
    assert info(bench, type="url", url=url)["valid"]
    assert info(bench, type="url", url=url)["valid"]
    assert "Cookie" not in bench.cupboard.requests("GET", "/cookie")[-1].headers


def test_no_checksum_of_large_files(bench: Bench) -> None:
    url = bench.cupboard.put("/large.bin", CONTENT)
    with bench.another_provider("small", files=FileSettings(max_checksum_length=7999)) as client:
        found = info(bench, client, type="url", url=url, checksum=True)
    assert found["valid"]
    assert "checksum" not in found


def test_private_addresses_can_be_forbidden(bench: Bench) -> None:
    url = bench.cupboard.put("/inside", b"x")
    with bench.another_provider("public", files=FileSettings(allow_non_public_ip=False)) as client:
        sent = len(bench.cupboard.seen)
        assert not info(bench, client, type="url", url=url)["valid"]
    assert len(bench.cupboard.seen) == sent


def test_retries(bench: Bench) -> None:
    url = bench.cupboard.put("/flaky", b"", status=500)
    with bench.another_provider("retries", files=FileSettings(request_retries=3)) as client:
        assert not info(bench, client, type="url", url=url)["valid"]
    assert len(bench.cupboard.requests("GET", "/flaky")) == 3


@pytest.mark.parametrize(
    ("file", "error"),
    [
        ({"type": "url", "url": "http://a", "method": "PUT"}, "Unsafe method put."),
        (
            {"type": "url", "url": "../etc/passwd"},
            "Invalid file name format. It was not possible to get the file name.",
        ),
        ({"type": "url", "url": ["http://a"]}, "malformed file object."),
        ({"type": "url", "url": "http://a", "headers": {"a": 1}}, "malformed file object."),
        ({"type": "graphql"}, "missing graphql endpoint"),
        ({"type": "graphql", "url": "http://a"}, "missing graphql query"),
        ({"type": "smartcontract"}, "malformed smartcontract type, missing contract address"),
        ({"type": "smartcontract", "address": "0x1"}, "malformed file object."),
        ({"type": "smartcontract", "address": "0x1", "abi": {}}, "invalid abi"),
        (
            {
                "type": "smartcontract",
                "address": "0x1",
                "abi": {"inputs": [{"name": {}}], "type": "function"},
            },
            "invalid abi",
        ),
        (
            {"type": "smartcontract", "address": "0x1", "abi": {"inputs": [], "type": "function"}},
            "only view or pure functions are allowed",
        ),
    ],
)
def test_malformed_file_objects(bench: Bench, file: dict[str, Any], error: str) -> None:
    assert refusal(bench, **file) == (400, error)


def test_gateways(bench: Bench) -> None:
    assert refusal(bench, type="ipfs", hash="Qm") == (
        503,
        "No IPFS_GATEWAY defined, can not resolve ipfs hash.",
    )
    assert refusal(bench, type="arweave", transactionId="x") == (
        503,
        "No ARWEAVE_GATEWAY defined, can not resolve arweave transaction id.",
    )
    bench.cupboard.put("/gate/ipfs/Qm", CONTENT)
    bench.cupboard.put("/gate/tx-1", CONTENT)
    gateway = bench.cupboard.url + "/gate"
    files = FileSettings(ipfs_gateway=gateway, arweave_gateway=gateway)
    with bench.another_provider("gateways", files=files) as client:
        found = info(bench, client, type="ipfs", hash="Qm")
        assert (found["valid"], found["type"], found["filename"]) == (True, "ipfs", "Qm")
        found = info(bench, client, type="arweave", transactionId="tx-1", checksum=True)
        assert (found["valid"], found["filename"]) == (True, "")
        assert found["checksum"] == hashlib.sha256(CONTENT).hexdigest()


def test_graphql(bench: Bench) -> None:
    url = bench.cupboard.put("/graphql", {"data": {}}, method="POST")
    query = "query($n: Int){ nfts(first: $n) { id } }"
    assert info(bench, type="graphql", url=url, query=query, userdata={"n": 3})["valid"]
    assert bench.cupboard.requests("POST", "/graphql")[-1].json == {"query": query, "variables": {"n": 3}}


def function(contract: str, name: str) -> dict[str, Any]:
    return next(
        item for item in artifact(contract)["abi"] if item["type"] == "function" and item["name"] == name
    )


def call(bench: Bench, abi: dict[str, Any], address: str = "", **more: Any) -> Any:
    address = address or bench.addresses["Ocean"]
    return bench.http.post(
        "/fileinfo", json={"type": "smartcontract", "address": address, "chainId": 8996, "abi": abi, **more}
    )


def test_a_smart_contract(bench: Bench) -> None:
    name = call(bench, function("OceanToken", "name"), checksum=True).json()[0]
    assert (name["valid"], name["contentType"]) == (True, "application/json")
    assert name["checksum"] == hashlib.sha256(b'"Ocean Token"').hexdigest()

    balance = function("OceanToken", "balanceOf")
    known = call(bench, balance, userdata={balance["inputs"][0]["name"]: accounts.BOB.address.lower()})
    assert known.json()[0]["valid"]
    assert call(bench, balance).json() == {"error": "Missing parameters"}
    argument = balance["inputs"][0]["name"]
    assert call(bench, balance, userdata={"x": 1}).json() == {"error": f"Missing userparams: {argument}"}
    assert call(bench, balance, userdata={argument: "no address"}).json()[0]["valid"] is False
    assert call(bench, balance, userdata="{").json() == {"error": "malformed file object."}
    elsewhere = call(bench, function("OceanToken", "name"), accounts.BOB.address)
    assert elsewhere.json()[0]["valid"] is False
    assert call(bench, function("OceanToken", "name"), chainId=1).json()[0]["valid"] is False


def test_a_smart_contract_with_structures(bench: Bench) -> None:
    nft, _ = bench.create_nft()
    digest = hashlib.sha256(b"x").digest()
    bench.set_metadata(nft, b"x", 0, digest)
    found = call(bench, function("ERC721Template", "getMetaData"), nft, checksum=True).json()[0]
    expected = f'["{bench.url}", "{accounts.ALICE.address}", 0, true]'.encode()
    assert found["checksum"] == hashlib.sha256(expected).hexdigest()


def test_the_files_of_an_asset(bench: Bench) -> None:
    urls = [bench.cupboard.put(f"/part{i}.csv", CONTENT) for i in range(2)]
    asset = bench.publish([{"type": "url", "url": url, "method": "GET"} for url in urls])
    answer = bench.http.post("/fileinfo", json={"did": asset.did, "serviceId": "access"})
    assert [(f["index"], f["valid"], f["filename"]) for f in answer.json()] == [
        (0, True, "part0.csv"),
        (1, True, "part1.csv"),
    ]
    wrong = bench.http.post("/fileinfo", json={"did": asset.did, "serviceId": "other"})
    assert (wrong.status_code, wrong.json()) == (400, {"error": "Provider Ganache: Invalid serviceId."})
    unknown = bench.http.post("/fileinfo", json={"did": "did:op:0", "serviceId": "access"})
    assert (unknown.status_code, unknown.json()) == (400, {"error": "Cannot resolve DID"})


def test_files_of_another_asset_or_provider(bench: Bench) -> None:
    url = bench.cupboard.put("/mine.csv", CONTENT)
    mine = bench.publish([{"type": "url", "url": url, "method": "GET"}])
    thief = bench.publish([])
    unreadable = {"error": "Provider Ganache: Unable to get dataset files"}
    for files in (mine.ddo["services"][0]["files"], "0x04deadbeef", "nonsense", bench.encrypt([1])):
        thief.ddo["services"][0]["files"] = files
        bench.index(thief)
        answer = bench.http.post("/fileinfo", json={"did": thief.did, "serviceId": "access"})
        assert (answer.status_code, answer.json()) == (400, unreadable)
    # Until version 4.0.0 the list of files stood alone.
    thief.ddo["services"][0]["files"] = bench.encrypt([{"type": "url", "url": url}])
    thief.ddo["version"] = "4.0.0"
    bench.index(thief)
    answer = bench.http.post("/fileinfo", json={"did": thief.did, "serviceId": "access"})
    assert answer.json()[0]["valid"]
