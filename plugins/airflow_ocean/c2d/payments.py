"""Carrying out a quote: first all of it is planned and checked, then each asset is ordered or its order renewed."""

from __future__ import annotations

import itertools
import logging
import random
import time
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from airflow_ocean.c2d.chain import NO_REASON
from airflow_ocean.c2d.errors import (
    InsufficientFundsError,
    InvalidInputError,
    NotAllowedError,
    OrderExpiredError,
    StepChangedError,
    TransactionRevertedError,
)
from airflow_ocean.c2d.units import ZERO_ADDRESS, parse_address

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from airflow_ocean.c2d.client import OceanClient
    from airflow_ocean.c2d.datatokens import Exchange
    from airflow_ocean.c2d.quotes import Quote, QuotedAsset

logger = logging.getLogger(__name__)

# An order always takes one whole datatoken, https://docs.oceanprotocol.com/developers/contracts/datatokens
ONE_DATATOKEN = 10**18
# How often an order is tried, and at most a datatoken got for it, when other tasks of the same wallet spend it first.
ACQUISITIONS = 20
# Source: ERC20Template ``startOrder``.
NOT_ENOUGH_DATATOKENS = "Not enough datatokens"
FEE_FIELDS = (
    "providerFeeAddress", "providerFeeToken", "providerFeeAmount", "v", "r", "s", "validUntil", "providerData",
)  # fmt: skip

Way = Literal["none", "valid", "done", "renew", "held", "dispense", "buy"]
# Ways that need no transaction any more.
SETTLED_WAYS = ("none", "valid", "done")


@dataclass(frozen=True)
class Payment:
    """How one asset gets paid.

    :param way: the job needs ``none`` of it; its order is still ``valid``; an earlier attempt has ``done`` it; its order is ``renew``-ed; a datatoken
        is ``held``, or the asset's dispenser or exchange gives one
    :param token: ocean-lib's contract of the asset's datatoken, None where no transaction is needed
    :param exchange: where a datatoken can be bought, if it has to be
    """

    item: QuotedAsset
    way: Way
    transaction: str | None = None
    token: Any = None
    exchange: Exchange | None = None

    @property
    def did(self) -> str:
        """The asset's DID."""
        return self.item.asset.did

    @cached_property
    def price(self) -> int:
        """What the datatoken costs in the exchange's base token: what is checked is what is paid."""
        return self.exchange.price(ONE_DATATOKEN) if self.way == "buy" and self.exchange else 0

    @property
    def due(self) -> dict[str, int]:
        """What the wallet pays besides datatokens it holds: token address → amount in its smallest unit."""
        due: dict[str, int] = {}
        if self.way == "buy" and self.exchange:
            due[self.exchange.base_token] = self.price
        if self.way not in SETTLED_WAYS and self.item.fee:
            token, amount = self.item.fee
            due[token] = due.get(token, 0) + amount
        return due


@dataclass(frozen=True)
class Terms:
    """What orders are paid for.

    :param environment: the environment's id
    :param environment_consumer: its address, whom the orders name as consumer
    :param valid_until: seconds since 1970
    :param job: how the job is to run: the fields of :class:`~airflow_ocean.c2d.services.JobTerms`
    """

    environment: str
    environment_consumer: str
    valid_until: int
    job: dict[str, Any]

    @classmethod
    def of(cls, quote: Quote) -> Terms:
        """Return a quote's terms."""
        chosen = quote.environment
        return cls(chosen.id, chosen.consumer_address, quote.valid_until, asdict(quote.terms))


