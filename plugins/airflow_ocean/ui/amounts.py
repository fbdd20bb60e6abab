"""What was paid, for people and to the last digit: sums in the tokens' smallest units, shown as decimals."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_ocean.c2d.units import ETHER_DECIMALS, format_units

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_WHOLE = re.compile(r"-?[0-9]{1,80}")


@dataclass(frozen=True)
class Token:
    """What is known of a token.

    :param symbol: its short name, empty when unknown
    :param decimals: None when unknown
    :param asset: name of the asset whose use it pays, for datatokens
    """

    address: str
    symbol: str = ""
    decimals: int | None = None
    asset: str | None = None

    def amount(self, units: int) -> str:
        """Give an amount of the smallest unit for people."""
        if self.decimals is None:
            return f"{grouped(str(units))} smallest units"
        return grouped(format_units(units, self.decimals))


@dataclass
class Cost:
    """What tasks took from their wallets.

    :param tokens: token address → amount in its smallest unit, what was claimed of the escrow included
    :param gas_fee: wei
    :param locked: token address → the most that may still be claimed of the escrow
    :param claimed: token address → what was claimed of it
    :param transactions: the hashes of those that cost it; empty when what was there was enough
    :param settled: whether it is that of a payment brought up to date after the job
    """

    tokens: dict[str, int] = field(default_factory=dict)
    gas_fee: int = 0
    gas_used: int = 0
    locked: dict[str, int] = field(default_factory=dict)
    claimed: dict[str, int] = field(default_factory=dict)
    transactions: tuple[str, ...] = ()
    settled: bool = False

    @classmethod
    def parse(cls, value: Any) -> Cost:
        """Read the XCom ``cost``; what is not as expected is left out."""
        cost = cls()
        if not isinstance(value, dict):
            return cost
        cost.claimed = _units(value.get("claimed"))
        cost.tokens = _added(_units(value.get("tokens")), cost.claimed)
        cost.locked = _units(value.get("locked"))
        cost.gas_fee = whole_number(value.get("gas_fee_wei")) or 0
        cost.gas_used = whole_number(value.get("gas_used")) or 0
        sent = value.get("transactions")
        cost.transactions = tuple(map(str, sent)) if isinstance(sent, list) else ()
        cost.settled = is_final(value)
        return cost

    def add(self, other: Cost) -> None:
        """Add another cost to this one."""
        self.tokens = _added(self.tokens, other.tokens)
        self.locked = _added(self.locked, other.locked)
        self.claimed = _added(self.claimed, other.claimed)
        self.gas_fee += other.gas_fee
        self.gas_used += other.gas_used

    def __bool__(self) -> bool:
        return bool(self.tokens or self.locked or self.gas_fee)


@dataclass(frozen=True)
class PaidToken:
    """One line of a cost: how much of which token."""

    amount: str
    unit: str
    title: str


class Tokens:
    """All that a set of runs says of tokens, by address in lower case."""

    def __init__(self) -> None:
        self._known: dict[str, Token] = {}

    def learn(self, xcoms: Mapping[str, Any]) -> None:
        """Take in what a task pushed; later tasks do not make known things unknown."""
        units = xcoms.get("tokens")
        for address, described in (units if isinstance(units, dict) else {}).items():
            if isinstance(described, dict):
                self._note(
                    address, str(described.get("symbol") or ""), whole_number(described.get("decimals"))
                )
        for asset in asset_entries(xcoms):
            self._note(asset.get("datatoken"), "", ETHER_DECIMALS, str(asset.get("name") or asset.get("did")))
        self._note(
            xcoms.get("datatoken_address"), "", ETHER_DECIMALS, _text(xcoms.get("asset_name")) or "an asset"
        )

    def _note(self, address: Any, symbol: str, decimals: int | None, asset: str | None = None) -> None:
        if not isinstance(address, str) or not address:
            return
        before = self._known.get(address.lower(), Token(address))
        self._known[address.lower()] = Token(
            address,
            before.symbol or symbol,
            before.decimals if before.decimals is not None else decimals,
            before.asset or asset,
        )

    def __getitem__(self, address: str) -> Token:
        return self._known.get(address.lower(), Token(address))

    def lines(self, cost: Cost) -> list[PaidToken]:
        """Give a cost token by token."""
        return [self._line(self[address], units) for address, units in cost.tokens.items()]

    def locked(self, cost: Cost) -> list[PaidToken]:
        """Give what is locked in the escrow token by token."""
        return [self._line(self[address], units) for address, units in cost.locked.items()]

    def claimed(self, cost: Cost) -> list[PaidToken]:
        """Give what was claimed of the escrow token by token."""
        return [self._line(self[address], units) for address, units in cost.claimed.items()]

    def summary(self, cost: Cost) -> list[PaidToken]:
        """Give a cost in few lines: datatokens of all assets together, as each is one use of an asset."""
        datatokens = {address: units for address, units in cost.tokens.items() if self[address].asset}
        lines = [
            self._line(self[address], units)
            for address, units in cost.tokens.items()
            if address not in datatokens
        ]
        if datatokens:
            amount = grouped(format_units(sum(datatokens.values()), ETHER_DECIMALS))
            unit = "datatoken" if amount == "1" else "datatokens"
            lines.insert(0, PaidToken(amount, unit, "One datatoken pays for one use of an asset"))
        return lines

    def _line(self, token: Token, units: int) -> PaidToken:
        if token.asset:
            unit = f"datatoken of {token.asset}"
        else:
            unit = token.symbol or f"of token {token.address[:8]}…{token.address[-4:]}"
        return PaidToken(token.amount(units), unit, token.address)


def gas_fee(cost: Cost) -> str:
    """Give the gas fee in the chain's own currency."""
    return grouped(format_units(cost.gas_fee, ETHER_DECIMALS))


