"""What a run is said to cost, held against what it then costs on the local network."""

from __future__ import annotations

import time
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from airflow_ocean.c2d import estimates
from airflow_ocean.c2d.assets import AssetSpec, ComputePolicy, Pricing, PublishedAsset
from airflow_ocean.c2d.client import OceanClient
from airflow_ocean.c2d.errors import CostLimitError, InsufficientFundsError
from airflow_ocean.c2d.limits import GAS, CostLimit
from airflow_ocean.c2d.services import JobTerms
from airflow_ocean.c2d.transactions import highest_fee
from airflow_ocean.c2d.units import format_units
from include.localnet.accounts import ALICE, BOB, Account
from include.localnet.ethereum import Chain
from tests.support.gas import gas_of, gas_signed_for, set_base_fee
from tests.unit.c2d.conftest import CONTAINER

if TYPE_CHECKING:
    from collections.abc import Callable

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
    # The Provider counts the seconds that are left when it is asked; the estimate has all of them.
    paid[ocean] += MINUTES * 10**18 - sum(item.fee[1] for item in quote.items if item.fee)
    assert {token: amount for token, amount in estimate.totals().items() if token != GAS} == paid
    signed = gas_signed_for(consumer)
    # Never less than is then signed for, and not so much more that a limit would be hit for nothing.
    assert signed <= estimated_gas <= 2.5 * signed

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
    reused.orders.pay(longer)
    signed = gas_signed_for(reused)
    assert signed <= renewal <= 2.5 * signed


def test_a_fee_for_a_second_more_is_within_what_was_said(assets, client_of, network):
    dataset, algorithm = assets(Pricing.dispenser(), 1)
    consumer = client_of(BOB)
    # As when the Provider was asked three seconds after the moment from which the duration counts.
    until = int(time.time()) + MINUTES * 60 - 3
    said = consumer.orders.quote([dataset.did], algorithm.did, environment=PAID, valid_until=until)
    totals = estimates.of_payment(consumer, said, MINUTES * 60).totals()
    ocean = consumer.contract_address("Ocean")
    limit = CostLimit.parse({ocean: format_units(totals[ocean])})
    with OceanClient(network, BOB.private_key, limit=limit) as payer:
        quote = payer.orders.quote([dataset.did], algorithm.did, environment=PAID, duration=MINUTES * 60)
        (fee,) = (item.fee[1] for item in quote.items if item.fee)
        assert fee > sum(item.fee[1] for item in said.items if item.fee)
        assert payer.orders.pay(quote).cost["tokens"][ocean] == str(fee)


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

    signed = gas_signed_for(publisher) + gas_signed_for(other)
    assert signed <= of_publisher <= 1.5 * signed
    signed = gas_signed_for(consumer)
    assert signed <= of_consumer <= 2.5 * signed
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


def test_what_gas_may_cost_later_suffices_when_it_has_become_dearer(assets, client_of, localnet):
    chain = Chain(localnet.rpc_url)
    dataset, algorithm = assets(Pricing.dispenser(), 1)
    first = client_of(BOB).orders.quote([dataset.did], algorithm.did, environment=PAID, duration=60)
    order = client_of(BOB).orders.pay(first)
    orders = dict(zip([dataset.did, algorithm.did], order.transactions, strict=True))
    renewal = client_of(BOB).orders.quote(
        [dataset.did],
        algorithm.did,
        environment=PAID,
        valid_until=order.valid_until + 600,
        known_orders=orders,
    )
    set_base_fee(chain, "20")
    estimate = estimates.of_payment(client_of(BOB), renewal, 600)
    # The next block asks for an eighth less; and the estimate is higher than the truth.
    set_base_fee(chain, "60")
    with pytest.raises(CostLimitError, match="not signed"):
        client_of(BOB, None, CostLimit({GAS: estimate.totals()[GAS]})).orders.pay(renewal)
    set_base_fee(chain, "60")
    paid = client_of(BOB, None, CostLimit({GAS: estimate.gas_later})).orders.pay(renewal)
    assert paid.valid_until == renewal.valid_until
    set_base_fee(chain, "1")


def test_gas_never_costs_more_than_the_fee_cap(client_of, network):
    capped = OceanClient(replace(network, max_fee_gwei=Decimal(700)), BOB.private_key)
    free = estimates.of_publishing_and_payment(client_of(ALICE), client_of(BOB), PAID, JobTerms(60))
    with_cap = estimates.of_publishing_and_payment(client_of(ALICE), capped, PAID, JobTerms(60))
    price = highest_fee(capped.transactions.chain.fees(None))
    of_bob = with_cap.totals(BOB.address)[GAS]
    assert free.totals() == with_cap.totals()
    assert free.gas_later == estimates.GAS_RISE * free.totals()[GAS]
    of_alice = estimates.GAS_RISE * with_cap.totals(ALICE.address)[GAS]
    assert with_cap.gas_later == of_alice + of_bob // price * 700 * 10**9
    capped.close()


def test_more_than_a_connection_allows_is_refused_by_its_name(client_of):
    name = "connection 'ocean_bob', extra field max_cost"

    def estimate(of_alice: CostLimit, of_bob: CostLimit) -> Estimate:
        publisher, consumer = client_of(ALICE, None, of_alice), client_of(BOB, None, of_bob)
        return estimates.of_publishing_and_payment(publisher, consumer, PAID, JobTerms(MINUTES * 60))

    free = estimate(CostLimit(), CostLimit())
    free.require_limits()
    estimate(CostLimit(), CostLimit.parse("2", name)).require_limits()
    with pytest.raises(
        CostLimitError, match=rf"2 OCEAN .*{BOB.address} .*more than {name} allows, 1\.9; raise"
    ):
        estimate(CostLimit(), CostLimit.parse("1.9", name)).require_limits()
    # A limit is for each task: publishing, allowing and minting are four.
    dearest = max(line.amount for line in free.lines if line.payer == ALICE.address)
    assert dearest < free.totals(ALICE.address)[GAS]
    estimate(CostLimit({GAS: dearest}), CostLimit()).require_limits()
    with pytest.raises(CostLimitError, match=f"token gas.* {ALICE.address} "):
        estimate(CostLimit({GAS: dearest - 1}), CostLimit()).require_limits()
