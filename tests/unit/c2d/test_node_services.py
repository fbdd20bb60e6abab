"""The client's half for Ocean Node against the local one: publish, run free and paid, read results, stop."""

from __future__ import annotations

import asyncio
import io
import tarfile
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from airflow_ocean.c2d.errors import (
    AssetNotFoundError,
    InsufficientFundsError,
    InvalidInputError,
    JobNotFoundError,
    NotAllowedError,
)
from airflow_ocean.c2d.polling import waiting
from airflow_ocean.c2d.services import (
    AssetInput,
    JobRequest,
    JobTerms,
    OceanServices,
    fetch_job,
    follow_log,
    generation,
    open_job_reader,
)
from airflow_ocean.c2d.services.node import NodeServices
from airflow_ocean.c2d.services.node_signing import signing_nonce
from airflow_ocean.c2d.waits import Trouble
from airflow_ocean.c2d.wallet import Wallet
from include.localnet import accounts
from include.localnet.contracts import ensure_deployed
from include.localnet.ethereum import ZERO_ADDRESS
from include.localnet.settings import CHAIN_ID
from tests.support.anvil import running_anvil
from tests.support.waiting import wait_until
from tests.unit.localnet.aquarius_bench import Publisher, ddo
from tests.unit.localnet.node_bench import Gate, NodeProcess, file_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_ocean.c2d.jobs import Job
    from airflow_ocean.c2d.services.node_jobs import NodeJob

SCRIPT = "echo begun; echo 3 >&2; cat /data/inputs/numbers.csv > /data/outputs/copy.csv; sleep $(cat /data/inputs/seconds)\n"
CONTAINER = {"entrypoint": "/bin/sh $ALGO", "image": "any", "tag": "v1", "checksum": "sha256:00"}
OCEANS = 20 * 10**18


class World:
    """A node on a chain, Alice's published assets, and Bob's services."""

    def __init__(self, node: NodeProcess, publisher: Publisher, files: str, home: Path) -> None:
        self.node, self.publisher, self.files, self.home = node, publisher, files, home
        self.folder = home / "files"
        self.alice = self.services(accounts.ALICE)
        self.bob = self.services(accounts.BOB)
        self.algorithm = self.publish("script.sh", type="algorithm", algorithm={
            "language": "sh", "version": "1", "container": CONTAINER,
        })  # fmt: skip
        self.data = self.publish("numbers.csv", trusted=[self.algorithm.did])
        self.pause = self.publish("seconds", trusted=[self.algorithm.did])
        self.closed = self.publish("seconds", trusted=[])

    def services(self, account: accounts.Account) -> NodeServices:
        return NodeServices(cast("Any", None), Wallet(account.private_key), CHAIN_ID, self.node.url)

    def publish(self, file: str, trusted: list[str] | None = None, **metadata: Any) -> AssetInput:
        """Publish a file as an asset, through the client."""
        asset = self.publisher.create(file)
        document = ddo(asset.nft, asset.datatoken, file, **metadata)
        (service,) = document["services"]
        service["serviceEndpoint"] = self.node.url
        entry = {"type": "url", "url": f"{self.files}/{file}", "method": "GET"}
        service["files"] = self.alice.encrypt_files(
            {"nftAddress": asset.nft, "datatokenAddress": asset.datatoken, "files": [entry]}
        )
        if trusted is not None:
            wanted = {"filesChecksum": "*", "containerSectionChecksum": "*"}
            service["type"] = "compute"
            service["compute"] = {
                "allowRawAlgorithm": False,
                "allowNetworkAccess": False,
                "publisherTrustedAlgorithmPublishers": [],
                "publisherTrustedAlgorithms": [{"did": did, **wanted} for did in trusted],
            }
        prepared = self.alice.prepare_metadata(document)
        receipt = self.publisher.send(
            asset.nft, "ERC721Template", "setMetaData",
            0, prepared.decryptor_url, prepared.decryptor_address, bytes([prepared.flags]),
            bytes.fromhex(prepared.data[2:]), bytes.fromhex(prepared.digest[2:]), prepared.proofs,
        )  # fmt: skip
        block = int(receipt["blockNumber"], 16)
        shown = self.alice.wait_until_indexed(document["id"], receipt["transactionHash"], block, 60)
        assert shown["metadata"]["name"] == file
        return AssetInput(document["id"], service["id"])

    def ordered(self, item: AssetInput, fee: dict[str, Any], consumer: str) -> AssetInput:
        """Order an asset for a consumer, as Bob."""
        token = self.bob.resolve(item.did)["datatokens"][0]["address"]
        self.publisher.send(token, "ERC20Template", "mint", accounts.BOB.address, 10**18)
        parts = [bytes.fromhex(fee[name][2:]) for name in ("r", "s", "providerData")]
        paid = (
            fee["providerFeeAddress"], fee["providerFeeToken"], int(fee["providerFeeAmount"]),
            fee["v"], parts[0], parts[1], fee["validUntil"], parts[2],
        )  # fmt: skip
        receipt = self.publisher.send(
            token, "ERC20Template", "startOrder", consumer, 0, paid, (ZERO_ADDRESS, ZERO_ADDRESS, 0),
            sender=accounts.BOB.address,
        )  # fmt: skip
        return AssetInput(item.did, item.service_id, receipt["transactionHash"])

    def wait_for(self, job: Job, *states: int) -> NodeJob:
        wait_until(lambda: self.bob.job(job.id).state in states, f"{job.id} is {states}", 120)
        return cast("NodeJob", self.bob.job(job.id))

    def result(self, job: Job, kind: str) -> bytes:
        (file,) = [file for file in job.results if file.type == kind]
        with self.bob.open_result(job.id, file.index) as stream:
            return b"".join(stream.chunks)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home: Path = tmp_path_factory.mktemp("node")
    folder = home / "files"
    folder.mkdir()
    for name, text in (("script.sh", SCRIPT), ("numbers.csv", "1,2\n"), ("seconds", "1")):
        (folder / name).write_text(text)
    with running_anvil(home / "chain") as chain, file_server(folder, Gate()) as files:
        address_file = home / "address.json"
        addresses = ensure_deployed(chain, address_file)
        node = NodeProcess(home / "node", chain.rpc_url, address_file, PAYMENT_CLAIM_INTERVAL="1")
        try:
            node.start()
            yield World(node, Publisher(chain, addresses), files, home)
        finally:
            node.stop()
            node.http.close()


