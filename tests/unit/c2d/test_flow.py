"""Publishing, allowing, paying and computing on the local network."""

from __future__ import annotations

import pickle
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from airflow_ocean.c2d import starting, transactions
from airflow_ocean.c2d.assets import AssetSpec, ComputePolicy, Credentials, Pricing
from airflow_ocean.c2d.client import OceanClient
from airflow_ocean.c2d.errors import (
    AllowanceSpentError,
    AssetNotFoundError,
    CostLimitError,
    InsufficientFundsError,
    InvalidInputError,
    JobNotFoundError,
    NotAllowedError,
    OrderInUseError,
    ServiceAnswerError,
    ServiceUnavailableError,
    StepChangedError,
    TransactionRevertedError,
)
from airflow_ocean.c2d.jobs import get_job
from airflow_ocean.c2d.journal import MemoryJournal
from airflow_ocean.c2d.limits import CostLimit
from airflow_ocean.c2d.payments import ONE_DATATOKEN, Payment, Payments
from airflow_ocean.c2d.services import open_job_reader
from airflow_ocean.c2d.units import ZERO_ADDRESS
from include.localnet.accounts import ALICE, BOB
from tests.support.fault_proxy import Answer, FaultProxy, Rule
from tests.support.waiting import wait_until
from tests.unit.c2d.conftest import CONTAINER, Branin

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_ocean.c2d.jobs import Job
    from airflow_ocean.c2d.network import Network
    from airflow_ocean.c2d.orders import Order
    from airflow_ocean.c2d.quotes import Quote

UNKNOWN_DID = "did:op:" + "0" * 64


def finished(client: OceanClient, job: Job) -> Job:
    return (
        wait_until(lambda: (found := client.jobs.get(job.id)).is_finished and found, f"{job.id} ends") or job
    )


def output_of(client: OceanClient, job: Job) -> bytes:
    with client.jobs.open_result(job.id, job.outputs[0].index) as stream:
        return b"".join(stream.chunks)


def paid(client: OceanClient, branin: Branin, environment: str = "free", **options: Any) -> Order:
    quote = client.orders.quote(
        [branin.dataset.did], branin.algorithm.did, environment=environment, **options
    )
    return client.orders.pay(quote)


def jobs_of(client: OceanClient, order: Order) -> list[Job]:
    jobs = client.services(order.provider_url).jobs()
    return [job for job in jobs if job.agreement_id in order.transactions]


