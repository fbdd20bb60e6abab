"""An Ocean Node in a process of its own on a real chain, its clients' signatures, and a web server it fetches files from."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import httpx
from eth_account import Account as Signer
from eth_account.messages import encode_defunct
from eth_utils import keccak

from include.localnet import accounts
from include.localnet.processes import ProcessTable
from include.localnet.settings import choose_ports
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMANDS = {
    ("POST", "/api/services/encrypt"): "encrypt",
    ("POST", "/api/services/decrypt"): "decryptDDO",
    ("POST", "/api/aquarius/assets/ddo/validate"): "validateDDO",
    ("POST", "/api/services/compute"): "startCompute",
    ("POST", "/api/services/freeCompute"): "freeStartCompute",
    ("PUT", "/api/services/compute"): "stopCompute",
    ("GET", "/api/services/computeResult"): "getComputeResult",
    ("GET", "/api/services/computeStreamableLogs"): "getComputeStreamableLogs",
    ("GET", "/api/services/download"): "download",
    ("POST", "/api/services/auth/token"): "createAuthToken",
    ("POST", "/api/services/auth/token/invalidate"): "invalidateAuthToken",
}


class Wallet:
    """Signs for one account, with nonces of its own that rise."""

    def __init__(self, account: accounts.Account) -> None:
        self.address = account.address
        self._key = account.private_key
        self.nonce = 0

    def digest(self, nonce: int, command: str) -> bytes:
        return bytes(keccak(text=f"{self.address}{nonce}{command}"))

    def sign(self, message: bytes) -> str:
        return "0x" + bytes(Signer.sign_message(encode_defunct(message), self._key).signature).hex()

    def next_nonce(self, command: str, *, leading_zero: bool = False) -> int:
        """Return the next nonce whose hash begins, or does not begin, with a zero byte."""
        nonce = self.nonce + 1
        while (self.digest(nonce, command)[0] == 0) is not leading_zero:
            nonce += 1
        return nonce

    def fields(self, command: str) -> dict[str, str]:
        """Return the fields of a correctly signed request."""
        self.nonce = self.next_nonce(command)
        signature = self.sign(self.digest(self.nonce, command))
        return {"consumerAddress": self.address, "nonce": str(self.nonce), "signature": signature}


class NodeProcess:
    """A node's process.

    :param home: folder of its state and log
    """

    def __init__(self, home: Path, rpc_url: str, address_file: Path, **environment: str) -> None:
        self._table = ProcessTable(home)
        self._port = choose_ports(0)["node"]
        self.url = f"http://127.0.0.1:{self._port}"
        self.http = httpx.Client(base_url=self.url, timeout=60, trust_env=False)
        self.state = home / "state"
        self._environment = {
            "HOST": "127.0.0.1",
            "PORT": str(self._port),
            "STATE_DIR": str(self.state),
            "RPC_URL": rpc_url,
            "ADDRESS_FILE": str(address_file),
            "PRIVATE_KEY": accounts.NODE.private_key,
            **environment,
        }

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [sys.executable, "-m", "include.localnet.node"]
        self._table.start("node", command, self._environment)
        wait_until(lambda: self._table.running("node") is None or self._answers(), "the node answers")
        assert self._table.running("node"), self.log

    def _answers(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            # As somebody else, so that it counts towards nobody's limit.
            self.http.get("/", headers={"X-Forwarded-For": "127.0.0.9"})
            return True
        return False

    def kill(self) -> None:
        """SIGKILL."""
        record = self._table.running("node")
        assert record is not None, self.log
        os.kill(record.pid, signal.SIGKILL)
        wait_until(lambda: self._table.running("node") is None, "the node is dead")

    def stop(self) -> None:
        """SIGTERM."""
        self._table.stop(["node"])

    @property
    def pid(self) -> int:
        record = self._table.running("node")
        assert record is not None, self.log
        return record.pid

    @property
    def log(self) -> str:
        return self._table.end_of_log("node", 200)

    def jobs(self, **query: str) -> list[dict[str, Any]]:
        """Return the status of jobs."""
        found: list[dict[str, Any]] = self.http.get("/api/services/compute", params=query).json()
        return found

    def environment(self) -> dict[str, Any]:
        """Return the compute environment."""
        found: dict[str, Any] = self.http.get("/api/services/computeEnvironments").json()[0]
        return found


class Gate:
    """Lets requests for data wait."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()


class _FilesHandler(SimpleHTTPRequestHandler):
    def __init__(self, *args: Any, gate: Gate, **options: Any) -> None:
        self._gate = gate
        super().__init__(*args, **options)

    def do_GET(self) -> None:
        if self.path.endswith(".csv"):
            self._gate.open.wait(60)
        super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""


@contextlib.contextmanager
def file_server(folder: Path, gate: Gate) -> Iterator[str]:
    """Serve a folder and yield the URL."""
    handler = functools.partial(_FilesHandler, directory=str(folder), gate=gate)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            gate.open.set()
            server.shutdown()