def test_it_is_told_apart_and_fits_the_interface(world: World) -> None:
    assert generation.is_node(world.node.url)
    assert not generation.describes_node({"software": "Provider"})
    services: OceanServices = world.bob
    assert services.url == world.node.url


def test_a_free_job_runs_and_its_results_are_read(world: World) -> None:
    free = next(e for e in world.bob.environments() if e.is_free)
    request = JobRequest(
        [world.data, world.pause], world.algorithm, free.id, JobTerms(60), {"points": 3}, label="mine"
    )
    assert not free.needs_orders
    quote = world.bob.quote(request.datasets, request.algorithm, free, 0, request.terms)
    assert [order.needed for order in (*quote.datasets, quote.algorithm)] == [False] * 3
    assert quote.payment is None
    job = world.bob.start(request)
    done = world.wait_for(job, 70)
    assert (done.succeeded, done.exit_code, done.payment, done.label) == (True, 0, None, "mine")
    assert (done.algorithm_did, done.dataset_dids) == (world.algorithm.did, (world.data.did, world.pause.did))
    assert sorted(world.result(done, "algorithmLog").split()) == [b"3", b"begun"]
    with tarfile.open(fileobj=io.BytesIO(world.result(done, "output"))) as archive:
        copied = archive.extractfile("outputs/copy.csv")
        assert copied is not None
        assert copied.read() == b"1,2\n"
    assert job.id in [found.id for found in world.bob.jobs()]
    with pytest.raises(InvalidInputError, match="no such result"), world.bob.open_result(job.id, 99):
        pass
    with pytest.raises(InvalidInputError, match="cluster"):
        world.bob.job(job.id.partition("-")[2])


async def test_jobs_are_watched_without_a_key(world: World) -> None:
    (first, *_) = world.bob.jobs()
    bob = accounts.BOB.address
    assert fetch_job(world.node.url, bob, first.id) == first
    async with open_job_reader(world.node.url, bob, first.id) as reader:
        one = await reader.fetch_job(first.id)
        several = await reader.fetch_jobs({first.id, "other"})
        assert one.jobs[first.id] == several.jobs[first.id] == first
        with pytest.raises(JobNotFoundError):
            await reader.fetch_job(f"{first.id[:70]}0000")


