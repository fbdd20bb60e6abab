"""What a compute run will cost at most, and what the wallets hold, told before anything is spent."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from decimal import ROUND_CEILING
from typing import TYPE_CHECKING, Any, Literal

from airflow_ocean.c2d.errors import CostLimitError, InsufficientFundsError, InvalidInputError
from airflow_ocean.c2d.limits import GAS, CostLimit
from airflow_ocean.c2d.payments import ONE_DATATOKEN, SETTLED_WAYS, Payment, Payments
from airflow_ocean.c2d.transactions import gas_limit, highest_fee
from airflow_ocean.c2d.units import ETHER_DECIMALS, format_units, parse_address

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_ocean.c2d.client import OceanClient
    from airflow_ocean.c2d.environments import ComputeEnvironment
    from airflow_ocean.c2d.quotes import Quote
    from airflow_ocean.c2d.services import JobTerms

COIN = "of the chain's coin"
# How much dearer gas may have become when a run pays, where no fee cap of the connection says what it may cost at most.
GAS_RISE = 2
# Gas that the chain estimates for each transaction, measured on the Ocean contracts 2.0.3 and rounded up: more than is used
# in the end, as refunds come last. Tests hold it against what is signed for.
GAS_PUBLISH = {
    "algorithm": 1_100_000 + 190_000,
    "dataset": 1_500_000 + 190_000,
}  # which may be offered at a fixed rate
GAS_ALLOW = 110_000
GAS_MINT = 85_000
GAS_APPROVE = 50_000
GAS_FEE = 80_000
GAS_BY_TEMPLATE = {
    1: {"held": 155_000, "dispense": 270_000, "buy": 410_000, "renew": 60_000},
    2: {"held": 100_000, "dispense": 175_000, "buy": 420_000, "renew": 60_000},
}

# Deposit and authorization, the first of a wallet.
GAS_ESCROW = 150_000 + 180_000

Kind = Literal["price", "fee", "lock", "gas", "datatoken"]


@dataclass(frozen=True)
class CostLine:
    """One thing that costs something.

    :param kind: ``price`` of a datatoken, ``fee`` of the Provider, ``lock`` in the escrow, of which what the job does not use
        comes back, ``gas``, or a ``datatoken`` that the wallet has or is given, which counts for no limit
    :param payer: the wallet's address
    :param token: the token's address, or ``gas`` for the chain's coin
    :param amount: the most it can be, in the token's smallest unit (wei); of gas, at the highest price that would be signed for now
    :param task: which of the run's tasks pays it, counted from 0
    """

    what: str
    kind: Kind
    payer: str
    token: str
    amount: int
    task: int = 0


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
    :param balances: wallet → token → what it holds, in the smallest unit; what is free for it in the escrow included
    :param limits: of each task, its connection's spending limit
    :param gas_later: the most that all gas may cost when it is paid for later than now, in wei: at the fee cap of the wallet's
        connection, else at ``GAS_RISE`` times the price that would be signed for now
    """

    environment: str
    duration: int
    lines: tuple[CostLine, ...]
    tokens: dict[str, Token]
    balances: dict[str, dict[str, int]]
    limits: tuple[CostLimit, ...]
    gas_later: int

    def totals(self, payer: str | None = None) -> dict[str, int]:
        """Add up the lines by token, those of one wallet or of all; what is ``gas`` in wei."""
        return _added(line for line in self.lines if payer in (None, line.payer))

    def above(self, limit: CostLimit) -> dict[str, int]:
        """Return the totals that pass a limit."""
        return self._passing(limit, self.totals())

    def _passing(self, limit: CostLimit, totals: dict[str, int]) -> dict[str, int]:
        found = {}
        for token, amount in totals.items():
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

    def require_limits(self) -> None:
        """Check that no task has to spend more than its connection's limit, which holds for each by itself.

        :raises CostLimitError: with both amounts
        """
        for task, limit in enumerate(self.limits):
            lines = [line for line in self.lines if line.task == task]
            for token, amount in self._passing(limit, _added(lines)).items():
                raise CostLimitError(
                    f"the run needs up to {self.tokens[token].write(amount)} (token {token}) of wallet {lines[0].payer} in "
                    f"one task, more than {limit.name} allows, {format_units(limit.of(token) or 0)}; raise it, or let the "
                    "run cost less, and trigger the run again. Nothing was spent"
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
            "gas_later": str(self.gas_later),
            "balances": {
                payer: {token: self.tokens[token].write(amount) for token, amount in held.items()}
                for payer, held in self.balances.items()
            },
        }


