"""The endpoints that quote and start jobs: every check in upstream's order, the payment's lock, the job."""

from __future__ import annotations

import functools
import hashlib
import json
import time
import uuid
from typing import TYPE_CHECKING, Any

import httpx
from eth_utils import is_address

from include.localnet.node import trust
from include.localnet.node.answers import Refused, json_answer
from include.localnet.node.javascript import stringify
from include.localnet.node.orders import has_valid_fee, order_problem, receipt_of, signed_fee
from include.localnet.node.store import Job
from include.localnet.provider.encryption import files_of

if TYPE_CHECKING:
    from starlette.responses import Response

    from include.localnet.node.calls import Call
    from include.localnet.node.configuration import Configuration, Node
    from include.localnet.node.engine import Engine
    from include.localnet.provider.assets import Asset, Service

_INVALID_ENVIRONMENT = "Invalid C2D Environment"
_LARGEST_METADATA = 1024


def _check_environment(node: Node, environment: Any, *, whole: bool) -> None:
    """Check that a request names this node's cluster, or its whole environment."""
    known = node.environment.id if whole else node.environment.cluster
    named = str(environment) if whole else str(environment).partition("-")[0]
    if named != known:
        raise Refused(_INVALID_ENVIRONMENT)


def _objects(value: Any) -> list[dict[str, Any]]:
    """Return the objects of a list; anything else in it is passed over."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _seconds(asked: Any) -> float:
    """Return a time that a client gives, 0 when it gives none."""
    return max(asked, 0) if isinstance(asked, int | float) and not isinstance(asked, bool) else 0


def _duration(asked: Any, longest: float) -> float:
    """Return how long an algorithm may run: no longer than the environment allows."""
    return min(_seconds(asked) or longest, longest)


def _asset(node: Node, item: dict[str, Any]) -> tuple[Asset, dict[str, Any]]:
    found = node.asset(item["documentId"])
    if found is None:
        raise Refused(f"DDO {item['documentId']} not found")
    trust.check_state(found[1])
    return found


def _service(node: Node, asset: Asset, item: dict[str, Any]) -> Service:
    service = asset.service(item.get("serviceId"))
    if service is None:
        raise Refused(f"Cannot find service {item.get('serviceId')} in DDO {asset.did}")
    if service.type == "compute" and not files_of(node.private_key, asset, service):
        raise Refused(f"Service {service.id} from DDO {asset.did} cannot be used in compute on this provider")
    return service


def _check_trust(
    node: Node, algorithm: dict[str, Any], checksums: trust.Checksums, asset: Asset, item: dict[str, Any]
) -> None:
    if asset.is_algorithm:
        return
    service, did = asset.service(item.get("serviceId")), algorithm.get("documentId")
    if service is None or not trust.is_trusted(node, did, checksums, service):
        named = "undefined" if did is None else did
        raise Refused(f"Algorithm {named} not allowed to run on the dataset: {asset.did}", 400)


# --- quote ---------------------------------------------------------------------------------------


def initialize_compute(node: Node, _engine: Engine, call: Call) -> Response:
    """Quote a job: what has to be ordered, and what has to be locked in the escrow."""
    data = call.json
    datasets = _objects(data.get("datasets"))
    if not data.get("algorithm"):
        raise Refused("Missing algorithm", 400)
    if not all(item.get("documentId") for item in datasets):
        raise Refused("Missing dataset did", 400)
    names = ("datasets", "algorithm", "payment", "consumerAddress", "environment")
    call.require("initializeCompute", {name: name for name in names}, {**data, "datasets": datasets})
    call.check_address(data["consumerAddress"])
    algorithm, payment = _object(data["algorithm"]), _object(data["payment"])
    if not payment.get("chainId") or not payment.get("token"):
        raise Refused("Invalid payment options", 400)
    _check_environment(node, data["environment"], whole=False)
    checksums = trust.checksums_of(node, algorithm)
    trust.check_checksums(algorithm, checksums)
    _check_environment(node, data["environment"], whole=True)
    environment = node.environment
    seconds = _duration(data.get("maxJobDuration"), environment.fields["maxJobDuration"])
    try:
        resources = environment.filled(payment.get("resources"), free=False)
    except Refused as error:
        raise Refused(f"Error: {error}") from error
    prices = environment.prices(payment["chainId"], payment["token"])
    cost = environment.cost(resources, prices, seconds)
    waiting = _seconds(data.get("queueMaxWaitTime"))
    quotes = [
        _quote(node, data["consumerAddress"], algorithm, checksums, item) for item in (algorithm, *datasets)
    ]
    return json_answer(
        {
            "algorithm": quotes[0],
            "datasets": quotes[1:],
            "payment": {
                "escrowAddress": node.escrow.address,
                "payee": node.address,
                "chainId": payment["chainId"],
                "minLockSeconds": node.escrow.lock_seconds(seconds + waiting),
                "token": payment["token"],
                "amount": str(node.escrow.amount(cost, payment["token"])),
            },
        }
    )


def _quote(
    node: Node,
    consumer: str,
    algorithm: dict[str, Any],
    checksums: trust.Checksums,
    item: dict[str, Any],
) -> dict[str, Any]:
    """Return what has to be done about the order of one asset; raw code needs none."""
    if not item.get("documentId"):
        return {"validOrder": False}
    asset, document = _asset(node, item)
    _check_trust(node, algorithm, checksums, asset, item)
    trust.check_access(asset, document, item.get("serviceId"), consumer)
    service = _service(node, asset, item)
    quote: dict[str, Any] = {
        "validOrder": False,
        "did": asset.did,
        "serviceId": service.id,
        "datatoken": service.datatoken,
        "chainId": asset.chain_id,
        "consumerAddress": node.address,
    }
    transaction = item.get("transferTxId")
    if transaction and not order_problem(node, transaction, node.address, asset, service):
        quote["validOrder"] = transaction
        receipt = receipt_of(node, transaction)
        if receipt and has_valid_fee(node, receipt, service):
            return quote
    # Upstream gives the service's time-out as the moment until which the fee is good.
    return {**quote, "providerFee": signed_fee(node, service, service.timeout)}


# --- start ---------------------------------------------------------------------------------------


def start_paid(node: Node, engine: Engine, call: Call) -> Response:
    """Start a job that is paid through the escrow."""
    data = call.json
    names = ("environment", "algorithm", "datasets", "maxJobDuration")
    # Upstream takes what JavaScript calls false for missing.
    given = {name: value if value or isinstance(value, list | dict) else None for name, value in data.items()}
    call.require("startCompute", {name: name for name in names}, given)
    call.check_address(data.get("consumerAddress"))
    node.authority.check(data, "startCompute", call.token)
    consumer, environment = str(data["consumerAddress"]), node.environment
    algorithm, datasets = _object(data["algorithm"]), _objects(data["datasets"])
    _check_environment(node, data["environment"], whole=True)
    seconds = _duration(data["maxJobDuration"], environment.fields["maxJobDuration"])
    resources = environment.filled(data.get("resources"), free=False)
    waiting = _seconds(data.get("queueMaxWaitTime"))
    available = functools.partial(environment.check_available, resources, free=False)
    if not waiting:
        available(node.jobs.unfinished())
    environment.check_access(consumer, free=False)
    checksums = trust.checksums_of(node, algorithm)
    trust.check_checksums(algorithm, checksums)
    for item in (algorithm, *datasets):
        _check_ordered(node, consumer, algorithm, checksums, item)
    payment = data.get("payment")
    if not isinstance(payment, dict):
        raise Refused("Cannot read properties of null (reading 'chainId')")
    chain_id, token = payment.get("chainId"), payment.get("token")
    cost = environment.cost(resources, environment.prices(chain_id, token), seconds)
    job_id = _new_id(data)
    paid = {"chainId": chain_id, "token": token, "lockTx": None, "claimTx": None, "cancelTx": None, "cost": 0}
    with engine.admission:
        if not waiting:
            available(node.jobs.unfinished())  # again, as another start may have been quicker
        amount, until = node.escrow.amount(cost, str(token)), node.escrow.lock_seconds(seconds + waiting)
        paid["lockTx"] = node.escrow.lock(job_id, str(token), consumer, amount, until)
        # As upstream, which looks at the image only now; what is locked for a job that is then refused, or of which the node
        # dies here, stays so until it expires.
        job = _job(node, data, job_id, seconds, resources, paid, 400)
        node.jobs.add(job)
    return _started(node, engine, job)


def _check_ordered(
    node: Node,
    consumer: str,
    algorithm: dict[str, Any],
    checksums: trust.Checksums,
    item: dict[str, Any],
) -> None:
    """Check one asset of a paid job, with its order."""
    if not item.get("documentId"):
        return
    asset, document = _asset(node, item)
    trust.check_access(asset, document, item.get("serviceId"), consumer)
    service = _service(node, asset, item)
    _check_trust(node, algorithm, checksums, asset, item)
    transaction = item.get("transferTxId")
    if not transaction:
        raise Refused(f"Missing transferTxId for DDO {asset.did}")
    if order_problem(node, transaction, node.address, asset, service):
        raise Refused(f"TxId Service {transaction} is not valid for DDO {asset.did} and service {service.id}")
    if asset.is_algorithm and "meta" not in algorithm:
        published = asset.metadata["algorithm"]
        container = {name: asset.container.get(name) for name in ("entrypoint", "image", "tag", "checksum")}
        algorithm["meta"] = {
            "language": published.get("language"),
            "version": published.get("version"),
            "container": container,
        }


def start_free(node: Node, engine: Engine, call: Call) -> Response:
    """Start a job that costs nothing: no orders, and the datasets' trust is not asked for, as upstream."""
    data = call.json
    call.require("freeStartCompute", {n: n for n in ("algorithm", "datasets", "environment")}, data)
    call.check_address(data.get("consumerAddress"))
    node.authority.check(data, "freeStartCompute", call.token)
    consumer, environment = str(data["consumerAddress"]), node.environment
    _check_environment(node, data["environment"], whole=False)
    for item in (_object(data["algorithm"]), *_objects(data["datasets"])):
        if item.get("documentId"):
            asset, document = _asset(node, item)
            trust.check_access(asset, document, item.get("serviceId"), consumer)
            if asset.service(item.get("serviceId")) is None:
                raise Refused(f"Cannot find service {item.get('serviceId')} in DDO {asset.did}")
    _check_environment(node, data["environment"], whole=True)
    environment.check_access(consumer, free=True)
    try:
        resources = environment.filled(data.get("resources"), free=True)
    except Refused as error:
        raise Refused(f"Error: {error}", 400) from error
    seconds = _duration(data.get("maxJobDuration"), environment.fields["free"]["maxJobDuration"])
    with engine.admission:
        if not _seconds(data.get("queueMaxWaitTime")):
            environment.check_available(resources, node.jobs.unfinished(), free=True)
        job = _job(node, data, _new_id(data), seconds, resources, None, 500)
        node.jobs.add(job)
    return _started(node, engine, job)


