"""What each event of the chain changes: reads the chain and the Provider first, then hands back what is to be written.

Every change can be made twice without harm: documents remember the position of their metadata event, orders are kept
one by one, and whatever else a contract knows is read as it is now.
"""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from eth_utils import is_address, to_checksum_address

from include.localnet.aquarius.contracts import services_of
from include.localnet.aquarius.decryption import RefusedError, UndecryptedError
from include.localnet.aquarius.events import METADATA, metadata_events
from include.localnet.aquarius.store import Position
from include.localnet.aquarius.validation import UnknownSchemaError, validation_errors
from include.localnet.ethereum import did_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from include.localnet.aquarius.contracts import OceanContracts
    from include.localnet.aquarius.decryption import Decryptor
    from include.localnet.aquarius.store import Store
    from include.localnet.ethereum import Event

log = logging.getLogger(__name__)

# Metadata states: active, end of life, deprecated, revoked, ordering disabled, unlisted.
_SOFT_DELETED = (2, 3)
# The Provider's words for the states in which it decrypts for nobody. It asks the chain as it is now; what needs no
# Provider is also indexed when such a state came later, as if it had been indexed before.
_CLOSED = {1: "Asset end of life", 2: "Asset deprecated", 3: "Asset revoked"}
# What is left of a document in a soft-deleted state.
_STUB_FIELDS = ("event", "nft", "datatokens", "stats")


class Write(Protocol):
    """A change, made in the caller's transaction."""

    def __call__(self, connection: Connection) -> None:
        """Make the change."""


def _nothing(connection: Connection) -> None:
    """Change nothing."""


def addresses_from_environment(variable: str) -> set[str]:
    """Return the addresses of a JSON list in the environment; none when it is not set.

    :raises SystemExit: when it is no list of addresses
    """
    text = os.environ.get(variable)
    try:
        found = json.loads(text) if text else []
        return {to_checksum_address(address) for address in found}
    except (ValueError, TypeError) as error:
        raise SystemExit(f"{variable} must be a JSON list of addresses, not {text!r}: {error}") from error


