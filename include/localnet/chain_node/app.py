"""JSON-RPC over HTTP: sorts reads from changes and answers single calls and batches."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from aiohttp import web

from include.localnet.chain_node.methods import Effect, effect_of

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

    from include.localnet.chain_node.ledger import Call, Ledger

log = logging.getLogger(__name__)

_LARGEST_REQUEST = 2 * 1024 * 1024  # bytes, as anvil's own
_KEEP_ALIVE = 3600  # seconds; anvil never closes a connection, and clients may not expect it
# Wallets and market places in a browser are pages of another origin.
_CROSS_ORIGIN = {"access-control-allow-origin": "*"}


def _calls_in(body: bytes) -> list[Call] | None:
    """Return the calls in a request, None when it is not well-formed."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    calls = content if isinstance(content, list) else [content]
    sound = all(isinstance(call, dict) and isinstance(call.get("method"), str) for call in calls)
    return calls if sound else None


@web.middleware
async def _hang_up(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Cut the connection when there is no answer, as a node does that is killed.

    Without anvil, or when a change could not be kept, this process is about to end. An answer in HTTP's terms would be
    one that no Ethereum client expects.
    """
    try:
        return await handler(request)
    except web.HTTPException:
        raise
    except Exception as error:
        log.warning("a request was cut off: %r", error)
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=503)


def make_app(ledger: Ledger) -> web.Application:
    """Return the HTTP application in front of a chain."""

    async def answer(request: web.Request) -> web.Response:
        body = await request.read()
        calls = _calls_in(body)
        # What is not well-formed anvil refuses in its own words.
        if calls is None or all(effect_of(call["method"]) is Effect.NONE for call in calls):
            status, content = await ledger.read(body, request.headers.get("content-type", ""))
            return _response(content, status)
        answers = [await _one(call) for call in calls]
        wanted = [given for call, given in zip(calls, answers, strict=True) if "id" in call]
        if not wanted:
            return web.Response(status=204, headers=_CROSS_ORIGIN)
        batch = body.lstrip().startswith(b"[")
        return _response(json.dumps(wanted if batch else wanted[0]).encode())

    async def _one(call: Call) -> Any:
        if effect_of(call["method"]) is not Effect.NONE:
            return await ledger.carry_out(call)
        _, content = await ledger.read(json.dumps(call).encode(), "application/json")
        return json.loads(content) if content else None

    async def allow(request: web.Request) -> web.Response:
        asked = request.headers.get("access-control-request-headers", "content-type")
        allowed = {"access-control-allow-methods": "POST", "access-control-allow-headers": asked}
        return web.Response(headers=_CROSS_ORIGIN | allowed)

    app = web.Application(client_max_size=_LARGEST_REQUEST, middlewares=[_hang_up])
    app.router.add_post("/", answer)
    app.router.add_options("/", allow)
    return app


def _response(content: bytes, status: int = 200) -> web.Response:
    return web.Response(
        body=content,
        status=status,
        content_type="application/json" if content else None,
        headers=_CROSS_ORIGIN,
    )


def make_runner(app: web.Application) -> web.AppRunner:
    """Return what serves the application; at its end it waits two seconds for what is being answered."""
    return web.AppRunner(app, access_log=None, keepalive_timeout=_KEEP_ALIVE, shutdown_timeout=2)
