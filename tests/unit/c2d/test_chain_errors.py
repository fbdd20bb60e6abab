"""What nodes and their hosts answer is typed: what passes by itself is tried again, all else fails at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from eth_abi import encode

from airflow_ocean.c2d import cache
from airflow_ocean.c2d.chain import Chain
from airflow_ocean.c2d.client import OceanClient
from airflow_ocean.c2d.errors import (
    OceanError,
    RateLimitedError,
    ServiceUnavailableError,
    TransactionRevertedError,
    TransientError,
)
from airflow_ocean.c2d.journal import MemoryJournal
from airflow_ocean.c2d.network import Network
from airflow_ocean.c2d.rpc_errors import RpcError, revert_reason
from include.localnet.accounts import ALICE
from include.localnet.contracts import ensure_deployed
from tests.support.anvil import running_anvil
from tests.support.fault_proxy import Answer, FaultProxy, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = "0x000000000000000000000000000000000000dEaD"
KEY = "1a2b3c4d5e6f"
SEND, CALL, ESTIMATE, READ = "eth_sendRawTransaction", "eth_call", "eth_estimateGas", "eth_getBalance"

# Which request, the error's code and text, and whether it passes; who answers so.
ERRORS: dict[str, tuple[str, int | None, str, bool]] = {
    "EIP-1474": (SEND, -32005, "limit exceeded", True),
    "Infura, too many requests": (SEND, -32005, "project ID request rate exceeded", True),
    "Infura, too many in a day": (READ, -32005, "daily request count exceeded, request rate limited", True),
    "QuickNode": (SEND, -32007, "50/second request limit reached - reduce calls per second", True),
    "Alchemy": (CALL, 429, "Your app has exceeded its compute units per second capacity", True),
    "JSON-RPC": (SEND, -32603, "Internal error", True),
    "geth, behind": (CALL, -32000, "header not found", True),
    "geth, pruned": (READ, -32000, "missing trie node 5c0e (path )", True),
    "geth, slow": (SEND, -32002, "request timed out", True),
    "geth, slow call": (CALL, -32000, "execution aborted (timeout = 5s)", True),
    "geth, pool": (SEND, -32000, "txpool is full", True),
    "geth, receipts": ("eth_getTransactionReceipt", -32000, "transaction indexing is in progress", True),
    "Erigon, pool": (SEND, -32000, "INTERNAL_ERROR: pending sub-pool is full", True),
    "Nethermind, slow": (ESTIMATE, -32016, "eth_estimateGas request was canceled", True),
    "Nethermind, behind": (SEND, -32000, "nonce too high", True),
    "Besu, slow": (CALL, -32603, "Timeout expired", True),
    "Besu, new": (SEND, -32008, "Initial sync is still in progress", True),
    "a balancer": (SEND, -32000, "no healthy upstream", True),
    "no code, no words": (SEND, None, "Too Many Requests", True),
    "a number asked, anything": (READ, -32000, "something nobody thought of", True),
    "a number asked wrongly": (READ, -32602, "invalid argument 0: hex string has length 38", False),
    "no such method": ("eth_maxPriorityFeePerGas", -32601, "the method does not exist/is not available", False),
    "geth, reverted": (CALL, 3, "execution reverted: request timed out", False),
    "Besu, reverted": (CALL, -32000, "Execution reverted", False),
    "Nethermind, reverted": (ESTIMATE, -32015, "VM execution error.", False),
    "Hardhat, reverted": (CALL, -32603, "Error: VM Exception while processing transaction: reverted with ''", False),
    "anvil, halted": (CALL, -32603, "EVM error InvalidFEOpcode", False),
    "geth, gas": (ESTIMATE, -32000, "gas required exceeds allowance (30000000)", False),
    "geth, funds": (SEND, -32000, "insufficient funds for gas * price + value: balance 0, tx cost 1", False),
    "a host, funds": (SEND, -32603, "insufficient funds for gas * price + value", False),
    "a host, nonce": (SEND, -32603, "nonce too low", False),
    "Besu, nonce": (SEND, -32001, "Nonce too low", False),
    "Besu, funds": (SEND, -32004, "Upfront cost exceeds account balance", False),
    "Besu, gas": (SEND, -32005, "Transaction gas limit exceeds block gas limit", False),
    "Erigon, nonce": (SEND, -32000, "INTERNAL_ERROR: nonce too low", False),
    "geth, fee": (SEND, -32000, "max fee per gas less than block base fee", False),
    "geth, size": (SEND, -32000, "oversized data", False),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_what_passes(name: str) -> None:
    method, code, text, passes = ERRORS[name]
    assert RpcError(f"{method}: a node", {"code": code, "message": text}).passes(method) is passes


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ({"data": "0x08c379a0" + encode(["string"], ["too late"]).hex()}, "too late"),
        ({"data": {"data": "0x08c379a0" + encode(["string"], ["too late"]).hex()}}, "too late"),
        ({"data": "0x4e487b71" + encode(["uint256"], [0x11]).hex()}, "panic 0x11"),
        ({"data": "0x08c379a0ff"}, "its words"),
        ({"data": "0x08c379a0f"}, "its words"),
        ({"data": "0x4e487b71zz"}, "its words"),
        ({}, "its words"),
    ],
)
def test_reasons_of_reverts(error: dict[str, Any], reason: str) -> None:
    assert revert_reason(RpcError("a node", {"message": "execution reverted: its words", **error})) == reason


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FaultProxy, Network]]:
    """An RPC endpoint before a chain with Ocean's contracts; its URL has a key in its path, as those of hosts have."""
    home = tmp_path_factory.mktemp("chain")
    with running_anvil(home) as node:
        ensure_deployed(node, home / "address.json")
        proxy = FaultProxy({"chain": node.rpc_url})
        url = f"{proxy.url('chain')}/?{KEY}"
        yield proxy, Network(url, "http://127.0.0.1:9", address_file=str(home / "address.json"))
        proxy.close()


