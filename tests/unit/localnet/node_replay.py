"""Plays the recorded exchanges against a local node, in their order and signed anew, on a stage that is set as theirs was."""

from __future__ import annotations

import base64
import contextlib
import copy
import dataclasses
import hashlib
import json
import time
from typing import TYPE_CHECKING, Any

from include.localnet import accounts
from include.localnet.contracts import ensure_deployed
from include.localnet.ethereum import ZERO_ADDRESS, Chain, did_of
from include.localnet.settings import CHAIN_ID
from tests.support import ocean_node as recording
from tests.support.anvil import running_anvil
from tests.support.waiting import wait_until
from tests.unit.localnet.aquarius_bench import Asset, Publisher
from tests.unit.localnet.node_bench import COMMANDS, Gate, NodeProcess, Wallet, file_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx

    from tests.support.ocean_node import Exchange

# The recorded algorithms count to five in seconds.
TICK = "0.5"
# Payments are claimed soon after a start, and then not for longer than a replay takes.
CLAIM_ONCE = {"PAYMENT_CLAIM_INTERVAL": "36000"}
UNTRUSTED_SH = (
    '#!/bin/sh\necho "hello from algo, uid $(id -u)"\nls -R /data\nmkdir -p /data/outputs\n'
    "for f in /data/inputs/*; do wc $f; done > /data/outputs/result.txt\ncat /data/outputs/result.txt\n"
)
BOB, ALICE, NODE = accounts.BOB.address, accounts.ALICE.address, accounts.NODE.address
OCEANS = 20 * 10**18
# What was ordered for whom before which exchange: the asset, the order's name, the consumer.
ORDERED_BEFORE = {
    ("initializeCompute-valid-orders", "valid orders"): (
        ("data", "data", NODE),
        ("algo", "algo", NODE),
        ("data", "data, wrong consumer", BOB),
    ),
    ("paid-start-errors", "algorithm not trusted (valid order)"): (
        ("algo-untrusted", "algo-untrusted", NODE),
    ),
    ("download", "good"): (("algo-untrusted", "algo-untrusted, download", BOB),),
    ("paid-failing-exit3", "start"): (("data-raw-allowed", "data-raw-allowed", NODE),),
}


@dataclasses.dataclass
class Played:
    """An exchange, and what the local node answered to it.

    :param expected: the recorded answer with the local network's names in it
    """

    exchange: Exchange
    expected: Any
    status: int
    headers: dict[str, str]
    content: bytes


class Stage:
    """The chain's side of the recording, and the translation of its names into the local ones."""

    def __init__(self, chain: Chain, addresses: dict[str, Any], files: list[str], url: str) -> None:
        self.chain, self.addresses = chain, addresses
        self.publisher = Publisher(chain, addresses)
        self.url = url
        self.names = {
            recording.NODE: NODE,
            recording.PUBLISHER: ALICE,
            recording.CONSUMER: BOB,
            recording.OCEAN: addresses["Ocean"],
            recording.ESCROW: addresses["Escrow"],
            recording.URL: url,
            **dict(zip(recording.FILES, files, strict=True)),
            "; sleep 1;": f"; sleep {TICK};",
        }
        self.assets: dict[str, Asset] = {}
        self.published = ""

    def learn(self, recorded: str, local: str) -> None:
        """Remember what something is called here; addresses in lower case, too."""
        self.names[recorded] = local
        if len(recorded) == 42:
            self.names[recorded.lower()] = local.lower()

    def translated(self, value: Any) -> Any:
        """Return a JSON value with the local names in it."""
        text = json.dumps(value)
        for recorded, local in self.names.items():
            text = text.replace(json.dumps(recorded)[1:-1], json.dumps(local)[1:-1])
        return json.loads(text)

    def make_asset(self, name: str, did: str, nft: str, datatoken: str) -> None:
        """Deploy NFT and datatoken of a recorded asset."""
        asset = self.publisher.create(name)
        for recorded, local in ((did, did_of(asset.nft, CHAIN_ID)), (nft, asset.nft)):
            self.learn(recorded, local)
        self.learn(datatoken, asset.datatoken)
        self.assets[name] = asset

    def publish(self, name: str, ddo: dict[str, Any], cipher: str) -> None:
        """Send the transaction that publishes a DDO."""
        content = json.dumps(ddo, separators=(",", ":")).encode()
        receipt = self.publisher.send(
            self.assets[name].nft, "ERC721Template", "setMetaData",
            0, self.url, NODE, bytes([2]), bytes.fromhex(cipher[2:]), hashlib.sha256(content).digest(), [],
        )  # fmt: skip
        self.published = receipt["transactionHash"]

    def order(self, name: str, order: str, consumer: str, fee: dict[str, Any]) -> None:
        """Order an asset for a consumer, paid by Bob."""
        token = self.assets[name].datatoken
        self.publisher.send(token, "ERC20Template", "mint", BOB, 10**18)
        numbers = [bytes.fromhex(fee[part][2:]) for part in ("r", "s", "providerData")]
        provider_fee = (
            fee["providerFeeAddress"], fee["providerFeeToken"], int(fee["providerFeeAmount"]),
            fee["v"], numbers[0], numbers[1], fee["validUntil"], numbers[2],
        )  # fmt: skip
        market_fee = (ZERO_ADDRESS, ZERO_ADDRESS, 0)
        receipt = self.publisher.send(
            token, "ERC20Template", "startOrder", consumer, 0, provider_fee, market_fee, sender=BOB
        )
        self.learn(recording.ORDERS[order], receipt["transactionHash"])

    def deposit(self) -> None:
        """Pay into the escrow."""
        ocean, escrow = self.addresses["Ocean"], self.addresses["Escrow"]
        self.publisher.send(ocean, "ERC20Template", "approve", escrow, OCEANS, sender=BOB)
        self.publisher.send(escrow, "Escrow", "deposit", ocean, OCEANS, sender=BOB)

    def authorize(self, seconds: int) -> None:
        """Let the node lock for so long."""
        self.publisher.send(
            self.addresses["Escrow"], "Escrow", "authorize",
            self.addresses["Ocean"], NODE, OCEANS, seconds, 10,
            sender=BOB,
        )  # fmt: skip


