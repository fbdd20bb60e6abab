"""What an error means that an Ethereum node, or who hosts it, answers: codes and words differ from one to the other.

Sources: EIP-1474 (codes); geth ``rpc/errors.go``, ``core/error.go``, ``core/txpool/errors.go``; Erigon ``txpoolcfg``
(``DiscardReason``); Nethermind ``ErrorCodes.cs``, ``TxPoolErrorMessages.cs``; Besu ``RpcErrorType.java``; the lists of
errors in the documentation of Infura (MetaMask services), QuickNode and Alchemy.
"""

from __future__ import annotations

import contextlib
from typing import Any

from eth_abi import decode
from eth_abi.exceptions import DecodingError

from airflow_ocean.c2d.errors import FatalError

# Solidity's Error(string) and Panic(uint256), https://docs.soliditylang.org/en/latest/control-structures.html
_ERROR_SELECTOR = "0x08c379a0"
_PANIC_SELECTOR = "0x4e487b71"

# What nodes say of these may be about the contract or the transaction; of all else, about the node, or a wrong request.
_JUDGED = ("eth_call", "eth_estimateGas", "eth_sendRawTransaction")
_REVERTED = 3
_REVERTS = ("revert", "vm execution", "vm exception", "evm error")
_WRONG_REQUEST = (-32700, -32600, -32601, -32602, -32604, -32004)
_UNSUPPORTED = ("not supported", "unsupported", "does not exist")
_LIMIT_CODES = (-32005, 429)
_LIMITS = (
    "limit exceeded", "limit reached", "rate limit", "rate exceeded", "request limit", "too many requests",
    "count exceeded", "compute units",
)  # fmt: skip
# Internal error, resource unavailable (geth's time-out, too), and the time-outs of Nethermind.
_PASSING_CODES = (-32603, -32002, -32016, -32017)
_PASSING = (
    # One of several nodes behind an endpoint is a few blocks behind, or has dropped the state.
    "header not found", "header for hash not found", "block not found", "unknown block", "missing trie node",
    "state is not available", "state unavailable", "nonce too high", "nonce gap",
    # The node is at its limits, or not ready.
    "is full", "not started", "syncing", "sync is", "in progress", "internal error", "internal server error",
    "timeout", "timed out", "deadline exceeded", "unavailable", "overloaded", "try again",
    "bad gateway", "no healthy upstream", "connection re",
)  # fmt: skip
KNOWN = ("already known", "alreadyknown", "already imported", "known transaction", "same hash")
"""The node has this very transaction."""
NONCE_TAKEN = ("nonce too low", "oldnonce", "underpriced", "could not replace", "replacementnotallowed")
"""The chain, or what waits for a block, has another transaction at this nonce, or this one pays too little."""
TOO_CHEAP = ("less than block base fee", "fee too low", "feetoolow")
"""The base fee has risen above what a transaction pays, which the node refuses to keep until it falls."""
_REFUSALS = (*KNOWN, *NONCE_TAKEN, "nonce", "insufficient", "exceeds", "intrinsic gas", "signature")


class RpcError(FatalError):
    """A node refused a request.

    :param what: what was asked, and where
    :param error: the ``error`` of its answer
    """

    def __init__(self, what: str, error: Any) -> None:
        described = error if isinstance(error, dict) else {"message": error}
        self.text = str(described.get("message", error))[:500]
        self.code = described.get("code")
        self.data = described.get("data")
        super().__init__(
            f"{what} refuses it: {self.text} (code {self.code}); is it the RPC of an ordinary Ethereum node?"
        )

    def says(self, phrases: tuple[str, ...]) -> bool:
        """Whether the node's words have one of these phrases, written small."""
        text = self.text.lower()
        return any(phrase in text for phrase in phrases)

    @property
    def is_limit(self) -> bool:
        """Whether more was asked than is allowed for now."""
        return self.code in _LIMIT_CODES or self.says(_LIMITS)

    def passes(self, method: str) -> bool:
        """Say whether the same request may be answered later. Where it is not clear, a retry that is in vain does no harm.

        :param method: what was asked
        """
        if method in _JUDGED:
            # Codes alone do not tell: hosts give refusals the code of an internal error, Besu has codes of its own.
            if self.code == _REVERTED or self.says(_REVERTS):
                return False
            if self.says(_PASSING) or self.says(_LIMITS):
                return True
            return (self.code in _PASSING_CODES or self.code in _LIMIT_CODES) and not self.says(_REFUSALS)
        if self.says(_PASSING) or self.says(_LIMITS):
            return True
        return self.code not in _WRONG_REQUEST and not self.says(_UNSUPPORTED)


def revert_reason(error: RpcError) -> str:
    """Return why a call reverted, decoded from the returned data where it has a reason."""
    data = error.data
    if isinstance(data, dict):  # some nodes wrap it
        data = data.get("data") or data.get("result")
    with contextlib.suppress(DecodingError, ValueError):  # a contract may return anything
        if isinstance(data, str) and data.startswith(_ERROR_SELECTOR):
            return str(decode(["string"], bytes.fromhex(data[10:]))[0])
        if isinstance(data, str) and data.startswith(_PANIC_SELECTOR):
            return f"panic 0x{decode(['uint256'], bytes.fromhex(data[10:]))[0]:x}"
    return error.text.removeprefix("execution reverted: ")
