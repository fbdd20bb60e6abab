"""Orders on the chain as the node checks them, and the fee (of nothing) that it signs for a new one."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from eth_account import Account
from eth_account.messages import encode_defunct
from eth_utils import to_checksum_address

from include.localnet.ethereum import RpcError
from include.localnet.node.javascript import stringify
from include.localnet.provider.orders import fee_hash

if TYPE_CHECKING:
    from include.localnet.node.configuration import Node
    from include.localnet.provider.assets import Asset, Service

_TRIES = 2
_TRY_AGAIN_SECONDS = 1.0
_TOKEN = "ERC20Template"


def receipt_of(node: Node, transaction: Any) -> dict[str, Any] | None:
    """Return a transaction's receipt, None when it is not mined within a second."""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_TRY_AGAIN_SECONDS)
        try:
            receipt = node.chain.receipt(str(transaction))
        except RpcError:  # no transaction hash at all
            return None
        if receipt is not None:
            return receipt
    return None


def order_problem(node: Node, transaction: Any, user: str, asset: Asset, service: Service) -> str:
    """Return why a transaction is no order of a service for a user, valid now; an empty text when it is one.

    Only calls of the datatoken itself count: upstream looks at the transaction's receiver.

    :param user: consumer or payer of the order
    """
    unmined = f"Tx receipt cannot be processed, because tx id {transaction} was not mined."
    receipt = receipt_of(node, transaction)
    if receipt is None:
        return unmined
    token = service.datatoken
    direct = to_checksum_address(receipt["to"]) == token if receipt["to"] else False
    reused = node.chain.events_of(receipt, _TOKEN, "OrderReused", token)
    if reused:
        receipt = receipt_of(node, "0x" + reused[0].arguments["orderTxId"].hex())
        if receipt is None:
            return unmined
    started = [
        event.arguments
        for event in node.chain.events_of(receipt, _TOKEN, "OrderStarted", token)
        if user.lower() in (event.arguments["consumer"].lower(), event.arguments["payer"].lower())
    ]
    if not started or not direct or int(receipt["status"], 16) != 1:
        return (
            "Tx id used not valid, one of the NFT addresses, Datatoken address or the User address contract address "
            "does not match."
        )
    if started[0]["serviceIndex"] != service.index:
        return "Invalid service index."
    if not node.chain.call(asset.nft_address, "ERC721Template", "isDeployed", token):
        return "Datatoken was not deployed by this DataNFT."
    block = node.chain.block(int(receipt["blockNumber"], 16))
    mined_at = int(block["timestamp"], 16) if block else 0
    if service.timeout and time.time() - mined_at > service.timeout:
        return "The order has expired."
    return ""


def has_valid_fee(node: Node, receipt: dict[str, Any], service: Service) -> bool:
    """Say whether a transaction carries a fee of this node for a service, whatever its amount."""
    block = node.chain.block(int(receipt["blockNumber"], 16))
    mined_at = int(block["timestamp"], 16) if block else 0
    for event in node.chain.events_of(receipt, _TOKEN, "ProviderFee", service.datatoken):
        values = event.arguments
        try:
            data = json.loads(values["providerData"])
            ours = values["providerFeeAddress"] == node.address and data["id"] == service.id
            same_token = data["dt"].lower() == service.datatoken.lower()
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        # Upstream compares the time since the block with the moment until which the fee is good.
        valid = not values["validUntil"] or time.time() - mined_at <= values["validUntil"]
        if ours and same_token and valid:
            return True
    return False


def signed_fee(node: Node, service: Service, valid_until: int) -> dict[str, Any]:
    """Return the fee that an order of a service must carry.

    :param valid_until: as upstream gives it: seconds since 1970 for a download, the service's time-out for a job
    """
    data = stringify({"dt": service.datatoken, "id": service.id}).encode()
    digest = fee_hash(data, node.address, node.token, 0, valid_until)
    signature = Account.sign_message(encode_defunct(digest), node.private_key)
    return {
        "providerFeeAddress": node.address,
        "providerFeeToken": node.token,
        "providerFeeAmount": "0",
        "providerData": "0x" + data.hex(),
        "v": signature.v,
        "r": f"0x{signature.r:064x}",
        "s": f"0x{signature.s:064x}",
        "validUntil": valid_until,
    }
