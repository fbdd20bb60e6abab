"""The public networks as data: whole, valid, the same as the package of the contracts has them, and chosen with care."""

from __future__ import annotations

import importlib.resources
import json
from typing import TYPE_CHECKING, Any

import pytest
from eth_utils import is_checksum_address, is_same_address
from ocean_lib.web3_internal.contract_utils import get_contracts_addresses

from airflow_ocean.c2d import oceanlib
from airflow_ocean.c2d.client import OceanClient
from airflow_ocean.c2d.errors import InvalidInputError
from airflow_ocean.c2d.network import KNOWN_NETWORKS, Network, known_escrows, known_networks
from include.localnet.accounts import BOB

if TYPE_CHECKING:
    from pathlib import Path

LISTED: dict[str, Any] = json.loads(KNOWN_NETWORKS.read_text())
ABOUT = LISTED.pop("_about")
# In the form that ocean-lib reads; without one of them it cannot publish, order or price.
REQUIRED = {"ERC721Factory", "ERC721Template", "ERC20Template", "Router", "FixedPrice", "Dispenser"}
CHAINS = {
    "sepolia": 11155111,
    "optimism_sepolia": 11155420,
    "base": 8453,
    "optimism": 10,
    "mainnet": 1,
}


def flat(value: dict[str, str] | str | int) -> str:
    return json.dumps(value).lower()


def network(**fields: Any) -> Network:
    return Network("http://127.0.0.1:1", "http://127.0.0.1:2", **fields)


def test_the_networks_that_can_be_named() -> None:
    assert {name: known.chain_id for name, known in known_networks().items()} == CHAINS
    for name, known in known_networks().items():
        assert known.explorer_url.startswith("https://")
        assert not known.explorer_url.endswith("/")
        assert known.title
        assert "Escrow" in LISTED[name], "an Ocean Node's paid jobs need one"
    assert len({known.explorer_url for known in known_networks().values()}) == len(CHAINS)
    assert set(ABOUT["explorers"]) == set(ABOUT["names"])


@pytest.mark.parametrize("name", LISTED)
def test_each_network_has_what_is_used_of_it(name: str) -> None:
    contracts = LISTED[name]
    assert contracts.keys() >= REQUIRED
    assert ("Ocean" in contracts) is (name != "base")
    addresses = []
    for key in contracts.keys() - {"chainId"}:
        value = contracts[key]
        addresses += value.values() if isinstance(value, dict) else [value]
    assert all(is_checksum_address(address) for address in addresses)
    assert len(set(addresses)) == len(addresses)
    assert {"1", "2"} <= contracts["ERC20Template"].keys()


def test_no_chain_is_listed_twice() -> None:
    chains = [contracts["chainId"] for contracts in LISTED.values()]
    assert len(set(chains)) == len(chains)


def test_the_contracts_that_did_not_change_are_those_of_the_locked_package() -> None:
    """The locked ocean-contracts is older than the list; of what is used only the Escrows are others since.

    Ocean Node 3.2 is built with the same release as is locked.
    """
    text = importlib.resources.files("addresses").joinpath("address.json").read_text()
    locked: dict[str, Any] = json.loads(text)
    assert set(locked) == set(LISTED)
    with_escrow = {name: entry["Escrow"] for name, entry in LISTED.items() if "Escrow" in entry}
    assert ABOUT["earlier_escrows"].keys() == with_escrow.keys()
    for name, escrow in with_escrow.items():
        earlier = ABOUT["earlier_escrows"][name]
        assert is_checksum_address(earlier)
        assert is_same_address(earlier, locked[name]["Escrow"])
        assert known_escrows(LISTED[name]["chainId"]) == [escrow, earlier]
    assert known_escrows(8996) == []
    for name, contracts in LISTED.items():
        for key, value in contracts.items():
            same = locked[name][key]
            if key == "Escrow":
                assert not is_same_address(value, same)
            else:
                assert flat(value) == flat(same), (name, key)


@pytest.mark.parametrize("name", CHAINS)
def test_ocean_lib_finds_the_contracts(name: str) -> None:
    assert network().contracts(CHAINS[name]) == (name, LISTED[name])
    config = oceanlib.ocean_config(network(), None, CHAINS[name])
    found = get_contracts_addresses(config)
    assert found["ERC721Factory"] == LISTED[name]["ERC721Factory"]
    assert found["ERC20Template"]["2"] == LISTED[name]["ERC20Template"]["2"]


def test_an_address_file_of_the_connections_own_wins(tmp_path: Path) -> None:
    path = tmp_path / "address.json"
    path.write_text(json.dumps({"mine": {"chainId": 11155111, "ERC721Factory": "0x1"}}))
    own = network(address_file=str(path), known=known_networks()["sepolia"])
    assert own.contracts(11155111)[0] == "mine"
    with pytest.raises(InvalidInputError, match="chain 10 "):
        own.contracts(10)


@pytest.mark.parametrize(("chain", "called"), [(11155420, "Optimism Sepolia"), (8996, "another one")])
def test_another_chain_than_the_named_one_is_refused(chain: int, called: str) -> None:
    sepolia = network(known=known_networks()["sepolia"])
    sepolia.check_chain(11155111)
    network().check_chain(chain)
    with pytest.raises(
        InvalidInputError, match=rf"Sepolia.*11155111.*127\.0\.0\.1:1 is of chain {chain}.*{called}"
    ):
        sepolia.check_chain(chain)


def test_nothing_is_signed_for_another_chain(localnet: Any) -> None:
    wrong = Network(localnet.rpc_url, localnet.provider_url, known=known_networks()["sepolia"])
    with OceanClient(wrong, BOB.private_key) as client:
        with pytest.raises(InvalidInputError, match="chain 8996"):
            client.datatokens.mint("0x" + "12" * 20, BOB.address, 1)
        with pytest.raises(InvalidInputError, match="chain 8996"), client.transactions.step("anything"):
            pass
        assert client.transactions.mined == []
