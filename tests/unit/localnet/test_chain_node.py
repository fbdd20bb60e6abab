"""Anvil behind its journal: what is kept of each kind of request, how it is answered, and what ends it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest
from eth_account import Account as Signer

from include.localnet.accounts import ALICE, BOB
from include.localnet.chain_node import journal as journal_module
from include.localnet.chain_node.journal import Journal, JournalDamaged
from include.localnet.chain_node.methods import Effect, effect_of, quantity
from include.localnet.ethereum import Chain, RpcError
from include.localnet.processes import memory_of
from include.localnet.settings import CHAIN_ID, HOST, PROJECT
from tests.support.anvil import ChainProcess
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ChainProcess]:
    process = ChainProcess(tmp_path)
    process.start()
    yield process
    process.stop()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """A chain that no test restarts."""
    process = ChainProcess(tmp_path_factory.mktemp("chain"))
    yield process.start()
    process.stop()


def signed(nonce: int, value: int = 1) -> str:
    """Return a transaction of Alice's that gives Bob wei."""
    fields = {
        "type": 2,
        "chainId": CHAIN_ID,
        "nonce": nonce,
        "gas": 21_000,
        "maxFeePerGas": 10**11,
        "maxPriorityFeePerGas": 10**9,
        "value": value,
        "to": BOB.address,
    }
    return "0x" + bytes(Signer.sign_transaction(fields, ALICE.private_key).rawTransaction).hex()


def next_nonce(node: Chain) -> int:
    return int(node.request("eth_getTransactionCount", ALICE.address, "pending"), 16)


def balance(node: Chain, address: str = BOB.address) -> int:
    return int(node.request("eth_getBalance", address, "latest"), 16)


def killed(process: ChainProcess) -> Chain:
    """Kill the chain and return it started again."""
    process.kill("both")
    return process.start()


# --- what comes back -------------------------------------------------------------------------------------------------


def test_blocks_come_back_as_they_were(process: ChainProcess) -> None:
    node = process.node
    node.request("eth_sendRawTransaction", signed(0))
    node.request("evm_increaseTime", 3600)
    node.request("eth_sendRawTransaction", signed(1))
    node.request("evm_setNextBlockTimestamp", int(time.time()) + 10_000)
    node.request("anvil_mine", "0x3", "0x5")
    node.request("eth_sendTransaction", {"from": ALICE.address, "to": BOB.address, "value": "0x1"})
    before = [node.block(number) for number in range(node.block_number() + 1)]
    assert len(before) == 7
    node = killed(process)
    assert [node.block(number) for number in range(node.block_number() + 1)] == before
    assert "ERROR" not in process.log

    # The clock does not go back behind the last block, which is hours ahead of this machine's.
    node.request("evm_mine")
    newest, last = node.block(), before[-1]
    assert newest
    assert last
    assert 0 <= int(newest["timestamp"], 16) - int(last["timestamp"], 16) < 600


def test_the_pool_comes_back_in_its_order(process: ChainProcess) -> None:
    node = process.node
    node.request("evm_setAutomine", False)
    stays, goes, later = (node.request("eth_sendRawTransaction", signed(nonce)) for nonce in (0, 1, 3))
    node.request("anvil_dropTransaction", goes)
    for _ in range(2):  # from the journal, then from the saved state
        node = killed(process)
        assert node.request("txpool_status") == {"pending": "0x1", "queued": "0x1"}
    # As before the kill, a transaction that comes later has the ready ones mined with it.
    node.request("eth_sendRawTransaction", signed(1, value=2))
    assert [bool(node.receipt(sent)) for sent in (stays, goes, later)] == [True, False, False]
    node.request("eth_sendRawTransaction", signed(2))
    assert node.receipt(later)


def test_a_reverted_chain_comes_back_reverted(process: ChainProcess) -> None:
    node = process.node
    node.request("eth_sendRawTransaction", signed(0))
    snapshot = node.request("evm_snapshot")
    lost = node.request("eth_sendRawTransaction", signed(1))
    assert node.request("evm_revert", snapshot)
    head = node.block()
    node = killed(process)
    assert node.block() == head
    assert node.transaction(lost) is None
    node.request("eth_sendRawTransaction", signed(1, value=5))
    head = node.block()
    assert killed(process).block() == head


