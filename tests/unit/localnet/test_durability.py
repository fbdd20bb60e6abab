"""The local network killed at random moments: what it has answered is there afterwards, once, and as it was."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import httpx
import psutil
import pytest
from eth_account import Account as Signer
from eth_utils import to_checksum_address

from include.localnet import network
from include.localnet.accounts import ALICE, BOB, CARLOS, DEPLOYER
from include.localnet.ethereum import Chain, RpcError, artifact, encode_call, sign_message
from include.localnet.processes import ProcessTable
from include.localnet.settings import CHAIN_ID, NetworkSettings, choose_ports
from tests.support.anvil import ChainProcess, responds
from tests.support.upstream import make_ocean
from tests.support.waiting import wait_until
from tests.unit.localnet.operator_service_bench import Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from eth_account.signers.local import LocalAccount

    from include.localnet.accounts import Account

KILLS = 3
TRANSFERS = 50  # of each sender
EVERYTHING = {"fromBlock": "0x0", "toBlock": "latest"}


def sign(sender: Account, nonce: int, to: str | None, data: str, value: int = 0) -> str:
    fields = {"to": to} if to else {}
    signed = Signer.sign_transaction(
        {
            "type": 2,
            "chainId": CHAIN_ID,
            "nonce": nonce,
            "gas": 5_000_000 if to is None else 100_000,
            "maxFeePerGas": 10**11,
            "maxPriorityFeePerGas": 10**9,
            "value": value,
            "data": data,
            **fields,
        },
        sender.private_key,
    )
    return "0x" + bytes(signed.rawTransaction).hex()


def deploy_token(node: Chain) -> str:
    """Deploy the OCEAN token, give the senders of it, and return its address."""
    constructor = artifact("OceanToken")["bytecode"] + encode_call("OceanToken", "", DEPLOYER.address)[2:]
    created = node.request("eth_sendRawTransaction", sign(DEPLOYER, 0, None, constructor))
    node.request("evm_mine")
    receipt = node.receipt(created)
    assert receipt
    token = str(to_checksum_address(receipt["contractAddress"]))
    for nonce, sender in enumerate((ALICE, CARLOS), 1):
        minting = encode_call("OceanToken", "mint", sender.address, 10**24)
        node.request("eth_sendRawTransaction", sign(DEPLOYER, nonce, token, minting))
    node.request("evm_mine")
    return token


@dataclass
class Witness:
    """What clients were told.

    :param sent: hashes of the transactions that were acknowledged
    :param answered: what was read, by the request that it was the answer to
    """

    sent: list[str] = field(default_factory=list)
    answered: dict[tuple[str, ...], Any] = field(default_factory=dict)

    def send_all(self, url: str, sender: Account, token: str) -> None:
        """Send a wallet's transfers one after the other, each until the chain has it."""
        node = Chain(url)
        for nonce in range(TRANSFERS):
            transfer = sign(
                sender, nonce, token, encode_call("OceanToken", "transfer", BOB.address, 1 + nonce)
            )
            accepted = False
            while not accepted:
                try:
                    self.sent.append(node.request("eth_sendRawTransaction", transfer))
                    accepted = True
                except RpcError as error:
                    # The chain took it and was killed before it answered.
                    accepted = "nonce too low" in str(error) or "already imported" in str(error)
                    if not accepted:
                        raise
                except httpx.HTTPError:
                    wait_until(lambda: responds(node), "the chain is back")
            with contextlib.suppress(httpx.HTTPError):
                self.look(node)

    def look(self, node: Chain) -> None:
        """Remember the newest block and its receipts."""
        block = node.block()
        assert block
        self.answered["eth_getBlockByNumber", block["number"]] = block
        for transaction in block["transactions"]:
            self.answered["eth_getTransactionReceipt", transaction] = node.receipt(transaction)

    def check(self, node: Chain) -> None:
        """Compare everything with what the chain says now."""
        for transaction in list(self.sent):
            assert node.transaction(transaction), transaction
        for (method, about), before in list(self.answered.items()):
            more = [False] if method == "eth_getBlockByNumber" else []
            assert node.request(method, about, *more) == before


def change_balance(node: Chain) -> None:
    """Have the whole state saved."""
    with contextlib.suppress(httpx.HTTPError):
        node.request("anvil_setBalance", DEPLOYER.address, hex(10**21))


@pytest.mark.parametrize(("block_time", "seed"), [(None, 1), (1, 2)])
def test_transactions_survive_kills_of_the_chain(tmp_path: Path, block_time: int | None, seed: int) -> None:
    choice = random.Random(seed)
    process = ChainProcess(tmp_path, block_time=block_time)
    witness = Witness()
    try:
        node = process.start()
        token = deploy_token(node)
        ether = int(node.request("eth_getBalance", ALICE.address, "latest"), 16)
        senders = [
            threading.Thread(target=witness.send_all, args=(node.rpc_url, sender, token))
            for sender in (ALICE, CARLOS)
        ]
        for sender in senders:
            sender.start()
        for _ in range(KILLS):
            enough = len(witness.sent) + choice.randint(3, 20)
            wait_until(
                lambda e=enough: len(witness.sent) >= e or not any(map(threading.Thread.is_alive, senders)),  # type: ignore[misc]
                "some more are sent",
            )
            if choice.random() < 0.5:
                threading.Thread(target=change_balance, args=(Chain(node.rpc_url),)).start()
            process.kill(choice.choice(["front", "anvil", "both"]))
            process.start()
            witness.check(node)
        for sender in senders:
            sender.join()

        node.request("evm_mine")
        witness.check(node)
        logs = node.request("eth_getLogs", {**EVERYTHING, "address": token})
        process.kill("both")
        process.start()
        witness.check(node)
        assert node.request("eth_getLogs", {**EVERYTHING, "address": token}) == logs

        blocks = [node.block(number) for number in range(node.block_number() + 1)]
        mined = Counter(transaction for block in blocks if block for transaction in block["transactions"])
        assert set(mined.values()) == {1}
        assert set(witness.sent) <= set(mined)
        assert len(mined) == 3 + 2 * TRANSFERS
        assert node.call(token, "OceanToken", "balanceOf", BOB.address) == 2 * sum(range(1, TRANSFERS + 1))
        receipts = [receipt for receipt in map(node.receipt, mined) if receipt]
        paid = sum(
            int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)
            for receipt in receipts
            if receipt["from"] == ALICE.address.lower()
        )
        assert int(node.request("eth_getBalance", ALICE.address, "latest"), 16) == ether - paid
    finally:
        process.stop()


