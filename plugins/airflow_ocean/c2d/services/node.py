"""Ocean Node, the service of Ocean's live network: Provider, metadata cache and compute in one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import random
import re
import time
from typing import TYPE_CHECKING, Any

from airflow_ocean.c2d.errors import (
    AssetNotFoundError,
    InvalidInputError,
    NotAllowedError,
    NotIndexedError,
    RateLimitedError,
    ServiceUnavailableError,
    UnreadableAnswerError,
)
from airflow_ocean.c2d.jobs import select_job
from airflow_ocean.c2d.services import FileInfo, JobQuote, MetadataDocument, OrderQuote, ResultStream
from airflow_ocean.c2d.services.docker_frames import decode_frames
from airflow_ocean.c2d.services.generation import ENVIRONMENTS_PATH, environments_of
from airflow_ocean.c2d.services.http import HttpSession, read_json, reading_what_was_done
from airflow_ocean.c2d.services.node_answers import (
    FREE,
    check,
    check_verdict,
    read_algorithm,
    read_ddo,
    read_environments,
    read_file_infos,
    read_quote,
)
from airflow_ocean.c2d.services.node_jobs import check_job_id, metadata_of, read_jobs
from airflow_ocean.c2d.services.node_signing import SIGNING_ATTEMPTS, is_overtaken, signed_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx

    from airflow_ocean.c2d.environments import ComputeEnvironment
    from airflow_ocean.c2d.jobs import Job
    from airflow_ocean.c2d.network import Network
    from airflow_ocean.c2d.services import AssetInput, JobRequest, JobTerms
    from airflow_ocean.c2d.services.node_jobs import NodeJob
    from airflow_ocean.c2d.wallet import Wallet

logger = logging.getLogger(__name__)

ENCRYPTED = 2
# Seconds between two looks at the index. A node looks at the chain every 30 s, and takes 30 requests a minute.
_INDEX_PAUSES = (1.0, 10.0)
# A node that takes no more requests in this minute is asked again so many times, so many seconds later unless it says when.
_PATIENCE, _NEXT_TRY, _LONGEST_PAUSE = 3, 20.0, 59.0
# How often a stop is asked for that a node refuses without a reason.
_STOP_ATTEMPTS = 3
_HEX = re.compile("0x([0-9a-fA-F]{2})+")
_SERVICES, _AQUARIUS = "/api/services", "/api/aquarius"


class NodeServices:
    """An Ocean Node, for one wallet.

    :param _network: not needed, as a node is its own metadata cache; the other generation's services need it
    """

    orders_bind_jobs = False
    labels_jobs = True
    anybody: tuple[str, ...] = ("*",)
    # Nodes compare the list of publishers with the address of the algorithm's data NFT, which is nobody's wallet.
    trusts_publishers = False
    # Source: Ocean Node 3.2.0, C2D ``decryptFilesObject``.
    hands_out_all_files = False

    def __init__(self, _network: Network, wallet: Wallet, chain_id: int, provider_url: str) -> None:
        self.url = provider_url.rstrip("/")
        self._wallet = wallet
        self._chain_id = chain_id
        self._http = HttpSession(check)
        self._kinds: dict[tuple[str, int], str] = {}

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    # ------------------------------------------------------------------ requests

    def _request(self, method: str, path: str, what: str, **options: Any) -> httpx.Response:
        """Send a request and return its successful answer, read whole; waits while the node takes no more of them."""
        for tried in range(1, _PATIENCE + 1):
            try:
                return self._http.request(method, self.url + path, what, **options)
            except RateLimitedError as error:
                pause = error.retry_after or _NEXT_TRY
                # A node counts by the minute. Who asks for more is left alone, and the task tried again later.
                if tried == _PATIENCE or pause > _LONGEST_PAUSE:
                    raise
                logger.info("%s; asking again in %.0f s", error, pause)
                time.sleep(pause * random.uniform(1, 1.2))
        raise AssertionError("the loop returns or raises")

    def _send_signed(
        self, command: str, method: str, path: str, what: str, payload: dict[str, Any], **options: Any
    ) -> httpx.Response:
        """Send a signed request; its fields go into the query, but into the body of a POST with none."""
        in_body = method == "POST" and "content" not in options
        name = "publisherAddress" if command == "validateDDO" else "consumerAddress"
        for attempt in range(1, SIGNING_ATTEMPTS + 1):
            fields = {**payload, **signed_fields(self._wallet, command, name)}
            try:
                return self._request(
                    method, path, what, **{"json" if in_body else "params": fields}, **options
                )
            except (NotAllowedError, ServiceUnavailableError) as error:
                # Why it refuses a stop a node hides: it may be the nonce. To stop a job twice does no harm.
                hidden = command == "stopCompute" and isinstance(error, ServiceUnavailableError)
                if not (hidden or is_overtaken(error)):
                    raise
                if attempt == (_STOP_ATTEMPTS if hidden else SIGNING_ATTEMPTS):
                    raise
            time.sleep(random.uniform(0, 0.05 * 2**attempt))
        raise AssertionError("the loop returns or raises")

    # ------------------------------------------------------------------ publishing

    def encrypt_files(self, files: dict[str, Any]) -> str:
        """Encrypt a service's file list so that only this node can read it; 0x-hex."""
        # Of a URL a node wants to be told the method, too.
        listed = [{"method": "GET", **file} if file.get("type") == "url" else file for file in files["files"]]
        text = json.dumps({**files, "files": listed}, separators=(",", ":"))
        return self._encrypt(text, "encrypting the file list")

    def _encrypt(self, text: str, what: str) -> str:
        # A node reads the body as text, so nothing compressed can be sent.
        headers = {"Content-Type": "application/octet-stream"}
        content = text.encode()
        answer = self._send_signed(
            "encrypt", "POST", f"{_SERVICES}/encrypt", what, {}, content=content, headers=headers
        ).text.strip()
        if not _HEX.fullmatch(answer) or len(answer) // 2 - 1 < len(content):
            raise InvalidInputError(
                f"{what}: {self.url} answers with something that is not the encrypted content"
            )
        return answer

    def prepare_metadata(self, ddo: dict[str, Any]) -> MetadataDocument:
        """Have the node validate the DDO and encrypt it. It needs no proof of the validation.

        :raises InvalidInputError: when the DDO is not valid; a node does not say why
        """
        what = f"validating the metadata of {ddo['id']}"
        path = f"{_AQUARIUS}/assets/ddo/validate"
        check_verdict(
            read_json(self._send_signed("validateDDO", "POST", path, what, {"ddo": ddo}), what), what
        )
        text = json.dumps(ddo, separators=(",", ":"))
        return MetadataDocument(
            decryptor_url=self.url,
            decryptor_address=self._wallet.address,
            flags=ENCRYPTED,
            data=self._encrypt(text, f"encrypting the metadata of {ddo['id']}"),
            digest="0x" + hashlib.sha256(text.encode()).hexdigest(),
            proofs=[],
        )

    def resolve(self, did: str) -> dict[str, Any]:
        """Return the DDO that the node has indexed.

        :raises AssetNotFoundError: when it knows none
        """
        what = f"resolving {did}"
        return read_ddo(read_json(self._request("GET", f"{_AQUARIUS}/assets/ddo/{did}", what), what), what)

    def resolve_all(self, dids: list[str]) -> list[dict[str, Any]]:
        """Return the indexed DDOs of several assets, in their order."""
        return [self.resolve(did) for did in dids]

    def wait_until_indexed(self, did: str, transaction: str, block: int, timeout: float) -> dict[str, Any]:
        """Return the DDO once the node has indexed a transaction's metadata.

        :param block: the transaction's block
        :raises NotIndexedError: after ``timeout`` seconds
        """
        deadline = time.monotonic() + timeout
        pause, longest = _INDEX_PAUSES
        while True:
            with contextlib.suppress(AssetNotFoundError):
                ddo = self.resolve(did)
                shown = ddo["event"].get("block")
                # A later change of the same asset hides this one's transaction, hence the block.
                later = isinstance(shown, int) and shown > block
                if later or str(ddo["event"]["tx"]).lower() == transaction.lower():
                    return ddo
            if time.monotonic() > deadline:
                raise NotIndexedError(
                    f"{did}: transaction {transaction} is mined, but {self.url} has not indexed it after {timeout:.0f} s. "
                    "Does it follow this chain?"
                )
            time.sleep(min(pause, max(deadline - time.monotonic(), 0.1)))
            pause = min(pause * 1.5, longest)

    def file_infos(self, did: str, service_id: str, *, checksum: bool = False) -> list[FileInfo]:
        """Have the node look at an asset's files; it always gives their checksums."""
        what = f"asking the node about the files of {did}"
        body = {"did": did, "serviceId": service_id}
        return read_file_infos(
            read_json(self._request("POST", f"{_SERVICES}/fileInfo", what, json=body), what), what
        )

    # ------------------------------------------------------------------ paying

    def environments(self) -> list[ComputeEnvironment]:
        """List the compute environments that are paid on the network's chain, and the free part of each as one of its own."""
        what = "listing the compute environments"

        def ask() -> Any:
            # Of one chain a node shows only what is paid there: not what is free, or paid elsewhere and has a free part.
            return read_json(self._request("GET", ENVIRONMENTS_PATH, what), what)

        return read_environments(environments_of(self.url, ask), self._chain_id, self._wallet.address, what)

    def check_job(
        self, environment: ComputeEnvironment, terms: JobTerms, variables: dict[str, str] | None
    ) -> None:
        """See that the environment has the resources that a job is to get. A node takes any variables.

        Of what it does not have a node says nothing, and in its free part it refuses too much only at the start.

        :raises InvalidInputError: naming the resource
        """
        for name, amount in terms.resources.items():
            most = environment.most_resources.get(name)
            if most is None:
                offered = ", ".join(environment.most_resources)
                raise InvalidInputError(
                    f"job_resources: environment {environment.id} at {self.url} has no {name!r}; it offers {offered}"
                )
            if amount > most:
                raise InvalidInputError(
                    f"job_resources: environment {environment.id} at {self.url} gives a job {most} {name} at most, not {amount}"
                )

    def quote(
        self,
        datasets: list[AssetInput],
        algorithm: AssetInput,
        environment: ComputeEnvironment,
        valid_until: int,
        terms: JobTerms,
    ) -> JobQuote:
        """Ask what a job takes: orders, and the payment that will be locked in the escrow. A free one takes nothing.

        :param valid_until: means nothing to a node, which is paid by the job
        :raises NotAllowedError: when the algorithm may not run on a dataset
        :raises InvalidInputError: when the job would not get all of the datasets
        """
        what = f"quoting {algorithm.did} on {', '.join(item.did for item in datasets)} in {environment.id}"
        if len(datasets) > 1:
            self._require_different_names(datasets, what)
        if environment.id.endswith(FREE) or environment.fee_token is None:
            nothing = OrderQuote(None, None, needed=False)
            return JobQuote([nothing] * len(datasets), nothing)
        body = {
            "datasets": [_asset(item) for item in datasets],
            "algorithm": _asset(algorithm),
            "environment": environment.id,
            "payment": {
                "chainId": self._chain_id,
                "token": environment.fee_token,
                "resources": terms.resource_list(),
            },
            "maxJobDuration": terms.duration,
            "queueMaxWaitTime": terms.queue_wait,
            "consumerAddress": self._wallet.address,
        }
        answer = self._request("POST", f"{_SERVICES}/initializeCompute", what, json=body)
        return read_quote(read_json(answer, what), body, what)

    def _require_different_names(self, datasets: list[AssetInput], what: str) -> None:
        """Refuse datasets of which one's file would be written over another's: a node gives a job all in one folder.

        A file without a name, such as one of IPFS, cannot be: a node ends its job for that, or mounts it elsewhere.
        """
        known: dict[str, str] = {}
        for item in datasets:
            for file in self.file_infos(item.did, item.service_id)[:1]:
                other = known.setdefault(file.name, item.did)
                if file.name and other != item.did:
                    raise InvalidInputError(
                        f"{what}: the files of {other} and {item.did} are both named {file.name!r}, and of files with one "
                        "name a node gives a job the last alone. Run a job for each, or publish one of them anew from "
                        "a URL that ends in another name; nothing was spent"
                    )

    # ------------------------------------------------------------------ jobs

    def start(self, request: JobRequest, announce: Callable[[], None] | None = None) -> Job:
        """Start a job: in the free part of an environment, or paid through the escrow.

        :param announce: called right before each request that may start it
        """
        code, terms, environment = _asset(request.algorithm), request.terms, request.environment
        if request.custom_data:
            code["algocustomdata"] = request.custom_data
        if request.variables:
            code["envs"] = request.variables
        payload: dict[str, Any] = {
            "environment": environment.removesuffix(FREE),
            "datasets": [_asset(item) for item in request.datasets],
            "algorithm": code,
            "maxJobDuration": terms.duration,
            "resources": terms.resource_list(),
            "queueMaxWaitTime": terms.queue_wait,
        }
        dids = [item.did for item in request.datasets]
        if request.label:
            payload["metadata"] = metadata_of(request.label, request.algorithm.did, dids)
        what = f"starting {request.algorithm.did} on {', '.join(dids)} in {environment}"
        if environment.endswith(FREE):
            # Of a free job a node does not look up how its algorithm is run.
            code["meta"] = read_algorithm(self.resolve(request.algorithm.did), request.algorithm.did, what)
            command, path = "freeStartCompute", "freeCompute"
        else:
            payload["payment"] = {"chainId": self._chain_id, "token": request.payment_token}
            command, path = "startCompute", "compute"
        answer = self._send_signed(command, "POST", f"{_SERVICES}/{path}", what, payload, announce=announce)
        with reading_what_was_done():
            return self._only_job(answer, what)

    def jobs(self) -> list[Job]:
        """List every job of the wallet, of all time: the service knows no paging."""
        what = f"listing the jobs of {self._wallet.address}"
        query = {"consumerAddress": self._wallet.address}
        answer = self._request("GET", f"{_SERVICES}/compute", what, params=query)
        return list(self._remembered(read_jobs(read_json(answer, what), what)))

    def job(self, job_id: str) -> Job:
        """Return one job.

        :param job_id: as its start returned it, with the cluster before it: an id without one counts as none
        :raises JobNotFoundError: when the node knows no such job of this wallet
        """
        check_job_id(job_id)
        what = f"asking for the state of job {job_id}"
        query = {"consumerAddress": self._wallet.address, "jobId": job_id}
        answer = self._request("GET", f"{_SERVICES}/compute", what, params=query)
        found: list[Job] = list(self._remembered(read_jobs(read_json(answer, what), what)))
        return select_job(found, job_id, self.url)

    def stop(self, job: Job) -> Job:
        """Ask for a job's end."""
        check_job_id(job.id)
        what = f"stopping job {job.id}"
        answer = self._send_signed("stopCompute", "PUT", f"{_SERVICES}/compute", what, {"jobId": job.id})
        found: list[Job] = list(read_jobs(read_json(answer, what), what))
        return select_job(found, job.id, self.url)

    @contextlib.contextmanager
    def open_result(self, job_id: str, index: int) -> Iterator[ResultStream]:
        """Open one result for reading; the algorithm's log comes without Docker's frames.

        :raises InvalidInputError: when there is no such result
        """
        if (job_id, index) not in self._kinds:
            self.job(job_id)
        kind = self._kinds.get((job_id, index))
        what = f"fetching result {index} of job {job_id}"
        if kind is None:
            # A node answers 200 and nothing.
            raise InvalidInputError(f"{what}: the job has no such result")
        for attempt in range(1, SIGNING_ATTEMPTS + 1):
            query = {"jobId": job_id, "index": str(index), **signed_fields(self._wallet, "getComputeResult")}
            with contextlib.ExitStack() as stack:
                url = f"{self.url}{_SERVICES}/computeResult"
                try:
                    response = stack.enter_context(self._http.stream("GET", url, what, params=query))
                except NotAllowedError as error:
                    if attempt == SIGNING_ATTEMPTS or not is_overtaken(error):
                        raise
                    continue
                chunks = response.iter_bytes(256 * 1024)
                yield ResultStream(decode_frames(chunks, what) if kind == "algorithmLog" else chunks, None)
                return

    def _only_job(self, answer: httpx.Response, what: str) -> Job:
        found = read_jobs(read_json(answer, what), what)
        if not found:
            raise UnreadableAnswerError(f"{what}: the node answers with an empty list of jobs")
        return found[0]

    def _remembered(self, jobs: list[NodeJob]) -> list[NodeJob]:
        """Remember of what kind each result is."""
        for job in jobs:
            self._kinds |= {(job.id, file.index): file.type for file in job.results}
        return jobs


def _asset(item: AssetInput) -> dict[str, Any]:
    fields: dict[str, Any] = {"documentId": item.did, "serviceId": item.service_id}
    if item.order:
        fields["transferTxId"] = item.order
    if item.user_data:
        fields["userdata"] = item.user_data
    return fields
