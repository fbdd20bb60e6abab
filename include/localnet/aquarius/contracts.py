"""What Aquarius reads from the Ocean contracts: who deployed an NFT, its names and owner, datatokens and prices."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from eth_abi.exceptions import DecodingError
from eth_utils import is_address, to_checksum_address

from include.localnet.ethereum import RpcError

if TYPE_CHECKING:
    from pathlib import Path

    from include.localnet.ethereum import Chain

_WEI_DECIMALS = 18
_CACHE_SIZE = 10_000


class NetworkUnknownError(Exception):
    """The address file has no contracts for the chain."""


@dataclass(frozen=True)
class Addresses:
    """The contracts of one network in ocean-lib's address file.

    :param start_block: the first block that can hold an Ocean event
    """

    factory: str
    router: str
    start_block: int

    @classmethod
    def read(cls, path: Path, chain_id: int) -> Addresses:
        """Read the entry of a chain.

        :raises NetworkUnknownError: when the file is not there yet or knows nothing of the chain
        """
        try:
            networks = json.loads(path.read_text())
            entry = next(n for n in networks.values() if isinstance(n, dict) and n.get("chainId") == chain_id)
            return cls(
                factory=to_checksum_address(entry["ERC721Factory"]),
                router=to_checksum_address(entry["Router"]),
                start_block=int(entry.get("startBlock", 0)),
            )
        except (OSError, ValueError, StopIteration, KeyError, AttributeError) as error:
            raise NetworkUnknownError(
                f"{path} has no Ocean contracts for chain {chain_id} ({error!r}); "
                "they are deployed by `python -m include.localnet up`"
            ) from error


class OceanContracts:
    """The contracts of one network, as they are in the newest block."""

    def __init__(self, chain: Chain, addresses: Addresses) -> None:
        self.chain = chain
        self.addresses = addresses
        self._members: dict[tuple[str, str], bool] = {}

    def is_nft(self, address: str) -> bool:
        """Say whether an address is a data NFT that the factory deployed."""
        return self._is_member("erc721List", address)

    def nft_of(self, datatoken: str) -> str | None:
        """Return the data NFT of a datatoken, None for a token that the factory did not deploy."""
        if not self._is_member("erc20List", datatoken):
            return None
        nft: str = self.chain.call(datatoken, "ERC20Template", "getERC721Address")
        return nft

    def forget(self) -> None:
        """Forget who was deployed, because the chain went back."""
        self._members.clear()

    def _is_member(self, list_name: str, address: str) -> bool:
        key = (list_name, address)
        if key not in self._members:
            listed = self.chain.call(self.addresses.factory, "ERC721Factory", list_name, address)
            member = bool(listed == address) if isinstance(listed, str) else bool(listed)
            if not member:
                return False
            if len(self._members) >= _CACHE_SIZE:
                self._members.clear()
            self._members[key] = True
        return True

    def state(self, nft: str) -> int:
        """Return an NFT's metadata state."""
        return int(self.chain.call(nft, "ERC721Template", "metaDataState"))

    def nft_facts(self, nft: str) -> dict[str, Any]:
        """Return the ``nft`` part of a document, without the time of its creation."""
        return {
            "address": nft,
            "name": self._attribute(nft, "ERC721Template", "name"),
            "symbol": self._attribute(nft, "ERC721Template", "symbol"),
            "state": self._attribute(nft, "ERC721Template", "metaDataState"),
            "tokenURI": self._attribute(nft, "ERC721Template", "tokenURI", 1),
            "owner": self._attribute(nft, "ERC721Template", "ownerOf", 1),
        }

    def datatokens(self, document: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the ``datatokens`` part of a document: one entry a service."""
        return [
            {
                "address": service["datatokenAddress"],
                "name": self._attribute(service["datatokenAddress"], "ERC20Template", "name"),
                "symbol": self._attribute(service["datatokenAddress"], "ERC20Template", "symbol"),
                "serviceId": service["id"],
            }
            for service in services_of(document)
        ]

    def price(self, datatokens: list[str]) -> dict[str, Any]:
        """Return upstream's ``price`` of the first datatoken that has one; nothing when none has."""
        for datatoken in datatokens:
            if not is_address(datatoken) or self.nft_of(to_checksum_address(datatoken)) is None:
                continue
            rates = self._attribute(datatoken, "ERC20Template", "getFixedRates")
            for exchange, exchange_id in rates or ():
                return self._fixed_rate(to_checksum_address(exchange), exchange_id)
            if self._attribute(datatoken, "ERC20Template", "getDispensers"):
                return {"value": 0.0}
        return {}

    def _fixed_rate(self, exchange: str, exchange_id: bytes) -> dict[str, Any]:
        details = self.chain.call(exchange, "FixedRateExchange", "getExchange", exchange_id)
        base_token, rate = details[3], details[5]
        return {
            "value": float(Decimal(rate).scaleb(-_WEI_DECIMALS)),
            "tokenAddress": base_token,
            "tokenSymbol": self._attribute(base_token, "ERC20Template", "symbol"),
        }

    def exchange_datatoken(self, exchange: str, exchange_id: bytes) -> str | None:
        """Return the datatoken sold by an exchange, None when the router does not approve of the contract."""
        if not self.chain.call(self.addresses.router, "FactoryRouter", "isFixedRateContract", exchange):
            return None
        details = self.chain.call(exchange, "FixedRateExchange", "getExchange", exchange_id)
        datatoken: str = details[1]
        return datatoken

    def is_dispenser(self, address: str) -> bool:
        """Say whether the router approves of a dispenser contract."""
        return bool(self.chain.call(self.addresses.router, "FactoryRouter", "isDispenserContract", address))

    def _attribute(self, address: str, contract: str, function: str, *arguments: Any) -> Any:
        """Return what a contract answers; as upstream does, an empty text when it has no answer."""
        if not is_address(address):
            return ""
        try:
            return self.chain.call(address, contract, function, *arguments)
        except (RpcError, DecodingError, ValueError):
            return ""


def services_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the services of a valid DDO; JSON-LD allows a single one outside of a list."""
    services = document.get("services") or []
    flat: list[dict[str, Any]] = []
    for service in services if isinstance(services, list) else [services]:
        flat.extend(services_of({"services": service}) if isinstance(service, list) else [service])
    return [service for service in flat if isinstance(service, dict)]
