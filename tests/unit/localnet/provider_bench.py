"""A Provider on a real chain with real contracts, and a cupboard in place of its other neighbours.

The cupboard stands where Aquarius, the operator-service and the files' server are: the tests put in what those hold, and
see in it what the Provider sends, to the byte. The whole network, with all its real parts, is in ``test_provider_flow.py``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import uvicorn

from include.localnet import accounts
from include.localnet.contracts import ensure_deployed
from include.localnet.ethereum import ZERO_ADDRESS, Chain, did_of, encode_call, sign_message
from include.localnet.provider.app import build_app
from include.localnet.provider.configuration import Configuration, FileSettings
from include.localnet.settings import choose_ports
from tests.support.anvil import running_anvil
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERVICES = "/api/services"
FREE, PAID = "free-environment", "paid-environment"
PRICE_PER_MINUTE = 2.5
CONTAINER = {
    "entrypoint": "python $ALGO",
    "image": "oceanprotocol/algo_dockers",
    "tag": "python-branin",
    "checksum": "sha256:8221d20c1c16491d7d56b9657ea09082c0ee4a8ab1a6621fa720da58b09580e4",
}


@dataclass
class Seen:
    """A request that reached the cupboard."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Reply:
    """What the cupboard answers at a path."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "text/plain"})


class Cupboard(ThreadingHTTPServer):
    """Aquarius' assets, the operator-service's answers, and files."""

    daemon_threads = True

    def __init__(self) -> None:
        self.replies: dict[tuple[str, str], Reply] = {}
        self.seen: list[Seen] = []
        super().__init__(("127.0.0.1", 0), _CupboardHandler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of readers that hang up before the end: the Provider does when it has seen enough."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def put(self, path: str, body: Any, method: str = "GET", status: int = 200, **headers: str) -> str:
        """Put an answer in and return its URL."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.replies[method, path] = Reply(raw, status, named or {"Content-Type": "text/plain"})
        return self.url + path

    def requests(self, method: str, path: str) -> list[Seen]:
        """Return what came in at a path, oldest first."""
        return [seen for seen in self.seen if (seen.method, seen.path) == (method, path)]


class _CupboardHandler(BaseHTTPRequestHandler):
    server: Cupboard
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.server.seen.append(Seen(self.command, parts.path, query, dict(self.headers), body))
        reply = self.server.replies.get((self.command, parts.path), Reply(b"nothing here", 404))
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    do_GET = do_POST = do_PUT = do_DELETE = _answer

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""


@contextlib.contextmanager
def running_cupboard() -> Iterator[Cupboard]:
    """Serve a cupboard until the block ends."""
    cupboard = Cupboard()
    threading.Thread(target=cupboard.serve_forever, daemon=True).start()
    try:
        yield cupboard
    finally:
        cupboard.shutdown()
        cupboard.server_close()


@contextlib.contextmanager
def running_provider(configuration: Configuration) -> Iterator[str]:
    """Serve a Provider until the block ends; yields its URL."""
    port = choose_ports(0)["provider"]
    server = uvicorn.Server(
        uvicorn.Config(
            build_app(configuration),
            host="127.0.0.1",
            port=port,
            log_config=None,
            timeout_graceful_shutdown=1,
        )
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started or not thread.is_alive(), "the Provider listens")
    assert server.started
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@dataclass
class Published:
    """An asset of the bench: on the chain, and in the cupboard as its DDO."""

    ddo: dict[str, Any]
    token: str

    @property
    def did(self) -> str:
        return str(self.ddo["id"])

    def reference(self, service: str, transaction: str | None = None, **more: Any) -> dict[str, Any]:
        """Return the asset as a compute request names it."""
        order = {"transferTxId": transaction} if transaction else {}
        return {"documentId": self.did, "serviceId": service, **order, **more}


