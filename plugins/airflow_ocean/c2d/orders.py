"""What a computation costs, paying for it, and the orders that prove it was paid."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_ocean.c2d import environments
from airflow_ocean.c2d.errors import (
    InsufficientFundsError,
    InvalidInputError,
    NotAllowedError,
)
from airflow_ocean.c2d.services import AssetInput
from airflow_ocean.c2d.units import MAX_UINT256, ZERO_ADDRESS

if TYPE_CHECKING:
    from airflow_ocean.c2d.assets import Asset, Service
    from airflow_ocean.c2d.client import OceanClient
    from airflow_ocean.c2d.datatokens import Exchange
    from airflow_ocean.c2d.environments import ComputeEnvironment
    from airflow_ocean.c2d.services import OrderQuote

logger = logging.getLogger(__name__)

# An order always takes one whole datatoken, https://docs.oceanprotocol.com/developers/contracts/datatokens
ONE_DATATOKEN = 10**18


@dataclass(frozen=True)
class OrderedAsset:
    """One asset of an order.

    :param transaction: id of its order transaction, 0x and lower case as services compare it
    """

    did: str
    service_id: str
    transaction: str
    user_data: dict[str, Any] | None = None


@dataclass(frozen=True)
class Cost:
    """What a payment took from the wallet: token amounts in the token's smallest unit, gas fees in wei.

    :param datatokens: datatoken address → amount spent
    :param tokens: token address → amount spent on prices and fees
    """

    datatokens: dict[str, int] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    gas_used: int = 0
    gas_fee: int = 0
    transactions: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Give the cost as JSON; amounts as text, because JSON's numbers lose wei."""
        return {
            "datatokens": {token: str(amount) for token, amount in self.datatokens.items()},
            "tokens": {token: str(amount) for token, amount in self.tokens.items()},
            "gas_used": self.gas_used,
            "gas_fee_wei": str(self.gas_fee),
            "transactions": self.transactions,
        }


