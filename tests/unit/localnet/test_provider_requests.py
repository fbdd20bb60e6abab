"""The Provider's face: the root document, field rules, nonces, tokens, encryption, and answers to nonsense."""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import lzma
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import ecies
import httpx
import pytest

from include.localnet import accounts
from include.localnet.ethereum import sign_message
from include.localnet.settings import choose_ports
from tests.support.waiting import wait_until
from tests.unit.localnet.provider_bench import CONTAINER, Bench, running_bench

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from include.localnet.provider.configuration import Configuration

BOB, ALICE = accounts.BOB, accounts.ALICE


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with running_bench(tmp_path_factory.mktemp("provider")) as running:
        yield running


# --- the root document and routing -------------------------------------------------------------------------------


def test_root_says_who_and_where(bench: Bench) -> None:
    answer = httpx.get(bench.url + "/").json()
    assert answer["software"] == "Provider"
    assert answer["version"] == "2.1.6"
    assert answer["chainIds"] == [8996]
    assert answer["providerAddresses"] == {"8996": accounts.PROVIDER.address}
    assert answer["serviceEndpoints"]["computeStart"] == ["POST", "/api/services/compute"]
    assert set(answer["serviceEndpoints"]) == {
        *("nonce", "encrypt", "decrypt", "fileinfo", "initialize", "download", "initializeCompute"),
        *("computeEnvironments", "computeStart", "computeStatus", "computeStop", "computeDelete"),
        *("computeResult", "createAuthToken", "deleteAuthToken", "validateContainer"),
    }
    assert httpx.get(bench.url + "/spec").json()["info"]["title"] == "Provider"


def test_unknown_paths_and_methods(bench: Bench) -> None:
    missing = bench.http.get("/nothing")
    assert (missing.status_code, missing.json()["error"][:13]) == (404, "404 Not Found")
    for method in ("HEAD", "PUT"):
        assert bench.http.request(method, "/nonce").status_code == 405


def test_repeated_slashes_are_one(bench: Bench) -> None:
    answer = httpx.get(f"{bench.url}//api/services/nonce", params={"userAddress": BOB.address})
    assert answer.status_code == 200


def test_web_apps_may_ask(bench: Bench) -> None:
    answer = bench.http.get(
        "/nonce", params={"userAddress": BOB.address}, headers={"Origin": "https://a.example"}
    )
    assert answer.headers["access-control-allow-origin"] == "*"


def required(*fields: str) -> dict[str, list[str]]:
    return {field: [f"The {field} field is required."] for field in fields}


NOT_SIGNED = ["Invalid signature provided. Please check the nonce or documentId."]


