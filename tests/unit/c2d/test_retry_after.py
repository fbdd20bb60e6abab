"""How long services ask to wait, in each form that the header may have, and in those that it may not."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from airflow_ocean.c2d.retry_after import LONGEST, seconds


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("1.5", 1.5),
        ("1" + "0" * 30, LONGEST),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST),
    ],
)
def test_what_is_said(header: str, wait: float) -> None:
    assert seconds(header) == wait


def test_a_date() -> None:
    wait = seconds(formatdate(time.time() + 90, usegmt=True))
    assert wait is not None
    assert 60 < wait <= 90


@pytest.mark.parametrize(
    "header", [None, "", "soon", "-5", "nan", "inf", "1e999", "Fri, 99 Dec 1999 23:59:59 GMT", "0x10"]
)
def test_what_says_nothing(header: str | None) -> None:
    assert seconds(header) is None
