"""Aquarius killed, the chain gone, gone back, or another: what is on the chain is indexed, each asset once."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from include.localnet.chain import anvil_command
from include.localnet.contracts import ensure_deployed
from include.localnet.ethereum import Chain
from include.localnet.processes import ProcessTable
from include.localnet.settings import choose_ports
from tests.support.anvil import responds, running_anvil
from tests.support.waiting import wait_until
from tests.unit.localnet.aquarius_bench import Asset, Bench, Publisher, Service, running_bench

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with running_bench(tmp_path_factory.mktemp("restarts")) as running:
        yield running


def all_indexed(aquarius: Service) -> list[dict[str, object]]:
    return aquarius.search({"match_all": {}}, size=1000)


def test_kills_while_assets_are_published_lose_and_double_none(bench: Bench) -> None:
    aquarius, publisher = bench.aquarius, bench.publisher
    before = len(all_indexed(aquarius))
    published: list[Asset] = []

    def publish() -> None:
        for number in range(12):
            asset = publisher.publish(f"Asset {number}", flags=number % 2)
            publisher.order(asset)
            published.append(publisher.changed(asset, name=f"Asset {number} updated"))
            publisher.set_metadata(published[-1], flags=number % 2)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        for count in (1, 6):
            wait_until(lambda c=count: len(published) >= c or not thread.is_alive(), f"{count} are published")  # type: ignore[misc]
            aquarius.kill()
            aquarius.start()
    finally:
        thread.join()
    aquarius.wait_for_head(bench.chain)

    documents = {str(found["id"]): found for found in all_indexed(aquarius)}
    assert len(documents) == before + len(published) == before + 12
    for asset in published:
        document = documents[asset.did]
        assert {key: document[key] for key in asset.ddo} == asset.ddo
        assert document["stats"]["orders"] == 1  # type: ignore[index]


def test_kill_in_the_middle_of_catching_up(bench: Bench) -> None:
    aquarius = bench.aquarius
    aquarius.stop()
    assets = [bench.publisher.publish(f"Missed {number}", flags=1) for number in range(10)]
    for _ in range(2):
        aquarius.start()
        aquarius.kill()
    aquarius.start()
    aquarius.wait_for_head(bench.chain)
    for number, asset in enumerate(assets):
        assert aquarius.wait_for(asset, f"Missed {number}")["id"] == asset.did
    dids = [document["id"] for document in all_indexed(aquarius)]
    assert len(dids) == len(set(dids))


def test_reorganisation_is_followed(bench: Bench) -> None:
    aquarius, publisher, chain = bench.aquarius, bench.publisher, bench.chain
    stays = publisher.publish("Stays")
    updated = publisher.publish("Version one")
    ordered = publisher.publish("Ordered once")
    publisher.order(ordered)
    aquarius.wait_for_head(chain)

    snapshot = chain.request("evm_snapshot")
    goes = publisher.publish("Goes")
    publisher.set_metadata(publisher.changed(updated, name="Version two"))
    publisher.order(ordered)
    aquarius.wait_for(goes, "Goes")
    aquarius.wait_for(updated, "Version two")
    assert chain.request("evm_revert", snapshot)
    chain.request("evm_increaseTime", 5)
    comes = publisher.publish("Comes")

    aquarius.wait_for(comes, "Comes")
    assert aquarius.wait_for(updated, "Version one")["event"]["block"] < chain.block_number()
    assert aquarius.wait_for(stays, "Stays")
    assert aquarius.wait_for(ordered, "Ordered once")["stats"]["orders"] == 1
    names = [found["metadata"]["name"] for found in aquarius.search({"match_all": {}}, size=1000)]
    # The new NFT has the lost one's address: it is the same account's next contract.
    assert comes.did == goes.did
    assert "Goes" not in names
    assert "Version two" not in names


def test_reorganisation_while_aquarius_is_down(bench: Bench) -> None:
    aquarius, publisher, chain = bench.aquarius, bench.publisher, bench.chain
    snapshot = chain.request("evm_snapshot")
    goes = publisher.publish("Goes, too")
    aquarius.wait_for(goes, "Goes, too")
    aquarius.kill()
    assert chain.request("evm_revert", snapshot)
    aquarius.start()
    wait_until(lambda: aquarius.ddo(goes.did) is None, "the asset is gone")
    aquarius.wait_for_head(chain)


def test_fresh_chain_under_the_same_url_is_indexed_anew(tmp_path: Path) -> None:
    with running_bench(tmp_path) as bench:
        old = bench.publisher.publish("Of the old chain")
        bench.aquarius.wait_for(old, "Of the old chain")
        # anvil_reset makes the node forget everything, as a network started with --fresh does.
        bench.chain.request("anvil_reset")
        bench.chain.request("evm_increaseTime", 100)
        publisher = Publisher(bench.chain, ensure_deployed(bench.chain, bench.address_file))
        publisher.create("Shifts the addresses")
        new = publisher.publish("Of the new chain")
        bench.aquarius.wait_for(new, "Of the new chain")
        assert old.did != new.did
        wait_until(lambda: bench.aquarius.ddo(old.did) is None, "the old asset is gone")
        assert len(all_indexed(bench.aquarius)) == 1


def test_waits_for_chain_and_contracts(tmp_path: Path) -> None:
    address_file = tmp_path / "address.json"
    with running_anvil(tmp_path / "chain") as chain:
        aquarius = Service(tmp_path / "aquarius", chain.rpc_url, address_file)
        aquarius.start()
        try:
            assert aquarius.get("/chains/list").status_code == 404
            assert aquarius.get("/chains/list").json() == {"error": "No chains found."}
            wait_until(
                lambda: "address.json has no Ocean contracts" in aquarius.log, "the log says what is missing"
            )
            asset = Publisher(chain, ensure_deployed(chain, address_file)).publish("At last")
            aquarius.wait_for(asset, "At last")
        finally:
            aquarius.stop()


def test_outage_of_the_chain_is_survived(tmp_path: Path) -> None:
    table, port = ProcessTable(tmp_path / "chain"), choose_ports(0)["chain"]
    node = Chain(f"http://127.0.0.1:{port}")

    def start_chain() -> None:
        table.start("chain", anvil_command(port, tmp_path / "state"), {})
        wait_until(lambda: responds(node), "anvil answers")

    aquarius = Service(tmp_path / "aquarius", node.rpc_url, tmp_path / "address.json")
    try:
        start_chain()
        publisher = Publisher(node, ensure_deployed(node, tmp_path / "address.json"))
        aquarius.start()
        before = publisher.publish("Before the outage")
        document = aquarius.wait_for(before, "Before the outage")
        table.stop(["chain"])
        wait_until(lambda: "cannot follow" in aquarius.log, "Aquarius notices")
        assert aquarius.ddo(before.did) == document
        start_chain()
        after = publisher.publish("After the outage")
        aquarius.wait_for(after, "After the outage")
        assert aquarius.ddo(before.did) == document
        # The chain's state was loaded with its blocks, so nothing had to be indexed again.
        assert "another chain" not in aquarius.log
        assert aquarius.log.count("DDO saved") == 2
    finally:
        aquarius.stop()
        table.stop(["chain"])
