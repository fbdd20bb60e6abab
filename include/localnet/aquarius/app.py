"""The HTTP API: upstream's paths, payloads, status codes and error texts."""

from __future__ import annotations

import json
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from include.localnet.aquarius import VERSION
from include.localnet.aquarius.documents import load_json
from include.localnet.aquarius.matching import QueryError
from include.localnet.aquarius.search import INDEX, Search, UnknownArgumentError
from include.localnet.aquarius.shapes import CURRENT_VERSION, VERSIONS, describe, shape_of
from include.localnet.aquarius.validation import UnknownSchemaError, signed_verdict, validation_errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from include.localnet.aquarius.indexer import Indexer
    from include.localnet.aquarius.store import Store

log = logging.getLogger(__name__)

# Bytes; more than any transaction can carry.
_MAX_BODY = 8 * 1024 * 1024
_NOT_A_DICT = "Invalid payload. The request could not be converted into a dict."
_STATUS = "Elasticsearch connected"


class Json(JSONResponse):
    """JSON that also carries texts which are not valid Unicode."""

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return json.dumps(content, separators=(",", ":")).encode()


def failure(status: int, error: str) -> Json:
    """Return an error in upstream's form."""
    return Json({"error": error}, status)


async def read_body(request: Request) -> bytes:
    """Return a request's body, up to a limit."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY:
            raise HTTPException(413, f"The request's body is larger than {_MAX_BODY} bytes.")
    return bytes(body)


async def read_payload(request: Request) -> Any:
    """Return the query parameters when there are any, else the JSON body, as upstream does."""
    if request.query_params:
        return dict(request.query_params)
    return await read_json(request)


async def read_json(request: Request) -> Any:
    """Return the JSON body."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise HTTPException(
            415,
            "Did not attempt to load JSON data because the request Content-Type was not 'application/json'.",
        )
    try:
        return load_json(await read_body(request))
    except ValueError as error:
        raise HTTPException(400, f"Failed to decode JSON object: {error}") from error


class Api:
    """The endpoints.

    :param private_key: Aquarius' key, which signs validations
    """

    def __init__(self, store: Store, private_key: str) -> None:
        self._store = store
        self._key = private_key

    def _document(self, did: Any) -> dict[str, Any] | None:
        if not isinstance(did, str):
            return None
        try:
            did.encode()
        except UnicodeEncodeError:
            return None
        stored = self._store.asset(did)
        return stored.document if stored else None

    # --- /api/aquarius/assets --------------------------------------------------------------------

    def ddo(self, did: str) -> Response:
        """Get the DDO of an asset."""
        document = self._document(did)
        if document is None:
            return failure(404, f"Asset DID {did} not found in Elasticsearch.")
        return Json(document)

    def metadata(self, did: str) -> Response:
        """Get the metadata of an asset."""
        document = self._document(did)
        if document is None:
            reason = f"NotFoundError(404, {str({'_index': INDEX, '_id': did, 'found': False})!r})"
        elif "metadata" not in document:
            reason = "'metadata'"
        else:
            return Json(document["metadata"])
        return failure(404, f"Error encountered while retrieving metadata: {reason}.")

    async def names(self, request: Request) -> Response:
        """Get the names of assets."""
        data = await read_payload(request)
        if not isinstance(data, dict):
            return failure(400, _NOT_A_DICT)
        if "didList" not in data:
            return failure(400, "`didList` is required in the request payload.")
        dids = data["didList"]
        if not dids:
            return failure(400, "The requested didList can not be empty.")
        if not isinstance(dids, list):
            return failure(400, "The didList must be a list.")
        return Json(await run_in_threadpool(self._names, dids))

    def _names(self, dids: list[Any]) -> dict[str, str]:
        documents = {did if isinstance(did, str) else json.dumps(did): self._document(did) for did in dids}
        # JSON-LD allows metadata to be a list of one; upstream finds no name in it either.
        metadata = {did: (found or {}).get("metadata") for did, found in documents.items()}
        return {
            did: found.get("name", "") if isinstance(found, dict) else "" for did, found in metadata.items()
        }

    async def query(self, request: Request) -> Response:
        """Search with an Elasticsearch query."""
        data = await read_json(request)
        if not isinstance(data, dict):
            return failure(400, _NOT_A_DICT)
        try:
            search = Search(data)
            answer = await run_in_threadpool(search.run, self._store.documents(), self._document)
        except (QueryError, UnknownArgumentError) as error:
            # Upstream answers the same text with 500, though it is the query that is wrong.
            return failure(400, f"Encountered Elasticsearch Exception: {error}")
        return Json(answer)

    async def validate(self, request: Request) -> Response:
        """Validate a DDO and sign it."""
        if request.headers.get("content-type") != "application/octet-stream":
            return failure(400, "Invalid request content type: should be application/octet-stream")
        raw = await read_body(request)
        try:
            ddo = load_json(raw)
        except ValueError:
            ddo = None
        if not isinstance(ddo, dict):
            return failure(400, _NOT_A_DICT)
        if not ddo.get("version"):
            return Json([{"message": "no version provided for DDO."}], 400)
        return await run_in_threadpool(self._verdict, ddo, raw)

    def _verdict(self, ddo: dict[str, Any], raw: bytes) -> Response:
        try:
            errors = validation_errors(ddo, ddo.get("chainId", ""), ddo.get("nftAddress", ""))
        except UnknownSchemaError as error:
            return failure(500, f"Encountered error when validating asset: {error}.")
        if errors:
            return Json({"errors": errors}, 400)
        return Json(signed_verdict(raw, self._key))

    async def trigger_caching(self, request: Request) -> Response:
        """Queue a transaction whose events are to be indexed."""
        data = await read_payload(request)
        if not isinstance(data, dict):
            return failure(400, _NOT_A_DICT)
        transaction, chain_id = data.get("transactionId"), data.get("chain_id")
        if not transaction or not chain_id:
            return failure(400, "Invalid transactionId or chain_id")
        try:
            log_index = int(data.get("logIndex", 0))
        except (TypeError, ValueError, OverflowError) as error:
            return failure(400, f"Encountered error when triggering caching: {error}.")
        element: dict[str, Any] = {"type": "tx", "chain_id": chain_id, "data": {"txId": str(transaction)}}
        if log_index:
            element["data"]["log_index"] = log_index
        await run_in_threadpool(self._queue, element)
        return Response("Queued", media_type="application/json")

    def _queue(self, element: dict[str, Any]) -> None:
        with self._store.transaction() as connection:
            self._store.put_retry(connection, element)

    # --- /api/aquarius/chains, state, validation -------------------------------------------------

    def chains(self) -> Response:
        """Get the list of chains."""
        status = self._store.chain_status()
        return Json({str(status[0]): True}) if status else failure(404, "No chains found.")

    def chain_status(self, chain_id: str) -> Response:
        """Get how far a chain is indexed."""
        status = self._store.chain_status()
        if status is None or str(status[0]) != chain_id:
            return failure(404, f"Chain {chain_id} is not indexed.")
        return Json(status[1])

    def did_state(self, request: Request) -> Response:
        """Get what came of the last metadata event of an asset."""
        given = request.query_params
        nft, transaction, did = given.get("nft"), given.get("txId"), given.get("did")
        if not nft and not transaction and not did:
            return failure(400, "You need to specify one of: nft, txId, did")
        state = self._store.did_state(given.get("chainId"), nft, transaction, did)
        return Json(state) if state else failure(500, "Encountered error : list index out of range.")

    def retry_queue(self, request: Request) -> Response:
        """Get the events that wait to be tried again."""
        given = request.query_params
        elements = self._store.retry_queue(
            given.get("chainId"), given.get("nft"), given.get("did"), given.get("type")
        )
        hits = [
            {"_index": f"{INDEX}_retries", "_id": each["id"], "_score": 1.0, "_source": each}
            for each in elements
        ]
        return Json(
            {
                "took": 0,
                "timed_out": False,
                "_shards": {"total": 1, "successful": 1, "skipped": 0, "failed": 0},
                "hits": {
                    "total": {"value": len(hits), "relation": "eq"},
                    "max_score": 1.0 if hits else None,
                    "hits": hits,
                },
            }
        )

    def schema(self, version: str = CURRENT_VERSION) -> Response:
        """Get the rules for DDOs of a version."""
        if version not in VERSIONS:
            return Json({"erorr": "Schema version not found."}, 404)  # upstream's spelling
        return Json(describe(shape_of(version)))


