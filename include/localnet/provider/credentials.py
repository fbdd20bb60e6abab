"""Whether an asset may be consumed now, and by whom: its state on the chain and its allow and deny lists."""

from __future__ import annotations

import json
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from include.localnet.provider.assets import Asset
    from include.localnet.provider.configuration import Provider

# Active and unlisted; https://docs.oceanprotocol.com/developers/metadata#state-indices-and-description
CONSUMABLE_STATES = (0, 5)


class ConsumableCodes(Enum):
    """Upstream's codes; clients see their names."""

    OK = 0
    ASSET_DISABLED = 1
    CONNECTIVITY_FAIL = 2
    CREDENTIAL_NOT_IN_ALLOW_LIST = 3
    CREDENTIAL_IN_DENY_LIST = 4


class MalformedCredentials(Exception):
    """The asset's credentials cannot be read."""


def _addresses(credentials: Any, kind: str) -> list[str]:
    """Return the lower-case addresses of a list; of several address entries the first counts, as upstream."""
    try:
        if isinstance(credentials, str):
            credentials = json.loads(credentials)
        entries = [e for e in credentials.get(kind) or [] if e.get("type") == "address"]
        return [str(address).lower() for address in entries[0]["values"]] if entries else []
    except KeyError as error:
        raise MalformedCredentials("No values key in the address credential.") from error
    except (ValueError, AttributeError, TypeError) as error:
        raise MalformedCredentials("The asset's credentials are malformed.") from error


def access_of(asset: Asset, address: str) -> ConsumableCodes:
    """Say whether an address may consume an asset; with an allow list the deny list does not count.

    :raises MalformedCredentials: when the asset's lists cannot be read
    """
    if not asset.metadata or asset.nft.get("state", 0) not in CONSUMABLE_STATES:
        return ConsumableCodes.ASSET_DISABLED
    allowed = _addresses(asset.credentials, "allow")
    denied = _addresses(asset.credentials, "deny")
    if allowed and address.lower() not in allowed:
        return ConsumableCodes.CREDENTIAL_NOT_IN_ALLOW_LIST
    if not allowed and address.lower() in denied:
        return ConsumableCodes.CREDENTIAL_IN_DENY_LIST
    return ConsumableCodes.OK


def refusal_of(provider: Provider, asset: Asset, address: Any) -> str:
    """Return why an asset may not be consumed by an address, an empty text when it may."""
    nft_address = asset.nft.get("address")
    if not nft_address or not asset.chain_id:
        return "Asset malformed or disabled."
    # Aquarius may lag behind: the chain has the last word on the state.
    state = provider.chain.call(nft_address, "ERC721Template", "getMetaData")[2]
    if state not in CONSUMABLE_STATES:
        return "Asset is not consumable."
    try:
        code = access_of(asset, str(address))
    except MalformedCredentials as error:
        return str(error)
    if code is ConsumableCodes.OK:
        return ""
    return f"Error: Access to asset {asset.did} was denied with code: {code}."
