"""How much a task may spend, checked before anything is signed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_ocean.c2d.errors import CostLimitError, InvalidInputError
from airflow_ocean.c2d.units import format_units, parse_address, parse_units

if TYPE_CHECKING:
    from collections.abc import Callable

GAS = "gas"
ANY_TOKEN = "*"
_PRECISION = 18


@dataclass(frozen=True)
class CostLimit:
    """The most that may be spent, per token.

    :param amounts: token address, ``*`` for every token without an entry of its own, or ``gas`` for the chain's coin
        → amount in whole tokens, as a multiple of 10**-18
    :param name: where it was set, for messages
    """

    amounts: dict[str, int] = field(default_factory=dict)
    name: str = field(default="max_cost", compare=False)

    @classmethod
    def parse(cls, value: Any, name: str = "max_cost") -> CostLimit:
        """Read a limit: an amount in whole tokens, which holds for each token that pays, or an object.

        The object's keys are token addresses, ``*`` for any other token, and ``gas`` for the chain's own coin.

        :raises InvalidInputError: when it is neither
        """
        if value is None or value == "":
            return cls(name=name)
        if not isinstance(value, dict):
            return cls({ANY_TOKEN: parse_units(value, name, _PRECISION)}, name)
        amounts = {}
        for token, amount in value.items():
            key = token if token in (GAS, ANY_TOKEN) else parse_address(token, f"{name}: token").lower()
            if isinstance(amount, float):
                raise InvalidInputError(f"{name}: {amount} for {token} must be text, as floats are not exact")
            amounts[key] = parse_units(amount, f"{name}: {token}", _PRECISION)
        return cls(amounts, name)

    def to_dict(self) -> dict[str, str]:
        """Give the limit in the form that :meth:`parse` reads."""
        return {token: format_units(amount) for token, amount in self.amounts.items()}

    def and_also(self, other: CostLimit) -> CostLimit:
        """Return the stricter of two limits, token by token."""
        tokens = self.amounts.keys() | other.amounts.keys()
        both = {
            token: [limit for limit in (self.of(token), other.of(token)) if limit is not None]
            for token in tokens
        }
        names = [limit.name for limit in (self, other) if limit.amounts]
        return CostLimit(
            {token: min(limits) for token, limits in both.items() if limits},
            names[0] if len(names) == 1 else f"the stricter of {self.name} and {other.name}",
        )

    def of(self, token: str) -> int | None:
        """Return the limit for a token, None for no limit."""
        if token == GAS:
            return self.amounts.get(GAS)
        return self.amounts.get(token.lower(), self.amounts.get(ANY_TOKEN))

    def check_tokens(
        self, what: str, due: dict[str, int], spent: dict[str, int], decimals: Callable[[str], int]
    ) -> None:
        """Refuse to spend more than allowed.

        :param what: what it is for, for the message
        :param due: token address → amount in the token's smallest unit
        :param spent: what was spent before, likewise
        :param decimals: returns the number of a token's decimals
        :raises CostLimitError: with both amounts
        """
        for token, amount in due.items():
            limit, before = self.of(token), spent.get(token, 0)
            # compared as whole tokens, without rounding: amount / 10**decimals against limit / 10**18
            if limit is not None and (before + amount) * 10**_PRECISION > limit * 10 ** decimals(token):
                until_now = f" after {format_units(before, decimals(token))} were spent" if before > 0 else ""
                raise CostLimitError(
                    f"{what} costs {format_units(amount, decimals(token))} of token {token}{until_now}, more than {self.name} "
                    f"allows, {format_units(limit)}; nothing {'more ' if until_now else ''}was spent. Raise it, or where somebody has approved it, clear the "
                    "task that asked, which then asks again"
                )

    def check_gas(self, what: str, spent: int, more: int) -> None:
        """Refuse to pay more for gas than allowed; amounts in wei.

        :raises CostLimitError: with the amounts
        """
        limit = self.of(GAS)
        if limit is not None and spent + more > limit:
            raise CostLimitError(
                f"{what} may cost up to {format_units(more)} of the chain's coin for gas after {format_units(spent)} were "
                f"spent; {self.name} allows {format_units(limit)} in all. This transaction was not signed. Raise it, or clear the "
                "task when gas is cheaper"
            )
