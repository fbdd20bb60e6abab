"""The operator-service's HTTP routes, as the Provider calls them."""

from __future__ import annotations

import contextlib
import json
import logging
import mimetypes
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

from fastapi import Depends, FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, JSONResponse, Response

from include.localnet.operator_service.signatures import Refused, signing_provider
from include.localnet.operator_service.store import AgreementInUse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from include.localnet.operator_service.engine import Engine
    from include.localnet.operator_service.environments import Environment
    from include.localnet.operator_service.store import Store

logger = logging.getLogger(__name__)

PREFIX = "/api/v1/operator"
VERSION = "1.0.1"  # of upstream's interface
_LONGEST_REQUEST = 16 * 1024 * 1024
_NO_JSON = "400 Bad Request: Did not attempt to load JSON data because the request Content-Type was not 'application/json'."


async def parameters(request: Request) -> dict[str, Any]:
    """Return the query's parameters, or, where there are none, the JSON body's.

    :raises Refused: when there is neither
    """
    if request.query_params:
        return dict(request.query_params)
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > _LONGEST_REQUEST:
            raise Refused(f"The request is longer than {_LONGEST_REQUEST} bytes.", 413)
    if not content:
        return {}
    try:
        data = json.loads(content)
    except ValueError as error:
        raise Refused(_NO_JSON) from error
    if not isinstance(data, dict):
        raise Refused("payload seems empty.")
    return data


Parameters = Annotated[dict[str, Any], Depends(parameters)]


def _require(names: tuple[str, ...], data: Mapping[str, Any], method: str) -> None:
    if not data:
        raise Refused("payload seems empty.")
    for name in names:
        if name not in data:
            raise Refused(f'"{name}" is required in the call to {method}')


def _criteria(data: Mapping[str, Any]) -> dict[str, str | None]:
    """Return what selects jobs; upstream takes anything shorter than two characters for nothing."""
    names = {"agreement_id": "agreementId", "job_id": "jobId", "owner": "owner"}
    found = {name: str(data.get(key) or "") for name, key in names.items()}
    criteria = {name: value if len(value) > 1 else None for name, value in found.items()}
    if not any(criteria.values()):
        raise Refused("You have to specify one of agreementId, jobId or owner")
    return criteria


def _signed_text(criteria: Mapping[str, str | None]) -> str:
    return f"{criteria['owner']}{criteria['job_id'] or ''}"


def _checked_workflow(data: Mapping[str, Any]) -> dict[str, Any]:
    workflow = data.get("workflow")
    stages = workflow.get("stages") if isinstance(workflow, dict) else None
    if not isinstance(workflow, dict) or not isinstance(stages, list) or not stages:
        raise Refused("Missing stages")
    if len(stages) > 1:
        raise Refused("Multiple stages are not supported yet")
    for name, kind in (("algorithm", dict), ("compute", dict), ("input", list), ("output", dict)):
        if not isinstance(stages[0], dict) or name not in stages[0]:
            raise Refused(f"Missing {name} in stage 0")
        if not isinstance(stages[0][name], kind):
            raise Refused(f"Malformed {name} in stage 0")
    if not all(isinstance(item, dict) for item in stages[0]["input"]):
        raise Refused("Malformed input in stage 0")
    return workflow


def _paid_until(data: Mapping[str, Any]) -> float | None:
    with contextlib.suppress(TypeError, ValueError):
        return float(data["validUntil"]) if data.get("validUntil") is not None else None
    raise Refused("`validUntil` must be a number.")


