"""Assets and their services as Aquarius holds them, and the client that asks for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
from eth_utils import is_address, to_checksum_address

from include.localnet.provider.errors import Refused, Unavailable
from include.localnet.provider.web import client_of


@dataclass(frozen=True)
class Service:
    """One service of an asset.

    :param index: position in the DDO, which is what an order names
    :param timeout: seconds an order lasts; 0 means for ever
    """

    index: int
    id: str
    type: str
    datatoken: str
    endpoint: str
    files: str
    timeout: int
    compute: dict[str, Any]
    consumer_parameters: list[dict[str, Any]]

    @classmethod
    def from_ddo(cls, index: int, content: dict[str, Any]) -> Service:
        """Read a service of a DDO."""
        return cls(
            index=index,
            id=str(content["id"]),
            type=content["type"],
            datatoken=to_checksum_address(content["datatokenAddress"]),
            endpoint=content["serviceEndpoint"],
            files=content["files"],
            timeout=int(content["timeout"]),
            compute=content.get("compute") or {},
            consumer_parameters=content.get("consumerParameters") or [],
        )


@dataclass(frozen=True)
class Asset:
    """A published dataset or algorithm.

    :param nft: what Aquarius adds about the data NFT: address, owner, state, …
    """

    did: str
    version: str
    nft_address: str
    chain_id: int
    metadata: dict[str, Any]
    credentials: dict[str, Any]
    nft: dict[str, Any]
    services: tuple[Service, ...]

    @classmethod
    def from_ddo(cls, ddo: dict[str, Any]) -> Asset:
        """Read an indexed DDO.

        :raises Refused: when it lacks what every asset has
        """
        try:
            services = ddo.get("services") or []
            return cls(
                did=ddo["id"],
                version=ddo.get("version") or "4.0.0",
                nft_address=ddo["nftAddress"],
                chain_id=int(ddo["chainId"]),
                metadata=ddo.get("metadata") or {},
                credentials=ddo.get("credentials") or {},
                nft=ddo.get("nft") or {},
                services=tuple(Service.from_ddo(i, content) for i, content in enumerate(services)),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Refused("Asset malformed or disabled.") from error

    def service(self, service_id: Any) -> Service | None:
        """Return a service by its id, which some clients send as a number."""
        return next((service for service in self.services if service.id == str(service_id)), None)

    @property
    def is_algorithm(self) -> bool:
        """Whether the asset is an algorithm."""
        return self.metadata.get("type") == "algorithm"

    @property
    def container(self) -> dict[str, Any]:
        """The container an algorithm runs in."""
        algorithm = self.metadata.get("algorithm")
        container = algorithm.get("container") if isinstance(algorithm, dict) else None
        return container if isinstance(container, dict) else {}

    @property
    def owner(self) -> str:
        """Checksummed owner of the data NFT, empty when Aquarius does not know it."""
        owner = self.nft.get("owner")
        return to_checksum_address(owner) if is_address(owner) else ""


class Aquarius:
    """The metadata cache."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = client_of(15.0)

    def asset(self, did: Any) -> Asset | None:
        """Return an asset, None when Aquarius does not have it.

        :raises Unavailable: when Aquarius does not answer
        """
        # A DID comes from the request: quoted it cannot lead to another path.
        path = f"/api/aquarius/assets/ddo/{quote(str(did), safe=':')}"
        try:
            response = self._http.get(self.url + path)
            if response.status_code >= 500:
                raise Unavailable(
                    f"The metadata cache answered {response.status_code} when asked for {did}: see its log."
                )
            return Asset.from_ddo(response.json()) if response.status_code == 200 else None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise Unavailable(
                f"The metadata cache could not be asked for {did} ({type(error).__name__}): "
                "check that Aquarius runs and that AQUARIUS_URL is right."
            ) from error
