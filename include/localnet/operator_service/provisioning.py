"""Fetches a job's inputs, algorithm and asset documents, and lays them out as upstream's pod-configuration does."""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO
from urllib.parse import urljoin

import httpx
from eth_account import Account

from include.localnet.ethereum import sign_message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from include.localnet.operator_service.jobspace import Folders

_ATTEMPTS = 3
_FOLDER_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,200}")
_TIMEOUT = httpx.Timeout(60, connect=10)
_LONGEST_ANSWER = 4 * 1024 * 1024
# Shorter code counts as none, as upstream decides it.
_SHORTEST_CODE = 10


class ProvisioningFailed(Exception):
    """Something can't be fetched; the text says what, from where and why."""


class Stopped(Exception):
    """A stop was asked for, or the service is closing."""


def without_prefix(did: str) -> str:
    """Return a DID's part after ``did:op:``, as it names folders and stands in ``DIDS``.

    :raises ProvisioningFailed: when that is not fit for a file name
    """
    name = did.replace("did:op:", "")
    if not _FOLDER_NAME.fullmatch(name):
        raise ProvisioningFailed(f"{did[:100]!r} is no DID that can name a folder")
    return name


class ProviderClient:
    """Downloads from Providers in the name of the environment's consumer account.

    :param private_key: the account's; orders of compute assets name its address as consumer
    """

    def __init__(self, private_key: str) -> None:
        self._key = private_key
        self.address: str = Account.from_key(private_key).address
        # This machine is never behind a proxy, whatever the environment says of others.
        direct = dict.fromkeys(("all://127.0.0.1", "all://localhost", "all://[::1]"))
        self.http = httpx.Client(timeout=_TIMEOUT, follow_redirects=True, mounts=direct)
        self._signing = threading.Lock()
        self._nonce = 0

    def endpoint(self, provider: str, name: str) -> tuple[str, str]:
        """Return method and URL of a Provider's endpoint, as it says itself."""
        answer = read_json(self.http, "GET", provider)
        endpoints = answer.get("serviceEndpoints", {}) if isinstance(answer, dict) else {}
        found = endpoints.get(name)
        if not isinstance(found, list) or len(found) != 2:
            raise ProvisioningFailed(f"the Provider at {provider} names no endpoint {name!r}")
        return str(found[0]), urljoin(provider, str(found[1]))

    def open_download(self, url: str, did: str, parameters: dict[str, Any]) -> httpx.Response:
        """Send a signed download request and return the answer unread.

        A Provider takes a nonce only if it is not below the account's last one, and all jobs share the account: so
        nobody signs while another's request is on its way.
        """
        with self._signing:
            self._nonce = max(self._nonce + 1, time.time_ns() // 1_000_000)
            signed = {
                **parameters,
                "documentId": did,
                "consumerAddress": self.address,
                "nonce": str(self._nonce),
                "signature": sign_message(f"{did}{self._nonce}", self._key),
            }
            return self.http.send(self.http.build_request("GET", url, params=signed), stream=True)


def read_json(http: httpx.Client, method: str, url: str, body: object = None) -> Any:
    """Return the JSON of an answer.

    :raises ProvisioningFailed: when there is none
    """
    try:
        answer = http.request(method, url, json=body) if body is not None else http.request(method, url)
        if answer.status_code != 200:
            raise ProvisioningFailed(f"{method} {url} answered {answer.status_code}: {_excerpt(answer.content)}")
        return answer.json()
    except httpx.HTTPError as error:
        raise ProvisioningFailed(f"{method} {url} failed: {error or type(error).__name__}") from error
    except ValueError as error:
        raise ProvisioningFailed(f"{method} {url} answered no JSON") from error


def _excerpt(content: bytes) -> str:
    return content[:300].decode(errors="replace").strip()


@dataclass
class Provisioning:
    """Brings one job's files to its folders.

    :param client: for downloads
    :param folders: the job's
    :param limit: bytes that inputs, algorithm and documents may take together
    :param log: the configuration log; the consumer reads it, so no URL of a dataset goes there
    :param stop_requested: asked between the parts of a download
    """

    client: ProviderClient
    folders: Folders
    limit: int
    log: TextIO
    stop_requested: Callable[[], bool]

    def run(self, stage: dict[str, Any]) -> int:
        """Fetch everything and return the status upstream gives: 30, 31 (data) or 32 (algorithm).

        :raises Stopped: when a stop was asked for
        """
        inputs, algorithm = stage["input"], stage["algorithm"]
        metadata_uri = str(stage["output"].get("metadataUri", ""))
        try:
            for position, item in enumerate(inputs):
                self.say(f"Input {position}: {item.get('id')}")
                folder = self.folders.inputs / without_prefix(item["id"])
                _open_to_all(folder)
                self._asset(metadata_uri, item, folder, first="0")
        except ProvisioningFailed as error:
            self.say(f"The data could not be provided: {error}.")
            return 31
        try:
            self._algorithm(metadata_uri, algorithm)
        except ProvisioningFailed as error:
            self.say(f"The algorithm could not be provided: {error}.")
            return 32
        self.say("Everything is in place.")
        return 30

    def say(self, sentence: str) -> None:
        """Add a line to the configuration log."""
        self.log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {sentence}\n")
        self.log.flush()

    def _algorithm(self, metadata_uri: str, algorithm: dict[str, Any]) -> None:
        self.say(f"Algorithm: {algorithm.get('id') or 'raw code'}")
        if "algocustomdata" in algorithm:
            text = json.dumps(algorithm["algocustomdata"], separators=(",", ":"), ensure_ascii=False)
            self._save(self.folders.inputs / "algoCustomData.json", [text.encode()])
        container = algorithm.get("container")
        if not isinstance(container, dict) or not isinstance(container.get("entrypoint"), str):
            raise ProvisioningFailed("its metadata names no container with an entrypoint")
        image = f"{container.get('image', '')}:{container.get('tag', '')}"
        self.say(f"No image is run here: the sandbox's Python stands for the container image {image}.")
        folder, code = self.folders.transformations, algorithm.get("rawcode")
        if isinstance(code, str) and len(code) > _SHORTEST_CODE:
            self._save(folder / "algorithm", [code.encode()])
        else:
            self._asset(metadata_uri, algorithm, folder, first="algorithm")
        if (folder / "algorithm").exists():
            (folder / "algorithm").chmod(0o755)

    def _asset(self, metadata_uri: str, what: dict[str, Any], folder: Path, first: str) -> None:
        """Fetch an asset's files into a folder, named by index, the first one as told."""
        document = self._document(metadata_uri, str(what.get("id") or ""))
        names = (first if index == 0 else str(index) for index in range(1_000_000))
        if "url" in what:
            for url, name in zip(what["url"] if isinstance(what["url"], list) else [what["url"]], names, strict=False):
                if not isinstance(url, str):
                    raise ProvisioningFailed("it has neither code nor a URL")
                self._download(folder / name, lambda url=url: self.client.http.send(  # type: ignore[misc]
                    self.client.http.build_request("GET", url), stream=True
                ), "its URL")
        elif "remote" in what:
            self._remote(document, what, folder, names)
        else:
            self.say("It has neither a URL nor a Provider: nothing is fetched.")

    def _document(self, metadata_uri: str, did: str) -> dict[str, Any] | None:
        if not did:
            return None
        url = f"{metadata_uri.rstrip('/')}/api/aquarius/assets/ddo/{did}"
        try:
            document = read_json(self.client.http, "GET", url)
        except ProvisioningFailed as error:  # upstream goes on, too: files given by URL need no document
            self.say(f"The asset's document could not be fetched: {error}.")
            return None
        text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
        self._save(self.folders.ddos / without_prefix(did), [text.encode()])
        return document if isinstance(document, dict) else None

    def _remote(
        self, document: dict[str, Any] | None, what: dict[str, Any], folder: Path, names: Iterator[str]
    ) -> None:
        remote, did = what["remote"], what["id"]
        if not remote.get("txId") or document is None:
            raise ProvisioningFailed("either its order's transaction is not named, or its document could not be fetched")
        service = next((s for s in document.get("services", []) if s.get("id") == remote.get("serviceId")), None)
        if service is None:
            raise ProvisioningFailed(f"its document has no service {remote.get('serviceId')!r}")
        provider = str(service["serviceEndpoint"])
        method, url = self.client.endpoint(provider, "fileinfo")
        files = read_json(self.client.http, method, url, {"did": did, "serviceId": remote["serviceId"]})
        if not isinstance(files, list):
            raise ProvisioningFailed(f"the Provider at {provider} gave no list of files")
        _, url = self.client.endpoint(provider, "download")
        user_data = remote.get("algouserdata") or remote.get("userdata") or remote.get("userData")
        for index, name in zip(range(len(files)), names, strict=False):
            parameters = {
                "fileIndex": index,
                "transferTxId": remote["txId"],
                "serviceId": remote["serviceId"],
                **({"userdata": json.dumps(user_data)} if user_data else {}),
            }
            self._download(
                folder / name,
                lambda parameters=parameters: self.client.open_download(url, did, parameters),  # type: ignore[misc]
                f"the Provider at {provider}",
            )

    def _download(self, target: Path, request: Callable[[], httpx.Response], source: str) -> None:
        """Stream one file to disk; what fails in passing is tried again.

        :param source: how the log names where it comes from
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                answer = request()
                try:
                    if answer.status_code == 200:
                        size = self._save(target, answer.iter_bytes())
                        self.say(f"Fetched file {target.name}: {size} bytes.")
                        return
                    problem = f"{source} answered {answer.status_code}: {_excerpt(_beginning(answer))}"
                finally:
                    answer.close()
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                # Some of httpx's messages repeat the URL, which may be the dataset's secret.
                problem = f"{source} could not be read ({type(error).__name__})"
            self.say(f"Attempt {attempt} of {_ATTEMPTS} for file {target.name}: {problem}.")
            if self.stop_requested():
                raise Stopped
            time.sleep(0.2 * attempt)
        raise ProvisioningFailed(f"file {target.name}: {problem}")

    def _save(self, target: Path, parts: Iterator[bytes] | list[bytes]) -> int:
        size = 0
        with target.open("wb") as file:
            for part in parts:
                if self.stop_requested():
                    raise Stopped
                size += len(part)
                if size > self.limit:
                    raise ProvisioningFailed(f"file {target.name}: the job's files are larger than its disk")
                file.write(part)
        self.limit -= size
        target.chmod(0o644)
        return size


def _beginning(answer: httpx.Response) -> bytes:
    for part in answer.iter_bytes():
        return part
    return b""


def _open_to_all(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
