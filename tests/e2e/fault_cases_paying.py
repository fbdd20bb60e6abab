"""Ordering and renewing under faults: one order per asset, and what it cost, to the wei."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow_ocean.operators.compute import OceanPayForComputeOperator
from tests.e2e.fault_case import Case, same
from tests.e2e.fault_world import ETHER

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_ocean.c2d.orders import Order
    from tests.e2e.fault_world import Wallet, World
    from tests.support.task_runner import FinishedTask


class RenewingOperator(OceanPayForComputeOperator):
    """Pays with the renewal of earlier orders.

    :param known_orders: DID → order transaction
    :param valid_until: until when the environment is wanted, seconds since 1970
    """

    def __init__(self, *, known_orders: dict[str, str], valid_until: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.known_orders = known_orders
        self.valid_until = valid_until

    def execute(self, context: Context) -> list[str]:
        """Renew the orders and return the renewals' transactions."""
        with self.client(context) as client:
            quote = client.orders.quote(
                list(self.dataset_dids), self.algorithm_did, environment=self.environment,
                valid_until=self.valid_until, known_orders=self.known_orders,
            )  # fmt: skip
            order = client.orders.pay(quote)
        context["ti"].xcom_push("order", json.loads(json.dumps(order.to_dict())))
        context["ti"].xcom_push("cost", order.cost)
        return order.transactions


def pay(
    world: World, dataset: str, algorithm: str, *, held: tuple[str, ...] = (), got: int, transactions: int,
    paid: bool = False, locked: int = 0,
) -> Case:  # fmt: skip
    """Prepare a payment.

    :param held: assets whose datatoken the wallet has
    :param got: how many datatokens it gets on the way
    :param transactions: how many it sends
    :param locked: how much OCEAN the escrow is to get, wei; then it pays the environment, and no order has a fee
    """
    wallet = world.wallet(ocean=100 * ETHER, **dict.fromkeys(held, ETHER))
    since, coins = world.chain.block_number(), world.coins(wallet.address)
    assets = [world.assets[dataset], world.assets[algorithm]]

    def verify(finished: FinishedTask) -> None:
        orders = finished.xcoms["return_value"]
        received, fee = 0, 0
        for asset, order in zip(assets, orders, strict=True):
            token = asset.datatoken_address
            (started,) = [
                event
                for event in world.events("ERC20Template", "OrderStarted", since, token)
                if event.arguments["payer"] == wallet.address
            ]
            same(started.transaction, order, "order told")
            same(0, world.balance(token, wallet.address), "datatokens left")
            received += sum(world.received(token, wallet.address, since))
            fee += 0 if locked else _verify_fee(world, wallet, token, finished, order)
        same(got * ETHER, received, "datatokens got")
        price = sum(world.bought(wallet, since))
        same((locked, 0), world.escrow_funds(wallet.address), "OCEAN in the escrow")
        same(
            {world.ocean: str(locked)} if locked else {}, finished.xcoms["cost"]["deposited"], "deposit told"
        )
        spent = 100 * ETHER - locked - world.balance(world.ocean, wallet.address)
        same(price + fee, spent, "OCEAN spent")
        same({world.ocean: str(spent)} if spent else {}, _without(finished, assets), "cost told")
        same(paid, fee > 0, "whether a fee was paid")
        same(transactions, world.nonce(wallet.address), "transactions")
        _verify_cost(world, finished, wallet, coins, transactions)

    arguments = _pay_arguments(world, dataset, algorithm, paid or bool(locked))
    return Case(arguments | ({"duration": 120} if locked else {}), wallet.private_key, verify)


def _pay_arguments(world: World, dataset: str, algorithm: str, paid: bool) -> dict[str, Any]:
    return {
        "dataset_dids": [world.assets[dataset].did],
        "algorithm_did": world.assets[algorithm].did,
        "environment": world.paid_environment.id if paid else "free",
        "duration": 600,
    }


def _without(finished: FinishedTask, assets: list[Any]) -> dict[str, str]:
    """Return the tokens that the task says it spent, without the datatokens that it held before."""
    datatokens = {asset.datatoken_address for asset in assets}
    tokens = finished.xcoms["cost"]["tokens"]
    return {token: amount for token, amount in tokens.items() if token not in datatokens}


