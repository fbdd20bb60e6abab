"""Where a network's parts are: the chain, Ocean's contracts on it, and the services."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_ocean.c2d.errors import InvalidInputError

if TYPE_CHECKING:
    from decimal import Decimal


def origin(url: str) -> str:
    """Return a URL's scheme, host and port: what a message may show, as hosted RPC endpoints have their key in the path."""
    parts = urlsplit(url)
    host = parts.hostname or "?"
    return f"{parts.scheme}://{host}:{parts.port}" if parts.port else f"{parts.scheme}://{host}"


KNOWN_NETWORKS = Path(__file__).with_name("networks.json")
"""Ocean's contracts on the public networks, in the form of ocean-contracts' address file, for which see ``_about`` in it."""

# A whole coin per unit of gas: whoever allows more has slipped, and a number such as 1e999999999 would fill the memory.
MOST_GWEI = 10**9


@dataclass(frozen=True)
class KnownNetwork:
    """A public network that a connection can name.

    :param name: as in the list of contract addresses
    :param title: for people
    :param explorer_url: root URL of its block explorer
    """

    name: str
    title: str
    chain_id: int
    explorer_url: str


@functools.cache
def known_networks() -> dict[str, KnownNetwork]:
    """Return the public networks that a connection can name, by name, test networks first."""
    listed = json.loads(KNOWN_NETWORKS.read_text())
    about = listed["_about"]
    return {
        name: KnownNetwork(name, title, listed[name]["chainId"], about["explorers"][name])
        for name, title in about["names"].items()
    }


def known_escrows(chain_id: int) -> list[str]:
    """Return the Escrow contracts of the public network with a chain id, the newest first; none for other chains.

    Ocean Nodes may be built for an earlier one; what they are paid with is there.
    """
    listed = json.loads(KNOWN_NETWORKS.read_text())
    earlier = listed.pop("_about")["earlier_escrows"]
    return [
        escrow
        for name, addresses in listed.items()
        if addresses["chainId"] == chain_id
        for escrow in (addresses.get("Escrow"), earlier.get(name))
        if escrow
    ]


@dataclass(frozen=True)
class Network:
    """A chain and the Ocean services on it, as a connection describes them.

    :param rpc_url: JSON-RPC endpoint of the chain
    :param provider_url: root URL of the Provider that serves one's own assets
    :param metadata_cache_url: root URL of Aquarius
    :param address_file: JSON file with the contracts' addresses; without it they are those of the known networks
    :param max_fee_gwei: the most a transaction may pay per unit of gas, in gwei; None for no limit
    :param confirmations: blocks a transaction must be deep, its own included, before it counts
    :param explorer_url: root URL of a block explorer, for links
    :param transaction_timeout: seconds to wait for a transaction before giving up for now
    :param known: which of the known networks it is, if one was named: the chain must be that one's
    """

    rpc_url: str
    provider_url: str
    metadata_cache_url: str | None = None
    address_file: str | None = None
    max_fee_gwei: Decimal | None = None
    confirmations: int = 1
    explorer_url: str | None = None
    transaction_timeout: float = 600.0
    known: KnownNetwork | None = None

    def __post_init__(self) -> None:
        for name in ("rpc_url", "provider_url", "metadata_cache_url", "explorer_url"):
            value = getattr(self, name)
            if value is None and name in ("metadata_cache_url", "explorer_url"):
                continue
            if not isinstance(value, str) or not value.startswith(("http://", "https://")):
                raise InvalidInputError(
                    f"{name} must be a URL that begins with http:// or https://, not {value!r}"
                )
            object.__setattr__(self, name, value.rstrip("/"))
        if self.confirmations < 1:
            raise InvalidInputError(f"confirmations must be 1 or more, not {self.confirmations}")
        if self.max_fee_gwei is not None and not 0 < self.max_fee_gwei <= MOST_GWEI:
            raise InvalidInputError(
                f"max_fee_gwei must be above 0 and no more than {MOST_GWEI}, not {self.max_fee_gwei}"
            )

    @property
    def max_fee_wei(self) -> int | None:
        """The fee cap in wei per unit of gas."""
        return None if self.max_fee_gwei is None else int(self.max_fee_gwei * 10**9)

    def address_file_path(self) -> Path:
        """Return the file that lists contract addresses.

        :raises InvalidInputError: when the configured file is not there
        """
        if self.address_file is None:
            return KNOWN_NETWORKS
        path = Path(self.address_file).expanduser()
        if not path.is_file():
            raise InvalidInputError(
                f"address_file {path} does not exist; on the local network `python -m include.localnet env` prints its path"
            )
        return path

    def check_chain(self, chain_id: int) -> None:
        """Compare the chain behind the RPC endpoint with the network that was named.

        :raises InvalidInputError: when it is another one; nothing may be signed for it
        """
        if self.known is not None and chain_id != self.known.chain_id:
            other = next(
                (n.title for n in known_networks().values() if n.chain_id == chain_id), "another one"
            )
            raise InvalidInputError(
                f"the connection names the network {self.known.title}, which is chain {self.known.chain_id}, but its RPC "
                f"{origin(self.rpc_url)} is of chain {chain_id}, {other}; correct the RPC URL or the network"
            )

    def contracts(self, chain_id: int) -> tuple[str, dict[str, Any]]:
        """Return the network's name and its contract addresses by chain id.

        :raises InvalidInputError: when the address list has no such chain or is not JSON
        """
        path = self.address_file_path()
        try:
            listed: dict[str, Any] = json.loads(path.read_text())
        except ValueError as error:
            raise InvalidInputError(f"address_file {path} is not JSON: {error}") from error
        for name, addresses in listed.items():
            if (
                isinstance(addresses, dict)
                and addresses.get("chainId") == chain_id
                and "ERC721Factory" in addresses
            ):
                return name, addresses
        raise InvalidInputError(
            f"no Ocean contracts are listed for chain {chain_id} (RPC {origin(self.rpc_url)}) in {path}; "
            "give the connection an address_file that lists them"
        )
