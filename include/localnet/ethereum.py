"""A small JSON-RPC client with the Ocean contracts' ABIs, and Ocean's signatures.

The services use this and not web3: web3 needs 70 MB in each process, and of it only ABI coding and HTTP would be used.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import itertools
import json
import sys
from dataclasses import dataclass
from typing import Any

import httpx
from eth_abi import decode, encode
from eth_account import Account
from eth_account.messages import encode_defunct
from eth_utils import keccak, to_checksum_address

# eth_account brings in py_ecc, which raises the limit to 100,000: deeply nested JSON from outside then overflows the C
# stack and kills the service instead of raising RecursionError.
sys.setrecursionlimit(min(sys.getrecursionlimit(), 1_000))

ZERO_ADDRESS = "0x0000000000000000000000000000000000000000"


class RpcError(Exception):
    """The chain refused a request, with its own words and, for a revert, the returned data."""

    def __init__(self, method: str, message: str, data: Any = None) -> None:
        super().__init__(f"{method}: {message}")
        self.data = data


@dataclass(frozen=True)
class Event:
    """A decoded log entry."""

    name: str
    address: str
    arguments: dict[str, Any]
    transaction: str
    block: int
    index: int


@functools.cache
def artifact(contract: str) -> dict[str, Any]:
    """Return ABI and bytecode of an Ocean contract, as the package ``ocean-contracts`` ships them."""
    text = importlib.resources.files("artifacts").joinpath(f"{contract}.json").read_text()
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def _type_of(parameter: dict[str, Any]) -> str:
    kind: str = parameter["type"]
    if kind.startswith("tuple"):
        inner = ",".join(_type_of(component) for component in parameter["components"])
        return f"({inner}){kind[5:]}"
    return kind


def _normal(value: Any, kind: str) -> Any:
    """Give addresses in checksum form, as every Ocean service compares them."""
    if kind == "address":
        return to_checksum_address(value)
    if kind == "address[]":
        return [to_checksum_address(item) for item in value]
    return value


@functools.cache
def _entry(contract: str, kind: str, name: str, arity: int | None) -> dict[str, Any]:
    for item in artifact(contract)["abi"]:
        if item["type"] == kind and item.get("name", "") == name:
            entry: dict[str, Any] = item
            if arity is None or len(entry["inputs"]) == arity:
                return entry
    raise LookupError(f"{contract} has no {kind} {name} with {arity} arguments")


@functools.cache
def event_topic(contract: str, event: str) -> str:
    """Return the first topic of an event's log entries."""
    entry = _entry(contract, "event", event, None)
    signature = f"{event}({','.join(_type_of(i) for i in entry['inputs'])})"
    return "0x" + bytes(keccak(text=signature)).hex()


def encode_call(contract: str, function: str, *arguments: Any) -> str:
    """Return the call data of a contract's function; an empty ``function`` encodes constructor arguments."""
    kind = "function" if function else "constructor"
    types = [_type_of(i) for i in _entry(contract, kind, function, len(arguments))["inputs"]]
    selector = bytes(keccak(text=f"{function}({','.join(types)})"))[:4] if function else b""
    return "0x" + (selector + bytes(encode(types, arguments))).hex()


def decode_event(contract: str, event: str, log: dict[str, Any]) -> Event:
    """Decode one raw log entry; dynamic indexed values stay hashes, as on every Ethereum client."""
    inputs = _entry(contract, "event", event, None)["inputs"]
    plain = [i for i in inputs if not i["indexed"]]
    values = dict(
        zip(
            [i["name"] for i in plain],
            decode([_type_of(i) for i in plain], bytes.fromhex(log["data"][2:])),
            strict=True,
        )
    )
    for parameter, topic in zip([i for i in inputs if i["indexed"]], log["topics"][1:], strict=True):
        kind = _type_of(parameter)
        raw = bytes.fromhex(topic[2:])
        dynamic = kind in ("string", "bytes") or kind.endswith("]") or kind.startswith("(")
        values[parameter["name"]] = raw if dynamic else decode([kind], raw)[0]
    arguments = {i["name"]: _normal(values[i["name"]], i["type"]) for i in inputs}
    return Event(
        name=event,
        address=to_checksum_address(log["address"]),
        arguments=arguments,
        transaction=log["transactionHash"],
        block=int(log["blockNumber"], 16),
        index=int(log["logIndex"], 16),
    )


