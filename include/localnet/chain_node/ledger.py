"""The chain's only writer: carries out one change at a time, mines, journals, saves, and brings the chain back."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import logging
import time
from typing import TYPE_CHECKING, Any

from include.localnet.chain_node.anvil import AnvilError
from include.localnet.chain_node.methods import Effect, effect_of, quantity

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from include.localnet.chain_node.anvil import Anvil
    from include.localnet.chain_node.journal import Journal, Record

log = logging.getLogger(__name__)

_INVALID_PARAMS = -32602
_METHOD_NOT_FOUND = -32601

Call = dict[str, Any]
# Timestamp (Unix seconds) and hash.
Blocks = list[tuple[int, str]]


class Ledger:
    """The chain as it is kept.

    A change is journaled before it is answered, and no read is answered while a change is neither journaled nor
    refused. So what anyone has seen is on the disk. Anvil does not mine by itself: when it does, nobody knows where one
    block ends before others can see it. What a block's hash depends on are its parent, its transactions and its
    timestamp, so blocks mined again with journaled timestamps are the same ones.

    :param block_time: seconds between blocks; None mines each transaction at once
    """

    def __init__(self, anvil: Anvil, journal: Journal, block_time: int | None) -> None:
        self._anvil = anvil
        self._journal = journal
        self._automine = block_time is None
        self._interval = block_time or 0
        self._interval_changed = asyncio.Event()
        self._lock = asyncio.Lock()
        self._change: asyncio.Future[None] | None = None
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._head = 0
        # Signed transactions by hash in the order of their arrival, so that a pool can be filled in the same order.
        self._sent: dict[str, str] = {}
        self._impersonating = False
        # Something was changed that acts on the next block and is not in its header, so that the block cannot be
        # mined again from the journal.
        self._next_block_is_special = False

    # --- coming back -----------------------------------------------------------------------------

    async def restore(self) -> None:
        """Start anvil with all that was ever answered.

        :raises AnvilEnded: when it does not start
        :raises JournalDamaged: when the journal cannot be read
        """
        saved, records = self._journal.load()
        await self._anvil.start(self._journal.state)
        # A fresh anvil's clock does not go back behind its start, unless it is told to.
        await self._anvil.request("evm_setTime", int((await self._latest())["timestamp"], 16))
        if saved.base_fee is not None:
            # Anvil would work it out from the block before, but for the first block it makes an exception, once.
            await self._anvil.request("anvil_setNextBlockBaseFeePerGas", saved.base_fee)
        for raw in saved.pool:
            await self._send_again(raw)
        for record in records:
            await self._repeat(record)
        head = int((await self._latest())["timestamp"], 16)
        # Mining with given timestamps has moved anvil's clock. It goes on from now, but never behind the last block.
        await self._anvil.request("evm_setTime", max(int(time.time()), head))
        await self._save()
        if records:
            log.info("brought %s changes back, up to block %s", len(records), self._head)

    async def _send_again(self, raw: str) -> None:
        try:
            self._sent[await self._anvil.request("eth_sendRawTransaction", raw)] = raw
        except AnvilError as error:
            log.error("a transaction could not be brought back (%s): %s", error, raw)

    async def _repeat(self, record: Record) -> None:
        if record.transaction is not None:
            await self._send_again(record.transaction)
        for timestamp, block_hash in record.blocks:
            ((_, found),) = await self._mine(timestamp)
            if found != block_hash:
                log.error("block %s was %s, it has come back as %s", self._head, block_hash, found)

    async def close(self) -> None:
        """Save what only the journal has, for a quick start the next time."""
        async with self._lock:
            if self._journal.unsaved:
                await self._save()

    # --- answering -------------------------------------------------------------------------------

    async def read(self, body: bytes, content_type: str) -> tuple[int, bytes]:
        """Answer a request that changes nothing."""
        answer = await self._anvil.post(body, content_type)
        if self._change is not None:
            await asyncio.shield(self._change)
        return answer

    async def carry_out(self, call: Call) -> Call:
        """Carry out one JSON-RPC call that may change the chain, and return its answer."""
        effect = effect_of(call["method"])
        if effect is Effect.MINER:
            return self._set_miner(call)
        if effect is Effect.REFUSED:
            return _error(
                call,
                _METHOD_NOT_FOUND,
                f"{call['method']} is not offered: send the transaction, ask for its receipt",
            )
        async with self._changing():
            # With an id of its own: a call without one gets no answer, and anvil's answer is needed here.
            _, body = await self._anvil.post(json.dumps(call | {"id": 0}).encode())
            answer: Call = json.loads(body)
            if "error" not in answer:
                await self._keep(effect, call, answer["result"])
            return answer | {"id": call.get("id")}

    @contextlib.asynccontextmanager
    async def _changing(self) -> AsyncIterator[None]:
        """Let one change at a time through; when one can't be kept, let nothing through any more."""
        async with self._lock:
            if self._failure.done():
                await self._failure
            self._change = asyncio.get_running_loop().create_future()
            try:
                yield
                self._change.set_result(None)
                self._change = None
                if self._journal.is_long:
                    await self._save()
            except Exception as error:
                # Anvil may be ahead of the disk. Reads wait for a change that never ends, until this process does.
                if not self._failure.done():
                    self._failure.set_exception(error)
                raise

    async def failed(self) -> None:
        """Wait for a change that could not be kept, and raise why."""
        await asyncio.shield(self._failure)

    async def _keep(self, effect: Effect, call: Call, result: Any) -> None:
        if effect is Effect.TRANSACTION:
            await self._keep_transaction(result, call["params"][0])
        elif effect is Effect.OWN_TRANSACTION and not self._impersonating:
            await self._keep_transaction(
                result, await self._anvil.request("eth_getRawTransactionByHash", result)
            )
        elif effect is Effect.BLOCKS:
            await self._write_down(None, await self._new_blocks())
        elif effect is not Effect.CLOCK:
            if effect is Effect.IMPERSONATION:
                self._impersonating = True
            if call["method"].startswith("eth_send"):
                await self._mine_what_is_ready()
            await self._save()
            self._next_block_is_special = True

    async def _keep_transaction(self, transaction_hash: str, raw: str) -> None:
        self._sent[transaction_hash] = raw
        await self._write_down(raw, await self._mine_what_is_ready())

    async def _write_down(self, raw: str | None, blocks: Blocks) -> None:
        if blocks and self._next_block_is_special:
            await self._save()
            self._next_block_is_special = False
        elif blocks or raw is not None:
            self._journal.append(raw, blocks)

    async def _latest(self) -> dict[str, Any]:
        block: dict[str, Any] = await self._anvil.request("eth_getBlockByNumber", "latest", False)
        return block

    async def _new_blocks(self) -> Blocks:
        numbers = range(self._head + 1, int(await self._anvil.request("eth_blockNumber"), 16) + 1)
        found = [await self._anvil.request("eth_getBlockByNumber", hex(number), False) for number in numbers]
        return self._known(found)

    def _known(self, new: list[dict[str, Any]]) -> Blocks:
        if new:
            self._head = int(new[-1]["number"], 16)
        return [(int(block["timestamp"], 16), block["hash"]) for block in new]

    # --- saving ----------------------------------------------------------------------------------

    async def _save(self) -> None:
        pool = await self._pool()
        pending = await self._anvil.request("eth_getBlockByNumber", "pending", False)
        dump = await self._anvil.request("anvil_dumpState")
        await asyncio.to_thread(
            lambda: self._journal.save(
                gzip.decompress(bytes.fromhex(dump[2:])), pool, pending["baseFeePerGas"]
            )
        )
        self._head = int((await self._latest())["number"], 16)

    async def _pool(self) -> list[str]:
        content = await self._anvil.request("txpool_content")
        waiting = {
            transaction["hash"]
            for kind in content.values()
            for by_nonce in kind.values()
            for transaction in by_nonce.values()
        }
        self._sent = {name: raw for name, raw in self._sent.items() if name in waiting}
        for name in sorted(waiting - self._sent.keys()):  # anvil signed them for one of its accounts
            raw = await self._anvil.request("eth_getRawTransactionByHash", name)
            if raw is not None:
                self._sent[name] = raw
        return list(self._sent.values())

    # --- mining ----------------------------------------------------------------------------------

    def _set_miner(self, call: Call) -> Call:
        """Answer as anvil does, whose own miner is switched off."""
        name = call["method"].partition("_")[2]
        result: bool | int | None = None
        if name == "getAutomine":
            result = self._automine
        elif name == "getIntervalMining":
            result = self._interval or None
        else:
            try:
                (wanted,) = call.get("params") or []
                if name == "setIntervalMining":
                    self._interval, self._automine = quantity(wanted), False
                elif isinstance(wanted, bool):
                    # As in anvil there is one way to mine at a time, and switching off what is not on changes nothing.
                    if wanted:
                        self._interval, self._automine = 0, True
                    elif self._automine:
                        self._automine = False
                else:
                    raise ValueError(f"{wanted!r} is neither true nor false")
            except (ValueError, TypeError) as error:
                return _error(call, _INVALID_PARAMS, f"{call['method']}: {error}")
            self._interval_changed.set()
        return {"jsonrpc": "2.0", "id": call.get("id"), "result": result}

    async def _mine_what_is_ready(self) -> Blocks:
        if self._automine and int((await self._anvil.request("txpool_status"))["pending"], 16):
            return await self._mine()
        return []

    async def _mine(self, *timestamp: int) -> Blocks:
        return self._known(await self._anvil.request("evm_mine_detailed", *timestamp))

    async def mine_at_intervals(self) -> None:
        """Mine a block every so often, as long as that is wanted."""
        while True:
            self._interval_changed.clear()
            try:
                async with asyncio.timeout(self._interval or None):
                    await self._interval_changed.wait()
            except TimeoutError:
                async with self._changing():
                    await self._write_down(None, await self._mine())


def _error(call: Call, code: int, message: str) -> Call:
    return {"jsonrpc": "2.0", "id": call.get("id"), "error": {"code": code, "message": message}}
