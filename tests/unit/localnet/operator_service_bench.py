"""What the operator-service's tests stand on: the running service, and a machine that plays the services around it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import httpx
from eth_account import Account

from include.localnet.ethereum import sign_message, signer_of
from include.localnet.operator_service.interpreter import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Account.enable_unaudited_hdwallet_features()
MNEMONIC = "taxi music thumb unique chat sand crew more leg another off lamp"


def account(index: int) -> Any:
    return Account.from_mnemonic(MNEMONIC, account_path=f"m/44'/60'/0'/0/{index}")


PROVIDER, CONSUMER, BOB = account(8), account(9), account(7)
OWNER: str = BOB.address
OCEAN = "0xCfDdA22C9837aE76E0faA845354f33C62E03653a"
DATASET, ALGORITHM = "did:op:" + "da" * 32, "did:op:" + "a1" * 32
ORDER = "0x" + "0d" * 32


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@dataclass
class World:
    """A loopback server that is the Provider, the metadata cache and the web in one.

    :param files: path or ``did/index`` to content
    :param seen: (method, path, parameters) of all requests
    :param failures: how often a path answers 503 before it works
    :param silences: how often a path gives no answer at all before it works
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    silences: dict[str, int] = field(default_factory=dict)
    hold: threading.Event = field(default_factory=threading.Event)
    last_nonce: int = 0

    def answer(self, path: str, query: dict[str, str], body: dict[str, Any]) -> tuple[int, bytes]:
        if self.failures.get(path, 0) > 0:
            self.failures[path] -= 1
            return 503, b"busy"
        if path == "/":
            endpoints = {
                "fileinfo": ["POST", "/api/services/fileinfo"],
                "download": ["GET", "/api/services/download"],
            }
            return 200, json.dumps({"serviceEndpoints": endpoints}).encode()
        if path.startswith("/api/aquarius/assets/ddo/did:op:") and path.rsplit("/", 1)[1] in (
            DATASET,
            ALGORITHM,
        ):
            did = path.rsplit("/", 1)[1]
            services = [{"id": "s1", "serviceEndpoint": self.url}]
            return 200, json.dumps({"id": did, "services": services}).encode()
        if path == "/api/services/fileinfo":
            count = sum(name.startswith(body["did"] + "/") for name in self.files)
            return 200, json.dumps([{"index": i, "valid": True} for i in range(count)]).encode()
        if path == "/api/services/download":
            return self._download(query)
        if path == "/slow":
            self.hold.wait(60)
            return 200, b"late"
        content = self.files.get(path)
        return (404, b'{"error": "nothing here"}') if content is None else (200, content)

    def _download(self, query: dict[str, str]) -> tuple[int, bytes]:
        signer = signer_of(query["documentId"] + query["nonce"], query["signature"])
        if signer != CONSUMER.address or query["consumerAddress"] != CONSUMER.address:
            return 401, b'{"error": "Invalid signature provided."}'
        if int(query["nonce"]) <= self.last_nonce:
            return 401, b'{"error": "Invalid nonce."}'
        self.last_nonce = int(query["nonce"])
        if query["transferTxId"] != ORDER or query["serviceId"] != "s1":
            return 400, b'{"error": "order invalid"}'
        return 200, self.files[f"{query['documentId']}/{query['fileIndex']}"]