class Chain:
    """The chain behind one RPC URL."""

    def __init__(self, rpc_url: str, timeout: float = 30.0) -> None:
        self.rpc_url = rpc_url
        self._http = httpx.Client(timeout=timeout, trust_env=False)
        self._ids = itertools.count(1)

    def request(self, method: str, *params: Any) -> Any:
        """Send one JSON-RPC request.

        :raises RpcError: when the node answers an error
        :raises httpx.HTTPError: when it does not answer
        """
        payload = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": list(params)}
        response = self._http.post(self.rpc_url, json=payload)
        answer = response.json()
        if "error" in answer:
            error = answer["error"]
            raise RpcError(method, error.get("message", str(error)), error.get("data"))
        return answer["result"]

    @functools.cached_property
    def chain_id(self) -> int:
        """The chain's id, asked once."""
        return int(self.request("eth_chainId"), 16)

    def block_number(self) -> int:
        """Return the number of the newest block."""
        return int(self.request("eth_blockNumber"), 16)

    def block(self, number: int | str = "latest") -> dict[str, Any] | None:
        """Return a block without its transactions' bodies."""
        key = hex(number) if isinstance(number, int) else number
        found: dict[str, Any] | None = self.request("eth_getBlockByNumber", key, False)
        return found

    def transaction(self, transaction_hash: str) -> dict[str, Any] | None:
        """Return a transaction, mined or pending."""
        found: dict[str, Any] | None = self.request("eth_getTransactionByHash", transaction_hash)
        return found

    def receipt(self, transaction_hash: str) -> dict[str, Any] | None:
        """Return the receipt of a mined transaction."""
        found: dict[str, Any] | None = self.request("eth_getTransactionReceipt", transaction_hash)
        return found

    def is_contract(self, address: str) -> bool:
        """Say whether code lives at an address."""
        return bool(self.request("eth_getCode", address, "latest") != "0x")

    def call(self, address: str, contract: str, function: str, *arguments: Any) -> Any:
        """Read from a contract; several return values come as a tuple.

        :raises RpcError: when the call reverts
        """
        data = encode_call(contract, function, *arguments)
        result = self.request("eth_call", {"to": address, "data": data}, "latest")
        outputs = _entry(contract, "function", function, len(arguments))["outputs"]
        if result == "0x" and outputs:
            raise RpcError("eth_call", f"no contract answers {function} at {address}")
        values = decode([_type_of(o) for o in outputs], bytes.fromhex(result[2:]))
        normal = tuple(_normal(v, o["type"]) for v, o in zip(values, outputs, strict=True))
        return normal[0] if len(normal) == 1 else normal

    def logs(
        self,
        contract: str,
        events: list[str],
        first_block: int,
        last_block: int,
        address: str | None = None,
    ) -> list[Event]:
        """Return the decoded events of a block range in chain order, of one address or of all."""
        names = {event_topic(contract, event): event for event in events}
        criteria: dict[str, Any] = {
            "fromBlock": hex(first_block),
            "toBlock": hex(last_block),
            "topics": [list(names)],
        }
        if address:
            criteria["address"] = address
        found = self.request("eth_getLogs", criteria)
        return [decode_event(contract, names[log["topics"][0]], log) for log in found]

    def events_of(
        self, receipt: dict[str, Any], contract: str, event: str, address: str | None = None
    ) -> list[Event]:
        """Return the decoded events of one kind in a receipt, of one contract address or of all."""
        topic = event_topic(contract, event)
        return [
            decode_event(contract, event, log)
            for log in receipt["logs"]
            if log["topics"]
            and log["topics"][0] == topic
            and (address is None or log["address"].lower() == address.lower())
        ]


def did_of(nft_address: str, chain_id: int) -> str:
    """Return the DID of a data NFT: ``did:op:`` and the SHA-256 of checksummed address and decimal chain id."""
    text = to_checksum_address(nft_address) + str(chain_id)
    return "did:op:" + hashlib.sha256(text.encode()).hexdigest()


def sign_message(message: str, private_key: str) -> str:
    """Sign as Ocean clients do: ``personal_sign`` over keccak-256 of the UTF-8 text. 0x-hex, 65 bytes."""
    signed = Account.sign_message(encode_defunct(keccak(text=message)), private_key)
    return "0x" + bytes(signed.signature).hex()


def signer_of(message: str, signature: str) -> str:
    """Return the checksummed address that signed ``message`` as :func:`sign_message` does.

    :raises ValueError: when the signature is no signature at all
    """
    try:
        address: str = Account.recover_message(encode_defunct(keccak(text=message)), signature=signature)
    except Exception as error:  # eth-account and eth-keys raise half a dozen unrelated types here
        raise ValueError(f"malformed signature: {error}") from error
    return address