class TestPublishing:
    def test_a_dataset_is_compute_only_and_indexed(
        self, publisher: OceanClient, data_file: dict[str, str]
    ) -> None:
        published = publisher.assets.publish(
            AssetSpec("dataset", "Mine", (data_file,), tags=("a",), description="b")
        )
        asset = publisher.assets.resolve(published.did)
        assert [service.type for service in asset.services] == ["compute"]
        assert asset.nft_address == published.nft_address
        assert asset.services[0].datatoken == published.datatoken_address
        assert asset.owner == ALICE.address
        assert asset.ddo["metadata"]["tags"] == ["a"]
        assert asset.ddo["event"]["tx"] == published.transactions[-1]

    def test_a_retry_goes_on_with_the_same_nft(
        self,
        client_of: Callable[..., OceanClient],
        data_file: dict[str, str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        journal = MemoryJournal()
        spec = AssetSpec("dataset", "Interrupted", (data_file,))
        first = client_of(ALICE, journal)
        services = first.services()

        def broken(_ddo: dict[str, Any]) -> None:
            raise ServiceUnavailableError("Aquarius is away")

        monkeypatch.setattr(services, "prepare_metadata", broken)
        with pytest.raises(ServiceUnavailableError):
            first.assets.publish(spec)
        (created,) = first.transactions.mined
        published = client_of(ALICE, journal).assets.publish(spec)
        assert published.transactions[0] == created.hash
        assert client_of(ALICE, journal).assets.publish(spec) == published

    def test_a_finished_publication_outlives_the_nodes_index_of_transactions(
        self, network: Network, data_file: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(transactions, "FINAL", 0)
        monkeypatch.setattr(transactions, "LAG", 0.3)
        journal, spec = MemoryJournal(), AssetSpec("dataset", "Published long ago", (data_file,))
        with OceanClient(network, ALICE.private_key, journal) as client:
            published = client.assets.publish(spec)
        endpoint = FaultProxy({"chain": network.rpc_url})
        forgotten = Rule(
            lambda request: request.rpc_method in ("eth_getTransactionReceipt", "eth_getTransactionByHash"),
            lambda genuine: Answer.of_json({"jsonrpc": "2.0", "id": genuine.json()["id"], "result": None}),
        )
        try:
            later = replace(network, rpc_url=endpoint.url("chain"))
            with endpoint.answering(forgotten), OceanClient(later, ALICE.private_key, journal) as client:
                assert client.assets.publish(spec) == published
        finally:
            endpoint.close()

    @pytest.mark.parametrize("services", [("compute", "access"), ("access",)])
    def test_services_as_asked(
        self, publisher: OceanClient, data_file: dict[str, str], services: Any
    ) -> None:
        published = publisher.assets.publish(AssetSpec("dataset", "Open", (data_file,), services=services))
        assert tuple(s.type for s in publisher.assets.resolve(published.did).services) == services

    def test_invalid_metadata_is_refused_by_the_index(
        self, publisher: OceanClient, data_file: dict[str, str]
    ) -> None:
        with pytest.raises(InvalidInputError, match="validating the metadata of did:op:"):
            publisher.assets.publish(AssetSpec("dataset", "Bad", (data_file,), tags=(5,)))  # type: ignore[arg-type]

    @pytest.mark.parametrize("did", ["", "did:op:1", "did:eth:" + "0" * 64, None])
    def test_no_did(self, publisher: OceanClient, did: Any) -> None:
        with pytest.raises(InvalidInputError, match="is not a DID"):
            publisher.assets.resolve(did)

    def test_an_unknown_did(self, publisher: OceanClient) -> None:
        with pytest.raises(AssetNotFoundError, match=UNKNOWN_DID):
            publisher.assets.resolve(UNKNOWN_DID)

    def test_one_journal_publishes_one_asset(self, publisher: OceanClient, data_file: dict[str, str]) -> None:
        first = publisher.assets.publish(AssetSpec("dataset", "First", (data_file,)))
        sent = len(publisher.transactions.mined)
        assert publisher.assets.publish(AssetSpec("dataset", "First", (data_file,))) == first
        with pytest.raises(StepChangedError, match=f"published {first.did} with other details.*force_new"):
            publisher.assets.publish(AssetSpec("dataset", "Second", (data_file,)))
        assert len(publisher.transactions.mined) == sent

    def test_an_asset_that_is_not_finished_may_be_corrected(
        self, publisher: OceanClient, data_file: dict[str, str]
    ) -> None:
        with pytest.raises(InvalidInputError, match="validating"):
            publisher.assets.publish(AssetSpec("dataset", "Unfinished", (data_file,), tags=(1,)))
        published = publisher.assets.publish(AssetSpec("dataset", "Finished", (data_file,)))
        assert publisher.assets.resolve(published.did).name == "Finished"
        assert len(publisher.transactions.mined) == 2


class TestTrust:
    def test_allowing_twice_and_revoking(
        self, client_of: Callable[..., OceanClient], branin: Branin, data_file: dict[str, str]
    ) -> None:
        dataset = client_of(ALICE).assets.publish(AssetSpec("dataset", "Trusting", (data_file,))).did
        with pytest.raises(NotAllowedError, match="refuses"):
            client_of(BOB).orders.quote([dataset], branin.algorithm.did)
        allowed = client_of(ALICE).assets.allow_algorithm(dataset, algorithm_did=branin.algorithm.did)
        assert len(allowed.transactions) == 1
        assert (
            client_of(ALICE).assets.allow_algorithm(dataset, algorithm_did=branin.algorithm.did).transactions
            == []
        )
        client_of(BOB).orders.quote([dataset], branin.algorithm.did)
        revoked = client_of(ALICE).assets.revoke_algorithm(dataset, algorithm_did=branin.algorithm.did)
        assert len(revoked.transactions) == 1
        with pytest.raises(NotAllowedError, match="refuses"):
            client_of(BOB).orders.quote([dataset], branin.algorithm.did)

    def test_allowing_a_publisher(
        self, client_of: Callable[..., OceanClient], branin: Branin, data_file: dict[str, str]
    ) -> None:
        dataset = client_of(ALICE).assets.publish(AssetSpec("dataset", "Trusting", (data_file,))).did
        client_of(ALICE).assets.allow_algorithm(dataset, publisher=ALICE.address.lower())
        client_of(BOB).orders.quote([dataset], branin.algorithm.did)
        client_of(ALICE).assets.revoke_algorithm(dataset, publisher=ALICE.address)
        with pytest.raises(NotAllowedError):
            client_of(BOB).orders.quote([dataset], branin.algorithm.did)

    def test_open_to_all(
        self, client_of: Callable[..., OceanClient], branin: Branin, data_file: dict[str, str]
    ) -> None:
        spec = AssetSpec("dataset", "Open", (data_file,), compute=ComputePolicy(open_to_all=True))
        dataset = client_of(ALICE).assets.publish(spec).did
        assert client_of(BOB).orders.quote([dataset], branin.algorithm.did).datasets[0].needs_order

    def test_a_stranger_may_not(self, stranger: OceanClient, branin: Branin) -> None:
        with pytest.raises(TransactionRevertedError, match="Nothing was sent"):
            stranger.assets.revoke_algorithm(branin.dataset.did, algorithm_did=branin.algorithm.did)

    def test_a_dataset_is_no_algorithm(self, publisher: OceanClient, branin: Branin) -> None:
        with pytest.raises(InvalidInputError, match="is a dataset, not an algorithm"):
            publisher.assets.allow_algorithm(branin.dataset.did, algorithm_did=branin.dataset.did)

    def test_one_of_both(self, publisher: OceanClient, branin: Branin) -> None:
        with pytest.raises(InvalidInputError, match="either algorithm_did or publisher"):
            publisher.assets.allow_algorithm(branin.dataset.did)


class TestDatatokens:
    def test_mint_and_transfer(
        self, client_of: Callable[..., OceanClient], data_file: dict[str, str]
    ) -> None:
        token = (
            client_of(ALICE).assets.publish(AssetSpec("dataset", "Minted", (data_file,))).datatoken_address
        )
        client_of(ALICE).datatokens.mint(token, BOB.address, 3 * ONE_DATATOKEN)
        client_of(BOB).datatokens.transfer(token, ALICE.address, ONE_DATATOKEN)
        assert client_of(ALICE).datatokens.balance(token) == ONE_DATATOKEN
        with pytest.raises(NotAllowedError, match="is no minter"):
            client_of(BOB).datatokens.mint(token, BOB.address, 1)
        with pytest.raises(InsufficientFundsError, match="holds 2 .* needs 5"):
            client_of(BOB).datatokens.transfer(token, ALICE.address, 5 * ONE_DATATOKEN)

    def test_one_step_is_of_one_datatoken(
        self, client_of: Callable[..., OceanClient], data_file: dict[str, str], branin: Branin
    ) -> None:
        spec = AssetSpec("dataset", "Minted once", (data_file,))
        first, second = (client_of(ALICE).assets.publish(spec).datatoken_address for _ in range(2))
        alice = client_of(ALICE)
        minted = alice.datatokens.mint(first, BOB.address, 1)
        assert alice.datatokens.mint(first, BOB.address, 1) == minted
        with pytest.raises(StepChangedError, match="give the step another name"):
            alice.datatokens.mint(second, BOB.address, 1)
        # A dispenser serves many datatokens.
        given = alice.datatokens.dispense(branin.algorithm.datatoken_address, 1)
        assert alice.datatokens.dispense(branin.algorithm.datatoken_address, 1) == given

    def test_dispense_and_buy(self, client_of: Callable[..., OceanClient], data_file: dict[str, str]) -> None:
        spec = AssetSpec("dataset", "Priced", (data_file,), pricing=Pricing.dispenser())
        free = client_of(ALICE).assets.publish(spec).datatoken_address
        client_of(BOB).datatokens.dispense(free, ONE_DATATOKEN)
        assert client_of(BOB).datatokens.balance(free) == ONE_DATATOKEN
        sold = (
            client_of(ALICE)
            .assets.publish(replace(spec, pricing=Pricing.fixed_rate(10**16)))
            .datatoken_address
        )
        with pytest.raises(CostLimitError, match="nothing was bought"):
            client_of(BOB).datatokens.buy(sold, ONE_DATATOKEN, max_price=10**16 - 1)
        assert len(client_of(BOB).datatokens.buy(sold, ONE_DATATOKEN)) == 2
        assert client_of(BOB).datatokens.balance(sold) == ONE_DATATOKEN
        with pytest.raises(NotAllowedError, match="no active dispenser"):
            client_of(BOB).datatokens.dispense(sold, 1)
        with pytest.raises(NotAllowedError, match="no active fixed-rate exchange"):
            client_of(BOB).datatokens.buy(free, 1)

    def test_a_limit_holds_for_all_purchases_together(
        self, client_of: Callable[..., OceanClient], data_file: dict[str, str]
    ) -> None:
        spec = AssetSpec("dataset", "Sold", (data_file,), pricing=Pricing.fixed_rate(4 * 10**18))
        sold = [client_of(ALICE).assets.publish(spec).datatoken_address for _ in range(2)]
        limited = client_of(BOB, None, CostLimit.parse("5"))
        steps = {token: f"buy {token}" for token in sold}
        with pytest.raises(CostLimitError, match=r"costs 8\.\d+ of token .* allows, 5; nothing was spent"):
            limited.datatokens.check_purchases(steps, ONE_DATATOKEN)
        assert limited.transactions.mined == []
        limited.datatokens.buy(sold[0], ONE_DATATOKEN, step=steps[sold[0]])
        refused = r"costs 4\.\d+ of token .* after 4\.\d+ were spent, more than .* 5; nothing more was spent"
        for check in (
            lambda: limited.datatokens.check_purchases(steps, ONE_DATATOKEN),
            lambda: limited.datatokens.buy(sold[1], ONE_DATATOKEN, step=steps[sold[1]]),
        ):
            with pytest.raises(CostLimitError, match=refused):
                check()
        assert client_of(BOB).datatokens.balance(sold[1]) == 0

    def test_another_machine_takes_back_what_was_approved(
        self, client_of: Callable[..., OceanClient], data_file: dict[str, str]
    ) -> None:
        spec = AssetSpec("dataset", "Sold", (data_file,), pricing=Pricing.fixed_rate(10**16))
        sold = client_of(ALICE).assets.publish(spec).datatoken_address
        client, other = client_of(BOB), client_of(BOB)
        ocean = client.contract_address("Ocean")
        exchange = client.datatokens.exchange(client.datatokens.contract(sold))
        assert exchange is not None

        def buy() -> None:
            with client.datatokens.approved(exchange.address, {ocean: 10**18}, "a test"):
                with other.transactions.step("another machine") as tx:
                    other.datatokens.contract(ocean).approve(exchange.address, 0, tx)
                with client.transactions.step("buy") as tx:
                    exchange.contract.FRE.buyDT(exchange.id, ONE_DATATOKEN, 10**18, ZERO_ADDRESS, 0, tx)

        with pytest.raises(AllowanceSpentError, match="only 0 are left.*trying again"):
            buy()
        # What is tried again approves it anew.
        assert len(client_of(BOB).datatokens.buy(sold, ONE_DATATOKEN)) == 2

    @pytest.mark.parametrize("amount", [0, -1, 2**256, 1.0, True])
    def test_amounts_refused(self, consumer: OceanClient, branin: Branin, amount: Any) -> None:
        with pytest.raises(InvalidInputError, match="the amount must be above 0 wei"):
            consumer.datatokens.transfer(branin.dataset.datatoken_address, ALICE.address, amount)

    def test_receivers_refused(self, consumer: OceanClient, branin: Branin) -> None:
        with pytest.raises(InvalidInputError, match="zero address"):
            consumer.datatokens.transfer(branin.dataset.datatoken_address, "0x" + "0" * 40, 1)

    def test_an_address_without_a_contract(self, consumer: OceanClient) -> None:
        with pytest.raises(InvalidInputError, match="no datatoken contract at"):
            consumer.datatokens.balance("0x" + "1" * 40)


class TestComputing:
    def test_in_a_free_environment(self, consumer: OceanClient, branin: Branin) -> None:
        order = paid(consumer, branin)
        # Template 2 dispenses and orders at once, template 1 takes two transactions.
        assert len(consumer.transactions.mined) == 3
        # What was dispensed was spent at once, so only gas was paid.
        assert order.cost["tokens"] == {}
        assert int(order.cost["gas_fee_wei"]) == sum(sent.fee for sent in consumer.transactions.mined)
        job = consumer.jobs.start(order, {"seed": 3})
        assert job.agreement_id == order.transactions[-1]
        ended = finished(consumer, job)
        assert ended.succeeded, consumer.jobs.log_tail(ended)
        model = pickle.loads(output_of(consumer, ended))  # our own algorithm's
        assert np.shape(model) == (15, 15)
        assert "algorithmLog" in {file.type for file in ended.results}
        # The order is still good: a second job costs nothing.
        again = paid(
            consumer,
            branin,
            known_orders={
                branin.dataset.did: order.transactions[0],
                branin.algorithm.did: order.transactions[1],
            },
            valid_until=order.valid_until,
        )
        assert again.transactions == order.transactions
        assert again.cost["transactions"] == []
        assert consumer.jobs.start(order, {"seed": 3}) == ended, "the same step gives the same job"
        second = consumer.jobs.start(again, step="start another job")
        assert second.id != job.id
        assert finished(consumer, second).succeeded

    def test_in_a_paid_environment(self, consumer: OceanClient, branin: Branin) -> None:
        environment = next(e for e in consumer.orders.environments() if not e.is_free)
        ocean = consumer.contract_address("Ocean")
        before = consumer.datatokens.balance(ocean)
        order = paid(consumer, branin, environment.id, duration=120)
        fee = int(order.cost["tokens"][ocean])
        # The Provider counts from the moment it is asked.
        assert 0 < fee <= 2 * int(environment.price_per_minute * 10**18)
        assert consumer.datatokens.balance(ocean) == before - fee
        ended = finished(consumer, consumer.jobs.start(order))
        assert ended.succeeded, consumer.jobs.log_tail(ended)

    def test_several_datasets(
        self, client_of: Callable[..., OceanClient], branin: Branin, data_file: dict[str, str]
    ) -> None:
        spec = AssetSpec(
            "dataset", "Second", (data_file,), compute=ComputePolicy(trusted_publishers=(ALICE.address,)),
            pricing=Pricing.dispenser(),
        )  # fmt: skip
        second = client_of(ALICE).assets.publish(spec)
        consumer = client_of(BOB)
        quote = consumer.orders.quote([branin.dataset.did, second.did], branin.algorithm.did)
        order = consumer.orders.pay(quote)
        assert len(order.transactions) == 3
        job = consumer.jobs.start(order)
        assert set(job.dataset_dids or consumer.jobs.get(job.id).dataset_dids) >= {branin.dataset.did}
        assert finished(consumer, job).is_finished

    def test_a_price_is_paid_with_the_order(
        self, client_of: Callable[..., OceanClient], branin: Branin, data_file: dict[str, str]
    ) -> None:
        for template in (1, 2):
            spec = AssetSpec(
                "dataset", f"Sold {template}", (data_file,), template=template, pricing=Pricing.fixed_rate(5 * 10**18),
                compute=ComputePolicy(trusted_publishers=(ALICE.address,)),
            )  # fmt: skip
            dataset = client_of(ALICE).assets.publish(spec)
            consumer = client_of(BOB)
            ocean = consumer.contract_address("Ocean")
            before = consumer.datatokens.balance(ocean)
            quote = consumer.orders.quote([dataset.did], branin.algorithm.did)
            with pytest.raises(CostLimitError, match="more than max_cost allows, 1; nothing was spent"):
                client_of(BOB, None, CostLimit.parse("1")).orders.pay(quote)
            order = consumer.orders.pay(quote)
            assert consumer.datatokens.balance(ocean) == before - int(order.cost["tokens"][ocean])
            assert int(order.cost["tokens"][ocean]) >= 5 * 10**18

    def test_a_datatoken_of_template_2_that_another_task_spends_is_got_with_the_order(
        self, client_of: Callable[..., OceanClient], branin: Branin, data_file: dict[str, str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        spec = AssetSpec(
            "dataset", "Sold, one held", (data_file,), template=2, pricing=Pricing.fixed_rate(5 * 10**18),
            compute=ComputePolicy(trusted_publishers=(ALICE.address,)),
        )  # fmt: skip
        dataset = client_of(ALICE).assets.publish(spec)
        token, genuine = dataset.datatoken_address, Payments._agree
        client_of(ALICE).datatokens.mint(token, BOB.address, ONE_DATATOKEN)

        def overtaken(payments: Payments, quote: Quote, planned: list[Payment]) -> None:
            assert [payment.way for payment in planned] == ["held", "dispense"]
            client_of(BOB).datatokens.transfer(token, ALICE.address, ONE_DATATOKEN)
            genuine(payments, quote, planned)

        monkeypatch.setattr(Payments, "_agree", overtaken)
        consumer = client_of(BOB)
        order = consumer.orders.pay(consumer.orders.quote([dataset.did], branin.algorithm.did))
        assert consumer.datatokens.balance(token) == 0
        assert int(order.cost["tokens"][consumer.contract_address("Ocean")]) >= 5 * 10**18

    def test_a_datatoken_that_another_task_spends_counts_for_the_limit(
        self, client_of: Callable[..., OceanClient], branin: Branin, data_file: dict[str, str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        spec = AssetSpec(
            "dataset", "Sold and spent", (data_file,), pricing=Pricing.fixed_rate(4 * 10**18),
            compute=ComputePolicy(trusted_publishers=(ALICE.address,)),
        )  # fmt: skip
        dataset = client_of(ALICE).assets.publish(spec)
        token, genuine, overtaken = dataset.datatoken_address, Payments._start_order, iter([True])

        def order(payments: Payments, payment: Payment, consumer: str) -> str:
            if payment.did == dataset.did and next(overtaken, False):
                client_of(BOB).datatokens.transfer(token, ALICE.address, ONE_DATATOKEN)
            return genuine(payments, payment, consumer)

        monkeypatch.setattr(Payments, "_start_order", order)
        journal = MemoryJournal()
        limited = client_of(BOB, journal, CostLimit.parse("5"))
        quote = limited.orders.quote([dataset.did], branin.algorithm.did)
        with pytest.raises(CostLimitError, match=r"after 4\.\d+ were spent.*nothing more was spent"):
            limited.orders.pay(quote)
        # A retry tries the one that was bought before it asks for more money.
        client_of(ALICE).datatokens.transfer(token, BOB.address, ONE_DATATOKEN)
        retry = client_of(BOB, journal, CostLimit.parse("5"))
        ordered = retry.orders.pay(retry.orders.quote([dataset.did], branin.algorithm.did))
        assert 4 * 10**18 <= int(ordered.cost["tokens"][retry.contract_address("Ocean")]) <= 5 * 10**18
        assert retry.datatokens.balance(token) == 0

    def test_an_order_is_renewed_for_a_longer_time(
        self, client_of: Callable[..., OceanClient], branin: Branin
    ) -> None:
        order = paid(client_of(BOB), branin)
        consumer = client_of(BOB)
        known = {branin.dataset.did: order.transactions[0], branin.algorithm.did: order.transactions[1]}
        held = consumer.datatokens.balance(branin.dataset.datatoken_address)
        renewed = paid(consumer, branin, known_orders=known, valid_until=order.valid_until + 60)
        assert len(renewed.cost["transactions"]) == 2
        assert renewed.cost["tokens"] == {}
        assert set(renewed.transactions).isdisjoint(order.transactions)
        assert consumer.datatokens.balance(branin.dataset.datatoken_address) == held
        assert finished(consumer, consumer.jobs.start(renewed)).succeeded

    def test_a_limit_on_gas(self, client_of: Callable[..., OceanClient], branin: Branin) -> None:
        consumer = client_of(BOB, None, CostLimit.parse({"gas": "0.000000001"}))
        with pytest.raises(CostLimitError, match="was not signed"):
            paid(consumer, branin)
        assert consumer.transactions.mined == []

    def test_a_start_whose_answer_was_lost(
        self, client_of: Callable[..., OceanClient], branin: Branin, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        journal = MemoryJournal()
        consumer = client_of(BOB, journal)
        order = paid(consumer, branin)
        services = consumer.services(order.provider_url)
        genuine = services.start

        def cut(*arguments: Any) -> None:
            genuine(*arguments)
            raise ServiceUnavailableError("the connection was cut")

        monkeypatch.setattr(services, "start", cut)
        with pytest.raises(ServiceUnavailableError):
            consumer.jobs.start(order)
        job = client_of(BOB, journal).jobs.start(order)
        assert [found.id for found in jobs_of(consumer, order)] == [job.id]
        assert finished(consumer, job).succeeded

    def test_a_start_that_is_under_way_is_waited_for(
        self, client_of: Callable[..., OceanClient], branin: Branin, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        journal = MemoryJournal()
        consumer = client_of(BOB, journal)
        order = paid(consumer, branin)
        services = consumer.services(order.provider_url)
        genuine = services.start
        late: list[threading.Timer] = []
        started: list[str] = []

        def slow(request: Any, announce: Callable[[], None]) -> None:
            announce()
            late.append(threading.Timer(3, lambda: started.append(genuine(request).id)))
            late[0].start()
            raise ServiceUnavailableError("it does not answer")

        monkeypatch.setattr(services, "start", slow)
        with pytest.raises(ServiceUnavailableError):
            consumer.jobs.start(order)
        job = client_of(BOB, journal).jobs.start(order)
        late[0].join()
        assert [found.id for found in jobs_of(consumer, order)] == [job.id] == started
        assert finished(consumer, job).succeeded

    def test_a_start_that_did_not_arrive_is_repeated(
        self, client_of: Callable[..., OceanClient], branin: Branin, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        journal = MemoryJournal()
        consumer = client_of(BOB, journal)
        order = paid(consumer, branin)

        def lost(_request: Any, announce: Callable[[], None]) -> None:
            announce()
            raise ServiceUnavailableError("it does not answer")

        monkeypatch.setattr(consumer.services(order.provider_url), "start", lost)
        with pytest.raises(ServiceUnavailableError):
            consumer.jobs.start(order)
        monkeypatch.setattr(starting, "UNDER_WAY", 1.0)
        job = client_of(BOB, journal).jobs.start(order)
        assert [found.id for found in jobs_of(consumer, order)] == [job.id]
        assert finished(consumer, job).succeeded

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (
                Answer(200, b"<html>sign in first</html>", {"Content-Type": "text/html"}),
                "a retry looks first",
            ),
            (
                Answer(200, b"no gzip at all", {"Content-Encoding": "gzip"}),
                "not encoded as .*a retry looks first",
            ),
            # Source: Provider ``routes/compute.py``, which calls ``update_nonce`` when the job is on its way.
            (Answer.of_json({"error": "Cannot create duplicates of nonce"}, 503), "duplicates"),
        ],
        ids=["a page", "not as encoded", "the nonce cannot be stored"],
    )
    def test_an_answer_to_a_start_that_does_not_say_what_was_done(
        self, client_of: Callable[..., OceanClient], branin: Branin, localnet: Any, answer: Answer, words: str
    ) -> None:
        journal = MemoryJournal()
        order = paid(client_of(BOB), branin)
        proxy = FaultProxy({"provider": localnet.provider_url})
        try:
            order = replace(order, provider_url=proxy.url("provider"))
            rule = Rule(
                lambda request: request.method == "POST" and request.path.endswith("/compute"),
                lambda _genuine: answer,
            )
            with proxy.answering(rule), pytest.raises(ServiceUnavailableError, match=words):
                client_of(BOB, journal).jobs.start(order)
            consumer = client_of(BOB, journal)
            job = consumer.jobs.start(order)
            assert [found.id for found in jobs_of(consumer, order)] == [job.id]
            assert finished(consumer, job).succeeded
        finally:
            proxy.close()

    def test_a_job_of_a_later_run_is_not_taken_for_one_that_never_arrived(
        self, client_of: Callable[..., OceanClient], branin: Branin, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        journal = MemoryJournal()
        lost = client_of(BOB, journal)
        order = paid(lost, branin)

        def vanish(_request: Any, announce: Callable[[], None]) -> None:
            announce()
            raise ServiceUnavailableError("it does not answer")

        monkeypatch.setattr(lost.services(order.provider_url), "start", vanish)
        with pytest.raises(ServiceUnavailableError):
            lost.jobs.start(order)
        entry = journal.load("start job")
        assert entry is not None
        journal.save("start job", {**entry, "asked_at": entry["asked_at"] - 2 * starting.LONGEST_START})
        others = client_of(BOB)
        finished(others, job := others.jobs.start(order))
        mine = client_of(BOB, journal).jobs.start(order)
        assert mine.id != job.id
        finished(others, mine)

    def test_another_order_is_for_another_job(
        self, client_of: Callable[..., OceanClient], branin: Branin
    ) -> None:
        """As when only the task that pays is run again with force_new."""
        journal = MemoryJournal()
        consumer = client_of(BOB, journal)
        first = finished(consumer, consumer.jobs.start(paid(client_of(BOB), branin)))
        order = paid(client_of(BOB), branin)
        second = client_of(BOB, journal).jobs.start(order)
        assert second.id != first.id
        assert [found.id for found in jobs_of(consumer, order)] == [second.id]
        assert client_of(BOB, journal).jobs.start(order).id == second.id
        finished(consumer, second)

    def test_a_job_that_the_service_has_deleted_is_not_started_again(
        self, client_of: Callable[..., OceanClient], branin: Branin, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        journal = MemoryJournal()
        consumer = client_of(BOB, journal)
        order = paid(consumer, branin)
        job = finished(consumer, consumer.jobs.start(order))
        later = client_of(BOB, journal)
        services = later.services(order.provider_url)
        monkeypatch.setattr(services, "jobs", list)
        with pytest.raises(JobNotFoundError, match=f"{job.id}.*lists no more.*force_new"):
            later.jobs.start(order)
        assert [found.id for found in jobs_of(consumer, order)] == [job.id]

    def test_a_job_of_another_run_is_not_taken_for_one_that_was_refused(
        self, client_of: Callable[..., OceanClient], branin: Branin, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        journal = MemoryJournal()
        refused = client_of(BOB, journal)
        order = paid(refused, branin)

        def refuse(_request: Any, announce: Callable[[], None]) -> None:
            announce()
            raise ServiceAnswerError("no, says the Provider", 400, "no")

        monkeypatch.setattr(refused.services(order.provider_url), "start", refuse)
        with pytest.raises(NotAllowedError, match="no, says"):
            refused.jobs.start(order)
        others = client_of(BOB)
        finished(others, job := others.jobs.start(order))
        mine = client_of(BOB, journal).jobs.start(order)
        assert mine.id != job.id
        finished(others, mine)

    def test_a_failing_algorithm_shows_its_log(self, consumer: OceanClient, branin: Branin) -> None:
        order = paid(consumer, branin)
        ended = finished(consumer, consumer.jobs.start(order, {"kernel": "no such kernel"}))
        assert not ended.succeeded
        assert "no such kernel" in consumer.jobs.log_tail(ended)

    def test_an_order_without_datatokens(
        self, client_of: Callable[..., OceanClient], branin: Branin, data_file: dict[str, str]
    ) -> None:
        spec = AssetSpec(
            "dataset", "Not given", (data_file,), compute=ComputePolicy(trusted_publishers=(ALICE.address,))
        )
        dataset = client_of(ALICE).assets.publish(spec)
        consumer = client_of(BOB)
        with pytest.raises(InsufficientFundsError, match="ask its publisher to send one"):
            consumer.orders.pay(consumer.orders.quote([dataset.did], branin.algorithm.did))
        assert consumer.transactions.mined == []

    def test_a_denied_consumer(
        self, client_of: Callable[..., OceanClient], branin: Branin, data_file: dict[str, str]
    ) -> None:
        consumer = client_of(BOB)
        environment = consumer.orders.environment("free").consumer_address
        spec = AssetSpec(
            "dataset", "Private", (data_file,), compute=ComputePolicy(trusted_publishers=(ALICE.address,)),
            credentials=Credentials(deny=(BOB.address, environment)),
        )  # fmt: skip
        dataset = client_of(ALICE).assets.publish(spec)
        with pytest.raises(NotAllowedError, match="refuses"):
            consumer.orders.quote([dataset.did], branin.algorithm.did)

    @pytest.mark.parametrize("duration", [0, -5, "3600", True, 1.5])
    def test_durations_refused(self, consumer: OceanClient, branin: Branin, duration: Any) -> None:
        with pytest.raises(InvalidInputError, match="duration"):
            consumer.orders.quote([branin.dataset.did], branin.algorithm.did, duration=duration)

    def test_environments_refused(self, consumer: OceanClient, branin: Branin) -> None:
        with pytest.raises(InvalidInputError, match="no compute environment 'moon'"):
            consumer.orders.quote([branin.dataset.did], branin.algorithm.did, environment="moon")


class TestJobs:
    def test_an_order_runs_one_job_at_a_time(
        self,
        consumer: OceanClient,
        client_of: Callable[..., OceanClient],
        localnet: Any,
        data_file: dict[str, str],
    ) -> None:
        (localnet.home / "files").mkdir(exist_ok=True)
        (localnet.home / "files" / "sleepy.py").write_text("import time\nwhile True: time.sleep(1)\n")
        sleepy = client_of(ALICE).assets.publish(
            AssetSpec(
                "algorithm",
                "Sleepy",
                ({"type": "url", "url": f"{localnet.files_url}/sleepy.py"},),
                container=CONTAINER,
                pricing=Pricing.dispenser(),
            )  # fmt: skip
        )
        spec = AssetSpec(
            "dataset", "For sleepers", (data_file,), compute=ComputePolicy(trusted_publishers=(ALICE.address,)),
            pricing=Pricing.dispenser(),
        )  # fmt: skip
        dataset = client_of(ALICE).assets.publish(spec)
        order = consumer.orders.pay(consumer.orders.quote([dataset.did], sleepy.did))
        job = consumer.jobs.start(order)
        with pytest.raises(OrderInUseError, match=job.id):
            client_of(BOB).jobs.start(order)
        assert [found.id for found in jobs_of(consumer, order)] == [job.id]
        wait_until(lambda: consumer.jobs.get(job.id).state == 40, "the algorithm runs")
        consumer.jobs.stop(job.id)
        ended = finished(consumer, job)
        assert not ended.succeeded
        assert consumer.jobs.stop(job.id) == ended

    def test_an_unknown_job(self, consumer: OceanClient) -> None:
        with pytest.raises(JobNotFoundError):
            consumer.jobs.get("0" * 32)

    async def test_state_without_a_key(self, consumer: OceanClient, branin: Branin, network: Any) -> None:
        job = consumer.jobs.start(paid(consumer, branin))
        assert get_job(network.provider_url, BOB.address, job.id).id == job.id
        async with open_job_reader(network.provider_url, BOB.address, job.id) as reader:
            listed, alone = await reader.fetch_jobs({job.id, "0" * 32}), await reader.fetch_job(job.id)
            assert [*listed.jobs] == [*alone.jobs] == [job.id]
            assert listed.size >= alone.size > 0
        async with open_job_reader(network.provider_url, ALICE.address, job.id) as reader:
            assert (await reader.fetch_jobs({job.id})).jobs == {}
            with pytest.raises(JobNotFoundError):
                await reader.fetch_job(job.id)
        async with open_job_reader("http://127.0.0.1:9", BOB.address, job.id) as reader:
            with pytest.raises(ServiceUnavailableError, match="does not answer"):
                await reader.fetch_job(job.id)
        assert finished(consumer, job).is_finished


def test_checking_a_connection(consumer: OceanClient, network: Any) -> None:
    parts = ["Chain", "Contracts", "Provider", "Aquarius", "Wallet"]
    assert [(check.part, check.ok) for check in consumer.check()] == [(part, True) for part in parts]


@pytest.mark.parametrize(
    ("changed", "unwell", "said"),
    [
        (
            {"provider_url": "http://user:hidden@127.0.0.1:9"},
            {"Provider"},
            "http://127.0.0.1:9 does not answer",
        ),
        ({"metadata_cache_url": "http://127.0.0.1:9"}, {"Aquarius"}, "does not answer"),
        ({"metadata_cache_url": None}, {"Aquarius"}, "metadata_cache_url"),
        ({"address_file": None}, {"Contracts", "Wallet"}, "no Ocean contracts are listed for chain 8996"),
        (
            {"rpc_url": "http://127.0.0.1:9/secret"},
            {"Chain", "Contracts", "Wallet"},
            "http://127.0.0.1:9 does",
        ),
    ],
)
def test_a_check_says_which_parts_are_not_well(
    network: Any, changed: dict[str, Any], unwell: set[str], said: str
) -> None:
    from airflow_ocean.c2d.client import OceanClient

    with OceanClient(replace(network, **changed), BOB.private_key) as client:
        found = {check.part: check.detail for check in client.check() if not check.ok}
    assert found.keys() == unwell
    assert all(said in detail for detail in found.values())
    assert not any("hidden" in detail or "secret" in detail for detail in found.values())


def test_a_check_tells_services_apart(network: Any) -> None:
    from airflow_ocean.c2d.client import OceanClient

    swapped = replace(
        network, provider_url=network.metadata_cache_url, metadata_cache_url=network.provider_url
    )
    with OceanClient(swapped, BOB.private_key) as client:
        found = {check.part: check.detail for check in client.check() if not check.ok}
    assert {part: "not as " + part in detail for part, detail in found.items()} == {
        "Provider": True,
        "Aquarius": True,
    }


def test_a_wallet_without_coins_is_not_well(network: Any) -> None:
    from airflow_ocean.c2d.client import OceanClient

    with OceanClient(network, "0x" + "37" * 32) as client:
        assert {check.part for check in client.check() if not check.ok} == {"Wallet"}