class Bench:
    """A Provider under test and everything to use it with."""

    def __init__(self, chain: Chain, cupboard: Cupboard, configuration: Configuration, url: str) -> None:
        self.chain = chain
        self.cupboard = cupboard
        self.configuration = configuration
        self.url = url
        self.http = httpx.Client(base_url=url + SERVICES, timeout=30)
        self.addresses = json.loads(configuration.address_file.read_text())["development"]
        self._nonce = time.time_ns()

    @contextlib.contextmanager
    def another_provider(self, name: str, **changes: Any) -> Iterator[httpx.Client]:
        """Run a second Provider with some settings changed."""
        state = self.configuration.state.parent / name
        changed = dataclasses.replace(self.configuration, state=state, **changes)
        with (
            running_provider(changed) as url,
            httpx.Client(base_url=url + SERVICES, timeout=30) as client,
        ):
            yield client

    # --- requests -----------------------------------------------------------------------------------------------

    def nonce(self) -> int:
        """Return a nonce above all before."""
        self._nonce += 1
        return self._nonce

    def signed(self, account: accounts.Account, message: str) -> dict[str, Any]:
        """Return nonce and signature for a message."""
        nonce = self.nonce()
        return {"nonce": nonce, "signature": sign_message(f"{message}{nonce}", account.private_key)}

    # --- the chain ----------------------------------------------------------------------------------------------

    def transact(
        self, sender: accounts.Account, to: str, contract: str, function: str, *arguments: Any
    ) -> str:
        """Send a transaction from one of anvil's accounts and return its hash, mined."""
        call = {"from": sender.address, "to": to, "data": encode_call(contract, function, *arguments)}
        transaction: str = self.chain.request("eth_sendTransaction", {**call, "gas": hex(5_000_000)})
        receipt = wait_until(lambda: self.chain.receipt(transaction), f"{function} is mined")
        assert int(receipt["status"], 16) == 1, f"{function} reverted"
        return transaction

    def create_nft(self) -> tuple[str, str]:
        """Create a data NFT with a datatoken, of which Bob and the compute environment get fifty each."""
        alice = accounts.ALICE
        fifty = 50 * 10**18
        transaction = self.transact(
            alice,
            self.addresses["ERC721Factory"],
            "ERC721Factory",
            "createNftWithErc20",
            ("Data", "D", 1, "", True, alice.address),
            (
                1,
                ["Token", "T"],
                [alice.address, alice.address, ZERO_ADDRESS, ZERO_ADDRESS],
                [1000 * 10**18, 0],
                [],
            ),
        )
        receipt = self.chain.receipt(transaction) or {}
        created = self.chain.events_of(receipt, "ERC721Factory", "NFTCreated")[0]
        token = self.chain.events_of(receipt, "ERC721Factory", "TokenCreated")[0].arguments["newTokenAddress"]
        for account in (accounts.BOB, accounts.COMPUTE):
            self.transact(alice, token, "ERC20Template", "mint", account.address, fifty)
        return created.arguments["newTokenAddress"], token

    def set_metadata(self, nft: str, data: bytes, flags: int, digest: bytes, state: int = 0) -> str:
        """Write metadata on the chain and return the transaction."""
        return self.transact(
            accounts.ALICE,
            nft,
            "ERC721Template",
            "setMetaData",
            state,
            self.url,
            accounts.ALICE.address,
            bytes([flags]),
            data,
            digest,
            [],
        )

    # --- assets -------------------------------------------------------------------------------------------------

    def encrypt(self, content: Any) -> str:
        """Have the Provider encrypt a JSON value."""
        answer = self.http.post(
            "/encrypt",
            params={"chainId": 8996},
            content=content if isinstance(content, bytes) else json.dumps(content).encode(),
            headers={"Content-Type": "application/octet-stream"},
        )
        assert answer.status_code == 201, answer.text
        return answer.text

    def publish(
        self,
        files: list[dict[str, Any]],
        kind: str = "dataset",
        compute: dict[str, Any] | None = None,
        timeout: int = 3600,
        **ddo: Any,
    ) -> Published:
        """Publish an asset with an access service "access" and a compute service "compute".

        :param ddo: parts of the DDO that differ from the usual
        """
        nft, token = self.create_nft()
        secret = self.encrypt({"datatokenAddress": token, "nftAddress": nft, "files": files})
        service = {
            "datatokenAddress": token,
            "serviceEndpoint": self.url,
            "files": secret,
            "timeout": timeout,
        }
        content: dict[str, Any] = {
            "@context": ["https://w3id.org/did/v1"],
            "id": did_of(nft, 8996),
            "version": "4.1.0",
            "chainId": 8996,
            "nftAddress": nft,
            "metadata": {"type": kind, "name": "x"},
            "services": [
                {**service, "id": "access", "type": "access"},
                {**service, "id": "compute", "type": "compute", "compute": compute or {}},
            ],
            "credentials": {"allow": [], "deny": []},
            "nft": {"address": nft, "owner": accounts.ALICE.address, "state": 0},
        }
        if kind == "algorithm":
            content["metadata"]["algorithm"] = {"language": "py", "version": "1", "container": CONTAINER}
        content.update(ddo)
        published = Published(content, token)
        self.index(published)
        return published

    def index(self, published: Published) -> None:
        """Put an asset's DDO, as it is now, where Aquarius is."""
        self.cupboard.put(f"/api/aquarius/assets/ddo/{published.did}", published.ddo)

    def order(
        self,
        published: Published,
        fee: dict[str, Any],
        service: int,
        consumer: accounts.Account = accounts.COMPUTE,
        payer: accounts.Account = accounts.BOB,
        token: str | None = None,
    ) -> str:
        """Order a service with a quoted fee, approving its amount, and return the transaction."""
        token = token or published.token
        amount = int(fee["providerFeeAmount"])
        if amount:
            self.transact(payer, fee["providerFeeToken"], "ERC20Template", "approve", token, amount)
        no_market = (ZERO_ADDRESS, ZERO_ADDRESS, 0)
        return self.transact(
            payer,
            token,
            "ERC20Template",
            "startOrder",
            consumer.address,
            service,
            fee_tuple(fee),
            no_market,
        )

    def reuse(self, published: Published, order: str, fee: dict[str, Any]) -> str:
        """Reuse an order with a new fee and return the transaction."""
        amount = int(fee["providerFeeAmount"])
        if amount:
            self.transact(
                accounts.BOB, fee["providerFeeToken"], "ERC20Template", "approve", published.token, amount
            )
        return self.transact(
            accounts.BOB,
            published.token,
            "ERC20Template",
            "reuseOrder",
            bytes.fromhex(order[2:]),
            fee_tuple(fee),
        )


