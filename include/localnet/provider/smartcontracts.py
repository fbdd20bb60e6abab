"""The file kind ``smartcontract``: what a view function of a contract returns, as JSON."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
from eth_abi import decode, encode
from eth_utils import is_0x_prefixed, keccak, to_checksum_address

from include.localnet.ethereum import RpcError
from include.localnet.provider.errors import Refused
from include.localnet.provider.streams import Opened

if TYPE_CHECKING:
    from include.localnet.ethereum import Chain

_JSON = "application/json"


def _type(parameter: dict[str, Any]) -> str:
    kind: str = parameter["type"]
    if not kind.startswith("tuple"):
        return kind
    return f"({','.join(_type(part) for part in parameter['components'])}){kind[5:]}"


def _to_abi(value: Any, parameter: dict[str, Any]) -> Any:
    """Turn a JSON value into what ABI encoding takes: numbers from text, bytes from hex."""
    kind: str = parameter["type"]
    if kind.endswith("]"):
        item = {**parameter, "type": kind[: kind.rindex("[")]}
        return [_to_abi(element, item) for element in value]
    if kind.startswith("tuple"):
        parts = parameter["components"]
        values = [value[part["name"]] for part in parts] if isinstance(value, dict) else value
        return tuple(_to_abi(v, part) for v, part in zip(values, parts, strict=True))
    if kind.startswith(("uint", "int")) and isinstance(value, str):
        return int(value, 0)
    if kind == "address":
        return to_checksum_address(value)
    if kind.startswith("bytes") and isinstance(value, str):
        return bytes.fromhex(value[2:]) if is_0x_prefixed(value) else value.encode()
    return value


def _to_json(value: Any, parameter: dict[str, Any]) -> Any:
    kind: str = parameter["type"]
    if kind.endswith("]"):
        item = {**parameter, "type": kind[: kind.rindex("[")]}
        return [_to_json(element, item) for element in value]
    if kind.startswith("tuple"):
        return [_to_json(v, part) for v, part in zip(value, parameter["components"], strict=True)]
    if kind == "address":
        return to_checksum_address(value)
    return "0x" + value.hex() if isinstance(value, bytes) else value


def _is_parameter(entry: Any) -> bool:
    return (
        isinstance(entry, dict) and isinstance(entry.get("name"), str) and isinstance(entry.get("type"), str)
    )


def _problem(content: dict[str, Any], userdata: Any) -> str:
    if not content.get("address"):
        return "malformed smartcontract type, missing contract address"
    abi = content.get("abi")
    if not isinstance(abi, dict) or not isinstance(content["address"], str):
        return "malformed file object."
    inputs = abi.get("inputs")
    if not isinstance(inputs, list) or not all(map(_is_parameter, inputs)) or abi.get("type") != "function":
        return "invalid abi"
    if abi.get("stateMutability") not in ("view", "pure"):
        return "only view or pure functions are allowed"
    if not abi.get("name"):
        return "missing name"
    if inputs and not isinstance(userdata, dict):
        return "Missing parameters"
    # Upstream counts 0, false and "" as missing; they are values.
    missing = [i["name"] for i in inputs if (userdata or {}).get(i["name"]) is None]
    return "Missing userparams: " + ",".join(missing) if missing else ""


@dataclass
class SmartContractCall:
    """A call of a view or pure function.

    :param abi: the function's entry of the contract's ABI
    :param arguments: values by the names of the function's parameters
    """

    chain: Chain
    address: str
    abi: dict[str, Any]
    arguments: dict[str, Any]
    chain_id: int | None

    @classmethod
    def of(cls, chain: Chain, content: dict[str, Any], userdata: Any) -> SmartContractCall:
        """Read a file object.

        :raises Refused: in upstream's words when it is malformed
        """
        if isinstance(userdata, str):
            try:
                userdata = json.loads(userdata) if userdata else None
            except ValueError as error:
                raise Refused("malformed file object.") from error
        problem = _problem(content, userdata)
        if problem:
            raise Refused(problem)
        return cls(chain, content["address"], content["abi"], userdata or {}, content.get("chainId"))

    def _result(self) -> bytes | None:
        """Call the function; None when the chain or the arguments do not allow it."""
        inputs, outputs = self.abi["inputs"], self.abi.get("outputs") or []
        try:
            if self.chain_id is not None and int(self.chain_id) != self.chain.chain_id:
                return None
            types = [_type(i) for i in inputs]
            values = [_to_abi(self.arguments[i["name"]], i) for i in inputs]
            selector = keccak(text=f"{self.abi['name']}({','.join(types)})")[:4]
            call = {
                "to": to_checksum_address(self.address),
                "data": "0x" + (selector + encode(types, values)).hex(),
            }
            raw = bytes.fromhex(self.chain.request("eth_call", call, "latest")[2:])
            found = [
                _to_json(v, o) for v, o in zip(decode([_type(o) for o in outputs], raw), outputs, strict=True)
            ]
        except (RpcError, httpx.HTTPError):
            return None
        except Exception:  # eth-abi raises many unrelated types for values that do not fit theirs
            return None
        return json.dumps(found[0] if len(found) == 1 else found).encode()

    def describe(self, with_checksum: bool) -> dict[str, Any] | None:
        """Return content type and length, and on demand the SHA-256; None when the call fails."""
        result = self._result()
        if result is None:
            return None
        details: dict[str, Any] = {"contentLength": len(result) or "", "contentType": _JSON}
        if with_checksum:
            details |= {"checksum": hashlib.sha256(result).hexdigest(), "checksumType": "sha256"}
        return details

    def open(self, byte_range: str) -> Opened | None:
        """Return the result as content, whole whatever range was asked for; None when the call fails."""
        result = self._result()
        if result is None:
            return None
        length = {"Content-Length": str(len(result))}
        return Opened(200, uuid4().hex, _JSON, length, iter([result]), lambda: None)