@pytest.mark.parametrize(
    ("method", "path", "request_", "errors"),
    [
        ("GET", "/nonce", {}, required("userAddress")),
        ("GET", "/initialize", {}, required("documentId", "serviceId", "consumerAddress")),
        (
            "GET",
            "/initialize",
            {"documentId": "did:op:1", "serviceId": "1", "consumerAddress": "0x1", "fileIndex": "-1"},
            {"fileIndex": ["The fileIndex must be an integer.", "The fileIndex must be at least 0."]},
        ),
        ("GET", "/download", {}, required("documentId")),
        ("GET", "/download", {"documentId": "did:op:1"}, required("serviceId", "consumerAddress")),
        (
            "GET",
            "/download",
            {
                "documentId": "did:op:1",
                "serviceId": "1",
                "consumerAddress": BOB.address,
                "transferTxId": "0x1",
                "fileIndex": "0",
                "nonce": "x",
            },
            {"nonce": ["The nonce must be a number."]},
        ),
        (
            "GET",
            "/download",
            {
                "documentId": "did:op:1",
                "serviceId": "1",
                "consumerAddress": BOB.address,
                "transferTxId": "0x1",
                "fileIndex": "0",
                "nonce": "99999999999999999999",
            },
            {"signature": NOT_SIGNED},
        ),
        (
            "POST",
            "/fileinfo",
            {"type": "floppy"},
            {"type": ["The selected type is invalid."]},
        ),
        (
            "POST",
            "/fileinfo",
            {"type": "url"},
            {"url": ["The url field is required when type is url."]},
        ),
        ("POST", "/fileinfo", {"type": "ipfs"}, {"hash": ["The hash field is required when type is ipfs."]}),
        (
            "POST",
            "/fileinfo",
            {"type": "arweave"},
            {"transactionId": ["The transactionId field is required when type is arweave."]},
        ),
        (
            "POST",
            "/fileinfo",
            {"did": "did:x:1", "serviceId": "1"},
            {"did": ["The did format is invalid."]},
        ),
        (
            "POST",
            "/fileinfo",
            {"did": ["did:op:1"], "serviceId": "1"},
            {"did": ["The did format is invalid."]},
        ),
        (
            "POST",
            "/initializeCompute",
            {"datasets": [], "algorithm": {"meta": {}}, "compute": {"env": "e", "validUntil": "soon"}},
            {
                "datasets": ["The datasets field is required."],
                "algorithm.meta": [
                    "The algorithm.meta field is required when algorithm.documentId is not present."
                ],
                "compute.validUntil": ["The compute.validUntil must be an integer."],
                **required("consumerAddress"),
            },
        ),
        ("POST", "/compute", {}, required("dataset.documentId")),
        (
            "POST",
            "/compute",
            {"dataset": {"documentId": "d", "serviceId": "s"}, "algorithm": {"meta": {"a": 1}}},
            required("dataset.transferTxId", "consumerAddress"),
        ),
        ("GET", "/compute", {}, required("consumerAddress")),
        ("PUT", "/compute", {"consumerAddress": BOB.address}, required("nonce")),
        (
            "DELETE",
            "/compute",
            {"consumerAddress": BOB.address, "nonce": "99999999999999999999"},
            {"signature": NOT_SIGNED},
        ),
        ("GET", "/computeResult", {"jobId": "1"}, required("index")),
        (
            "GET",
            "/createAuthToken",
            {"address": BOB.address, "expiration": "1", "nonce": "99999999999999999999"},
            {"expiration": ["Invalid timestamp provided."]},
        ),
        ("DELETE", "/deleteAuthToken", {"address": BOB.address}, required("token")),
        (
            "POST",
            "/decrypt",
            {"decrypterAddress": BOB.address, "chainId": 8996, "dataNftAddress": "0x1", "nonce": "nan"},
            {
                "transactionId": [
                    "The transactionId field is required when dataNftAddress, encryptedDocument, flags, "
                    "documentHash is not present."
                ],
                "encryptedDocument": [
                    "The encryptedDocument field is required when transactionId is not present."
                ],
                "flags": ["The flags field is required when transactionId is not present."],
                "documentHash": ["The documentHash field is required when transactionId is not present."],
                "nonce": ["The nonce must be a number."],
                "signature": NOT_SIGNED,
            },
        ),
    ],
)
def test_wrong_fields(
    bench: Bench, method: str, path: str, request_: dict[str, Any], errors: dict[str, Any]
) -> None:
    as_query = method != "POST"
    answer = bench.http.request(
        method, path, params=request_ if as_query else None, json=None if as_query else request_
    )
    assert answer.status_code == 400
    body = answer.json()
    assert (body["message"], body["success"]) == ("Validation error", False)
    assert body["errors"] == errors


@pytest.mark.parametrize(
    "path", ["/decrypt", "/fileinfo", "/initializeCompute", "/compute", "/validateContainer"]
)
@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"[1]", b'"text"', b"null", b"7", b"\xff\xfe", b"[" * 100_000),
        b'{"dataset": 3, "datasets": 4}',
        b'{"did": "did:op:\\ud800", "serviceId": "1", "nonce": NaN}',
    ],
    ids=range(11),
)
def test_nonsense_is_refused(bench: Bench, path: str, body: bytes) -> None:
    answer = bench.http.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()


# --- nonces ------------------------------------------------------------------------------------------------------


def stop(bench: Bench, nonce: Any, address: str = BOB.address, **more: Any) -> httpx.Response:
    signature = sign_message(f"{address}job{nonce}", BOB.private_key)
    fields = {"consumerAddress": address, "jobId": "job", "nonce": nonce, "signature": signature, **more}
    return bench.http.put("/compute", params=fields)


def test_a_new_address_starts_at_one(bench: Bench) -> None:
    # The nonce is a text in upstream's JSON, too.
    answer = bench.http.get("/nonce", params={"userAddress": accounts.DEPLOYER.address})
    assert (answer.status_code, answer.json()) == (200, {"nonce": "1"})


