"""The chain in the network: its accounts, the search for anvil, and the state that outlives it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from eth_account import Account as Signer

from include.localnet import chain, network
from include.localnet.accounts import ACCOUNTS, ALICE, BOB, DEPLOYER, MNEMONIC
from include.localnet.ethereum import Chain, encode_call
from include.localnet.settings import CHAIN_ID, NETWORK_NAME, NetworkSettings, choose_ports
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[NetworkSettings]:
    settings = NetworkSettings(tmp_path / "a home", choose_ports(0))
    yield settings
    network.down(settings.home)


def up(settings: NetworkSettings, **options: bool) -> Chain:
    network.up(settings, services=(), **options)
    return Chain(settings.rpc_url)


def ocean_of(settings: NetworkSettings) -> str:
    address: str = json.loads(settings.address_file.read_text())[NETWORK_NAME]["Ocean"]
    return address


def send_ocean(node: Chain, ocean: str, amount: int) -> str:
    """Send OCEAN from Alice to Bob and return the transaction's hash."""
    signed = Signer.sign_transaction(
        {
            "type": 2,
            "chainId": CHAIN_ID,
            "nonce": int(node.request("eth_getTransactionCount", ALICE.address, "pending"), 16),
            "gas": 200_000,
            "maxFeePerGas": 10**11,
            "maxPriorityFeePerGas": 10**9,
            "value": 0,
            "to": ocean,
            "data": encode_call("OceanToken", "transfer", BOB.address, amount),
        },
        ALICE.private_key,
    )
    sent: str = node.request("eth_sendRawTransaction", "0x" + bytes(signed.rawTransaction).hex())
    return sent


def test_accounts_are_those_of_the_mnemonic() -> None:
    Signer.enable_unaudited_hdwallet_features()
    for account in ACCOUNTS:
        derived = Signer.from_mnemonic(MNEMONIC, account_path=f"m/44'/60'/0'/0/{account.index}")
        assert (derived.address, derived.key.hex()) == (account.address, account.private_key), account.name


def test_private_keys_are_not_shown() -> None:
    assert ALICE.private_key not in repr(ALICE)


def test_a_wrong_path_to_anvil_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ANVIL", str(tmp_path / "nothing"))
    with pytest.raises(chain.AnvilNotFound, match="nothing"):
        chain.find_anvil()


def test_a_missing_anvil_tells_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ANVIL", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(chain, "PROJECT", tmp_path)
    with pytest.raises(chain.AnvilNotFound, match="make"):
        chain.find_anvil()


def test_the_native_binary_is_preferred_to_the_starter_script(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ANVIL", raising=False)
    monkeypatch.setattr(chain, "PROJECT", tmp_path)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    starter = tmp_path / "node_modules/.bin/anvil"
    native = tmp_path / "node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil"
    for binary in (starter, native):
        binary.parent.mkdir(parents=True)
        binary.touch(mode=0o755)
    assert chain.find_anvil() == str(native)
    native.unlink()
    assert chain.find_anvil() == str(starter)


def test_the_whole_history_survives_down_and_up(settings: NetworkSettings) -> None:
    node = up(settings)
    ocean = ocean_of(settings)
    transaction = send_ocean(node, ocean, 4321)
    receipt = wait_until(lambda: node.receipt(transaction), "the transfer is mined")
    number = int(receipt["blockNumber"], 16)
    block, logs = node.block(number), node.request("eth_getLogs", {"fromBlock": "0x0", "toBlock": "latest"})
    balance = node.call(ocean, "OceanToken", "balanceOf", BOB.address)
    genesis = node.block(0)
    network.down(settings.home)

    node = up(settings)
    assert node.block_number() == number
    assert node.receipt(transaction) == receipt
    assert node.transaction(transaction) is not None
    assert node.block(number) == block
    assert node.block(0) == genesis
    assert node.request("eth_getLogs", {"fromBlock": "0x0", "toBlock": "latest"}) == logs
    assert node.call(ocean, "OceanToken", "balanceOf", BOB.address) == balance

    later = send_ocean(node, ocean, 1)
    assert (
        wait_until(lambda: node.receipt(later), "a transaction after the restart is mined")["status"] == "0x1"
    )


def test_fresh_starts_a_new_chain_and_keeps_served_files(settings: NetworkSettings) -> None:
    node = up(settings)
    deployed = node.block_number()
    transaction = send_ocean(node, ocean_of(settings), 1)
    wait_until(lambda: node.receipt(transaction), "the transfer is mined")
    settings.files_folder.mkdir()
    (settings.files_folder / "mine.csv").write_text("1")

    node = up(settings, fresh=True)  # while it runs
    assert node.block_number() == deployed
    assert node.transaction(transaction) is None
    assert (settings.files_folder / "mine.csv").read_text() == "1"


def test_block_time_holds_for_transactions_and_not_for_the_deployment(settings: NetworkSettings) -> None:
    slow = NetworkSettings(settings.home, settings.ports, block_time=3600)
    node = up(slow)
    before = node.block_number()
    transaction = send_ocean(node, ocean_of(slow), 1)
    pending = node.transaction(transaction)
    assert pending is not None
    assert pending["blockNumber"] is None
    assert node.block_number() == before
    node.request("evm_mine")
    assert wait_until(lambda: node.receipt(transaction), "the transfer is mined")["status"] == "0x1"


def test_blocks_come_without_transactions_when_there_is_a_block_time(settings: NetworkSettings) -> None:
    node = up(NetworkSettings(settings.home, settings.ports, block_time=1))
    before = node.block_number()
    wait_until(lambda: node.block_number() >= before + 2, "two more blocks are mined")


def test_the_chain_answers_only_as_the_development_chain(settings: NetworkSettings) -> None:
    assert not chain.answers(settings.rpc_url)
    node = up(settings)
    assert chain.answers(settings.rpc_url)
    assert node.chain_id == CHAIN_ID
    assert int(node.request("eth_getBalance", DEPLOYER.address, "latest"), 16) > 1000 * 10**18
