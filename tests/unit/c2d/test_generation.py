"""Which generation of services answers: by the root, or by the list of environments of one that needs it anyway."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from airflow_ocean.c2d import cache
from airflow_ocean.c2d.errors import InvalidInputError, RateLimitedError, ServiceUnavailableError
from airflow_ocean.c2d.services import generation, learn_kind
from tests.support.ocean_node import recorded_exchanges

if TYPE_CHECKING:
    from collections.abc import Iterator

PROVIDER_ROOT = {"software": "Provider", "serviceEndpoints": {"initializeCompute": ["POST", "/elsewhere"]}}
NODE_ROOT = {"software": "Ocean-Node"}
OF_A_PROVIDER = {"8996": [{"id": "e", "consumerAddress": "0x1", "priceMin": 0}], "1": []}
OF_AN_OLD_PROVIDER = [{"id": "e", "consumerAddress": "0x1", "priceMin": 0}]
RECORDED = [
    json.loads(exchange.answer.content)
    for exchange in recorded_exchanges()
    if exchange.scenario == "computeEnvironments" and exchange.answer
]


class Service(ThreadingHTTPServer):
    """Answers what it is told to, and keeps what it was asked for.

    :param answers: by the path: status and JSON
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Service

    def do_GET(self) -> None:  # noqa: N802 - the library's name
        self.server.asked.append(self.path)
        status, answer = self.server.answers[self.path]
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def service() -> Iterator[Service]:
    cache.forget()
    with Service() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
    cache.forget()


def environments(service: Service, answer: Any, status: int = 200) -> None:
    service.answers[generation.ENVIRONMENTS_PATH] = (status, answer)


def test_the_list_of_a_provider_says_whose_it_is(service: Service) -> None:
    environments(service, OF_A_PROVIDER)
    learn_kind(service.url + "/")
    assert not generation.is_node(service.url)
    assert generation.root_of(service.url)["serviceEndpoints"]["initializeCompute"][1].startswith("/api/")
    assert service.asked == [generation.ENVIRONMENTS_PATH]


@pytest.mark.parametrize("listed", [answer for answer in RECORDED if answer])
def test_the_list_of_a_node_says_whose_it_is(service: Service, listed: Any) -> None:
    environments(service, listed)
    learn_kind(service.url)
    assert generation.is_node(service.url)
    assert service.asked == [generation.ENVIRONMENTS_PATH]


def test_the_list_need_not_be_asked_for_again(service: Service) -> None:
    environments(service, OF_A_PROVIDER)
    learn_kind(service.url)
    assert generation.environments_of(service.url, lambda: "asked again") == OF_A_PROVIDER


def test_what_is_known_is_not_asked_for(service: Service) -> None:
    service.answers["/"] = (200, NODE_ROOT)
    assert generation.is_node(service.url)
    learn_kind(service.url)
    assert service.asked == ["/"]


@pytest.mark.parametrize(
    ("status", "listed"),
    [
        (200, OF_AN_OLD_PROVIDER), (200, []), (200, {}), (200, None), (200, {"error": "x"}), (200, ["x"]),
        (404, "not found"), (500, "x"), (503, "x"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("root", [PROVIDER_ROOT, NODE_ROOT])
def test_a_list_that_does_not_say_it_leaves_it_to_the_root(
    service: Service, status: int, listed: Any, root: dict[str, Any]
) -> None:
    environments(service, listed, status)
    service.answers["/"] = (200, root)
    learn_kind(service.url)
    assert generation.is_node(service.url) == (root is NODE_ROOT)
    assert generation.root_of(service.url) == root
    assert service.asked == [generation.ENVIRONMENTS_PATH, "/"]


def test_whoever_takes_no_more_requests_is_left_alone(service: Service) -> None:
    environments(service, "too many", 429)
    with pytest.raises(RateLimitedError):
        learn_kind(service.url)
    assert service.asked == [generation.ENVIRONMENTS_PATH]


def test_what_is_no_service_of_ocean(service: Service) -> None:
    environments(service, "nothing", 404)
    service.answers["/"] = (200, ["something else"])
    learn_kind(service.url)
    with pytest.raises(InvalidInputError, match="not as an Ocean Provider or an Ocean Node"):
        generation.is_node(service.url)


def test_nobody_answers() -> None:
    learn_kind("http://127.0.0.1:9")
    with pytest.raises(ServiceUnavailableError, match="does not answer"):
        generation.is_node("http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("job_id", "expected"),
    [
        ("0xc1a5ter-" + "ab" * 32, False),
        ("0xc1" + "-" + "ab" * 32, True),
        ("ab" * 32, True),  # as a node's list has it
        ("ab" * 16, False),
        ("job-1", False),
    ],
)
def test_whose_a_job_is(job_id: str, expected: bool) -> None:
    assert generation.is_node_job(job_id) is expected
