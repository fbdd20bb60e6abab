"""One wallet on one network: the way into the library."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Self

from airflow_ocean.c2d.assets import Assets
from airflow_ocean.c2d.chain import Chain
from airflow_ocean.c2d.checks import Check, check_network
from airflow_ocean.c2d.datatokens import Datatokens
from airflow_ocean.c2d.errors import InvalidInputError
from airflow_ocean.c2d.escrow import Escrow
from airflow_ocean.c2d.jobs import Jobs
from airflow_ocean.c2d.journal import MemoryJournal
from airflow_ocean.c2d.limits import CostLimit
from airflow_ocean.c2d.network import origin
from airflow_ocean.c2d.orders import Orders
from airflow_ocean.c2d.services import open_services
from airflow_ocean.c2d.transactions import Transactions
from airflow_ocean.c2d.wallet import Wallet, machine_lock

if TYPE_CHECKING:
    from filelock import FileLock

    from airflow_ocean.c2d.journal import Journal
    from airflow_ocean.c2d.network import Network
    from airflow_ocean.c2d.services import OceanServices


class OceanClient:
    """All of Compute-to-Data for one wallet on one network; for one thread.

    Nothing is asked of the network before it is needed.

    :param network: where everything is
    :param private_key: the wallet's key, hexadecimal
    :param journal: where signed transactions are kept, so that a retry does not pay twice; in memory by default
    :param limit: the most this client may spend; no limit by default
    """

    def __init__(
        self,
        network: Network,
        private_key: str,
        journal: Journal | None = None,
        limit: CostLimit | None = None,
    ) -> None:
        self.network = network
        self.limit = limit or CostLimit()
        self.wallet = Wallet(private_key)
        journal = journal or MemoryJournal()
        self.transactions = Transactions(self.wallet, network, journal, Chain(network.rpc_url), self.limit)
        self._services: dict[str, OceanServices] = {}
        self.assets = Assets(self)
        self.datatokens = Datatokens(self)
        self.escrow = Escrow(self)
        self.orders = Orders(self)
        self.jobs = Jobs(self.services, journal, self.escrow, self._turn)

    def __repr__(self) -> str:
        return f"OceanClient({self.address} on {origin(self.network.rpc_url)})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self.transactions.chain.close()
        for services in self._services.values():
            services.close()

    def _turn(self, what: str) -> FileLock:
        return machine_lock(self.chain_id, f"{what} {self.address}")

    @property
    def address(self) -> str:
        """The wallet's checksummed address."""
        return self.wallet.address

    @functools.cached_property
    def web3(self) -> Any:
        """The chain, every transaction of which passes through the journal."""
        from airflow_ocean.c2d import oceanlib

        return oceanlib.connect(self.transactions.chain.provider, self.transactions.middleware)

    @property
    def chain_id(self) -> int:
        """The chain's id."""
        return self.transactions.chain_id

    @functools.cached_property
    def ocean_config(self) -> dict[str, Any]:
        """What ocean-lib's contract classes are made with."""
        from airflow_ocean.c2d import oceanlib

        return oceanlib.ocean_config(self.network, self.web3, self.chain_id)

    def contract_address(self, name: str) -> str:
        """Return the address of one of Ocean's own contracts on this chain, e.g. ``Ocean`` or ``ERC721Factory``.

        :raises InvalidInputError: when the address list has none
        """
        _, addresses = self.network.contracts(self.chain_id)
        try:
            return str(self.web3.to_checksum_address(addresses[name]))
        except (KeyError, ValueError, TypeError) as error:
            raise InvalidInputError(
                f"{self.network.address_file_path()} lists no contract {name} for chain {self.chain_id}"
            ) from error

    def check_spending(self, what: str, due: dict[str, int]) -> None:
        """Compare what is due, together with what this client's steps have spent before, with its limit.

        :param what: what it is for, for the message
        :param due: token address → amount in the token's smallest unit
        :raises CostLimitError: when it is more
        """
        spent = dict.fromkeys(due, 0)
        for mined in self.transactions.mined:
            for token in spent.keys() & mined.spent.keys():
                spent[token] += mined.spent[token]
        self.limit.check_tokens(what, due, spent, self.datatokens.decimals)

    def require_contract(self, address: str, what: str) -> None:
        """Check that code lives at an address.

        :raises InvalidInputError: when none does, as on another chain
        """

        def look() -> bool:
            if self.transactions.chain.request("eth_getCode", address, "latest") in ("0x", "", None):
                raise InvalidInputError(f"there is no {what} contract at {address} on chain {self.chain_id}")
            return True

        self.transactions.chain.constant(f"code of {address}", look)

    def services(self, provider_url: str | None = None, job_id: str | None = None) -> OceanServices:
        """Return the services behind a Provider's or node's URL, the connection's own by default.

        :param job_id: a job of them, if one is known, which saves a question
        """
        url = (provider_url or self.network.provider_url).rstrip("/")
        if url not in self._services:
            self._services[url] = open_services(self.network, self.wallet, self.chain_id, url, job_id)
        return self._services[url]

    def check(self) -> list[Check]:
        """Look at every part of the network once, for a person who tests a connection."""
        return check_network(self)