def fee_tuple(fee: dict[str, Any]) -> tuple[Any, ...]:
    """Return a quoted fee in the contracts' form."""
    return (
        fee["providerFeeAddress"],
        fee["providerFeeToken"],
        int(fee["providerFeeAmount"]),
        fee["v"],
        bytes.fromhex(fee["r"][2:]),
        bytes.fromhex(fee["s"][2:]),
        fee["validUntil"],
        bytes.fromhex(fee["providerData"][2:]),
    )


def environments() -> list[dict[str, Any]]:
    """Return a free and a paid environment as an operator-service lists them."""
    common = {"consumerAddress": accounts.COMPUTE.address, "maxJobDuration": 3600}
    return [
        {**common, "id": FREE, "priceMin": 0},
        {**common, "id": PAID, "priceMin": PRICE_PER_MINUTE},
    ]


@contextlib.contextmanager
def running_bench(home: Path) -> Iterator[Bench]:
    """Run chain, cupboard and Provider until the block ends."""
    with running_anvil(home) as chain, running_cupboard() as cupboard:
        address_file = home / "address.json"
        ensure_deployed(chain, address_file)
        cupboard.put("/api/v1/operator/environments", environments())
        configuration = Configuration(
            rpc_url=chain.rpc_url,
            address_file=address_file,
            private_key=accounts.PROVIDER.private_key,
            aquarius_url=cupboard.url,
            operator_service_url=cupboard.url,
            files=FileSettings(request_timeout=5),
            state=home / "provider",
        )
        with running_provider(configuration) as url:
            yield Bench(chain, cupboard, configuration, url)
