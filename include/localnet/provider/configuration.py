"""The Provider's settings, and the clients and stores all its endpoints share."""

from __future__ import annotations

import functools
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eth_account import Account

from include.localnet.ethereum import ZERO_ADDRESS, Chain
from include.localnet.provider.assets import Aquarius
from include.localnet.provider.nonces import NonceStore, TokenStore
from include.localnet.provider.operator_client import OperatorService
from include.localnet.service import open_database, required

VERSION = "2.1.6"
# Upstream calls the development chain so in its error texts, whatever the address file calls it.
_DEVELOPMENT_CHAIN = 8996


def _flag(name: str, default: bool) -> bool:
    value = os.environ.get(name, "")
    return default if not value else value.lower() in ("1", "true", "yes", "on", "y", "t")


def _addresses_in(name: str) -> tuple[str, ...]:
    text = os.environ.get(name, "")
    if not text:
        return ()
    try:
        loaded = json.loads(text)
    except ValueError:
        loaded = None
    if not isinstance(loaded, list):
        raise SystemExit(f"{name} must be a JSON list of addresses, not {text!r}")
    return tuple(str(address).lower() for address in loaded)


@dataclass(frozen=True)
class FileSettings:
    """How files are fetched; the names are upstream's environment variables in lower case.

    :param request_timeout: seconds
    :param request_retries: times a file is asked for before it counts as unavailable
    :param max_checksum_length: bytes; of larger files no checksum is computed
    :param allow_non_public_ip: whether files may be on private and loopback addresses
    """

    request_timeout: float = 10.0
    request_retries: int = 1
    max_checksum_length: int = 5_242_880
    allow_non_public_ip: bool = True
    ipfs_gateway: str = ""
    arweave_gateway: str = ""

    @classmethod
    def from_environment(cls) -> FileSettings:
        """Read the settings; non-public addresses are allowed unless forbidden, as this network is one."""
        environment = os.environ.get
        return cls(
            request_timeout=float(environment("REQUEST_TIMEOUT", "10")),
            request_retries=max(1, int(environment("REQUEST_RETRIES", "1"))),
            max_checksum_length=int(environment("MAX_CHECKSUM_LENGTH", "5242880")),
            allow_non_public_ip=_flag("ALLOW_NON_PUBLIC_IP", True),
            ipfs_gateway=environment("IPFS_GATEWAY", ""),
            arweave_gateway=environment("ARWEAVE_GATEWAY", ""),
        )


@dataclass(frozen=True)
class Configuration:
    """One Provider on one chain.

    :param private_key: 0x-hex; encrypts, signs fees and tokens
    :param authorized_decrypters: lower-case addresses that may decrypt; empty means everyone
    """

    rpc_url: str
    address_file: Path
    private_key: str = field(repr=False)
    aquarius_url: str = ""
    operator_service_url: str = ""
    fee_token: str = ""
    authorized_decrypters: tuple[str, ...] = ()
    files: FileSettings = field(default_factory=FileSettings)
    state: Path = Path()

    @classmethod
    def from_environment(cls, state: Path) -> Configuration:
        """Read the settings; without ``OPERATOR_SERVICE_URL`` the Provider offers downloads only, as upstream."""
        return cls(
            rpc_url=required("RPC_URL"),
            address_file=Path(required("ADDRESS_FILE")),
            private_key=required("PRIVATE_KEY"),
            aquarius_url=required("AQUARIUS_URL").rstrip("/"),
            operator_service_url=os.environ.get("OPERATOR_SERVICE_URL", "").rstrip("/"),
            fee_token=os.environ.get("PROVIDER_FEE_TOKEN", ""),
            authorized_decrypters=_addresses_in("AUTHORIZED_DECRYPTERS"),
            files=FileSettings.from_environment(),
            state=state,
        )


class Provider:
    """What an endpoint's handler works with."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.chain = Chain(configuration.rpc_url)
        self.aquarius = Aquarius(configuration.aquarius_url)
        self.operator = OperatorService(configuration.operator_service_url, configuration.private_key)
        self.address: str = Account.from_key(configuration.private_key).address
        database = open_database(configuration.state / "provider.db")
        self.nonces = NonceStore(database)
        self.tokens = TokenStore(database, configuration.private_key)

    @functools.cached_property
    def contracts(self) -> dict[str, Any]:
        """The Ocean contracts' addresses on this chain, by ocean-lib's names."""
        networks = json.loads(self.configuration.address_file.read_text())
        for name, addresses in networks.items():
            if addresses.get("chainId") == self.chain.chain_id:
                return {"network": name, **addresses}
        raise LookupError(
            f"{self.configuration.address_file} has no network with chain id {self.chain.chain_id}"
        )

    @property
    def fee_token(self) -> str:
        """The token provider fees are asked in: the configured one, else OCEAN."""
        return self.configuration.fee_token or str(self.contracts.get("Ocean", ZERO_ADDRESS))

    @functools.cached_property
    def fee_decimals(self) -> int:
        """Decimals of the fee token; they never change."""
        return int(self.chain.call(self.fee_token, "ERC20Template", "decimals"))

    @property
    def network(self) -> str:
        """The network's name in error texts."""
        return "Ganache" if self.chain.chain_id == _DEVELOPMENT_CHAIN else str(self.contracts["network"])

    def environments(self) -> list[dict[str, Any]]:
        """Return the compute environments with the token their fees are asked in.

        :raises Unavailable: when the operator-service does not list them
        """
        if not self.operator.url:
            return []
        listed = self.operator.environments(self.chain.chain_id)
        return [{**environment, "feeToken": self.fee_token} for environment in listed]

    def environment(self, environment_id: Any) -> dict[str, Any] | None:
        """Return a compute environment by its id."""
        return next((e for e in self.environments() if e.get("id") == environment_id), None)
