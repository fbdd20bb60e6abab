"""A DDO as the node serves it, made of the one that Aquarius' index holds."""

from __future__ import annotations

from typing import Any

# What Aquarius adds at the top level.
_AQUARIUS_FIELDS = ("event", "nft", "stats", "purgatory", "datatokens")


def node_document(stored: dict[str, Any]) -> dict[str, Any]:
    """Return a DDO in the node's form: what is known from the chain is in ``datatokens`` and ``indexedMetadata``."""
    nft, event = stored["nft"], stored["event"]
    if "id" not in stored:  # deprecated or revoked
        return {
            "version": "deprecated",
            "nftAddress": nft["address"],
            "indexedMetadata": {"nft": {"state": nft["state"]}},
        }
    prices, orders = _prices(stored["stats"].get("price") or {}), stored["stats"]["orders"]
    tokens = stored["datatokens"]
    return {
        **{key: value for key, value in stored.items() if key not in _AQUARIUS_FIELDS},
        "datatokens": tokens,
        "indexedMetadata": {
            "stats": [
                {
                    "datatokenAddress": token["address"],
                    "name": token["name"],
                    "symbol": token["symbol"],
                    "serviceId": token["serviceId"],
                    # The index counts the orders of an asset; upstream those of each datatoken.
                    "orders": orders,
                    "prices": prices,
                }
                for token in tokens
            ],
            "nft": {
                "state": nft["state"],
                "address": nft["address"],
                "name": nft["name"],
                "symbol": nft["symbol"],
                "owner": nft["owner"],
                "created": f"{nft['created']}Z",
                "tokenURI": nft["tokenURI"],
            },
            "event": {
                "txid": event["tx"],
                "from": event["from"],
                "contract": event["contract"],
                "block": event["block"],
                "datetime": f"{event['datetime']}.000Z",
            },
            "purgatory": {"state": False},
        },
    }


def _prices(price: dict[str, Any]) -> list[dict[str, Any]]:
    if not price:
        return []
    if "tokenAddress" not in price:
        return [{"type": "dispenser", "price": "0"}]
    return [{"type": "fixedrate", "price": str(price["value"]), "token": price["tokenAddress"]}]
