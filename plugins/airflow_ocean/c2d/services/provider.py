"""Provider and Aquarius, the services that ocean-lib's generation speaks."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import lzma
import random
import re
import time
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from airflow_ocean.c2d.environments import ComputeEnvironment
from airflow_ocean.c2d.errors import (
    AssetNotFoundError,
    InvalidInputError,
    JobNotFoundError,
    NotAllowedError,
    NotIndexedError,
    ServiceAnswerError,
    ServiceUnavailableError,
    UnreadableAnswerError,
)
from airflow_ocean.c2d.jobs import Job, parse_job, select_job
from airflow_ocean.c2d.services import FileInfo, JobQuote, MetadataDocument, OrderQuote, ResultStream
from airflow_ocean.c2d.services.fees import check_fee, check_offered
from airflow_ocean.c2d.services.fields import optional_text, whole_number
from airflow_ocean.c2d.services.generation import environments_of, root_of
from airflow_ocean.c2d.services.http import HttpSession, read_json, reading_what_was_done
from airflow_ocean.c2d.services.provider_status import fetch_jobs
from airflow_ocean.c2d.units import parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx

    from airflow_ocean.c2d.network import Network
    from airflow_ocean.c2d.services import AssetInput, JobRequest, JobTerms
    from airflow_ocean.c2d.wallet import Wallet

logger = logging.getLogger(__name__)

COMPRESSED = 1
ENCRYPTED = 2
# A request that was overtaken by one of the same wallet with a higher nonce is signed again.
SIGNING_ATTEMPTS = 8

_BYTES = re.compile("0x([0-9a-fA-F]{2})*")


class ProviderServices:
    """A Provider and the network's Aquarius, for one wallet."""

    orders_bind_jobs = True
    labels_jobs = False
    anybody: tuple[str, ...] = ()
    trusts_publishers = True
    hands_out_all_files = True

    def __init__(self, network: Network, wallet: Wallet, chain_id: int, provider_url: str) -> None:
        self.url = provider_url.rstrip("/")
        self._network = network
        self._wallet = wallet
        self._chain_id = chain_id
        self._http = HttpSession()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    # ------------------------------------------------------------------ addresses

    def _endpoint(self, name: str) -> str:
        """Return the URL the Provider gives for one of its services; clients look each up at its root."""
        try:
            return self.url + read_endpoints(root_of(self.url), self.url)[name]
        except KeyError:
            raise InvalidInputError(f"the Provider at {self.url} offers no {name}; is it too old?") from None

    @property
    def _aquarius(self) -> str:
        url = self._network.metadata_cache_url
        if url is None:
            raise InvalidInputError(
                f"the connection names no metadata_cache_url, which the Provider at {self.url} needs beside it"
            )
        return f"{url}/api/aquarius/assets"

    # ------------------------------------------------------------------ signatures

    def _signed(
        self,
        method: str,
        name: str,
        message: str,
        what: str,
        payload: dict[str, Any],
        announce: Callable[[], None] | None = None,
    ) -> httpx.Response:
        """Send a signed request; ``message`` is what the Provider expects to be signed before the nonce.

        :param announce: called right before each request
        """
        url = self._endpoint(name)
        for attempt in range(1, SIGNING_ATTEMPTS + 1):
            body = self._sign(message, payload)
            options = {"json": body} if method == "POST" else {"params": body}
            try:
                return self._http.request(method, url, what, announce, **options)
            except (ServiceAnswerError, ServiceUnavailableError) as error:
                # A Provider claims a nonce when the work is done, and answers 503 when it cannot: a job may have begun.
                may_be_done = announce is not None and isinstance(error, ServiceUnavailableError)
                if attempt == SIGNING_ATTEMPTS or may_be_done or not _is_nonce_error(error):
                    raise
                time.sleep(random.uniform(0, 0.05 * 2**attempt))
        raise AssertionError("the loop returns or raises")

    def _sign(self, message: str, payload: dict[str, Any]) -> dict[str, Any]:
        nonce = str(self._wallet.next_nonce())
        return {**payload, "nonce": nonce, "signature": self._wallet.sign_text(message + nonce)}

    # ------------------------------------------------------------------ publishing

    def encrypt_files(self, files: dict[str, Any]) -> str:
        """Encrypt a service's file list so that only this Provider can read it; 0x-hex."""
        return self._encrypt(json.dumps(files, separators=(",", ":")).encode(), "encrypting the file list")

    def _encrypt(self, content: bytes, what: str) -> str:
        response = self._http.request(
            "POST",
            self._endpoint("encrypt"),
            what,
            params={"chainId": self._chain_id},
            content=content,
            headers={"Content-Type": "application/octet-stream"},
        )
        text = response.text.strip()
        # ECIES adds to the content, so a shorter answer is a part of one.
        if not _BYTES.fullmatch(text) or len(text) // 2 - 1 < len(content):
            raise InvalidInputError(
                f"{what}: the Provider at {self.url} answers with something that is not the encrypted content as 0x-hex"
            )
        return text

    def prepare_metadata(self, ddo: dict[str, Any]) -> MetadataDocument:
        """Have Aquarius validate and sign the DDO, compress it, and have the Provider encrypt it.

        :raises InvalidInputError: with Aquarius' findings, when the DDO is not valid
        """
        text = json.dumps(ddo, separators=(",", ":"))
        what = f"validating the metadata of {ddo['id']}"
        try:
            answer = self._http.request(
                "POST",
                f"{self._aquarius}/ddo/validate",
                what,
                content=text.encode(),
                headers={"Content-Type": "application/octet-stream"},
            )
        except ServiceAnswerError as error:
            raise InvalidInputError(f"{what}: {error.text}") from error
        verdict = read_json(answer, what)
        try:
            proof = (verdict["publicKey"], int(verdict["v"]), verdict["r"][0], verdict["s"][0])
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise InvalidInputError(f"{what}: {self._aquarius} answers without a signature") from error
        return MetadataDocument(
            decryptor_url=self.url,
            decryptor_address=self._wallet.address,
            flags=COMPRESSED | ENCRYPTED,
            data=self._encrypt(lzma.compress(text.encode()), f"encrypting the metadata of {ddo['id']}"),
            digest="0x" + hashlib.sha256(text.encode()).hexdigest(),
            proofs=[proof],
        )

    def resolve(self, did: str) -> dict[str, Any]:
        """Return the DDO that Aquarius has indexed.

        :raises AssetNotFoundError: when it knows none
        """
        what = f"resolving {did}"
        try:
            ddo = read_json(self._http.request("GET", f"{self._aquarius}/ddo/{did}", what), what)
        except ServiceAnswerError as error:
            if error.status == 404:
                raise AssetNotFoundError(
                    f"{self._network.metadata_cache_url} knows no asset {did}; is the DID right, and of this network?"
                ) from error
            raise
        if not isinstance(ddo, dict):
            raise InvalidInputError(f"{what}: the metadata cache answers with something that is no DDO")
        return ddo

    def resolve_all(self, dids: list[str]) -> list[dict[str, Any]]:
        """Return the DDOs of several assets with one search, in their order.

        :raises AssetNotFoundError: when Aquarius does not know one of them
        """
        if len(dids) == 1:
            return [self.resolve(dids[0])]
        what = f"resolving {', '.join(dids)}"
        query = {"query": {"terms": {"_id": dids}}, "size": len(dids)}
        answer = read_json(self._http.request("POST", f"{self._aquarius}/query", what, json=query), what)
        try:
            found = {str(hit["_id"]): dict(hit["_source"]) for hit in answer["hits"]["hits"]}
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInputError(
                f"{what}: the metadata cache answers in an unknown form ({error!r})"
            ) from error
        # Elasticsearch's search shows a new document about a second later than asking for it by its id.
        return [found[did] if did in found else self.resolve(did) for did in dids]

    def wait_until_indexed(self, did: str, transaction: str, block: int, timeout: float) -> dict[str, Any]:
        """Return the DDO once Aquarius has indexed a transaction's metadata.

        :param block: the transaction's block
        :raises NotIndexedError: after ``timeout`` seconds
        """
        deadline = time.monotonic() + timeout
        pause = 0.5
        time.sleep(pause)  # no index is quicker: it has to read the block and have the Provider decrypt
        while True:
            with contextlib.suppress(AssetNotFoundError):
                ddo = self.resolve(did)
                event = ddo.get("event")
                tx, shown = (event.get("tx"), event.get("block")) if isinstance(event, dict) else (None, None)
                # A later change of the same asset hides this one's transaction, hence the block.
                if str(tx).lower() == transaction.lower() or (isinstance(shown, int) and shown > block):
                    return ddo
            if time.monotonic() > deadline:
                raise NotIndexedError(
                    f"{did}: transaction {transaction} is mined, but {self._network.metadata_cache_url} has not indexed it "
                    f"after {timeout:.0f} s. Does it follow this chain, and does it reach the Provider at {self.url}?"
                )
            time.sleep(pause)
            pause = min(pause * 2, 5.0)

    def file_infos(self, did: str, service_id: str, *, checksum: bool = False) -> list[FileInfo]:
        """Have the Provider look at an asset's files."""
        what = f"asking the Provider about the files of {did}"
        body = {"did": did, "serviceId": service_id, "checksum": 1 if checksum else 0}
        entries = read_json(self._http.request("POST", self._endpoint("fileinfo"), what, json=body), what)
        try:
            return [
                FileInfo(
                    index=int(entry["index"]),
                    valid=bool(entry["valid"]),
                    checksum=optional_text(entry, "checksum"),
                    content_length=whole_number(entry, "contentLength")
                    if entry.get("contentLength")
                    else None,
                    content_type=entry.get("contentType"),
                )
                for entry in entries
            ]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidInputError(f"{what}: {self.url} answers in an unknown form ({error!r})") from error

    # ------------------------------------------------------------------ paying

    def environments(self) -> list[ComputeEnvironment]:
        """List the compute environments of the network's chain."""
        what = "listing the compute environments"

        def ask() -> Any:
            return read_json(self._http.request("GET", self._endpoint("computeEnvironments"), what), what)

        listed = environments_of(self.url, ask)
        if isinstance(listed, dict):
            listed = listed.get(str(self._chain_id), [])
        if not isinstance(listed, list):
            raise InvalidInputError(
                f"{what}: {self.url} answers with something that is no list of environments"
            )
        return [read_environment(entry) for entry in listed]

    def check_job(
        self, environment: ComputeEnvironment, terms: JobTerms, variables: dict[str, str] | None
    ) -> None:
        """See that a job is told nothing that only an Ocean Node offers, whatever the environment.

        :raises InvalidInputError: when it is
        """
        self._refuse_offers_of_nodes(terms, variables)

    def quote(
        self,
        datasets: list[AssetInput],
        algorithm: AssetInput,
        environment: ComputeEnvironment,
        valid_until: int,
        terms: JobTerms,
    ) -> JobQuote:
        """Ask what the inputs cost in an environment.

        :param valid_until: until when the environment is wanted, in seconds since 1970
        :param terms: mean nothing to a Provider beyond that; :meth:`check_job` refuses them
        :raises NotAllowedError: when the Provider refuses, with its reason
        """
        what = f"quoting {algorithm.did} on {', '.join(item.did for item in datasets)} in {environment.id}"
        body = {
            "datasets": [_asset(item) for item in datasets],
            "algorithm": _asset(algorithm),
            "compute": {"env": environment.id, "validUntil": valid_until},
            # Whom the orders must name.
            "consumerAddress": environment.consumer_address,
        }
        try:
            answer = read_json(
                self._http.request("POST", self._endpoint("initializeCompute"), what, json=body), what
            )
        except ServiceAnswerError as error:
            raise NotAllowedError(f"{what}: the Provider at {self.url} refuses: {error.text}") from error
        try:
            quoted = [_order_quote(*pair) for pair in zip(answer["datasets"], datasets, strict=True)]
            return JobQuote(quoted, _order_quote(answer["algorithm"], algorithm))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidInputError(f"{what}: {self.url} answers in an unknown form ({error!r})") from error

    # ------------------------------------------------------------------ jobs

    def start(self, request: JobRequest, announce: Callable[[], None] | None = None) -> Job:
        """Start a job on paid inputs; a Provider knows no labels.

        :param announce: called right before each request that may start it
        :raises InvalidInputError: when the request has what only an Ocean Node offers
        """
        self._refuse_offers_of_nodes(request.terms, request.variables)
        first, *more = request.datasets
        payload: dict[str, Any] = {
            "dataset": _asset(first),
            "algorithm": _asset(request.algorithm),
            "environment": request.environment,
            "consumerAddress": self._wallet.address,
        }
        if more:
            payload["additionalDatasets"] = [_asset(item) for item in more]
        if request.custom_data:
            payload["algorithm"]["algocustomdata"] = request.custom_data
        what = f"starting {request.algorithm.did} on {first.did} in {request.environment}"
        message = self._wallet.address + first.did
        answer = self._signed("POST", "computeStart", message, what, payload, announce)
        with reading_what_was_done():
            return _only_job(read_json(answer, what), what)

    def jobs(self) -> list[Job]:
        """List every job of the wallet, of all time: the service knows no paging."""
        return fetch_jobs(self.url, self._wallet.address, None, self._http)

    def job(self, job_id: str) -> Job:
        """Return one job.

        :raises JobNotFoundError: when the Provider knows no such job of this wallet
        """
        return select_job(fetch_jobs(self.url, self._wallet.address, job_id, self._http), job_id, self.url)

    def stop(self, job: Job) -> Job:
        """Ask for a job's end."""
        did = job.dataset_dids[0] if job.dataset_dids else ""
        payload = {"consumerAddress": self._wallet.address, "jobId": job.id, "documentId": did}
        what = f"stopping job {job.id}"
        answer = self._signed("PUT", "computeStop", self._wallet.address + job.id + did, what, payload)
        return _only_job(read_json(answer, what), what)

    @contextlib.contextmanager
    def open_result(self, job_id: str, index: int) -> Iterator[ResultStream]:
        """Open one result for reading."""
        what = f"fetching result {index} of job {job_id}"
        url = self._endpoint("computeResult")
        message = f"{self._wallet.address}{job_id}{index}"
        payload = {"consumerAddress": self._wallet.address, "jobId": job_id, "index": index}
        for attempt in range(1, SIGNING_ATTEMPTS + 1):
            with contextlib.ExitStack() as stack:
                try:
                    response = stack.enter_context(
                        self._http.stream("GET", url, what, params=self._sign(message, payload))
                    )
                except (ServiceAnswerError, ServiceUnavailableError) as error:
                    if isinstance(error, ServiceAnswerError) and error.status == 404:
                        raise JobNotFoundError(f"{what}: {error.text}") from error
                    if attempt == SIGNING_ATTEMPTS or not _is_nonce_error(error):
                        raise
                    time.sleep(random.uniform(0, 0.05 * 2**attempt))
                    continue
                length = response.headers.get("Content-Length")
                yield ResultStream(response.iter_bytes(256 * 1024), int(length) if length else None)
                return

    def _refuse_offers_of_nodes(self, terms: JobTerms, variables: dict[str, str] | None) -> None:
        if terms.resources or terms.queue_wait:
            raise InvalidInputError(
                f"the Provider at {self.url} lets nobody choose resources or a place in a queue, only an Ocean Node does; "
                "leave job_resources and queue_wait out"
            )
        if variables:
            raise InvalidInputError(
                f"the Provider at {self.url} gives algorithms no environment variables, only an Ocean Node does; hand over "
                "custom data instead"
            )