def _version() -> Response:
    """Get software and version."""
    return Json({"plugin": "module", "software": "Aquarius", "version": VERSION})


def _health() -> Response:
    """Get whether the database answers."""
    return PlainTextResponse(_STATUS)


async def _refusal(_request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        log.error("a request failed", exc_info=error)
        return failure(500, f"Encountered error : {error!r}.")
    return Json({"error": error.detail}, error.status_code, headers=error.headers)


def _describe(app: FastAPI) -> dict[str, Any]:
    description = get_openapi(title="Aquarius", version="1.0", routes=app.routes)
    description["info"] |= {
        "description": "Aquarius keeps the metadata of data assets off the chain.",
        "connected": [_STATUS, 200],
    }
    return description


def create_app(store: Store, private_key: str, indexer: Indexer) -> FastAPI:
    """Return the application; its indexer runs while it does."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        indexer.start()
        yield
        await run_in_threadpool(indexer.stop)

    app = FastAPI(
        lifespan=lifespan, openapi_url="/spec", docs_url="/api/docs", redoc_url=None, redirect_slashes=False
    )
    app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"])
    app.add_exception_handler(HTTPException, _refusal)
    app.add_exception_handler(Exception, _refusal)
    app.openapi = lambda: _describe(app)  # type: ignore[method-assign]
    api = Api(store, private_key)
    get, post, both = ["GET"], ["POST"], "/api/aquarius"
    for path, endpoint, methods in (
        ("/", _version, get),
        ("/health", _health, get),
        (f"{both}/assets/ddo/{{did}}", api.ddo, get),
        (f"{both}/assets/metadata/{{did}}", api.metadata, get),
        (f"{both}/assets/names", api.names, post),
        (f"{both}/assets/query", api.query, post),
        (f"{both}/assets/ddo/validate", api.validate, post),
        (f"{both}/assets/triggerCaching", api.trigger_caching, post),
        (f"{both}/chains/list", api.chains, get),
        (f"{both}/chains/status/{{chain_id}}", api.chain_status, get),
        (f"{both}/state/ddo", api.did_state, get),
        (f"{both}/state/retryQueue", api.retry_queue, get),
        (f"{both}/validation/schema", api.schema, get),
    ):
        app.add_api_route(path, endpoint, methods=methods, response_model=None)
    return app
