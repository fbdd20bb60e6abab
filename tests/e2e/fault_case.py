"""A task that is to run under faults, with what must be there afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.task_runner import FinishedTask


@dataclass
class Case:
    """A task that is ready to run.

    :param arguments: the operator's
    :param private_key: of the wallet behind its connection
    :param verify: looks at what is there when it is over
    """

    arguments: dict[str, Any]
    private_key: str
    verify: Callable[[FinishedTask], None]


def same(expected: object, found: object, what: str) -> None:
    assert found == expected, f"{what}: expected {expected}, found {found}"
