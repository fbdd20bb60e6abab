"""Requests to Ocean's services: time-outs, typed errors, and nothing of a signature in any message."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import httpx

from airflow_ocean.c2d import retry_after
from airflow_ocean.c2d.errors import (
    InvalidInputError,
    NotAllowedError,
    RateLimitedError,
    ServiceAnswerError,
    ServiceUnavailableError,
    UnreadableAnswerError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

TIMEOUT = httpx.Timeout(30.0, connect=10.0)
# Ocean's services close a connection that was idle for some seconds, five with Node.js: a request must not meet that, and for
# a start nobody would know what became of it.
LIMITS = httpx.Limits(keepalive_expiry=2.0)
# No answer of a service but a result is ever larger; the longest, every job of a busy consumer, is 7 MB for 10,000.
MAX_ANSWER = 64 * 1024 * 1024
# What may be raised while an answer of another form than expected is taken apart.
MALFORMED = (InvalidInputError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def said(response: httpx.Response) -> str:
    """Return a service's error text, short, whichever of its forms it has."""
    try:
        body = response.json()
    except (ValueError, RecursionError):
        body = response.text
    if isinstance(body, dict):
        body = body.get("error") or body.get("errors") or body.get("message") or body
    text = body if isinstance(body, str) else json.dumps(body)
    return text[:500] + ("…" if len(text) > 500 else "")


def shown_url(url: str) -> str:
    """Return a service's URL as a message may show it: without user, password and query, which may hold secrets."""
    try:
        parts = urlsplit(url)
    except ValueError:  # none, but a service or an asset's metadata may say it
        return url.partition("?")[0].rpartition("@")[2]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def check(response: httpx.Response, what: str) -> None:
    """Raise the typed error that an answer stands for.

    :param what: what was tried, on what, for the message
    :raises RateLimitedError: on 429
    :raises ServiceUnavailableError: on 5xx, and on what else may pass
    :raises NotAllowedError: on 401 and 403
    :raises ServiceAnswerError: on every other answer that is not 2xx
    """
    if response.is_success:
        return
    message = f"{what}: {shown_url(str(response.url))} answers {response.status_code}: {said(response)}"
    if response.status_code == 429:
        raise RateLimitedError(message, retry_after=_retry_after(response))
    if is_passing(response):
        raise ServiceUnavailableError(message, retry_after=_retry_after(response))
    if response.status_code in (401, 403):
        raise NotAllowedError(message)
    raise ServiceAnswerError(message, response.status_code, said(response))


def is_passing(response: httpx.Response) -> bool:
    """Say whether an answer may be another when it is asked again: 5xx, a request that took too long or came too early."""
    return response.status_code >= 500 or response.status_code in (408, 425)


def unreachable(url: str, what: str, error: Exception) -> ServiceUnavailableError:
    """Return the error for a service that does not answer."""
    return ServiceUnavailableError(
        f"{what}: {shown_url(url)} does not answer ({type(error).__name__}); is it running?"
    )


@contextlib.contextmanager
def reading(what: str, problem: str) -> Iterator[None]:
    """Let whatever fails while a successful answer is taken apart be one error.

    :param problem: what it means, for the message
    :raises UnreadableAnswerError: when something does
    """
    try:
        yield
    except MALFORMED as error:
        reason = error if isinstance(error, InvalidInputError) else repr(error)
        raise UnreadableAnswerError(f"{what}: {problem} ({reason})") from error


def read_json(response: httpx.Response, what: str) -> Any:
    """Return the answer's JSON.

    :raises UnreadableAnswerError: when it is none
    """
    try:
        return response.json()
    except (ValueError, RecursionError) as error:
        raise UnreadableAnswerError(
            f"{what}: {response.url.host}:{response.url.port} answers with something that is not JSON ({error})"
        ) from error


@contextlib.contextmanager
def reading_what_was_done() -> Iterator[None]:
    """Read the answer to a request that was carried out: where it cannot be read, a retry has to look what was done.

    :raises ServiceUnavailableError: when the answer is not what a service gives
    """
    try:
        yield
    except UnreadableAnswerError as error:
        raise ServiceUnavailableError(
            f"{error}. It may be done all the same, so a retry looks first; does something between here and there change "
            "answers?"
        ) from error


@contextlib.contextmanager
def _typed_errors(url: str, what: str) -> Iterator[None]:
    """Turn what the HTTP library raises while it asks and reads into this package's errors."""
    try:
        yield
    except httpx.TransportError as error:
        raise unreachable(url, what, error) from error
    except httpx.DecodingError as error:
        raise UnreadableAnswerError(
            f"{what}: {shown_url(url)} answers with a body that is not encoded as its headers say ({error})"
        ) from error
    except httpx.InvalidURL as error:
        raise InvalidInputError(f"{what}: {shown_url(url)!r} is not a URL ({error})") from error


