"""The Ocean contracts on the development chain."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from include.localnet.accounts import ACCOUNTS, ALICE, DEPLOYER
from include.localnet.contracts import OCEAN_PER_ACCOUNT, DeploymentError, ensure_deployed
from include.localnet.ethereum import ZERO_ADDRESS, Chain
from tests.support.anvil import running_anvil

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with running_anvil(tmp_path_factory.mktemp("anvil")) as node:
        yield node


@pytest.fixture(scope="module")
def address_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("addresses") / "new folder" / "address.json"


@pytest.fixture(scope="module")
def entry(node: Chain, address_file: Path) -> dict[str, Any]:
    return ensure_deployed(node, address_file)


def addresses_in(entry: dict[str, Any]) -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in entry.items():
        if isinstance(value, dict):
            flat |= {f"{name} {key}": address for key, address in value.items()}
        elif isinstance(value, str):
            flat[name] = value
    return flat


def test_every_address_has_code(node: Chain, entry: dict[str, Any]) -> None:
    addresses = addresses_in(entry)
    assert len(addresses) == len(set(addresses.values())) == 21
    assert [name for name, address in addresses.items() if not node.is_contract(address)] == []


def test_the_market_is_wired(node: Chain, entry: dict[str, Any]) -> None:
    def router(function: str, *arguments: Any) -> Any:
        return node.call(entry["Router"], "FactoryRouter", function, *arguments)

    assert router("factory") == entry["ERC721Factory"]
    assert router("isFixedRateContract", entry["FixedPrice"])
    assert router("isDispenserContract", entry["Dispenser"])
    assert router("isApprovedToken", entry["Ocean"])
    assert router("getOPCCollector") == entry["OPFCommunityFeeCollector"]
    assert router("routerOwner") == DEPLOYER.address

    def factory(function: str, *arguments: Any) -> Any:
        return node.call(entry["ERC721Factory"], "ERC721Factory", function, *arguments)

    assert factory("getCurrentNFTTemplateCount") == 1
    assert factory("getNFTTemplate", 1) == (entry["ERC721Template"]["1"].lower(), True)
    assert factory("getCurrentTemplateCount") == 3
    for number in (1, 2, 3):
        assert factory("getTokenTemplate", number) == (entry["ERC20Template"][str(number)].lower(), True)


def test_every_account_has_ether_and_ocean(node: Chain, entry: dict[str, Any]) -> None:
    for account in ACCOUNTS:
        assert node.call(entry["Ocean"], "OceanToken", "balanceOf", account.address) == OCEAN_PER_ACCOUNT
        assert int(node.request("eth_getBalance", account.address, "latest"), 16) > 1000 * 10**18


def test_the_stablecoins_belong_to_the_deployer(node: Chain, entry: dict[str, Any]) -> None:
    for name, decimals in (("MockDAI", 18), ("MockUSDC", 6)):
        assert node.call(entry[name], "MockERC20Decimals", "decimals") == decimals
        assert node.call(entry[name], "MockERC20Decimals", "balanceOf", DEPLOYER.address) > 0


def test_ocean_lib_reads_the_address_file(entry: dict[str, Any], address_file: Path) -> None:
    from ocean_lib.ocean.util import get_address_of_type, get_ocean_token_address

    config = {"NETWORK_NAME": "development", "ADDRESS_FILE": str(address_file)}
    assert get_ocean_token_address(config) == entry["Ocean"]
    assert get_address_of_type(config, "ERC721Factory") == entry["ERC721Factory"]
    assert get_address_of_type(config, "ERC20Template", "2") == entry["ERC20Template"]["2"]
    assert get_address_of_type(config, "ERC721Template") == entry["ERC721Template"]["1"]


def test_deploying_again_sends_nothing_and_restores_the_file(
    node: Chain, entry: dict[str, Any], address_file: Path
) -> None:
    block = node.block_number()
    address_file.unlink()
    assert ensure_deployed(node, address_file) == entry
    assert node.block_number() == block
    assert json.loads(address_file.read_text()) == {"development": entry}


class FailingChain(Chain):
    """Loses the connection after some transactions."""

    def __init__(self, rpc_url: str, transactions: int) -> None:
        super().__init__(rpc_url)
        self._left = transactions

    def request(self, method: str, *params: Any) -> Any:
        if method == "eth_sendRawTransaction":
            self._left -= 1
            if self._left < 0:
                raise ConnectionError("lost")
        return super().request(method, *params)


def test_an_interrupted_deployment_goes_on_where_it_stopped(
    tmp_path: Path, node: Chain, entry: dict[str, Any]
) -> None:
    file = tmp_path / "address.json"
    with running_anvil(tmp_path) as other:
        with pytest.raises(ConnectionError):
            ensure_deployed(FailingChain(other.rpc_url, 9), file)
        assert not file.exists()
        assert ensure_deployed(other, file) == entry
        count = int(other.request("eth_getTransactionCount", DEPLOYER.address, "latest"), 16)
        assert count == int(node.request("eth_getTransactionCount", DEPLOYER.address, "latest"), 16)
        assert other.call(entry["Ocean"], "OceanToken", "balanceOf", ALICE.address) == OCEAN_PER_ACCOUNT


def test_another_chain_is_left_alone(tmp_path: Path) -> None:
    with running_anvil(tmp_path, chain_id=31337) as other:
        with pytest.raises(DeploymentError, match="31337"):
            ensure_deployed(other, tmp_path / "address.json")
        assert other.block_number() == 0


def test_a_used_deployer_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with running_anvil(tmp_path) as other:
        transfer = {"from": DEPLOYER.address, "to": ZERO_ADDRESS, "value": "0x1"}
        other.request("eth_sendTransaction", transfer)
        other.request("evm_mine")
        with pytest.raises(DeploymentError, match="--fresh"):
            ensure_deployed(other, tmp_path / "address.json")
        assert not (tmp_path / "address.json").exists()