def of_payment(client: OceanClient, quote: Quote, duration: int) -> Estimate:
    """Estimate paying a quote.

    :param duration: seconds the environment is paid for
    """
    draft = _Draft()
    draft.begin(client)
    for payment in Payments(client).plan(quote):
        draft.add_payment(payment, quote.environment, duration)
    if quote.payment is not None:
        what = "Locked in the escrow for the job; what it does not use comes back"
        token = parse_address(quote.payment.token, "token")
        draft.add_lock(what, token, quote.payment.amount, quote.payment.escrow)
    return draft.finish(quote.environment.id, duration)


def of_publishing_and_payment(
    publisher: OceanClient,
    consumer: OceanClient,
    environment: str,
    terms: JobTerms,
    variables: dict[str, str] | None = None,
) -> Estimate:
    """Estimate a run that first publishes a dataset and an algorithm, and gives the consumer a datatoken of each.

    :param environment: ``free``, ``cheapest``, or an environment's id
    :param terms: how the job is to run
    :param variables: environment variables that it is to be started with
    :raises InvalidInputError: when the service that publishes, and so runs the job, does not offer that
    """
    chosen = consumer.orders.environment_for(terms, environment, publisher.network.provider_url, variables)
    draft = _Draft()
    for what, gas in (
        ("Publish the dataset", GAS_PUBLISH["dataset"]),
        ("Publish the algorithm", GAS_PUBLISH["algorithm"]),
        ("Allow the algorithm on the dataset", GAS_ALLOW),
        ("Give one datatoken of each to the consumer", 2 * GAS_MINT),
    ):
        draft.begin(publisher)
        draft.add_gas(what, gas)
    draft.begin(consumer)
    if chosen.needs_orders:
        draft.add_gas("Order both assets", 2 * GAS_BY_TEMPLATE[1]["held"])
    if not chosen.is_free and chosen.fee_token:
        token = parse_address(chosen.fee_token, "feeToken")
        amount = _price(consumer, chosen, token, terms.duration, terms.resources)
        what = f"Environment {chosen.id} for {terms.duration} s"
        if chosen.resource_prices:
            draft.add_lock(f"{what}, locked until the job is settled", token, amount)
        else:
            draft.add(what, "fee", token, amount)
            draft.add_gas("Approve and pay the environment's fee", GAS_APPROVE + GAS_FEE)
    return draft.finish(chosen.id, terms.duration)