class Payments:
    """Pays with one wallet; each transaction is a step of the client's journal, named after the asset.

    :param approve_payments: for how many payments like the one due to approve tokens, when one has to be approved
    """

    def __init__(self, client: OceanClient, approve_payments: int = 1) -> None:
        self._client = client
        self._approve_payments = approve_payments

    def pay(self, quote: Quote) -> list[str | None]:
        """Pay for every asset of a quote and return their order transactions, in the quote's order.

        :raises CostLimitError: when all of it costs more than the client's limit; nothing was spent
        :raises InsufficientFundsError: when the wallet lacks datatokens or tokens to pay; nothing was spent
        :raises OrderExpiredError: when an earlier attempt paid a part, and the time it paid for is over
        :raises StepChangedError: when an earlier attempt paid a part for another environment or time
        """
        payments = self.plan(quote)
        # What was deposited may be locked by now, for the very job that it was for: it is not missing.
        is_deposited = self._is_deposited(quote)
        self._check(quote, payments, is_deposited)
        self._agree(quote, payments)
        consumer = quote.environment.consumer_address
        orders = [self._carry_out(payment, consumer) for payment in payments]
        if quote.payment is not None and not is_deposited:
            self._client.escrow.provide(quote.payment, escrow_purpose(quote.dids))
            self._client.transactions.journal.save(_deposit_entry(quote.dids), asdict(Terms.of(quote)))
        return [order.lower() if order else None for order in orders]

    # ------------------------------------------------------------------ planning

    def plan(self, quote: Quote) -> list[Payment]:
        """Say how each asset of a quote would get paid; nothing is sent that was not sent before.

        :raises InsufficientFundsError: when there is no way to a datatoken
        """
        if quote.payment is not None:
            # As below: what an earlier attempt spent on the way is part of the cost.
            self._client.escrow.steps(escrow_purpose(quote.dids))
        return [self._plan(item) for item in quote.items]

    def _plan(self, item: QuotedAsset) -> Payment:
        did = item.asset.did
        if not item.quote.needed:
            return Payment(item, "none")
        is_acquired = self._recount(did)
        for step in (_order_step(did), _renew_step(did)):
            resumed = self._client.transactions.resume(step)
            if resumed is not None:
                return Payment(item, "done", resumed.hash)
        if item.quote.valid_order and not item.needs_renewal:
            # After a renewal, the transaction that proves it is another one than the order's.
            proof = item.earlier.transaction if item.earlier else item.quote.valid_order
            logger.info("Order %s of %s is still good", proof, did)
            return Payment(item, "valid", proof)
        _contract_fee(item)  # an incomplete fee is found before anything is spent
        token = self._client.datatokens.contract(item.service.datatoken)
        if item.quote.valid_order:
            return Payment(item, "renew", token=token)
        way, exchange = self._offer(token)
        # One that an earlier attempt got is not bought again before an order with it is refused.
        if is_acquired or int(token.balanceOf(self._client.address)) >= ONE_DATATOKEN:
            return Payment(item, "held", token=token, exchange=exchange)
        if way is None:
            raise InsufficientFundsError(
                f"wallet {self._client.address} holds no datatoken {token.address} of {did}, which offers neither a "
                "dispenser nor an exchange: ask its publisher to send one"
            )
        return Payment(item, way, token=token, exchange=exchange)

    def _offer(self, token: Any) -> tuple[Literal["dispense", "buy"] | None, Exchange | None]:
        if self._client.datatokens.has_dispenser(token):
            return "dispense", None
        exchange = self._client.datatokens.exchange(token)
        return (None, None) if exchange is None else ("buy", exchange)

    def _recount(self, did: str) -> bool:
        """Look at the steps on the way to an order again, so that the cost has what an earlier attempt spent on them.

        :return: whether a datatoken was got
        """
        is_acquired = False
        for attempt in range(1, ACQUISITIONS + 1):
            step = _acquire_step(did, attempt)
            self._client.datatokens.approvals(step)
            if self._client.transactions.resume(step) is None:
                break
            is_acquired = True
        self._client.datatokens.approvals(did)
        return is_acquired

    def _is_deposited(self, quote: Quote) -> bool:
        """Say whether all that a payment on these terms puts into the escrow was put there by an earlier attempt."""
        return self._client.transactions.journal.load(_deposit_entry(quote.dids)) == asdict(Terms.of(quote))

    def _check(self, quote: Quote, payments: list[Payment], is_deposited: bool) -> None:
        """Compare all that is due with limit and balances before the first transaction.

        :param is_deposited: whether the escrow has got its part
        """
        due: dict[str, int] = {}
        for payment in payments:
            for token, amount in payment.due.items():
                if token == ZERO_ADDRESS:
                    raise NotAllowedError(
                        f"the Provider asks a fee of {amount} for {payment.did} in no token at all"
                    )
                due[token] = due.get(token, 0) + amount
        datatokens, escrow = self._client.datatokens, quote.payment
        what = f"computing {quote.algorithm.asset.did} in {quote.environment.id}"
        token = parse_address(escrow.token, "token") if escrow else ""
        # All that may be claimed counts for the limit; of what the escrow holds already nothing more is needed.
        at_most = due | ({token: due.get(token, 0) + escrow.amount} if escrow else {})
        self._client.check_spending(what, at_most)
        if escrow and not is_deposited:
            due[token] = due.get(token, 0) + self._client.escrow.missing(escrow)
        for token, amount in due.items():
            datatokens.require_balance(datatokens.contract(token), amount)

    def terms(self, dids: list[str]) -> Terms | None:
        """Return what a payment for these assets was begun with, None when there is none.

        :param dids: the datasets' and at last the algorithm's
        """
        entry = self._client.transactions.journal.load(_terms_entry(dids))
        return None if entry is None else Terms(**entry)

    def _agree(self, quote: Quote, payments: list[Payment]) -> None:
        """Write down what is paid for, so that a retry pays the rest of the same, and tells the same."""
        asked, begun = Terms.of(quote), self.terms(quote.dids)
        if asked == begun:
            return
        if begun is None or all(payment.way != "done" for payment in payments):
            self._client.transactions.journal.save(_terms_entry(quote.dids), asdict(asked))
        elif any(payment.way not in SETTLED_WAYS for payment in payments):
            error = OrderExpiredError if begun.valid_until <= time.time() else StepChangedError
            raise error(
                f"an earlier attempt paid a part of {', '.join(quote.dids)} for environment {begun.environment} until "
                f"{begun.valid_until} (seconds since 1970), now it is {asked.environment} until {asked.valid_until}; "
                "nothing more was spent. Run again with force_new to pay for all of it anew"
            )

    # ------------------------------------------------------------------ paying

    def _carry_out(self, payment: Payment, consumer: str) -> str | None:
        if payment.way in SETTLED_WAYS:
            return payment.transaction
        if payment.way == "renew":
            step = _renew_step(payment.did)
            with self._approved(payment, payment.due), self._client.transactions.step(step) as tx:
                payment.token.reuse_order(payment.item.quote.valid_order, _contract_fee(payment.item), tx)
            return self._client.transactions.of_step(step).hash
        return self._order(payment, consumer)

    def _order(self, payment: Payment, consumer: str) -> str:
        """Get a datatoken if none is held, and spend it.

        Tasks that share the wallet may spend each other's datatokens. Who finds it gone takes one that another has got
        meanwhile, or gets one more; as many are got as are spent.
        """
        acquired, pause = 0, 0.1
        held = payment.way == "held"
        for refusals in itertools.count(1):
            if not held and self._client.datatokens.template(payment.token) == 2:
                return self._order_at_once(self._anew(payment), consumer)
            if not held:
                acquired += 1
                self._acquire(payment, _acquire_step(payment.did, acquired))
            try:
                return self._start_order(payment, consumer)
            except TransactionRevertedError as error:
                if refusals == ACQUISITIONS or not self._was_spent(payment, error):
                    raise
            logger.info("The datatoken for the order of %s was spent by another task", payment.did)
            # Nodes may look at what is not in a block yet, so that one which is held now is spent all the same.
            time.sleep(random.uniform(pause / 2, pause))
            pause = min(pause * 1.5, 10.0)
            held = self._holds_one(payment)
        raise AssertionError("the loop returns or raises")

    def _anew(self, payment: Payment) -> Payment:
        """Return how a payment gets a datatoken in the place of the one that another task has spent."""
        if payment.way != "held":
            return payment
        way, exchange = self._offer(payment.token)
        if way is None:
            raise InsufficientFundsError(
                f"the datatoken {payment.token.address} for {payment.did} was spent by another task, and there is no other"
            )
        payment = replace(payment, way=way, exchange=exchange)
        self._client.check_spending(f"ordering {payment.did}", payment.due)
        return payment

    def _was_spent(self, payment: Payment, error: TransactionRevertedError) -> bool:
        """Say whether an order was refused for want of a datatoken, and another one can be got."""
        wanting = any(words in str(error) for words in (NOT_ENOUGH_DATATOKENS, NO_REASON))
        return (wanting or not self._holds_one(payment)) and self._offer(payment.token)[0] is not None

    def _holds_one(self, payment: Payment) -> bool:
        return int(payment.token.balanceOf(self._client.address)) >= ONE_DATATOKEN

    def _start_order(self, payment: Payment, consumer: str) -> str:
        due = {payment.item.fee[0]: payment.item.fee[1]} if payment.item.fee else {}
        step = _order_step(payment.did)
        with self._approved(payment, due), self._client.transactions.step(step) as tx:
            payment.token.start_order(consumer, payment.item.service.index, _contract_fee(payment.item), tx)
        return self._client.transactions.of_step(step).hash

    def _order_at_once(self, payment: Payment, consumer: str) -> str:
        """Let template 2 get the datatoken and order in one transaction."""
        step = _order_step(payment.did)
        fee, index = _contract_fee(payment.item), payment.item.service.index
        with self._approved(payment, payment.due), self._client.transactions.step(step) as tx:
            if payment.exchange is None:
                payment.token.dispense_and_order(fee, tx, consumer, index)
            else:
                payment.token.buy_DT_and_order(
                    fee, payment.exchange.contract, tx, consumer, index, None, payment.price
                )
        return self._client.transactions.of_step(step).hash

    def _acquire(self, payment: Payment, step: str) -> None:
        if payment.exchange is None:
            self._client.datatokens.dispense(payment.token.address, ONE_DATATOKEN, step)
        else:
            self._client.datatokens.buy(
                payment.token.address, ONE_DATATOKEN, payment.exchange.price(ONE_DATATOKEN), step
            )

    def _approved(self, payment: Payment, due: dict[str, int]) -> AbstractContextManager[None]:
        """Let the datatoken contract take what is due from the wallet, exactly that unless told otherwise."""
        return self._client.datatokens.approved(
            payment.token.address, due, payment.did, self._approve_payments
        )


def escrow_purpose(dids: list[str]) -> str:
    """Name what the escrow's steps of a payment are for."""
    return f"computing {' '.join(dids)}"


def _terms_entry(dids: list[str]) -> str:
    return f"terms of {' '.join(dids)}"


def _deposit_entry(dids: list[str]) -> str:
    return f"deposited for {' '.join(dids)}"


def _order_step(did: str) -> str:
    return f"order {did}"


def _renew_step(did: str) -> str:
    return f"renew order of {did}"


def _acquire_step(did: str, attempt: int) -> str:
    return f"get datatoken {attempt} of {did}"


def _contract_fee(item: QuotedAsset) -> dict[str, Any]:
    """Return the signed fee as ocean-lib hands it to the contract.

    :raises InvalidInputError: when the Provider's fee lacks a field
    """
    fee = item.quote.provider_fee
    if not isinstance(fee, dict) or any(name not in fee for name in FEE_FIELDS):
        raise InvalidInputError(f"the Provider's fee for {item.asset.did} is incomplete: {str(fee)[:200]}")
    return fee
