"""Fixtures for the Airflow layer: connections, a context, and a Provider that answers as it is told."""

from __future__ import annotations

import http.server
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.airflow import prepare_airflow_home, recorded_context

prepare_airflow_home()

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = "0x" + "11" * 32
CONN_ID = "ocean_test"


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Define the Airflow connection ``ocean_test``; fields and extra fields can be given, None leaves one out."""

    def define(extra: Any = None, **fields: Any) -> str:
        content = {"conn_type": "ocean", "host": "http://127.0.0.1:1", "password": KEY, **fields}
        if not isinstance(extra, str):
            extra = {"provider_url": "http://127.0.0.1:2", **(extra or {})}
            extra = {name: value for name, value in extra.items() if value is not None}
        content["extra"] = extra
        monkeypatch.setenv(f"AIRFLOW_CONN_{CONN_ID.upper()}", json.dumps(content))
        return CONN_ID

    return define


@pytest.fixture
def context() -> dict[str, Any]:
    """A task's context."""
    return recorded_context()


class ScriptedProvider:
    """A Provider that gives the next answer of a list to each status request, the last one for ever."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: list[tuple[int, Any, dict[str, str]]] = []
        self.asked = 0

    def script(self, *answers: Any) -> None:
        """Set the answers: a status, (status, headers), or the fields of a job."""
        self.answers = [_answer(answer) for answer in answers]

    def next(self) -> tuple[int, Any, dict[str, str]]:
        """Return the answer to the next request."""
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        return answer


def _answer(answer: Any) -> tuple[int, Any, dict[str, str]]:
    if isinstance(answer, int):
        return answer, {"error": "as told"}, {}
    if isinstance(answer, tuple):
        return answer[0], {"error": "as told"}, answer[1]
    if isinstance(answer, bytes):
        return 200, answer, {}
    return 200, [{**RUNNING_JOB, **answer}], {}


RUNNING_JOB = {
    "agreementId": "0x" + "ab" * 32,
    "jobId": "job-1",
    "owner": "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A",
    "status": 40,
    "statusText": "Running algorithm",
    "dateCreated": "1700000000.0",
    "dateFinished": None,
    "results": [],
    "stopreq": 0,
    "removed": 0,
    "algoDID": "did:op:" + "cd" * 32,
    "inputDID": ["did:op:" + "ef" * 32],
}
FINISHED_JOB = {
    "status": 70,
    "statusText": "Job completed",
    "dateFinished": "1700000012.5",
    "results": [
        {"filename": "result", "filesize": 10, "type": "output"},
        {"filename": "algorithm.log", "filesize": 3, "type": "algorithmLog"},
    ],
}


@pytest.fixture
def scripted_provider() -> Iterator[ScriptedProvider]:
    """A Provider that fails as a test needs it, which the real one does not do on demand."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, headers = provider.next()
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider = ScriptedProvider(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield provider
    server.shutdown()
    thread.join()
    server.server_close()