def _started(node: Node, engine: Engine, job: Job) -> Response:
    if not job.is_queued:
        engine.take(job)
    shown = {
        key: job.body[key] for key in job.body if key not in ("did", "inputDID", "algoDID", "agreementId")
    }
    # Only here the id has its cluster before it, and only with it is it good for results, logs and a stop.
    return json_answer([{**shown, "jobId": f"{node.environment.cluster}-{job.id}"}])


def _new_id(data: dict[str, Any]) -> str:
    return hashlib.sha256(f"{json.dumps(data)}{time.time_ns()}{uuid.uuid4()}".encode()).hexdigest()


def _image(node: Node, algorithm: dict[str, Any], status: int) -> str:
    """Return the container image that an algorithm asks for.

    :raises Refused: when it names none, or one that the node does not find
    """
    container = _object(_object(algorithm.get("meta")).get("container"))
    image = container.get("image")
    if not image:
        raise Refused(f"Unable to extract docker image null from algoritm: {stringify(algorithm)}", status)
    if container.get("checksum"):
        image = f"{image}@{container['checksum']}"
    else:
        image = f"{image}:{container.get('tag') or 'latest'}"
    if not _is_found(node.configuration, str(image)):
        architecture = node.environment.fields["platform"]["architecture"]
        raise Refused(
            f"Cannot find image {image} for {architecture}. Maybe it does not exist or it's build for other "
            "arhitectures.",
            status,
        )
    return str(image)


