"""Every recorded answer of a real Ocean Node is understood: read, or turned into the error that says what to do."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_ocean.c2d import errors
from airflow_ocean.c2d.services import node_answers, node_jobs
from airflow_ocean.c2d.services.docker_frames import decode_frames
from airflow_ocean.c2d.services.generation import describes_node
from airflow_ocean.c2d.services.http import AsyncHttpSession, read_json
from airflow_ocean.c2d.units import MAX_UINT256
from tests.support.ocean_node import CLUSTER, Exchange, recorded_exchanges

if TYPE_CHECKING:
    from collections.abc import Callable

EXCHANGES = recorded_exchanges()
GOOD = [exchange for exchange in EXCHANGES if exchange.status == 200]
REFUSED = [exchange for exchange in EXCHANGES if exchange.status != 200]
CONSUMER = "0x90F79bf6EB2c4f870365E785982E1f101E93b906"
# The only refusals that the same request may not meet again later.
TRANSIENT = ("Internal Server Error", "Not enough available", "Rate limit exceeded", "{}")
COMPUTE = "/api/services/compute"


def response_of(exchange: Exchange) -> httpx.Response:
    return httpx.Response(
        exchange.status,
        headers={"content-type": exchange.answer_headers.get("content-type", "")},
        content=exchange.answer.content if exchange.answer else b"",
        request=httpx.Request(exchange.method, f"http://node{exchange.path}"),
    )


@pytest.mark.parametrize("exchange", REFUSED, ids=str)
def test_a_refusal_is_a_typed_error(exchange: Exchange) -> None:
    response = response_of(exchange)
    error = node_answers.error_of(response, "trying")
    passing = response.text.strip('"').startswith(TRANSIENT)
    assert isinstance(error, errors.TransientError) is passing, error
    # The general error is left for what needs none of its own: something that is not there.
    assert exchange.status == 404 or not isinstance(error, errors.ServiceAnswerError)
    if exchange.status == 429:
        assert isinstance(error, errors.RateLimitedError)
        assert error.retry_after == 60


EXPECTED: dict[str, type[errors.OceanError]] = {
    "no escrow funds": errors.InsufficientFundsError,
    "maxLockSeconds too low": errors.InsufficientFundsError,
    "wrong command signed": errors.NotAllowedError,
    "order for wrong consumer": errors.OrderExpiredError,
    "algorithm not trusted (valid order)": errors.NotAllowedError,
    "unknown dataset did": errors.AssetNotFoundError,
    "lowercase token": errors.InvalidInputError,
    "second start while cpu is busy": errors.ServiceUnavailableError,
    "unknown job": errors.JobNotFoundError,
    "other user": errors.NotAllowedError,
    "image not in registry": errors.InvalidInputError,
    "logs finished": errors.JobNotFoundError,
    "invalid: no license": errors.InvalidInputError,
}


@pytest.mark.parametrize("case", EXPECTED)
def test_the_error_says_what_to_do(case: str) -> None:
    found = [e for e in REFUSED if e.case == case and response_of(e).text != "Internal Server Error"]
    assert found
    for exchange in found:
        assert type(node_answers.error_of(response_of(exchange), "trying")) is EXPECTED[case]


def check_root(answer: Any) -> None:
    assert describes_node(answer)


def check_jobs(answer: Any) -> None:
    for job, entry in zip(node_jobs.read_jobs(answer, "asking"), answer, strict=True):
        assert job.id.startswith(f"{CLUSTER}-")
        assert job.is_finished is (entry["dateFinished"] is not None)
        assert job.succeeded is (entry["status"] >= 70 and entry["terminationDetails"]["exitCode"] == 0)
        assert len(job.results) == len(entry["results"] or [])
        assert (job.payment is None) is entry["isFree"]
        assert job.agreement_id == ""


def check_environments(answer: Any) -> None:
    found = node_answers.read_environments(answer, 8996, CONSUMER, "asking")
    assert len(found) == 2 * len(answer)
    if found:
        paid, free = found
        assert (paid.is_free, free.is_free) == (False, True)
        assert paid.price_per_minute == 1
        assert (paid.max_job_duration, free.max_job_duration) == (3600, 600)
        assert paid.fee_token == answer[0]["fees"]["8996"][0]["feeToken"]


def check_ddo(answer: Any) -> None:
    ddo = node_answers.read_ddo(answer, "asking")
    assert ddo["event"]["tx"] == answer["indexedMetadata"]["event"]["txid"]
    assert ddo["nft"]["state"] == 0
    assert ddo["services"] == answer["services"]


def check_file_infos(answer: Any) -> None:
    for info, entry in zip(node_answers.read_file_infos(answer, "asking"), answer, strict=True):
        assert info.valid is (entry["name"] != "none")
        assert info.checksum == entry["checksum"]


def check_verdict(answer: Any) -> None:
    node_answers.check_verdict(answer, "asking")


def nothing(answer: Any) -> None:
    """Take an answer that nobody reads."""


READERS: dict[tuple[str, str], Callable[[Any], None]] = {
    ("GET", "/"): check_root,
    ("GET", "/api/services/nonce"): nothing,
    ("GET", COMPUTE): check_jobs,
    ("PUT", COMPUTE): check_jobs,
    ("POST", COMPUTE): check_jobs,
    ("POST", "/api/services/freeCompute"): check_jobs,
    ("GET", "/api/services/computeEnvironments"): check_environments,
    ("POST", "/api/services/fileInfo"): check_file_infos,
    ("GET", "/api/aquarius/assets/ddo"): check_ddo,
    ("GET", "/api/aquarius/assets/metadata"): check_ddo,
    ("GET", "/api/aquarius/state/ddo"): nothing,
    ("POST", "/api/aquarius/assets/metadata/query"): nothing,
    ("POST", "/api/aquarius/assets/ddo/validate"): check_verdict,
    ("GET", "/api/services/initialize"): nothing,
    ("GET", "/api/services/escrow/events"): nothing,
    ("POST", "/api/services/auth/token"): nothing,
    ("POST", "/api/services/auth/token/invalidate"): nothing,
    ("POST", "/api/services/decrypt"): nothing,
}
RAW = ("/api/services/encrypt", "/api/services/download")
QUOTE = "/api/services/initializeCompute"
LOGS = ("/api/services/computeResult", "/api/services/computeStreamableLogs")


@pytest.mark.parametrize("exchange", [e for e in GOOD if e.path not in (*RAW, *LOGS, QUOTE)], ids=str)
def test_an_answer_is_read(exchange: Exchange) -> None:
    path = exchange.path.partition("/did:")[0]
    READERS[exchange.method, path](read_json(response_of(exchange), "asking"))


async def test_a_job_that_cannot_be_read_does_not_touch_the_others() -> None:
    (exchange,) = [e for e in GOOD if (e.scenario, e.case) == ("settled-70", "all jobs after settling")]
    broken, *others = read_json(response_of(exchange), "asking")
    assert others
    answer = [5, {"status": 1}, {**broken, "status": "fine"}, *others]
    client = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=answer)))
    async with client:
        reader = node_jobs.NodeJobReader(AsyncHttpSession(client, node_answers.check), "http://node", "0x1")
        found = (await reader.fetch_jobs([f"{CLUSTER}-{entry['jobId']}" for entry in (broken, *others)])).jobs
    assert isinstance(found.pop(f"{CLUSTER}-{broken['jobId']}"), errors.UnreadableAnswerError)
    assert len(found) == len(others)
    assert all(isinstance(job, node_jobs.NodeJob) for job in found.values())


@pytest.mark.parametrize("exchange", [e for e in GOOD if e.path == QUOTE], ids=str)
def test_a_quote_is_read(exchange: Exchange) -> None:
    assert exchange.body
    answer = read_json(response_of(exchange), "asking")
    quote = node_answers.read_quote(answer, exchange.body.value, "asking")
    assert quote.payment
    assert quote.payment.amount % 10**18 == 0
    assert 0 < quote.payment.amount < MAX_UINT256
    assert quote.payment.lock_seconds > 3600
    for order, entry in zip(quote.datasets, answer["datasets"], strict=True):
        assert (order.valid_order or False) == entry["validOrder"]
        assert order.provider_fee == entry.get("providerFee")
    assert quote.algorithm.needed is ("did" in answer["algorithm"])


@pytest.mark.parametrize("exchange", [e for e in GOOD if e.path in LOGS and e.answer], ids=str)
def test_a_result_is_decoded(exchange: Exchange) -> None:
    assert exchange.answer
    content = exchange.answer.content
    if exchange.answer_headers.get("content-type") == "application/octet-stream":
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            assert archive.getnames()[0] == "outputs"
    elif exchange.answer.kind == "base64":
        pieces = [content[position : position + 7] for position in range(0, len(content), 7)]
        text = b"".join(decode_frames(pieces, "reading")).decode()
        assert text
        assert "\x00" not in text
    else:
        # What has no frames passes as it is, however it is cut.
        assert b"".join(decode_frames([content[:3], content[3:]], "reading")) == content


def test_a_log_without_frames_is_told_from_a_damaged_one() -> None:
    frame = b"\1\0\0\0\0\0\0\3abc"
    assert list(decode_frames([b"", b"no"], "reading")) == [b"no"]
    assert list(decode_frames([frame, frame[:-1]], "reading")) == [b"abc", b"ab"]
    with pytest.raises(errors.InvalidInputError, match="reading: .* all through"):
        list(decode_frames([frame, b"not a frame"], "reading"))
