"""What a compute run will cost at most, and what the wallets hold, told before anything is spent."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING, Any, Literal

from airflow_ocean.c2d.errors import InsufficientFundsError
from airflow_ocean.c2d.limits import GAS, CostLimit
from airflow_ocean.c2d.payments import ONE_DATATOKEN, Payment, Payments
from airflow_ocean.c2d.units import ETHER_DECIMALS, format_units

if TYPE_CHECKING:
    from airflow_ocean.c2d.client import OceanClient
    from airflow_ocean.c2d.quotes import Quote

COIN = "of the chain's coin"
# Gas of each transaction, measured on the Ocean contracts 2.0.3 and rounded up; tests hold them against real receipts.
GAS_PUBLISH = {
    "algorithm": 1_100_000 + 190_000,
    "dataset": 1_450_000 + 190_000,
}  # which may be offered at a fixed rate
GAS_ALLOW = 110_000
GAS_MINT = 85_000
GAS_APPROVE = 50_000
GAS_FEE = 50_000
GAS_BY_TEMPLATE = {
    1: {"held": 140_000, "dispense": 225_000, "buy": 375_000, "renew": 110_000},
    2: {"held": 140_000, "dispense": 135_000, "buy": 345_000, "renew": 110_000},
}

Kind = Literal["price", "fee", "gas", "datatoken"]


@dataclass(frozen=True)
class CostLine:
    """One thing that costs something.

    :param kind: ``price`` of a datatoken, ``fee`` of the Provider, ``gas``, or a ``datatoken`` that the wallet has or is
        given, which counts for no limit
    :param payer: the wallet's address
    :param token: the token's address, or ``gas`` for the chain's coin
    :param amount: the most it can be, in the token's smallest unit (wei)
    """

    what: str
    kind: Kind
    payer: str
    token: str
    amount: int


@dataclass(frozen=True)
class Token:
    """How amounts of a token are written."""

    symbol: str
    decimals: int = ETHER_DECIMALS

    def write(self, amount: int) -> str:
        """Give an amount of the smallest unit for people."""
        return f"{format_units(amount, self.decimals)} {self.symbol}"


@dataclass(frozen=True)
class Estimate:
    """What a run costs at most, line by line.

    :param environment: id of the compute environment
    :param duration: seconds it is paid for
    :param tokens: token address, or ``gas`` → how its amounts are written
    :param balances: wallet → token → what it holds, in the smallest unit
    """

    environment: str
    duration: int
    lines: tuple[CostLine, ...]
    tokens: dict[str, Token]
    balances: dict[str, dict[str, int]]

    def totals(self, payer: str | None = None) -> dict[str, int]:
        """Add up the lines by token, those of one wallet or of all; what is ``gas`` in wei."""
        totals: dict[str, int] = {}
        for line in self.lines:
            if line.kind != "datatoken" and payer in (None, line.payer):
                totals[line.token] = totals.get(line.token, 0) + line.amount
        return totals

    def above(self, limit: CostLimit) -> dict[str, int]:
        """Return the totals that pass a limit."""
        found = {}
        for token, amount in self.totals().items():
            most = limit.of(token)
            if most is not None and amount * 10**ETHER_DECIMALS > most * 10 ** self.tokens[token].decimals:
                found[token] = amount
        return found

    def require_balances(self) -> None:
        """Check that each wallet holds the tokens, gas apart, of which the estimate is higher than the truth.

        :raises InsufficientFundsError: with both amounts
        """
        for payer, held in self.balances.items():
            for token, needed in self.totals(payer).items():
                if token != GAS and held[token] < needed:
                    written = self.tokens[token]
                    raise InsufficientFundsError(
                        f"the run needs {written.write(needed)} (token {token}) of wallet {payer}, which holds "
                        f"{written.write(held[token])}; send it some, and trigger the run again. Nothing was spent"
                    )

    def to_dict(self) -> dict[str, Any]:
        """Give the estimate as JSON; amounts as text, because JSON's numbers lose wei."""
        return {
            "environment": self.environment,
            "duration": self.duration,
            "lines": [
                {
                    "what": line.what,
                    "kind": line.kind,
                    "payer": line.payer,
                    "token": line.token,
                    "amount": str(line.amount),
                    "text": self.tokens[line.token].write(line.amount),
                }
                for line in self.lines
            ],
            "totals": {token: str(amount) for token, amount in self.totals().items()},
            "texts": {token: self.tokens[token].write(amount) for token, amount in self.totals().items()},
            "balances": {
                payer: {token: self.tokens[token].write(amount) for token, amount in held.items()}
                for payer, held in self.balances.items()
            },
        }