def _is_found(configuration: Configuration, image: str) -> bool:
    """Say whether there is an image; its registry has all the time it needs, as upstream."""
    if image in configuration.unknown_images:
        return False
    if not configuration.registry:
        return True
    name, _, reference = image.rpartition("@" if "@" in image else ":")
    url = f"{configuration.registry}/v2/{name}/manifests/{reference}"
    try:
        return httpx.get(url, timeout=None, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _job(
    node: Node,
    data: dict[str, Any],
    job_id: str,
    seconds: float,
    resources: list[dict[str, Any]],
    payment: dict[str, Any] | None,
    status: int,
) -> Job:
    """Return a new job.

    :param payment: None for a free one
    :param status: HTTP status of what is wrong with its image or its metadata
    """
    metadata, algorithm = data.get("metadata") or None, _object(data["algorithm"])
    if metadata and len(stringify(metadata)) > _LARGEST_METADATA:
        raise Refused("Metadata size is too large", status)
    image = _image(node, algorithm, status)
    viewers = data.get("additionalViewers") or None
    return Job.new(
        job_id,
        data["consumerAddress"],
        node.environment.id,
        {"algorithm": algorithm, "assets": _objects(data["datasets"]), "containerImage": image},
        duration=seconds,
        resources=resources,
        payment=payment,
        metadata=metadata,
        viewers=[v for v in viewers if is_address(v)] if isinstance(viewers, list) else None,
        queue_wait=_seconds(data.get("queueMaxWaitTime")),
    )
