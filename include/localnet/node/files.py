"""Files by reference as the node describes them."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx

from include.localnet.node.answers import Refused
from include.localnet.provider.encryption import files_of
from include.localnet.provider.errors import Refused as ProviderRefused
from include.localnet.provider.errors import Unavailable
from include.localnet.provider.files import RemoteFile, file_of

if TYPE_CHECKING:
    from include.localnet.node.configuration import Node

_UNREADABLE = "Unable to decrypt files, files not served by the current node!"
UNREACHABLE = (httpx.HTTPError, httpx.InvalidURL, ValueError, TypeError)


def remote_file(node: Node, content: Any, userdata: Any = None) -> RemoteFile:
    """Return the file that a file object describes.

    :raises Refused: when the object is malformed, or of a kind that is not at a URL
    """
    is_url = isinstance(content, dict) and content.get("type") == "url"
    if is_url and not (content.get("url") and content.get("method")):
        raise Refused("Error validating the URL file: URL or method are missing")
    try:
        file = file_of(node.configuration.files, node.chain, content, userdata)
    except (ProviderRefused, Unavailable) as error:
        raise Refused(f"Error validating the file: {error}") from error
    if not isinstance(file, RemoteFile):
        raise Refused(f"Invalid storage type: {content.get('type')}")
    return file


def file_name(file: RemoteFile) -> str:
    """Return the name under which a file is put beside the other inputs: the last part of its URL's path."""
    return urlsplit(file.url).path.rsplit("/", 1)[-1]


def describe(file: RemoteFile) -> dict[str, Any]:
    """Return what is known of a file; one that can't be read is valid, too, and empty, as upstream."""
    digest, length, content_type = hashlib.sha256(), 0, ""
    with contextlib.suppress(*UNREACHABLE):
        response = file.fetch("")
        try:
            if response.is_success:
                content_type = response.headers.get("Content-Type", "")
                for chunk in response.iter_bytes():
                    digest.update(chunk)
                    length += len(chunk)
        finally:
            response.close()
    return {
        "valid": True,
        "contentLength": str(length),
        "contentType": content_type,
        "checksum": digest.hexdigest(),
        "name": file_name(file),
        "type": file.kind,
    }


def checksum_of(node: Node, content: Any) -> str:
    """Return the hex SHA-256 of a file's content, an empty text when the object is malformed."""
    try:
        return str(describe(remote_file(node, content))["checksum"])
    except Refused:
        return ""


def files_of_service(node: Node, did: Any, service_id: Any) -> list[Any]:
    """Return the file objects of an asset's service.

    :raises Refused: when there is none that this node can read
    """
    found = node.asset(did)
    service = found[0].service(service_id) if found else None
    files = files_of(node.private_key, found[0], service) if found and service else None
    if not files:
        raise Refused(_UNREADABLE)
    return files
