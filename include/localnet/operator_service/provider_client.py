"""HTTP from the engine to Providers and metadata caches, and the signatures that go with it."""

from __future__ import annotations

import json
import threading
import time
from typing import Any
from urllib.parse import urljoin

import httpx
from eth_account import Account

from include.localnet.ethereum import sign_message

_TIMEOUT = httpx.Timeout(60, connect=10)
_LONGEST_ANSWER = 4 * 1024 * 1024


class ProvisioningFailed(Exception):
    """Something can't be fetched; the text says what, from where and why, as a clause."""


class Unreachable(ProvisioningFailed):
    """Nobody answers there, or not to the end: killed perhaps, and soon back."""


class ProviderClient:
    """Downloads in the name of the environment's consumer account.

    :param private_key: the account's; orders of compute assets name its address as consumer
    """

    def __init__(self, private_key: str) -> None:
        self._key = private_key
        self.address: str = Account.from_key(private_key).address
        # This machine is never behind a proxy, whatever the environment says of others.
        direct = dict.fromkeys(("all://127.0.0.1", "all://localhost", "all://[::1]"))
        self._http = httpx.Client(timeout=_TIMEOUT, follow_redirects=True, mounts=direct)
        self._signing = threading.Lock()
        self._nonce = 0

    def endpoint(self, provider: str, name: str) -> tuple[str, str]:
        """Return method and URL of a Provider's endpoint, as it says itself.

        :raises ProvisioningFailed: when it says nothing of it
        """
        answer = self.json("GET", provider)
        endpoints = answer.get("serviceEndpoints", {}) if isinstance(answer, dict) else {}
        found = endpoints.get(name)
        if not isinstance(found, list) or len(found) != 2:
            raise ProvisioningFailed(f"the Provider at {provider} names no endpoint {name!r}")
        return str(found[0]), urljoin(provider, str(found[1]))

    def json(self, method: str, url: str, body: object = None) -> Any:
        """Return the JSON of an answer.

        :raises Unreachable: when nobody answers
        :raises ProvisioningFailed: when there is none, or it is longer than any such answer
        """
        content = b""
        try:
            with self._http.stream(method, url, json=body) as answer:
                for part in answer.iter_bytes():
                    content += part
                    if len(content) > _LONGEST_ANSWER:
                        raise ProvisioningFailed(f"{method} {url} answered more than {_LONGEST_ANSWER} bytes")
            if answer.status_code != 200:
                raise ProvisioningFailed(f"{method} {url} answered {answer.status_code}: {excerpt(content)}")
            return json.loads(content)
        except httpx.TransportError as error:
            raise Unreachable(f"{method} {url} failed: {error or type(error).__name__}") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ProvisioningFailed(f"{method} {url} failed: {error or type(error).__name__}") from error
        except ValueError as error:
            raise ProvisioningFailed(f"{method} {url} answered no JSON") from error

    def open_url(self, url: str) -> httpx.Response:
        """Request a URL and return the answer unread."""
        return self._http.send(self._http.build_request("GET", url), stream=True)

    def open_download(self, url: str, did: str, parameters: dict[str, Any]) -> httpx.Response:
        """Send a signed download request to a Provider and return the answer unread.

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
            return self._http.send(self._http.build_request("GET", url, params=signed), stream=True)


def excerpt(content: bytes) -> str:
    """Return the beginning of an answer for a log."""
    return content[:300].decode(errors="replace").strip()