class _Draft:
    """Collects lines, of one task after the other."""

    def __init__(self) -> None:
        self._lines: list[CostLine] = []
        self._limits: list[CostLimit] = []
        self._gas_later = 0
        self._tokens = {GAS: Token(COIN)}
        self._clients: dict[str, OceanClient] = {}
        self._in_escrow: dict[tuple[str, str], int] = {}
        self._gas_prices: dict[OceanClient, int] = {}

    def begin(self, client: OceanClient) -> None:
        """Let the following lines be of another task, which pays with this wallet."""
        self._client = client
        self._clients[client.address] = client
        self._limits.append(client.limit)
        if client not in self._gas_prices:
            self._gas_prices[client] = highest_fee(client.transactions.chain.fees(client.network.max_fee_wei))

    def add(self, what: str, kind: Kind, token: str, amount: int) -> None:
        """Add a line."""
        if token not in self._tokens:
            contract = self._client.datatokens.contract(token)
            self._tokens[token] = Token(str(contract.symbol()), int(contract.decimals()))
        task = len(self._limits) - 1
        self._lines.append(CostLine(what, kind, self._client.address, token, amount, task))

    def add_gas(self, what: str, gas: int) -> None:
        """Add the gas of transactions, as much as would be signed for, at the highest price that would be now."""
        limit, price = gas_limit(gas), self._gas_prices[self._client]
        self.add(what, "gas", GAS, limit * price)
        self._gas_later += limit * (self._client.network.max_fee_wei or GAS_RISE * price)

    def add_payment(self, payment: Payment, environment: ComputeEnvironment, duration: int) -> None:
        """Add what ordering one asset takes.

        A Provider's fee is for the seconds that are left of the duration when it is asked. Another one is asked for when it is
        paid, so that it is estimated for all of them.
        """
        name = f"{payment.item.asset.name!r} ({payment.did})"
        if payment.way in SETTLED_WAYS:
            return
        if payment.way == "buy" and payment.exchange is not None:
            self.add(f"Datatoken of {name}", "price", payment.exchange.base_token, payment.price)
        elif payment.way != "renew":
            self.add(f"Datatoken of {name}", "datatoken", payment.token.address, ONE_DATATOKEN)
        gas = GAS_BY_TEMPLATE.get(payment.token.getId(), GAS_BY_TEMPLATE[1])[payment.way]
        if payment.item.fee:
            token, amount = payment.item.fee
            if environment.fee_token and environment.fee_token.lower() == token.lower():
                amount = max(amount, _price(self._client, environment, token, duration))
            self.add(f"The Provider's fee for {name}", "fee", token, amount)
            gas += GAS_APPROVE + GAS_FEE
        self.add_gas(f"{'Renew' if payment.way == 'renew' else 'Order'} {name}", gas)

    def add_lock(self, what: str, token: str, amount: int, escrow: str | None = None) -> None:
        """Add what is locked in the escrow for a job, and the gas of what may have to be sent before.

        :param escrow: the contract, the chain's listed one by default; what the wallet has there pays, too
        """
        self.add(what, "lock", token, amount)
        self.add_gas("Deposit in the escrow, and authorize the node to lock it", GAS_APPROVE + GAS_ESCROW)
        with suppress(InvalidInputError):  # none is listed
            contract = escrow or self._client.contract_address("Escrow")
            self._in_escrow[self._client.address, token] = self._client.escrow.funds(
                contract, token
            ).available

    def finish(self, environment: str, duration: int) -> Estimate:
        """Look up what the wallets hold, and return the whole."""
        balances = {}
        for address, client in self._clients.items():
            used = {line.token for line in self._lines if line.payer == address and line.kind != "datatoken"}
            balances[address] = {
                token: client.transactions.chain.quantity("eth_getBalance", address, "latest")
                if token == GAS
                else client.datatokens.balance(token) + self._in_escrow.get((address, token), 0)
                for token in sorted(used | {GAS})
            }
        return Estimate(
            environment,
            duration,
            tuple(self._lines),
            self._tokens,
            balances,
            tuple(self._limits),
            self._gas_later,
        )


def _price(
    client: OceanClient,
    environment: ComputeEnvironment,
    token: str,
    duration: int,
    resources: dict[str, float] | None = None,
) -> int:
    """Return what an environment costs at most, in the token's smallest unit."""
    price = environment.price(duration, resources).scaleb(client.datatokens.decimals(token))
    return int(price.to_integral_value(ROUND_CEILING))


def _added(lines: Iterable[CostLine]) -> dict[str, int]:
    """Add up lines by token, but for datatokens, which count for no limit."""
    totals: dict[str, int] = {}
    for line in lines:
        if line.kind != "datatoken":
            totals[line.token] = totals.get(line.token, 0) + line.amount
    return totals
