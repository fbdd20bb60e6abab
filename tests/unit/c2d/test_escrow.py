"""What becomes of a job's payment, whatever the node says of it: asked of a real escrow contract, of which a test is the node."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from eth_abi import encode
from eth_utils import to_checksum_address

from airflow_ocean.c2d import network as networks
from airflow_ocean.c2d.client import OceanClient
from airflow_ocean.c2d.errors import InsufficientFundsError, InvalidInputError
from airflow_ocean.c2d.escrow import Settlement
from airflow_ocean.c2d.journal import MemoryJournal
from airflow_ocean.c2d.locks import Lock, read_locks
from airflow_ocean.c2d.network import Network
from airflow_ocean.c2d.services import EscrowPayment
from airflow_ocean.c2d.services.node_jobs import read_job
from include.localnet.accounts import ALICE, BOB, CARLOS
from include.localnet.contracts import ensure_deployed
from include.localnet.ethereum import artifact, encode_call
from include.localnet.node.escrow import Claim, Escrow, job_hash
from tests.support.anvil import running_anvil
from tests.support.fault_proxy import Answer, FaultProxy, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_ocean.c2d.jobs import Job
    from include.localnet.accounts import Account
    from include.localnet.ethereum import Chain

HOUR = 3600
NOBODY_CLAIMED = {"claimTx": None, "cancelTx": None}
FIVE_FIELDS = ["uint256", "address", "uint256", "uint256", "address"]
FIRST, SECOND = "0x" + "11" * 20, "0x" + "22" * 20


class World:
    """A chain with two escrows, the listed one and an earlier one, and Carlos as the node."""

    def __init__(self, chain: Chain, folder: Path) -> None:
        self.chain, self.address_file = chain, folder / "address.json"
        addresses = ensure_deployed(chain, self.address_file)
        self.token, self.listed = addresses["Ocean"], addresses["Escrow"]
        code = artifact("Escrow")["bytecode"]
        arguments = encode_call("Escrow", "", addresses["Router"], addresses["OPFCommunityFeeCollector"])
        receipt = self.mined({"from": ALICE.address, "data": code + arguments[2:], "gas": hex(9_000_000)})
        self.earlier = str(to_checksum_address(receipt["contractAddress"]))
        self.payees = {
            address: Escrow(chain, address, CARLOS.private_key, 0) for address in (self.listed, self.earlier)
        }
        self._numbers = itertools.count()

    def mined(self, fields: dict[str, str]) -> dict[str, Any]:
        receipt = self.chain.receipt(self.chain.request("eth_sendTransaction", fields))
        assert receipt
        assert receipt["status"] == "0x1"
        return receipt

    def client(self, account: Account = BOB, journal: MemoryJournal | None = None) -> OceanClient:
        network = Network(self.chain.rpc_url, "http://127.0.0.1:1", address_file=str(self.address_file))
        return OceanClient(network, account.private_key, journal)

    def lock(
        self, amount: int, *, seconds: int = HOUR, account: Account = BOB, escrow: str | None = None,
        name: str | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Lock what an account deposits for a job, and return what a node says of that job."""
        escrow, name = escrow or self.listed, name or f"job {next(self._numbers)}"
        payment = EscrowPayment(escrow, CARLOS.address, self.token, amount, seconds)
        with self.client(account) as client:
            client.escrow.provide(payment, name)
        transaction = self.payees[escrow].lock(name, self.token, account.address, amount, seconds)
        return {
            "jobId": name,
            "environment": "0xc1-0xe1",
            "status": 31,
            "dateFinished": "1",
            "jobIdHash": job_hash(name),
            "payment": {"token": self.token, "lockTx": transaction, **NOBODY_CLAIMED},
        }

    def claim(self, entry: dict[str, Any], amount: int, account: Account = BOB) -> str:
        claim = Claim(entry["jobId"], self.token, account.address, amount, "{}")
        return self.payees[self.listed].claim([claim])

    def later(self, seconds: int = 2 * HOUR) -> None:
        self.chain.request("evm_increaseTime", hex(seconds))
        self.chain.request("evm_mine")


def job(entry: dict[str, Any], **payment: Any) -> Job:
    return read_job({**entry, "payment": {**entry["payment"], **payment}}, "asking")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("escrow")
    with running_anvil(folder / "chain") as chain:
        yield World(chain, folder)


@pytest.fixture
def bob(world: World) -> Iterator[OceanClient]:
    """Bob, who has nothing in the escrows before or after a test."""
    with world.client() as client:
        yield client
    world.later()
    with world.client() as client:
        for escrow in world.payees:
            client.escrow.cancel_expired(escrow, [world.token])
        client.escrow.withdraw(list(world.payees), world.token)
        assert all(client.escrow.funds(escrow, world.token).locked == 0 for escrow in world.payees)