def environment_variables(exchanges: list[Exchange]) -> dict[str, str]:
    """Return the settings of the recorded node."""
    listed = next(e for e in exchanges if e.scenario == "computeEnvironments").answer
    assert listed is not None
    announced = copy.deepcopy(listed.value[0])
    free = {key: announced["free"][key] for key in ("minJobDuration", "maxJobDuration", "maxJobs")}
    for resource in (*announced["resources"], *announced["free"]["resources"]):
        del resource["inUse"]
    settings = {
        key: announced[key] for key in ("storageExpiry", "minJobDuration", "maxJobDuration", "resources")
    }
    settings["prices"] = announced["fees"][str(CHAIN_ID)][0]["prices"]
    settings["free"] = {**free, "resources": announced["free"]["resources"]}
    return {
        "DOCKER_COMPUTE_ENVIRONMENTS": json.dumps(settings),
        "UNKNOWN_IMAGES": "localhost:15055/none:v1",
        "INDEXER_INTERVAL": "200",
    }


class Replay:
    """Plays one exchange after the other."""

    def __init__(self, stage: Stage, node: NodeProcess, limited: NodeProcess, gate: Gate) -> None:
        self.stage, self.node, self.limited, self.gate = stage, node, limited, gate
        self.wallets = {
            wallet.address: wallet for wallet in map(Wallet, (accounts.BOB, accounts.ALICE, accounts.NODE))
        }
        self._fees: dict[str, dict[str, Any]] = {}
        self._ciphers: list[str] = []
        self._ddo: dict[str, Any] = {}
        self._ended: set[str] = set()

    # --- one exchange ----------------------------------------------------------------------------

    def play(self, exchange: Exchange) -> Played:
        """Set the stage, send the request, remember what follows from its answer."""
        self._before(exchange)
        response = self._sent(exchange)
        self._after(exchange, response)
        expected = exchange.answer.value if exchange.answer else None
        if exchange.answer and exchange.answer.kind != "base64":
            expected = self.stage.translated(expected)
        return Played(exchange, expected, response.status_code, dict(response.headers), response.content)

    def _sent(self, exchange: Exchange) -> httpx.Response:
        node = self.limited if exchange.scenario == "rate-limit" else self.node
        query = self.stage.translated(exchange.query)
        headers = self.stage.translated(exchange.headers)
        body = exchange.body
        content: Any = None
        if body is not None:
            content = self.stage.translated(body.value) if body.kind == "json" else None
        key = (exchange.method, exchange.path)
        signed = content if exchange.method == "POST" and key[1] != "/api/services/encrypt" else query
        if isinstance(signed, dict) and "signature" in signed:
            self._sign(exchange, COMMANDS.get(key, "delete"), signed)
        data = None
        if body is not None:
            compact = json.dumps(content, separators=(",", ":")).encode()
            data = compact if body.kind == "json" else body.content
        path = self.stage.translated(exchange.path)
        if exchange.case == "status poll" and exchange.status == 200:
            assert exchange.answer
            return self._polled(exchange.answer.value[0], query)
        return node.http.request(exchange.method, path, params=query or None, content=data, headers=headers)

    def _polled(self, recorded: dict[str, Any], query: dict[str, str]) -> httpx.Response:
        """Ask for a job's status until it is what was recorded, or has passed it."""

        def reached() -> httpx.Response | None:
            response = self.node.http.get("/api/services/compute", params=query)
            status = response.json()[0]["status"]
            # 71 comes before 70, and what is passed by is not seen.
            later = {2, 31, 70, 71} if recorded["status"] not in (2, 31, 70, 71) else {recorded["status"]}
            return response if status >= recorded["status"] or status in later else None

        found = wait_until(reached, f"a job has the status {recorded['status']} or a later one", 120)
        assert found is not None
        return found

    def _sign(self, exchange: Exchange, command: str, fields: dict[str, Any]) -> None:
        """Put a nonce and a signature in, which are as right or as wrong as the recorded ones."""
        name = next(
            key
            for key in ("consumerAddress", "publisherAddress", "decrypterAddress", "address")
            if key in fields
        )
        wallet = self.wallets[fields[name]]
        case, other = exchange.case, next(w for w in self.wallets.values() if w is not wallet)
        zero = (
            case.startswith("hash starts with byte 00") or exchange.status == 401 and case == "result output"
        )
        nonce = wallet.next_nonce(command, leading_zero=zero)
        signature = _signature(wallet, other, case, command, nonce, fields)
        if case in ("replayed nonce", "bad nonce (reused)"):
            nonce = wallet.nonce
        elif case == "bad nonce (0)":
            nonce = 0
        elif case == "bad nonce (signature for another)":
            nonce += 1
        fields |= {"nonce": str(nonce), "signature": signature}

    # --- what is around it -----------------------------------------------------------------------

    def _before(self, exchange: Exchange) -> None:
        key = (exchange.scenario, exchange.case)
        for name, order, consumer in ORDERED_BEFORE.get(key, ()):
            self.stage.order(name, order, consumer, self._fees[name])
        if key in (("paid-job", "good"), ("free-errors", "not trusted algorithm on DDO data set")):
            self.gate.open.clear()  # so that the job does not get ahead
        elif exchange.id in (220, 287, 334):
            self._settle()
        elif exchange.path.endswith("/decrypt"):
            assert exchange.body
            self.stage.learn(exchange.body.value["transactionId"], self.stage.published)
        elif key == ("rate-limit", "request 1, limit 5 per minute"):
            self.limited.start()
        if exchange.case == "status poll" or (exchange.method, exchange.status) != ("POST", 200):
            return
        if exchange.path.endswith(("/compute", "/freeCompute")) and exchange.answer.value[0]["status"] == 10:  # type: ignore[union-attr]
            wait_until(lambda: self.node.environment()["runningJobs"] == 0, "no job runs")

    def _after(self, exchange: Exchange, response: httpx.Response) -> None:
        key = (exchange.scenario, exchange.case)
        if response.status_code == 200:
            self._learn(exchange, response)
        if exchange.case == "index poll" and exchange.status == 404:
            name = exchange.scenario.removeprefix("publish-")
            self.stage.publish(name, self._ddo, self._ciphers[-1])
            did = did_of(self.stage.assets[name].nft, CHAIN_ID)
            path = f"/api/aquarius/assets/ddo/{did}"
            wait_until(lambda: self.node.http.get(path).status_code == 200, f"{did} is indexed")
            self.wallets[NODE].nonce = int(time.time() * 1000)  # the node itself has used some
        elif key == ("paid-start-errors", "no escrow funds"):
            self.stage.deposit()
        elif key == ("paid-start-errors", "deposited, no escrow authorization"):
            self.stage.authorize(60)
        elif key == ("paid-start-errors", "maxLockSeconds too low"):
            self.stage.authorize(3720)
        elif key in (("paid-job", "logs queued"), ("stop-and-queue", "A: sleeps 100 s")):
            self.gate.open.set()
        nonces = self.node.http.get
        for wallet in self.wallets.values():
            answer = nonces("/api/services/nonce", params={"userAddress": wallet.address}).json()
            wallet.nonce = max(wallet.nonce, int(answer["nonce"]))

    def _learn(self, exchange: Exchange, response: httpx.Response) -> None:
        """Remember what the local node calls the things that were recorded under another name."""
        recorded = exchange.answer.value if exchange.answer else None
        if exchange.path == "/api/services/encrypt":
            assert recorded
            self._ciphers.append(response.text)
            self.stage.names[base64.b64decode(recorded).decode()] = response.text
        elif exchange.path.endswith("/validate") and exchange.scenario.startswith("publish-"):
            assert exchange.body
            self._ddo = self.stage.translated(exchange.body.value)["ddo"]
        elif exchange.path.endswith("/computeEnvironments") and recorded:
            local = response.json()[0]["id"]
            self.stage.names[recording.ENVIRONMENT] = local
            self.stage.names[recording.CLUSTER] = local.split("-")[0]
        elif exchange.path.endswith("/auth/token"):
            assert recorded
            self.stage.learn(recorded["token"], response.json()["token"])
        elif exchange.method == "POST" and exchange.path.endswith(("/compute", "/freeCompute")):
            assert recorded
            local_job = response.json()[0]
            for field in ("jobId", "jobIdHash"):
                self.stage.learn(recorded[0][field].split("-")[-1], local_job[field].split("-")[-1])
        elif exchange.path.endswith("/initializeCompute"):
            self._remember_fees([response.json()["algorithm"], *response.json()["datasets"]])
        elif exchange.path.endswith("/initialize"):
            self._remember_fees([response.json()])

    def _remember_fees(self, quotes: list[dict[str, Any]]) -> None:
        names = {asset.datatoken: name for name, asset in self.stage.assets.items()}
        for quote in quotes:
            if "providerFee" in quote:
                self._fees[names[quote["datatoken"]]] = quote["providerFee"]

    def _settle(self) -> None:
        """Kill the node and start it again, which claims the payments."""
        self.node.kill()
        self.node.start()
        wait_until(lambda: not self._unsettled(), "every job is settled")

    def _unsettled(self) -> bool:
        return any(job["status"] == 71 for job in self.node.jobs(consumerAddress=BOB))


