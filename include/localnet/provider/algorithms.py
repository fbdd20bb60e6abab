"""Which algorithm may run on which dataset: checksums, containers, and the dataset publisher's trust."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from include.localnet.provider.encryption import files_of
from include.localnet.provider.errors import Refused
from include.localnet.provider.files import file_of

if TYPE_CHECKING:
    from include.localnet.provider.assets import Asset, Service
    from include.localnet.provider.configuration import Provider


@dataclass(frozen=True)
class Algorithm:
    """The algorithm of a request.

    :param data: the request's ``algorithm`` object
    :param asset: None for raw code
    :param files_checksum: lower-case hex SHA-256 of each file, joined
    :param container_checksum: hex SHA-256 of the container's entrypoint and checksum
    """

    data: dict[str, Any]
    asset: Asset | None = None
    service: Service | None = None
    files_checksum: str = ""
    container_checksum: str = ""


def container_problem(container: Any) -> str:
    """Return upstream's word for what is wrong with a container description, an empty text when nothing is."""
    if not isinstance(container, dict):
        return "missing_entrypoint_image_checksum"
    if not all(container.get(key) for key in ("entrypoint", "image", "checksum")):
        return "missing_entrypoint_image_checksum"
    return "" if str(container["checksum"]).startswith("sha256:") else "checksum_prefix"


def with_checksums(provider: Provider, data: dict[str, Any], asset: Asset, service: Service) -> Algorithm:
    """Return a published algorithm with the checksums of what it is now.

    :raises Refused: when its files or its container cannot be read
    """
    unavailable = Refused({"algorithm": "file_unavailable"})
    checksums = []
    for content in files_of(provider.configuration.private_key, asset, service) or [None]:
        try:
            details = (
                file_of(provider.configuration.files, provider.chain, content, None).describe(True) or {}
            )
        except Refused as error:
            raise unavailable from error
        if not details.get("checksum"):
            raise unavailable
        checksums.append(details["checksum"])
    container = asset.container
    if not container.get("entrypoint") or not container.get("checksum"):
        raise unavailable
    section = str(container["entrypoint"]) + str(container["checksum"])
    return Algorithm(
        data=data,
        asset=asset,
        service=service,
        files_checksum="".join(checksums).lower(),
        container_checksum=hashlib.sha256(section.encode()).hexdigest(),
    )


def trust_problem(service: Service, algorithm: Algorithm) -> str:
    """Return upstream's word for why an algorithm may not run on a dataset's compute service, or an empty text."""
    if algorithm.asset is None:
        return "" if service.compute.get("allowRawAlgorithm", False) else "no_raw_algo_allowed"
    trusted = service.compute.get("publisherTrustedAlgorithms") or []
    publishers = service.compute.get("publisherTrustedAlgorithmPublishers") or []
    if publishers and algorithm.asset.owner.lower() not in [str(p).lower() for p in publishers]:
        return "not_trusted_algo_publisher"
    return _algorithm_trust_problem(trusted, algorithm) if trusted else ""


def _algorithm_trust_problem(trusted: list[dict[str, Any]], algorithm: Algorithm) -> str:
    try:
        by_did = {entry["did"]: entry for entry in trusted}
    except (KeyError, TypeError):
        return "no_publisherTrustedAlgorithms"
    entry = by_did.get(algorithm.asset.did) if algorithm.asset else None
    if entry is None:
        return "not_trusted_algo"
    files, container = entry.get("filesChecksum"), entry.get("containerSectionChecksum")
    if files and algorithm.files_checksum != str(files).lower():
        return "algorithm_file_checksum_mismatch"
    if container and algorithm.container_checksum != str(container).lower():
        return "algorithm_container_checksum_mismatch"
    return ""


def stage_of(algorithm: Algorithm) -> dict[str, Any]:
    """Return the algorithm as a workflow stage names it, which is what the compute engine reads.

    :raises Refused: when its code or its container is missing
    """
    stage = _published_stage(algorithm) if algorithm.asset else _raw_stage(algorithm.data.get("meta"))
    if not any(stage.get(key) for key in ("url", "rawcode", "remote")):
        raise Refused({"algorithm": "meta_oneof_url_rawcode_remote"})
    problem = container_problem(stage["container"])
    if problem:
        raise Refused({"algorithm.container": problem})
    return stage


def _raw_stage(meta: Any) -> dict[str, Any]:
    if isinstance(meta, str):
        try:
            meta = json.loads(meta)
        except ValueError:
            meta = None
    if not isinstance(meta, dict):
        raise Refused({"algorithm": "meta_oneof_url_rawcode_remote"})
    return {
        "id": "",
        "url": meta.get("url"),
        "rawcode": meta.get("rawcode"),
        "container": meta.get("container"),
    }


def _published_stage(algorithm: Algorithm) -> dict[str, Any]:
    asset, service, data = algorithm.asset, algorithm.service, algorithm.data
    if asset is None or service is None:
        raise Refused({"algorithm": "did_not_found"})
    remote = {
        "serviceEndpoint": service.endpoint,
        "txId": data.get("transferTxId"),
        "serviceId": service.id,
        "userData": data.get("algouserdata"),
    }
    # Clients send ``userdata`` and the engine reads ``remote.userdata``; upstream's Provider writes ``userData`` only, and
    # so loses it between them.
    userdata = data.get("userdata") or data.get("algouserdata")
    if userdata:
        remote["userdata"] = userdata
    return {
        "id": asset.did,
        "rawcode": "",
        "container": asset.container,
        "algouserdata": None,
        "remote": remote,
        "algocustomdata": data.get("algocustomdata"),
    }
