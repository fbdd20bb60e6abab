"""Each step is sent exactly once, whatever happened to the attempt before."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from airflow_ocean.c2d import transactions as transactions_module
from airflow_ocean.c2d.client import OceanClient
from airflow_ocean.c2d.errors import (
    FeeCapError,
    InsufficientFundsError,
    OceanError,
    ServiceUnavailableError,
    StepChangedError,
    TransactionPendingError,
    TransactionRevertedError,
)
from airflow_ocean.c2d.journal import FileJournal, MemoryJournal
from airflow_ocean.c2d.limits import CostLimit
from airflow_ocean.c2d.network import Network
from include.localnet.accounts import ALICE, BOB, CARLOS
from include.localnet.contracts import ensure_deployed
from tests.support.anvil import running_anvil
from tests.support.fault_proxy import Answer, FaultProxy, Rule
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from include.localnet.ethereum import Chain

NOBODY = "0x000000000000000000000000000000000000dEaD"


class Crash(BaseException):
    """What kills a worker between two instructions."""


class CrashingJournal(MemoryJournal):
    """A journal whose process dies right after an entry became durable."""

    def save(self, step: str, entry: dict[str, Any]) -> None:
        super().save(step, entry)
        raise Crash


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    home = tmp_path_factory.mktemp("chain")
    with running_anvil(home) as node:
        ensure_deployed(node, home / "address.json")
        yield Network(node.rpc_url, "http://127.0.0.1:9", address_file=str(home / "address.json"))


@pytest.fixture
def node(network: Network) -> Iterator[Chain]:
    """The chain, mining each transaction at once again after the test."""
    from include.localnet.ethereum import Chain

    chain = Chain(network.rpc_url)
    yield chain
    chain.request("anvil_dropAllTransactions")
    chain.request("evm_setAutomine", True)


@pytest.fixture
def endpoint(network: Network) -> Iterator[FaultProxy]:
    """An RPC endpoint before the chain, which may answer as hosted ones do."""
    proxy = FaultProxy({"chain": network.rpc_url})
    yield proxy
    proxy.close()


def through(endpoint: FaultProxy, network: Network, **fields: Any) -> Network:
    return replace(network, rpc_url=endpoint.url("chain"), **fields)


def answers_at_first(times: int, answer: dict[str, Any], *methods: str) -> Rule:
    """Let the first requests of some methods be answered otherwise than by the chain, which carries them out all the same."""
    left = itertools.repeat(True, times)
    return Rule(
        lambda request: request.rpc_method in methods and next(left, False),
        lambda genuine: Answer.of_json({"jsonrpc": "2.0", "id": genuine.json()["id"], **answer}),
    )


def behind(times: int) -> Rule:
    """Answer as a node of the endpoint that has not got the newest block, until it has."""
    return answers_at_first(times, {"result": None}, "eth_getTransactionReceipt", "eth_getTransactionByHash")


def at_a_block(answer: dict[str, Any]) -> Rule:
    """Answer calls on the state of a block with a number otherwise than the chain."""
    return Rule(
        lambda request: request.rpc_method == "eth_call" and b"latest" not in request.body,
        lambda genuine: Answer.of_json({"jsonrpc": "2.0", "id": genuine.json()["id"], **answer}),
    )


def wallet(network: Network, journal: Any = None, key: str = ALICE.private_key) -> OceanClient:
    return OceanClient(network, key, journal)


def send_ocean(client: OceanClient, amount: int = 1, step: str = "send", to: str = NOBODY) -> str:
    token = client.datatokens.contract(client.contract_address("Ocean"))
    with client.transactions.step(step) as tx:
        token.transfer(to, amount, tx)
    return client.transactions.of_step(step).hash


def allow(network: Network, amount: int) -> None:
    """Let Carlos take some of Alice's OCEAN."""
    client = wallet(network)
    token = client.datatokens.contract(client.contract_address("Ocean"))
    with client.transactions.step("allow") as tx:
        token.approve(CARLOS.address, amount, tx)


def take(client: OceanClient) -> str:
    token = client.datatokens.contract(client.contract_address("Ocean"))
    with client.transactions.step("take") as tx:
        token.transferFrom(ALICE.address, NOBODY, 1, tx)
    return client.transactions.of_step("take").hash