def test_changes_without_a_transaction_come_back(process: ChainProcess) -> None:
    node = process.node
    node.request("anvil_setBalance", BOB.address, "0x7")
    node.request("anvil_setNextBlockBaseFeePerGas", hex(5 * 10**9))
    node = killed(process)
    node.request("anvil_setCoinbase", ALICE.address)
    node.request("eth_sendRawTransaction", signed(0))
    head = node.block()
    assert head
    assert (head["miner"], int(head["baseFeePerGas"], 16)) == (ALICE.address.lower(), 5 * 10**9)
    node = killed(process)
    assert node.block() == head
    assert balance(node) == 8


def test_transactions_of_impersonated_accounts_come_back(process: ChainProcess) -> None:
    node, stranger = process.node, "0x000000000000000000000000000000000000dEaD"
    node.request("anvil_setBalance", stranger, hex(10**18))
    node.request("anvil_impersonateAccount", stranger)
    sent = node.request("eth_sendTransaction", {"from": stranger, "to": BOB.address, "value": "0x5"})
    receipt = node.receipt(sent)
    assert receipt
    assert killed(process).receipt(sent) == receipt


def test_a_stopped_chain_has_everything_in_its_state(process: ChainProcess) -> None:
    sent = process.node.request("eth_sendRawTransaction", signed(0))
    process.stop()
    assert (process.state / "journal.jsonl").read_bytes() == b""
    assert process.start().receipt(sent)


def test_a_journal_that_cannot_be_written_ends_the_chain(process: ChainProcess) -> None:
    kept = process.node.request("eth_sendRawTransaction", signed(0))
    process.front.rlimit(psutil.RLIMIT_FSIZE, (1, 1))  # a full disk
    with pytest.raises(httpx.HTTPError):
        process.node.request("eth_sendRawTransaction", signed(1))
    wait_until(lambda: not process.is_running, "the chain has ended")
    node = process.start()
    assert node.receipt(kept)
    assert next_nonce(node) == 1


# --- the files -------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> Journal:
    files = Journal(tmp_path)
    files.save(b'{"block":1}', ["0xaa"], "0x1")
    return files


def test_a_half_written_line_is_passed_over(files: Journal, tmp_path: Path) -> None:
    files.append("0xbb", [(5, "0xhash")])
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write('{"number":2,"transac')
    saved, records = Journal(tmp_path).load()
    assert (saved.record, saved.pool, saved.base_fee) == (0, ["0xaa"], "0x1")
    assert [(record.transaction, record.blocks) for record in records] == [("0xbb", [(5, "0xhash")])]


def test_a_damaged_line_is_not_passed_over(files: Journal, tmp_path: Path) -> None:
    for number in range(3):
        files.append(f"0x{number}", [])
    lines = (tmp_path / "journal.jsonl").read_text().splitlines()
    (tmp_path / "journal.jsonl").write_text("\n".join([lines[0], lines[1][:-5], lines[2], ""]))
    with pytest.raises(JournalDamaged, match=r"line 2 of .*journal.jsonl.*--fresh"):
        Journal(tmp_path).load()


def test_lines_that_the_state_contains_are_not_repeated(files: Journal, tmp_path: Path) -> None:
    files.append("0xbb", [])
    line = (tmp_path / "journal.jsonl").read_bytes()
    files.save(b'{"block":2}', [], "0x1")
    (tmp_path / "journal.jsonl").write_bytes(line)  # it was killed before it could begin the journal anew
    again = Journal(tmp_path)
    assert again.load()[1] == []
    assert json.loads(again.state.read_bytes())["block"] == 2
    again.save(b"{}", [], "0x1")
    again.append("0xcc", [])
    assert [record.number for record in Journal(tmp_path).load()[1]] == [2]


