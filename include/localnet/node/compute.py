"""The compute endpoints but for the start of jobs: environments, status, stop, results and logs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from eth_utils import is_address
from starlette.responses import Response, StreamingResponse

from include.localnet.node.answers import Refused, json_answer, text_answer
from include.localnet.node.javascript import parse_int
from include.localnet.node.results import follow, result_file, results_of

if TYPE_CHECKING:
    from include.localnet.node.calls import Call
    from include.localnet.node.configuration import Node
    from include.localnet.node.engine import Engine
    from include.localnet.node.store import Job

logger = logging.getLogger(__name__)

_INVALID_ENVIRONMENT = "Invalid C2D Environment"
_BARE_ERROR = "Internal Server Error"


def environments(node: Node, call: Call) -> Response:
    """List the compute environments of a chain, or of all."""
    chain_id = parse_int(call.query.get("chainId"))
    if chain_id and str(chain_id) not in (node.environment.fields["fees"] or {}):
        return json_answer([])
    return json_answer([node.environment.announcement(node.jobs.unfinished())])


def _job_id(node: Node, text: str) -> str:
    """Return a job's id of what a client sends, which is the cluster, a dash, and the id.

    :raises Refused: when the cluster is another, or missing
    """
    cluster, _, job_id = text.partition("-")
    if cluster != node.environment.cluster or not job_id:
        raise Refused(_INVALID_ENVIRONMENT)
    return job_id


def _status(engine: Engine, job: Job) -> dict[str, Any]:
    return {**job.body, "results": results_of(engine.folders(job.id), job)}


def status(node: Node, engine: Engine, call: Call) -> Response:
    """List jobs by id, owner or both; nothing is signed.

    An id without its cluster counts as none, so that with it alone every job of everybody is listed, as upstream does. All
    errors are a bare 500: upstream reads its answer from a stream that is not there.
    """
    query = call.query
    owner, job_id = query.get("consumerAddress"), query.get("jobId")
    if (owner and not is_address(owner)) or not (owner or job_id or query.get("agreementId")):
        raise Refused(_BARE_ERROR)
    wanted = None
    if job_id and job_id.find("-") > 0:
        try:
            wanted = _job_id(node, job_id)
        except Refused as error:
            raise Refused(_BARE_ERROR) from error
    if query.get("agreementId"):  # no job has one
        return json_answer([])
    return json_answer([_status(engine, job) for job in node.jobs.find(wanted, owner)])


def stop(node: Node, engine: Engine, call: Call) -> Response:
    """Ask for the end of a consumer's job; all errors are a bare 500, as for the status."""
    query = call.query
    try:
        call.require("stopCompute", {"jobId": "jobId"})
        call.check_address(query.get("consumerAddress"))
        node.authority.check(query, "stopCompute", call.token)
        job_id = _job_id(node, query["jobId"])
    except Refused as error:
        raise Refused(_BARE_ERROR) from error
    stopped = []
    for job in node.jobs.find(job_id, query["consumerAddress"]):
        logger.info("Asked to stop job %s of %s", job.id, job.owner)
        changed = node.jobs.change(job.id, stopRequested=True)
        engine.stop(job.id)
        stopped.append({**changed.body, "results": None})
    return json_answer(stopped)


def delete(_node: Node, _engine: Engine, _call: Call) -> Response:
    """Answer that this is not there yet, as upstream."""
    return text_answer("Not yet implemented!", 404)


def result(node: Node, engine: Engine, call: Call) -> Response:
    """Hand out one result of a job to its owner or to whom he lets see it."""
    query = call.query
    call.require("getComputeResult", {"jobId": "jobId", "index": "index"})
    call.check_address(query.get("consumerAddress"), optional=True)
    index = parse_int(query["index"])
    if index is None or index < 0:
        raise Refused("Invalid result index", 400)
    node.authority.check(query, "getComputeResult", call.token)
    job_id = _job_id(node, query["jobId"])
    jobs = node.jobs.find(job_id)
    if not jobs:
        raise Refused(f"Cannot find job with id {job_id}")
    consumer = query.get("consumerAddress")
    if consumer != jobs[0].owner and consumer not in (jobs[0].body["additionalViewers"] or []):
        raise Refused(f"{consumer} is not authorized to get results for job with id {job_id}")
    found = result_file(engine.folders(job_id), jobs[0], index)
    if found is None:
        return Response(b"", 200)  # as upstream: no such result is an empty one
    path, content_type = found
    # Without a length, as upstream.
    return StreamingResponse(follow(path, lambda: False), headers={"Content-Type": content_type})


def streamable_logs(node: Node, engine: Engine, call: Call) -> Response:
    """Stream a running job's log, from its beginning to its end, to whoever signs."""
    query = call.query
    call.require("getComputeStreamableLogs", {"jobId": "jobId"})
    call.check_address(query.get("consumerAddress"), optional=True)
    node.authority.check(query, "getComputeStreamableLogs", call.token)
    job_id = _job_id(node, query["jobId"])
    if not engine.is_running(job_id):
        raise Refused("Job not found or not running", 404)
    path = engine.folders(job_id).algorithm_log
    return StreamingResponse(follow(path, lambda: engine.is_running(job_id)))