def _signature(
    wallet: Wallet, other: Wallet, case: str, command: str, nonce: int, fields: dict[str, Any]
) -> str:
    """Return a signature that is as right or as wrong as the recorded one."""
    digest = wallet.digest(nonce, command)
    if case in ("bad signature", "malformed signature", "create, bad signature"):
        return str(fields["signature"])
    if case in ("other signer", "signed by other"):
        return other.sign(digest)
    if case == "wrong command signed":
        return wallet.sign(wallet.digest(nonce, "somethingElse"))
    if case.startswith("v4 signature"):
        return wallet.sign(wallet.digest(nonce, f"{fields['jobId']}0"))
    if case.endswith("signed as 0x-hex text"):
        return wallet.sign(b"0x" + digest.hex().encode())
    if "zero bytes stripped" in case:
        return wallet.sign(digest.lstrip(b"\0"))
    signature = wallet.sign(digest)
    return f"{signature[:-2]}{int(signature[-2:], 16) - 27:02x}" if case.startswith("v=0/1") else signature


def recorded_assets(exchanges: list[Exchange]) -> list[tuple[str, str, str, str]]:
    """Return name, DID, NFT and datatoken of the assets that were published."""
    found = []
    for exchange in exchanges:
        if exchange.scenario.startswith("publish-") and exchange.path.endswith("/validate"):
            assert exchange.body
            ddo = exchange.body.value["ddo"]
            name = exchange.scenario.removeprefix("publish-")
            found.append((name, ddo["id"], ddo["nftAddress"], ddo["services"][0]["datatokenAddress"]))
    return found


