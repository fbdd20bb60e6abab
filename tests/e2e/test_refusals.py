"""What cannot succeed fails at its first try, with amounts and addresses in its message, and before anything is signed.

Each task runs as Airflow runs it, in a process of its own, against the real services; Airflow's own code decides on a retry.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from eth_account.messages import encode_defunct

from tests.conftest import STACK
from tests.e2e.fault_cases_paying import paid_order
from tests.e2e.fault_scenarios import PAY, PUBLISH_DATASET, START, TRANSFER
from tests.e2e.fault_world import ETHER
from tests.support.task_runner import Database, Task, TaskRunner
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from eth_account.messages import SignableMessage

    from tests.e2e.fault_world import Wallet, World

pytestmark = [pytest.mark.e2e, pytest.mark.both_stacks]

CONNECTION = "ocean_refused"
UNKNOWN = "did:op:" + "0" * 64


def forged(_primitive: bytes) -> SignableMessage:
    """Stand for the message that is signed, so that the signature is of another one."""
    return encode_defunct(text="something else")


@dataclass
class Refused:
    """A task that is to be refused.

    :param words: what its message has, as a regular expression; ``{wallet}`` stands for the wallet's address, ``{ocean}``
        for the OCEAN token's
    :param extra: further fields of the connection
    :param instead: ``module:NAME`` → what is to be there instead, in the task's process
    """

    wallet: Wallet
    operator: str
    arguments: dict[str, Any]
    error: str
    words: str
    extra: dict[str, Any] = field(default_factory=dict)
    instead: dict[str, Any] = field(default_factory=dict)


def paying(world: World, wallet: Wallet, error: str, words: str, **arguments: Any) -> Refused:
    """Return a payment for ten minutes of the paid environment, which cost 10 OCEAN."""
    given = {
        "dataset_dids": [world.assets["dispensed 2"].did],
        "algorithm_did": world.assets["quick dispensed"].did,
        "environment": world.paid_environment.id,
        "duration": 600,
        **arguments,
    }
    return Refused(wallet, PAY, given, error, words)


LIMIT = r"costs [0-9.]+ of token {ocean}, more than .*max_cost allows, {limit}; nothing was spent"


def limited(world: World, task: Any, connection: Any, limit: str = "1") -> Refused:
    """Return a payment above a limit."""
    words = LIMIT.replace("{limit}", limit)
    refused = paying(world, world.wallet(ocean=100 * ETHER), "CostLimitError", words, max_cost=task)
    refused.extra = {} if connection is None else {"max_cost": connection}
    return refused


def buying(world: World, error: str, words: str, ocean: int = 100, **arguments: Any) -> Refused:
    """Return a purchase of a datatoken that costs 3 OCEAN and a fee."""
    given = {"asset_dids": world.assets["sold"].did, "method": "buy", "max_cost": "50", **arguments}
    return Refused(world.wallet(ocean=ocean * ETHER), TRANSFER, given, error, words)


def publishing(world: World, **extra: Any) -> Refused:
    """Return a publication whose gas is above the connection's limit."""
    url = f"{world.localnet.files_url}/branin.arff"
    words = r"may cost up to [0-9.]+ of the chain's coin for gas.*max_cost allows 0\.0000001 in all.*was not signed"
    arguments = {"asset_name": "dear", "url": url}
    return Refused(world.wallet(), PUBLISH_DATASET, arguments, "CostLimitError", words, extra)


def moving(world: World, error: str, words: str, held: int = 0, **arguments: Any) -> Refused:
    """Return a transfer of datatokens."""
    given = {
        "asset_dids": world.assets["held"].did,
        "method": "transfer",
        "to": world.wallet().address,
        "amount": "2.5",
        **arguments,
    }
    return Refused(world.wallet(held=held * ETHER), TRANSFER, given, error, words)


def starting(world: World, error: str, words: str, duration: int = 600, **order: Any) -> Refused:
    """Return the start of a job on a paid order, when the time that was paid for is over if it is short."""
    wallet = world.wallet(ocean=100 * ETHER)
    paid = paid_order(world, wallet, paid=True, duration=duration)
    if duration < 600:
        wait_until(lambda: time.time() > paid.valid_until + 1, "the environment's time is over")
    return Refused(wallet, START, {"order": {**paid.to_dict(), **order}}, error, words)