def of_payment(client: OceanClient, quote: Quote, duration: int) -> Estimate:
    """Estimate paying a quote.

    :param duration: seconds the environment is paid for, only to be told
    """
    draft = _Draft(client)
    for payment in Payments(client).plan(quote):
        draft.add_payment(payment)
    return draft.finish(quote.environment.id, duration)


def of_publishing_and_payment(
    publisher: OceanClient, consumer: OceanClient, environment: str, duration: int
) -> Estimate:
    """Estimate a run that first publishes a dataset and an algorithm, and gives the consumer a datatoken of each.

    :param environment: ``free``, ``cheapest``, or an environment's id
    :param duration: seconds it is paid for
    """
    chosen = consumer.orders.environment(environment)
    draft = _Draft(publisher)
    for asset in ("dataset", "algorithm"):
        draft.add_gas(f"Publish the {asset}", GAS_PUBLISH[asset])
    draft.add_gas("Allow the algorithm on the dataset", GAS_ALLOW)
    draft.add_gas("Give one datatoken of each to the consumer", 2 * GAS_MINT)
    draft.turn_to(consumer)
    draft.add_gas("Order both assets", 2 * GAS_BY_TEMPLATE[1]["held"])
    if not chosen.is_free and chosen.fee_token:
        decimals = consumer.datatokens.decimals(chosen.fee_token)
        price = (chosen.price_per_minute * duration / 60).scaleb(decimals)
        fee = int(Decimal(price).to_integral_value(ROUND_CEILING))
        draft.add(f"Environment {chosen.id} for {duration} s", "fee", chosen.fee_token, fee)
        draft.add_gas("Approve and pay the environment's fee", GAS_APPROVE + GAS_FEE)
    return draft.finish(chosen.id, duration)


class _Draft:
    """Collects lines, first of one wallet, then of another."""

    def __init__(self, client: OceanClient) -> None:
        self._lines: list[CostLine] = []
        self._tokens = {GAS: Token(COIN)}
        self._clients: dict[str, OceanClient] = {}
        self.turn_to(client)

    def turn_to(self, client: OceanClient) -> None:
        """Let the following lines be of this wallet."""
        self._client = client
        self._clients[client.address] = client
        fees = client.transactions.chain.fees(client.network.max_fee_wei)
        self._gas_price = fees.get("maxFeePerGas") or fees["gasPrice"]

    def add(self, what: str, kind: Kind, token: str, amount: int) -> None:
        """Add a line."""
        if token not in self._tokens:
            contract = self._client.datatokens.contract(token)
            self._tokens[token] = Token(str(contract.symbol()), int(contract.decimals()))
        self._lines.append(CostLine(what, kind, self._client.address, token, amount))

    def add_gas(self, what: str, gas: int) -> None:
        """Add the gas of a transaction, at the highest price that would be signed for now."""
        self.add(what, "gas", GAS, gas * self._gas_price)

    def add_payment(self, payment: Payment) -> None:
        """Add what ordering one asset takes."""
        name = f"{payment.item.asset.name!r} ({payment.did})"
        if payment.way in ("valid", "done"):
            return
        if payment.way == "buy" and payment.exchange is not None:
            self.add(f"Datatoken of {name}", "price", payment.exchange.base_token, payment.price)
        elif payment.way != "renew":
            self.add(f"Datatoken of {name}", "datatoken", payment.token.address, ONE_DATATOKEN)
        gas = GAS_BY_TEMPLATE.get(payment.token.getId(), GAS_BY_TEMPLATE[1])[payment.way]
        if payment.item.fee:
            token, amount = payment.item.fee
            self.add(f"The Provider's fee for {name}", "fee", token, amount)
            gas += GAS_APPROVE + GAS_FEE
        self.add_gas(f"{'Renew' if payment.way == 'renew' else 'Order'} {name}", gas)

    def finish(self, environment: str, duration: int) -> Estimate:
        """Look up what the wallets hold, and return the whole."""
        balances = {}
        for address, client in self._clients.items():
            used = {line.token for line in self._lines if line.payer == address and line.kind != "datatoken"}
            balances[address] = {
                token: client.transactions.chain.quantity("eth_getBalance", address, "latest")
                if token == GAS
                else client.datatokens.balance(token)
                for token in sorted(used | {GAS})
            }
        return Estimate(environment, duration, tuple(self._lines), self._tokens, balances)