class TestSettlement:
    def test_what_was_claimed_is_known_whatever_the_node_says(self, world: World, bob: OceanClient) -> None:
        entry = world.lock(10)
        # Another's lock at the same node in the same token: the contract tells it, too, when asked for Bob's.
        other = world.lock(20, account=ALICE, name=entry["jobId"])
        world.claim(other, 19, ALICE)
        held = bob.escrow.settlement(job(entry))
        assert (held.claimed, held.lock and held.lock.amount) == (None, 10)
        claim = world.claim(entry, 7)
        for said in ("nolock", claim, None, "0x" + "00" * 32, other["payment"]["lockTx"]):
            assert bob.escrow.settlement(job(entry, claimTx=said)) == Settlement(7)
        assert bob.escrow.funds(world.listed, world.token).available == 3

    def test_a_node_that_is_behind_settles_nothing(self, world: World, bob: OceanClient) -> None:
        """One node of the endpoint knows that the lock is gone, another one not yet what became of it."""
        entry = world.lock(10)
        world.claim(entry, 7)
        endpoint = FaultProxy({"chain": world.chain.rpc_url})
        unseen = Rule(
            lambda request: request.rpc_method == "eth_getLogs",
            lambda genuine: Answer.of_json({"jsonrpc": "2.0", "id": genuine.json()["id"], "result": []}),
        )
        network = replace(bob.network, rpc_url=endpoint.url("chain"))
        try:
            with OceanClient(network, BOB.private_key) as client:
                with endpoint.answering(unseen):
                    assert client.escrow.settlement(job(entry)) == Settlement(None)
                assert client.escrow.settlement(job(entry)) == Settlement(7)
        finally:
            endpoint.close()

    def test_what_was_given_back_has_cost_nothing(self, world: World, bob: OceanClient) -> None:
        entry = world.lock(10)
        world.later()
        bob.escrow.cancel_expired(world.listed, [world.token])
        assert bob.escrow.settlement(job(entry)) == Settlement(0)

    def test_a_cancellation_that_came_too_early_settles_nothing(self, world: World, bob: OceanClient) -> None:
        entry = world.lock(10)
        (lock,) = world.payees[world.listed].locks()
        cancel = world.payees[world.listed].cancel([lock])
        assert world.chain.receipt(cancel)["status"] == "0x1"  # type: ignore[index]
        held = bob.escrow.settlement(job(entry, cancelTx=cancel))
        assert held == Settlement(None, Lock(lock.job, CARLOS.address, world.token, 10, lock.expiry))

    def test_what_nobody_claimed_in_time_has_cost_nothing(self, world: World, bob: OceanClient) -> None:
        entry = world.lock(10)
        world.later()
        found = bob.escrow.settlement(job(entry))
        assert (found.claimed, found.lock and found.lock.amount) == (0, 10)
        # A claim that comes too late takes nothing either.
        claim = world.claim(entry, 7)
        assert bob.escrow.settlement(job(entry, claimTx=claim)) == Settlement(0)
        assert bob.escrow.funds(world.listed, world.token).available == 10

    def test_a_payment_in_no_block(self, world: World, bob: OceanClient) -> None:
        entry = world.lock(10)
        for said in ("0x" + "00" * 32, None):
            assert bob.escrow.settlement(job(entry, lockTx=said)) == Settlement(None)

    def test_a_lock_that_reverted_costs_nothing(self, world: World, bob: OceanClient) -> None:
        entry = world.lock(10)
        data = encode_call(
            "Escrow", "createLock", int(entry["jobIdHash"], 16), world.token, BOB.address, 10**30, HOUR
        )
        fields = {"from": CARLOS.address, "to": world.listed, "data": data, "gas": hex(500_000)}
        reverted = world.chain.request("eth_sendTransaction", fields)
        assert world.chain.receipt(reverted)["status"] == "0x0"  # type: ignore[index]
        assert bob.escrow.settlement(job(entry, lockTx=reverted)) == Settlement(0)

    def test_a_payment_of_another_job_or_wallet_is_refused(self, world: World, bob: OceanClient) -> None:
        entry, another = world.lock(10), world.lock(10)
        with pytest.raises(InvalidInputError, match=f"locked nothing of {BOB.address}"):
            bob.escrow.settlement(job(entry, lockTx=another["payment"]["lockTx"]))
        with world.client(ALICE) as alice, pytest.raises(InvalidInputError, match="the wallet, of the job"):
            alice.escrow.settlement(job(entry))


