"""Encrypted assets: Aquarius has the Provider decrypt them, and waits for one that is not there."""

from __future__ import annotations

import lzma
import socket
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from include.localnet import accounts
from include.localnet.ethereum import signer_of
from include.localnet.processes import ProcessTable
from include.localnet.settings import CHAIN_ID, choose_ports
from tests.support.waiting import wait_until
from tests.unit.localnet.aquarius_bench import Asset, Bench, compact, running_bench
from tests.unit.localnet.provider_bench import running_cupboard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DECRYPT = "/api/services/decrypt"


class ProviderProcess:
    """A Provider that can be stopped and started."""

    def __init__(self, home: Path, bench: Bench, **environment: str) -> None:
        self._table = ProcessTable(home)
        port = choose_ports(0)["provider"]
        self.url = f"http://127.0.0.1:{port}"
        self._environment = {
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "STATE_DIR": str(home / "state"),
            "RPC_URL": bench.chain.rpc_url,
            "ADDRESS_FILE": str(bench.address_file),
            "PRIVATE_KEY": accounts.PROVIDER.private_key,
            "AQUARIUS_URL": bench.aquarius.url,
            "OPERATOR_SERVICE_URL": "http://127.0.0.1:9",
            **environment,
        }

    def start(self) -> None:
        self._table.start("provider", [sys.executable, "-m", "include.localnet.provider"], self._environment)
        wait_until(lambda: self._table.running("provider") is None or self._answers(), "the Provider answers")
        assert self._table.running("provider"), self._table.end_of_log("provider")

    def _answers(self) -> bool:
        try:
            return httpx.get(self.url, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        self._table.stop(["provider"])

    def encrypt(self, document: bytes) -> bytes:
        """Encrypt as Ocean's clients have it done."""
        response = httpx.post(
            f"{self.url}/api/services/encrypt",
            params={"chainId": CHAIN_ID},
            content=document,
            headers={"content-type": "application/octet-stream"},
            trust_env=False,
        )
        assert response.status_code == 201, response.text
        return bytes.fromhex(response.text.removeprefix("0x"))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with running_bench(tmp_path_factory.mktemp("decryption")) as running:
        yield running


@pytest.fixture(scope="module")
def provider(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProviderProcess]:
    process = ProviderProcess(tmp_path_factory.mktemp("provider"), bench)
    process.start()
    yield process
    process.stop()


def publish(bench: Bench, asset: Asset, provider: ProviderProcess, flags: int) -> dict[str, Any]:
    document = compact(asset.ddo)
    data = provider.encrypt(lzma.compress(document) if flags & 1 else document)
    return bench.publisher.set_metadata(asset, flags=flags, data=data, url=provider.url)


@pytest.mark.parametrize("flags", [2, 3])
def test_encrypted_asset_is_decrypted_by_its_provider(
    bench: Bench, provider: ProviderProcess, flags: int
) -> None:
    asset = bench.publisher.create(f"Secret {flags}")
    publish(bench, asset, provider, flags)
    found = bench.aquarius.wait_for(asset, f"Secret {flags}")
    assert {key: found[key] for key in asset.ddo} == asset.ddo
    updated = bench.publisher.changed(asset, name=f"Secret {flags} updated")
    publish(bench, updated, provider, flags)
    bench.aquarius.wait_for(asset, f"Secret {flags} updated")


def test_many_encrypted_assets_at_once(bench: Bench, provider: ProviderProcess) -> None:
    assets = [bench.publisher.create(f"Many {number}") for number in range(6)]
    for asset in assets:
        publish(bench, asset, provider, 3)
    for number, asset in enumerate(assets):
        bench.aquarius.wait_for(asset, f"Many {number}")


def test_provider_that_is_down_holds_up_nobody_and_is_asked_again(
    bench: Bench, provider: ProviderProcess
) -> None:
    secret = bench.publisher.create("Waits for the Provider")
    document = lzma.compress(compact(secret.ddo))
    data = provider.encrypt(document)
    provider.stop()
    bench.publisher.set_metadata(secret, flags=3, data=data, url=provider.url)
    plain = bench.publisher.publish("Needs no Provider")
    bench.aquarius.wait_for(plain, "Needs no Provider")
    assert bench.aquarius.ddo(secret.did) is None
    (hit,) = bench.aquarius.get("/state/retryQueue", did=secret.did).json()["hits"]["hits"]
    assert hit["_source"]["type"] == "event"
    assert hit["_source"]["nft_address"] == secret.nft
    assert "Failed to get a response for decrypt DDO" in hit["_source"]["error"]
    assert bench.aquarius.state_of(secret)["valid"] is False

    # What waits survives a kill.
    bench.aquarius.kill()
    bench.aquarius.start()
    provider.start()
    bench.aquarius.wait_for(secret, "Waits for the Provider")
    wait_until(
        lambda: not bench.aquarius.get("/state/retryQueue", did=secret.did).json()["hits"]["hits"],
        "nothing waits any more",
    )
    assert bench.aquarius.state_of(secret)["valid"] is True


def test_older_metadata_that_had_to_wait_does_not_replace_newer(
    bench: Bench, provider: ProviderProcess
) -> None:
    asset = bench.publisher.create("Old and late")
    data = provider.encrypt(compact(asset.ddo))
    provider.stop()
    bench.publisher.set_metadata(asset, flags=2, data=data, url=provider.url)
    bench.publisher.set_metadata(bench.publisher.changed(asset, name="New and early"))
    bench.aquarius.wait_for(asset, "New and early")
    provider.start()
    wait_until(
        lambda: not bench.aquarius.get("/state/retryQueue", did=asset.did).json()["hits"]["hits"],
        "the old event is done",
    )
    found = bench.aquarius.ddo(asset.did)
    assert found is not None
    assert found["metadata"]["name"] == "New and early"


def test_unauthorised_decrypter_is_refused_for_good(bench: Bench, tmp_path: Path) -> None:
    strict = ProviderProcess(tmp_path, bench, AUTHORIZED_DECRYPTERS=f'["{accounts.BOB.address}"]')
    strict.start()
    try:
        asset = bench.publisher.create("Not for us")
        publish(bench, asset, strict, 3)
        bench.aquarius.wait_for_head(bench.chain)
        assert bench.aquarius.ddo(asset.did) is None
        assert bench.aquarius.state_of(asset)["error"].startswith("403, response=")
        assert bench.aquarius.get("/state/retryQueue", did=asset.did).json()["hits"]["hits"] == []
    finally:
        strict.stop()


def test_request_to_the_provider_is_upstreams(bench: Bench) -> None:
    with running_cupboard() as cupboard:
        asset = bench.publisher.create("Seen in the cupboard")
        cupboard.put(DECRYPT, compact(asset.ddo), "POST", status=201)
        receipt = bench.publisher.set_metadata(asset, flags=2, data=b"any", url=cupboard.url + "/")
        bench.aquarius.wait_for(asset, "Seen in the cupboard")
        (request,) = cupboard.requests("POST", DECRYPT)
    payload = request.json
    nonce, signature = payload.pop("nonce"), payload.pop("signature")
    aquarius = accounts.AQUARIUS.address
    assert payload == {
        "transactionId": receipt["transactionHash"],
        "chainId": CHAIN_ID,
        "decrypterAddress": aquarius,
        "dataNftAddress": asset.nft,
    }
    message = f"{receipt['transactionHash']}{aquarius}{CHAIN_ID}{nonce}"
    assert signer_of(message, signature) == aquarius
    assert nonce.isdigit()


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"another document", 201, "Hash check failed"),
        (b'{"error": "no"}', 400, "Provider exception on decrypt DDO. Status:400"),
        (b"", 503, "Provider exception on decrypt DDO. Status:503"),
        (b"a" * 9_000_000, 201, "answers more than"),
    ],
)
def test_provider_that_answers_nonsense_is_asked_again(
    bench: Bench, body: bytes, status: int, error: str
) -> None:
    with running_cupboard() as cupboard:
        asset = bench.publisher.create("Answered with nonsense")
        cupboard.put(DECRYPT, body, "POST", status=status)
        bench.publisher.set_metadata(asset, flags=2, data=b"any", url=cupboard.url)
        wait_until(lambda: error in str(bench.aquarius.state_of(asset).get("error")), "the state says why")
        assert bench.aquarius.ddo(asset.did) is None
        assert bench.aquarius.get("/state/retryQueue", did=asset.did).json()["hits"]["total"]["value"] == 1


