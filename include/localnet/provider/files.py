"""Files by reference: what kinds there are, what is at their other end, and its content as a stream."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import json
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin
from uuid import uuid4

import httpx

from include.localnet.provider.errors import Refused, Unavailable
from include.localnet.provider.smartcontracts import SmartContractCall
from include.localnet.provider.streams import Opened
from include.localnet.provider.web import WEB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from include.localnet.ethereum import Chain
    from include.localnet.provider.configuration import FileSettings

_MAX_REDIRECTS = 5
_CHUNK = 8192
_FAILURES = (httpx.HTTPError, httpx.InvalidURL, ValueError, TypeError)


@dataclass
class RemoteFile:
    """A file that is fetched by HTTP.

    :param kind: url, arweave, ipfs or graphql
    :param headers: request headers from the file object, such as an authorisation
    :param query: parameters of a GET, added to the URL's own when they are an object
    :param body: JSON body of a POST
    """

    kind: str
    url: str
    settings: FileSettings
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    query: Any = None
    body: Any = None

    def describe(self, with_checksum: bool) -> dict[str, Any] | None:
        """Return content type, length and name, and on demand the SHA-256; None when there is no such file."""
        for _ in range(self.settings.request_retries):
            try:
                with self._fetched("") as response:
                    if response.status_code == 200:
                        return self._details(response, with_checksum)
            except _FAILURES:
                continue
        return None

    def open(self, byte_range: str) -> Opened | None:
        """Open the content, None when there is none; the caller closes it.

        :param byte_range: ``Range`` header of the request, or empty
        """
        for _ in range(self.settings.request_retries):
            try:
                response = self.fetch(byte_range)
            except _FAILURES:
                continue
            if response.is_success:
                return Opened.of_response(response, self._name(response) or uuid4().hex)
            response.close()
        return None

    def _details(self, response: httpx.Response, with_checksum: bool) -> dict[str, Any] | None:
        details = {
            "contentLength": response.headers.get("Content-Length", ""),
            "contentType": response.headers.get("Content-Type", "").split(";")[0],
            "filename": self._name(response),
        }
        if not any(details.values()):
            return None
        if with_checksum:
            checksum = self._checksum(response)
            details |= {"checksum": checksum, "checksumType": "sha256"} if checksum else {}
        return details

    def _name(self, response: httpx.Response) -> str:
        # An Arweave or IPFS name says nothing; a URL's query may hold its owner's key.
        return "" if self.kind == "arweave" else response.url.path.rsplit("/", 1)[-1]

    def _checksum(self, response: httpx.Response) -> str:
        """Return the hex SHA-256 of the content, nothing when it is larger than the limit."""
        limit = self.settings.max_checksum_length
        declared = response.headers.get("Content-Length", "0")
        if declared.isdigit() and int(declared) > limit:
            return ""
        digest, length = hashlib.sha256(), 0
        for chunk in response.iter_bytes(_CHUNK):
            length += len(chunk)
            if length > limit:
                return ""
            digest.update(chunk)
        return digest.hexdigest()

    @contextlib.contextmanager
    def _fetched(self, byte_range: str) -> Iterator[httpx.Response]:
        response = self.fetch(byte_range)
        try:
            yield response
        finally:
            response.close()

    def fetch(self, byte_range: str) -> httpx.Response:
        """Send the request and follow its redirects, each of which must lead to an allowed address.

        The caller closes the response, whatever its status is.
        """
        headers = {
            "Accept-Encoding": "identity",
            **({"Range": byte_range} if byte_range else {}),
            **self.headers,
        }
        url = httpx.URL(self.url)
        if isinstance(self.query, dict):
            url = url.copy_merge_params(self.query)
        request = WEB.build_request(
            self.method, url, headers=headers, json=self.body, timeout=self.settings.request_timeout
        )
        for _ in range(_MAX_REDIRECTS + 1):
            self._check_address(request.url)
            response = WEB.send(request, stream=True)
            if response.next_request is None:
                return response
            response.close()
            request = response.next_request
        raise ValueError("too many redirects")

    def _check_address(self, url: httpx.URL) -> None:
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError("no HTTP address")
        if self.settings.allow_non_public_ip:
            return
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            found = socket.getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
        except OSError:
            return  # the request itself will fail on it
        for *_, address in found:
            if not ipaddress.ip_address(address[0]).is_global:
                raise ValueError("not a public address")


def _parameters(userdata: Any) -> Any:
    """Return user data as an object; text that is no JSON is left out, as upstream does."""
    if not userdata:
        return None
    if isinstance(userdata, str):
        try:
            return json.loads(userdata)
        except ValueError:
            return {}
    return userdata


def _checked_url(url: Any, method: str) -> str:
    if not url:
        raise Refused("malformed service files, missing required keys.")
    if method not in ("get", "post"):
        raise Refused(f"Unsafe method {method}.")
    if not isinstance(url, str):
        raise Refused("malformed file object.")
    if "/" in url.strip("/") and not url.startswith(("http://", "https://")):
        raise Refused("Invalid file name format. It was not possible to get the file name.")
    return url


def _url_file(content: dict[str, Any], common: dict[str, Any], userdata: Any) -> RemoteFile:
    method = str(content.get("method") or "get").lower()
    url = _checked_url(content.get("url"), method)
    if method == "post":
        return RemoteFile("url", url, method="POST", body=_parameters(userdata), **common)
    return RemoteFile("url", url, query=_parameters(userdata), **common)


def _graphql_file(content: dict[str, Any], common: dict[str, Any], userdata: Any) -> RemoteFile:
    if not content.get("url"):
        raise Refused("missing graphql endpoint")
    if not content.get("query"):
        raise Refused("missing graphql query")
    body = {"query": content["query"]}
    variables = _parameters(userdata)
    if variables:
        body["variables"] = variables
    return RemoteFile("graphql", str(content["url"]), method="POST", body=body, **common)


def _gateway_file(kind: str, content: dict[str, Any], common: dict[str, Any], userdata: Any) -> RemoteFile:
    settings: FileSettings = common["settings"]
    if kind == "arweave":
        path, gateway = content.get("transactionId"), settings.arweave_gateway
        malformed = "malformed service files, missing transactionId."
        unset = "No ARWEAVE_GATEWAY defined, can not resolve arweave transaction id."
    else:
        path, gateway = content.get("hash"), settings.ipfs_gateway
        malformed = "malformed service files, missing required keys."
        unset = "No IPFS_GATEWAY defined, can not resolve ipfs hash."
    if not path:
        raise Refused(malformed)
    if not gateway:
        raise Unavailable(unset)
    url = urljoin(gateway.rstrip("/") + "/", f"{'' if kind == 'arweave' else 'ipfs/'}{path}")
    return RemoteFile(kind, url, query=_parameters(userdata), **common)


def file_of(
    settings: FileSettings, chain: Chain, content: Any, userdata: Any
) -> RemoteFile | SmartContractCall:
    """Return the file a file object describes (https://docs.oceanprotocol.com/developers/storage).

    :param chain: for calls of contracts
    :param userdata: the consumer's parameters for it
    :raises Refused: when the object is none of a known kind
    :raises Unavailable: when the kind's gateway is not configured
    """
    if not content:
        raise Refused("cannot decrypt files for this service.")
    if not isinstance(content, dict):
        raise Refused("malformed file object.")
    kind = content.get("type")
    if kind == "smartcontract":
        return SmartContractCall.of(chain, content, userdata)
    headers = content.get("headers") or {}
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise Refused("malformed file object.")
    common: dict[str, Any] = {"settings": settings, "headers": headers}
    if kind == "url":
        return _url_file(content, common, userdata)
    if kind == "graphql":
        return _graphql_file(content, common, userdata)
    if kind in ("arweave", "ipfs"):
        return _gateway_file(kind, content, common, userdata)
    raise Refused(f"Unsupported type {kind}")
