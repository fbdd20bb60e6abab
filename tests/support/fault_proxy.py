"""An HTTP proxy between one task and the network that fails on demand: at the n-th request, or wherever a rule says.

It listens on one port for each upstream and counts all requests of the watched process together. Requests of other
processes (Aquarius has the Provider decrypt, the compute engine fetches its inputs) pass and are not counted.
"""

from __future__ import annotations

import contextlib
import enum
import http.client
import json
import os
import signal
import socket
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOST = "127.0.0.1"
# Headers of one connection only, https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1, and what is set anew.
_NOT_FORWARDED = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "te", "upgrade"}


class Fault(enum.Enum):
    """What happens to one request. ``before`` and ``after`` mean: it is forwarded to the upstream, or not."""

    ERROR_500 = "answer 500"
    ERROR_503 = "answer 503"
    ERROR_429 = "answer 429 with Retry-After"
    ERROR_502_AFTER = "answer 502 after forwarding"
    HANG_BEFORE = "hang before forwarding"
    HANG_AFTER = "hang after forwarding"
    CUT_BEFORE = "cut before forwarding"
    CUT_AFTER = "cut after forwarding"
    CUT_WITHIN = "cut in the middle of the answer"
    KILL_BEFORE = "kill before forwarding"
    KILL_AFTER = "kill after forwarding"
    KILL_WITHIN = "kill in the middle of the answer"

    @property
    def kills(self) -> bool:
        """Whether the task's process ends with it."""
        return self in (Fault.KILL_BEFORE, Fault.KILL_AFTER, Fault.KILL_WITHIN)

    @property
    def may_be_done(self) -> bool:
        """Whether the request may have been carried out without the task's knowing, or its process has ended."""
        return self.kills or self in (
            Fault.ERROR_502_AFTER,
            Fault.HANG_AFTER,
            Fault.CUT_AFTER,
            Fault.CUT_WITHIN,
        )

    @property
    def hangs(self) -> bool:
        """Whether the task learns of it by its own time-out only."""
        return self in (Fault.HANG_BEFORE, Fault.HANG_AFTER)


@dataclass(frozen=True)
class Request:
    """A request of the watched process.

    :param upstream: the name of the upstream it is for
    :param method: HTTP method
    :param path: path and query
    :param body: its body
    """

    upstream: str
    method: str
    path: str
    body: bytes

    @property
    def rpc_method(self) -> str:
        """The JSON-RPC method, empty for other requests."""
        if self.upstream != "chain":
            return ""
        return str(json.loads(self.body)["method"])

    def describe(self) -> str:
        """Say in a few words what is asked."""
        return f"{self.upstream} {self.rpc_method or f'{self.method} {urlsplit(self.path).path}'}"


@dataclass(frozen=True)
class Answer:
    """What an upstream or a rule answers."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of_json(cls, content: Any, status: int = 200) -> Answer:
        """Make an answer of JSON."""
        return cls(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def json(self) -> Any:
        """Read the body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Rule:
    """Changes the answers to some requests of the watched process.

    :param applies: picks the requests
    :param change: makes the answer of what the upstream answered
    """

    applies: Callable[[Request], bool]
    change: Callable[[Answer], Answer]