def _verify_fee(world: World, wallet: Wallet, token: str, finished: FinishedTask, transaction: str) -> int:
    """Check an order's Provider fee and return its amount."""
    order = finished.xcoms["order"]
    receipt = world.chain.receipt(transaction)
    assert receipt is not None
    (paid,) = world.chain.events_of(receipt, "ERC20Template", "ProviderFee", token)
    environment = json.loads(paid.arguments["providerData"])["environment"]
    same(order["environment"], environment, "environment paid for")
    amount = int(paid.arguments["providerFeeAmount"])
    if amount:
        same(world.ocean, paid.arguments["providerFeeToken"], "token of the fee")
        # A fee is for the time that is left: a retry's may be below what its first attempt had approved.
        left = world.allowance(world.ocean, wallet.address, token)
        assert left == 0 or (finished.tries > 1 and left < amount), f"{left} may still be taken"
        same(order["valid_until"], paid.arguments["validUntil"], "paid until")
    return amount


def _verify_cost(world: World, finished: FinishedTask, wallet: Wallet, coins: int, transactions: int) -> None:
    cost = finished.xcoms["cost"]
    same(transactions, len(set(cost["transactions"])), "transactions in the cost")
    same(coins - world.coins(wallet.address), int(cost["gas_fee_wei"]), "gas told")
    same(cost, finished.xcoms["order"]["cost"], "cost in the order")


def renew(world: World, paid: bool) -> Case:
    wallet = world.wallet(ocean=100 * ETHER)
    order = paid_order(world, wallet, paid)
    since, coins, nonce = (
        world.chain.block_number(),
        world.coins(wallet.address),
        world.nonce(wallet.address),
    )
    held = world.balance(world.ocean, wallet.address)
    names = ("dispensed 2", "quick dispensed")
    assets = [world.assets[name] for name in names]

    def verify(finished: FinishedTask) -> None:
        renewed, fee, expected = finished.xcoms["return_value"], 0, 0
        for asset, old, new in zip(assets, order.transactions, renewed, strict=True):
            token = asset.datatoken_address
            found = world.events("ERC20Template", "OrderReused", since, token)
            mine = [event for event in found if event.arguments["caller"] == wallet.address]
            started = world.events("ERC20Template", "OrderStarted", since, token)
            same([], [event for event in started if event.arguments["payer"] == wallet.address], "orders")
            if new == old:
                same([], mine, "renewals of an order that was still good")
                continue
            same([new], [event.transaction for event in mine], "renewal told")
            amount = _verify_fee(world, wallet, token, finished, new)
            fee, expected = fee + amount, expected + 1 + (amount > 0)
        assert expected, "nothing was renewed"
        same(held - fee, world.balance(world.ocean, wallet.address), "OCEAN left")
        same(expected, world.nonce(wallet.address) - nonce, "transactions")
        same(paid, fee > 0, "whether a fee was paid")
        _verify_cost(world, finished, wallet, coins, expected)

    known = dict(zip([asset.did for asset in assets], order.transactions, strict=True))
    arguments = _pay_arguments(world, *names, paid)
    arguments |= {"known_orders": known, "valid_until": order.valid_until + 3600}
    return Case(arguments, wallet.private_key, verify)


def paid_order(world: World, wallet: Wallet, paid: bool, renewed: bool = False, duration: int = 600) -> Order:
    """Pay for a job, past all faults.

    :param duration: seconds that the environment is paid for
    """
    environment = world.paid_environment.id if paid else "free"
    names = ("dispensed 2", "quick dispensed")
    dataset, algorithm = (world.assets[name].did for name in names)
    with world.client(wallet.private_key) as client:
        order = client.orders.pay(
            client.orders.quote([dataset], algorithm, environment=environment, duration=duration)
        )
    if not renewed:
        return order
    with world.client(wallet.private_key) as client:
        known = {dataset: order.transactions[0], algorithm: order.transactions[1]}
        until = order.valid_until + 600
        quote = client.orders.quote(
            [dataset], algorithm, environment=environment, valid_until=until, known_orders=known
        )
        return client.orders.pay(quote)
