"""What the JSON-RPC methods of the chain do to it: which only read, and what has to be kept of the others."""

from __future__ import annotations

from enum import Enum, auto
from typing import Any

_READING_NAMESPACES = ("eth", "net", "web3", "txpool", "debug", "trace", "ots", "erigon", "rpc", "personal")
# The namespaces of development nodes, whose methods anvil mostly offers under several of these names.
_DEVELOPMENT = ("evm", "anvil", "hardhat", "tenderly")
_READING = ("get", "dumpState", "nodeInfo", "metadata")
_MINING = ("mine", "mine_detailed")
# What these change is in the timestamps of the blocks that follow, or has no trace on the chain.
_CLOCK = (
    "increaseTime",
    "setNextBlockTimestamp",
    "setTime",
    "setBlockTimestampInterval",
    "removeBlockTimestampInterval",
    "snapshot",
    "setLoggingEnabled",
)


class Effect(Enum):
    """What a method does to the chain, by what it takes to bring that back."""

    #: nothing
    NONE = auto()
    #: it puts a signed transaction into the pool: the transaction is journaled
    TRANSACTION = auto()
    #: it has anvil sign a transaction for one of its accounts: likewise, unless the account is an impersonated one
    OWN_TRANSACTION = auto()
    #: it lets transactions pass without their senders' signatures, which cannot be sent again: the state is saved
    IMPERSONATION = auto()
    #: it mines blocks: their timestamps are journaled
    BLOCKS = auto()
    #: it changes the time, which the next blocks' timestamps show
    CLOCK = auto()
    #: it says when blocks are mined, or asks so
    MINER = auto()
    #: anything else: the whole state is saved
    STATE = auto()
    #: it would wait for a block while it keeps the block from being mined
    REFUSED = auto()


def effect_of(method: str) -> Effect:
    """Return what a method does; one that is not known counts as one that changes anything."""
    namespace, _, name = method.partition("_")
    if namespace in _READING_NAMESPACES:
        return _effect_of_sending(method) if name.startswith("send") else Effect.NONE
    if namespace not in _DEVELOPMENT:
        return Effect.STATE
    if name in ("setAutomine", "setIntervalMining", "getAutomine", "getIntervalMining"):
        return Effect.MINER
    if name in _MINING:
        return Effect.BLOCKS
    if name in _CLOCK:
        return Effect.CLOCK
    if "mpersonat" in name:
        return Effect.IMPERSONATION
    return Effect.NONE if name.startswith(_READING) else Effect.STATE


def _effect_of_sending(method: str) -> Effect:
    if method.endswith("Sync"):
        return Effect.REFUSED
    if method.startswith("eth_sendRawTransaction"):
        return Effect.TRANSACTION
    return Effect.OWN_TRANSACTION if method == "eth_sendTransaction" else Effect.IMPERSONATION


def quantity(value: Any) -> int:
    """Return a number given as a JSON number or as a hexadecimal text.

    :raises ValueError: when it is no number of at least 0
    """
    number = int(value, 16) if isinstance(value, str) else value
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise ValueError(f"{value!r} is no number of seconds")
    return number