def signing_wrongly(world: World) -> Refused:
    refused = starting(world, "NotAllowedError", "(?i)signature")
    refused.instead = {"airflow_ocean.c2d.wallet:encode_defunct": forged}
    return refused


REFUSED: dict[str, Callable[[World], Refused]] = {
    "a price above the task's limit": lambda w: limited(w, "1", None),
    "a price above the connection's limit": lambda w: limited(w, None, "1"),
    "a price above the stricter limit, the task's": lambda w: limited(w, "1", "99"),
    "a price above the stricter limit, the connection's": lambda w: limited(w, "99", "1"),
    "a price above the limit for one token": lambda w: limited(
        w, {"*": "99", w.ocean: "2"}, '{"gas": "1"}', limit="2"
    ),
    "gas above the connection's limit": lambda w: publishing(w, max_cost={"gas": "0.0000001"}),
    "a purchase above the limit": lambda w: buying(
        w, "CostLimitError", "more than max_cost allows, 2|nothing was bought", max_cost="2"
    ),
    "not enough OCEAN": lambda w: buying(
        w, "InsufficientFundsError", r"{wallet} holds 1 OCEAN \({ocean}\) and needs 3\.003", ocean=1
    ),
    "not enough OCEAN for the fee": lambda w: paying(
        w, w.wallet(ocean=ETHER), "InsufficientFundsError", r"{wallet} holds 1 OCEAN \({ocean}\) and needs (9\.|10)"
    ),
    "not enough datatokens": lambda w: moving(
        w, "InsufficientFundsError", rf"{{wallet}} holds 1 DT1 \({w.assets['held'].datatoken_address}\) and needs 2\.5 DT1", held=1
    ),
    "no datatoken to be had": lambda w: paying(
        w, w.wallet(ocean=100 * ETHER), "InsufficientFundsError",
        rf"{{wallet}} holds no datatoken {w.assets['held'].datatoken_address} of {w.assets['held'].did}",
        dataset_dids=[w.assets["held"].did],
    ),
    "minting another's datatoken": lambda w: moving(
        w, "TransactionRevertedError|NotAllowedError", "(?i)minter|not allowed|may mint", method="mint"
    ),
    "an unknown asset": lambda w: moving(w, "AssetNotFoundError", UNKNOWN, asset_dids=UNKNOWN),
    "a wrong signature": signing_wrongly,
    "an environment that nobody offers": lambda w: starting(
        w, "NotAllowedError|InvalidInputError|ServiceAnswerError", "no such place", environment="no such place"
    ),
}  # fmt: skip
if STACK == "provider":  # an Ocean Node's orders are not for a time in an environment
    REFUSED["an environment whose time is over"] = lambda w: starting(
        w, "NotAllowedError|OrderExpiredError", "(?i)expire|valid|order", duration=1
    )


@pytest.mark.parametrize("name", REFUSED)
def test_it_fails_at_once_and_nothing_is_signed(world: World, tmp_path: Path, name: str) -> None:
    case = REFUSED[name](world)
    sent, jobs = world.nonce(case.wallet.address), len(world.jobs(case.wallet.address))
    connection = world.connection(case.wallet.private_key, **case.extra)
    task = Task(
        case.operator,
        {"ocean_conn_id": CONNECTION, **case.arguments},
        {f"AIRFLOW_CONN_{CONNECTION.upper()}": connection},
        case.instead,
    )
    runner = TaskRunner(task, tmp_path / "database", tmp_path / "log")
    try:
        finished = runner.run()
    finally:
        runner.close()
    assert (finished.state, finished.tries) == ("failed", 1), finished.errors
    (told,) = finished.errors
    error, _, message = told.partition(": ")
    assert re.fullmatch(case.error, error), told
    words = case.words.replace("{wallet}", case.wallet.address).replace("{ocean}", world.ocean)
    assert re.search(words, message, re.DOTALL), told
    assert case.wallet.private_key[2:] not in told
    assert world.nonce(case.wallet.address) == sent, "a transaction was sent"
    assert len(world.jobs(case.wallet.address)) == jobs, "a job was started"
    database = Database(tmp_path / "database")
    assert '"raw"' not in json.dumps(database.read("store")), "a transaction was signed"
    database.close()
