"""Which events of the Ocean contracts Aquarius follows, and how they are fetched."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

from include.localnet.ethereum import RpcError, decode_event, event_topic

if TYPE_CHECKING:
    from include.localnet.ethereum import Chain, Event

log = logging.getLogger(__name__)

METADATA = ("MetadataCreated", "MetadataUpdated")
_FOLLOWED = (
    ("ERC721Template", "MetadataCreated"),
    ("ERC721Template", "MetadataUpdated"),
    ("ERC721Template", "MetadataState"),
    ("ERC721Template", "TokenURIUpdate"),
    ("ERC20Template", "OrderStarted"),
    ("FixedRateExchange", "ExchangeCreated"),
    ("FixedRateExchange", "ExchangeRateChanged"),
    ("Dispenser", "DispenserCreated"),
)
# Every data NFT contract has one token, of this number.
_TOKEN_ONE = "0x" + "1".rjust(64, "0")


@functools.cache
def _contracts_by_topic() -> dict[str, tuple[str, str]]:
    topics = {event_topic(contract, event): (contract, event) for contract, event in _FOLLOWED}
    return {**topics, event_topic("ERC721Template", "Transfer"): ("ERC721Template", "Transfer")}


def decoded(raw: dict[str, Any]) -> Event | None:
    """Decode a log entry; None when it is of no interest, or of a contract that only looks like one of Ocean's."""
    known = _contracts_by_topic().get(raw["topics"][0] if raw["topics"] else "")
    if known is None:
        return None
    try:
        return decode_event(*known, raw)
    except Exception as error:  # anybody may emit such a topic with any data; eth-abi has a dozen error types
        log.debug("skipped a malformed %s of %s: %s", known[1], raw["address"], error)
        return None


def _raw_logs(
    chain: Chain, first: int, last: int, topics: list[Any], address: str | None
) -> list[dict[str, Any]]:
    criteria: dict[str, Any] = {"fromBlock": hex(first), "toBlock": hex(last), "topics": topics}
    if address:
        criteria["address"] = address
    try:
        found: list[dict[str, Any]] = chain.request("eth_getLogs", criteria)
    except RpcError:
        # Public nodes limit how much one answer may hold.
        if first >= last:
            raise
        middle = (first + last) // 2
        return _raw_logs(chain, first, middle, topics, address) + _raw_logs(
            chain, middle + 1, last, topics, address
        )
    return found


def events_between(chain: Chain, first: int, last: int) -> list[tuple[Event, str]]:
    """Return the events of a block range in chain order, each with its block's hash."""
    followed = [event_topic(contract, event) for contract, event in _FOLLOWED]
    transfer = event_topic("ERC721Template", "Transfer")
    raw = _raw_logs(chain, first, last, [followed], None)
    # Without the token's number every payment in any ERC20 token would come, too: it has the same topic.
    raw += _raw_logs(chain, first, last, [transfer, None, None, _TOKEN_ONE], None)
    found = [(event, entry["blockHash"]) for entry in raw if (event := decoded(entry)) is not None]
    return sorted(found, key=lambda pair: (pair[0].block, pair[0].index))


def metadata_events(chain: Chain, nft: str, first: int, last: int) -> list[Event]:
    """Return the events that published metadata of one data NFT, in chain order."""
    topics = [event_topic("ERC721Template", event) for event in METADATA]
    raw = _raw_logs(chain, first, last, [topics], nft)
    return [event for entry in raw if (event := decoded(entry)) is not None]
