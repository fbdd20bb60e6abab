"""The chain of the local network: where anvil is found, how it is started, and how its state outlives it."""

from __future__ import annotations

import functools
import json
import os
import platform
import shutil
from typing import TYPE_CHECKING

import httpx

from include.localnet.accounts import MNEMONIC
from include.localnet.ethereum import Chain, RpcError
from include.localnet.settings import CHAIN_ID, HOST, PROJECT

if TYPE_CHECKING:
    from pathlib import Path

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}

# Seconds between two dumps of the whole state: what a crash may lose. A dump of 1,000 blocks takes about 20 ms.
_DUMP_INTERVAL = 1
# Old states a client may still call on, for instance to learn why a transaction reverted. Each costs about 70 KB.
_STATES_KEPT = 64


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


def anvil_command(port: int, state: Path, block_time: int | None = None) -> list[str]:
    """Return anvil's command line and make the state folder ready for it.

    :param state: folder of the chain's state
    :param block_time: seconds between blocks; None mines each transaction at once
    """
    state.mkdir(parents=True, exist_ok=True)
    saved, dump = state / "chain.json", state / "dump.json"
    _keep_dump(saved, dump)
    command = [find_anvil(), "--quiet", "--host", HOST, "--port", str(port)]
    command += ["--chain-id", str(CHAIN_ID), "--mnemonic", MNEMONIC, "--accounts", "20"]
    # Without pruning anvil keeps every block's state in memory, then in ~/.foundry: 100 MB a thousand blocks.
    # Blocks, receipts and logs are kept either way.
    command += ["--prune-history", str(_STATES_KEPT)]
    command += ["--dump-state", str(dump), "--state-interval", str(_DUMP_INTERVAL)]
    if saved.exists():
        command += ["--load-state", str(saved)]
    if block_time:
        command += ["--block-time", str(block_time)]
    return command


def _keep_dump(saved: Path, dump: Path) -> None:
    """Make the last dump the state to load, unless it is half-written.

    Anvil overwrites its dump in place. A kill in the middle of that must not cost the chain, so anvil never writes
    to the file it loads from.
    """
    try:
        json.loads(dump.read_bytes())
    except FileNotFoundError:
        return
    except ValueError:
        dump.replace(dump.with_suffix(".damaged"))
        return
    dump.replace(saved)


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