class TestComingBack:
    def test_expired_locks_are_given_back_without_the_node_and_once(
        self, world: World, bob: OceanClient
    ) -> None:
        world.lock(10, seconds=60)
        world.lock(5, seconds=60)
        world.lock(3, seconds=4 * HOUR)
        world.lock(20, seconds=60, account=ALICE)
        assert bob.escrow.cancel_expired(world.listed, [world.token], "too early") == {}
        assert bob.transactions.mined == []
        world.later()
        assert {lock.amount for lock in bob.escrow.locks(world.listed, world.token)} == {10, 5, 3}
        assert bob.escrow.cancel_expired(world.listed, [world.token]) == {world.token: 15}
        funds = bob.escrow.funds(world.listed, world.token)
        assert (funds.available, funds.locked) == (15, 3)
        with world.client(ALICE) as alice:
            assert alice.escrow.funds(world.listed, world.token).locked == 20, "not Bob's to cancel"
        sent = len(bob.transactions.mined)
        assert bob.escrow.cancel_expired(world.listed, [world.token]) == {world.token: 15}
        assert len(bob.transactions.mined) == sent
        world.later(4 * HOUR)

    def test_an_amount_is_taken_out_of_one_escrow_after_the_other(
        self, world: World, bob: OceanClient
    ) -> None:
        for escrow in world.payees:
            world.lock(10, seconds=60, escrow=escrow)
        world.later()
        for escrow in world.payees:
            assert bob.escrow.cancel_expired(escrow, [world.token]) == {world.token: 10}
        before, both = bob.datatokens.balance(world.token), list(world.payees)
        with pytest.raises(InsufficientFundsError, match="settled, or when its time is over"):
            bob.escrow.withdraw(both, world.token, 21)
        assert bob.datatokens.balance(world.token) == before
        journal = MemoryJournal()
        # The first try ended after the first of the two.
        with world.client(BOB, journal) as first:
            assert first.escrow.withdraw([world.listed], world.token, 10) == 10
        with world.client(BOB, journal) as retry:
            assert retry.escrow.withdraw(both, world.token, 14) == 14
        with world.client(BOB, journal) as again:
            assert again.escrow.withdraw(both, world.token, 14) == 14
        assert bob.datatokens.balance(world.token) == before + 14
        assert bob.escrow.withdraw(both, world.token) == 6

    def test_a_token_that_the_contract_forgets_is_looked_at(self, world: World, bob: OceanClient) -> None:
        world.lock(10)
        payment = EscrowPayment(world.listed, CARLOS.address, world.token, 5, HOUR)
        bob.escrow.provide(payment, "more")
        bob.escrow.withdraw([world.listed], world.token)
        listed = world.chain.call(world.listed, "Escrow", "getUserTokens", BOB.address)
        assert list(listed) == []
        assert bob.escrow.tokens(world.listed) == [world.token]
        assert bob.escrow.funds(world.listed, world.token).locked == 10

    def test_the_escrows_that_are_known(
        self, world: World, bob: OceanClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert bob.escrow.known() == [world.listed]
        here = {"chainId": world.chain.chain_id, "ERC721Factory": world.token}
        listed = {
            "_about": {"earlier_escrows": {"mine": world.earlier}},
            "mine": here | {"Escrow": world.listed},
        }
        path = tmp_path / "networks.json"
        path.write_text(json.dumps(listed))
        monkeypatch.setattr(networks, "KNOWN_NETWORKS", path)
        assert bob.escrow.known() == [world.listed, world.earlier]
        own = tmp_path / "address.json"
        own.write_text(json.dumps({"mine": here}))
        network = Network(world.chain.rpc_url, "http://127.0.0.1:1", address_file=str(own))
        with OceanClient(network, BOB.private_key) as client:
            assert client.escrow.known() == [world.listed, world.earlier]
            path.write_text(json.dumps({"_about": {"earlier_escrows": {}}}))
            with pytest.raises(InvalidInputError, match="lists no contract Escrow"):
                client.escrow.known()


@pytest.mark.parametrize("more", [[], ["uint256"]], ids=["contracts 2", "contracts 3"])
def test_locks_are_read_in_both_forms(more: list[str]) -> None:
    rest = [7] * len(more)
    entries = [
        (1, BOB.address, 10, 100, FIRST, *rest),
        (2, ALICE.address, 20, 200, FIRST, *rest),
        (3, BOB.address, 30, 300, SECOND, *rest),
        (4, BOB.address, 40, 400, FIRST, *rest),
    ]
    form = f"({','.join(FIVE_FIELDS + more)})[]"
    answer = "0x" + encode([form], [entries]).hex()
    assert read_locks(answer, BOB.address, FIRST, CARLOS.address) == [
        Lock(1, CARLOS.address, FIRST, 10, 100),
        Lock(4, CARLOS.address, FIRST, 40, 400),
    ]
    assert read_locks("0x" + encode([form], [[]]).hex(), BOB.address, FIRST, CARLOS.address) == []


@pytest.mark.parametrize(
    "answer", ["0x", "0x" + "0" * 62 + "20", "0x" + encode(["uint256[]"], [[1, 2, 3]]).hex()]
)
def test_an_unknown_form_of_locks_is_refused(answer: str) -> None:
    with pytest.raises(InvalidInputError, match="unknown form"):
        read_locks(answer, BOB.address, FIRST, CARLOS.address)
