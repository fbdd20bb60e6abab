"""The thread that follows the chain: asks for its newest block, indexes what is new, and goes back where the chain did."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx

from include.localnet.aquarius.contracts import Addresses, NetworkUnknownError, OceanContracts
from include.localnet.aquarius.decryption import Decryptor, UndecryptedError
from include.localnet.aquarius.events import decoded, events_between, metadata_events
from include.localnet.aquarius.processors import EventProcessor
from include.localnet.aquarius.store import WHOLE_BLOCK, Position
from include.localnet.ethereum import Chain, RpcError, did_of

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from include.localnet.aquarius.store import Retry, Store
    from include.localnet.ethereum import Event

log = logging.getLogger(__name__)

# Seconds between two looks at the chain, and at most between two tries to reach it.
_INTERVAL = 0.5
_MAX_BACKOFF = 5.0
# Blocks asked for at once, as upstream does.
_CHUNK = 1000
# Seconds that the retry queue may take before the chain is looked at again.
_RETRY_TIME = 2.0


class ChainMovedError(Exception):
    """The chain lost a block while it was being read."""


class Indexer:
    """Follows one chain into a store.

    :param private_key: Aquarius' key, for its requests to Providers
    :param publishers: see :class:`EventProcessor`
    :param validators: see :class:`EventProcessor`
    :param interval: seconds between two looks at the chain
    """

    def __init__(
        self,
        store: Store,
        rpc_url: str,
        address_file: Path,
        private_key: str,
        *,
        publishers: set[str],
        validators: set[str],
        interval: float = _INTERVAL,
    ) -> None:
        self._store = store
        self._interval = interval
        self._rpc_url = rpc_url
        self._address_file = address_file
        self._key = private_key
        self._publishers = publishers
        self._validators = validators
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="indexer", daemon=True)

    def start(self) -> None:
        """Start following."""
        self._thread.start()

    def stop(self) -> None:
        """End, at the latest after the request that is under way."""
        self._stopping.set()
        self._thread.join(timeout=6)

    def _run(self) -> None:
        backoff = _INTERVAL
        while not self._stopping.is_set():
            try:
                follower = self._connected()
                backoff = _INTERVAL
                while not self._stopping.wait(self._interval):
                    follower.step()
            except (httpx.HTTPError, RpcError, NetworkUnknownError, ChainMovedError, ValueError) as error:
                log.warning(
                    "cannot follow %s: %s; next try in %.1f s", self._rpc_url, error or repr(error), backoff
                )
            except Exception:
                log.exception("the indexer failed; next try in %.1f s", backoff)
            self._stopping.wait(backoff)
            backoff = min(backoff * 2, _MAX_BACKOFF)

    def _connected(self) -> Follower:
        chain = Chain(self._rpc_url, timeout=10)
        addresses = Addresses.read(self._address_file, chain.chain_id)
        self._store.adopt(chain.chain_id, addresses.factory, addresses.start_block)
        contracts = OceanContracts(chain, addresses)
        processor = self._processor(contracts)
        log.info(
            "following chain %s at %s from block %s", chain.chain_id, self._rpc_url, addresses.start_block
        )
        return Follower(self._store, contracts, processor, self._stopping)

    def _processor(self, contracts: OceanContracts) -> EventProcessor:
        return EventProcessor(
            self._store,
            contracts,
            Decryptor(self._key, contracts.chain.chain_id),
            publishers=self._publishers,
            validators=self._validators,
        )


class Follower:
    """Follows a chain that was reached and whose contracts are known."""

    def __init__(
        self, store: Store, contracts: OceanContracts, processor: EventProcessor, stopping: threading.Event
    ) -> None:
        self._store = store
        self._contracts = contracts
        self._chain = contracts.chain
        self._start_block = contracts.addresses.start_block
        self._processor = processor
        self._stopping = stopping
        self._seen: str | None = None

    def step(self) -> None:
        """Index what is new since the last step, then what is due in the retry queue."""
        head = self._chain.block()
        if head is None:
            raise ChainMovedError("the chain has no newest block")
        if head["hash"] != self._seen:
            self._reconcile(int(head["number"], 16))
            self._rebuild()
            self._index(int(head["number"], 16), head["hash"])
            self._seen = head["hash"]
        self._retry()

    # --- going back ------------------------------------------------------------------------------

    def _reconcile(self, head: int) -> None:
        """Go back to the newest block that the chain and the store have in common."""
        checkpoints = self._store.checkpoints()
        for number, block_hash in checkpoints:
            block = self._chain.block(number) if number <= head else None
            if block is not None and block["hash"] == block_hash:
                if (number, block_hash) != checkpoints[0]:
                    log.warning("the chain was reorganised after block %s; indexing from there", number)
                    self._contracts.forget()
                    self._store.roll_back(number)
                return
        position = self._store.position()
        if checkpoints or (position is not None and position.block > head):
            self._store.forget_everything(self._start_block)
            raise ChainMovedError(
                "it is another chain than the one indexed before; indexing it from its start"
            )

    def _rebuild(self) -> None:
        position = self._store.position()
        for nft in self._store.rebuilds():
            for event in metadata_events(
                self._chain, nft, self._start_block, position.block if position else 0
            ):
                self._apply(event)
            with self._store.transaction() as connection:
                self._store.rebuilt(connection, nft)

    # --- going forward ---------------------------------------------------------------------------

    def _index(self, head: int, head_hash: str) -> None:
        position = self._store.position() or Position(self._start_block - 1, WHOLE_BLOCK)
        first = position.block + 1 if position.index == WHOLE_BLOCK else position.block
        while first <= head and not self._stopping.is_set():
            last = min(first + _CHUNK - 1, head)
            for event, block_hash in events_between(self._chain, first, last):
                if self._stopping.is_set():
                    return
                if Position(event.block, event.index) > position:
                    self._apply(event, block_hash)
            self._finish(last, head_hash if last == head else self._hash_of(last))
            first = last + 1

    def _hash_of(self, number: int) -> str:
        block = self._chain.block(number)
        if block is None:
            raise ChainMovedError(f"block {number} is not on the chain any more")
        block_hash: str = block["hash"]
        return block_hash

    def _finish(self, block: int, block_hash: str) -> None:
        with self._store.transaction() as connection:
            self._store.advance(connection, Position(block, WHOLE_BLOCK), block_hash)

    def _apply(self, event: Event, block_hash: str | None = None) -> None:
        """Store what an event changes, or that it has to be retried, with the position that it is at."""
        write, error = self._prepared(event)
        with self._store.transaction() as connection:
            if write is not None:
                write(connection)
            else:
                self._queue(connection, event, error)
            if block_hash is not None:
                self._store.advance(connection, Position(event.block, event.index), block_hash)

    def _prepared(self, event: Event) -> tuple[Any, str]:
        try:
            return self._processor.prepare(event), ""
        except UndecryptedError as error:
            return None, str(error)
        except httpx.HTTPError:
            raise
        except Exception as error:  # one event that nobody foresaw must not stop all others
            log.exception("%s in transaction %s failed and will be retried", event.name, event.transaction)
            return None, f"Error processing {event.name} event: {error!r}"

    def _queue(self, connection: Connection, event: Event, error: str) -> None:
        did = did_of(event.address, self._chain.chain_id)
        element = {
            "type": "event",
            "nft_address": event.address,
            "did": did,
            "chain_id": self._chain.chain_id,
            "data": {"txId": event.transaction, "log_index": event.index, "event": event.name},
            "error": error,
        }
        self._store.put_retry(connection, element, nft=event.address, block=event.block)
        if event.name.startswith("Metadata"):
            self._store.touch(connection, event.address, event.block)
            self._store.put_did_state(
                connection, did, event.address, self._chain.chain_id, event.transaction, error=error
            )

    # --- trying again ----------------------------------------------------------------------------

    def _retry(self) -> None:
        deadline = time.monotonic() + _RETRY_TIME
        for retry in self._store.due_retries(self._chain.chain_id):
            if self._stopping.is_set() or time.monotonic() > deadline:
                return
            self._retry_one(retry)

    def _retry_one(self, retry: Retry) -> None:
        element = retry.element
        receipt = None if retry.expired else self._receipt(element["data"]["txId"])
        if receipt is None:
            with self._store.transaction() as connection:
                if retry.expired:
                    log.warning("gave up %s after %s tries", element["data"], element["number_retries"])
                    self._store.drop_retry(connection, retry)
                else:
                    self._store.put_retry(connection, element)
            return
        wanted = element["data"].get("log_index")
        events = [
            event
            for entry in receipt["logs"]
            if (wanted is None or int(entry["logIndex"], 16) == wanted)
            and (event := decoded(entry)) is not None
        ]
        prepared = [(event, *self._prepared(event)) for event in events]
        with self._store.transaction() as connection:
            failed = False
            for event, write, error in prepared:
                if write is not None:
                    write(connection)
                else:
                    failed = failed or element["type"] == "event"
                    self._queue(connection, event, error)
            if not failed:
                self._store.drop_retry(connection, retry)

    def _receipt(self, transaction: str) -> dict[str, Any] | None:
        try:
            return self._chain.receipt(transaction)
        except RpcError as error:  # a user may have queued anything
            log.warning("no receipt of transaction %s: %s", transaction, error)
            return None
