"""Provider fees: what a compute job costs, and the signed offer the contracts accept."""

from __future__ import annotations

import json
import time
from decimal import ROUND_DOWN, Context, Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
from eth_account import Account
from eth_account.messages import encode_defunct

from include.localnet.ethereum import ZERO_ADDRESS
from include.localnet.provider.errors import Unavailable
from include.localnet.provider.orders import InvalidOrder, Order, fee_hash, verify_order
from include.localnet.provider.web import WEB

if TYPE_CHECKING:
    from include.localnet.provider.assets import Asset, Service
    from include.localnet.provider.configuration import Provider

# 78 digits hold every uint256.
_EXACT = Context(prec=78, rounding=ROUND_DOWN)
_OTHER_PROVIDER_TIMEOUT = 10.0


def fee_amount(provider: Provider, environment: dict[str, Any], valid_until: int) -> int:
    """Return the price of an environment from now until ``valid_until``, in the fee token's smallest unit.

    :param valid_until: Unix time in seconds
    """
    if provider.fee_token == ZERO_ADDRESS:
        return 0
    price = Decimal(str(environment["priceMin"]))
    if price <= 0:
        return 0
    # Upstream takes ``timedelta.seconds``, which leaves the days out: 25 hours then cost as much as one, and a time just
    # over costs nearly a day.
    seconds = max(0, int(valid_until - time.time()))
    minutes = _EXACT.divide(Decimal(seconds), Decimal(60))
    tokens = _EXACT.multiply(minutes, price)
    return int(_EXACT.multiply(tokens, Decimal(10) ** provider.fee_decimals))


def is_paid(provider: Provider, environment: dict[str, Any], valid_until: int, paid: int) -> bool:
    """Say whether a paid fee is enough for what is left until ``valid_until``.

    Time that is over was not bought, and only a free environment lets a job start in the grace after it.
    """
    free = Decimal(str(environment["priceMin"])) <= 0
    if not free and valid_until <= time.time():
        return False
    return fee_amount(provider, environment, valid_until) <= paid


def signed_fee(
    provider: Provider, service: Service, valid_until: int, environment: str | None, amount: int
) -> dict[str, Any]:
    """Return a provider fee as clients pass it to ``startOrder``.

    :param valid_until: Unix time in seconds; 0 means it does not expire
    :param amount: in the fee token's smallest unit
    """
    data = json.dumps(
        {
            "environment": environment,
            "timestamp": time.time(),
            "dt": service.datatoken,
            "id": service.id,
        },
        separators=(",", ":"),
    ).encode()
    digest = fee_hash(data, provider.address, provider.fee_token, amount, valid_until)
    signature = Account.sign_message(encode_defunct(digest), provider.configuration.private_key)
    return {
        "providerFeeAddress": provider.address,
        "providerFeeToken": provider.fee_token,
        "providerFeeAmount": str(amount),
        "providerData": "0x" + data.hex(),
        "v": signature.v,
        "r": f"0x{signature.r:064x}",
        "s": f"0x{signature.s:064x}",
        "validUntil": valid_until,
    }


def is_own_service(provider: Provider, service: Service) -> bool:
    """Say whether a service's endpoint is a Provider with this one's address, asking it as upstream does."""
    parts = urlsplit(service.endpoint)
    try:
        answer = WEB.get(f"{parts.scheme}://{parts.netloc}/", timeout=_OTHER_PROVIDER_TIMEOUT).json()
        addresses = answer.get("providerAddresses") or {}
        address = addresses.get(str(provider.chain.chain_id)) or answer.get("providerAddress")
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, AttributeError):
        return False
    return bool(address == provider.address)


def _earlier_order(
    provider: Provider, asset: Asset, service: Service, consumer: Any, environment: str, item: dict[str, Any]
) -> Order | None:
    if "transferTxId" not in item:
        return None
    try:
        return verify_order(
            provider,
            consumer,
            item["transferTxId"],
            asset,
            service,
            environment=environment,
            compute=True,
            allow_expired=True,
        )
    except InvalidOrder:
        return None  # a new order with a new fee, then


def compute_quote(
    provider: Provider,
    asset: Asset,
    service: Service,
    consumer: Any,
    environment: dict[str, Any],
    valid_until: int,
    item: dict[str, Any],
    carries_fee: bool,
) -> dict[str, Any]:
    """Return what a consumer has to do to use one asset in a job: nothing, reuse an order, or order.

    :param item: the asset's part of the request; its ``transferTxId`` is an order to use again
    :param carries_fee: whether the job's fee is asked with this asset; the other assets' fee is zero
    """
    amount = fee_amount(provider, environment, valid_until) if carries_fee else 0
    order = _earlier_order(provider, asset, service, consumer, environment["id"], item)
    # Upstream does not look at the amount: an order that carried no fee would come back as it is, and the start refused.
    if order and valid_until <= order.valid_until and amount <= order.fee_amount:
        return {"validOrder": order.transaction}
    result: dict[str, Any]
    if is_own_service(provider, service):
        fee = signed_fee(provider, service, valid_until, environment["id"], amount)
        result = {"datatoken": service.datatoken, "providerFee": fee}
    else:
        result = _other_providers_quote(service, item)
    if order:
        result["validOrder"] = order.transaction
    return result


def _other_providers_quote(service: Service, item: dict[str, Any]) -> dict[str, Any]:
    simple = {key: value for key, value in item.items() if isinstance(value, str | int)}
    try:
        response = WEB.get(
            service.endpoint.rstrip("/") + "/api/services/initialize",
            params=simple,
            timeout=_OTHER_PROVIDER_TIMEOUT,
        )
        answer = response.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise Unavailable(
            f"The Provider of service {service.id} did not quote its fee ({type(error).__name__}): "
            "check the service's endpoint."
        ) from error
    if not response.is_success or not isinstance(answer, dict):
        raise Unavailable(f"The Provider of service {service.id} refused to quote its fee: {answer}")
    return answer