class Routes:
    """The handlers.

    :param environments: the environments on offer by id
    :param network: chain id and fee token
    :param allowed: Providers that may call, in lower case; None is everyone
    """

    def __init__(
        self,
        store: Store,
        engine: Engine,
        environments: Mapping[str, Environment],
        network: dict[str, Any],
        consumer: str,
        allowed: list[str] | None,
    ) -> None:
        self._store, self._engine, self._environments = store, engine, environments
        self._network, self._consumer, self._allowed = network, consumer, allowed

    def _provider(self, data: Mapping[str, Any], message: str) -> str:
        return signing_provider(data, message, self._store, self._allowed)

    def root(self) -> dict[str, Any]:
        """Say what this is."""
        first = next(iter(self._environments.values()))
        return {
            "software": "Operator service",
            "version": VERSION,
            "address": self._consumer,
            "algoTimeLimit": first.max_job_duration,
            "storageExpiry": first.storage_expiry,
        }

    def start(self, data: Parameters) -> list[dict[str, Any]]:
        """Store a job and return its status; the checks come in upstream's order."""
        required = ("workflow", "agreementId", "owner", "providerSignature", "environment", "nonce")
        _require(required, data, "POST:/compute")
        if not data["workflow"]:
            raise Refused("`workflow` is required in the payload and must include workflow stages")
        agreement, owner, environment = str(data["agreementId"]), str(data["owner"]), data["environment"]
        in_use = "`agreementId` already in use for other job."
        if self._store.agreement_in_use(agreement):
            raise Refused(in_use)
        if not isinstance(environment, str) or environment not in self._environments:
            raise Refused("Environment invalid or does not exist")
        provider = self._provider(data, owner)
        workflow, valid_until = _checked_workflow(data), _paid_until(data)
        try:
            job_id = self._store.add(
                agreement_id=agreement,
                owner=owner,
                provider=provider,
                environment=environment,
                workflow=workflow,
                valid_until=valid_until,
            )
        except AgreementInUse as error:
            raise Refused(in_use) from error
        status = self._store.statuses(job_id=job_id)
        self._engine.wake()
        return status

    def status(self, data: Parameters) -> list[dict[str, Any]]:
        """Return the status of the jobs of an owner, an agreement, or one."""
        criteria = _criteria(data)
        self._provider(data, _signed_text(criteria))
        return self._store.statuses(**criteria)

    def stop(self, data: Parameters) -> list[dict[str, Any]]:
        """Ask the matching jobs of the calling Provider to stop."""
        _require(("owner", "providerSignature", "nonce"), data, "PUT:/compute")
        criteria = _criteria(data)
        self._request_stop(data, criteria)
        return self._store.statuses(**criteria)

    def delete(self, data: Parameters) -> list[dict[str, Any]] | str:
        """Stop the matching jobs and delete their results.

        Upstream's route does nothing any more and answers an empty text, as this one does when it is told nothing.
        """
        if not data:
            return ""
        _require(("owner", "providerSignature", "nonce"), data, "DELETE:/compute")
        criteria = _criteria(data)
        for job_id in self._request_stop(data, criteria):
            self._engine.remove(job_id)
        return self._store.statuses(**criteria)

    def _request_stop(self, data: Mapping[str, Any], criteria: dict[str, str | None]) -> list[str]:
        provider = self._provider(data, _signed_text(criteria))
        jobs = self._store.request_stop(provider, **criteria)
        for job_id in jobs:
            self._engine.stop(job_id)
        self._engine.wake()
        return jobs

    def running(self) -> list[dict[str, Any]]:
        """Return all jobs that are not over."""
        return self._store.running()

    def offered(self, data: Parameters) -> list[dict[str, Any]]:
        """Return the environments; like upstream's without ``allowedChainId`` they serve every chain."""
        if not data:
            raise Refused(_NO_JSON)
        return [
            environment.announcement(self._engine.running(name), self._consumer, self._network)
            for name, environment in self._environments.items()
        ]

    def result(self, data: Parameters) -> Response:
        """Stream one of a job's results."""
        required = ("owner", "providerSignature", "nonce", "index", "jobId")
        _require(required, data, "GET:/getResult")
        owner, job_id = str(data["owner"]), str(data["jobId"])
        provider = self._provider(data, f"{owner}{job_id}")
        try:
            index = int(data["index"])
        except (TypeError, ValueError) as error:
            raise Refused(f"Error getResult: {error}") from error
        job_owner, job_provider, results = self._store.result_list(job_id)
        if owner != job_owner:
            raise Refused(f"Owner {owner} mismatch for job {job_id}", 404)
        if provider != job_provider:
            raise Refused(f"Provider {provider} mismatch for job {job_id}", 404)
        if results is None:
            raise Refused(f"No results for job {job_id}", 404)
        if index < 0:
            raise Refused(f"Negative index {index}", 404)
        if index >= len(results):
            raise Refused(f"No such index {index} in this compute job", 404)
        path = self._engine.result_path(job_id, index)
        if not path.is_file():  # deleted since the list was read
            raise Refused(f"No results for job {job_id}", 404)
        name = str(results[index]["filename"])
        # Percent signs for everything that could end the header or mean a path.
        disposition = f"attachment;filename={quote(name.replace('/', '_'), safe='')}"
        return FileResponse(
            path,
            media_type=mimetypes.guess_type(name)[0] or "application/octet-stream",
            headers={
                "Content-Disposition": disposition,
                "Access-Control-Expose-Headers": "Content-Disposition",
            },
        )


def create_app(routes: Routes, engine: Engine) -> FastAPI:
    """Return the application; the engine starts and ends with it."""

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        engine.close()

    app = FastAPI(
        title="Operator service", version=VERSION, openapi_url="/spec", docs_url=None, lifespan=lifespan
    )
    app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"])

    @app.exception_handler(Refused)
    async def _refuse(_request: Request, error: Refused) -> JSONResponse:
        return JSONResponse({"error": error.message}, error.status)

    @app.exception_handler(Exception)
    async def _fail(request: Request, error: Exception) -> JSONResponse:
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return JSONResponse({"error": f"{type(error).__name__}: {error}"}, 500)

    handlers: list[tuple[str, str, Callable[..., Any]]] = [
        ("GET", "/", routes.root),
        ("POST", f"{PREFIX}/compute", routes.start),
        ("GET", f"{PREFIX}/compute", routes.status),
        ("PUT", f"{PREFIX}/compute", routes.stop),
        ("DELETE", f"{PREFIX}/compute", routes.delete),
        ("GET", f"{PREFIX}/runningjobs", routes.running),
        ("GET", f"{PREFIX}/environments", routes.offered),
        ("GET", f"{PREFIX}/getResult", routes.result),
    ]
    for method, path, handler in handlers:
        app.add_api_route(path, handler, methods=[method], response_model=None)
    return app