def _retry_after(response: httpx.Response) -> float | None:
    return retry_after.seconds(response.headers.get("Retry-After"))


class HttpSession:
    """One service's HTTP.

    :param check: raises the typed error that an answer stands for
    """

    def __init__(self, check: Callable[[httpx.Response, str], None] = check) -> None:
        self._http = httpx.Client(timeout=TIMEOUT, limits=LIMITS)
        self._check = check

    def request(
        self, method: str, url: str, what: str, announce: Callable[[], None] | None = None, **options: Any
    ) -> httpx.Response:
        """Send a request and return its successful answer, read whole.

        :param announce: called right before it is sent, when it may do something that is not to be done twice
        :raises ServiceUnavailableError: when nobody answers, or what comes cannot be read after it was announced
        :raises UnreadableAnswerError: when more comes than any service has to say, or something that cannot be read
        """
        if announce is None:
            return self._ask(method, url, what, options)
        announce()
        with reading_what_was_done():
            return self._ask(method, url, what, options)

    def _ask(self, method: str, url: str, what: str, options: dict[str, Any]) -> httpx.Response:
        with _typed_errors(url, what), self._http.stream(method, url, **options) as response:
            body = _read(response.iter_bytes(), url, what)
        return _checked(response, body, what, self._check)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @contextlib.contextmanager
    def stream(self, method: str, url: str, what: str, **options: Any) -> Iterator[httpx.Response]:
        """Send a request and yield its successful answer before the body is read."""
        with _typed_errors(url, what), self._http.stream(method, url, **options) as response:
            if not response.is_success:
                _checked(response, _read(response.iter_bytes(), url, what), what, self._check)
            yield response


class AsyncHttpSession:
    """One service's HTTP on an event loop.

    :param client: the connections to use; see :func:`open_async`
    :param check: as of :class:`HttpSession`
    """

    def __init__(
        self, client: httpx.AsyncClient, check: Callable[[httpx.Response, str], None] = check
    ) -> None:
        self._http = client
        self._check = check

    async def get(self, url: str, what: str, params: dict[str, str]) -> httpx.Response:
        """Do what :meth:`HttpSession.request` does."""
        with _typed_errors(url, what):
            async with self._http.stream("GET", url, params=params) as response:
                body = await _read_async(response.aiter_bytes(), url, what)
        return _checked(response, body, what, self._check)

    @contextlib.asynccontextmanager
    async def stream(
        self, url: str, what: str, params: dict[str, str], read_timeout: float | None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Send a request and yield the body of its successful answer as it comes.

        :param read_timeout: seconds that nothing may come, None for any number
        """
        timeout = httpx.Timeout(TIMEOUT.connect, read=read_timeout)
        with _typed_errors(url, what):
            async with self._http.stream("GET", url, params=params, timeout=timeout) as response:
                if not response.is_success:
                    body = await _read_async(response.aiter_bytes(), url, what)
                    _checked(response, body, what, self._check)
                yield response.aiter_bytes()


@contextlib.asynccontextmanager
async def open_async(
    check: Callable[[httpx.Response, str], None] = check,
) -> AsyncIterator[AsyncHttpSession]:
    """Open a session on the running event loop."""
    # In a thread, as it reads all certificates of the system from the disk.
    client = await asyncio.to_thread(httpx.AsyncClient, timeout=TIMEOUT, limits=LIMITS)
    async with client:
        yield AsyncHttpSession(client, check)


def _read(chunks: Iterator[bytes], url: str, what: str) -> bytearray:
    body = bytearray()
    for chunk in chunks:
        _append(body, chunk, url, what)
    return body


async def _read_async(chunks: AsyncIterator[bytes], url: str, what: str) -> bytearray:
    body = bytearray()
    async for chunk in chunks:
        _append(body, chunk, url, what)
    return body


def _append(body: bytearray, chunk: bytes, url: str, what: str) -> None:
    body += chunk
    if len(body) > MAX_ANSWER:
        raise UnreadableAnswerError(f"{what}: {shown_url(url)} answers with more than {MAX_ANSWER} bytes")


def _checked(
    response: httpx.Response, body: bytearray, what: str, check: Callable[[httpx.Response, str], None]
) -> httpx.Response:
    """Return an answer that was read as a stream, with its body; raises what ``check`` does."""
    answer = httpx.Response(
        response.status_code,
        headers=_decoded(response.headers),
        content=bytes(body),
        request=response.request,
    )
    check(answer, what)
    return answer


def _decoded(headers: httpx.Headers) -> dict[str, str]:
    return {
        name: value for name, value in headers.items() if name not in ("content-encoding", "content-length")
    }
