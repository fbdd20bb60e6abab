"""Who may use an asset, and which algorithm may run on a dataset."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from include.localnet.node.answers import Refused
from include.localnet.node.files import checksum_of
from include.localnet.provider.credentials import CONSUMABLE_STATES
from include.localnet.provider.encryption import files_of

if TYPE_CHECKING:
    from include.localnet.node.configuration import Node
    from include.localnet.provider.assets import Asset, Service

ANY = "*"


@dataclass(frozen=True)
class Checksums:
    """What an algorithm is now; empty texts when that is not known."""

    files: str = ""
    container: str = ""
    service_id: Any = None


def checksums_of(node: Node, algorithm: dict[str, Any]) -> Checksums:
    """Return the checksums of a published algorithm; raw code has none."""
    service_id = algorithm.get("serviceId")
    nothing = Checksums(service_id=service_id)
    found = node.asset(algorithm.get("documentId"))
    service = found[0].service(service_id) if found else None
    if found is None or service is None or "id" not in found[1]:
        return nothing
    files = files_of(node.private_key, found[0], service)
    container = found[0].container
    if not files or "entrypoint" not in container or "checksum" not in container:
        return nothing
    section = f"{container['entrypoint']}{container['checksum']}"
    return Checksums(
        "".join(checksum_of(node, content) for content in files),
        hashlib.sha256(section.encode()).hexdigest(),
        service_id,
    )


def check_checksums(algorithm: dict[str, Any], checksums: Checksums) -> None:
    """Check that a published algorithm could be read.

    :raises Refused: when it could not
    """
    meta = algorithm.get("meta")
    raw = isinstance(meta, dict) and meta.get("rawcode")
    if not raw and not (checksums.container and checksums.files):
        raise Refused(
            "Failed to retrieve algorithm checksums. Both container and files checksums are required."
        )


def is_trusted(node: Node, did: Any, checksums: Checksums, service: Service) -> bool:
    """Say whether an algorithm may run on a dataset's service.

    With both lists empty nobody may, raw code included; ``*`` stands for everything. The node compares the publishers
    with the algorithm's data NFT, not with its owner.
    """
    if service.type == "access":
        return True
    compute = service.compute
    publishers = compute.get("publisherTrustedAlgorithmPublishers") or []
    algorithms = compute.get("publisherTrustedAlgorithms") or []
    if service.type != "compute" or not compute or not (publishers or algorithms):
        return False
    if not did:
        return bool(compute.get("allowRawAlgorithm"))
    wanted = {
        "did": did,
        "filesChecksum": checksums.files,
        "containerSectionChecksum": checksums.container,
        "serviceId": checksums.service_id,
    }
    for entry in algorithms:
        fields = [name for name in wanted if name != "serviceId" or name in entry]
        if all(entry.get(name) in (ANY, wanted[name]) for name in fields):
            return True
    if ANY in publishers:
        return True
    found = node.asset(did)
    return bool(found and found[0].nft_address.lower() in [str(p).lower() for p in publishers])


def check_state(document: dict[str, Any] | None) -> None:
    """Check that an asset may be ordered.

    :raises Refused: when it may not
    """
    if document is None:
        raise Refused("Asset provided is either null, either undefined null")
    if document["indexedMetadata"]["nft"]["state"] not in CONSUMABLE_STATES:
        raise Refused("Nft not present in the asset or the state is different than ACTIVE or UNLISTED.")


def check_access(asset: Asset, document: dict[str, Any], service_id: Any, consumer: str) -> None:
    """Check an asset's and its service's lists of who may use them.

    :raises Refused: 403
    """
    if not _allows(document.get("credentials"), consumer):
        raise Refused(f"Error: Access to asset {asset.did} was denied", 403)
    for service in document["services"]:
        if service["id"] == service_id and not _allows(service.get("credentials"), consumer):
            raise Refused(f"Error: Access to service with id {service_id} was denied", 403)


def _allows(credentials: Any, consumer: str) -> bool:
    """Evaluate a deny list (one match refuses) and an allow list (all must match), of addresses only."""
    if not isinstance(credentials, dict):
        return True
    denied = [_names(entry, consumer) for entry in credentials.get("deny") or []]
    allowed = [_names(entry, consumer) for entry in credentials.get("allow") or []]
    match_any = credentials.get("match_allow") == "any"
    return not any(denied) and (not allowed or (any if match_any else all)(map(bool, allowed)))


def _names(entry: Any, consumer: str) -> bool | None:
    if not isinstance(entry, dict) or entry.get("type") != "address":
        return None
    values = [value.get("address") if isinstance(value, dict) else value for value in entry.get("values", [])]
    return any(str(value).lower() in (ANY, consumer.lower()) for value in values)
