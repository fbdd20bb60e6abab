"""An HTTP proxy before the network that counts the requests of one process, phase by phase."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import threading
import urllib.request
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

import psutil  # type: ignore[import-untyped]

from include.localnet.settings import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator

# Where the watched process says which phase begins.
MARKS_VARIABLE = "OCEAN_BENCH_MARKS_URL"
# The upstream that speaks JSON-RPC.
RPC = "rpc"
# Headers of one connection only, https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1, and what is set anew.
_NOT_FORWARDED = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "te", "upgrade"}


@dataclass(frozen=True)
class Request:
    """A request of the watched process.

    :param upstream: the name of what it went to
    :param what: HTTP method and path; of JSON-RPC the called method
    :param transaction: hash of the transaction that it sent
    """

    upstream: str
    what: str
    transaction: str | None = None


@dataclass
class Phase:
    """What was asked from one mark to the next."""

    name: str
    requests: list[Request] = field(default_factory=list)

    def count(self, *upstreams: str) -> int:
        """Return the number of requests to some of the upstreams."""
        return sum(request.upstream in upstreams for request in self.requests)

    @property
    def transactions(self) -> list[str]:
        """The hashes of the transactions sent, each once."""
        return list(dict.fromkeys(r.transaction for r in self.requests if r.transaction))


def mark(phase: str) -> None:
    """Say, in the watched process, that a phase begins; without a proxy nothing happens."""
    if url := os.environ.get(MARKS_VARIABLE):
        urllib.request.urlopen(f"{url}/{quote(phase)}", timeout=30).close()


class CountingProxy:
    """One port for each upstream, and one for marks.

    Only what the watched process and its descendants ask is counted: Aquarius has the Provider decrypt metadata, and the
    compute engine fetches its inputs, at the same URLs.

    :param upstreams: URLs by name
    """

    def __init__(self, upstreams: dict[str, str]) -> None:
        self.phases: list[Phase] = [Phase("")]
        self._pid: int | None = None
        self._lock = threading.Lock()
        self._servers = {name: _Server(self, name, url) for name, url in upstreams.items()}
        self._marks = _Server(self, "marks", None)
        for server in (*self._servers.values(), self._marks):
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def url(self, upstream: str) -> str:
        """Return the address that stands for an upstream."""
        return self._servers[upstream].url

    @property
    def marks_url(self) -> str:
        """What :data:`MARKS_VARIABLE` has to be."""
        return self._marks.url

    def watch(self, pid: int) -> None:
        """Count the requests of this process, from zero."""
        with self._lock:
            self._pid = pid
            self.phases = [Phase("")]

    def close(self) -> None:
        """Stop listening."""
        for server in (*self._servers.values(), self._marks):
            server.shutdown()
            server.server_close()

    def begin(self, phase: str) -> None:
        """Count for another phase from now on."""
        with self._lock:
            if self.phases[-1].name != phase:
                self.phases.append(Phase(phase))

    def note(self, request: Request) -> None:
        """Count a request."""
        with self._lock:
            self.phases[-1].requests.append(request)

    def is_watched(self, port: int) -> bool:
        """Say whether the watched process, or one below it, has a local TCP port open."""
        with contextlib.suppress(psutil.Error):
            leader = psutil.Process(self._pid) if self._pid else None
            for process in (leader, *leader.children(recursive=True)) if leader else ():
                with contextlib.suppress(psutil.Error):
                    if any(c.laddr and c.laddr.port == port for c in process.net_connections("tcp4")):
                        return True
        return False


@contextlib.contextmanager
def counting(upstreams: dict[str, str]) -> Iterator[CountingProxy]:
    """Run a proxy while the context lasts."""
    proxy = CountingProxy(upstreams)
    try:
        yield proxy
    finally:
        proxy.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, proxy: CountingProxy, name: str, url: str | None) -> None:
        super().__init__((HOST, 0), _Handler if url else _MarkHandler)
        self.proxy, self.name = proxy, name
        parts = urlsplit(url or "")
        self.upstream = (parts.hostname or HOST, parts.port or 80)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}"


class _MarkHandler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.server.proxy.begin(unquote(self.path.lstrip("/")))
        self.send_response(http.client.NO_CONTENT)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Header and body leave as two packets; without this the second waits for the first one's acknowledgement.
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self._watched = self.server.proxy.is_watched(self.client_address[1])

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        onward = http.client.HTTPConnection(*self.server.upstream, timeout=120)
        try:
            headers = {k: v for k, v in self.headers.items() if k.lower() not in _NOT_FORWARDED}
            onward.request(self.command, self.path, body or None, {**headers, "Accept-Encoding": "identity"})
            response = onward.getresponse()
            content = response.read()
        except (http.client.HTTPException, OSError):
            self.close_connection = True
            return
        finally:
            onward.close()
        if self._watched:
            self.server.proxy.note(self._request(body, content))
        self.send_response_only(response.status)
        for name, value in response.getheaders():
            if name.lower() not in _NOT_FORWARDED:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(content)

    def _request(self, body: bytes, content: bytes) -> Request:
        if self.server.name != RPC:
            return Request(self.server.name, f"{self.command} {urlsplit(self.path).path}")
        method, transaction = _json_rpc(body, content)
        return Request(RPC, method, transaction)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _handle  # noqa: N815 - http.server's names


def _json_rpc(asked: bytes, answered: bytes) -> tuple[str, str | None]:
    """Return the method of a JSON-RPC request, and the hash of the transaction that it has sent."""
    try:
        question, answer = json.loads(asked), json.loads(answered)
    except ValueError:
        return "?", None
    if not isinstance(question, dict) or not isinstance(answer, dict):
        return "batch", None
    method = str(question.get("method"))
    return method, answer.get("result") if method == "eth_sendRawTransaction" else None
