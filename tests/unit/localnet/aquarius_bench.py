"""Aquarius in a process of its own on a real chain, and a publisher that puts assets on that chain."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import lzma
import os
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from include.localnet import accounts
from include.localnet.contracts import ensure_deployed
from include.localnet.ethereum import ZERO_ADDRESS, Chain, did_of, encode_call
from include.localnet.processes import ProcessTable
from include.localnet.settings import CHAIN_ID, choose_ports
from tests.support.anvil import running_anvil
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALICE = accounts.ALICE.address
BOB = accounts.BOB.address
NOBODY = "http://127.0.0.1:9"  # the discard port: no Provider there


def ddo(nft: str, datatoken: str, name: str = "Branin", **metadata: Any) -> dict[str, Any]:
    """Return a valid DDO."""
    return {
        "@context": ["https://w3id.org/did/v1"],
        "id": did_of(nft, CHAIN_ID),
        "version": "4.1.0",
        "chainId": CHAIN_ID,
        "nftAddress": nft,
        "metadata": {
            "created": "2024-05-01T10:00:00",
            "updated": "2024-05-01T10:00:00",
            "name": name,
            "description": f"The description of {name}",
            "type": "dataset",
            "author": "Alice",
            "license": "CC0: PublicDomain",
            **metadata,
        },
        "services": [
            {
                "id": "0",
                "type": "access",
                "files": "0xabcdef",
                "datatokenAddress": datatoken,
                "serviceEndpoint": "http://127.0.0.1:8030",
                "timeout": 3600,
            }
        ],
        "credentials": {"allow": [], "deny": []},
    }


def compact(document: dict[str, Any]) -> bytes:
    """Return a document's JSON as Ocean's clients publish it."""
    return json.dumps(document, separators=(",", ":")).encode()


@dataclass
class Asset:
    """A data NFT with a datatoken and its DDO."""

    nft: str
    datatoken: str
    ddo: dict[str, Any]

    @property
    def did(self) -> str:
        return str(self.ddo["id"])


class Publisher:
    """Sends transactions as Alice; anvil holds the key."""

    def __init__(self, chain: Chain, addresses: dict[str, Any]) -> None:
        self.chain = chain
        self.addresses = addresses

    def send(
        self, to: str, contract: str, function: str, *arguments: Any, sender: str = ALICE
    ) -> dict[str, Any]:
        """Send a transaction and return its receipt."""
        fields = {
            "from": sender,
            "to": to,
            "data": encode_call(contract, function, *arguments),
            "gas": hex(5_000_000),
        }
        receipt = self.mined(fields)
        assert receipt["status"] == "0x1", f"{function} reverted"
        return receipt

    def mined(self, fields: dict[str, str]) -> dict[str, Any]:
        """Send a transaction of any kind and return its receipt."""
        transaction = self.chain.request("eth_sendTransaction", fields)
        found = wait_until(lambda: self.chain.receipt(transaction), f"transaction {transaction} is mined")
        assert found is not None
        return found

    def create(self, name: str = "Branin", template: int = 1, **metadata: Any) -> Asset:
        """Deploy NFT and datatoken, without metadata."""
        factory = self.addresses["ERC721Factory"]
        receipt = self.send(
            factory, "ERC721Factory", "deployERC721Contract",
            name, "NFT", 1, ZERO_ADDRESS, ZERO_ADDRESS, "https://example.org/nft.json", True, ALICE,
        )  # fmt: skip
        nft = self.chain.events_of(receipt, "ERC721Factory", "NFTCreated")[0].arguments["newTokenAddress"]
        cap = 2**256 - 1 if template == 1 else 100 * 10**18
        receipt = self.send(
            nft, "ERC721Template", "createERC20",
            template, [f"{name} token", "DT1"], [ALICE, ALICE, ZERO_ADDRESS, ZERO_ADDRESS], [cap, 0], [],
        )  # fmt: skip
        token = self.chain.events_of(receipt, "ERC721Template", "TokenCreated")[0].arguments[
            "newTokenAddress"
        ]
        return Asset(nft, token, ddo(nft, token, name, **metadata))

    def set_metadata(
        self,
        asset: Asset,
        *,
        flags: int = 0,
        state: int = 0,
        data: bytes | None = None,
        digest: bytes | None = None,
        url: str = NOBODY,
        proofs: list[tuple[Any, ...]] | None = None,
        sender: str = ALICE,
    ) -> dict[str, Any]:
        """Publish an asset's DDO as it is now."""
        document = compact(asset.ddo)
        if data is None:
            data = lzma.compress(document) if flags & 1 else document
        digest = hashlib.sha256(document).digest() if digest is None else digest
        return self.send(
            asset.nft, "ERC721Template", "setMetaData",
            state, url, "0x123", bytes([flags]), data, digest, proofs or [],
            sender=sender,
        )  # fmt: skip

    def publish(self, name: str = "Branin", flags: int = 0, **metadata: Any) -> Asset:
        """Deploy and publish an asset."""
        asset = self.create(name, **metadata)
        self.set_metadata(asset, flags=flags)
        return asset

    def changed(self, asset: Asset, **metadata: Any) -> Asset:
        """Return the asset with other metadata."""
        document = copy.deepcopy(asset.ddo)
        document["metadata"].update(metadata)
        return Asset(asset.nft, asset.datatoken, document)

    def order(self, asset: Asset) -> dict[str, Any]:
        """Order an asset's first service, with a datatoken minted for it."""
        fee = (ZERO_ADDRESS, ZERO_ADDRESS, 0, 27, bytes(32), bytes(32), 0, b"")
        market_fee = (ZERO_ADDRESS, ZERO_ADDRESS, 0)
        self.send(asset.datatoken, "ERC20Template", "mint", ALICE, 10**18)
        provider_fee = self._signed_fee(fee)
        return self.send(asset.datatoken, "ERC20Template", "startOrder", BOB, 0, provider_fee, market_fee)

    @staticmethod
    def _signed_fee(fee: tuple[Any, ...]) -> tuple[Any, ...]:
        from eth_account import Account
        from eth_account.messages import encode_defunct
        from eth_utils import keccak

        data, valid_until, address = fee[7], fee[6], accounts.PROVIDER.address
        packed = data + bytes.fromhex(address[2:]) + bytes(20) + bytes(32) + valid_until.to_bytes(32, "big")
        signed = Account.sign_message(encode_defunct(keccak(packed)), accounts.PROVIDER.private_key)
        return (
            address, ZERO_ADDRESS, 0, signed.v,
            signed.r.to_bytes(32, "big"), signed.s.to_bytes(32, "big"), valid_until, data,
        )  # fmt: skip


