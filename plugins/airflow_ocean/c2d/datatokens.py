"""Datatokens: minting, transferring, and getting them from a dispenser or a fixed-rate exchange. Amounts in wei."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_ocean.c2d.errors import (
    AllowanceSpentError,
    CostLimitError,
    InsufficientFundsError,
    InvalidInputError,
    NotAllowedError,
    TransactionRevertedError,
)
from airflow_ocean.c2d.units import MAX_UINT256, ZERO_ADDRESS, format_units, parse_address
from airflow_ocean.c2d.wallet import machine_lock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from airflow_ocean.c2d.client import OceanClient
    from airflow_ocean.c2d.mined_transaction import MinedTransaction

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exchange:
    """An active fixed-rate exchange of a datatoken.

    :param address: the exchange contract
    :param id: the exchange's id in it
    :param base_token: the token that pays
    """

    address: str
    id: bytes
    base_token: str
    contract: Any

    def price(self, amount: int) -> int:
        """Return what ``amount`` datatokens cost in the base token, fees included."""
        return int(self.contract.BT_needed(amount, 0))


class Datatokens:
    """Moving datatokens with one wallet. Every method that sends takes the name of its step in the journal."""

    def __init__(self, client: OceanClient) -> None:
        self._client = client
        self._contracts: dict[str, Any] = {}

    def contract(self, datatoken: str) -> Any:
        """Return ocean-lib's contract object of a datatoken, of the template that it has."""
        address = parse_address(datatoken, "datatoken")
        if address not in self._contracts:
            self._contracts[address] = self._load(address)
        return self._contracts[address]

    def _load(self, address: str) -> Any:
        from airflow_ocean.c2d import oceanlib

        self._client.require_contract(address, "datatoken")
        token = oceanlib.Datatoken1(self._client.ocean_config, address)
        if self.template(token) != 2:
            return token
        return oceanlib.Datatoken2(self._client.ocean_config, address)

    def template(self, token: Any) -> int:
        """Return the template of a token that :meth:`contract` returned, 0 for one that pays, without templates."""

        def ask() -> int:
            # ocean-lib's own way takes any error, a lost connection as well, for template 1.
            try:
                return int(token.getId())
            except (TransactionRevertedError, InvalidInputError):
                return 0

        return self._client.transactions.chain.constant(f"template of {token.address}", ask)

    def balance(self, datatoken: str, owner: str | None = None) -> int:
        """Return how much of a token an address holds, the wallet's own by default."""
        holder = parse_address(owner, "owner") if owner else self._client.address
        return int(self.contract(datatoken).balanceOf(holder))

    def mint(self, datatoken: str, to: str, amount: int, step: str = "mint") -> str:
        """Make new datatokens for an address.

        :raises NotAllowedError: when the wallet is no minter of this datatoken
        :return: transaction hash
        """
        receiver = self._receiver(to, amount)
        token = self.contract(datatoken)
        if self._client.transactions.resume(step, token.address) is None:
            if not token.getPermissions(self._client.address)[0]:
                raise NotAllowedError(
                    f"wallet {self._client.address} is no minter of datatoken {token.address}; its publisher has to mint, "
                    "or get the datatoken from a dispenser or an exchange"
                )
            with self._client.transactions.step(step) as tx:
                token.mint(receiver, amount, tx)
        logger.info("Minted %s of datatoken %s to %s", format_units(amount), token.address, receiver)
        return self._client.transactions.of_step(step).hash

    def transfer(self, datatoken: str, to: str, amount: int, step: str = "transfer") -> str:
        """Send datatokens that the wallet holds to an address.

        :raises InsufficientFundsError: when it holds fewer
        :return: transaction hash
        """
        receiver = self._receiver(to, amount)
        token = self.contract(datatoken)
        if self._client.transactions.resume(step, token.address) is None:
            self.require_balance(token, amount)
            with self._client.transactions.step(step) as tx:
                token.transfer(receiver, amount, tx)
        logger.info("Sent %s of datatoken %s to %s", format_units(amount), token.address, receiver)
        return self._client.transactions.of_step(step).hash

    def dispense(self, datatoken: str, amount: int, step: str = "dispense") -> str:
        """Get datatokens for free from the datatoken's dispenser.

        :raises NotAllowedError: when it has no active dispenser, or not for this wallet
        :return: transaction hash
        """
        self._receiver(self._client.address, amount)
        token = self.contract(datatoken)
        if self._client.transactions.resume(step) is None:
            self._sold_alone(token)
            if not self.has_dispenser(token):
                raise NotAllowedError(
                    f"datatoken {token.address} has no active dispenser that serves {self._client.address}"
                )
            with self._client.transactions.step(step) as tx:
                token.dispense(amount, tx)
        logger.info("Got %s of datatoken %s from its dispenser", format_units(amount), token.address)
        return self._client.transactions.of_step(step).hash

    def buy(self, datatoken: str, amount: int, max_price: int = MAX_UINT256, step: str = "buy") -> list[str]:
        """Buy datatokens at the datatoken's fixed-rate exchange, approving exactly their price.

        :param max_price: the most to pay for all of them, in the base token's smallest unit
        :raises NotAllowedError: when it has no active exchange
        :raises CostLimitError: when they cost more than ``max_price``
        :raises InsufficientFundsError: when the wallet holds less of the base token
        :return: transaction hashes
        """
        self._receiver(self._client.address, amount)
        token = self.contract(datatoken)
        exchange = self.exchange(token)
        if exchange is None:
            raise NotAllowedError(f"datatoken {token.address} has no active fixed-rate exchange")
        if self._client.transactions.resume(step) is None:
            self._sold_alone(token)
            price = self._checked_price(exchange, token, amount, max_price)
            due = {exchange.base_token: price}
            with self.approved(exchange.address, due, step), self._client.transactions.step(step) as tx:
                exchange.contract.FRE.buyDT(exchange.id, amount, price, ZERO_ADDRESS, 0, tx)
            logger.info(
                "Bought %s of datatoken %s for %s of %s",
                format_units(amount), token.address, format_units(price), exchange.base_token,
            )  # fmt: skip
        sent = [*self.approvals(step), self._client.transactions.of_step(step)]
        return [mined.hash for mined in sent]

    def check_purchases(self, steps: Mapping[str, str], amount: int) -> None:
        """Compare what several purchases cost together with limit and balances, before the first of them.

        :param steps: datatoken → the step that buys it; one that is carried out already counts as spent
        :param amount: of each
        :raises CostLimitError: when it is more than the client's limit
        :raises InsufficientFundsError: when the wallet holds less of the tokens that pay
        """
        due: dict[str, int] = {}
        for datatoken, step in steps.items():
            self.approvals(step)
            exchange = self.exchange(self.contract(datatoken))
            if self._client.transactions.resume(step) is None and exchange is not None:
                due[exchange.base_token] = due.get(exchange.base_token, 0) + exchange.price(amount)
        self._client.check_spending(f"buying {len(steps)} assets' datatokens", due)
        for token, units in due.items():
            self.require_balance(self.contract(token), units)

    def _checked_price(self, exchange: Exchange, token: Any, amount: int, max_price: int) -> int:
        price = exchange.price(amount)
        base = self.contract(exchange.base_token)
        what = f"{format_units(amount)} of datatoken {token.address}"
        if price > max_price:
            raise CostLimitError(
                f"{what} costs {self.describe(base, price)}, more than the limit of {self.describe(base, max_price)}; "
                "nothing was bought"
            )
        self._client.check_spending(what, {exchange.base_token: price})
        self.require_balance(base, price)
        return price

    def _sold_alone(self, token: Any) -> None:
        # ERC20TemplateEnterprise makes itself the only allowed swapper of its dispenser and its exchange.
        if self.template(token) == 2:
            raise NotAllowedError(
                f"datatoken {token.address} has template 2, which gives a datatoken only together with an order: pay for "
                "the asset directly"
            )

    # ------------------------------------------------------------------ shared with payments

    def decimals(self, token: str) -> int:
        """Return the number of a token's decimals."""
        ask = self.contract(token).decimals
        return self._client.transactions.chain.constant(f"decimals of {token}", lambda: int(ask()))

    def units(self, tokens: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return what it takes to give amounts of tokens for people: their symbols and decimals, by address."""
        found = {}
        for address in tokens:
            token = self.contract(address)
            found[address] = {"symbol": str(token.symbol()), "decimals": int(token.decimals())}
        return found

    def describe(self, token: Any, amount: int) -> str:
        """Give an amount of a token for people: whole tokens, symbol and address."""
        return f"{format_units(amount, int(token.decimals()))} {token.symbol()} ({token.address})"

    def has_dispenser(self, token: Any) -> bool:
        """Say whether a datatoken's dispenser gives to this wallet, with template 2 together with an order."""
        status = token.dispenser_status()
        return bool(status.active) and status.allowed_swapper in (
            ZERO_ADDRESS,
            self._client.address,
            token.address,
        )

    def exchange(self, token: Any) -> Exchange | None:
        """Return a datatoken's first active fixed-rate exchange."""
        for contract in token.get_exchanges():
            return Exchange(contract.address, contract.exchange_id, contract.details.base_token, contract)
        return None

    @contextlib.contextmanager
    def approved(self, spender: str, due: Mapping[str, int], purpose: str, times: int = 1) -> Iterator[None]:
        """Allow a contract to take exactly what is due from the wallet, unless it already may; inside, it is taken.

        An allowance has one number for a wallet, a token and a contract. Tasks of this machine with the same wallet
        therefore take turns, or one would spend, or replace, what another one has allowed.

        :param due: token address → amount in its smallest unit
        :param times: how many times the amounts to allow, when they have to be allowed, so that later payments need not
        :param purpose: what it is for; ends the steps' names. There may be several, as a retry may need another token,
            or more than its first attempt allowed
        :raises AllowanceSpentError: when the transaction inside was refused, as the wallet's owner has spent the allowance
            from another machine, or a node of the RPC endpoint does not know it yet
        """
        if not due:
            yield
            return
        with machine_lock(self._client.chain_id, f"allowance of {spender} by {self._client.address}"):
            for token, amount in due.items():
                self._approve(token, spender, amount, purpose, times)
            try:
                yield
            except TransactionRevertedError as error:
                for token, amount in due.items():
                    left = self._allowance(token, spender)
                    if left < amount:
                        why = f"only {left} are left: does another machine pay with the same wallet?"
                    elif "allowance" in str(error):
                        why = "all are left, which one node of the RPC endpoint does not know yet"
                    else:
                        continue
                    raise AllowanceSpentError(
                        f"of {amount} that {spender} was allowed to take of token {token} from wallet {self._client.address} "
                        f"{why}. The payment was refused ({error}); trying again helps"
                    ) from error
                raise

    def _approve(self, token: str, spender: str, amount: int, purpose: str, times: int) -> None:
        given = self.approvals(purpose)
        if self._allowance(token, spender) >= amount:
            return
        with self._client.transactions.step(_approval_step(len(given) + 1, purpose)) as tx:
            self.contract(token).approve(spender, min(amount * times, MAX_UINT256), tx)

    def _allowance(self, token: str, spender: str) -> int:
        return int(self.contract(token).allowance(self._client.address, spender))

    def approvals(self, purpose: str) -> list[MinedTransaction]:
        """Bring the approvals that earlier attempts sent for a purpose to their end, and return them."""
        given: list[MinedTransaction] = []
        while mined := self._client.transactions.resume(_approval_step(len(given) + 1, purpose)):
            given.append(mined)
        return given

    def require_balance(self, token: Any, amount: int) -> None:
        """Check that the wallet holds enough of a token.

        :raises InsufficientFundsError: with both amounts
        """
        held = int(token.balanceOf(self._client.address))
        if held < amount:
            raise InsufficientFundsError(
                f"wallet {self._client.address} holds {self.describe(token, held)} and needs "
                f"{self.describe(token, amount)}; nothing was sent"
            )

    @staticmethod
    def _receiver(to: str, amount: int) -> str:
        if isinstance(amount, bool) or not isinstance(amount, int) or not 0 < amount <= MAX_UINT256:
            raise InvalidInputError(f"the amount must be above 0 wei and fit a uint256, not {amount!r}")
        receiver = parse_address(to, "to")
        if receiver == ZERO_ADDRESS:
            raise InvalidInputError("the receiver is the zero address, where tokens are lost")
        return receiver


def _approval_step(number: int, purpose: str) -> str:
    return f"approval {number} for {purpose}"
