"""What Aquarius remembers, in SQLite: documents, orders, states of DIDs, the retry queue, and how far the chain was read.

One thread writes (and the HTTP side only adds to the retry queue); what an event changes and the position of that event
are committed together.
"""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    JSON,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    delete,
    event,
    func,
    select,
)
from sqlalchemy.dialects.sqlite import insert

from include.localnet.aquarius import VERSION
from include.localnet.service import open_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection

# An event's index that stands for "the whole block is done".
WHOLE_BLOCK = 2**31 - 1
# How many blocks' hashes are kept: a reorganisation that goes deeper makes everything be indexed anew.
_CHECKPOINTS = 256
# Seconds: upstream gives an event up after two weeks.
_RETRY_MAX_HOLD = 1_209_600
_RETRY_MAX_DELAY = 60

_schema = MetaData()
_assets = Table(
    "assets",
    _schema,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("did", String, unique=True, nullable=False),
    Column("nft", String, nullable=False),
    Column("document", Text, nullable=False),
    Column("block", Integer, nullable=False),
    Column("log_index", Integer, nullable=False),
)
_did_states = Table(
    "did_states",
    _schema,
    Column("did", String, primary_key=True),
    Column("nft", String, nullable=False),
    Column("chain_id", Integer, nullable=False),
    Column("tx_id", String, nullable=False),
    Column("valid", Integer, nullable=False),
    Column("error", Text),
)
_orders = Table(
    "orders",
    _schema,
    Column("tx", String, primary_key=True),
    Column("log_index", Integer, primary_key=True),
    Column("nft", String, nullable=False),
    Column("block", Integer, nullable=False),
    Index("orders_by_nft", "nft"),
)
_retries = Table(
    "retries",
    _schema,
    Column("id", String, primary_key=True),
    Column("element", JSON, nullable=False),
    Column("next_retry", Float, nullable=False),
    Column("nft", String),
    Column("block", Integer),
)
_checkpoints = Table(
    "checkpoints", _schema, Column("block", Integer, primary_key=True), Column("hash", String, nullable=False)
)
_touched = Table(
    "touched", _schema, Column("nft", String, primary_key=True), Column("block", Integer, primary_key=True)
)
_rebuilds = Table("rebuilds", _schema, Column("nft", String, primary_key=True))
_facts = Table(
    "facts", _schema, Column("name", String, primary_key=True), Column("value", JSON, nullable=False)
)


@dataclass(frozen=True, order=True)
class Position:
    """A place on the chain: block number and index of the log entry in it."""

    block: int
    index: int


@dataclass(frozen=True)
class StoredAsset:
    """A document and the position of the metadata event it comes from."""

    document: dict[str, Any]
    position: Position


@dataclass(frozen=True)
class Retry:
    """An entry of the retry queue in upstream's form."""

    id: str
    element: dict[str, Any]

    @property
    def expired(self) -> bool:
        """Whether it was tried for so long that it is given up."""
        return time.time() > float(self.element["create_timestamp"]) + _RETRY_MAX_HOLD


