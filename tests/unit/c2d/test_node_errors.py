"""What a person reads when a real Ocean Node has refused something: its words, and what to do."""

from __future__ import annotations

import re

import httpx
import pytest

from airflow_ocean.c2d.errors import FatalError, ServiceUnavailableError
from airflow_ocean.c2d.services.node_answers import error_of
from tests.support.ocean_node import Exchange, recorded_exchanges

REFUSED = [exchange for exchange in recorded_exchanges() if exchange.status != 200]
ADVICE = {
    "no escrow funds": "pay again, which deposits what is missing",
    "deposited, no escrow authorization": "may not lock this much",
    "maxLockSeconds too low": "or not for so long",
    "second start while cpu is busy": "let the job wait in the queue",
    "cpu 99": "no more than the environment's maximum",
    "unknown order tx": "order again",
    "raw algorithm not allowed": "owner has to allow the algorithm",
    "other user": "is it the wallet that started the job",
    "bad nonce (reused)": "overtook",
    "bad signature": "does not take the signature",
    "unknown dataset did": "half a minute",
    "unknown job": "a job of this node and wallet",
    "unknown env": "choose one that it offers now",
    "lowercase token": "the spelling that counts",
    "unknown algorithm did": "does the node know the algorithm",
    "unknown did": "another|encrypted an asset|shown after half a minute",
    "image not in registry": "is the algorithm's image public",
    "DDO algorithm without meta": "name its container",
    "invalid: no license": "does not say which field",
    "unknown version": "4.1.0",
    "request 6, limit 5 per minute": "other requests from this address",
    "unknown path": "Cannot GET /api/services/nosuch; is it an Ocean Node's URL",
}


def error(exchange: Exchange) -> str:
    assert exchange.answer
    response = httpx.Response(
        exchange.status,
        headers={"content-type": exchange.answer_headers.get("content-type", "")},
        content=exchange.answer.content,
        request=httpx.Request(exchange.method, f"http://node:8000{exchange.path}"),
    )
    return str(error_of(response, "trying"))


@pytest.mark.parametrize("exchange", REFUSED, ids=str)
def test_every_refusal_says_what_was_tried_what_came_and_what_to_do(exchange: Exchange) -> None:
    message = error(exchange)
    assert message.startswith(f"trying: http://node:8000{exchange.path} answers {exchange.status}: ")
    said, _, advice = message.removeprefix("trying: ").rpartition("; ")
    assert len(said) > len(f"http://node:8000{exchange.path} answers 500: "), "nothing of what the node said"
    assert len(advice) > 4
    assert not re.search(r"[<>\n]", message)


VERSION = "version=6.15.0"


@pytest.mark.parametrize(
    "text",
    [
        f'nonce has already been used (transaction="0x02f8", info={{ }}, code=NONCE_EXPIRED, {VERSION})',
        f'replacement fee too low (transaction="0x02f8", code=REPLACEMENT_UNDERPRICED, {VERSION})',
        f"request timeout (code=TIMEOUT, {VERSION})",
        'could not coalesce error (error={ "code": -32000, "message": "Invalid Request: Missing trie node" }, '
        f"code=UNKNOWN_ERROR, {VERSION})",
        f"server response 502 Bad Gateway (request={{  }}, response={{  }}, code=SERVER_ERROR, {VERSION})",
        "connect ECONNREFUSED 127.0.0.1:8545",
        "Start Compute : Network not ready",
    ],
)
def test_what_came_between_a_nodes_own_transaction_passes(text: str) -> None:
    """The node answers 400 with ethers' words when its ``createLock`` fails."""
    request = httpx.Request("POST", "http://node:8000/api/services/compute")
    found = error_of(httpx.Response(400, json=text, request=request), "starting")
    assert type(found) is ServiceUnavailableError, found
    assert "others may have come between" in str(found)


@pytest.mark.parametrize(
    "text",
    [
        f'execution reverted: "Payee not authorized" (action="estimateGas", code=CALL_EXCEPTION, {VERSION})',
        f'could not decode result data (value="0x", info={{  }}, code=BAD_DATA, {VERSION})',
        "Start Compute: Blockchain instance not available for chain 5",
    ],
)
def test_what_the_chain_or_the_nodes_settings_refuse_does_not_pass(text: str) -> None:
    request = httpx.Request("POST", "http://node:8000/api/services/compute")
    assert isinstance(error_of(httpx.Response(400, json=text, request=request), "starting"), FatalError)


@pytest.mark.parametrize("case", ADVICE)
def test_the_advice_fits(case: str) -> None:
    found = [
        message
        for message in map(error, [e for e in REFUSED if e.case == case])
        if "hides why" not in message
    ]
    assert found
    for message in found:
        assert re.search(ADVICE[case], message), message