def test_provider_that_never_answers_holds_up_nobody(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for number in range(8):
            hangs = bench.publisher.create(f"Hangs {number}")
            bench.publisher.set_metadata(hangs, flags=2, data=b"any", url=url)
        plain = bench.publisher.publish("Goes on")
        # One after the other, each with upstream's four seconds, they would take more than this.
        wait_until(lambda: bench.aquarius.ddo(plain.did), "the other asset is indexed", timeout=25)


@pytest.mark.parametrize(
    "url", ["", "no url", "http://", "ftp://127.0.0.1", "http://127.0.0.1:99999", "http://[::"]
)
def test_url_that_is_none_is_survived(bench: Bench, url: str) -> None:
    asset = bench.publisher.create("Nowhere")
    bench.publisher.set_metadata(asset, flags=2, data=b"any", url=url)
    bench.aquarius.wait_for_head(bench.chain)
    assert "Failed to get a response for decrypt DDO" in bench.aquarius.state_of(asset)["error"]


def test_validators_and_publishers_can_be_restricted(tmp_path: Path) -> None:
    restricted = {
        "ALLOWED_VALIDATORS": f'["{accounts.AQUARIUS.address.lower()}"]',
        "ALLOWED_PUBLISHERS": f'["{accounts.ALICE.address}"]',
    }
    with running_bench(tmp_path, **restricted) as bench:
        unproven = bench.publisher.publish("Unproven")
        bench.aquarius.wait_for_head(bench.chain)
        assert bench.aquarius.ddo(unproven.did) is None
        assert bench.aquarius.state_of(unproven)["error"] == "Failed to validate metadata_proofs"

        def proofs_of(document: bytes) -> list[tuple[Any, ...]]:
            proof = bench.aquarius.http.post(
                "/api/aquarius/assets/ddo/validate",
                content=document,
                headers={"content-type": "application/octet-stream"},
            ).json()
            r, s = (bytes.fromhex(proof[part][0][2:]) for part in "rs")
            return [(proof["publicKey"], proof["v"], r, s)]

        asset = bench.publisher.create("Proven")
        bench.publisher.set_metadata(asset, proofs=proofs_of(compact(asset.ddo)))
        bench.aquarius.wait_for(asset, "Proven")

        bobs = bench.publisher.create("Bob's")
        bench.publisher.send(bobs.nft, "ERC721Template", "addToMetadataList", accounts.BOB.address)
        bench.publisher.set_metadata(bobs, proofs=proofs_of(compact(bobs.ddo)), sender=accounts.BOB.address)
        bench.aquarius.wait_for_head(bench.chain)
        assert bench.aquarius.ddo(bobs.did) is None
        error = f"Sender {accounts.BOB.address} is not in ALLOWED_PUBLISHERS."
        assert bench.aquarius.state_of(bobs)["error"] == error
