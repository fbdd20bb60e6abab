"""Publishing assets, allowing algorithms on datasets, and resolving DIDs."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from eth_utils import to_checksum_address

from airflow_ocean.c2d.errors import (
    AssetNotFoundError,
    InvalidInputError,
    NotAllowedError,
    OceanError,
    ServiceUnavailableError,
    StepChangedError,
)
from airflow_ocean.c2d.specs import (
    AlgorithmContainer,
    AssetSpec,
    ComputePolicy,
    Credentials,
    Pricing,
)
from airflow_ocean.c2d.trust import (
    ALGORITHMS,
    PUBLISHERS,
    AllowResult,
    Trust,
    trusting_algorithm,
    trusting_publisher,
    without,
)
from airflow_ocean.c2d.units import parse_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_ocean.c2d.client import OceanClient
    from airflow_ocean.c2d.mined_transaction import MinedTransaction
    from airflow_ocean.c2d.services import OceanServices

__all__ = [
    "AlgorithmContainer",
    "AllowResult",
    "Asset",
    "AssetSpec",
    "Assets",
    "ComputePolicy",
    "Credentials",
    "Pricing",
    "PublishedAsset",
    "Service",
]

logger = logging.getLogger(__name__)

# Template 2 (enterprise) must have a cap on its supply; this is as good as none.
TEMPLATE_2_CAP = 10**9 * 10**18
INDEX_TIMEOUT = 120.0
STATE_ACTIVE = 0
STATE_UNLISTED = 5


@dataclass(frozen=True)
class Service:
    """One service of an asset.

    :param index: its place in the DDO, by which the contract knows it
    :param timeout: seconds an order stays valid, 0 for ever
    """

    id: str
    type: str
    index: int
    datatoken: str
    endpoint: str
    timeout: int


@dataclass(frozen=True)
class Asset:
    """An indexed asset."""

    did: str
    name: str
    kind: str
    owner: str
    nft_address: str
    services: tuple[Service, ...]
    ddo: dict[str, Any]

    def service(self, *types: str) -> Service:
        """Return the first service of the first type that the asset offers.

        :raises NotAllowedError: when it offers none of them
        """
        for kind in types:
            for service in self.services:
                if service.type == kind:
                    return service
        raise NotAllowedError(f"asset {self.did} offers no {' or '.join(types)} service")


@dataclass(frozen=True)
class PublishedAsset:
    """What publishing made."""

    did: str
    nft_address: str
    datatoken_address: str
    transactions: list[str]


def parse_asset(ddo: dict[str, Any]) -> Asset:
    """Read an asset out of its indexed DDO.

    :raises InvalidInputError: when it is not a DDO
    """
    try:
        services = tuple(
            Service(
                id=str(entry["id"]),
                type=str(entry["type"]),
                index=index,
                datatoken=to_checksum_address(entry["datatokenAddress"]),
                endpoint=str(entry["serviceEndpoint"]).rstrip("/"),
                timeout=int(entry["timeout"]),
            )
            for index, entry in enumerate(ddo["services"])
        )
        return Asset(
            did=ddo["id"],
            name=str(ddo["metadata"]["name"]),
            kind=str(ddo["metadata"]["type"]),
            owner=str((ddo.get("nft") or {}).get("owner", "")),
            nft_address=to_checksum_address(ddo["nftAddress"]),
            services=services,
            ddo=ddo,
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InvalidInputError(
            f"the metadata cache's DDO is incomplete ({error!r}): {str(ddo)[:200]}"
        ) from error


class Assets:
    """The assets of a network, seen by one wallet."""

    def __init__(self, client: OceanClient) -> None:
        self._client = client
        self._trust = Trust(client)

    def resolve(self, did: str) -> Asset:
        """Return an indexed asset.

        :raises InvalidInputError: when the text is no DID, or the asset is of another chain
        :raises AssetNotFoundError: when nobody published it, or its publisher withdrew it
        """
        _check_did(did)
        return self._checked(did, self._client.services().resolve(did))

    def resolve_all(self, dids: list[str]) -> list[Asset]:
        """Return several indexed assets, in their order, with as few requests as possible; raises like :meth:`resolve`."""
        for did in dids:
            _check_did(did)
        found = self._client.services().resolve_all(dids)
        return [self._checked(did, ddo) for did, ddo in zip(dids, found, strict=True)]

    def _checked(self, did: str, ddo: dict[str, Any]) -> Asset:
        nft = ddo.get("nft") or {}
        state = nft.get("state", STATE_ACTIVE) if isinstance(nft, dict) else None
        if not ddo.get("services") or state not in (STATE_ACTIVE, STATE_UNLISTED):
            raise AssetNotFoundError(
                f"asset {did} is no longer active (state {state}): its publisher withdrew it"
            )
        if ddo.get("chainId") != self._client.chain_id:
            raise InvalidInputError(
                f"asset {did} lives on chain {ddo.get('chainId')}, the connection's chain is {self._client.chain_id}"
            )
        asset = parse_asset(ddo)
        if did != asset.did or did != did_of(asset.nft_address, self._client.chain_id):
            raise InvalidInputError(
                f"asked for {did}, the metadata cache answers with the DDO of {asset.did}, data NFT {asset.nft_address}"
            )
        return asset

    # ------------------------------------------------------------------ publishing

    def publish(self, spec: AssetSpec) -> PublishedAsset:
        """Publish an asset: its data NFT and datatoken, then its metadata, then wait until it is indexed.

        :raises InvalidInputError: when the metadata is not valid
        :raises NotIndexedError: when the index does not follow in time; trying again goes on from there
        :raises StepChangedError: when this journal's attempt has published another asset
        """
        if spec.compute.trusted_publishers:
            self._require_trust_in_publishers(self._client.services())
        if len(spec.files) > 1 and not self._client.services().hands_out_all_files:
            raise InvalidInputError(
                f"{spec.kind} {spec.name!r} has {len(spec.files)} files, of which {self._client.network.provider_url} would "
                "give a job only the first: publish one asset for each file. Nothing was sent"
            )
        if spec.pricing and spec.pricing.kind == "fixed_rate":
            # asked before the first transaction, so that a wrong address costs nothing
            self._base_token(spec.pricing)
        nft_address, datatoken_address, created = self._create_tokens(spec)
        did = did_of(nft_address, self._client.chain_id)
        described = self._client.transactions.resume("set metadata")
        self._same_as_before(spec, did, published=described is not None)
        if described is None:
            described = self.write_metadata(
                "set metadata", self._build_ddo(spec, did, nft_address, datatoken_address)
            )
        self._client.services().wait_until_indexed(did, described.hash, described.block, INDEX_TIMEOUT)
        logger.info("Published %s %r as %s", spec.kind, spec.name, did)
        return PublishedAsset(did, nft_address, datatoken_address, [created, described.hash])

    def _same_as_before(self, spec: AssetSpec, did: str, *, published: bool) -> None:
        """Refuse to give an asset out for another one, once its metadata are written.

        Until then a retry may bring better ones: the data NFT and the datatoken are used for them.
        """
        digest = hashlib.sha256(json.dumps(asdict(spec), sort_keys=True, default=str).encode()).hexdigest()
        journal = self._client.transactions.journal
        if not published:
            journal.save("published spec", {"sha256": digest})
        elif (journal.load("published spec") or {}).get("sha256", digest) != digest:
            raise StepChangedError(
                f"{spec.kind} {spec.name!r}: an earlier attempt has published {did} with other details; run again with "
                "force_new to publish another asset. Nothing was sent"
            )

    def _base_token(self, pricing: Pricing) -> str:
        if pricing.base_token:
            return parse_address(pricing.base_token, "pricing.base_token")
        return self._client.contract_address("Ocean")

    def _create_tokens(self, spec: AssetSpec) -> tuple[str, str, str]:
        """Make data NFT and datatoken, and return their addresses and the transaction."""
        transactions, step = self._client.transactions, "create data NFT and datatoken"
        created, known = transactions.resume(step), transactions.journal.load("created tokens")
        # Only where the node has forgotten the transaction, whose events tell it: after months.
        if (
            created
            and known
            and known["hash"] == created.hash
            and not transactions.chain.receipt(created.hash)
        ):
            return known["nft"], known["datatoken"], created.hash
        contract = self._send_creation(spec, step)
        created = transactions.of_step(step)
        try:
            tokens = contract.getTokensList()
        except InvalidInputError as error:
            raise ServiceUnavailableError(
                f"transaction {created.hash} made data NFT {contract.address}, of which the node that was asked does not know yet "
                f"({error}); trying again helps"
            ) from error
        if not tokens:
            raise OceanError(
                f"transaction {created.hash} made data NFT {contract.address} without a datatoken"
            )
        nft, datatoken = str(contract.address), str(tokens[0])
        transactions.journal.save(
            "created tokens", {"hash": created.hash, "nft": nft, "datatoken": datatoken}
        )
        return nft, datatoken, created.hash

    def _send_creation(self, spec: AssetSpec, step: str) -> Any:
        from airflow_ocean.c2d import oceanlib

        config = self._client.ocean_config
        factory = oceanlib.DataNFTFactoryContract(config, self._client.contract_address("ERC721Factory"))
        nft = oceanlib.DataNFTArguments(spec.name, spec.name)
        # ocean-lib's default token URI is a 717-byte picture that costs more gas than the token itself.
        nft.uri = ""
        token = oceanlib.DatatokenArguments(
            f"{spec.name}: DT1",
            "DT1",
            template_index=spec.template,
            cap=TEMPLATE_2_CAP if spec.template == 2 else None,
        )
        with self._client.transactions.step(step) as tx:
            if spec.pricing is None:
                contract, _ = factory.create_with_erc20(nft, token, tx)
            elif spec.pricing.kind == "dispenser":
                offer = oceanlib.DispenserArguments(spec.pricing.max_tokens, spec.pricing.max_balance)
                contract, _ = factory.create_with_erc20_and_dispenser(nft, token, offer, tx)
            else:
                offer = oceanlib.ExchangeArguments(
                    rate=spec.pricing.rate,
                    base_token_addr=self._base_token(spec.pricing),
                    dt_decimals=18,
                )
                contract, _, _ = factory.create_with_erc20_and_fixed_rate(nft, token, offer, tx)
        return contract

    def _build_ddo(self, spec: AssetSpec, did: str, nft_address: str, datatoken: str) -> dict[str, Any]:
        services = self._client.services()
        files = [
            {**file, "chainId": file.get("chainId", self._client.chain_id)}
            if file["type"] == "smartcontract"
            else file
            for file in spec.files
        ]
        encrypted = services.encrypt_files(
            {"datatokenAddress": datatoken, "nftAddress": nft_address, "files": list(files)}
        )
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        metadata: dict[str, Any] = {
            "created": now,
            "updated": now,
            "name": spec.name,
            "type": spec.kind,
            "description": spec.description or spec.name,
            "author": spec.author or self._client.address[:7],
            "license": spec.license,
        }
        if spec.tags:
            metadata["tags"] = list(spec.tags)
        if spec.additional_information:
            metadata["additionalInformation"] = spec.additional_information
        if spec.container:
            metadata["algorithm"] = {
                "language": "python",
                "format": "docker-image",
                "version": "0.1",
                "container": {
                    "entrypoint": spec.container.entrypoint,
                    "image": spec.container.image,
                    "tag": spec.container.tag,
                    "checksum": spec.container.checksum,
                },
            }
            if spec.consumer_parameters:
                metadata["algorithm"]["consumerParameters"] = list(spec.consumer_parameters)
        return {
            "@context": ["https://w3id.org/did/v1"],
            "id": did,
            "version": "4.1.0",
            "chainId": self._client.chain_id,
            "nftAddress": nft_address,
            "metadata": metadata,
            "credentials": spec.credentials.to_dict(),
            "services": [
                self._build_service(spec, str(index), kind, datatoken, encrypted)
                for index, kind in enumerate(spec.services)
            ],
        }

    def _build_service(
        self, spec: AssetSpec, id_: str, kind: str, datatoken: str, files: str
    ) -> dict[str, Any]:
        service: dict[str, Any] = {
            "id": id_,
            "type": kind,
            "serviceEndpoint": self._client.network.provider_url,
            "datatokenAddress": datatoken,
            "files": files,
            "timeout": spec.timeout,
            "name": "Compute service" if kind == "compute" else "Download service",
            "description": "Compute service" if kind == "compute" else "Download service",
        }
        if kind == "compute":
            service["compute"] = spec.compute.to_dict(self._client.services().anybody)
        if spec.consumer_parameters and spec.kind == "dataset":
            service["consumerParameters"] = list(spec.consumer_parameters)
        return service

    def write_metadata(
        self,
        step: str,
        ddo: dict[str, Any],
        provider_url: str | None = None,
        check: Callable[[], None] | None = None,
    ) -> MinedTransaction:
        """Put a DDO on the chain.

        :param check: see :meth:`Transactions.step`
        """
        from airflow_ocean.c2d import oceanlib

        services = self._client.services(provider_url)
        document = services.prepare_metadata(ddo)
        nft = oceanlib.DataNFT(self._client.ocean_config, ddo["nftAddress"])
        with self._client.transactions.step(step, check) as tx:
            nft.setMetaData(
                STATE_ACTIVE,
                document.decryptor_url,
                document.decryptor_address,
                bytes([document.flags]),
                document.data,
                document.digest,
                document.proofs,
                tx,
            )
        return self._client.transactions.of_step(step)

    # ------------------------------------------------------------------ trust

    def allow_algorithm(
        self, dataset_did: str, *, algorithm_did: str | None = None, publisher: str | None = None
    ) -> AllowResult:
        """Allow an algorithm, or every algorithm of a publisher, to run on a dataset.

        A dataset that trusts algorithms and publishers both runs what is on the one list by someone on the other.

        :param publisher: address of the publisher to trust
        :raises NotAllowedError: when the dataset offers no compute service
        :raises TransactionRevertedError: when the wallet may not change the dataset's metadata; nothing was sent
        """
        self._one_of(algorithm_did, publisher)
        if publisher:
            endpoint = self.resolve(dataset_did).service("compute").endpoint
            self._require_trust_in_publishers(self._client.services(endpoint))
            return self._trust.change(dataset_did, trusting_publisher(parse_address(publisher, "publisher")))
        entry = self._trusted_entry(self.resolve(str(algorithm_did)))
        return self._trust.change(dataset_did, trusting_algorithm(entry))

    def revoke_algorithm(
        self, dataset_did: str, *, algorithm_did: str | None = None, publisher: str | None = None
    ) -> AllowResult:
        """Take back what :meth:`allow_algorithm` gave; running jobs go on, and who trusts nobody is open to nobody."""
        self._one_of(algorithm_did, publisher)
        if publisher:
            address = parse_address(publisher, "publisher").lower()
            return self._trust.change(
                dataset_did, without(PUBLISHERS, lambda known: known.lower() == address)
            )
        return self._trust.change(
            dataset_did, without(ALGORITHMS, lambda known: known.get("did") == algorithm_did)
        )

    @staticmethod
    def _require_trust_in_publishers(services: OceanServices) -> None:
        if not services.trusts_publishers:
            raise NotAllowedError(
                f"{services.url} cannot trust all algorithms of a publisher: an Ocean Node compares that list with the data "
                "NFTs of algorithms. Allow each algorithm by its DID. Nothing was sent"
            )

    @staticmethod
    def _one_of(algorithm_did: str | None, publisher: str | None) -> None:
        if (algorithm_did is None) == (publisher is None):
            raise InvalidInputError("give either algorithm_did or publisher, not both and not none")

    def _trusted_entry(self, algorithm: Asset) -> dict[str, str]:
        """Build what identifies an algorithm; source: Provider ``validation/algo.py``."""
        if algorithm.kind != "algorithm":
            raise InvalidInputError(f"{algorithm.did} is a {algorithm.kind}, not an algorithm")
        service = algorithm.services[0]
        infos = self._client.services(service.endpoint).file_infos(algorithm.did, service.id, checksum=True)
        if not infos or not all(info.valid and info.checksum for info in infos):
            raise NotAllowedError(
                f"the Provider at {service.endpoint} cannot read the files of algorithm {algorithm.did}; is their URL "
                "reachable from the Provider?"
            )
        try:
            container = algorithm.ddo["metadata"]["algorithm"]["container"]
            section = container["entrypoint"] + container["checksum"]
            digest = hashlib.sha256(section.encode()).hexdigest()
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidInputError(
                f"the metadata of algorithm {algorithm.did} does not say what its container is ({error!r}): its publisher has "
                "to publish it with entrypoint and checksum"
            ) from error
        return {
            "did": algorithm.did,
            "filesChecksum": "".join(str(info.checksum) for info in infos),
            "containerSectionChecksum": digest,
        }


def _check_did(did: object) -> None:
    if not isinstance(did, str) or not did.startswith("did:op:") or len(did) != 71:
        raise InvalidInputError(f"{did!r} is not a DID: expected did:op: and 64 hexadecimal digits")


def did_of(nft_address: str, chain_id: int) -> str:
    """Return the DID of a data NFT: ``did:op:`` and SHA-256 of checksummed address and decimal chain id."""
    return "did:op:" + hashlib.sha256(f"{to_checksum_address(nft_address)}{chain_id}".encode()).hexdigest()
