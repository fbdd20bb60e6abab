"""The chain seen through one RPC endpoint: typed errors, fees and revert reasons. Sends nothing by itself."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

import requests
from web3 import HTTPProvider

from airflow_ocean.c2d import retry_after
from airflow_ocean.c2d.cache import cached
from airflow_ocean.c2d.errors import (
    FeeCapError,
    InvalidInputError,
    RateLimitedError,
    ServiceUnavailableError,
    TransactionRevertedError,
)
from airflow_ocean.c2d.network import origin
from airflow_ocean.c2d.rpc_errors import RpcError, revert_reason
from airflow_ocean.c2d.units import format_units

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

RPC_TIMEOUT = 30.0
# How long a chain's constants are kept, seconds.
_CONSTANTS_TTL = 600.0
# No answer of a node that is asked here is ever larger.
MAX_ANSWER = 64 * 1024 * 1024
_QUANTITY = re.compile("0x[0-9a-fA-F]{1,64}")
_DATA = re.compile("0x([0-9a-fA-F]{2})*")
# What web3 reads by itself; it raises errors of its own on anything else.
_RESULTS = {"eth_call": _DATA, "eth_getCode": _DATA, "eth_chainId": _QUANTITY, "eth_estimateGas": _QUANTITY}


# What a transaction's error says where its reason is gone.
NO_REASON = "the node gives no reason"


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
        with self.session.post(
            self.endpoint_uri,
            data=self.encode_rpc_request(method, params),
            headers={"Content-Type": "application/json"},
            timeout=RPC_TIMEOUT,
            stream=True,
        ) as response:
            response.raise_for_status()
            content = bytearray()
            for chunk in response.iter_content(256 * 1024):
                content += chunk
                if len(content) > MAX_ANSWER:
                    raise ValueError(f"more than {MAX_ANSWER} bytes")
        return self.decode_rpc_response(bytes(content))


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
        """Send one request and return the whole JSON-RPC answer, unless it says that the node cannot answer now.

        :raises ServiceUnavailableError: when the endpoint cannot be reached or fails inside
        :raises RateLimitedError: when it refuses more requests for now
        """
        answer = self._exchange(method, params)
        if answer.get("error"):
            error = self._error(method, answer)
            if error.passes(method):
                kind = RateLimitedError if error.is_limit else ServiceUnavailableError
                raise kind(
                    f"{method}: the chain's RPC {self._shown} cannot answer now: {error.text} (code {error.code}). Try "
                    "again later; if it stays so, give the connection another RPC"
                ) from error
        return answer

    def _error(self, method: str, answer: dict[str, Any]) -> RpcError:
        return RpcError(f"{method}: the chain's RPC {self._shown}", answer["error"])

    def _exchange(self, method: str, params: Any) -> dict[str, Any]:
        """Send one request and return the whole JSON-RPC answer, errors of the node included."""
        try:
            answer = self.provider.make_request(method, params)
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else None
            if status == 429:
                raise RateLimitedError(
                    f"{method}: the chain's RPC {self._shown} answers 429, too many requests",
                    retry_after=retry_after.seconds(error.response.headers.get("Retry-After")),
                ) from error
            raise ServiceUnavailableError(
                f"{method}: the chain's RPC {self._shown} answers HTTP {status}"
            ) from error
        except requests.JSONDecodeError as error:
            raise self._no_answer(method, error) from error
        except requests.RequestException as error:
            raise ServiceUnavailableError(
                f"{method}: the chain's RPC {self._shown} does not answer ({type(error).__name__}); is it running?"
            ) from error
        except (ValueError, RecursionError) as error:
            raise self._no_answer(method, error) from error
        if not isinstance(answer, dict) or not (answer.get("error") or "result" in answer):
            raise self._no_answer(method, answer)
        if "result" in answer and not answer.get("error"):
            self._check_result(method, answer["result"])
        return answer

    def _no_answer(self, method: str, what: object) -> ServiceUnavailableError:
        return ServiceUnavailableError(
            f"{method}: the chain's RPC {self._shown} answers with something that is no JSON-RPC answer: "
            f"{repr(what)[:200]}; is it the RPC of a node?"
        )

    def _check_result(self, method: str, result: object) -> None:
        form = _RESULTS.get(method)
        if form is not None and not (isinstance(result, str) and form.fullmatch(result)):
            raise self._wrong(method, result)

    def _wrong(self, method: str, result: object) -> ServiceUnavailableError:
        return ServiceUnavailableError(
            f"{method}: the chain's RPC {self._shown} answers {repr(result)[:200]}, which cannot be; is the node in order?"
        )

    def request(self, method: str, *params: Any) -> Any:
        """Send one request and return its result.

        :raises RpcError: when the node refuses it
        """
        answer = self.answer(method, list(params))
        if answer.get("error"):
            raise self._error(method, answer)
        return answer.get("result")

    def quantity(self, method: str, *params: Any) -> int:
        """Send one request whose result is a hexadecimal number."""
        result = self.request(method, *params)
        if not isinstance(result, str) or not _QUANTITY.fullmatch(result):
            raise self._wrong(method, result)
        return int(result, 16)

    def constant(self, what: str, ask: Callable[[], T]) -> T:
        """Return what does not change on this chain, asked once in a while, as a development chain may begin anew."""
        return cached((self.rpc_url, what), _CONSTANTS_TTL, ask)

    def receipt(self, transaction_hash: str) -> dict[str, Any] | None:
        """Return a mined transaction's receipt, None while there is none."""
        found: dict[str, Any] | None = self.request("eth_getTransactionReceipt", transaction_hash)
        if found is not None and not _is_receipt(found, transaction_hash):
            raise self._wrong("eth_getTransactionReceipt", found)
        return found

    def logs(
        self, address: str, topics: list[str], first: int, last: int | None = None
    ) -> list[dict[str, Any]]:
        """Return a contract's events of some kinds, oldest first.

        :param topics: first topics, any of them
        :param first: block
        :param last: block, the newest by default
        """
        until = "latest" if last is None else hex(last)
        query = {"address": address, "topics": [topics], "fromBlock": hex(first), "toBlock": until}
        found = self.request("eth_getLogs", query)
        if not isinstance(found, list) or not all(_is_log(log, address) for log in found):
            raise self._wrong("eth_getLogs", found)
        return found

    def newest_block_time(self) -> int:
        """Return when the newest block was made, in seconds since 1970."""
        block = self.request("eth_getBlockByNumber", "latest", False)
        made = block.get("timestamp") if isinstance(block, dict) else None
        if not isinstance(made, str) or not _QUANTITY.fullmatch(made):
            raise self._wrong("eth_getBlockByNumber", block)
        return int(made, 16)

    def fees(self, cap: int | None) -> dict[str, int]:
        """Choose a transaction's fees: twice the base fee plus the usual tip (EIP-1559), or the gas price before it.

        :param cap: the most to pay per unit of gas, in wei
        :raises FeeCapError: when the network asks more than ``cap`` right now
        """
        block = self.request("eth_getBlockByNumber", "latest", False)
        base_fee = block.get("baseFeePerGas") if isinstance(block, dict) else ""
        if base_fee is not None and not (isinstance(base_fee, str) and _QUANTITY.fullmatch(base_fee)):
            raise self._wrong("eth_getBlockByNumber", block)
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

    def why_reverted(self, call: dict[str, Any], block: str) -> str:
        """Ask the node to run a reverted call again and return its reason, as far as the node knows it."""
        answer = self._exchange("eth_call", [call, block])
        if not answer.get("error"):
            return f"{NO_REASON} (it succeeds when repeated on the block's final state)"
        error = self._error("eth_call", answer)
        # Nodes keep the state of old blocks for a while only.
        return f"{NO_REASON} ({error.text})" if error.passes("eth_call") else revert_reason(error)

    def view(self, params: Any) -> dict[str, Any]:
        """Carry out ``eth_call`` for web3, whose own errors for what a contract refuses have no type of ours.

        :raises TransactionRevertedError: when the contract refuses
        :raises InvalidInputError: when there is no such contract or no such function
        """
        answer = self.answer("eth_call", params)
        to, selector = params[0].get("to"), str(params[0].get("data"))[:10]
        if answer.get("error"):
            reason = revert_reason(self._error("eth_call", answer))
            raise TransactionRevertedError(f"the contract {to} refuses to be asked {selector}: {reason}")
        if answer["result"] == "0x":
            raise InvalidInputError(f"{to} is no contract that answers {selector}; is it of this chain?")
        return answer

    def estimate_or_raise(self, what: str, params: Any) -> dict[str, Any]:
        """Estimate gas; a revert foreseen here costs nothing.

        :raises TransactionRevertedError: with the contract's reason
        """
        answer = self.answer("eth_estimateGas", params)
        if answer.get("error"):
            reason = revert_reason(self._error("eth_estimateGas", answer))
            raise TransactionRevertedError(f"{what}: the contract refuses it: {reason}. Nothing was sent")
        return answer


def _is_receipt(found: Any, transaction_hash: str) -> bool:
    """Say whether something is the receipt of a mined transaction, whole as far as it is read here."""
    if not isinstance(found, dict) or str(found.get("transactionHash")).lower() != transaction_hash.lower():
        return False
    numbers = [found.get(name) for name in ("status", "blockNumber", "gasUsed")]
    numbers += [found[name] for name in ("effectiveGasPrice", "l1Fee") if found.get(name) is not None]
    if not all(isinstance(number, str) and _QUANTITY.fullmatch(number) for number in numbers):
        return False
    logs = found.get("logs")
    return isinstance(logs, list) and all(
        isinstance(log, dict)
        and isinstance(log.get("topics"), list)
        and all(isinstance(log.get(name), str) for name in ("address", "data"))
        for log in logs
    )


def _is_log(found: Any, address: str) -> bool:
    """Say whether something is an event of a contract, as far as it is read here."""
    return (
        isinstance(found, dict)
        and str(found.get("address")).lower() == address.lower()
        and isinstance(found.get("transactionHash"), str)
        and _QUANTITY.fullmatch(str(found.get("blockNumber"))) is not None
        and isinstance(found.get("topics"), list)
        and isinstance(found.get("data"), str)
    )
