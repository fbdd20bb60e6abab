"""The compute endpoints: environments, quotes, and jobs, which the operator-service runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from include.localnet.provider.algorithms import Algorithm, container_problem, with_checksums
from include.localnet.provider.errors import Refused
from include.localnet.provider.fees import compute_quote
from include.localnet.provider.streams import Opened
from include.localnet.provider.validation import is_future
from include.localnet.provider.workflow import check_input, job_of

if TYPE_CHECKING:
    import httpx

    from include.localnet.provider.calls import Call
    from include.localnet.provider.configuration import Provider


def compute_environments(provider: Provider, call: Call) -> Response:
    """Answer the environments by chain id."""
    return JSONResponse({str(provider.chain.chain_id): provider.environments()})


def _quoted_algorithm(provider: Provider, data: Any) -> Algorithm:
    """Check the algorithm of a quote; raw code has nothing to check yet."""
    if not isinstance(data, dict):
        raise Refused({"algorithm": "missing_meta_documentId"})
    if not data.get("documentId"):
        return Algorithm(data)
    asset = provider.aquarius.asset(data["documentId"])
    if asset is None or not asset.is_algorithm:
        raise Refused("DID is not a valid algorithm")
    service = asset.service(data.get("serviceId"))
    if service is None:
        problem = "missing" if data.get("serviceId") is None else "not_found"
        raise Refused({"algorithm.serviceId": problem})
    return with_checksums(provider, data, asset, service)


def initialize_compute(provider: Provider, call: Call) -> Response:
    """Quote a job: for each asset the fee to order it with, or the order that can be used again."""
    data = call.data
    consumer, valid_until = data["consumerAddress"], data["compute"]["validUntil"]
    datasets = data["datasets"]
    if not is_future(valid_until):
        raise Refused("The validUntil value is not correct.")
    if not isinstance(datasets, list):
        raise Refused({"datasets": "invalid"})
    environment = provider.environment(data["compute"]["env"])
    if environment is None:
        raise Refused("Compute environment does not exist")
    algorithm = _quoted_algorithm(provider, data.get("algorithm"))
    inputs = [
        check_input(provider, consumer, item, algorithm, index, ordered=False)
        for index, item in enumerate(datasets)
    ]
    until = int(valid_until)
    # Upstream means to choose the asset that carries the fee, but always comes to the first.
    answer: dict[str, Any] = {
        "datasets": [
            compute_quote(
                provider, item.asset, item.service, consumer, environment, until, item.data, item.index == 0
            )
            for item in inputs
        ]
    }
    if algorithm.asset and algorithm.service:
        answer["algorithm"] = compute_quote(
            provider,
            algorithm.asset,
            algorithm.service,
            consumer,
            environment,
            until,
            algorithm.data,
            carries_fee=False,
        )
    return JSONResponse(answer)


def _handed_on(response: httpx.Response) -> Response:
    return Response(response.content, response.status_code, media_type="application/json")


def compute_start(provider: Provider, call: Call) -> Response:
    """Start a job."""
    job = job_of(provider, call.data)
    provider.nonces.claim(str(call.data["consumerAddress"]), call.data["nonce"])
    return _handed_on(provider.operator.start(job))


def compute_status(provider: Provider, call: Call) -> Response:
    """Answer a consumer's jobs, or one of them; open to everyone, as upstream."""
    data = call.data
    owner = str(data["consumerAddress"])
    return _handed_on(provider.operator.jobs("GET", owner, data.get("jobId"), data.get("documentId")))


def compute_change(provider: Provider, call: Call) -> Response:
    """Stop (PUT) or delete (DELETE) a consumer's jobs, or one of them."""
    data = call.data
    owner = str(data["consumerAddress"])
    provider.nonces.claim(owner, data["nonce"])
    return _handed_on(provider.operator.jobs(call.method, owner, data.get("jobId"), data.get("documentId")))


def compute_result(provider: Provider, call: Call) -> Response:
    """Stream one result of a job, or the operator-service's refusal."""
    data = call.data
    owner = str(data["consumerAddress"])
    provider.nonces.claim(owner, data["nonce"])
    response = provider.operator.result(
        owner,
        str(data["jobId"]),
        str(data["index"]),
        data.get("signature"),
        call.headers.get("range", ""),
    )
    if not response.is_success:
        try:
            response.read()
        finally:
            response.close()
        return _handed_on(response)
    return Opened.of_response(response, f"{data['jobId']}-{data['index']}").response()


def validate_container(provider: Provider, call: Call) -> Response:
    """Answer the container description when it is complete."""
    problem = container_problem(call.data)
    if problem:
        raise Refused(problem)
    return JSONResponse(call.data)
