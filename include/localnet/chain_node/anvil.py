"""Anvil as a child process: started on a port of its own, ended with this process however that ends, and asked."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import aiohttp

from include.localnet.accounts import MNEMONIC
from include.localnet.settings import HOST, port_is_free

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Old states a client may still call on, for instance to learn why a transaction reverted. Each costs about 70 KB.
_STATES_KEPT = 64
_PORT_TRIES = 5
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class AnvilError(Exception):
    """Anvil refused a request, with its own words."""


class AnvilEnded(Exception):
    """Anvil is not there (any more)."""


class Anvil:
    """An anvil that mines nothing by itself.

    :param binary: path of anvil
    :param chain_id: the chain it says to be
    """

    def __init__(self, binary: str, chain_id: int) -> None:
        self._command = [binary, "--quiet", "--host", HOST, "--chain-id", str(chain_id)]
        self._command += ["--mnemonic", MNEMONIC, "--accounts", "20", "--no-mining"]
        # The limit is kept in front of it.
        self._command += ["--no-request-size-limit"]
        # Without pruning anvil keeps every block's state in memory, then in ~/.foundry: 100 MB a thousand blocks.
        # Blocks, receipts and logs are kept either way.
        self._command += ["--prune-history", str(_STATES_KEPT)]
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: subprocess.Popen[bytes] | None = None
        self._session: aiohttp.ClientSession | None = None
        self._url = ""
        self._ids = itertools.count(1)

    async def start(self, state: Path) -> None:
        """Start it and wait until it answers.

        :param state: file of the state to begin with, if there is one
        :raises AnvilEnded: when it ends instead; what it says about that is in this process's output
        """
        loading = ["--load-state", str(state)] if state.exists() else []
        # Without a limit of its own: mining a full block or dumping a long chain takes as long as it takes.
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None), connector=aiohttp.TCPConnector(limit=0)
        )
        code = None
        for _ in range(_PORT_TRIES):
            port = _unused_port()
            self._url = f"http://{HOST}:{port}"
            self._process = process = await asyncio.create_subprocess_exec(
                *self._command, "--port", str(port), *loading, preexec_fn=_tie_on_linux()
            )
            if sys.platform != "linux":
                self._watcher = watch_over(process.pid)
            while process.returncode is None:
                with contextlib.suppress(aiohttp.ClientError):
                    await self.request("eth_chainId")
                    return
                await asyncio.sleep(0.01)
            code = process.returncode
            if port_is_free(port):
                break
        raise AnvilEnded(f"{self._command[0]} ended with code {code} while starting")

    async def ended(self) -> None:
        """Return when it has ended."""
        if self._process is not None:
            await self._process.wait()

    async def stop(self) -> None:
        """End it at once: its state is kept elsewhere."""
        if self._session is not None:
            await self._session.close()
        if self._watcher is not None:
            self._watcher.kill()
            self._watcher.wait()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def post(self, body: bytes, content_type: str = "application/json") -> tuple[int, bytes]:
        """Send a request's body as it is, and return status and body of the answer.

        :raises aiohttp.ClientError: when there is no answer
        """
        if self._session is None:
            raise AnvilEnded("anvil was not started")
        async with self._session.post(
            self._url, data=body, headers={"content-type": content_type}
        ) as response:
            return response.status, await response.read()

    async def request(self, method: str, *params: Any) -> Any:
        """Send one request and return its result.

        :raises AnvilError: when it is refused
        :raises aiohttp.ClientError: when there is no answer
        """
        call = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": list(params)}
        _, body = await self.post(json.dumps(call).encode())
        answer = json.loads(body)
        if "error" in answer:
            raise AnvilError(f"{method}: {answer['error'].get('message', answer['error'])}")
        return answer["result"]


def _unused_port() -> int:
    # From the range that the system hands out, which the network's own ports are not in.
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _tie_on_linux() -> Callable[[], None] | None:
    """Return what a child does before it becomes anvil: it asks the kernel to be killed with this process."""
    if sys.platform != "linux":
        return None
    library, parent = ctypes.CDLL(None), os.getpid()

    def tie() -> None:
        library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before it was asked
            os._exit(1)

    return tie


def watch_over(pid: int) -> subprocess.Popen[bytes]:
    """Have a shell kill a process when this one ends, where the kernel cannot be asked to (macOS).

    Only this process holds the writing end of the shell's input, so that input ends with it.
    """
    return subprocess.Popen(
        ["/bin/sh", "-c", 'read -r _; kill -KILL "$0"', str(pid)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
