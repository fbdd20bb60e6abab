"""Client of the operator-service, which runs the compute jobs."""

from __future__ import annotations

import time
from typing import Any

import httpx
from eth_account import Account
from eth_account.messages import encode_defunct
from eth_utils import keccak

from include.localnet.provider.errors import Unavailable
from include.localnet.provider.web import client_of

_COMPUTE = "/api/v1/operator/compute"
_RESULT = "/api/v1/operator/getResult"
_ENVIRONMENTS = "/api/v1/operator/environments"
_HEADERS = {"Content-Type": "application/json"}


class OperatorService:
    """The operator-service behind one URL, asked in the name of this Provider.

    :param url: empty when the Provider offers no compute
    """

    def __init__(self, url: str, private_key: str) -> None:
        self.url = url
        self._key = private_key
        self.provider_address: str = Account.from_key(private_key).address
        self._http = client_of(30.0)

    def _signed(self, message: str) -> dict[str, Any]:
        """Return nonce and signature as upstream sends them: nanoseconds, and a recovery id of 0 or 1."""
        nonce = time.time_ns()
        digest = keccak(text=f"{message}{nonce}")
        signature = bytes(Account.sign_message(encode_defunct(digest), self._key).signature)
        return {
            "providerSignature": "0x" + (signature[:64] + bytes([signature[64] - 27])).hex(),
            "nonce": nonce,
        }

    def _unavailable(self, error: Exception) -> Unavailable:
        return Unavailable(
            f"The operator-service did not answer ({type(error).__name__}): check that it runs and that "
            "OPERATOR_SERVICE_URL is right."
        )

    def environments(self, chain_id: int) -> list[dict[str, Any]]:
        """Return the compute environments of a chain.

        :raises Unavailable: when they cannot be had, in upstream's words
        """
        try:
            response = self._http.get(
                self.url + _ENVIRONMENTS, params={"chainId": chain_id}, headers=_HEADERS
            )
            listed = response.json() if response.is_success else None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError):
            listed = None
        if not isinstance(listed, list):
            raise Unavailable(
                f"Compute envs could not be retrieved for chainId {chain_id}, check configuration."
            )
        return listed

    def start(self, job: dict[str, Any]) -> httpx.Response:
        """Hand over a job; the Provider's address, nonce and signature are added.

        :raises Unavailable: when the operator-service does not answer
        """
        payload = {**job, "providerAddress": self.provider_address, **self._signed(job["owner"])}
        try:
            return self._http.post(self.url + _COMPUTE, json=payload, headers=_HEADERS)
        except httpx.HTTPError as error:
            raise self._unavailable(error) from error

    def jobs(self, method: str, owner: str, job_id: Any, document_id: Any) -> httpx.Response:
        """Ask for (GET), stop (PUT) or delete (DELETE) an owner's jobs, or one of them.

        :raises Unavailable: when the operator-service does not answer
        """
        asked = {"owner": owner, "jobId": job_id, "documentId": document_id}
        parameters = {
            "providerAddress": self.provider_address,
            **{key: str(value) for key, value in asked.items() if value is not None},
            **self._signed(f"{owner}{job_id}" if job_id else owner),
        }
        try:
            return self._http.request(method, self.url + _COMPUTE, params=parameters, headers=_HEADERS)
        except httpx.HTTPError as error:
            raise self._unavailable(error) from error

    def result(self, owner: str, job_id: str, index: str, signature: Any, byte_range: str) -> httpx.Response:
        """Open one result of a job as a stream, which the caller closes.

        :param signature: the consumer's signature, handed on
        :param byte_range: ``Range`` header of the request, or empty
        :raises Unavailable: when the operator-service does not answer
        """
        parameters = {"index": index, "owner": owner, "jobId": job_id, **self._signed(f"{owner}{job_id}")}
        if signature:
            parameters["consumerSignature"] = str(signature)
        headers = {"Accept-Encoding": "identity", **({"Range": byte_range} if byte_range else {})}
        request = self._http.build_request("GET", self.url + _RESULT, params=parameters, headers=headers)
        try:
            return self._http.send(request, stream=True)
        except httpx.HTTPError as error:
            raise self._unavailable(error) from error
