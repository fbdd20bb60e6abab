"""Deployment of the real Ocean contracts to the development chain, and the money its accounts start with."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import rlp
from eth_utils import keccak, to_checksum_address

from include.localnet.accounts import ACCOUNTS, DEPLOYER
from include.localnet.ethereum import Chain, artifact, encode_call
from include.localnet.settings import CHAIN_ID, NETWORK_NAME, replace_text

# Pools are gone from Ocean, but the router's constructor still wants a template that is not the zero address.
_NO_POOL_TEMPLATE = "0x000000000000000000000000000000000000dEaD"
_WEI = 10**18
OCEAN_PER_ACCOUNT = 100_000 * _WEI
_WEEK = 7 * 24 * 3600
# The largest template takes 5.6 million gas; estimating would mean to wait for the transactions before. The fee
# (wei per gas) is far above anvil's first base fee of 1 gwei.
_ENVELOPE: dict[str, Any] = {
    "type": 2,
    "chainId": CHAIN_ID,
    "gas": 7_000_000,
    "maxFeePerGas": 100 * 10**9,
    "maxPriorityFeePerGas": 10**9,
    "value": 0,
}


class DeploymentError(Exception):
    """The contracts could not be deployed, or the chain is not one to deploy to."""


class _Plan:
    """The deployer's transactions from nonce 0 on, which make every contract's address known beforehand.

    The plan is the same for each chain, so a deployment that was cut short goes on where it stopped.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[str, dict[str, Any]]] = []
        self._created: dict[int, str] = {}

    def create(self, contract: str, *arguments: Any) -> str:
        """Plan a contract's deployment and return its checksummed address."""
        sender = bytes.fromhex(DEPLOYER.address[2:])
        address: str = to_checksum_address(keccak(rlp.encode([sender, len(self._steps)]))[12:])
        parts = artifact(contract)
        has_constructor = any(entry["type"] == "constructor" for entry in parts["abi"])
        data = parts["bytecode"] + (encode_call(contract, "", *arguments)[2:] if has_constructor else "")
        self._created[len(self._steps)] = address
        self._steps.append((f"deployment of {contract}", {"data": data}))
        return address

    def call(self, address: str, contract: str, function: str, *arguments: Any) -> None:
        """Plan a transaction to a contract."""
        data = encode_call(contract, function, *arguments)
        self._steps.append((f"{contract}.{function}", {"to": address, "data": data}))

    def carry_out(self, chain: Chain) -> None:
        """Send what the chain does not have yet and have it mined at once, whatever the block time.

        :raises DeploymentError: when the deployer was used for something else before, or when a transaction reverted
            or is not mined within 30 seconds
        """
        done = _nonce(chain)
        missing = [a for nonce, a in self._created.items() if nonce < done and not chain.is_contract(a)]
        if missing:
            raise DeploymentError(
                f"{chain.rpc_url} has no contract at {', '.join(missing)}: the deployer {DEPLOYER.address} was used "
                "for something else before; start with a new chain (`python -m include.localnet up --fresh`)"
            )
        if done >= len(self._steps):
            return
        # Takes half a second to import, which every `up` of an existing chain would wait for.
        from eth_account import Account as Signer

        sent = []
        for nonce in range(done, len(self._steps)):
            what, fields = self._steps[nonce]
            raw = Signer.sign_transaction(_ENVELOPE | {"nonce": nonce} | fields, DEPLOYER.private_key)
            transaction = chain.request("eth_sendRawTransaction", "0x" + bytes(raw.rawTransaction).hex())
            sent.append((what, transaction))
        deadline = time.monotonic() + 30
        while (mined := _nonce(chain)) < len(self._steps):
            if time.monotonic() > deadline:
                raise DeploymentError(
                    f"only {mined} of {len(self._steps)} transactions of the deployer {DEPLOYER.address} "
                    f"were mined within 30 seconds on {chain.rpc_url}"
                )
            chain.request("evm_mine")
        for what, transaction in sent:
            receipt = chain.receipt(transaction)
            if receipt is None or int(receipt["status"], 16) != 1:
                raise DeploymentError(f"{what} reverted on {chain.rpc_url} (transaction {transaction})")


def _nonce(chain: Chain) -> int:
    return int(chain.request("eth_getTransactionCount", DEPLOYER.address, "latest"), 16)