class EventProcessor:
    """Turns events into changes.

    :param publishers: whose assets are indexed; empty for everybody's (upstream's ``ALLOWED_PUBLISHERS``)
    :param validators: of whom a DDO needs a proof; empty for no need (upstream's ``ALLOWED_VALIDATORS``)
    """

    def __init__(
        self,
        store: Store,
        contracts: OceanContracts,
        decryptor: Decryptor,
        *,
        publishers: set[str],
        validators: set[str],
    ) -> None:
        self._store = store
        self._contracts = contracts
        self._decryptor = decryptor
        self._publishers = publishers
        self._validators = validators
        self._chain = contracts.chain
        self.chain_id = contracts.chain.chain_id

    def prepare(self, event: Event) -> Write:
        """Return what an event changes.

        :raises UndecryptedError: when a Provider stands in the way; the event has to be tried again
        :raises httpx.HTTPError: when the chain does not answer
        """
        if event.name in METADATA:
            return self._metadata(event)
        if event.name == "MetadataState":
            return self._state(event)
        if event.name in ("TokenURIUpdate", "Transfer"):
            return self._refreshed_nft(event)
        if event.name == "OrderStarted":
            return self._order(event)
        return self._priced(event, self._datatoken_of(event))

    # --- metadata --------------------------------------------------------------------------------

    def _metadata(self, event: Event) -> Write:
        did = did_of(event.address, self.chain_id)
        stored = self._store.asset(did)
        position = Position(event.block, event.index)
        if stored and (
            stored.position > position or (stored.position == position and "id" in stored.document)
        ):
            return _nothing
        try:
            document = self._document(event, did, stored.document if stored else None)
        except RefusedError as error:
            log.warning("%s (transaction %s) is not indexed: %s", did, event.transaction, error)
            return self._refused(event, did, str(error))
        except UndecryptedError as error:
            log.warning("%s (transaction %s) has to wait: %s", did, event.transaction, error)
            raise

        def write(connection: Connection) -> None:
            document["stats"]["orders"] = self._store.order_count(connection, event.address)
            self._store.put_asset(connection, did, event.address, document, position)
            self._store.put_did_state(
                connection, did, event.address, self.chain_id, event.transaction, error=None
            )
            self._store.touch(connection, event.address, event.block)
            log.info("DDO saved: did=%s, chainId=%s, block=%s", did, self.chain_id, event.block)

        return write

    def _refused(self, event: Event, did: str, reason: str) -> Write:
        def write(connection: Connection) -> None:
            self._store.put_did_state(
                connection, did, event.address, self.chain_id, event.transaction, error=reason
            )
            self._store.touch(connection, event.address, event.block)

        if self._store.asset(did) is None or not self._contracts.is_nft(event.address):
            return write
        # The state may have come with the refused metadata, and no event of its own tells it.
        refresh = self._refreshed_nft(event)

        def write_both(connection: Connection) -> None:
            write(connection)
            refresh(connection)

        return write_both

    def _document(self, event: Event, did: str, known: dict[str, Any] | None) -> dict[str, Any]:
        if not self._contracts.is_nft(event.address):
            raise RefusedError("nft not deployed by our factory")
        receipt = self._chain.receipt(event.transaction)
        if receipt is None:
            raise UndecryptedError(f"transaction {event.transaction} has no receipt")
        self._check_proofs(receipt)
        if event.arguments["state"] in _CLOSED and (state := self._contracts.state(event.address)) in _CLOSED:
            raise RefusedError(f"403, {_CLOSED[state]}")
        ddo = self._decryptor.ddo_of(event)
        sender = to_checksum_address(receipt["from"])
        if known is None and self._publishers and sender not in self._publishers:
            raise RefusedError(f"Sender {sender} is not in ALLOWED_PUBLISHERS.")
        self.check_ddo(ddo, event.address)
        return _without_deleted(self._with_aquarius_fields(ddo, event, sender, did, known))

    def _check_proofs(self, receipt: dict[str, Any]) -> None:
        if not self._validators:
            return
        proofs = self._chain.events_of(receipt, "ERC721Template", "MetadataValidated")
        if not {proof.arguments["validator"] for proof in proofs} & self._validators:
            raise RefusedError("Failed to validate metadata_proofs")

    def check_ddo(self, ddo: dict[str, Any], nft: str) -> None:
        """Refuse a DDO that may not be indexed.

        :raises RefusedError: with what is wrong with it
        """
        if not ddo.get("version"):
            raise RefusedError("DDO has no version.")
        try:
            errors = validation_errors(ddo, self.chain_id, nft)
        except UnknownSchemaError as error:
            raise RefusedError(str(error)) from error
        if errors:
            raise RefusedError(f"New ddo has validation errors: {errors}")

    def _with_aquarius_fields(
        self, ddo: dict[str, Any], event: Event, sender: str, did: str, known: dict[str, Any] | None
    ) -> dict[str, Any]:
        when = self._block_time(event.block)
        price = self._contracts.price(_datatoken_addresses(ddo))
        return {
            **ddo,
            "id": did,
            "event": {
                "tx": event.transaction,
                "block": event.block,
                "from": sender,
                "contract": event.address,
                "datetime": when,
            },
            "nft": {**self._contracts.nft_facts(event.address), "created": self._created(event, when, known)},
            "datatokens": self._contracts.datatokens(ddo),
            "stats": {"allocated": 0, "orders": 0, "price": price},
            "purgatory": {"state": False},
        }

    def _created(self, event: Event, when: str, known: dict[str, Any] | None) -> str:
        if known is not None:
            created: str = known["nft"]["created"]
            return created
        if event.name == "MetadataCreated":
            return when
        first = metadata_events(
            self._chain, event.address, self._contracts.addresses.start_block, event.block
        )
        return self._block_time(first[0].block) if first else when

    def _block_time(self, number: int) -> str:
        block = self._chain.block(number)
        if block is None:
            raise UndecryptedError(f"block {number} is not on the chain any more")
        return datetime.fromtimestamp(int(block["timestamp"], 16), UTC).replace(tzinfo=None).isoformat()

    # --- what else happens to a data NFT ---------------------------------------------------------

    def _state(self, event: Event) -> Write:
        did = did_of(event.address, self.chain_id)
        stored = self._store.asset(did)
        complete = stored is not None and "id" in stored.document
        if not complete and self._contracts.is_nft(event.address):
            state = self._contracts.state(event.address)
            published = metadata_events(
                self._chain, event.address, self._contracts.addresses.start_block, event.block
            )
            if state not in _CLOSED and published:
                return self._metadata(published[-1])
        return self._refreshed_nft(event)

    def _refreshed_nft(self, event: Event) -> Write:
        did = did_of(event.address, self.chain_id)
        if self._store.asset(did) is None:
            return _nothing
        facts = self._contracts.nft_facts(event.address)

        def change(document: dict[str, Any]) -> dict[str, Any]:
            document["nft"] = {**document["nft"], **facts}
            return _without_deleted(document)

        return self._changed(event.address, event.block, change)

    # --- orders and prices -----------------------------------------------------------------------

    def _order(self, event: Event) -> Write:
        nft = self._contracts.nft_of(event.address)
        if nft is None:
            return _nothing
        priced = self._priced(event, event.address)

        def write(connection: Connection) -> None:
            position = Position(event.block, event.index)
            self._store.add_order(connection, nft, event.transaction, position)
            self._store.touch(connection, nft, event.block)
            priced(connection)

        return write

    def _datatoken_of(self, event: Event) -> str | None:
        if event.name == "DispenserCreated":
            address: str = event.arguments["datatokenAddress"]
            return address if self._contracts.is_dispenser(event.address) else None
        return self._contracts.exchange_datatoken(event.address, event.arguments["exchangeId"])

    def _priced(self, event: Event, datatoken: str | None) -> Write:
        nft = self._contracts.nft_of(datatoken) if datatoken else None
        stored = self._store.asset(did_of(nft, self.chain_id)) if nft else None
        if nft is None or stored is None:
            return _nothing
        price = self._contracts.price([entry["address"] for entry in stored.document["datatokens"]])

        def change(document: dict[str, Any]) -> dict[str, Any]:
            document["stats"]["price"] = price
            return document

        return self._changed(nft, event.block, change)

    def _changed(self, nft: str, block: int, change: Any) -> Write:
        did = did_of(nft, self.chain_id)

        def write(connection: Connection) -> None:
            stored = self._store.asset(did, connection)
            if stored is None:
                return
            document = change(stored.document)
            document["stats"]["orders"] = self._store.order_count(connection, nft)
            self._store.put_asset(connection, did, nft, document, stored.position)
            self._store.touch(connection, nft, block)

        return write


def _without_deleted(document: dict[str, Any]) -> dict[str, Any]:
    """Return what may be shown of a document: in a soft-deleted state only its stub."""
    if document["nft"]["state"] in _SOFT_DELETED:
        return {field: document[field] for field in _STUB_FIELDS}
    return document


def _datatoken_addresses(ddo: dict[str, Any]) -> list[str]:
    found = [service["datatokenAddress"] for service in services_of(ddo)]
    return [address for address in found if is_address(address)]
