"""The FastAPI app behind the pages: its routes, who may call them, and the headers of every answer."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from airflow.models.dag import DagModel
from airflow.utils.session import create_session
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles

from airflow_ocean.artifacts import artifact_chunks
from airflow_ocean.ui import failures
from airflow_ocean.ui.downloads import Fetched, Files, NotServedError, artifact_bases
from airflow_ocean.ui.live import ask_provider
from airflow_ocean.ui.overview import Filters, look
from airflow_ocean.ui.pages import Pages, attachment
from airflow_ocean.ui.records import RunRecord, TaskRecord, load_run
from airflow_ocean.ui.story import Story, fetches, tell

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_HERE = Path(__file__).parent
# So many logs are shown in the page itself; all others are files to download.
_LOGS_SHOWN = 4
_LOG_BYTES = 16_000
_PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
)
# What an algorithm wrote must not become a page of this origin, whatever a browser takes it for.
_FILE_POLICY = "default-src 'none'; sandbox; frame-ancestors 'none'"

# FastAPI runs these, and all routes that are plain functions, in threads: they wait for the database.
_MAY_READ = [
    Depends(requires_access_dag("GET", DagAccessEntity.RUN)),
    Depends(requires_access_dag("GET", DagAccessEntity.XCOM)),
]


def create_app() -> FastAPI:
    """Return the app; Airflow mounts it below its own root."""
    app = FastAPI(title="Ocean", docs_url=None, redoc_url=None, openapi_url=None)
    app.middleware("http")(_guard)
    app.mount("/static", StaticFiles(directory=_HERE / "static"), name="static")
    run = "/dags/{dag_id}/runs/{run_id}"
    routes: list[tuple[str, Any]] = [
        ("/runs", overview_page),
        (run, run_page),
        (run + "/artifacts/{task_id}/{map_index}/{number}", artifact),
        (run + "/plots/{task_id}/{map_index}", plot),
    ]
    for path, endpoint in routes:
        app.add_api_route(path, endpoint, methods=["GET"], dependencies=_MAY_READ, response_model=None)
    return app


async def _guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Add the headers that keep what others wrote from running in a reader's browser."""
    response = await call_next(request)
    response.headers.setdefault("Content-Security-Policy", _PAGE_POLICY)
    response.headers.setdefault("Cache-Control", "no-cache")
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    return response


# ---------------------------------------------------------------------- what routes depend on


def existing_run(dag_id: str, run_id: str) -> RunRecord:
    """Return the run that the address names."""
    with create_session(scoped=False) as session:
        record = load_run(session, dag_id, run_id)
    if record is None:
        raise HTTPException(404, f"DAG {dag_id!r} has no run {run_id!r}")
    return record


def named_task(
    record: Annotated[RunRecord, Depends(existing_run)], task_id: str, map_index: int
) -> TaskRecord:
    """Return the task that the address names."""
    for task in record.tasks:
        if (task.task_id, task.map_index) == (task_id, map_index):
            return task
    raise HTTPException(404, f"the run has no such task of Ocean: {task_id!r}, map index {map_index}")


def run_files(record: Annotated[RunRecord, Depends(existing_run)]) -> Files:
    """Return the files of the run that the address names."""
    with create_session(scoped=False) as session:
        return Files(record, artifact_bases(session))


def readable_dags(user: GetUserDep) -> set[str]:
    """Return the DAGs that the user may read."""
    return get_auth_manager().get_authorized_dag_ids(user=user, method="GET")


def may_read_logs(user: GetUserDep, dag_id: str) -> bool:
    """Say whether the user may read the DAG's task logs."""
    return get_auth_manager().is_authorized_dag(
        method="GET",
        access_entity=DagAccessEntity.TASK_LOGS,
        details=DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id)),
        user=user,
    )


def fetched_results(
    record: Annotated[RunRecord, Depends(existing_run)], files: Annotated[Files, Depends(run_files)]
) -> list[Fetched]:
    """Return what the run's tasks fetched."""
    return [files.fetched(task) for task in fetches(record)]


async def story(
    record: Annotated[RunRecord, Depends(existing_run)],
    fetched: Annotated[list[Fetched], Depends(fetched_results)],
) -> Story:
    """Return the run's story, with the state and the log of its running jobs."""
    told = tell(record, [item.cost for item in fetched])
    await asyncio.gather(*(ask_provider(job) for job in told.jobs_to_ask))
    return told


# ---------------------------------------------------------------------- routes


def run_page(
    request: Request,
    told: Annotated[Story, Depends(story)],
    files: Annotated[Files, Depends(run_files)],
    fetched: Annotated[list[Fetched], Depends(fetched_results)],
    reads_logs: Annotated[bool, Depends(may_read_logs)],
) -> HTMLResponse:
    """The tab *Ocean* of a run."""
    if reads_logs:
        with create_session(scoped=False) as session:
            failed = failures.explain(session, told.run, told.failures)
    else:
        failed = failures.without_logs(told.failures)
    return Pages.of(request).render(
        "run.html",
        story=told,
        run=told.run,
        failures=failed,
        fetched=fetched,
        logs=_log_ends(files, fetched),
        now=datetime.now(UTC),
    )


def _log_ends(files: Files, fetched: list[Fetched]) -> dict[str, str]:
    """Return the end of the algorithm's log of the first jobs, by job id."""
    found = {}
    for item in fetched[:_LOGS_SHOWN]:
        for listed in item.files:
            if listed.artifact.type == "algorithmLog" and listed.artifact.size:
                try:
                    found[item.job_id] = files.tail(item.task, listed.artifact, _LOG_BYTES)
                except (NotServedError, OSError, ValueError, ImportError) as error:
                    found[item.job_id] = f"The log cannot be read: {error}"
    return found


def overview_page(
    request: Request,
    dag_ids: Annotated[set[str], Depends(readable_dags)],
    filters: Annotated[Filters, Depends()],
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
) -> HTMLResponse:
    """The page with all compute runs."""
    with create_session(scoped=False) as session:
        overview = look(session, dag_ids, filters, page)
    return Pages.of(request).render("overview.html", overview=overview, filters=filters)


def artifact(
    task: Annotated[TaskRecord, Depends(named_task)],
    files: Annotated[Files, Depends(run_files)],
    number: int,
) -> StreamingResponse:
    """A file that a task fetched, to download."""
    try:
        found = files.artifact(task, number)
        content = artifact_chunks(found.uri)
    except NotServedError as error:
        raise HTTPException(404, f"this file is not given out: {error}") from error
    except (OSError, ValueError, ImportError) as error:
        raise HTTPException(404, f"this file cannot be read: {error}") from error
    return StreamingResponse(
        content,
        media_type="application/octet-stream",
        headers={
            "Content-Disposition": attachment(found.name),
            "Content-Security-Policy": _FILE_POLICY,
            "Cache-Control": "private, no-cache",
        },
    )


def plot(
    task: Annotated[TaskRecord, Depends(named_task)],
    files: Annotated[Files, Depends(run_files)],
    download: bool = False,
) -> Response:
    """The picture that a task drew."""
    try:
        picture = files.picture(task)
    except NotServedError as error:
        raise HTTPException(404, f"this plot is not shown: {error}") from error
    except (OSError, ValueError, ImportError) as error:
        raise HTTPException(404, f"this plot cannot be read: {error}") from error
    headers = {"Content-Security-Policy": _FILE_POLICY, "Cache-Control": "private, max-age=60"}
    if download:
        headers["Content-Disposition"] = attachment("plot.png")
    return Response(picture, media_type="image/png", headers=headers)
