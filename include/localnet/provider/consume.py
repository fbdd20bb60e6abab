"""The endpoints ``nonce``, ``fileinfo``, ``initialize`` and ``download``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eth_utils import is_address, to_checksum_address
from starlette.responses import JSONResponse, Response

from include.localnet.provider.credentials import refusal_of
from include.localnet.provider.encryption import files_of
from include.localnet.provider.errors import Refused
from include.localnet.provider.fees import signed_fee
from include.localnet.provider.files import file_of
from include.localnet.provider.orders import InvalidOrder, verify_order
from include.localnet.provider.parameters import check_parameters

if TYPE_CHECKING:
    from include.localnet.provider.assets import Asset, Service
    from include.localnet.provider.calls import Call
    from include.localnet.provider.configuration import Provider


def nonce(provider: Provider, call: Call) -> Response:
    """Answer the last nonce of an address, as the text upstream's JSON encoder makes of it."""
    return JSONResponse({"nonce": provider.nonces.last_or_first(str(call.data["userAddress"]))})


def _asset(provider: Provider, did: Any) -> Asset:
    asset = provider.aquarius.asset(did)
    if asset is None:
        raise Refused("Cannot resolve DID")
    return asset


def _service(provider: Provider, asset: Asset, service_id: Any) -> Service:
    service = asset.service(service_id)
    if service is None:
        raise Refused(f"Provider {provider.network}: Invalid serviceId.")
    return service


def _files(provider: Provider, asset: Asset, service: Service) -> list[Any]:
    files = files_of(provider.configuration.private_key, asset, service)
    if not files:
        raise Refused(f"Provider {provider.network}: Unable to get dataset files")
    return files


def _file_at(provider: Provider, asset: Asset, service: Service, index: Any) -> Any:
    files = _files(provider, asset, service)
    if not str(index).isdecimal() or int(index) >= len(files):
        raise Refused(f"Provider {provider.network}: No such fileIndex {index}")
    return files[int(index)]


def _check_consumable(provider: Provider, asset: Asset, consumer: Any) -> None:
    refusal = refusal_of(provider, asset, consumer)
    if refusal:
        raise Refused(f"Provider {provider.network}: {refusal}")


def fileinfo(provider: Provider, call: Call) -> Response:
    """Answer what is known of each file of a service, or of one file object."""
    data = call.data
    if data.get("did"):
        asset = _asset(provider, data["did"])
        files = _files(provider, asset, _service(provider, asset, data.get("serviceId")))
    else:
        files = [data]
    answer = []
    for index, content in enumerate(files):
        details = file_of(
            provider.configuration.files, provider.chain, content, data.get("userdata")
        ).describe(bool(data.get("checksum")))
        answer.append(
            {"index": index, "valid": details is not None, "type": content["type"], **(details or {})}
        )
    return JSONResponse(answer)


def initialize(provider: Provider, call: Call) -> Response:
    """Quote an access service: its datatoken and a provider fee of nothing, or the order that is still valid."""
    data = call.data
    asset = _asset(provider, data["documentId"])
    consumer = data["consumerAddress"]
    _check_consumable(provider, asset, consumer)
    service = _service(provider, asset, data["serviceId"])
    if service.type == "compute":
        raise Refused(
            f"Provider {provider.network}: Use the initializeCompute endpoint to initialize compute jobs."
        )
    if "transferTxId" in data:
        try:
            order = verify_order(provider, consumer, data["transferTxId"], asset, service, allow_expired=True)
            return JSONResponse({"validOrder": order.transaction})
        except InvalidOrder:
            pass  # not valid any more: quote a new one
    if data.get("fileIndex") is not None:
        content = _file_at(provider, asset, service, data["fileIndex"])
        if (
            file_of(provider.configuration.files, provider.chain, content, data.get("userdata")).describe(
                False
            )
            is None
        ):
            raise Refused(
                f"Provider {provider.network}: Asset URL not found, not available or invalid. \n"
                f"Payload was: {data}"
            )
    return JSONResponse(
        {
            "datatoken": service.datatoken,
            "nonce": provider.nonces.last(str(consumer)),
            "providerFee": signed_fee(provider, service, 0, None, 0),
        }
    )


def _is_compute_environment(provider: Provider, address: Any) -> bool:
    if not is_address(address):
        return False
    consumers = [e.get("consumerAddress") for e in provider.environments()]
    wanted = to_checksum_address(address)
    return any(is_address(consumer) and to_checksum_address(consumer) == wanted for consumer in consumers)


def download(provider: Provider, call: Call) -> Response:
    """Stream one file of an ordered service; compute services only to a compute environment."""
    data = call.data
    prefix = f"Provider {provider.network}: "
    asset = _asset(provider, data["documentId"])
    consumer = data["consumerAddress"]
    _check_consumable(provider, asset, consumer)
    service = _service(provider, asset, data["serviceId"])
    if service.type != "access" and not _is_compute_environment(provider, consumer):
        raise Refused(f"{prefix}Service with index={data['serviceId']} is not an access service.")
    transaction = data["transferTxId"]
    try:
        verify_order(provider, consumer, transaction, asset, service)
    except InvalidOrder as error:
        raise Refused(
            f"{prefix}Order with tx_id {transaction} could not be validated due to error: {error}"
        ) from error
    check_parameters("userdata", service.consumer_parameters, data.get("userdata"))
    content = _file_at(provider, asset, service, data["fileIndex"])
    file = file_of(provider.configuration.files, provider.chain, content, data.get("userdata"))
    opened = file.open(call.headers.get("range", ""))
    if opened is None:
        raise Refused(f"{prefix}Asset URL not found, not available or invalid.")
    try:
        provider.nonces.claim(str(consumer), data["nonce"])
    except BaseException:
        opened.close()
        raise
    return opened.response()
