"""Brings a job's inputs and its algorithm to its folders: flat, each under its own file name."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import httpx

from include.localnet.node.answers import Refused
from include.localnet.node.files import file_name, files_of_service, remote_file
from include.localnet.node.javascript import stringify
from include.localnet.node.store import ALGORITHM_PROVISIONING_FAILED, DATA_FAILED
from include.localnet.operator_service.provisioning import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from include.localnet.node.configuration import Node
    from include.localnet.node.layout import NodeFolders
    from include.localnet.node.store import Job
    from include.localnet.provider.files import RemoteFile

_CUSTOM_DATA = "algoCustomData.json"
_FILE_NAME = re.compile(r"[^/\0]{1,200}")


class ProvisioningFailed(Exception):
    """Something can't be fetched.

    :param status: the job's last status
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Provisioning:
    """Fetches the files of one job.

    :param limit: bytes that they may have together
    :param deadline: until when this may take (monotonic seconds)
    :param stop_requested: asked between the parts of a download
    """

    def __init__(
        self,
        node: Node,
        job: Job,
        folders: NodeFolders,
        limit: int,
        deadline: float,
        stop_requested: Callable[[], bool],
    ) -> None:
        self._node, self._job, self._folders = node, job, folders
        self._left, self._deadline, self._stop_requested = limit, deadline, stop_requested

    def run(self) -> None:
        """Fetch everything.

        :raises ProvisioningFailed: with the status that the job ends with
        :raises Stopped: when that was asked for
        """
        algorithm = self._job.order["algorithm"]
        self._say(f"Writing algocustom data to '/data/inputs/{_CUSTOM_DATA}'")
        custom_data = algorithm.get("algocustomdata")
        content = stringify({} if custom_data is None else custom_data).encode(errors="replace")
        self._save(self._folders.inputs / _CUSTOM_DATA, [content], DATA_FAILED)
        self._algorithm(algorithm)
        for position, asset in enumerate(self._job.order["assets"]):
            self._say(f"Downloading asset {position} to /data/inputs/")
            self._asset(asset)
        self._say("All good with data provisioning, will start uploading it...")

    def _algorithm(self, algorithm: dict[str, Any]) -> None:
        target, failed = self._folders.transformations / "algorithm", ALGORITHM_PROVISIONING_FAILED
        code = (algorithm.get("meta") or {}).get("rawcode")
        if code:
            self._say(f"Writing raw algo code to {self._shown(target)}")
            self._save(target, [str(code).encode(errors="replace")], failed)
            return
        try:
            file = self._file_of(algorithm)
        except Refused as error:
            raise self._failure(
                failed, f"Unable to write algorithm to path: {self._shown(target)}: {error}"
            ) from error
        if file is None:
            self._say("Could not extract any files object from the compute algorithm, skipping...")
            return
        self._download(file, target, failed, "Unable to write algorithm to path")

    def _asset(self, asset: dict[str, Any]) -> None:
        if not asset.get("fileObject"):
            self._say(
                f"Using {asset.get('documentId')} and serviceId {asset.get('serviceId')} for this asset."
            )
        try:
            file = self._file_of(asset)
        except Refused as error:
            raise self._failure(DATA_FAILED, f"Unable to get storage class for asset: {error}") from error
        if file is None:
            self._say("Could not extract any files object from the compute asset, skipping...")
            return
        name = file_name(file)
        if not _FILE_NAME.fullmatch(name) or name in (".", ".."):
            raise self._failure(DATA_FAILED, f"Unable to write input data: {name!r} is no file name")
        # Of two inputs with one name the later is left, without a word, as upstream.
        target = self._folders.inputs / name
        self._say(f"Downloading asset to {self._shown(target)}")
        self._download(file, target, DATA_FAILED, "Unable to write input data to path")

    def _file_of(self, item: dict[str, Any]) -> RemoteFile | None:
        """Return the file of an input or an algorithm; of an asset with several files the first, as upstream."""
        if item.get("fileObject"):
            return remote_file(self._node, item["fileObject"])
        if not item.get("documentId") or not item.get("serviceId"):
            return None
        files = files_of_service(self._node, item["documentId"], item["serviceId"])
        return remote_file(self._node, files[0], item.get("userdata"))

    def _download(self, file: RemoteFile, target: Path, status: int, problem: str) -> None:
        path = self._shown(target)
        try:
            response = file.fetch("")
            try:
                if not response.is_success:
                    text = f"{problem}: {path}: Request failed with status code {response.status_code}"
                    raise self._failure(status, text)
                self._save(target, response.iter_bytes(), status)
            finally:
                response.close()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, TypeError) as error:
            # Some of httpx's messages repeat the URL, which may be the dataset's secret.
            raise self._failure(status, f"{problem}: {path}: {type(error).__name__}") from error

    def _save(self, target: Path, parts: Iterable[bytes], status: int) -> None:
        with target.open("wb") as file:
            for part in parts:
                if self._stop_requested():
                    raise Stopped
                if time.monotonic() > self._deadline:
                    raise self._failure(status, "Fetching took longer than the job may run")
                self._left -= len(part)
                if self._left < 0:
                    raise self._failure(status, "The job's files are larger than its disk")
                file.write(part)
        target.chmod(0o644)

    def _shown(self, path: Path) -> str:
        """Return a path as the log shows it: upstream's, which tells nothing of this machine."""
        inside = path.relative_to(self._folders.root)
        return f"./c2d_storage/{self._node.environment.cluster}/{self._job.id}/{inside}"

    def _failure(self, status: int, text: str) -> ProvisioningFailed:
        self._say(text)
        return ProvisioningFailed(status, text)

    def _say(self, sentence: str) -> None:
        with self._folders.configuration_log.open("a", encoding="utf-8", errors="backslashreplace") as log:
            log.write(f"{sentence}\n")