class FaultProxy:
    """Proxies for several upstreams on free ports, which they keep until :meth:`close`.

    :param upstreams: name → root URL
    """

    def __init__(self, upstreams: dict[str, str]) -> None:
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._pids: set[int] = set()
        self._faults: dict[int, Fault] = {}
        self.retry_after = 0
        self.requests: list[Request] = []
        self.struck: list[tuple[Fault, Request]] = []
        self.rules: list[Rule] = []
        self._servers: dict[str, _Server] = {}
        for name, url in upstreams.items():
            server = _Server(self, name, url)
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
            self._servers[name] = server

    def url(self, upstream: str) -> str:
        """Return the URL that stands for an upstream."""
        return f"http://{HOST}:{self._servers[upstream].server_address[1]}"

    def close(self) -> None:
        """Stop listening."""
        self._released.set()
        for server in self._servers.values():
            server.shutdown()
            server.server_close()

    # ------------------------------------------------------------------ what a test says

    def arm(self, faults: dict[int, Fault] | None = None, retry_after: int = 60) -> None:
        """Count from 1 again, and let faults strike the requests with these numbers.

        :param retry_after: seconds that an answer 429 asks to wait
        """
        with self._lock:
            self._released.set()
            self._released = threading.Event()
            self._faults = dict(faults or {})
            self.requests = []
            self.retry_after = retry_after

    def watch(self, *pids: int) -> None:
        """Take the requests of these processes for the task's."""
        with self._lock:
            self._pids = set(pids)

    @contextlib.contextmanager
    def answering(self, *rules: Rule) -> Iterator[None]:
        """Apply rules to the requests of this process for a while."""
        self.watch(os.getpid())
        self.rules = list(rules)
        try:
            yield
        finally:
            self.rules = []
            self.watch()

    # ------------------------------------------------------------------ what the handlers ask

    def watched(self) -> frozenset[int]:
        """Return the processes that are taken for the task's."""
        with self._lock:
            return frozenset(self._pids)

    @staticmethod
    def owner(port: int, pids: frozenset[int]) -> int | None:
        """Return the one of several processes that has a local TCP port open."""
        for pid in pids:
            with contextlib.suppress(psutil.Error):
                for connection in psutil.Process(pid).net_connections("tcp4"):
                    if connection.laddr and connection.laddr.port == port:
                        return pid
        return None

    def count(self, request: Request) -> Fault | None:
        """Count a request of the task and return what is to happen to it."""
        with self._lock:
            self.requests.append(request)
            fault = self._faults.pop(len(self.requests), None)
            if fault is not None:
                self.struck.append((fault, request))
            return fault

    def hang(self, connection: socket.socket) -> None:
        """Return when the client has given up, or the next attempt begins."""
        released = self._released
        connection.setblocking(False)
        while not released.is_set():
            with contextlib.suppress(BlockingIOError):
                try:
                    if connection.recv(1, socket.MSG_PEEK) == b"":
                        return
                except OSError as error:
                    if isinstance(error, BlockingIOError):
                        raise
                    return
            time.sleep(0.01)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, proxy: FaultProxy, name: str, url: str) -> None:
        super().__init__((HOST, 0), _Handler)
        self.proxy, self.name = proxy, name
        parts = urlsplit(url)
        assert parts.hostname
        self.upstream: tuple[str, int] = (parts.hostname, parts.port or 80)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet: a connection that breaks is what this proxy is for."""


class _Cut(Exception):
    """The connection to the client is to end without an answer."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Header and body leave as two packets; without this the second waits for the first one's acknowledgement.
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self._known: tuple[frozenset[int], int | None] = (frozenset(), None)

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Keep quiet."""

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        request = Request(self.server.name, self.command, self.path, body)
        try:
            pid = self._task()
            if pid is None:
                self._answer(self._forward(request))
            else:
                self._answer_task(request, pid)
        except _Cut:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _handle  # noqa: N815 - http.server's names

    def _task(self) -> int | None:
        """Return the watched process at the other end, None for a stranger; looked up once for a connection."""
        watched = self.server.proxy.watched()
        if self._known[0] != watched:
            self._known = watched, self.server.proxy.owner(self.client_address[1], watched)
        return self._known[1]

    def _answer_task(self, request: Request, pid: int) -> None:
        proxy = self.server.proxy
        fault = proxy.count(request)
        if fault is None:
            answer = self._forward(request)
            for rule in proxy.rules:
                if rule.applies(request):
                    answer = rule.change(answer)
            self._answer(answer)
            return
        if fault in (Fault.ERROR_500, Fault.ERROR_503, Fault.ERROR_429):
            status = int(fault.name[-3:])
            headers = {"Retry-After": str(proxy.retry_after)} if status == 429 else {}
            self._answer(Answer(status, b"this is the fault proxy", headers))
            return
        if fault is Fault.KILL_BEFORE:
            os.kill(pid, signal.SIGKILL)
            raise _Cut
        if fault is Fault.CUT_BEFORE:
            raise _Cut
        if fault is Fault.HANG_BEFORE:
            proxy.hang(self.connection)
            raise _Cut
        self._answer_after(fault, self._forward(request), pid)

    def _answer_after(self, fault: Fault, answer: Answer, pid: int) -> None:
        """Answer wrongly what the upstream has carried out."""
        if fault is Fault.ERROR_502_AFTER:
            self._answer(Answer(502, b"<html>bad gateway</html>", {"Content-Type": "text/html"}))
            return
        if fault is Fault.HANG_AFTER:
            self.server.proxy.hang(self.connection)
        if fault in (Fault.CUT_WITHIN, Fault.KILL_WITHIN):
            self._answer(answer, answer.body[: len(answer.body) // 2])
            if fault is Fault.KILL_WITHIN:
                # Gives the task the time to read what it got; how much it has read is part of the chance.
                time.sleep(0.02)
        if fault.kills:
            os.kill(pid, signal.SIGKILL)
        raise _Cut

    def _forward(self, request: Request) -> Answer:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _NOT_FORWARDED}
        headers["Accept-Encoding"] = "identity"
        # A connection for each request: on one that the upstream has just closed it would have to be repeated, and a
        # repeated request is what the tests look for.
        onward = http.client.HTTPConnection(*self.server.upstream, timeout=120)
        try:
            onward.request(request.method, request.path, request.body or None, headers)
            response = onward.getresponse()
            content = response.read()
        except (http.client.HTTPException, OSError):
            raise _Cut from None
        finally:
            onward.close()
        kept = {k: v for k, v in response.getheaders() if k.lower() not in _NOT_FORWARDED}
        return Answer(response.status, content, kept)

    def _answer(self, answer: Answer, body: bytes | None = None) -> None:
        """Send an answer, or only a part of its body."""
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(answer.body if body is None else body)
