"""Publishing, allowing, handing out datatokens and asking for approval under faults, each counted exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_ocean.c2d import estimates
from include.localnet.accounts import ALICE
from include.localnet.ethereum import did_of
from include.localnet.settings import CHAIN_ID
from tests.e2e.fault_case import Case, same
from tests.e2e.fault_world import CONTAINER, ETHER

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.fault_world import World
    from tests.support.task_runner import FinishedTask

# Seconds.
_APPROVED = 120


def publish(world: World, pricing: dict[str, str] | None, algorithm: bool) -> Case:
    wallet, since = world.wallet(), world.chain.block_number()
    name = "algorithm" if algorithm else "dataset"
    url = f"{world.localnet.files_url}/{'quick.py' if algorithm else 'branin.arff'}"
    arguments: dict[str, Any] = {"asset_name": name, "url": url, "pricing": pricing}
    if algorithm:
        arguments |= {"image": CONTAINER.image, "tag": CONTAINER.tag, "checksum": CONTAINER.checksum}

    def verify(finished: FinishedTask) -> None:
        (created,) = [
            event
            for event in world.events("ERC721Factory", "NFTCreated", since, world.factory)
            if event.arguments["admin"] == wallet.address
        ]
        nft = created.arguments["newTokenAddress"]
        (token,) = world.chain.call(nft, "ERC721Template", "getTokensList")
        metadata = world.events("ERC721Template", "MetadataCreated", since, nft)
        metadata += world.events("ERC721Template", "MetadataUpdated", since, nft)
        same(1, len(metadata), "changes of the metadata")
        same(2, world.nonce(wallet.address), "transactions of the publisher")
        same(did_of(nft, CHAIN_ID), finished.xcoms["return_value"], "DID")
        same(nft, finished.xcoms["nft_address"], "NFT")
        same(token, finished.xcoms["datatoken_address"], "datatoken")
        same([created.transaction, metadata[0].transaction], finished.xcoms["transactions"], "transactions")
        ddo = world.ddo(finished.xcoms["return_value"])
        same(metadata[0].transaction, ddo["event"]["tx"], "indexed transaction")
        same(name, ddo["metadata"]["name"], "indexed name")

    return Case(arguments, wallet.private_key, verify)


def allow(world: World, _folder: Path) -> Case:
    dataset, algorithm = world.assets["changed"], world.assets["quick"].did
    with world.client(ALICE.private_key) as client:
        client.assets.revoke_algorithm(dataset.did, algorithm_did=algorithm)
    since, nonce = world.chain.block_number(), world.nonce(ALICE.address)

    def verify(finished: FinishedTask) -> None:
        (changed,) = world.events("ERC721Template", "MetadataUpdated", since, dataset.nft_address)
        same(1, world.nonce(ALICE.address) - nonce, "transactions")
        same([changed.transaction], finished.xcoms["transactions"], "transactions told")
        same(dataset.did, finished.xcoms["return_value"], "DID")
        trusted = world.ddo(dataset.did)["services"][0]["compute"]["publisherTrustedAlgorithms"]
        same([algorithm], [entry["did"] for entry in trusted], "trusted algorithms")

    return Case({"dataset_did": dataset.did, "algorithm_did": algorithm}, ALICE.private_key, verify)


def mint(world: World, _folder: Path) -> Case:
    names, amount = ("held", "quick"), 4_350_000_000_000_000_001
    receiver = world.wallet()
    nonce, since = world.nonce(ALICE.address), world.chain.block_number()

    def verify(finished: FinishedTask) -> None:
        for name in names:
            token = world.assets[name].datatoken_address
            same([amount], world.received(token, receiver.address, since), f"mints of {name}")
        same(2, world.nonce(ALICE.address) - nonce, "transactions")
        same(2, len(set(finished.xcoms["return_value"])), "transactions told")

    dids = [world.assets[name].did for name in names]
    arguments = {"asset_dids": dids, "amount": "4.350000000000000001", "to": receiver.address}
    return Case(arguments, ALICE.private_key, verify)


def transfer(world: World, _folder: Path) -> Case:
    wallet, receiver = world.wallet(held=2 * ETHER), world.wallet()
    token = world.assets["held"].datatoken_address

    def verify(finished: FinishedTask) -> None:
        same(ETHER // 2, world.balance(token, receiver.address), "received")
        same(2 * ETHER - ETHER // 2, world.balance(token, wallet.address), "kept")
        same(1, world.nonce(wallet.address), "transactions")
        same(1, len(finished.xcoms["return_value"]), "transactions told")

    arguments = {
        "asset_dids": world.assets["held"].did, "amount": "0.5", "method": "transfer", "to": receiver.address,
    }  # fmt: skip
    return Case(arguments, wallet.private_key, verify)


def dispense(world: World, _folder: Path) -> Case:
    wallet = world.wallet()
    token = world.assets["dispensed"].datatoken_address

    def verify(finished: FinishedTask) -> None:
        same(3 * ETHER, world.balance(token, wallet.address), "dispensed")
        same(1, world.nonce(wallet.address), "transactions")
        same(1, len(finished.xcoms["return_value"]), "transactions told")

    arguments = {"asset_dids": world.assets["dispensed"].did, "amount": 3, "method": "dispense"}
    return Case(arguments, wallet.private_key, verify)


def buy(world: World, _folder: Path) -> Case:
    wallet, since = world.wallet(ocean=100 * ETHER), world.chain.block_number()
    token = world.assets["sold"].datatoken_address

    def verify(finished: FinishedTask) -> None:
        same([2 * ETHER], world.received(token, wallet.address, since), "bought")
        (price,) = world.bought(wallet, since)
        same(100 * ETHER - price, world.balance(world.ocean, wallet.address), "OCEAN left")
        same(0, world.allowance(world.ocean, wallet.address, world.exchange), "allowance left")
        same(2, world.nonce(wallet.address), "transactions")
        same(2, len(finished.xcoms["return_value"]), "transactions told")

    arguments = {"asset_dids": world.assets["sold"].did, "amount": 2, "method": "buy", "max_cost": "10"}
    return Case(arguments, wallet.private_key, verify)


def approve(world: World, _folder: Path) -> Case:
    wallet = world.wallet(ocean=100 * ETHER)
    dataset, algorithm = (world.assets[name].did for name in ("sold", "quick dispensed"))
    with world.client(wallet.private_key) as client:
        with_orders = [found for found in client.orders.environments() if found.needs_orders]
        environment = min(with_orders, key=lambda found: found.price(_APPROVED)).id
        quote = client.orders.quote([dataset], algorithm, environment=environment, duration=_APPROVED)
        cost = estimates.of_payment(client, quote, _APPROVED).totals()[world.ocean]
    assert cost > 3 * ETHER

    def verify(finished: FinishedTask) -> None:
        told = finished.xcoms["quote"]["totals"]
        same(str(cost), told[world.ocean], "OCEAN that the run may cost")
        same({"*": "10"}, finished.xcoms["return_value"], "limit of the payment")
        same(0, world.nonce(wallet.address), "transactions")
        same(100 * ETHER, world.balance(world.ocean, wallet.address), "OCEAN left")

    arguments = {
        "dataset_dids": [dataset], "algorithm_did": algorithm, "environment": environment, "duration": _APPROVED,
        "spending_limit": "10",
    }  # fmt: skip
    return Case(arguments, wallet.private_key, verify)
