"""A bare chain for tests: anvil behind its journal, without contracts and services."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

import httpx
import psutil

from include.localnet import chain
from include.localnet.ethereum import Chain
from include.localnet.processes import ProcessTable
from include.localnet.settings import CHAIN_ID, HOST, choose_ports
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class ChainProcess:
    """The chain's process and anvil below it, on a free port.

    :param home: folder for state and log
    :param chain_id: the chain it says to be
    :param block_time: seconds between blocks
    """

    def __init__(self, home: Path, chain_id: int = CHAIN_ID, block_time: int | None = None) -> None:
        self.table = ProcessTable(home)
        self.state = home / "state"
        port = choose_ports(0)["chain"]
        self.node = Chain(f"http://{HOST}:{port}")
        command = chain.anvil_command(port, self.state, block_time)
        self.command = [str(chain_id) if word == str(CHAIN_ID) else word for word in command]

    def start(self) -> Chain:
        """Start it and wait until it answers."""
        self.table.start("chain", self.command, {})
        wait_until(lambda: not self.is_running or responds(self.node), "the chain answers")
        assert self.is_running, self.log
        return self.node

    def stop(self) -> None:
        """SIGTERM."""
        self.table.stop(["chain"])

    def kill(self, what: str) -> None:
        """SIGKILL to ``front``, ``anvil`` or ``both``; return when neither is left."""
        processes = {"front": [self.front], "anvil": [self.anvil], "both": [self.front, self.anvil]}[what]
        everything = [self.front, self.anvil]
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        wait_until(lambda: not self.is_running and not any(map(_lives, everything)), "no process is left")

    @property
    def front(self) -> psutil.Process:
        """The process that answers."""
        record = self.table.running("chain")
        assert record, self.log
        return psutil.Process(record.pid)

    @property
    def anvil(self) -> psutil.Process:
        """The process that it asks."""
        (child,) = self.front.children()
        return child

    @property
    def is_running(self) -> bool:
        """Whether the process that answers is there."""
        return self.table.running("chain") is not None

    @property
    def log(self) -> str:
        """The end of what both have written."""
        return self.table.end_of_log("chain")


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


@contextlib.contextmanager
def running_anvil(home: Path, chain_id: int = CHAIN_ID) -> Iterator[Chain]:
    """Run a chain on a free port until the block ends.

    :param home: folder for its state and log
    :param chain_id: the chain it says to be
    """
    process = ChainProcess(home, chain_id)
    try:
        yield process.start()
    finally:
        process.stop()


def responds(node: Chain) -> bool:
    """Say whether a node answers at all."""
    try:
        node.request("eth_chainId")
    except httpx.HTTPError:
        return False
    return True