def test_a_paid_job_is_quoted_locked_run_and_claimed(world: World) -> None:
    paid = next(e for e in world.bob.environments() if not e.is_free)
    assert paid.fee_token
    assert paid.needs_orders
    terms = JobTerms(120, {"cpu": 2})
    quote = world.bob.quote([world.data, world.pause], world.algorithm, paid, 0, terms)
    assert quote.payment
    assert quote.payment.amount == paid.price(120, terms.resources) * 10**18 == 2 * 2 * 10**18
    assert [order.valid_order for order in (*quote.datasets, quote.algorithm)] == [None] * 3
    items = []
    for item, order in zip(
        [world.data, world.pause, world.algorithm], [*quote.datasets, quote.algorithm], strict=True
    ):
        assert order.provider_fee
        items.append(world.ordered(item, order.provider_fee, paid.consumer_address))
    *data, algorithm = items
    again = world.bob.quote(data, algorithm, paid, 0, terms)
    assert [order.provider_fee for order in (*again.datasets, again.algorithm)] == [None] * 3
    assert again.algorithm.valid_order == algorithm.order

    request = JobRequest(
        data, algorithm, paid.id, terms, variables={"FOO": "bar"}, payment_token=paid.fee_token
    )
    with pytest.raises(InsufficientFundsError):
        world.bob.start(request)
    payment, bob = quote.payment, accounts.BOB.address
    send = world.publisher.send
    send(payment.token, "ERC20Template", "approve", payment.escrow, OCEANS, sender=bob)
    send(payment.escrow, "Escrow", "deposit", payment.token, OCEANS, sender=bob)
    send(payment.escrow, "Escrow", "authorize", payment.token, payment.payee, payment.amount, payment.lock_seconds, 1,
         sender=bob)  # fmt: skip
    job = world.bob.start(request)
    done = world.wait_for(job, 70)
    assert done.succeeded
    assert done.payment
    assert done.payment.claim
    assert done.payment.token == paid.fee_token
    funds = world.publisher.chain.call(payment.escrow, "Escrow", "getUserFunds", bob, payment.token)
    assert funds == (OCEANS - 2 * 10**18, 0)


async def test_a_running_job_is_followed_and_stopped(world: World) -> None:
    free = next(e for e in world.bob.environments() if e.is_free)
    (world.folder / "seconds").write_text("100")
    job = world.bob.start(JobRequest([world.data, world.pause], world.algorithm, free.id, JobTerms(200)))
    world.wait_for(job, 40)
    wallet = Wallet(accounts.BOB.private_key)
    log = follow_log(world.node.url, wallet, job.id)
    assert log is not None
    assert await anext(log) in (b"begun\n", b"3\n")
    assert world.bob.stop(job).id == job.id
    assert len(b"".join([piece async for piece in log])) < 10
    done = world.wait_for(job, 70)
    assert (done.succeeded, done.exit_code) == (False, 137)
    assert "137" in done.describe()
    over = follow_log(world.node.url, wallet, job.id)
    assert over is not None
    with pytest.raises(JobNotFoundError):
        await anext(over)


def test_what_is_not_allowed_or_not_there_is_said(world: World) -> None:
    paid = next(e for e in world.bob.environments() if not e.is_free)
    assert paid.fee_token
    with pytest.raises(NotAllowedError, match="not allowed to run"):
        world.bob.quote([world.closed], world.algorithm, paid, 0, JobTerms(60))
    # Nodes compare a token's address case-sensitively.
    lower = replace(paid, fee_token=paid.fee_token.lower())
    with pytest.raises(InvalidInputError, match="does not accept payments"):
        world.bob.quote([world.data], world.algorithm, lower, 0, JobTerms(60))
    with pytest.raises(AssetNotFoundError):
        world.bob.resolve("did:op:" + "0" * 64)
    broken = world.alice.resolve(world.data.did)
    with pytest.raises(InvalidInputError, match="Validation error"):
        world.alice.prepare_metadata({**broken, "metadata": {}})
    (info,) = world.bob.file_infos(world.data.did, world.data.service_id)
    assert (info.valid, info.content_length) == (True, 4)


def test_no_nonce_meets_the_nodes_signature_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    from eth_utils import keccak

    wallet = Wallet(accounts.BOB.private_key)
    begun = int(time.time() * 1000)
    unlucky = next(
        n for n in range(begun, begun + 100_000) if not keccak(text=f"{wallet.address}{n}encrypt")[0]
    )
    upcoming = iter([unlucky, unlucky + 1, unlucky + 2, unlucky + 3])
    monkeypatch.setattr(Wallet, "next_nonce", lambda _wallet: next(upcoming))
    assert signing_nonce(wallet, "encrypt") > unlucky


async def test_any_number_of_waits_stays_below_a_nodes_limit(world: World) -> None:
    free = next(e for e in world.bob.environments() if e.is_free)
    (world.folder / "seconds").write_text("25")
    request = JobRequest([world.data, world.pause], world.algorithm, free.id, JobTerms(60))
    jobs = [world.bob.start(request).id for _ in range(3)]
    world.node.stop()
    # The same node, as it is configured where nobody has changed that.
    stock = NodeProcess(
        world.home / "node",
        world.publisher.chain.rpc_url,
        world.home / "address.json",
        MAX_REQ_PER_MINUTE="30",
    )
    stock.start()

    async def watch(job_id: str) -> list[Any]:
        told: list[Any] = []
        deadline = time.time() + 300
        with waiting(stock.url, accounts.BOB.address, job_id, interval=1, deadline=deadline) as wait:
            while not told or not told[-1].is_finished:
                told.append(await wait.news())
                assert not isinstance(told[-1], Trouble), told[-1].error
        return told

    try:
        for told in await asyncio.gather(*(watch(job_id) for job_id in jobs * 30)):
            assert told[-1].succeeded
    finally:
        stock.stop()
        stock.http.close()
