"""The node's settings, from its environment, and what its parts have in common."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eth_account import Account

from include.localnet.aquarius.store import Store
from include.localnet.ethereum import Chain
from include.localnet.node.authorization import Authority
from include.localnet.node.documents import node_document
from include.localnet.node.environments import Environment
from include.localnet.node.escrow import Escrow
from include.localnet.node.store import JobStore
from include.localnet.operator_service.environments import network_addresses
from include.localnet.provider.assets import Asset
from include.localnet.provider.configuration import FileSettings
from include.localnet.provider.errors import Refused as ProviderRefused
from include.localnet.service import open_database, required

if TYPE_CHECKING:
    from collections.abc import Iterator


def _number(name: str, default: float) -> float:
    text = os.environ.get(name, str(default))
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 <= number < float("inf"):
        raise SystemExit(f"{name} must be a number from 0 on, not {text!r}")
    return number


@dataclass(frozen=True)
class Configuration:
    """One node on one chain.

    :param private_key: 0x-hex; encrypts, signs fees and verdicts, is paid
    :param index_seconds: between two looks at the chain; upstream's ``INDEXER_INTERVAL`` (milliseconds there) is 30
    :param rate_limit: requests a minute and client, 0 for no limit; upstream's ``MAX_REQ_PER_MINUTE`` is 30
    :param claim_seconds: between two rounds of claiming payments, of which the first comes soon after the start;
        upstream's is an hour
    :param claim_timeout: how much longer than a job a payment must be locked (seconds)
    :param unknown_images: container images that the node says it can't find; it takes every other one, because its
        sandbox stands for them all
    :param registry: root URL of a registry that is asked for every image before its job is stored, as upstream asks the
        image's own; nobody is asked by default
    """

    rpc_url: str
    address_file: Path
    private_key: str = field(repr=False)
    state: Path = Path()
    files: FileSettings = field(default_factory=FileSettings)
    index_seconds: float = 0.5
    rate_limit: int = 0
    claim_seconds: float = 10
    claim_timeout: int = 3600
    unknown_images: tuple[str, ...] = ()
    registry: str = ""

    @classmethod
    def from_environment(cls, state: Path) -> Configuration:
        """Read the settings; the local network's defaults are quicker than upstream's and limit nobody."""
        return cls(
            rpc_url=required("RPC_URL"),
            address_file=Path(required("ADDRESS_FILE")),
            private_key=required("PRIVATE_KEY"),
            state=state,
            files=FileSettings.from_environment(),
            index_seconds=_number("INDEXER_INTERVAL", 500) / 1000,
            rate_limit=int(_number("MAX_REQ_PER_MINUTE", 0)),
            claim_seconds=_number("PAYMENT_CLAIM_INTERVAL", 10),
            claim_timeout=int(_number("ESCROW_CLAIM_TIMEOUT", 3600)),
            unknown_images=tuple(filter(None, os.environ.get("UNKNOWN_IMAGES", "").split(","))),
            registry=os.environ.get("IMAGE_REGISTRY", "").rstrip("/"),
        )


class Node:
    """What an endpoint's handler works with."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.private_key = configuration.private_key
        self.address: str = Account.from_key(self.private_key).address
        self.chain = Chain(configuration.rpc_url)
        addresses = network_addresses(configuration.address_file, "ERC721Factory", "Escrow")
        self.token: str = addresses["Ocean"]
        self.factory: str = addresses["ERC721Factory"]
        self.index = Store(configuration.state / "index.sqlite")
        self.authority = Authority(
            open_database(configuration.state / "authority.sqlite"), configuration.private_key
        )
        self.jobs = JobStore(configuration.state / "jobs.sqlite")
        self.environment = Environment.of_node(self.address, self.chain.chain_id, self.token)
        self.escrow = Escrow(self.chain, addresses["Escrow"], self.private_key, configuration.claim_timeout)

    def document(self, did: Any) -> dict[str, Any] | None:
        """Return an indexed DDO, None when there is none."""
        stored = self.index.asset(did) if isinstance(did, str) else None
        return self._form(did, stored.document) if stored else None

    def documents(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield every DID and DDO."""
        for did, stored in self.index.documents():
            yield did, self._form(did, stored)

    def _form(self, did: str, stored: dict[str, Any]) -> dict[str, Any]:
        document = node_document(stored)
        return document if "id" in document else {"id": did, "chainId": self.chain.chain_id, **document}

    def asset(self, did: Any) -> tuple[Asset, dict[str, Any]] | None:
        """Return an asset and its DDO, None when the index does not have it or it is no asset any more."""
        document = self.document(did)
        if document is None:
            return None
        facts = document["indexedMetadata"]["nft"]
        try:
            return Asset.from_ddo({**document, "nft": facts}), document
        except ProviderRefused:
            return None