class Store:
    """The database of one Aquarius."""

    def __init__(self, path: Path) -> None:
        self._engine = open_database(path)

        @event.listens_for(self._engine, "connect")
        def _leave_transactions_to_us(connection: Any, _record: object) -> None:
            connection.isolation_level = None

        @event.listens_for(self._engine, "begin")
        def _begin(connection: Connection) -> None:
            # A transaction that reads first and writes later must hold the lock from the start, or SQLite refuses it.
            writes = connection.get_execution_options().get("writes", False)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

        self._writing = self._engine.execution_options(writes=True)
        with self.transaction() as connection:
            _schema.create_all(connection)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Open a transaction that holds the write lock."""
        with self._writing.begin() as connection:
            yield connection

    # --- documents -------------------------------------------------------------------------------

    def asset(self, did: str, connection: Connection | None = None) -> StoredAsset | None:
        """Return an asset's document, None when there is none."""
        query = select(_assets.c.document, _assets.c.block, _assets.c.log_index).where(_assets.c.did == did)
        if connection is None:
            with self._engine.connect() as reading:
                row = reading.execute(query).first()
        else:
            row = connection.execute(query).first()
        return StoredAsset(json.loads(row[0]), Position(row[1], row[2])) if row else None

    def documents(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield every DID and document, oldest first, as one moment of the database has them."""
        query = select(_assets.c.did, _assets.c.document).order_by(_assets.c.number)
        with self._engine.connect() as connection:
            for did, document in connection.execution_options(yield_per=50).execute(query):
                yield did, json.loads(document)

    def put_asset(
        self, connection: Connection, did: str, nft: str, document: dict[str, Any], position: Position
    ) -> None:
        """Store or replace a document."""
        values = {
            "nft": nft,
            "document": json.dumps(document),
            "block": position.block,
            "log_index": position.index,
        }
        statement = insert(_assets).values(did=did, **values)
        connection.execute(statement.on_conflict_do_update(index_elements=["did"], set_=values))

    # --- orders ----------------------------------------------------------------------------------

    def add_order(self, connection: Connection, nft: str, tx: str, position: Position) -> None:
        """Remember an order; the same one again changes nothing."""
        statement = insert(_orders).values(tx=tx, log_index=position.index, nft=nft, block=position.block)
        connection.execute(statement.on_conflict_do_nothing())

    def order_count(self, connection: Connection, nft: str) -> int:
        """Return how many orders an NFT's datatokens had."""
        query = select(func.count()).select_from(_orders).where(_orders.c.nft == nft)
        return int(connection.execute(query).scalar_one())

    # --- states of DIDs --------------------------------------------------------------------------

    def put_did_state(
        self, connection: Connection, did: str, nft: str, chain_id: int, tx: str, error: str | None
    ) -> None:
        """Store what came of the last metadata event of a DID."""
        values = {"nft": nft, "chain_id": chain_id, "tx_id": tx, "valid": error is None, "error": error}
        statement = insert(_did_states).values(did=did, **values)
        connection.execute(statement.on_conflict_do_update(index_elements=["did"], set_=values))

    def did_state(
        self, chain_id: str | None, nft: str | None, tx: str | None, did: str | None
    ) -> dict[str, Any] | None:
        """Return the first state that fits all that is given."""
        query = select(_did_states)
        if chain_id:
            query = query.where(_did_states.c.chain_id == chain_id)
        if nft:
            query = query.where(func.lower(_did_states.c.nft) == nft.lower())
        if tx:
            query = query.where(func.lower(_did_states.c.tx_id) == tx.lower())
        if did:
            query = query.where(_did_states.c.did == did)
        with self._engine.connect() as connection:
            row = connection.execute(query).mappings().first()
        return dict(row, valid=bool(row["valid"])) if row else None

    # --- retry queue -----------------------------------------------------------------------------

    def put_retry(
        self,
        connection: Connection,
        element: dict[str, Any],
        *,
        nft: str | None = None,
        block: int | None = None,
    ) -> None:
        """Queue an element, or, when it is queued already, put it off: 1, 2, 4, ... 60 seconds.

        :param element: upstream's ``{type, chain_id, data, ...}``
        """
        identity = {key: element[key] for key in ("chain_id", "type", "data")}
        number = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
        known = connection.execute(select(_retries.c.element).where(_retries.c.id == number)).scalar()
        now = time.time()
        tries = known["number_retries"] + 1 if known else 0
        due = now + min(2.0 ** min(tries, 10), _RETRY_MAX_DELAY)
        stored = {
            **element,
            "id": number,
            "number_retries": tries,
            "next_retry": int(due),
            "create_timestamp": known["create_timestamp"] if known else int(now),
        }
        values = {"element": stored, "next_retry": due, "nft": nft, "block": block}
        statement = insert(_retries).values(id=number, **values)
        connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))

    def drop_retry(self, connection: Connection, retry: Retry) -> None:
        """Take an element off the queue."""
        connection.execute(delete(_retries).where(_retries.c.id == retry.id))

    def due_retries(self, chain_id: int) -> list[Retry]:
        """Return the elements of a chain whose time has come, the longest due first."""
        query = select(_retries).where(_retries.c.next_retry <= time.time()).order_by(_retries.c.next_retry)
        with self._engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        return [
            Retry(row["id"], row["element"])
            for row in rows
            if str(row["element"]["chain_id"]) == str(chain_id)
        ]

    def retry_queue(
        self, chain_id: str | None, nft: str | None, did: str | None, kind: str | None
    ) -> list[dict[str, Any]]:
        """Return the elements that fit all that is given."""
        with self._engine.connect() as connection:
            elements = connection.execute(
                select(_retries.c.element).order_by(_retries.c.next_retry)
            ).scalars()
            return [
                element
                for element in elements
                if (not chain_id or str(element["chain_id"]) == chain_id)
                and (not nft or str(element.get("nft_address")).lower() == nft.lower())
                and (not did or element.get("did") == did)
                and (not kind or element["type"] == kind)
            ]

    # --- how far the chain was read --------------------------------------------------------------

    def position(self) -> Position | None:
        """Return the position of the last event that was indexed, None before the first."""
        value = self._fact("position")
        return Position(*value) if value else None

    def chain_status(self) -> tuple[int, dict[str, Any]] | None:
        """Return the chain's id and upstream's ``{last_block, version}``, None before a chain was seen."""
        identity, position = self._fact("identity"), self.position()
        if identity is None or position is None:
            return None
        last = position.block if position.index == WHOLE_BLOCK else position.block - 1
        return int(identity["chain_id"]), {"last_block": last, "version": VERSION}

    def advance(self, connection: Connection, position: Position, block_hash: str) -> None:
        """Move forward to a position; never back."""
        current = connection.execute(select(_facts.c.value).where(_facts.c.name == "position")).scalar()
        if current is not None and Position(*current) >= position:
            return
        self._put_fact(connection, "position", [position.block, position.index])
        statement = insert(_checkpoints).values(block=position.block, hash=block_hash)
        connection.execute(
            statement.on_conflict_do_update(index_elements=["block"], set_={"hash": block_hash})
        )
        oldest = (
            select(_checkpoints.c.block).order_by(_checkpoints.c.block.desc()).offset(_CHECKPOINTS).limit(1)
        )
        limit = connection.execute(oldest).scalar()
        if limit is not None:
            connection.execute(delete(_checkpoints).where(_checkpoints.c.block <= limit))
            connection.execute(delete(_touched).where(_touched.c.block <= limit))

    def checkpoints(self) -> list[tuple[int, str]]:
        """Return the known blocks' numbers and hashes, newest first."""
        query = select(_checkpoints.c.block, _checkpoints.c.hash).order_by(_checkpoints.c.block.desc())
        with self._engine.connect() as connection:
            return [(row[0], row[1]) for row in connection.execute(query)]

    def touch(self, connection: Connection, nft: str, block: int) -> None:
        """Remember that a block changed an NFT's document, for the case that the block goes away."""
        connection.execute(insert(_touched).values(nft=nft, block=block).on_conflict_do_nothing())

    def adopt(self, chain_id: int, factory: str, start_block: int) -> None:
        """Make sure that what is stored is of this chain and factory; anything else is forgotten."""
        identity = {"chain_id": chain_id, "factory": factory}
        if self._fact("identity") == identity:
            return
        self.forget_everything(start_block, identity)

    def forget_everything(self, start_block: int, identity: dict[str, Any] | None = None) -> None:
        """Start anew at a block, for a chain that is not the one indexed before.

        Requests to cache a transaction stay: they were made by a user, of the chain as it is now.
        """
        with self.transaction() as connection:
            for table in (_assets, _did_states, _orders, _checkpoints, _touched, _rebuilds):
                connection.execute(delete(table))
            connection.execute(delete(_retries).where(_retries.c.block.is_not(None)))
            self._put_fact(connection, "position", [start_block - 1, WHOLE_BLOCK])
            if identity is not None:
                self._put_fact(connection, "identity", identity)

    def roll_back(self, block: int) -> None:
        """Forget what came from blocks after one; NFTs that those blocks changed are queued to be rebuilt."""
        with self.transaction() as connection:
            changed = connection.execute(
                select(_touched.c.nft).where(_touched.c.block > block).distinct()
            ).scalars()
            for nft in list(changed):
                for table in (_assets, _did_states, _retries):
                    connection.execute(delete(table).where(table.c.nft == nft))
                connection.execute(insert(_rebuilds).values(nft=nft).on_conflict_do_nothing())
            for later in (_orders, _retries, _checkpoints, _touched):
                connection.execute(delete(later).where(later.c.block > block))
            self._put_fact(connection, "position", [block, WHOLE_BLOCK])

    def rebuilds(self) -> list[str]:
        """Return the NFTs whose documents have to be made again."""
        with self._engine.connect() as connection:
            return list(connection.execute(select(_rebuilds.c.nft)).scalars())

    def rebuilt(self, connection: Connection, nft: str) -> None:
        """Take an NFT off that list."""
        connection.execute(delete(_rebuilds).where(_rebuilds.c.nft == nft))

    def _fact(self, name: str) -> Any:
        with self._engine.connect() as connection:
            return connection.execute(select(_facts.c.value).where(_facts.c.name == name)).scalar()

    @staticmethod
    def _put_fact(connection: Connection, name: str, value: Any) -> None:
        statement = insert(_facts).values(name=name, value=value)
        connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"value": value}))