@pytest.fixture
def localnet_to_kill(tmp_path: Path) -> Iterator[NetworkSettings]:
    settings = NetworkSettings(tmp_path, choose_ports(0))
    try:
        network.up(settings)
        yield settings
    finally:
        network.down(settings.home)


def kill_parts(settings: NetworkSettings, parts: list[str]) -> None:
    """SIGKILL to parts of a network and to what they have started, in the order given."""
    table = ProcessTable(settings.home)
    victims = []
    for part in parts:
        record = table.running(part)
        assert record
        process = psutil.Process(record.pid)
        victims += [process, *process.children(recursive=True)]
    for victim in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim.pid, signal.SIGKILL)
    wait_until(lambda: not any(table.running(part) for part in parts), "they are dead")


class Publisher(threading.Thread):
    """Publishes assets one after the other, whatever happens to the network.

    :param count: how many have to succeed
    """

    def __init__(self, settings: NetworkSettings, owner: LocalAccount, count: int) -> None:
        super().__init__()
        self.published: list[str] = []
        self.is_up = threading.Event()
        self.is_up.set()
        self._settings, self._owner, self._count = settings, owner, count
        self._ocean = make_ocean(settings)

    def run(self) -> None:
        url = f"{self._settings.files_url}/branin.arff"
        while len(self.published) < self._count:
            self.is_up.wait()
            # What ocean-lib raises when one of four services is gone is of many kinds.
            with contextlib.suppress(Exception):
                _, _, ddo = self._ocean.assets.create_url_asset(
                    f"Asset {len(self.published)}", url, {"from": self._owner}, wait_for_aqua=False
                )
                self.published.append(ddo.did)


def fetch_result(settings: NetworkSettings, job: str, index: int) -> tuple[int, str]:
    """Fetch a job's result as Bob; return the nonce that this has used up, and the result."""
    nonce = time.time_ns()
    fields = {
        "consumerAddress": BOB.address,
        "jobId": job,
        "index": index,
        "nonce": nonce,
        "signature": sign_message(f"{BOB.address}{job}{index}{nonce}", BOB.private_key),
    }
    answer = httpx.get(f"{settings.provider_url}/api/services/computeResult", params=fields, trust_env=False)
    assert answer.status_code == 200, answer.text
    return nonce, answer.text


def nonce_at(settings: NetworkSettings) -> int:
    url = f"{settings.provider_url}/api/services/nonce"
    answer = httpx.get(url, params={"userAddress": BOB.address}, trust_env=False)
    return int(answer.json()["nonce"])


def indexed(settings: NetworkSettings) -> list[str]:
    answer = httpx.post(
        f"{settings.metadata_cache_url}/api/aquarius/assets/query",
        json={"query": {"match_all": {}}, "size": 1000},
        trust_env=False,
    )
    return [hit["_source"]["id"] for hit in answer.json()["hits"]["hits"]]


def test_the_whole_network_survives_kills(localnet_to_kill: NetworkSettings, alice: LocalAccount) -> None:
    settings, choice = localnet_to_kill, random.Random(4)
    # No process of the bench's own: this one is the network's.
    operator = Service(
        settings.operator_url,
        settings.state_of("operator_service"),
        cast("Any", None),
        httpx.Client(base_url=settings.operator_url, timeout=30, trust_env=False),
    )
    job = operator.start("open('/data/outputs/result', 'w').write('the result')")  # it is Bob's
    status = operator.wait(job)
    result = [entry["filename"] for entry in status["results"]].index("result")
    publisher = Publisher(settings, alice, 8)
    publisher.start()
    try:
        every = network.parts_of(settings)
        for parts in (list(every), choice.sample(every, 3), list(every)):
            enough = min(len(publisher.published) + choice.randint(1, 3), 8)
            wait_until(lambda e=enough: len(publisher.published) >= e, "some more are published")  # type: ignore[misc]
            nonce, _ = fetch_result(settings, job, result)
            head = Chain(settings.rpc_url).block()
            choice.shuffle(parts)
            publisher.is_up.clear()
            kill_parts(settings, parts)
            network.up(settings)
            publisher.is_up.set()
            assert head
            assert Chain(settings.rpc_url).block(int(head["number"], 16)) == head
            assert nonce_at(settings) == nonce
            assert operator.status(job) == status
            assert fetch_result(settings, job, result)[1] == "the result"
    finally:
        publisher.is_up.set()
        publisher.join()

    wait_until(lambda: set(publisher.published) <= set(indexed(settings)), "all published assets are indexed")
    assert max(Counter(indexed(settings)).values()) == 1
    log = (settings.home / "logs" / "aquarius.log").read_text()
    assert "reorganised" not in log
    assert "another chain" not in log
