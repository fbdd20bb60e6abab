"""The local Ocean Node answers every recorded request with the status and the shape that a real one answered it with."""

from __future__ import annotations

import io
import json
import re
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.ocean_node import Exchange, recorded_exchanges
from tests.unit.localnet.node_replay import Played, stage_set

if TYPE_CHECKING:
    from collections.abc import Iterator

EXCHANGES = recorded_exchanges()
# What differs from run to run, or from chain to chain: only its type counts.
VOLATILE = {
    "nonce", "signature", "hash", "r", "s", "v", "files", "providerData", "validUntil", "jobId", "jobIdHash",
    "dateCreated", "dateFinished", "algoStartTimestamp", "algoStopTimestamp", "lockTx", "claimTx", "cancelTx",
    "created", "updated", "txid", "datetime", "block", "tokenURI", "token", "search_time_ms", "filesize",
    "runMaxWaitTime", "description", "architecture", "nodeId", "name", "symbol", "id", "txHash", "proof", "expiry",
    "consumerAddress", "checksum", "orders", "nodePublicKey",
}  # fmt: skip
# What a job comes to in the end; a poll of ours may find it further than the recorded one.
PROGRESS = {"status", "statusText", "results", "terminationDetails", "stopRequested", "cost"}
LAST = (2, 31, 70, 71)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Played]]:
    with stage_set(tmp_path_factory.mktemp("node"), EXCHANGES) as replay:
        yield {exchange.id: replay.play(exchange) for exchange in EXCHANGES}


def kind_of(value: Any) -> str:
    if value is None:
        return "nothing"
    return (
        "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__
    )


def differences(recorded: Any, local: Any, ignored: set[str], where: str = "") -> list[str]:
    """Return in what two JSON values differ: keys, lengths, types, and all that is not volatile."""
    if kind_of(recorded) != kind_of(local):
        return [f"{where}: {recorded!r} was recorded, {local!r} is answered"]
    if isinstance(recorded, dict):
        found = [f"{where}.{key}: only in one" for key in recorded.keys() ^ local.keys()]
        for key in recorded.keys() & local.keys():
            if key in ignored:
                optional = recorded[key] is None or local[key] is None or key in PROGRESS
                same = optional or kind_of(recorded[key]) == kind_of(local[key])
                found += [] if same else [f"{where}.{key}: {recorded[key]!r} and {local[key]!r}"]
            else:
                found += differences(recorded[key], local[key], ignored, f"{where}.{key}")
        return found
    if isinstance(recorded, list):
        if len(recorded) != len(local):
            return [f"{where}: {len(recorded)} entries were recorded, {len(local)} are answered"]
        return [
            problem
            for number, pair in enumerate(zip(recorded, local, strict=True))
            for problem in differences(*pair, ignored, f"{where}[{number}]")
        ]
    return [] if recorded == local else [f"{where}: {recorded!r} was recorded, {local!r} is answered"]


def ignored_in(exchange: Exchange) -> set[str]:
    """Return the keys whose values may differ."""
    if exchange.method == "GET" and exchange.path == "/api/services/compute":
        assert exchange.answer
        several = len(exchange.answer.value) != 1
        final = exchange.case == "status poll" and not several and exchange.answer.value[0]["status"] in LAST
        return VOLATILE if final else VOLATILE | PROGRESS
    return VOLATILE


def without_numbers(text: str) -> str:
    """Return a text without nonces and seconds."""
    return re.sub(r"(nonce: |again in )\d+", r"\1N", text)


def frames(content: bytes) -> list[tuple[int, bytes]]:
    """Take Docker's frames apart."""
    found = []
    while content:
        length = int.from_bytes(content[4:8], "big")
        assert content[1:4] == bytes(3)
        assert len(content) >= 8 + length
        found.append((content[0], content[8 : 8 + length]))
        content = content[8 + length :]
    return found


def tar_names(content: bytes) -> dict[str, tuple[int, int, bool]]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {m.name: (m.uid, m.gid, m.isdir()) for m in archive.getmembers()}


@pytest.mark.parametrize("exchange", EXCHANGES, ids=str)
def test_it_is_answered_as_recorded(played: dict[int, Played], exchange: Exchange) -> None:
    local = played[exchange.id]
    assert local.status == exchange.status, local.content[:500]
    recorded_type = exchange.answer_headers.get("content-type", "").split(";")[0]
    assert local.headers.get("content-type", "").split(";")[0] == recorded_type
    assert local.headers["x-powered-by"] == "Express"
    if local.content:
        assert local.headers.get("transfer-encoding") == exchange.answer_headers.get("transfer-encoding")
    check_content(exchange, local)


def check_content(exchange: Exchange, local: Played) -> None:
    if exchange.answer is None:
        assert local.content == b""
    elif exchange.path == "/api/services/escrow/events":
        check_escrow_events(local)
    elif exchange.path == "/api/services/computeResult" and exchange.status == 200:
        check_result(exchange, local)
    elif exchange.path == "/api/services/computeStreamableLogs" and exchange.status == 200:
        lines = [line for _, line in frames(local.content)]
        assert b"tick 5\n" in lines
        assert b"done\n" in lines
    elif exchange.answer.kind == "json":
        answered = json.loads(local.content)
        assert differences(local.expected, answered, ignored_in(exchange)) == []
    elif exchange.answer.kind == "text":
        assert without_numbers(local.content.decode()) == without_numbers(local.expected)
    else:
        assert local.content.startswith(b"0x04")  # encrypted


def check_result(exchange: Exchange, local: Played) -> None:
    assert exchange.answer
    recorded = exchange.answer.content
    if exchange.answer_headers["content-type"] == "application/octet-stream":
        assert tar_names(local.content) == tar_names(recorded)
    elif exchange.answer.kind == "base64":
        lines = set(frames(recorded))
        # What the algorithm itself says; the rest is of programs that are not on every machine.
        said = [
            line
            for line in lines
            if re.match(rb"tick|done|out$|boom|start|this line|== (pwd|inputs)", line[1])
        ]
        assert set(said) <= set(frames(local.content))
    elif exchange.case == "result configurationLog":
        assert local.content.decode() == local.expected
    else:
        assert b"Successfully pulled image: localhost:15055/onode-algo@sha256:" in local.content


def check_escrow_events(local: Played) -> None:
    events = json.loads(local.content)
    keys = {event["eventType"]: event.keys() for event in local.expected}
    assert {event["eventType"] for event in events} == keys.keys()
    for event in events:
        assert event.keys() == keys[event["eventType"]], event
    assert [e["amount"] for e in events if e["eventType"] == "Deposit"] == ["20000000000000000000"]
    claimed = {e["amount"] for e in events if e["eventType"] == "Claimed"}
    assert claimed == {"1000000000000000000"}