def answering(method: str, error: dict[str, Any]) -> Rule:
    """Answer an error to a method, whose requests the chain gets all the same."""
    return Rule(
        lambda request: request.rpc_method == method,
        lambda genuine: Answer.of_json({"jsonrpc": "2.0", "id": genuine.json()["id"], "error": error}),
    )


def send(network: Network, journal: MemoryJournal) -> str:
    cache.forget()  # code and templates are asked for once in a while only
    with OceanClient(network, ALICE.private_key, journal) as client:
        token = client.datatokens.contract(client.contract_address("Ocean"))
        with client.transactions.step("send") as tx:
            token.transfer(NOBODY, 1, tx)
        return client.transactions.of_step("send").hash


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": -32005, "message": "limit exceeded"}, RateLimitedError),
        ({"code": -32603, "message": "Internal error"}, ServiceUnavailableError),
        ({"code": -32000, "message": "header not found"}, ServiceUnavailableError),
    ],
)
@pytest.mark.parametrize(
    "method",
    [
        "eth_call", "eth_getCode", "eth_estimateGas", "eth_getBlockByNumber", "eth_getBalance", "eth_getTransactionCount",
        "eth_sendRawTransaction", "eth_getTransactionReceipt",
    ],
)  # fmt: skip
def test_an_error_that_passes_is_worth_a_retry_which_sends_nothing_twice(
    endpoint: tuple[FaultProxy, Network], method: str, error: dict[str, Any], kind: type[TransientError]
) -> None:
    proxy, network = endpoint
    journal = MemoryJournal()
    with OceanClient(network, ALICE.private_key) as client:
        ocean = client.contract_address("Ocean")
        before = client.datatokens.balance(ocean, NOBODY)
        with proxy.answering(answering(method, error)), pytest.raises(kind) as caught:
            send(network, journal)
        assert method in str(caught.value)
        assert proxy.url("chain") in str(caught.value)
        assert error["message"] in str(caught.value)
        assert "later" in str(caught.value)
        assert KEY not in str(caught.value)
        send(network, journal)
        assert client.datatokens.balance(ocean, NOBODY) == before + 1


@pytest.mark.parametrize("method", ["eth_estimateGas", "eth_sendRawTransaction"])
def test_a_refusal_is_not(endpoint: tuple[FaultProxy, Network], method: str) -> None:
    proxy, network = endpoint
    error = {"code": -32603, "message": "execution reverted: limit exceeded"}
    with (
        proxy.answering(answering(method, error)),
        pytest.raises(TransactionRevertedError, match="limit exceeded"),
    ):
        send(network, MemoryJournal())


@pytest.mark.parametrize("method", ["eth_getCode", "eth_getBalance"])
def test_a_request_that_the_node_does_not_know_has_a_type_too(
    endpoint: tuple[FaultProxy, Network], method: str
) -> None:
    proxy, network = endpoint
    error = {"code": -32601, "message": f"the method {method} does not exist/is not available"}
    with proxy.answering(answering(method, error)), pytest.raises(OceanError) as caught:
        send(network, MemoryJournal())
    assert not isinstance(caught.value, TransientError)
    assert proxy.url("chain") in str(caught.value)
    assert KEY not in str(caught.value)


def test_a_node_without_tips(endpoint: tuple[FaultProxy, Network]) -> None:
    proxy, network = endpoint
    error = {"code": -32601, "message": "the method does not exist/is not available"}
    with proxy.answering(answering("eth_maxPriorityFeePerGas", error)):
        assert Chain(network.rpc_url).fees(None)["maxPriorityFeePerGas"] == 10**9