def _deploy_market(plan: _Plan) -> dict[str, Any]:
    owner = DEPLOYER.address
    ocean = plan.create("OceanToken", owner)
    collector = plan.create("OPFCommunityFeeCollector", owner, owner)
    router = plan.create("FactoryRouter", owner, ocean, _NO_POOL_TEMPLATE, collector, [])
    fixed_rate = plan.create("FixedRateExchange", router)
    templates = [plan.create(name) for name in ("ERC20Template", "ERC20TemplateEnterprise", "ERC20Template3")]
    nft_template = plan.create("ERC721Template")
    dispenser = plan.create("Dispenser", router)
    factory = plan.create("ERC721Factory", nft_template, templates[0], router)
    for template in templates[1:]:
        plan.call(factory, "ERC721Factory", "addTokenTemplate", template)
    plan.call(router, "FactoryRouter", "addFactory", factory)
    plan.call(router, "FactoryRouter", "addFixedRateContract", fixed_rate)
    plan.call(router, "FactoryRouter", "addDispenserContract", dispenser)
    return {
        "Ocean": ocean,
        "OPFCommunityFeeCollector": collector,
        "Router": router,
        "FixedPrice": fixed_rate,
        "ERC20Template": {str(number): address for number, address in enumerate(templates, 1)},
        "ERC721Template": {"1": nft_template},
        "Dispenser": dispenser,
        "ERC721Factory": factory,
    }


def _deploy_stablecoins(plan: _Plan) -> dict[str, Any]:
    """Deploy the tokens that ocean-lib's tests pay Provider fees in; their supply belongs to the deployer."""
    return {
        "MockDAI": plan.create("MockERC20Decimals", "DAI", "DAI", 18),
        "MockUSDC": plan.create("MockERC20Decimals", "USDC", "USDC", 6),
    }


def _deploy_data_farming(plan: _Plan, ocean: str, now: int) -> dict[str, Any]:
    """Deploy veOCEAN and the data farming contracts of ocean.py's ``df.md``.

    :param now: Unix time of the newest block; the fee distributor counts weeks from it
    """
    owner = DEPLOYER.address
    ve_ocean = plan.create("veOCEAN", ocean, "veOCEAN", "veOCEAN", "0.1.0")
    distributor = plan.create("veFeeDistributor", ve_ocean, now // _WEEK * _WEEK, ocean, owner, owner)
    rewards = plan.create("DFRewards")
    return {
        "veOCEAN": ve_ocean,
        "veAllocate": plan.create("veAllocate"),
        "veDelegation": plan.create(
            "veDelegation", "Voting Escrow Boost Delegation", "veDelegation", "", ve_ocean
        ),
        "veFeeDistributor": distributor,
        "veFeeEstimate": plan.create("veFeeEstimate", ve_ocean, distributor),
        "SmartWalletChecker": plan.create("SmartWalletChecker"),
        "DFRewards": rewards,
        "DFStrategyV1": plan.create("DFStrategyV1", rewards),
    }


def _deploy_escrow(plan: _Plan, router: str, collector: str) -> dict[str, Any]:
    """Deploy what consumers pay Ocean Nodes through.

    It comes with ``ocean-contracts`` 2.3 and later; ``requirements-override.txt`` says which release is taken and why.
    """
    return {"Escrow": plan.create("Escrow", router, collector)}


def ensure_deployed(chain: Chain, address_file: Path) -> dict[str, Any]:
    """Deploy what is missing, mint OCEAN to every development account, and write the address file.

    :returns: ocean-lib's address entry of the network ``development``
    :raises DeploymentError: when the chain is not the development chain or a transaction fails
    """
    if chain.chain_id != CHAIN_ID:
        raise DeploymentError(
            f"{chain.rpc_url} is chain {chain.chain_id}, not the development chain {CHAIN_ID}; nothing was deployed"
        )
    newest = chain.block()
    now = int(newest["timestamp"], 16) if newest else int(time.time())
    plan = _Plan()
    addresses = _deploy_market(plan)
    addresses |= _deploy_stablecoins(plan)
    addresses |= _deploy_data_farming(plan, addresses["Ocean"], now)
    for account in ACCOUNTS:
        plan.call(addresses["Ocean"], "OceanToken", "mint", account.address, OCEAN_PER_ACCOUNT)
    # Last, so that a chain made before there was one has only this to do.
    addresses |= _deploy_escrow(plan, addresses["Router"], addresses["OPFCommunityFeeCollector"])
    plan.carry_out(chain)
    entry = {"chainId": CHAIN_ID, "startBlock": 0, **addresses}
    address_file.parent.mkdir(parents=True, exist_ok=True)
    replace_text(address_file, json.dumps({NETWORK_NAME: entry}, indent=2))
    return entry


def main() -> None:
    """Deploy to a chain that runs already, as ``python -m include.localnet.contracts``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rpc-url", required=True, help="JSON-RPC URL of an anvil with barge's mnemonic")
    parser.add_argument("--address-file", required=True, type=Path, help="where the addresses are written")
    arguments = parser.parse_args()
    entry = ensure_deployed(Chain(arguments.rpc_url), arguments.address_file)
    print(json.dumps(entry, indent=2))


if __name__ == "__main__":
    main()