def test_nonces_rise(bench: Bench) -> None:
    bench.cupboard.put("/api/v1/operator/compute", [], method="PUT")
    nonce = bench.nonce()
    assert stop(bench, nonce).status_code == 200
    assert bench.http.get("/nonce", params={"userAddress": BOB.address.lower()}).json() == {
        "nonce": str(nonce)
    }
    below = stop(bench, nonce - 1)
    assert below.status_code == 400
    assert below.json()["errors"] == {
        "signature": f"Invalid signature expected nonce ({nonce}) > current nonce ({nonce - 1})."
    }
    sent = len(bench.cupboard.requests("PUT", "/api/v1/operator/compute"))
    again = stop(bench, nonce)
    assert again.status_code == 503
    assert again.json()["error"] == (
        f"Cannot create duplicates in the database. Existing nonce: {nonce} vs. new nonce: {nonce}"
    )
    assert again.json()["context"]["jobId"] == "job"
    # Another way to write the address or the number is no way around it.
    assert stop(bench, f"{nonce}.0").status_code == 503
    assert stop(bench, nonce, BOB.address.lower()).status_code == 503
    assert len(bench.cupboard.requests("PUT", "/api/v1/operator/compute")) == sent


def test_one_nonce_serves_one_request(bench: Bench) -> None:
    bench.cupboard.put("/api/v1/operator/compute", [], method="PUT")
    nonce = bench.nonce()
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        codes = [answer.status_code for answer in pool.map(lambda _: stop(bench, nonce), range(12))]
    assert sorted(codes) == [200] + [503] * 11


def test_signatures_of_others(bench: Bench) -> None:
    nonce = bench.nonce()
    wrong = sign_message(f"{BOB.address}job{nonce}", ALICE.private_key)
    answer = stop(bench, nonce, signature=wrong)
    assert answer.status_code == 400
    message = answer.json()["errors"]["signature"]
    assert message.startswith(f"Invalid signature {wrong} for ethereum address {BOB.address}, message ")
    assert message.endswith(f"and nonce {nonce}. Got {ALICE.address.lower()}")
    for malformed in ("0x12", "abc", "0x" + "00" * 65):
        assert stop(bench, nonce, signature=malformed).status_code == 400
    assert stop(bench, nonce, "not an address").status_code == 400


# --- tokens ------------------------------------------------------------------------------------------------------


def create_token(bench: Bench, expiration: float) -> httpx.Response:
    fields = {"address": BOB.address, "expiration": int(expiration), **bench.signed(BOB, BOB.address)}
    return bench.http.get("/createAuthToken", params=fields)


def delete_token(bench: Bench, token: str) -> httpx.Response:
    fields = {"address": BOB.address, "token": token, **bench.signed(BOB, BOB.address)}
    return bench.http.delete("/deleteAuthToken", params=fields)


def test_tokens_stand_in_for_signatures(bench: Bench) -> None:
    bench.cupboard.put("/api/v1/operator/compute", [], method="PUT")
    created = create_token(bench, time.time() + 1000)
    assert created.status_code == 200
    token = created.json()["token"]

    def use(token: str, address: str = BOB.address) -> int:
        fields = {"consumerAddress": address, "nonce": bench.nonce()}
        return bench.http.put("/compute", params=fields, headers={"AuthToken": token}).status_code

    assert use(token) == 200
    assert use(token, ALICE.address) == 400
    assert use("not.a.token") == 400
    low = {"consumerAddress": BOB.address, "nonce": 2}
    assert bench.http.put("/compute", params=low, headers={"AuthToken": token}).status_code == 400

    deleted = delete_token(bench, token)
    assert (deleted.status_code, deleted.json()) == (200, {"success": "Token has been deactivated."})
    assert use(token) == 400
    assert delete_token(bench, token).json() == {"error": "Token is deleted."}
    assert delete_token(bench, "x").json() == {"error": "Token is invalid."}


def test_a_deleted_token_is_restored(bench: Bench) -> None:
    expiration = time.time() + 2000
    token = create_token(bench, expiration).json()["token"]
    delete_token(bench, token)
    assert create_token(bench, expiration).json() == {"token": token}
    assert delete_token(bench, token).status_code == 200


def test_tokens_expire(bench: Bench) -> None:
    token = create_token(bench, time.time() + 2).json()["token"]
    answer = wait_until(
        lambda: (
            next(
                (a for a in [delete_token(bench, token + "")] if a.json() == {"error": "Token is expired."}),
                None,
            )
            if time.time() > expires_of(token)
            else None
        ),
        "the token expires",
    )
    assert answer.status_code == 400


def expires_of(token: str) -> float:
    import jwt

    return float(jwt.decode(token, options={"verify_signature": False})["exp"])


