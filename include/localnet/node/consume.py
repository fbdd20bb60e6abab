"""The endpoints ``fileInfo``, ``initialize`` and ``download``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from starlette.responses import Response, StreamingResponse

from include.localnet.node import trust
from include.localnet.node.answers import Refused, json_answer
from include.localnet.node.files import UNREACHABLE, describe, files_of_service, remote_file
from include.localnet.node.javascript import parse_int, stringify
from include.localnet.node.orders import has_valid_fee, order_problem, receipt_of, signed_fee
from include.localnet.provider.encryption import files_of

if TYPE_CHECKING:
    from include.localnet.node.calls import Call
    from include.localnet.node.configuration import Node
    from include.localnet.provider.assets import Asset, Service
    from include.localnet.provider.files import RemoteFile


def file_info(node: Node, call: Call) -> Response:
    """Answer what is known of each file of a service, or of one file object."""
    data = call.json
    if not data.get("type") and not data.get("did"):
        raise Refused("Invalid request parameters", 400)
    if data.get("did") and data.get("serviceId"):
        if not str(data["did"]).startswith("did:op"):
            raise Refused(' Missing or invalid required parameter "id', 400)
        contents = files_of_service(node, data["did"], data["serviceId"])
    elif data.get("type"):
        contents = [data]
    else:
        raise Refused("Invalid arguments. Please provide either file && Type OR did && serviceId", 400)
    details = [describe(remote_file(node, content)) for content in contents]
    # Streamed, and so without a length and a type, as upstream.
    return StreamingResponse(iter([stringify(details).encode()]))


def initialize(node: Node, call: Call) -> Response:
    """Quote an access service: its datatoken and a fee of nothing."""
    call.require("getFees", {"ddoId": "documentId", "serviceId": "serviceId"})
    consumer = call.query.get("consumerAddress")
    call.check_address(consumer, optional=True)
    found = node.asset(call.query["documentId"])
    trust.check_state(found[1] if found else None)
    if found is None:
        raise Refused("Cannot resolve DID")
    service = found[0].service(call.query["serviceId"])
    if service is None:
        # Upstream goes on with a service that is not there.
        raise Refused("Internal Server Error")
    if service.type == "compute":
        raise Refused("Use the initializeCompute endpoint to initialize compute jobs")
    until = round(time.time()) + service.timeout if service.timeout else 0
    asked = parse_int(call.query.get("validUntil"))
    if asked:
        if service.timeout and asked > until:
            raise Refused("Required validUntil is higher than service timeout")
        until = asked
    answer = {
        "providerFee": signed_fee(node, service, until),
        "datatoken": service.datatoken,
        "nonce": str(node.authority.last_nonce(str(consumer))),
        "computeAddress": consumer,
    }
    return json_answer(answer)


def download(node: Node, call: Call) -> Response:
    """Stream one file of an ordered service."""
    query = call.query
    call.require("download", {n: n for n in ("fileIndex", "documentId", "serviceId", "transferTxId")})
    node.authority.check(query, "download", call.token)
    consumer = str(query.get("consumerAddress"))
    found = node.asset(query["documentId"])
    if found is None:
        raise Refused("No DDO found for asset")
    asset, document = found
    trust.check_state(document)
    trust.check_access(asset, document, query["serviceId"], consumer)
    service = asset.service(query["serviceId"])
    if service is None:
        return json_answer({}, 500)
    if service.type == "compute" and consumer.lower() != node.address.lower():
        raise Refused("Not allowed to download this asset of type compute")
    receipt = receipt_of(node, query["transferTxId"])
    if receipt is None:
        return json_answer(
            {}, 500
        )  # upstream fails over the receipt it does not have, and sends its error as JSON
    if not has_valid_fee(node, receipt, service):
        raise Refused("ERROR checking fees")
    problem = order_problem(node, query["transferTxId"], consumer, asset, service)
    if problem:
        raise Refused(problem)
    return _streamed(node, _file_at(node, asset, service, query["fileIndex"]))


def _file_at(node: Node, asset: Asset, service: Service, index: str) -> RemoteFile:
    files = files_of(node.private_key, asset, service) or []
    number = parse_int(index)
    if number is None or not 0 <= number < len(files):
        raise Refused("Failed to decrypt")
    return remote_file(node, files[number])


def _streamed(node: Node, file: RemoteFile) -> Response:
    try:
        opened = file.open("")
    except UNREACHABLE as error:
        raise Refused(f"Unknown error: {type(error).__name__}", 501) from error
    if opened is None:
        raise Refused("Unknown error: Request failed", 501)
    return opened.response()