def test_the_state_is_saved_when_the_journal_is_long(
    files: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_JOURNAL_SIZE", 1_000)
    files.save(b'{"block":"' + b"x" * 100_000 + b'"}', [], "0x1")
    files.append("0x" + "a" * 20_000, [])
    assert (files.unsaved, files.is_long) == (True, False)  # short beside the state
    files.append("0x" + "a" * 20_000, [])
    assert files.is_long
    files.save(b'{"block":1}', [], "0x1")
    assert (files.unsaved, files.is_long) == (False, False)


def test_a_damaged_journal_is_named_in_the_log(process: ChainProcess) -> None:
    process.stop()
    (process.state / "journal.jsonl").write_text("{}\n")
    process.table.start("chain", process.command, {})
    wait_until(lambda: not process.is_running, "the chain has ended")
    assert "journal.jsonl cannot be read" in process.log.splitlines()[-1]


# --- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "effect"),
    [
        ("eth_call", Effect.NONE),
        ("debug_traceTransaction", Effect.NONE),
        ("txpool_content", Effect.NONE),
        ("anvil_nodeInfo", Effect.NONE),
        ("eth_sendRawTransaction", Effect.TRANSACTION),
        ("eth_sendTransaction", Effect.OWN_TRANSACTION),
        ("eth_sendUnsignedTransaction", Effect.IMPERSONATION),
        ("hardhat_impersonateAccount", Effect.IMPERSONATION),
        ("eth_sendRawTransactionSync", Effect.REFUSED),
        ("hardhat_mine", Effect.BLOCKS),
        ("evm_snapshot", Effect.CLOCK),
        ("hardhat_getAutomine", Effect.MINER),
        ("evm_revert", Effect.STATE),
        ("tenderly_setBalance", Effect.STATE),
        ("new_method", Effect.STATE),
        ("", Effect.STATE),
    ],
)
def test_what_methods_do(method: str, effect: Effect) -> None:
    assert effect_of(method) is effect


def test_quantities() -> None:
    assert [quantity(value) for value in (3, "0x10", 0)] == [3, 16, 0]
    for wrong in (-1, "x", None, True, 1.5):
        with pytest.raises(ValueError, match="number|literal"):
            quantity(wrong)


def post(node: Chain, content: Any) -> httpx.Response:
    return httpx.post(node.rpc_url, json=content, trust_env=False)


def test_a_batch_is_answered_in_its_order(node: Chain) -> None:
    nonce, before = next_nonce(node), balance(node)
    calls = [
        {"jsonrpc": "2.0", "id": 1, "method": "eth_sendRawTransaction", "params": [signed(nonce, value=3)]},
        {"jsonrpc": "2.0", "id": "two", "method": "eth_getBalance", "params": [BOB.address, "latest"]},
        {"jsonrpc": "2.0", "method": "eth_sendRawTransaction", "params": [signed(nonce + 1, value=4)]},
        {"jsonrpc": "2.0", "id": 4, "method": "eth_getBalance", "params": [BOB.address, "latest"]},
        {"jsonrpc": "2.0", "id": 5, "method": "evm_nothing"},
    ]
    sent, first, second, unknown = post(node, calls).json()
    assert (sent["id"], node.receipt(sent["result"]) is not None) == (1, True)
    assert (first["id"], int(first["result"], 16) - before) == ("two", 3)
    assert (second["id"], int(second["result"], 16) - before) == (4, 7)
    assert (unknown["id"], unknown["error"]["code"]) == (5, -32601)


def test_calls_without_an_id_have_no_answer(node: Chain) -> None:
    before = balance(node)
    params = [signed(next_nonce(node), value=9)]
    answer = post(node, {"jsonrpc": "2.0", "method": "eth_sendRawTransaction", "params": params})
    assert (answer.status_code, answer.content) == (204, b"")
    assert balance(node) == before + 9
    assert post(node, {"jsonrpc": "2.0", "method": "eth_chainId"}).status_code == 204