def received(client: OceanClient, owner: str = NOBODY) -> int:
    return client.datatokens.balance(client.contract_address("Ocean"), owner)


@pytest.mark.usefixtures("node")
class TestSentOnce:
    def test_a_second_attempt_gives_the_first_ones_transaction(self, network: Network) -> None:
        journal = MemoryJournal()
        before = received(wallet(network))
        first = send_ocean(wallet(network, journal))
        assert send_ocean(wallet(network, journal)) == first
        assert received(wallet(network)) == before + 1

    def test_a_crash_after_signing_is_made_good(self, network: Network) -> None:
        crashing = CrashingJournal()
        before = received(wallet(network))
        with pytest.raises(Crash):
            send_ocean(wallet(network, crashing))
        assert received(wallet(network)) == before
        entry = crashing.load("send")
        assert entry is not None
        survivor = MemoryJournal()
        survivor.save("send", entry)
        assert send_ocean(wallet(network, survivor)) == entry["candidates"][0]["hash"]
        assert received(wallet(network)) == before + 1

    def test_a_lost_answer_is_made_good(self, network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
        journal = MemoryJournal()
        client = wallet(network, journal)
        before = received(client)
        genuine = client.transactions.chain.request

        def cut_after_sending(method: str, *params: Any) -> Any:
            answer = genuine(method, *params)
            if method == "eth_sendRawTransaction":
                raise ServiceUnavailableError("the connection was cut")
            return answer

        monkeypatch.setattr(client.transactions.chain, "request", cut_after_sending)
        with pytest.raises(ServiceUnavailableError):
            send_ocean(client)
        send_ocean(wallet(network, journal))
        assert received(wallet(network)) == before + 1

    def test_a_transaction_in_the_pool_is_waited_for(self, network: Network, node: Chain) -> None:
        journal = MemoryJournal()
        before = received(wallet(network))
        node.request("evm_setAutomine", False)
        with pytest.raises(TransactionPendingError, match="a retry goes on waiting for the same one"):
            send_ocean(wallet(replace(network, transaction_timeout=0.1), journal))
        node.request("evm_setAutomine", True)
        node.request("anvil_mine", "0x1")
        send_ocean(wallet(network, journal))
        assert received(wallet(network)) == before + 1

    def test_a_transaction_the_pool_lost_is_offered_again(self, network: Network, node: Chain) -> None:
        journal = MemoryJournal()
        before = received(wallet(network))
        node.request("evm_setAutomine", False)
        with pytest.raises(TransactionPendingError):
            send_ocean(wallet(replace(network, transaction_timeout=0.1), journal))
        node.request("anvil_dropAllTransactions")
        node.request("evm_setAutomine", True)
        entry = journal.load("send")
        assert entry is not None
        assert send_ocean(wallet(network, journal)) == entry["candidates"][0]["hash"]
        assert received(wallet(network)) == before + 1

    def test_a_dead_transaction_is_signed_anew(
        self, network: Network, node: Chain, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(transactions_module, "LAG", 0.5)
        journal = MemoryJournal()
        before = received(wallet(network))
        stored, other = self._overtaken(network, node, journal)
        assert send_ocean(wallet(network, journal)) not in (other, stored)
        assert received(wallet(network)) == before + 1

    def test_a_transaction_is_not_dead_before_the_other_one_is_confirmed(
        self, network: Network, node: Chain, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(transactions_module, "LAG", 0.1)
        journal = MemoryJournal()
        before = received(wallet(network))
        stored, other = self._overtaken(network, node, journal)
        patient = replace(network, confirmations=2, transaction_timeout=1.0)
        with pytest.raises(TransactionPendingError, match=stored):
            send_ocean(wallet(patient, journal))
        assert received(wallet(network)) == before
        node.request("evm_setIntervalMining", 1)
        try:
            sent = send_ocean(wallet(replace(patient, transaction_timeout=60.0), journal))
        finally:
            node.request("evm_setIntervalMining", 0)
        assert sent not in (other, stored)
        assert received(wallet(network)) == before + 1

    @staticmethod
    def _overtaken(network: Network, node: Chain, journal: MemoryJournal) -> tuple[str, str]:
        """Lose a stored transaction out of the pool, and let another one have its nonce; return the hashes of both."""
        node.request("evm_setAutomine", False)
        with pytest.raises(TransactionPendingError):
            send_ocean(wallet(replace(network, transaction_timeout=0.1), journal))
        node.request("anvil_dropAllTransactions")
        node.request("evm_setAutomine", True)
        entry = journal.load("send")
        assert entry is not None
        other = send_ocean(wallet(network), step="someone else", to=CARLOS.address)
        return entry["candidates"][0]["hash"], other

    def test_a_node_that_is_behind_makes_no_transaction_dead(
        self, network: Network, endpoint: FaultProxy
    ) -> None:
        """One node of the endpoint knows that the nonce is used, another one not yet by what."""
        journal = MemoryJournal()
        before = received(wallet(network))
        first = send_ocean(wallet(network, journal))
        with endpoint.answering(behind(5)):
            assert send_ocean(wallet(through(endpoint, network), journal)) == first
        assert received(wallet(network)) == before + 1

    def test_a_nonce_too_low_makes_no_transaction_dead(self, network: Network, endpoint: FaultProxy) -> None:
        """An endpoint offers a transaction to two nodes, and tells what the second one says, which has it mined."""
        before = received(wallet(network))
        too_low = {"error": {"code": -32000, "message": "nonce too low"}}
        with endpoint.answering(answers_at_first(1, too_low, "eth_sendRawTransaction"), behind(5)):
            send_ocean(wallet(through(endpoint, network)))
        assert received(wallet(network)) == before + 1

    def test_a_nonce_that_a_node_behind_counts_is_not_taken_again(
        self, network: Network, node: Chain, endpoint: FaultProxy
    ) -> None:
        # Less than it takes to see for sure that a nonce is used.
        client = wallet(through(endpoint, network, transaction_timeout=transactions_module.LAG / 2))
        before = received(client)
        used = node.request("eth_getTransactionCount", ALICE.address, "pending")
        with endpoint.answering(answers_at_first(2, {"result": used}, "eth_getTransactionCount")):
            sent = [send_ocean(client, step=f"send {number}") for number in range(2)]
        assert [int(node.transaction(hash_)["nonce"], 16) for hash_ in sent] == [
            int(used, 16),
            int(used, 16) + 1,
        ]
        assert received(client) == before + 2

    def test_a_stuck_transaction_is_replaced_and_counts_once(
        self, network: Network, node: Chain, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        journal = MemoryJournal()
        before = received(wallet(network))
        node.request("evm_setAutomine", False)
        monkeypatch.setattr(transactions_module, "REPLACE_AFTER", 0.05)
        with pytest.raises(TransactionPendingError):
            send_ocean(wallet(replace(network, transaction_timeout=1.0), journal))
        entry = journal.load("send")
        assert entry is not None
        assert len(entry["candidates"]) > 1
        assert len({candidate["hash"] for candidate in entry["candidates"]}) == len(entry["candidates"])
        node.request("anvil_mine", "0x1")
        node.request("evm_setAutomine", True)
        assert send_ocean(wallet(network, journal)) in {c["hash"] for c in entry["candidates"]}
        assert received(wallet(network)) == before + 1

    def test_a_finished_step_outlives_the_nodes_index_of_transactions(
        self, network: Network, node: Chain, endpoint: FaultProxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A node forgets the places of old transactions; that the nonce is used it knows for ever."""
        monkeypatch.setattr(transactions_module, "FINAL", 5)
        monkeypatch.setattr(transactions_module, "LAG", 0.3)
        journal = MemoryJournal()
        before = received(wallet(network))
        first = wallet(network, journal)
        ocean = first.contract_address("Ocean")
        sent = first.datatokens.transfer(ocean, NOBODY, 1, "send")
        # As it is written down: no number that a message of Airflow has no room for.
        entry = json.loads(json.dumps(journal.load("send")))
        assert all(abs(number) < 2**63 for number in entry["mined"].values() if isinstance(number, int))
        node.request("anvil_mine", "0x5")
        later = wallet(through(endpoint, network), journal)
        with endpoint.answering(behind(10**9)):
            assert later.datatokens.transfer(ocean, NOBODY, 1, "send") == sent
        assert later.transactions.mined == first.transactions.mined
        assert received(wallet(network)) == before + 1

    def test_a_node_that_keeps_no_old_state_is_not_asked_for_it(
        self, network: Network, node: Chain, endpoint: FaultProxy
    ) -> None:
        pruned = {"error": {"code": -32000, "message": "missing trie node 5c0e (path )"}}
        rule = Rule(
            lambda request: (
                request.rpc_method == "eth_getTransactionCount"
                and b"latest" not in request.body
                and b"pending" not in request.body
            ),
            lambda genuine: Answer.of_json({"jsonrpc": "2.0", "id": genuine.json()["id"], **pruned}),
        )
        client = wallet(through(endpoint, network, confirmations=2))
        before = received(client)
        node.request("evm_setAutomine", False)
        node.request("evm_setIntervalMining", 1)
        try:
            with endpoint.answering(rule):
                send_ocean(client)
        finally:
            node.request("evm_setIntervalMining", 0)
        assert received(client) == before + 1

    def test_a_node_that_keeps_no_transaction_below_the_base_fee(
        self, network: Network, endpoint: FaultProxy
    ) -> None:
        before = received(wallet(network))
        refused = {"error": {"code": -32000, "message": "max fee per gas less than block base fee"}}
        with endpoint.answering(answers_at_first(1, refused, "eth_sendRawTransaction")):
            send_ocean(wallet(through(endpoint, network)))
        assert received(wallet(network)) == before + 1

    def test_what_a_chain_charges_for_its_data_on_ethereum_counts(
        self, network: Network, endpoint: FaultProxy
    ) -> None:
        def charged(genuine: Answer) -> Answer:
            answer = genuine.json()
            if answer["result"]:
                answer["result"]["l1Fee"] = "0x64"
            return Answer.of_json(answer)

        client = wallet(through(endpoint, network))
        rule = Rule(lambda request: request.rpc_method == "eth_getTransactionReceipt", charged)
        with endpoint.answering(rule):
            sent = send_ocean(client)
        receipt = client.transactions.chain.receipt(sent)
        assert receipt
        gas = int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)
        assert client.transactions.of_step("send").fee == gas + 100

    def test_a_reorganised_transaction_is_sent_again(self, network: Network, node: Chain) -> None:
        journal = MemoryJournal()
        before = received(wallet(network))
        snapshot = node.request("evm_snapshot")
        sent = send_ocean(wallet(network, journal))
        node.request("evm_revert", snapshot)
        assert received(wallet(network)) == before
        assert send_ocean(wallet(network, journal)) == sent
        assert received(wallet(network)) == before + 1

    def test_a_transaction_that_a_reorganisation_drops_is_offered_again(
        self, network: Network, node: Chain
    ) -> None:
        """It is dropped while one task waits for confirmations, which sends the same one again."""
        client = wallet(replace(network, confirmations=2, transaction_timeout=30.0))
        before = received(client)
        look, seen = client.transactions.chain.receipt, threading.Event()

        def watched(transaction: str) -> Any:
            found = look(transaction)
            if found is not None:
                seen.set()
            return found

        client.transactions.chain.receipt = watched  # type: ignore[method-assign]
        node.request("evm_setAutomine", False)
        snapshot = node.request("evm_snapshot")
        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(send_ocean, client)
            wait_until(lambda: node.request("txpool_status")["pending"] != "0x0", "it is in the pool")
            node.request("anvil_mine", "0x1")
            assert seen.wait(20)
            node.request("evm_revert", snapshot)
            node.request("anvil_dropAllTransactions")
            wait_until(lambda: node.request("txpool_status")["pending"] != "0x0", "it is there again")
            node.request("anvil_mine", "0x2")
            sent = sending.result(30)
        assert node.receipt(sent)
        assert received(wallet(network)) == before + 1

    def test_a_stuck_transaction_never_costs_more_than_the_cap(
        self, network: Network, node: Chain, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        journal = MemoryJournal()
        node.request("evm_setAutomine", False)
        monkeypatch.setattr(transactions_module, "REPLACE_AFTER", 0.05)
        cap = wallet(network).transactions.chain.fees(None)["maxFeePerGas"] * 13 // 10
        capped = replace(network, transaction_timeout=4.0, max_fee_gwei=Decimal(cap) / 10**9)
        with pytest.raises(TransactionPendingError):
            send_ocean(wallet(capped, journal))
        entry = journal.load("send")
        assert entry is not None
        fees = [candidate["fees"]["maxFeePerGas"] for candidate in entry["candidates"]]
        # Twice by an eighth; a third time would be more.
        assert len(fees) == 3
        assert fees[0] < fees[1] < fees[2] <= cap < fees[2] * 9 // 8

    def test_a_stuck_transaction_never_costs_more_than_the_limit(
        self, network: Network, node: Chain, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        journal = MemoryJournal()
        node.request("evm_setAutomine", False)
        first = MemoryJournal()
        with pytest.raises(TransactionPendingError):
            send_ocean(wallet(replace(network, transaction_timeout=0.01), first))
        (once,) = (first.load("send") or {})["candidates"]
        node.request("anvil_dropAllTransactions")
        monkeypatch.setattr(transactions_module, "REPLACE_AFTER", 0.05)
        most = once["gas"] * once["fees"]["maxFeePerGas"] * 12 // 10
        limited = OceanClient(
            replace(network, transaction_timeout=3.0), ALICE.private_key, journal, CostLimit({"gas": most})
        )
        with pytest.raises(TransactionPendingError):
            send_ocean(limited)
        candidates = (journal.load("send") or {})["candidates"]
        # Once by an eighth; a second time would be more.
        assert len(candidates) == 2
        assert all(sent["gas"] * sent["fees"]["maxFeePerGas"] <= most for sent in candidates)

    def test_the_file_journal_outlives_the_process(self, network: Network, tmp_path: Path) -> None:
        before = received(wallet(network))
        first = send_ocean(wallet(network, FileJournal(tmp_path / "journal.json")))
        assert send_ocean(wallet(network, FileJournal(tmp_path / "journal.json"))) == first
        assert received(wallet(network)) == before + 1


@pytest.mark.usefixtures("node")
class TestRefused:
    def test_a_revert_foreseen_costs_nothing(self, network: Network) -> None:
        client = wallet(network)
        with pytest.raises(TransactionRevertedError, match="exceeds balance.*Nothing was sent"):
            send_ocean(client, amount=10**40)
        assert client.transactions.mined == []

    def test_a_reverted_transaction_fails_with_its_reason_and_the_next_attempt_signs_anew(
        self, network: Network, node: Chain
    ) -> None:
        allow(network, 1)
        journal = MemoryJournal()
        node.request("evm_setAutomine", False)
        with pytest.raises(TransactionPendingError):
            take(wallet(replace(network, transaction_timeout=0.1), journal, CARLOS.private_key))
        stored = journal.load("take")
        assert stored is not None
        node.request("anvil_dropAllTransactions")
        node.request("evm_setAutomine", True)
        allow(network, 0)
        again = MemoryJournal()
        again.save("take", stored)
        carlos = wallet(network, journal, CARLOS.private_key)
        with pytest.raises(TransactionRevertedError, match="was mined in block .* and reverted: .*allowance"):
            take(carlos)
        (refused,) = carlos.transactions.mined
        assert (refused.hash, refused.reverted, refused.spent) == (
            stored["candidates"][0]["hash"],
            True,
            {},
        )
        assert refused.fee > 0
        # What is only brought to its end tells that it may be tried anew: it was not this attempt that was refused.
        resuming = wallet(network, again, CARLOS.private_key)
        assert resuming.transactions.resume("take") is None
        assert resuming.transactions.mined == [refused]
        allow(network, 1)
        carlos = wallet(network, journal, CARLOS.private_key)
        taken = take(carlos)
        assert taken != refused.hash
        # What it has spent in vain is part of what it costs, in the next attempt and in each one after that.
        for attempt in (carlos, wallet(network, journal, CARLOS.private_key)):
            assert take(attempt) == taken
            assert [sent.hash for sent in attempt.transactions.mined] == [refused.hash, taken]
            assert attempt.transactions.of_step("take").hash == taken

    def test_a_revert_that_a_reorganisation_undoes_does_not_count(
        self, network: Network, node: Chain
    ) -> None:
        allow(network, 1)
        journal = MemoryJournal()
        before = received(wallet(network))
        node.request("evm_setAutomine", False)
        with pytest.raises(TransactionPendingError):
            take(wallet(replace(network, transaction_timeout=0.1), journal, CARLOS.private_key))
        stored = journal.load("take")
        assert stored is not None
        node.request("anvil_dropAllTransactions")
        node.request("evm_setAutomine", True)
        snapshot = node.request("evm_snapshot")
        allow(network, 0)
        careful = wallet(
            replace(network, confirmations=2, transaction_timeout=1.0), journal, CARLOS.private_key
        )
        with pytest.raises(TransactionPendingError):
            take(careful)
        hash_ = stored["candidates"][0]["hash"]
        assert node.receipt(hash_)["status"] == "0x0"
        assert careful.transactions.mined == []
        node.request("evm_revert", snapshot)
        assert take(wallet(network, journal, CARLOS.private_key)) == hash_
        assert received(wallet(network)) == before + 1

    def test_a_revert_whose_state_the_node_has_no_more_fails_all_the_same(
        self, network: Network, node: Chain, endpoint: FaultProxy
    ) -> None:
        allow(network, 1)
        journal = MemoryJournal()
        node.request("evm_setAutomine", False)
        with pytest.raises(TransactionPendingError):
            take(wallet(replace(network, transaction_timeout=0.1), journal, CARLOS.private_key))
        node.request("anvil_dropAllTransactions")
        node.request("evm_setAutomine", True)
        allow(network, 0)
        pruned = {"error": {"code": -32000, "message": "missing trie node 5c0e (path )"}}
        carlos = wallet(through(endpoint, network), journal, CARLOS.private_key)
        with (
            endpoint.answering(at_a_block(pruned)),
            pytest.raises(TransactionRevertedError, match="gives no reason .missing trie node"),
        ):
            take(carlos)
        entry = journal.load("take")
        assert entry is not None
        assert entry["candidates"] == []

    def test_a_changed_step(self, network: Network) -> None:
        journal = MemoryJournal()
        send_ocean(wallet(network, journal))
        client = wallet(network, journal)
        token = client.datatokens.contract(client.contract_address("Ocean"))
        with pytest.raises(StepChangedError, match="force_new"), client.transactions.step("send") as tx:
            token.approve(NOBODY, 1, tx)

    def test_a_fee_above_the_cap(self, network: Network) -> None:
        client = wallet(replace(network, max_fee_gwei=Decimal("0.000000001")))
        with pytest.raises(FeeCapError, match="nothing was sent"):
            send_ocean(client)

    def test_a_wallet_without_gas_money(self, network: Network) -> None:
        client = wallet(network, key="0x" + "42" * 32)
        token = client.datatokens.contract(client.contract_address("Ocean"))
        with (
            pytest.raises(InsufficientFundsError, match="holds 0 .* may need up to"),
            client.transactions.step("a") as tx,
        ):
            token.approve(NOBODY, 1, tx)

    def test_a_transaction_without_a_step(self, network: Network) -> None:
        client = wallet(network)
        token = client.datatokens.contract(client.contract_address("Ocean"))
        with pytest.raises(OceanError, match="outside of a named step"):
            token.transfer(NOBODY, 1, {"from": client.wallet.account})

    def test_no_chain_at_all(self, network: Network) -> None:
        client = wallet(replace(network, rpc_url="http://127.0.0.1:9"))
        with pytest.raises(ServiceUnavailableError, match="http://127.0.0.1:9 does not answer"):
            client.datatokens.balance(NOBODY)


def _send_in_a_process(network: Network, number: int, results: Any) -> None:
    results.put(send_ocean(wallet(network, key=BOB.private_key), 1, f"send {number}"))


def test_parallel_processes_share_a_wallet_and_its_blocks(network: Network, node: Chain) -> None:
    context = multiprocessing.get_context("spawn")
    before = received(wallet(network))
    node.request("evm_setAutomine", False)
    node.request("evm_setIntervalMining", 1)
    results = context.Queue()
    workers = [context.Process(target=_send_in_a_process, args=(network, n, results)) for n in range(4)]
    try:
        for worker in workers:
            worker.start()
        hashes = {results.get(timeout=300) for _ in workers}
        for worker in workers:
            worker.join()
    finally:
        node.request("evm_setIntervalMining", 0)
    assert len(hashes) == 4
    assert received(wallet(network)) == before + 4


def test_confirmations_are_waited_for(network: Network, node: Chain) -> None:
    client = wallet(replace(network, confirmations=3))
    node.request("evm_setAutomine", False)
    node.request("evm_setIntervalMining", 1)
    try:
        send_ocean(client)
    finally:
        node.request("evm_setIntervalMining", 0)
    assert node.block_number() - client.transactions.of_step("send").block + 1 >= 3
