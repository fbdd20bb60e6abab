"""Teardown: what is begun is undone once, whatever ends the command, and whenever."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from include.demo.interrupts import Interrupted, Teardown

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Leave pytest its own signal handlers."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_undoes_latest_first_and_returns_the_work_s_status() -> None:
    undone: list[str] = []
    teardown = Teardown()

    def work() -> int:
        teardown.add(lambda: undone.append("first"))
        teardown.add(lambda: undone.append("second"))
        return 7

    assert teardown.run(work) == 7
    assert undone == ["second", "first"]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_work_and_gives_the_shell_s_exit_status(number: signal.Signals) -> None:
    undone: list[str] = []
    teardown = Teardown()

    def work() -> int:
        teardown.add(lambda: undone.append("it"))
        os.kill(os.getpid(), number)
        raise AssertionError("the signal did not end the work")

    assert teardown.run(work) == 128 + number
    assert undone == ["it"]


def test_a_signal_waits_while_something_is_begun() -> None:
    undone: list[str] = []
    teardown = Teardown()

    def work() -> int:
        with teardown.held():
            os.kill(os.getpid(), signal.SIGTERM)
            teardown.add(lambda: undone.append("begun in spite of the signal"))
        raise AssertionError("the signal was forgotten")

    assert teardown.run(work) == 143
    assert undone == ["begun in spite of the signal"]


def test_a_first_signal_during_the_undoing_does_not_cut_it_short() -> None:
    undone: list[str] = []
    teardown = Teardown()

    def interrupted_once() -> None:
        if "tried" not in undone:
            undone.append("tried")
            os.kill(os.getpid(), signal.SIGINT)
        undone.append("done")

    def work() -> int:
        teardown.add(lambda: undone.append("first"))
        teardown.add(interrupted_once)
        return 0

    assert teardown.run(work) == 130
    assert undone == ["tried", "done", "first"]


def test_further_signals_are_ignored() -> None:
    undone: list[str] = []
    teardown = Teardown()

    def impatient() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        undone.append("all of it")

    def work() -> int:
        teardown.add(impatient)
        os.kill(os.getpid(), signal.SIGINT)
        return 0

    assert teardown.run(work) == 130
    assert undone == ["all of it"]


def test_a_failing_undoing_does_not_keep_the_others_from_theirs(capsys: pytest.CaptureFixture[str]) -> None:
    undone: list[str] = []
    teardown = Teardown()

    def fail() -> None:
        raise OSError("the disk is gone")

    def work() -> int:
        teardown.add(lambda: undone.append("first"))
        teardown.add(fail)
        return 0

    assert teardown.run(work) == 0
    assert undone == ["first"]
    assert "the disk is gone" in capsys.readouterr().err


def test_an_exception_of_the_work_comes_through_after_the_undoing() -> None:
    undone: list[str] = []
    teardown = Teardown()

    def work() -> int:
        teardown.add(lambda: undone.append("it"))
        raise ValueError("a mistake")

    with pytest.raises(ValueError, match="a mistake"):
        teardown.run(work)
    assert undone == ["it"]


def test_the_exception_is_none_that_a_careless_handler_swallows() -> None:
    assert not issubclass(Interrupted, Exception)
