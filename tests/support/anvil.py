"""A bare chain for tests: anvil without contracts and services."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from include.localnet import chain
from include.localnet.ethereum import Chain
from include.localnet.processes import ProcessTable
from include.localnet.settings import CHAIN_ID, HOST, choose_ports
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def running_anvil(home: Path, chain_id: int = CHAIN_ID) -> Iterator[Chain]:
    """Run anvil on a free port until the block ends.

    :param home: folder for its state and log
    :param chain_id: the chain it says to be
    """
    table = ProcessTable(home)
    port = choose_ports(0)["chain"]
    url = f"http://{HOST}:{port}"
    command = [
        str(chain_id) if word == str(CHAIN_ID) else word for word in chain.anvil_command(port, home / "state")
    ]
    table.start("chain", command, {})
    try:
        node = Chain(url)
        wait_until(lambda: table.running("chain") is None or responds(node), "anvil answers")
        assert table.running("chain"), table.end_of_log("chain")
        yield node
    finally:
        table.stop(["chain"])


def responds(node: Chain) -> bool:
    """Say whether a node answers at all."""
    import httpx

    try:
        node.request("eth_chainId")
    except httpx.HTTPError:
        return False
    return True
