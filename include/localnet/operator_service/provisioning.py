"""Fetches a job's inputs, algorithm and asset documents, and lays them out as upstream's pod-configuration does."""

from __future__ import annotations

import functools
import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import httpx

from include.localnet.operator_service.provider_client import (
    ProviderClient,
    ProvisioningFailed,
    Unreachable,
    excerpt,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from include.localnet.operator_service.jobspace import Folders

T = TypeVar("T")

_ATTEMPTS = 3
# For so long a paid job waits for a Provider or a metadata cache that is away, in seconds.
_PATIENCE = 60.0
_PAUSE = 0.5
_FOLDER_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,200}")
# Shorter code counts as none, as upstream decides it.
_SHORTEST_CODE = 10


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


@dataclass
class Provisioning:
    """Brings one job's files to its folders.

    :param client: for downloads
    :param folders: the job's
    :param limit: bytes that inputs, algorithm and documents may take together
    :param deadline: until when this may take (monotonic seconds)
    :param log: the configuration log; the consumer reads it, so no URL of a dataset goes there
    :param stop_requested: asked between the parts of a download
    """

    client: ProviderClient
    folders: Folders
    limit: int
    deadline: float
    log: TextIO
    stop_requested: Callable[[], bool]

    def run(self, stage: dict[str, Any]) -> int:
        """Fetch everything and return the status upstream gives: 30, 31 (data) or 32 (algorithm).

        :raises Stopped: when a stop was asked for
        """
        malformed = (KeyError, TypeError, AttributeError)
        try:
            metadata_uri = str(stage["output"].get("metadataUri", ""))
            for position, item in enumerate(stage["input"]):
                self.say(f"Input {position}: {item.get('id')}")
                folder = self.folders.inputs / without_prefix(item["id"])
                folder.mkdir(exist_ok=True)
                folder.chmod(0o755)
                self._asset(metadata_uri, item, folder, first="0")
        except (ProvisioningFailed, *malformed) as error:
            self.say(f"The data could not be provided: {_clause(error)}.")
            return 31
        try:
            self._algorithm(metadata_uri, stage["algorithm"])
        except (ProvisioningFailed, *malformed) as error:
            self.say(f"The algorithm could not be provided: {_clause(error)}.")
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
            self._save(self.folders.inputs / "algoCustomData.json", [_compact(algorithm["algocustomdata"])])
        container = algorithm.get("container")
        if not isinstance(container, dict) or not isinstance(container.get("entrypoint"), str):
            raise ProvisioningFailed("its metadata names no container with an entrypoint")
        folder, code = self.folders.transformations, algorithm.get("rawcode")
        if isinstance(code, str) and len(code) > _SHORTEST_CODE:
            self._save(folder / "algorithm", [code.encode()])
        else:
            self._asset(metadata_uri, algorithm, folder, first="algorithm")
        if (folder / "algorithm").exists():
            (folder / "algorithm").chmod(0o755)

    def _asset(self, metadata_uri: str, what: dict[str, Any], folder: Path, first: str) -> None:
        """Fetch an asset's files into a folder, named by index, the first one as told."""
        document = self._document(metadata_uri, str(what.get("id") or ""), is_needed="remote" in what)
        if "url" in what:
            for index, url in enumerate(what["url"] if isinstance(what["url"], list) else [what["url"]]):
                if not isinstance(url, str):
                    raise ProvisioningFailed("it has neither code nor a URL")
                target = folder / (str(index) if index else first)
                self._download(target, functools.partial(self.client.open_url, url), "its URL")
        elif "remote" in what:
            self._remote(document, what, folder, first)
        else:
            self.say("It has neither a URL nor a Provider: nothing is fetched.")

    def _document(self, metadata_uri: str, did: str, *, is_needed: bool) -> dict[str, Any] | None:
        if not did:
            return None
        url = f"{metadata_uri.rstrip('/')}/api/aquarius/assets/ddo/{did}"
        try:
            request = functools.partial(self.client.json, "GET", url)
            document = self._patiently(request) if is_needed else request()
        except ProvisioningFailed as error:  # upstream goes on, too: files given by URL need no document
            self.say(f"The asset's document could not be fetched: {error}.")
            return None
        self._save(self.folders.ddos / without_prefix(did), [_compact(document)])
        return document if isinstance(document, dict) else None

    def _remote(
        self, document: dict[str, Any] | None, what: dict[str, Any], folder: Path, first: str
    ) -> None:
        """Fetch an asset's files from the Provider that its document names, with the order the consumer paid."""
        remote, did = what["remote"], what["id"]
        if not remote.get("txId"):
            raise ProvisioningFailed("its order's transaction is not named")
        if document is None:
            raise ProvisioningFailed("without its document its Provider is unknown")
        service = next((s for s in document["services"] if s["id"] == remote.get("serviceId")), None)
        if service is None:
            raise ProvisioningFailed(f"its document has no service {remote.get('serviceId')!r}")
        provider = str(service["serviceEndpoint"])
        method, url = self._patiently(functools.partial(self.client.endpoint, provider, "fileinfo"))
        asked = {"did": did, "serviceId": remote["serviceId"]}
        files = self._patiently(functools.partial(self.client.json, method, url, asked))
        if not isinstance(files, list):
            raise ProvisioningFailed(f"the Provider at {provider} gave no list of files")
        _, url = self._patiently(functools.partial(self.client.endpoint, provider, "download"))
        user_data = remote.get("algouserdata") or remote.get("userdata") or remote.get("userData")
        for index in range(len(files)):
            parameters = {
                "fileIndex": index,
                "transferTxId": remote["txId"],
                "serviceId": remote["serviceId"],
                **({"userdata": json.dumps(user_data)} if user_data else {}),
            }
            download = functools.partial(self.client.open_download, url, did, parameters)
            request = functools.partial(self._patiently, download)
            self._download(folder / (str(index) if index else first), request, f"the Provider at {provider}")

    def _download(self, target: Path, request: Callable[[], httpx.Response], source: str) -> None:
        """Stream one file to disk; what fails is tried again.

        :param source: how the log names where it comes from
        """
        for attempt in range(1, _ATTEMPTS + 1):
            self._check()
            try:
                answer = request()
                try:
                    if answer.status_code == 200:
                        size = self._save(target, answer.iter_bytes())
                        self.say(f"Fetched file {target.name}: {size} bytes.")
                        return
                    problem = (
                        f"{source} answered {answer.status_code}: {excerpt(next(answer.iter_bytes(), b''))}"
                    )
                finally:
                    answer.close()
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                # Some of httpx's messages repeat the URL, which may be the dataset's secret.
                problem = f"{source} could not be read ({type(error).__name__})"
            self.say(f"Attempt {attempt} of {_ATTEMPTS} for file {target.name}: {problem}.")
            time.sleep(0.2 * attempt)
        raise ProvisioningFailed(f"file {target.name} could not be fetched: {problem}")

    def _patiently(self, request: Callable[[], T]) -> T:
        """Ask a Provider or a metadata cache, again while it is away: whatever is killed comes back, and loses no job."""
        until = time.monotonic() + _PATIENCE
        while True:
            self._check()
            try:
                return request()
            except (Unreachable, httpx.TransportError):
                if time.monotonic() > until:
                    raise
            time.sleep(_PAUSE)

    def _save(self, target: Path, parts: Iterable[bytes]) -> int:
        size = 0
        with target.open("wb") as file:
            for part in parts:
                self._check()
                size += len(part)
                if size > self.limit:
                    raise ProvisioningFailed(
                        f"with file {target.name} the job's files are larger than its disk"
                    )
                file.write(part)
        self.limit -= size
        target.chmod(0o644)
        return size

    def _check(self) -> None:
        if self.stop_requested():
            raise Stopped
        if time.monotonic() > self.deadline:
            raise ProvisioningFailed("fetching took longer than a job may run")


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")


def _clause(error: Exception) -> str:
    if isinstance(error, ProvisioningFailed):
        return str(error)
    return f"the workflow is not of the form the Provider sends ({type(error).__name__}: {error})"
