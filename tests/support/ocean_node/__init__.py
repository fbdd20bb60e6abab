"""348 HTTP exchanges with a real Ocean Node 3.2.0 (contracts 2.6.0 on anvil, jobs in Docker), in the order of their time.

``exchanges.jsonl.gz`` has one a line. Base64 bodies are the bytes of the wire; ``repeats`` says how often a poll was
answered so. The signer's keys were anvil's public test mnemonic's: account 1 the node, 2 the publisher, 3 the consumer.
The scenario ``rate-limit`` is a second node with a limit of 5 requests a minute; in a scenario that ends in ``+node`` the
node calls itself. ``query`` was recorded over a stand-in for its database, so that only the envelope counts.
"""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NODE = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
PUBLISHER = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
CONSUMER = "0x90F79bf6EB2c4f870365E785982E1f101E93b906"
OCEAN = "0x5FbDB2315678afecb367f032d93F642f64180aa3"
ESCROW = "0x959922bE3CAee4b8Cd9a407cc3ac1C251C2007B1"
CLUSTER = "0xff1004b67de08fc505fbf0a2089010d0f23015338c7def8557697513c4a39935"
ENVIRONMENT = f"{CLUSTER}-0x3b0cfe4046ccb3945f2e5faf827f359317fe3d4d11366989b5b131348a2d1b20"
URL = "http://127.0.0.1:18011"
FILES = ("http://127.0.0.1:18080", "http://127.0.0.1:18081")
# Transactions of orders, by what they order.
ORDERS = {
    "data": "0xfa087cc5c2c12e5be1789327e508f4d8f49e70b00bcac4ec90818f6f08937033",
    "algo": "0x7bfe1e73a03e0dcde53cac0fbc13176ec8eced0156ff8f2b1f092d8a56ea2bde",
    "data, wrong consumer": "0xad702e571fbf1402d194f1ceb014029f7b592e3c25b8608ca188279fa0a46006",
    "algo-untrusted": "0xe35e10c2312e9312589c3077bd02fcf6d9e2aad02fb65bd7c1f34c8ed373d1e8",
    "algo-untrusted, download": "0x6051809ec712a6d77da2bd28ef4d9f04306878ba25bd2583dc7355a3b3bef62b",
    "data-raw-allowed": "0xf47a060e25937f2649557963db5787f42539639fe4298b23a3746e9f2beb1821",
}


@dataclass(frozen=True)
class Body:
    """What was sent or answered.

    :param kind: json, text or base64
    """

    kind: str
    value: Any

    @property
    def content(self) -> bytes:
        """The bytes, of JSON those of another spelling."""
        if self.kind == "base64":
            return base64.b64decode(self.value)
        text = self.value if self.kind == "text" else json.dumps(self.value, separators=(",", ":"))
        return str(text).encode()


@dataclass(frozen=True)
class Exchange:
    """One request and its answer."""

    id: int
    scenario: str
    case: str
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Body | None
    status: int
    answer_headers: dict[str, str]
    answer: Body | None

    def __str__(self) -> str:
        return f"{self.id} {self.scenario}: {self.case}"


def _exchange(line: str) -> Exchange:
    content = json.loads(line)
    request, response = content["request"], content["response"]
    bodies = [Body(**part["body"]) if part["body"] else None for part in (request, response)]
    return Exchange(
        content["id"], content["scenario"], content["case"] or "the node itself",
        request["method"], request["path"], request["query"], request["headers"], bodies[0],
        response["status"], response["headers"], bodies[1],
    )  # fmt: skip


def recorded_exchanges() -> list[Exchange]:
    """Return all exchanges."""
    packed = (Path(__file__).parent / "exchanges.jsonl.gz").read_bytes()
    return [_exchange(line) for line in gzip.decompress(packed).decode().splitlines()]