def asset_entries(xcoms: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what a task that paid, or quoted, says of each asset: ``did``, ``name`` and ``datatoken``."""
    quote = xcoms.get("quote")
    lists = (xcoms.get("assets"), quote.get("assets") if isinstance(quote, dict) else None)
    return [entry for entries in lists for entry in objects(entries)]


def objects(value: Any) -> list[dict[str, Any]]:
    """Return those items of a list that are objects."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def whole_number(value: Any) -> int | None:
    """Read an integer, or the text of one, exactly."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    return None


def grouped(amount: str) -> str:
    """Put narrow spaces between the thousands of a decimal number's whole part."""
    whole, dot, fraction = amount.partition(".")
    sign, digits = ("-", whole[1:]) if whole.startswith("-") else ("", whole)
    return f"{sign}{int(digits):,}".replace(",", "\u202f") + dot + fraction


def total(costs: Iterable[Cost]) -> Cost:
    """Add costs up; what a payment has cost in the end stands in the place of what it said before."""
    result = Cost()
    for cost in _final(list(costs)):
        result.add(cost)
    return result


def is_final(record: Any) -> bool:
    """Say whether a cost record is that of a payment brought up to date after the job."""
    return isinstance(record, dict) and "claimed" in record


def settlement(payment: Cost, costs: Iterable[Cost]) -> Cost | None:
    """Return what a payment has cost in the end, None when that is not known, or not which of several it is."""
    found = [cost for cost in costs if cost.settled and cost.transactions == payment.transactions]
    return found[0] if len(found) == 1 else None


def _final(costs: list[Cost]) -> list[Cost]:
    final = costs
    for settled in [cost for cost in costs if cost.settled]:
        same = [cost for cost in final if cost is not settled and cost.transactions == settled.transactions]
        if not settled.transactions:
            # Payments out of what was there are all alike; each has one end.
            same = [cost for cost in same if cost.locked][:1]
        if any(cost is settled for cost in final):
            final = [cost for cost in final if all(cost is not other for other in same)]
    return final


def _units(amounts: Any) -> dict[str, int]:
    """Read amounts by token address; what is not as expected is left out."""
    found = {str(k): whole_number(v) for k, v in (amounts if isinstance(amounts, dict) else {}).items()}
    return {address: units for address, units in found.items() if units is not None}


def _added(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return one | {address: one.get(address, 0) + units for address, units in other.items()}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
