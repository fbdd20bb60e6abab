"""The HTTP application: which endpoint is where, and how its failures are answered."""

from __future__ import annotations

import functools
import logging
import traceback
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from include.localnet.ethereum import RpcError
from include.localnet.node import compute, consume, metadata, starting
from include.localnet.node.answers import HEADERS, Refused, json_answer, not_found, text_answer
from include.localnet.node.calls import Call
from include.localnet.node.endpoints import SERVICE_ENDPOINTS
from include.localnet.node.identity import peer_id, public_key
from include.localnet.node.rate_limit import RateLimit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.responses import Response

    from include.localnet.node.configuration import Node
    from include.localnet.node.engine import Engine
    from include.localnet.node.indexing import NodeIndexer

    Handler = Callable[[Call], Response]

logger = logging.getLogger(__name__)

_SERVICES, _AQUARIUS = "/api/services", "/api/aquarius"


def _routes(node: Node, engine: Engine) -> dict[tuple[str, str], Handler]:
    """Return the endpoints' handlers by method and path."""
    plain: dict[tuple[str, str], Callable[[Node, Call], Response]] = {
        ("GET", f"{_SERVICES}/nonce"): metadata.nonce,
        ("POST", f"{_SERVICES}/encrypt"): metadata.encrypt,
        ("POST", f"{_SERVICES}/decrypt"): metadata.decrypt,
        ("POST", f"{_SERVICES}/auth/token"): metadata.create_token,
        ("POST", f"{_SERVICES}/auth/token/invalidate"): metadata.invalidate_token,
        ("GET", f"{_SERVICES}/escrow/events"): metadata.escrow_events,
        ("POST", f"{_SERVICES}/fileInfo"): consume.file_info,
        ("GET", f"{_SERVICES}/initialize"): consume.initialize,
        ("GET", f"{_SERVICES}/download"): consume.download,
        ("GET", f"{_SERVICES}/computeEnvironments"): compute.environments,
        ("GET", f"{_AQUARIUS}/assets/ddo/{{did}}"): metadata.ddo,
        ("GET", f"{_AQUARIUS}/assets/ddo/{{did}}/{{force}}"): metadata.ddo,
        ("GET", f"{_AQUARIUS}/assets/metadata/{{did}}"): metadata.ddo,
        ("GET", f"{_AQUARIUS}/assets/metadata/{{did}}/{{force}}"): metadata.ddo,
        ("POST", f"{_AQUARIUS}/assets/metadata/query"): metadata.query,
        ("POST", f"{_AQUARIUS}/assets/ddo/validate"): metadata.validate,
        ("GET", f"{_AQUARIUS}/state/ddo"): metadata.state,
    }
    running: dict[tuple[str, str], Callable[[Node, Engine, Call], Response]] = {
        ("POST", f"{_SERVICES}/initializeCompute"): starting.initialize_compute,
        ("POST", f"{_SERVICES}/compute"): starting.start_paid,
        ("POST", f"{_SERVICES}/freeCompute"): starting.start_free,
        ("GET", f"{_SERVICES}/compute"): compute.status,
        ("PUT", f"{_SERVICES}/compute"): compute.stop,
        ("DELETE", f"{_SERVICES}/compute"): compute.delete,
        ("GET", f"{_SERVICES}/computeResult"): compute.result,
        ("GET", f"{_SERVICES}/computeStreamableLogs"): compute.streamable_logs,
    }
    handlers: dict[tuple[str, str], Handler] = {
        key: functools.partial(handle, node) for key, handle in plain.items()
    }
    handlers |= {key: functools.partial(handle, node, engine) for key, handle in running.items()}
    handlers["GET", "/"] = lambda _call: json_answer(_description(node))
    handlers["GET", f"{_SERVICES}/indexQueue"] = lambda _call: json_answer({"queue": []})
    return handlers


def _description(node: Node) -> dict[str, Any]:
    key = public_key(node.private_key)
    return {
        "nodeId": peer_id(node.private_key),
        "chainIds": [str(node.chain.chain_id)],
        "providerAddress": node.address,
        "nodePublicKey": {str(index): byte for index, byte in enumerate(key)},
        "serviceEndpoints": SERVICE_ENDPOINTS,
        "software": "Ocean-Node",
        "version": "0.0.1",  # of every release
    }


def _answer(handle: Handler, call: Call, *, json_errors: bool) -> Response:
    """Handle a request; every failure becomes an answer."""
    refuse = json_answer if json_errors else text_answer
    try:
        return handle(call)
    except Refused as refusal:
        logger.info("refused with %s: %s", refusal.status, refusal.text.split("\n")[0])
        return refuse(refusal.text, refusal.status)
    except (httpx.HTTPError, RpcError) as error:
        logger.warning("the chain did not answer as it should: %s", error)
        return refuse(f"could not coalesce error ({type(error).__name__} of the chain: check RPC_URL)", 500)
    except Exception as error:  # upstream's last resort, too
        # Frames only: the message of an unforeseen error may quote a file's URL.
        frames = "".join(traceback.format_tb(error.__traceback__))
        logger.error("failed with %s at\n%s", type(error).__name__, frames)
        return refuse("Internal Server Error", 500)


def _endpoint(handle: Handler, *, json_errors: bool) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            call = await Call.of(request)
        except Refused as refusal:
            return text_answer(refusal.text, refusal.status)
        return await run_in_threadpool(_answer, handle, call, json_errors=json_errors)

    return endpoint


async def _routing_error(request: Request, _error: Exception) -> Response:
    return not_found(request.method, request.url.path)


def build_app(node: Node, engine: Engine, indexer: NodeIndexer) -> FastAPI:
    """Return the application; its engine and its indexer run while it does."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        indexer.start()
        await run_in_threadpool(engine.start)
        yield
        await run_in_threadpool(engine.close)
        await run_in_threadpool(indexer.stop)

    app = FastAPI(lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    limit = RateLimit(node.configuration.rate_limit)

    @app.middleware("http")
    async def _limited(request: Request, handle: Callable[[Request], Awaitable[Response]]) -> Response:
        client = request.headers.get("x-forwarded-for") or (request.client.host if request.client else "")
        refusal = limit.refusal(client)
        answer = text_answer(refusal, 429) if refusal else await handle(request)
        answer.headers.update(HEADERS)
        return answer

    app.add_exception_handler(HTTPException, _routing_error)
    for (method, path), handle in _routes(node, engine).items():
        json_errors = method == "POST" and path in (f"{_SERVICES}/compute", f"{_SERVICES}/freeCompute")
        app.add_api_route(
            path, _endpoint(handle, json_errors=json_errors), methods=[method], response_model=None
        )
    return app
