"""The proxy that counts: whose requests, in which phase, and which transactions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from include.bench.proxy import MARKS_VARIABLE, CountingProxy, Request, counting, mark

if TYPE_CHECKING:
    from collections.abc import Iterator

HASH = "0x" + "ab" * 32


@pytest.fixture
def upstream() -> Iterator[str]:
    """Something to be asked: answers each request with its method, path and the hash of a transaction."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.dumps({"asked": f"{self.command} {self.path}", "result": HASH}).encode()
            self.send_response(418 if "teapot" in self.path else 200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Mark", "of the upstream")
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def proxy(upstream: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[CountingProxy]:
    with counting({"provider": upstream, "rpc": upstream}) as proxy:
        monkeypatch.setenv(MARKS_VARIABLE, proxy.marks_url)
        proxy.watch(os.getpid())
        yield proxy


def ask(url: str, body: object = None) -> dict[str, str]:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(url, data, timeout=10) as response:
        assert response.headers["X-Mark"] == "of the upstream"
        answer: dict[str, str] = json.load(response)
        return answer


def test_requests_are_passed_on_and_counted_by_phase(proxy: CountingProxy) -> None:
    assert ask(f"{proxy.url('provider')}/a?b=c")["asked"] == "GET /a?b=c"
    mark("pay: first")
    ask(f"{proxy.url('provider')}/b", {})
    with pytest.raises(urllib.error.HTTPError, match="418"):
        ask(f"{proxy.url('provider')}/teapot")
    before, pay = proxy.phases
    assert [request.what for request in before.requests] == ["GET /a"]
    assert pay.name == "pay: first"
    assert [request.what for request in pay.requests] == ["POST /b", "GET /teapot"]
    assert (pay.count("provider"), pay.count("rpc"), pay.count("provider", "rpc")) == (2, 0, 2)


def test_a_transaction_counts_once_however_often_it_is_sent(proxy: CountingProxy) -> None:
    for method in ("eth_chainId", "eth_sendRawTransaction", "eth_sendRawTransaction"):
        ask(proxy.url("rpc"), {"method": method})
    [phase] = proxy.phases
    assert phase.requests[:2] == [
        Request("rpc", "eth_chainId"),
        Request("rpc", "eth_sendRawTransaction", HASH),
    ]
    assert phase.count("rpc") == 3
    assert phase.transactions == [HASH]


def test_only_the_watched_process_and_its_descendants_count(proxy: CountingProxy) -> None:
    program = f"import urllib.request as r; r.urlopen('{proxy.url('provider')}/child', timeout=10).read()"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert proxy.phases[0].count("provider") == 1
    with subprocess.Popen(["sleep", "60"]) as other:
        proxy.watch(other.pid)
        ask(f"{proxy.url('provider')}/stranger")
        other.kill()
    assert [phase.requests for phase in proxy.phases] == [[]]