class Service:
    """An Aquarius process.

    :param home: folder of its state and log
    """

    def __init__(self, home: Path, rpc_url: str, address_file: Path, **environment: str) -> None:
        self._table = ProcessTable(home)
        self._port = choose_ports(0)["aquarius"]
        self.url = f"http://127.0.0.1:{self._port}"
        self.http = httpx.Client(base_url=self.url, timeout=30, trust_env=False)
        self._environment = {
            "HOST": "127.0.0.1",
            "PORT": str(self._port),
            "STATE_DIR": str(home / "state"),
            "RPC_URL": rpc_url,
            "ADDRESS_FILE": str(address_file),
            "PRIVATE_KEY": accounts.AQUARIUS.private_key,
            **environment,
        }

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [sys.executable, "-m", "include.localnet.aquarius"]
        self._table.start("aquarius", command, self._environment)
        wait_until(lambda: self._table.running("aquarius") is None or self._answers(), "Aquarius answers")
        assert self._table.running("aquarius"), self.log

    def _answers(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return self.http.get("/").status_code == 200
        return False

    def kill(self) -> None:
        """SIGKILL."""
        record = self._table.running("aquarius")
        assert record is not None, self.log
        os.kill(record.pid, signal.SIGKILL)
        wait_until(lambda: self._table.running("aquarius") is None, "Aquarius is dead")

    def stop(self) -> None:
        """SIGTERM."""
        self._table.stop(["aquarius"])

    @property
    def pid(self) -> int:
        record = self._table.running("aquarius")
        assert record is not None
        return record.pid

    @property
    def log(self) -> str:
        return self._table.end_of_log("aquarius", 200)

    # --- what it answers -------------------------------------------------------------------------

    def get(self, path: str, **query: Any) -> httpx.Response:
        return self.http.get(f"/api/aquarius{path}", params=query or None)

    def post(self, path: str, payload: Any) -> httpx.Response:
        return self.http.post(f"/api/aquarius{path}", json=payload)

    def ddo(self, did: str) -> dict[str, Any] | None:
        """Return an indexed DDO."""
        response = self.get(f"/assets/ddo/{did}")
        return response.json() if response.status_code == 200 else None

    def search(self, query: Any = None, **more: Any) -> list[dict[str, Any]]:
        """Return the documents a query finds."""
        response = self.post("/assets/query", {**({"query": query} if query is not None else {}), **more})
        assert response.status_code == 200, response.text
        return [hit["_source"] for hit in response.json()["hits"]["hits"]]

    def state_of(self, asset: Asset) -> dict[str, Any]:
        """Return what Aquarius says came of an asset's last metadata."""
        response = self.get("/state/ddo", did=asset.did)
        return response.json() if response.status_code == 200 else {}

    # --- waiting ---------------------------------------------------------------------------------

    def wait_for_head(self, chain: Chain) -> None:
        """Wait until everything up to the newest block is indexed."""
        head = chain.block_number()
        wait_until(lambda: self._last_block() >= head, f"block {head} is indexed")

    def _last_block(self) -> int:
        status = self.get(f"/chains/status/{CHAIN_ID}")
        return int(status.json()["last_block"]) if status.status_code == 200 else -1

    def wait_for(self, asset: Asset, name: str) -> dict[str, Any]:
        """Wait until an asset is indexed under a name; return its document."""

        def indexed() -> dict[str, Any] | None:
            found = self.ddo(asset.did)
            return found if found and found.get("metadata", {}).get("name") == name else None

        return wait_until(indexed, f"{asset.did} is indexed as {name}")  # type: ignore[return-value]


@dataclass
class Bench:
    """A chain with Ocean's contracts, a publisher, and an Aquarius that runs."""

    chain: Chain
    address_file: Path
    publisher: Publisher
    aquarius: Service


@contextlib.contextmanager
def running_bench(home: Path, **environment: str) -> Iterator[Bench]:
    """Run chain and Aquarius until the block ends."""
    with running_anvil(home / "chain") as chain:
        address_file = home / "address.json"
        addresses = ensure_deployed(chain, address_file)
        service = Service(home / "aquarius", chain.rpc_url, address_file, **environment)
        service.start()
        try:
            yield Bench(chain, address_file, Publisher(chain, addresses), service)
        finally:
            service.stop()
            service.http.close()
