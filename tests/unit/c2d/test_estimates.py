"""What a run is said to cost, held against what it then costs on the local network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_ocean.c2d import estimates
from airflow_ocean.c2d.assets import AssetSpec, ComputePolicy, Pricing, PublishedAsset
from airflow_ocean.c2d.errors import InsufficientFundsError
from airflow_ocean.c2d.limits import GAS, CostLimit
from airflow_ocean.c2d.services import JobTerms
from include.localnet.accounts import ALICE, BOB, Account
from tests.unit.c2d.conftest import CONTAINER

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_ocean.c2d.client import OceanClient
    from airflow_ocean.c2d.estimates import Estimate

PAID = "ocean-compute-env2"
MINUTES = 2
# Owns no coin and no token on the local network.
NOBODY = Account("nobody", -1, "0x5CbDd86a2FA8Dc4bDdd8a8f69dBa48572EeC07FB", "0x" + "33" * 32)


@pytest.fixture
def assets(client_of, data_file, algorithm_file) -> Callable[..., tuple[PublishedAsset, PublishedAsset]]:
    """Publish a dataset and an algorithm that may run on it, offered as told."""

    def publish(pricing: Pricing | None, template: int) -> tuple[PublishedAsset, PublishedAsset]:
        policy = ComputePolicy(trusted_publishers=(ALICE.address,))
        dataset = client_of(ALICE).assets.publish(
            AssetSpec("dataset", "Data", (data_file,), compute=policy, pricing=pricing, template=template)
        )
        algorithm = client_of(ALICE).assets.publish(
            AssetSpec(
                "algorithm",
                "Code",
                (algorithm_file,),
                container=CONTAINER,
                pricing=pricing,
                template=template,
            )
        )
        return dataset, algorithm

    return publish


def gas_of(estimate: Estimate, client: OceanClient) -> int:
    """Return the gas that an estimate reckons with for a wallet."""
    fees = client.transactions.chain.fees(None)
    return estimate.totals(client.address).get(GAS, 0) // fees["maxFeePerGas"]


@pytest.mark.parametrize(
    ("offer", "template"), [("dispenser", 1), ("fixed_rate", 1), ("fixed_rate", 2), (None, 2)]
)
def test_a_payment_costs_what_was_said(assets, client_of, offer, template):
    ocean = client_of(BOB).contract_address("Ocean")
    pricing = {
        "dispenser": Pricing.dispenser(),
        "fixed_rate": Pricing.fixed_rate(3 * 10**17, ocean),
        None: None,
    }[offer]
    dataset, algorithm = assets(pricing, template)
    if offer is None:
        for asset in (dataset, algorithm):
            client_of(ALICE).datatokens.mint(asset.datatoken_address, BOB.address, 10**18)
    consumer = client_of(BOB)
    quote = consumer.orders.quote([dataset.did], algorithm.did, environment=PAID, duration=MINUTES * 60)
    estimate = estimates.of_payment(consumer, quote, MINUTES * 60)
    assert consumer.transactions.mined == [], "estimating sends nothing"
    estimated_gas = gas_of(estimate, consumer)
    estimate.require_balances()

    order = consumer.orders.pay(quote)

    # Tokens to the wei, datatokens apart: those are spent, but nobody has to buy them.
    datatokens = {dataset.datatoken_address, algorithm.datatoken_address}
    paid = {token: int(amount) for token, amount in order.cost["tokens"].items() if token not in datatokens}
    assert {token: amount for token, amount in estimate.totals().items() if token != GAS} == paid
    used = order.cost["gas_used"]
    # Never less than it then takes, and not so much more that a limit would be hit for nothing.
    assert used <= estimated_gas <= 2.5 * used

    reused = client_of(BOB)
    orders = dict(zip([dataset.did, algorithm.did], order.transactions, strict=True))
    again = reused.orders.quote(
        [dataset.did], algorithm.did, environment=PAID, valid_until=order.valid_until, known_orders=orders
    )
    free = estimates.of_payment(reused, again, 60)
    assert free.lines == ()
    assert free.totals() == {}
    longer = reused.orders.quote(
        [dataset.did],
        algorithm.did,
        environment=PAID,
        valid_until=order.valid_until + 60,
        known_orders=orders,
    )
    renewal = gas_of(estimates.of_payment(reused, longer, 60), reused)
    used = reused.orders.pay(longer).cost["gas_used"]
    assert used <= renewal <= 2.5 * used


def test_a_run_that_publishes_costs_what_was_said(client_of, data_file, algorithm_file):
    publisher, consumer = client_of(ALICE), client_of(BOB)
    estimate = estimates.of_publishing_and_payment(publisher, consumer, PAID, JobTerms(MINUTES * 60))
    of_publisher, of_consumer = gas_of(estimate, publisher), gas_of(estimate, consumer)
    dataset = publisher.assets.publish(AssetSpec("dataset", "Data", (data_file,)))
    other = client_of(ALICE)
    algorithm = other.assets.publish(AssetSpec("algorithm", "Code", (algorithm_file,), container=CONTAINER))
    publisher.assets.allow_algorithm(dataset.did, algorithm_did=algorithm.did)
    for asset in (dataset, algorithm):
        publisher.datatokens.mint(asset.datatoken_address, BOB.address, 10**18, step=f"mint {asset.did}")
    quote = consumer.orders.quote([dataset.did], algorithm.did, environment=PAID, duration=MINUTES * 60)
    order = consumer.orders.pay(quote)

    sent = [*publisher.transactions.mined, *other.transactions.mined]
    used = sum(transaction.gas_used for transaction in sent)
    assert used <= of_publisher <= 1.5 * used
    assert order.cost["gas_used"] <= of_consumer <= 2.5 * order.cost["gas_used"]
    ocean = consumer.contract_address("Ocean")
    # The Provider counts the seconds that are left when it is asked.
    assert 0 < int(order.cost["tokens"][ocean]) <= estimate.totals()[ocean] == MINUTES * 10**18


def test_what_is_above_a_limit_is_found_token_by_token(client_of):
    publisher, consumer = client_of(ALICE), client_of(BOB)
    estimate = estimates.of_publishing_and_payment(publisher, consumer, PAID, JobTerms(MINUTES * 60))
    ocean = consumer.contract_address("Ocean")
    assert estimate.above(CostLimit()) == {}
    assert estimate.above(CostLimit.parse("2")) == {}
    assert estimate.above(CostLimit.parse("1.999999999999999999")) == {ocean: 2 * 10**18}
    assert estimate.above(CostLimit.parse({"*": "0", ocean: "2"})) == {}
    assert set(estimate.above(CostLimit.parse({"gas": "0"}))) == {GAS}


def test_missing_tokens_are_found_before_anything_is_spent(client_of):
    estimate = estimates.of_publishing_and_payment(client_of(ALICE), client_of(NOBODY), PAID, JobTerms(60))
    with pytest.raises(InsufficientFundsError, match=r"needs 1 OCEAN .* holds 0 OCEAN") as refused:
        estimate.require_balances()
    assert client_of(NOBODY).address in str(refused.value)
    in_the_free_one = estimates.of_publishing_and_payment(
        client_of(ALICE), client_of(NOBODY), "free", JobTerms(60)
    )
    in_the_free_one.require_balances()