# --- encrypt and decrypt -----------------------------------------------------------------------------------------


def test_encrypt_is_for_the_providers_key(bench: Bench) -> None:
    secret = bench.encrypt(b"\x00\xffdocument")
    assert secret.startswith("0x04")
    assert ecies.decrypt(accounts.PROVIDER.private_key, bytes.fromhex(secret[2:])) == b"\x00\xffdocument"


def test_encrypt_refuses(bench: Bench) -> None:
    octets = {"Content-Type": "application/octet-stream"}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"json": {}}, "Invalid request content type: should be application/octet-stream"),
        ({"content": b"x", "headers": octets}, "Missing chainId query parameter."),
        ({"content": b"x", "headers": octets, "params": {"chainId": 1}}, "Failed to encrypt."),
    ]
    for request, error in cases:
        answer = bench.http.post("/encrypt", **request)
        assert (answer.status_code, answer.json()) == (400, {"error": error})


DOCUMENT = json.dumps({"id": "did:op:1", "text": "ü" * 100}).encode()


def sealed(bench: Bench, flags: int, document: bytes = DOCUMENT) -> bytes:
    content = lzma.compress(document) if flags & 1 else document
    return bytes.fromhex(bench.encrypt(content)[2:]) if flags & 2 else content


def decrypt(bench: Bench, client: httpx.Client | None = None, **fields: Any) -> httpx.Response:
    data = {"decrypterAddress": ALICE.address, "chainId": 8996, **fields}
    subject = data.get("transactionId") or data.get("dataNftAddress")
    signed = bench.signed(ALICE, f"{subject}{data['decrypterAddress']}{data['chainId']}")
    return (client or bench.http).post("/decrypt", json={**data, **signed})


@pytest.fixture(scope="module")
def nft(bench: Bench) -> str:
    return bench.create_nft()[0]


@pytest.mark.parametrize("flags", [0, 1, 2, 3])
def test_decrypt_every_kind(bench: Bench, nft: str, flags: int) -> None:
    data, digest = sealed(bench, flags), hashlib.sha256(DOCUMENT).digest()
    transaction = bench.set_metadata(nft, data, flags, digest)
    by_transaction = decrypt(bench, dataNftAddress=nft, transactionId=transaction)
    assert (by_transaction.status_code, by_transaction.content) == (201, DOCUMENT)
    assert by_transaction.headers["content-type"].startswith("text/plain")
    by_content = decrypt(
        bench,
        dataNftAddress=nft,
        encryptedDocument="0x" + data.hex(),
        flags=flags,
        documentHash="0x" + digest.hex(),
    )
    assert (by_content.status_code, by_content.content) == (201, DOCUMENT)


def test_decrypt_refuses(bench: Bench, nft: str) -> None:
    digest = "0x" + hashlib.sha256(DOCUMENT).hexdigest()
    good = {
        "dataNftAddress": nft,
        "encryptedDocument": "0x" + DOCUMENT.hex(),
        "flags": 0,
        "documentHash": digest,
    }
    other_nft, token = bench.create_nft()
    foreign = bench.set_metadata(other_nft, DOCUMENT, 0, bytes.fromhex(digest[2:]))
    bomb = lzma.compress(b"\0" * (64 * 2**20))
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"chainId": 1}, 400, "Unsupported chain ID 1"),
        ({"dataNftAddress": token}, 400, "Asset not deployed by the data NFT factory."),
        ({"dataNftAddress": "0x12"}, 400, "Asset not deployed by the data NFT factory."),
        ({"encryptedDocument": "0xzz"}, 400, "Failed to convert input args to bytes."),
        ({"flags": 256}, 400, "Failed to convert input args to bytes."),
        ({"flags": "x"}, 400, "Failed to convert input args to bytes."),
        ({"transactionId": "0x" + "1" * 64}, 400, "Failed to process transaction id."),
        ({"transactionId": "nonsense"}, 400, "Failed to process transaction id."),
        ({"transactionId": foreign}, 400, "Failed to process transaction id."),
        ({"flags": 2}, 400, "Failed to decrypt."),
        ({"flags": 1}, 400, "Failed to decompress"),
        ({"flags": 1, "encryptedDocument": bomb.hex()}, 400, "Failed to decompress"),
        ({"documentHash": "0x" + "0" * 64}, 400, "Checksum doesn't match."),
    ]
    for changes, status, error in cases:
        answer = decrypt(bench, **{**good, **changes})
        assert (answer.status_code, answer.json()) == (status, {"error": error}), changes