@contextlib.contextmanager
def running_world() -> Iterator[World]:
    world = World()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            world.seen.append((self.command, parts.path, query))
            if world.silences.get(parts.path, 0) > 0:
                world.silences[parts.path] -= 1
                self.close_connection = True
                return
            status, answer = world.answer(parts.path, query, json.loads(content) if content else {})
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(answer)

        do_GET = do_POST = handle_any  # noqa: N815

        def log_message(self, *_arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    world.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield world
    world.hold.set()
    server.shutdown()
    server.server_close()


@dataclass
class Service:
    """A running operator-service, and the Provider's way of calling it."""

    url: str
    state: Path
    process: subprocess.Popen[bytes]
    http: httpx.Client

    def signed(self, message: str, key: Any = PROVIDER, nonce: object = None) -> dict[str, str]:
        nonce = time.time_ns() if nonce is None else nonce
        return {"nonce": str(nonce), "providerSignature": sign_message(f"{message}{nonce}", key.key.hex())}

    def post(self, **changes: Any) -> httpx.Response:
        """Start a job as the Provider does."""
        owner = changes.pop("owner", OWNER)
        payload = {
            "agreementId": "0x" + os.urandom(32).hex(),
            "owner": owner,
            "providerAddress": PROVIDER.address,
            "environment": "ocean-compute",
            "validUntil": int(time.time()) + 300,
            "chainId": 8996,
            **self.signed(owner),
            **changes,
        }
        return self.http.post(
            "/api/v1/operator/compute", json={k: v for k, v in payload.items() if v is not ...}
        )

    def start(self, code: str, **changes: Any) -> str:
        """Start a job of raw code and return its id."""
        answer = self.post(**{"workflow": raw(code), **changes})
        assert answer.status_code == 200, answer.text
        job_id: str = answer.json()[0]["jobId"]
        return job_id

    def call(
        self, method: str, job_id: str | None = None, path: str = "compute", **more: Any
    ) -> httpx.Response:
        key = more.pop("key", PROVIDER)
        owner = more.pop("owner", OWNER)
        query = {"owner": owner, **({"jobId": job_id} if job_id else {}), "providerAddress": PROVIDER.address}
        query |= self.signed(f"{owner}{job_id or ''}", key)
        return self.http.request(method, f"/api/v1/operator/{path}", params={**query, **more})

    def status(self, job_id: str) -> dict[str, Any]:
        answer = self.call("GET", job_id)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()
        assert len(found) == 1
        return found[0]

    def wait(self, job_id: str, until: Callable[[dict[str, Any]], bool] | None = None) -> dict[str, Any]:
        """Wait until a job is over, or until what is asked for."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            status = self.status(job_id)
            if until(status) if until else status["dateFinished"]:
                return status
            time.sleep(0.05)
        raise AssertionError(f"job {job_id} is still {status}")

    def result(self, job_id: str, index: int, **more: Any) -> httpx.Response:
        return self.call("GET", job_id, "getResult", index=index, **more)

    def text(self, status: dict[str, Any], name: str) -> str:
        index = [entry["filename"] for entry in status["results"]].index(name)
        return self.result(status["jobId"], index).text

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=30)


def launch(state: Path, **environment: str) -> Service:
    """Start the service and wait until it answers."""
    port = free_port()
    addresses = state.parent / f"{state.name}-address.json"
    addresses.write_text(json.dumps({"development": {"chainId": 8996, "Ocean": OCEAN}}))
    log = (state.parent / f"{state.name}.log").open("ab")
    process = subprocess.Popen(
        [sys.executable, "-m", "include.localnet.operator_service"],
        cwd=PROJECT,
        stdout=log,
        stderr=log,
        env={
            "PATH": os.environ["PATH"],
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "STATE_DIR": str(state),
            "ADDRESS_FILE": str(addresses),
            "COMPUTE_PRIVATE_KEY": CONSUMER.key.hex(),
            **environment,
        },
    )
    url = f"http://127.0.0.1:{port}"
    service = Service(url, state, process, httpx.Client(base_url=url, timeout=30, trust_env=False))
    for _ in range(600):
        with contextlib.suppress(httpx.TransportError):
            if service.http.get("/").status_code == 200:
                return service
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise AssertionError((state.parent / f"{state.name}.log").read_text())


@contextlib.contextmanager
def running_service(state: Path, **environment: str) -> Iterator[Service]:
    service = launch(state, **environment)
    yield service
    if service.process.poll() is None:
        service.end()
    service.http.close()


def stage(
    algorithm: dict[str, Any], inputs: list[dict[str, Any]] | None = None, url: str = ""
) -> dict[str, Any]:
    return {
        "stages": [
            {
                "index": 0,
                "input": inputs or [],
                "compute": {"Instances": 1, "namespace": "ocean-compute", "maxtime": 3600},
                "algorithm": algorithm,
                "output": {"metadataUri": url},
            }
        ]
    }


def container(entrypoint: str = "python $ALGO") -> dict[str, str]:
    return {
        "image": "oceanprotocol/algo_dockers",
        "tag": "python-branin",
        "entrypoint": entrypoint,
        "checksum": "sha256:x",
    }


def raw(
    code: str, inputs: list[dict[str, Any]] | None = None, entrypoint: str = "python $ALGO"
) -> dict[str, Any]:
    return stage({"id": "", "url": None, "rawcode": code, "container": container(entrypoint)}, inputs)


def remote(did: str, **more: Any) -> dict[str, Any]:
    return {"id": did, "remote": {"txId": ORDER, "serviceId": "s1", **more}}