@pytest.mark.parametrize("content", [b"{", b"5", b"[]", b'{"id": 1}', b"[1]", b"\xff", b"[" * 5000])
def test_what_is_no_request_is_refused(node: Chain, content: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = httpx.post(node.rpc_url, content=content, headers=headers, trust_env=False).json()
    error = answer[0]["error"] if isinstance(answer, list) else answer["error"]
    assert error["code"] in (-32600, -32601)


def test_refused_changes_are_refused_in_anvils_words(node: Chain) -> None:
    with pytest.raises(RpcError, match="nonce too high|Failed to decode"):
        node.request("eth_sendRawTransaction", "0x1234")
    raw = signed(next_nonce(node))
    node.request("eth_sendRawTransaction", raw)
    with pytest.raises(RpcError, match="nonce too low"):
        node.request("eth_sendRawTransaction", raw)
    with pytest.raises(RpcError, match="ask for its receipt"):
        node.request("eth_sendRawTransactionSync", raw)


def test_a_transaction_that_has_to_wait_mines_nothing(node: Chain) -> None:
    nonce, before = next_nonce(node), node.block_number()
    later = node.request("eth_sendRawTransaction", signed(nonce + 1))
    assert node.block_number() == before
    node.request("eth_sendRawTransaction", signed(nonce))
    assert node.receipt(later)


def test_the_miner_is_set_as_anvils(node: Chain) -> None:
    def state() -> tuple[Any, Any]:
        return node.request("anvil_getAutomine"), node.request("anvil_getIntervalMining")

    assert state() == (True, None)
    node.request("evm_setIntervalMining", "0x1")
    assert state() == (False, 1)
    before = node.block_number()
    wait_until(lambda: node.block_number() > before, "a block is mined")
    node.request("evm_setIntervalMining", 0)
    assert state() == (False, None)
    node.request("evm_setAutomine", True)
    assert state() == (True, None)
    for method, wrong in (
        ("evm_setAutomine", ["yes"]),
        ("evm_setIntervalMining", []),
        ("evm_setAutomine", {}),
    ):
        answer = post(node, {"jsonrpc": "2.0", "id": 1, "method": method, "params": wrong}).json()
        assert answer["error"]["code"] == -32602
    assert state() == (True, None)


def test_pages_of_other_origins_may_ask(node: Chain) -> None:
    asked = {
        "Origin": "https://market.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    preflight = httpx.options(node.rpc_url, headers=asked, trust_env=False)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-headers"] == "content-type"
    answer = post(node, {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"})
    assert {
        preflight.headers["access-control-allow-origin"],
        answer.headers["access-control-allow-origin"],
    } == {"*"}


# --- the processes ---------------------------------------------------------------------------------------------------


def test_both_processes_are_counted_and_listen_on_loopback_only(process: ChainProcess) -> None:
    front, anvil = process.front, process.anvil
    assert memory_of(front.pid) > max(part.memory_info().rss / 1e6 for part in (front, anvil)) + 10
    listening = [
        connection.laddr.ip
        for part in (front, anvil)
        for connection in part.net_connections("all")
        if connection.status == psutil.CONN_LISTEN and connection.laddr
    ]
    assert listening == [HOST, HOST]


@pytest.mark.parametrize("victim", ["front", "anvil"])
def test_neither_process_outlives_the_other(process: ChainProcess, victim: str) -> None:
    process.kill(victim)  # waits for both
    assert process.start().block_number() == 0


def test_where_the_kernel_does_not_end_anvil_a_shell_does() -> None:
    """As on macOS."""
    child = subprocess.Popen(["sleep", "600"])
    code = f"from include.localnet.chain_node.anvil import watch_over; w = watch_over({child.pid}); print(1); input()"
    parent = subprocess.Popen(
        [sys.executable, "-c", code], cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert parent.stdout
        assert parent.stdout.readline() == b"1\n"
        assert child.poll() is None
        parent.kill()
        wait_until(lambda: child.poll() is not None, "the child is killed")
    finally:
        parent.communicate()
        child.kill()
        child.wait()