def layout_script(exchanges: list[Exchange]) -> str:
    """Return the algorithm that prints its container; the raw one is the same."""
    raw = next(e for e in exchanges if e.scenario == "free-raw")
    assert raw.body
    script: str = raw.body.value["algorithm"]["meta"]["rawcode"]
    return script.replace("; sleep 1;", f"; sleep {TICK};")


@contextlib.contextmanager
def stage_set(home: Path, exchanges: list[Exchange]) -> Iterator[Replay]:
    """Run chain, nodes and web servers, with the recorded assets deployed, until the block ends."""
    contents = (
        {"data.csv": "a,b\n1,2\n3,4\n", "algo.sh": UNTRUSTED_SH},
        {"data.csv": "c,d\n5,6\n", "second.txt": "second input\n", "layout.sh": layout_script(exchanges)},
    )
    folders = []
    for number, files in enumerate(contents):
        folder = home / f"files{number}"
        folder.mkdir()
        folders.append(folder)
        for name, text in files.items():
            (folder / name).write_text(text)
    gate = Gate()
    with (
        running_anvil(home / "chain") as chain,
        file_server(folders[0], gate) as first,
        file_server(folders[1], gate) as second,
    ):
        address_file = home / "address.json"
        addresses = ensure_deployed(chain, address_file)
        variables = environment_variables(exchanges) | CLAIM_ONCE
        node = NodeProcess(home / "node", chain.rpc_url, address_file, **variables)
        limited = NodeProcess(home / "limited", chain.rpc_url, address_file, MAX_REQ_PER_MINUTE="5")
        stage = Stage(chain, addresses, [first, second], node.url)
        for asset in recorded_assets(exchanges):
            stage.make_asset(*asset)
        try:
            node.start()
            yield Replay(stage, node, limited, gate)
        finally:
            for process in (node, limited):
                process.stop()
                process.http.close()