@dataclass(frozen=True)
class Order:
    """Paid inputs of a job: all that starting it needs.

    :param environment: id of the environment it was paid for
    :param environment_consumer: the environment's address, whom the orders name as consumer
    :param valid_until: until when the environment is paid, seconds since 1970
    """

    provider_url: str
    environment: str
    environment_consumer: str
    valid_until: int
    datasets: tuple[OrderedAsset, ...]
    algorithm: OrderedAsset
    cost: dict[str, Any] = field(default_factory=dict)

    @property
    def transactions(self) -> list[str]:
        """The order transaction ids: datasets first, the algorithm's last."""
        return [item.transaction for item in (*self.datasets, self.algorithm)]

    def dataset_inputs(self) -> list[AssetInput]:
        """Give the datasets as services want them."""
        return [_input(item) for item in self.datasets]

    def algorithm_input(self) -> AssetInput:
        """Give the algorithm as services want it."""
        return _input(self.algorithm)

    def to_dict(self) -> dict[str, Any]:
        """Give the order as JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Any) -> Order:
        """Read an order out of JSON.

        :raises InvalidInputError: when it is none
        """
        try:
            return cls(
                provider_url=fields["provider_url"],
                environment=fields["environment"],
                environment_consumer=fields["environment_consumer"],
                valid_until=int(fields["valid_until"]),
                datasets=tuple(OrderedAsset(**item) for item in fields["datasets"]),
                algorithm=OrderedAsset(**fields["algorithm"]),
                cost=fields.get("cost") or {},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInputError(
                f"this is not an order as paying makes it ({error!r}): {str(fields)[:200]}"
            ) from error


@dataclass(frozen=True)
class QuotedAsset:
    """One asset of a quote, with how it would be paid."""

    asset: Asset
    service: Service
    quote: OrderQuote
    user_data: dict[str, Any] | None = None

    @property
    def needs_order(self) -> bool:
        """Whether a datatoken has to be spent."""
        return self.quote.valid_order is None

    @property
    def fee(self) -> tuple[str, int] | None:
        """The provider fee as token address and amount in its smallest unit, None when there is none to pay."""
        fee = self.quote.provider_fee
        if not fee or int(fee["providerFeeAmount"]) == 0:
            return None
        return str(fee["providerFeeToken"]), int(fee["providerFeeAmount"])


@dataclass(frozen=True)
class Quote:
    """What running an algorithm on datasets in an environment takes."""

    provider_url: str
    environment: ComputeEnvironment
    valid_until: int
    datasets: tuple[QuotedAsset, ...]
    algorithm: QuotedAsset

    @property
    def items(self) -> tuple[QuotedAsset, ...]:
        """Datasets first, the algorithm last."""
        return (*self.datasets, self.algorithm)

    def to_dict(self) -> dict[str, Any]:
        """Give what a person wants to know before paying, as JSON."""
        return {
            "environment": self.environment.id,
            "provider_url": self.provider_url,
            "valid_until": self.valid_until,
            "assets": [
                {
                    "did": item.asset.did,
                    "name": item.asset.name,
                    "datatoken": item.service.datatoken,
                    "datatokens": "1" if item.needs_order else "0",
                    "fee": {"token": item.fee[0], "amount": str(item.fee[1])} if item.fee else None,
                    "valid_order": item.quote.valid_order,
                }
                for item in self.items
            ],
        }


class Orders:
    """Quoting and paying with one wallet."""

    def __init__(self, client: OceanClient) -> None:
        self._client = client

    def environments(self, provider_url: str | None = None) -> list[ComputeEnvironment]:
        """List a Provider's compute environments for the network's chain."""
        return self._client.services(provider_url).environments()

    def environment(self, choice: str, provider_url: str | None = None) -> ComputeEnvironment:
        """Pick an environment: ``free``, ``cheapest``, or one by its id."""
        services = self._client.services(provider_url)
        return environments.choose(services.environments(), choice, services.url)

    # ------------------------------------------------------------------ quoting

    def quote(
        self,
        dataset_dids: list[str],
        algorithm_did: str,
        *,
        environment: str = "free",
        duration: int = 3600,
        valid_until: int | None = None,
        known_orders: dict[str, str] | None = None,
    ) -> Quote:
        """Ask what a job takes; nothing is spent.

        :param environment: ``free``, ``cheapest``, or an environment's id
        :param duration: how long the environment is wanted, for one job or several after each other, seconds
        :param valid_until: until when it is wanted instead, seconds since 1970. With the moment a known order was
            paid until, that order costs nothing more; any later moment renews it on the chain
        :param known_orders: DID → id of an earlier order transaction, to be used again if it is still good
        :raises NotAllowedError: when the algorithm may not run on a dataset, or the Provider refuses otherwise
        :raises InvalidInputError: when a parameter is not what it has to be
        """
        if not dataset_dids:
            raise InvalidInputError("a job needs at least one dataset")
        for name, value in (("duration", duration), ("valid_until", valid_until)):
            if (
                isinstance(value, bool)
                or not isinstance(value, int | None)
                or (value is not None and value <= 0)
            ):
                raise InvalidInputError(f"{name} must be a number of seconds above 0, not {value!r}")
        datasets = [self._client.assets.resolve(did) for did in dataset_dids]
        algorithm = self._client.assets.resolve(algorithm_did)
        if algorithm.kind != "algorithm":
            raise InvalidInputError(f"{algorithm.did} is a {algorithm.kind}, not an algorithm")
        known = known_orders or {}
        services = [dataset.service("compute") for dataset in datasets]
        algorithm_service = algorithm.service("access", "compute")
        provider_url = services[0].endpoint
        chosen = self.environment(environment, provider_url)
        until = valid_until or int(time.time()) + duration
        inputs = [
            AssetInput(asset.did, service.id, known.get(asset.did))
            for asset, service in zip(datasets, services, strict=True)
        ]
        algorithm_input = AssetInput(algorithm.did, algorithm_service.id, known.get(algorithm.did))
        quotes, algorithm_quote = self._client.services(provider_url).quote(
            inputs, algorithm_input, chosen.id, until, chosen.consumer_address
        )
        return Quote(
            provider_url=provider_url,
            environment=chosen,
            valid_until=until,
            datasets=tuple(
                QuotedAsset(asset, service, quote)
                for asset, service, quote in zip(datasets, services, quotes, strict=True)
            ),
            algorithm=QuotedAsset(algorithm, algorithm_service, algorithm_quote),
        )

    # ------------------------------------------------------------------ paying

    def pay(self, quote: Quote, *, max_price: int | None = None) -> Order:
        """Pay what a quote asks: get datatokens where the wallet has none, then order or renew each asset.

        :param max_price: the most to pay for one datatoken, in its base token's smallest unit; None for no limit
        :raises InsufficientFundsError: when the wallet lacks datatokens or fee tokens and cannot get them
        :raises CostLimitError: when a datatoken costs more than ``max_price``
        """
        before = len(self._client.transactions.mined)
        spent = Cost()
        ordered = [self._pay_item(quote, item, max_price, spent) for item in quote.items]
        mined = self._client.transactions.mined[before:]
        cost = Cost(
            spent.datatokens,
            spent.tokens,
            sum(transaction.gas_used for transaction in mined),
            sum(transaction.fee for transaction in mined),
            [transaction.hash for transaction in mined],
        )
        order = Order(
            provider_url=quote.provider_url,
            environment=quote.environment.id,
            environment_consumer=quote.environment.consumer_address,
            valid_until=quote.valid_until,
            datasets=tuple(ordered[:-1]),
            algorithm=ordered[-1],
            cost=cost.to_dict(),
        )
        logger.info(
            "Paid for %d asset(s) in %d transaction(s), gas %d", len(ordered), len(mined), cost.gas_used
        )
        return order

    def _pay_item(self, quote: Quote, item: QuotedAsset, max_price: int | None, spent: Cost) -> OrderedAsset:
        did = item.asset.did
        if item.quote.valid_order and item.quote.provider_fee is None:
            logger.info("Order %s of %s is still good", item.quote.valid_order, did)
            return OrderedAsset(did, item.service.id, item.quote.valid_order.lower(), item.user_data)
        if item.quote.valid_order:
            transaction = self._renew(item)
        else:
            transaction = self._order(quote, item, max_price, spent)
            _add(spent.datatokens, item.service.datatoken, ONE_DATATOKEN)
        if item.fee:
            _add(spent.tokens, *item.fee)
        return OrderedAsset(did, item.service.id, transaction.lower(), item.user_data)

    def _renew(self, item: QuotedAsset) -> str:
        step = f"renew order of {item.asset.did}"
        resumed = self._client.transactions.resume(step)
        if resumed is not None:
            return resumed.hash
        token = self._client.datatokens.contract(item.service.datatoken)
        self._approve(item, token, {})
        with self._client.transactions.step(step) as tx:
            token.reuse_order(item.quote.valid_order, _contract_fee(item), tx)
        return self._client.transactions.of_step(step).hash

    def _order(self, quote: Quote, item: QuotedAsset, max_price: int | None, spent: Cost) -> str:
        """Spend one datatoken on an asset, getting it first the way the asset offers."""
        transactions = self._client.transactions
        datatokens = self._client.datatokens
        did = item.asset.did
        step = f"order {did}"
        resumed = transactions.resume(step)
        if resumed is not None:
            return resumed.hash
        token = datatokens.contract(item.service.datatoken)
        held = int(token.balanceOf(self._client.address)) >= ONE_DATATOKEN
        exchange = None if held or datatokens.has_dispenser(token) else self._exchange(item, token)
        limit = MAX_UINT256 if max_price is None else max_price
        price = 0 if exchange is None else datatokens.checked_price(exchange, token, ONE_DATATOKEN, limit)
        fee, consumer, index = _contract_fee(item), quote.environment.consumer_address, item.service.index
        together = not held and token.getId() == 2
        self._approve(item, token, {exchange.base_token: price} if exchange and together else {})
        if exchange is not None:
            _add(spent.tokens, exchange.base_token, price)
        if exchange is not None and not together:
            datatokens.buy(token.address, ONE_DATATOKEN, price, f"buy datatoken of {did}")
        elif not held and not together:
            datatokens.dispense(token.address, ONE_DATATOKEN, f"dispense datatoken of {did}")
        with transactions.step(step) as tx:
            if not together:
                token.start_order(consumer, index, fee, tx)
            elif exchange is not None:
                token.buy_DT_and_order(fee, exchange.contract, tx, consumer, index, None, price)
            else:
                token.dispense_and_order(fee, tx, consumer, index)
        return transactions.of_step(step).hash

    def _exchange(self, item: QuotedAsset, token: Any) -> Exchange:
        exchange = self._client.datatokens.exchange(token)
        if exchange is None:
            raise InsufficientFundsError(
                f"wallet {self._client.address} holds no datatoken {token.address} of {item.asset.did}, which offers "
                "neither a dispenser nor an exchange: ask its publisher to send one"
            )
        return exchange

    def _approve(self, item: QuotedAsset, token: Any, price: dict[str, int]) -> None:
        """Let the datatoken contract take exactly the provider fee, and the price where it buys, from the wallet."""
        due = dict(price)
        if item.fee:
            _add(due, *item.fee)
        for paying, amount in due.items():
            if paying == ZERO_ADDRESS:
                raise NotAllowedError(
                    f"the Provider asks a fee of {amount} for {item.asset.did} in no token at all"
                )
            self._client.datatokens.require_balance(self._client.datatokens.contract(paying), amount)
            self._client.datatokens.approve(
                paying, token.address, amount, f"approve {paying} for {item.asset.did}"
            )


def _contract_fee(item: QuotedAsset) -> dict[str, Any]:
    """Return the signed fee as ocean-lib hands it to the contract.

    :raises InvalidInputError: when the Provider's fee lacks a field
    """
    fee = item.quote.provider_fee
    names = (
        "providerFeeAddress",
        "providerFeeToken",
        "providerFeeAmount",
        "v",
        "r",
        "s",
        "validUntil",
        "providerData",
    )
    if not isinstance(fee, dict) or any(name not in fee for name in names):
        raise InvalidInputError(f"the Provider's fee for {item.asset.did} is incomplete: {str(fee)[:200]}")
    return fee


def _input(item: OrderedAsset) -> AssetInput:
    return AssetInput(item.did, item.service_id, item.transaction, item.user_data)


def _add(amounts: dict[str, int], token: str, amount: int) -> None:
    amounts[token] = amounts.get(token, 0) + amount
