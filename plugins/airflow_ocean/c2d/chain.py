"""The chain seen through one RPC endpoint: typed errors, fees and revert reasons. Sends nothing by itself."""

from __future__ import annotations

from typing import Any

import requests
from eth_abi import decode
from web3 import HTTPProvider

from airflow_ocean.c2d.errors import (
    FeeCapError,
    RateLimitedError,
    ServiceUnavailableError,
    TransactionRevertedError,
)
from airflow_ocean.c2d.network import origin
from airflow_ocean.c2d.units import format_units

RPC_TIMEOUT = 30.0
# Solidity's Error(string) and Panic(uint256), https://docs.soliditylang.org/en/latest/control-structures.html
_ERROR_SELECTOR = "0x08c379a0"
_PANIC_SELECTOR = "0x4e487b71"


class RpcError(Exception):
    """The node answered a request with an error of its own."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(str(error.get("message", error)))
        self.code = error.get("code")
        self.data = error.get("data")


def revert_reason(error: RpcError) -> str:
    """Return why a call reverted, decoded from the returned data where it has a reason."""
    data = error.data
    if isinstance(data, dict):  # some nodes wrap it
        data = data.get("data") or data.get("result")
    if isinstance(data, str) and data.startswith(_ERROR_SELECTOR):
        return str(decode(["string"], bytes.fromhex(data[10:]))[0])
    if isinstance(data, str) and data.startswith(_PANIC_SELECTOR):
        return f"panic 0x{decode(['uint256'], bytes.fromhex(data[10:]))[0]:x}"
    return str(error).removeprefix("execution reverted: ")


class SessionProvider(HTTPProvider):  # type: ignore[misc]
    """web3's HTTP provider with connections of its own.

    web3 keeps one session per endpoint and thread for the whole process, which a forked worker would share with its
    parent.
    """

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint)
        self.session = requests.Session()

    def make_request(self, method: Any, params: Any) -> Any:
        """Send one JSON-RPC request."""
        response = self.session.post(
            self.endpoint_uri,
            data=self.encode_rpc_request(method, params),
            headers={"Content-Type": "application/json"},
            timeout=RPC_TIMEOUT,
        )
        response.raise_for_status()
        return self.decode_rpc_response(response.content)


class Chain:
    """Requests to one RPC endpoint with typed errors.

    :param rpc_url: the endpoint
    """

    def __init__(self, rpc_url: str) -> None:
        self.rpc_url = rpc_url
        self.provider = SessionProvider(rpc_url)
        self._shown = origin(rpc_url)

    def close(self) -> None:
        """Close the connections."""
        self.provider.session.close()

    def answer(self, method: str, params: Any) -> dict[str, Any]:
        """Send one request and return the whole JSON-RPC answer, errors of the node included.

        :raises ServiceUnavailableError: when the endpoint cannot be reached or fails inside
        :raises RateLimitedError: when it refuses more requests for now
        """
        try:
            return dict(self.provider.make_request(method, params))
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else None
            if status == 429:
                raise RateLimitedError(
                    f"{method}: the chain's RPC {self._shown} answers 429, too many requests",
                    retry_after=_seconds(error.response.headers.get("Retry-After")),
                ) from error
            raise ServiceUnavailableError(
                f"{method}: the chain's RPC {self._shown} answers HTTP {status}"
            ) from error
        except (requests.RequestException, ValueError) as error:
            raise ServiceUnavailableError(
                f"{method}: the chain's RPC {self._shown} does not answer ({type(error).__name__}); is it running?"
            ) from error

    def request(self, method: str, *params: Any) -> Any:
        """Send one request and return its result.

        :raises RpcError: when the node answers an error
        """
        answer = self.answer(method, list(params))
        if answer.get("error"):
            raise RpcError(answer["error"])
        return answer.get("result")

    def quantity(self, method: str, *params: Any) -> int:
        """Send one request whose result is a hexadecimal number."""
        return int(self.request(method, *params), 16)

    def receipt(self, transaction_hash: str) -> dict[str, Any] | None:
        """Return a mined transaction's receipt, None while there is none."""
        found: dict[str, Any] | None = self.request("eth_getTransactionReceipt", transaction_hash)
        return found

    def fees(self, cap: int | None) -> dict[str, int]:
        """Choose a transaction's fees: twice the base fee plus the usual tip (EIP-1559), or the gas price before it.

        :param cap: the most to pay per unit of gas, in wei
        :raises FeeCapError: when the network asks more than ``cap`` right now
        """
        base_fee = self.request("eth_getBlockByNumber", "latest", False).get("baseFeePerGas")
        if base_fee is None:
            price = self.quantity("eth_gasPrice")
            self._check_cap(price, cap)
            return {"gasPrice": price}
        try:
            tip = self.quantity("eth_maxPriorityFeePerGas")
        except RpcError:  # not every node has it; one gwei is what wallets fall back to
            tip = 10**9
        needed = int(base_fee, 16) + tip
        self._check_cap(needed, cap)
        most = int(base_fee, 16) * 2 + tip
        return {"maxFeePerGas": min(most, cap) if cap else most, "maxPriorityFeePerGas": tip}

    def _check_cap(self, needed: int, cap: int | None) -> None:
        if cap is not None and needed > cap:
            raise FeeCapError(
                f"the network asks {format_units(needed, 9)} gwei per gas, the connection's max_fee_gwei is "
                f"{format_units(cap, 9)}: nothing was sent; try again later or raise max_fee_gwei"
            )

    def why_reverted(self, transaction: dict[str, Any], block: str) -> str:
        """Ask the node to run a reverted transaction again and return its reason, as far as the node knows it."""
        call = {
            key: transaction[key] for key in ("from", "to", "value", "gas", "input") if transaction.get(key)
        }
        call["data"] = call.pop("input", "0x")
        try:
            self.request("eth_call", call, block)
        except RpcError as error:
            return revert_reason(error)
        return "the node gives no reason (it succeeds when repeated on the block's final state)"

    def estimate_or_raise(self, what: str, params: Any) -> dict[str, Any]:
        """Estimate gas; a revert foreseen here costs nothing.

        :raises TransactionRevertedError: with the contract's reason
        """
        answer = self.answer("eth_estimateGas", params)
        if answer.get("error"):
            reason = revert_reason(RpcError(answer["error"]))
            raise TransactionRevertedError(f"{what}: the contract refuses it: {reason}. Nothing was sent")
        return answer


def _seconds(header: str | None) -> float | None:
    try:
        return float(header) if header else None
    except ValueError:  # the header may also be a date; backoff decides then
        return None