def test_decrypt_minds_the_state(bench: Bench) -> None:
    digest = hashlib.sha256(DOCUMENT).digest()
    nft, _ = bench.create_nft()
    expected = {
        0: (201, DOCUMENT),
        1: (403, b'{"error":"Asset end of life"}'),
        2: (403, b'{"error":"Asset deprecated"}'),
        3: (403, b'{"error":"Asset revoked"}'),
        4: (201, DOCUMENT),
        5: (201, DOCUMENT),
        6: (400, b'{"error":"Invalid MetadataState"}'),
    }
    for state, answer in expected.items():
        transaction = bench.set_metadata(nft, DOCUMENT, 0, digest, state)
        found = decrypt(bench, dataNftAddress=nft, transactionId=transaction)
        assert (found.status_code, found.content) == answer


def test_only_authorized_decrypters(bench: Bench, nft: str) -> None:
    transaction = bench.set_metadata(nft, DOCUMENT, 0, hashlib.sha256(DOCUMENT).digest())
    with bench.another_provider("decrypters", authorized_decrypters=(BOB.address.lower(),)) as client:
        answer = decrypt(bench, client, dataNftAddress=nft, transactionId=transaction)
        assert (answer.status_code, answer.json()) == (403, {"error": "Decrypter not authorized"})
    with bench.another_provider("decrypters", authorized_decrypters=(ALICE.address.lower(),)) as client:
        assert decrypt(bench, client, dataNftAddress=nft, transactionId=transaction).status_code == 201


# --- containers --------------------------------------------------------------------------------------------------


def test_validate_container(bench: Bench) -> None:
    good = bench.http.post("/validateContainer", json=CONTAINER)
    assert (good.status_code, good.json()) == (200, CONTAINER)
    for key in ("entrypoint", "image", "checksum"):
        answer = bench.http.post("/validateContainer", json={**CONTAINER, key: ""})
        assert (answer.status_code, answer.json()) == (400, {"error": "missing_entrypoint_image_checksum"})
    answer = bench.http.post("/validateContainer", json={**CONTAINER, "checksum": "md5:1"})
    assert (answer.status_code, answer.json()) == (400, {"error": "checksum_prefix"})


# --- the process -------------------------------------------------------------------------------------------------


def test_nothing_acknowledged_is_lost(bench: Bench) -> None:
    bench.cupboard.put("/api/v1/operator/compute", [], method="PUT")
    assert stop(bench, bench.nonce()).status_code == 200
    with bench.another_provider("provider") as client:  # the same database
        last = client.get("/nonce", params={"userAddress": BOB.address}).json()
    assert last == bench.http.get("/nonce", params={"userAddress": BOB.address}).json()
    assert int(last["nonce"]) > 10**18


def provider_environment(configuration: Configuration, port: int, state: Path) -> dict[str, str]:
    return {
        "PORT": str(port),
        "STATE_DIR": str(state),
        "RPC_URL": configuration.rpc_url,
        "ADDRESS_FILE": str(configuration.address_file),
        "PRIVATE_KEY": configuration.private_key,
        "AQUARIUS_URL": configuration.aquarius_url,
        "OPERATOR_SERVICE_URL": configuration.operator_service_url,
    }


def test_the_process_keeps_secrets_out_of_its_log(bench: Bench, tmp_path: Path) -> None:
    port = choose_ports(0)["provider"]
    url = f"http://127.0.0.1:{port}"
    environment = os.environ | provider_environment(bench.configuration, port, tmp_path / "state")
    process = subprocess.Popen(
        [sys.executable, "-m", "include.localnet.provider"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_until(lambda: process.poll() is not None or answers(url), "the Provider answers")
        nonce = bench.nonce()
        signature = sign_message(f"{BOB.address}{nonce}", ALICE.private_key)
        fields = {"consumerAddress": BOB.address, "nonce": nonce, "signature": signature}
        assert httpx.put(f"{url}/api/services/compute", params=fields).status_code == 400
        secret = {"type": "url", "url": "http://127.0.0.1:1/secret-file?key=secret-key"}
        assert httpx.post(f"{url}/api/services/fileinfo", json=secret).status_code == 200
    finally:
        process.terminate()
        log, _ = process.communicate(timeout=30)
    assert "Application shutdown complete" in log
    assert "/api/services/compute" in log
    assert signature not in log
    assert "secret" not in log
    assert bench.configuration.private_key[2:] not in log


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.HTTPError:
        return False