def read_endpoints(root: Any, url: str) -> dict[str, str]:
    """Read the paths of a Provider's services out of its root document.

    :raises InvalidInputError: when what answers is no Provider
    """
    try:
        return {name: str(path) for name, (_method, path) in root["serviceEndpoints"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInputError(
            f"{url} answers, but not as an Ocean Provider does; check provider_url"
        ) from error


def read_environment(entry: Any) -> ComputeEnvironment:
    """Read one entry of a Provider's environment list."""
    try:
        price = Decimal(str(entry.get("priceMin") or 0))
        if not price.is_finite() or price < 0:
            raise ValueError(f"priceMin {price}")
        return ComputeEnvironment(
            id=str(entry["id"]),
            consumer_address=parse_address(entry["consumerAddress"], "consumerAddress"),
            price_per_minute=price,
            fee_token=entry.get("feeToken"),
            max_job_duration=whole_number(entry, "maxJobDuration") if entry.get("maxJobDuration") else 0,
            cpu_number=int(entry.get("cpuNumber") or 0),
            ram_gb=int(entry.get("ramGB") or 0),
            description=str(entry.get("desc") or ""),
            raw=entry,
        )
    except (KeyError, TypeError, ValueError, InvalidOperation, AttributeError) as error:
        raise InvalidInputError(
            f"a compute environment is described in an unknown form ({error!r})"
        ) from error


def _is_nonce_error(error: Exception) -> bool:
    # A nonce that is too low is refused with 400, one that was used already with 503 when it is stored.
    return "nonce" in str(error).lower()


def _asset(item: AssetInput) -> dict[str, Any]:
    fields: dict[str, Any] = {"documentId": item.did, "serviceId": item.service_id}
    if item.order:
        fields["transferTxId"] = item.order
    if item.user_data:
        fields["userdata"] = item.user_data
    return fields


def _order_quote(entry: dict[str, Any], item: AssetInput) -> OrderQuote:
    valid_order, fee = entry.get("validOrder") or None, entry.get("providerFee")
    if valid_order is not None:
        check_offered(valid_order, item.order, item.started)
    elif not (isinstance(fee, dict) and entry.get("datatoken")):
        raise KeyError("datatoken, providerFee")
    if fee is not None:
        check_fee(fee)
    return OrderQuote(provider_fee=fee, valid_order=valid_order)


def _only_job(answer: Any, what: str) -> Job:
    entries = answer if isinstance(answer, list) else [answer]
    if not entries:
        raise UnreadableAnswerError(f"{what}: the Provider answers with an empty list of jobs")
    return parse_job(entries[0])
