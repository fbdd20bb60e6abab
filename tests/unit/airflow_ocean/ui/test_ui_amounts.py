"""Amounts: exact to the last digit, and in units that are known."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_ocean.ui.amounts import Cost, Tokens, gas_fee, grouped, total, whole_number
from tests.support.ocean_runs import DATASET_TOKEN, FEE_TOKEN

LARGE = 2**256 - 1


def test_no_digit_is_lost() -> None:
    tokens = Tokens()
    tokens.learn({"tokens": {FEE_TOKEN: {"symbol": "OCEAN", "decimals": 18}}})
    cost = Cost.parse({"tokens": {FEE_TOKEN: "1000000000000000000000001"}, "gas_fee_wei": "1"})
    assert [(line.amount, line.unit) for line in tokens.lines(cost)] == [
        ("1\u202f000\u202f000.000000000000000001", "OCEAN")
    ]
    assert gas_fee(cost) == "0.000000000000000001"
    assert Cost.parse({"tokens": {FEE_TOKEN: str(LARGE)}}).tokens == {FEE_TOKEN: LARGE}


def test_of_an_unknown_token_the_smallest_unit_is_shown() -> None:
    cost = Cost.parse({"tokens": {FEE_TOKEN: "1500000"}})
    (line,) = Tokens().lines(cost)
    assert (line.amount, line.unit) == ("1\u202f500\u202f000 smallest units", "of token 0xFFFFFF…FFFF")
    assert line.title == FEE_TOKEN


def test_addresses_are_the_same_in_any_case() -> None:
    tokens = Tokens()
    tokens.learn({"datatoken_address": DATASET_TOKEN, "asset_name": "Branin"})
    tokens.learn({"tokens": {DATASET_TOKEN.lower(): {"symbol": "BRAN-1", "decimals": 18}}})
    (line,) = tokens.lines(Cost({DATASET_TOKEN.lower(): 10**18}))
    assert (line.amount, line.unit) == ("1", "datatoken of Branin")


def test_costs_add_up() -> None:
    added = total([Cost({"0xa": 1, "0xb": 2}, 3, 4), Cost({"0xa": 10}, 30, 40), Cost()])
    assert (added.tokens, added.gas_fee, added.gas_used) == ({"0xa": 11, "0xb": 2}, 33, 44)
    assert not Cost()


def test_what_is_locked_is_told_apart_until_it_is_claimed() -> None:
    tokens = Tokens()
    tokens.learn({"tokens": {FEE_TOKEN: {"symbol": "OCEAN", "decimals": 18}}})
    before = Cost.parse({"tokens": {}, "locked": {FEE_TOKEN: str(2 * 10**18)}, "gas_fee_wei": "0"})
    assert before
    assert tokens.lines(before) == []
    assert [(line.amount, line.unit) for line in tokens.locked(before)] == [("2", "OCEAN")]
    after = Cost.parse({"tokens": {}, "locked": {}, "claimed": {FEE_TOKEN: str(10**18)}})
    assert [(line.amount, line.unit) for line in tokens.lines(after)] == [("1", "OCEAN")]
    assert tokens.locked(after) == []
    assert total([before, before]).locked == {FEE_TOKEN: 4 * 10**18}


LOCKED = {"tokens": {}, "locked": {FEE_TOKEN: "2"}, "gas_fee_wei": "5"}
NOTHING_CLAIMED = {"tokens": {}, "locked": {}, "claimed": {FEE_TOKEN: "0"}, "gas_fee_wei": "5"}


@pytest.mark.parametrize("claimed", ["0", "1"])
def test_a_payment_and_its_end_count_once(claimed: str) -> None:
    payment = Cost.parse(LOCKED | {"transactions": ["0x1"]})
    end = NOTHING_CLAIMED | {"claimed": {FEE_TOKEN: claimed}, "transactions": ["0x1"]}
    publishing = Cost.parse({"tokens": {FEE_TOKEN: "7"}, "gas_fee_wei": "3", "transactions": ["0x2"]})
    costs = [payment, publishing, Cost.parse(end), Cost.parse(end)]
    for added in (total(costs), total(reversed(costs))):
        assert (added.tokens, added.locked) == ({FEE_TOKEN: 7 + int(claimed)}, {})
        assert added.gas_fee == 8


def test_payments_without_a_transaction_have_an_end_each() -> None:
    end = NOTHING_CLAIMED | {"claimed": {FEE_TOKEN: "1"}}
    added = total(Cost.parse({**value, "transactions": []}) for value in (LOCKED, LOCKED, LOCKED, end, end))
    assert (added.tokens, added.locked) == ({FEE_TOKEN: 2}, {FEE_TOKEN: 2})


@pytest.mark.parametrize(
    ("value", "read"),
    [("12", 12), ("-3", -3), (7, 7), (True, None), ("1.5", None), (1.5, None), ("", None), (None, None), ("1e3", None), ("9" * 100, None)],
)  # fmt: skip
def test_whole_numbers_only(value: Any, read: int | None) -> None:
    assert whole_number(value) == read


@pytest.mark.parametrize(
    ("plain", "shown"),
    [
        ("0", "0"),
        ("1234", "1\u202f234"),
        ("-1234567.5", "-1\u202f234\u202f567.5"),
        ("0.0001234", "0.0001234"),
    ],
)
def test_thousands_are_set_apart(plain: str, shown: str) -> None:
    assert grouped(plain) == shown
