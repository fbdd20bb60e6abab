"""The HTTP application: which endpoint is where, how requests are checked, and how failures are answered."""

from __future__ import annotations

import logging
import re
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response

from include.localnet.ethereum import RpcError
from include.localnet.provider import compute, consume, encryption, rules, tokens
from include.localnet.provider.calls import Call
from include.localnet.provider.configuration import VERSION, Configuration, Provider
from include.localnet.provider.errors import Refused, Unavailable, ValidationFailed, error_body, without_urls
from include.localnet.provider.nonces import NonceTooLow, NonceUsed
from include.localnet.provider.signatures import RequestAuthority
from include.localnet.provider.validation import Rules, validate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

logger = logging.getLogger(__name__)

_PREFIX = "/api/services"
_STATUS_TEXTS = {
    404: "404 Not Found: The requested URL was not found on the server. If you entered the URL manually please "
    "check your spelling and try again.",
    405: "405 Method Not Allowed: The method is not allowed for the requested URL.",
}


@dataclass(frozen=True)
class Endpoint:
    """One endpoint.

    :param name: what clients look it up by in ``GET /``
    :param operator: whether it is there only when the Provider has an operator-service
    """

    name: str
    method: str
    path: str
    handler: Callable[[Provider, Call], Response]
    rules: Rules | None = None
    operator: bool = False


ENDPOINTS = (
    Endpoint("nonce", "GET", "/nonce", consume.nonce, rules.NONCE),
    Endpoint("encrypt", "POST", "/encrypt", encryption.encrypt),
    Endpoint("decrypt", "POST", "/decrypt", encryption.decrypt, rules.DECRYPT),
    Endpoint("fileinfo", "POST", "/fileinfo", consume.fileinfo, rules.FILE_INFO),
    Endpoint("initialize", "GET", "/initialize", consume.initialize, rules.INITIALIZE),
    Endpoint("download", "GET", "/download", consume.download, rules.DOWNLOAD),
    Endpoint(
        "initializeCompute",
        "POST",
        "/initializeCompute",
        compute.initialize_compute,
        rules.INITIALIZE_COMPUTE,
    ),
    Endpoint("computeEnvironments", "GET", "/computeEnvironments", compute.compute_environments, None, True),
    Endpoint("computeStart", "POST", "/compute", compute.compute_start, rules.COMPUTE_START, True),
    Endpoint("computeStatus", "GET", "/compute", compute.compute_status, rules.COMPUTE_STATUS, True),
    Endpoint("computeStop", "PUT", "/compute", compute.compute_change, rules.COMPUTE, True),
    Endpoint("computeDelete", "DELETE", "/compute", compute.compute_change, rules.COMPUTE, True),
    Endpoint("computeResult", "GET", "/computeResult", compute.compute_result, rules.COMPUTE_RESULT, True),
    Endpoint("createAuthToken", "GET", "/createAuthToken", tokens.create_auth_token, rules.CREATE_TOKEN),
    Endpoint("deleteAuthToken", "DELETE", "/deleteAuthToken", tokens.delete_auth_token, rules.DELETE_TOKEN),
    Endpoint("validateContainer", "POST", "/validateContainer", compute.validate_container),
)


def _serve(provider: Provider, endpoint: Endpoint, call: Call) -> Response:
    """Check a request and handle it; every failure becomes an answer."""
    try:
        if endpoint.rules is not None:
            validate(endpoint.rules, call.data, RequestAuthority(provider, call.headers.get("authtoken")))
        return endpoint.handler(provider, call)
    except Refused as refusal:
        # The first line only: what follows it may repeat the request, with the consumer's own secrets.
        logger.info("%s refused: %s", endpoint.name, without_urls(str(refusal.error).split("\n")[0]))
        return JSONResponse(error_body(refusal.error), refusal.status)
    except ValidationFailed as failure:
        logger.info("%s: wrong fields: %s", endpoint.name, failure)
        body = {"message": "Validation error", "errors": failure.errors, "success": False}
        return JSONResponse(body, 400)
    except NonceTooLow as error:  # another request was faster between check and claim
        body = {"message": "Validation error", "errors": {"signature": str(error)}, "success": False}
        return JSONResponse(body, 400)
    except (Unavailable, NonceUsed) as error:
        return _unavailable(endpoint.name, str(error), call)
    except (httpx.HTTPError, RpcError) as error:
        text = f"The chain did not answer as it should ({type(error).__name__}): check RPC_URL."
        return _unavailable(endpoint.name, text, call)
    except Exception as error:  # the last resort of upstream, too: a sentence instead of a stack trace
        # Frames only: the message of an unforeseen error may quote a file's URL.
        frames = "".join(traceback.format_tb(error.__traceback__))
        logger.error("%s failed with %s at\n%s", endpoint.name, type(error).__name__, frames)
        return _unavailable(endpoint.name, f"{type(error).__name__} in the Provider: see its log.", call)


def _unavailable(name: str, text: str, call: Call) -> Response:
    hidden = without_urls(text)
    logger.warning("%s: %s", name, hidden)
    return JSONResponse({"error": hidden, "context": call.data}, 503)


class SingleSlashes:
    """Joins repeated slashes of a path: upstream's compute engine asks for ``//api/services/…``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on the request with its path cleaned."""
        if scope["type"] == "http" and "//" in scope["path"]:
            scope = {**scope, "path": re.sub("/{2,}", "/", scope["path"])}
        await self._app(scope, receive, send)


async def _routing_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 503
    call = await Call.of(request)
    text = _STATUS_TEXTS.get(status, str(error))
    return JSONResponse({"error": text, "context": call.data or None}, status)


def _route(provider: Provider, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        if endpoint.operator and not provider.operator.url:
            raise HTTPException(404)
        call = await Call.of(request)
        return await run_in_threadpool(_serve, provider, endpoint, call)

    return handle


def _root(provider: Provider) -> Callable[[], Awaitable[Response]]:
    async def root() -> Response:
        """Answer who the Provider is and where its endpoints are."""
        try:
            chain_id = await run_in_threadpool(lambda: provider.chain.chain_id)
        except (httpx.HTTPError, RpcError, ValueError) as error:
            text = f"The chain did not answer ({type(error).__name__}): check RPC_URL."
            return JSONResponse({"error": text, "context": None}, 503)
        endpoints: dict[str, Any] = {e.name: [e.method, _PREFIX + e.path] for e in ENDPOINTS}
        return JSONResponse(
            {
                "chainIds": [chain_id],
                "providerAddresses": {str(chain_id): provider.address},
                "serviceEndpoints": endpoints,
                "software": "Provider",
                "version": VERSION,
            }
        )

    return root


def build_app(configuration: Configuration) -> FastAPI:
    """Return the application of one Provider."""
    provider = Provider(configuration)
    app = FastAPI(
        title="Provider",
        version=VERSION,
        description="Ocean Provider: extended data services of a data provider.",
        openapi_url="/spec",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.add_api_route("/", _root(provider), methods=["GET", "HEAD"], include_in_schema=False)
    for endpoint in ENDPOINTS:
        app.add_api_route(
            _PREFIX + endpoint.path,
            _route(provider, endpoint),
            methods=[endpoint.method],
            name=endpoint.name,
            description=endpoint.handler.__doc__,
            operation_id=endpoint.name,
        )
    app.add_exception_handler(HTTPException, _routing_error)
    # Web apps of any origin use a Provider, as upstream allows.
    app.add_middleware(
        CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"], expose_headers=["*"]
    )
    app.add_middleware(SingleSlashes)
    return app
