"""The chain of the local network as its other parts see it: where anvil is found, how it is started, and its client."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import sys
from typing import TYPE_CHECKING

import httpx

from include.localnet.ethereum import Chain, RpcError
from include.localnet.settings import CHAIN_ID, HOST, PROJECT

if TYPE_CHECKING:
    from pathlib import Path

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


class AnvilNotFound(Exception):
    """There is no anvil to run the chain with."""


def find_anvil() -> str:
    """Return the path of anvil: ``$ANVIL``, else the project's ``node_modules``, else the ``PATH``.

    :raises AnvilNotFound: when it is in none of these places
    """
    configured = os.environ.get("ANVIL")
    if configured:
        found = shutil.which(configured)
        if found is None:
            raise AnvilNotFound(f"$ANVIL is {configured}, which is no executable file")
        return found
    machine = platform.machine().lower()
    native = f"anvil-{platform.system().lower()}-{_MACHINES.get(machine, machine)}"
    modules = PROJECT / "node_modules"
    # The native binary before npm's starter script, which would stay as a Node.js process of 50 MB around it.
    for candidate in (modules / "@foundry-rs" / native / "bin" / "anvil", modules / ".bin" / "anvil"):
        if os.access(candidate, os.X_OK):
            return str(candidate)
    found = shutil.which("anvil")
    if found is None:
        raise AnvilNotFound(
            f"anvil, which runs the chain, is neither in {modules} nor on the PATH: `make up` in "
            f"{PROJECT} installs it; or set $ANVIL to its path"
        )
    return found


def anvil_command(port: int, state: Path, block_time: int | None = None, listen: str = HOST) -> list[str]:
    """Return the command line that runs anvil behind its journal.

    :param port: where JSON-RPC is answered
    :param state: folder of the chain's state
    :param block_time: seconds between blocks; None mines each transaction at once
    :param listen: the address where JSON-RPC is answered; anvil itself stays on loopback
    :raises AnvilNotFound: when there is no anvil
    """
    command = [sys.executable, "-m", "include.localnet.chain_node", "--anvil", find_anvil()]
    command += ["--host", listen, "--port", str(port), "--chain-id", str(CHAIN_ID), "--state", str(state)]
    if block_time:
        command += ["--block-time", str(block_time)]
    return command


@functools.cache
def node(rpc_url: str) -> Chain:
    """Return the one client of this process for a chain."""
    return Chain(rpc_url)


def answers(rpc_url: str) -> bool:
    """Say whether the development chain answers at a URL."""
    try:
        return int(node(rpc_url).request("eth_chainId"), 16) == CHAIN_ID
    except (httpx.HTTPError, RpcError, ValueError):
        return False
