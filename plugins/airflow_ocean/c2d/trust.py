"""Changing whom a dataset trusts, so that changes made at the same moment all last.

A data NFT holds its metadata as a whole and has no compare-and-set: who writes, overwrites what others have written since
he read. So changes of one asset wait for each other on a machine; before one is signed, the chain is asked whether the
index shows the last one; and it counts only when it is still there afterwards, else it is made again on top.
"""

from __future__ import annotations

import itertools
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from eth_utils import keccak

from airflow_ocean.c2d.errors import InvalidInputError, MetadataChangedError, NotIndexedError
from airflow_ocean.c2d.specs import closed
from airflow_ocean.c2d.wallet import machine_lock

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_ocean.c2d.assets import Asset
    from airflow_ocean.c2d.client import OceanClient
    from airflow_ocean.c2d.mined_transaction import MinedTransaction

    # Changes a service's ``compute`` section in place and says whether there was anything to change.
    Change = Callable[[dict[str, Any]], bool]

logger = logging.getLogger(__name__)

ALGORITHMS, PUBLISHERS = "publisherTrustedAlgorithms", "publisherTrustedAlgorithmPublishers"
STEP = "update metadata"
# How often one attempt writes before it leaves the rest to a retry.
MOST_WRITES = 5
INDEX_TIMEOUT = 120.0
# Seconds for what must not hold a change up for ever: an index that refuses a change, a wallet in heavy use.
PATIENCE = 30.0
# Nodes limit the range of blocks that they search; what is older than this the index has long seen.
LOOK_BACK = 1_000
# Source: contract ERC721Template.
_FIELDS = "(address,uint8,string,bytes,bytes,bytes32,uint256,uint256)"
_TOPICS = ["0x" + keccak(text=event + _FIELDS).hex() for event in ("MetadataCreated", "MetadataUpdated")]
# What the index added does not belong on the chain.
_ADDED = ("event", "nft", "datatokens", "stats", "purgatory", "accessDetails", "indexedMetadata")


@dataclass(frozen=True)
class AllowResult:
    """What changing a dataset's trust made; no transaction when it was so already."""

    did: str
    transactions: list[str]


@dataclass(frozen=True)
class _Written:
    """A change of an asset's metadata on the chain."""

    transaction: str
    block: int


def trusting_algorithm(entry: dict[str, str]) -> Change:
    """Put an algorithm on the list, in the place of what the list said of it before."""

    def change(policy: dict[str, Any]) -> bool:
        listed = policy.get(ALGORITHMS) or []
        if entry in listed:
            return False
        policy[ALGORITHMS] = [known for known in listed if known.get("did") != entry["did"]] + [entry]
        return True

    return change


def trusting_publisher(address: str) -> Change:
    """Put a publisher on the list."""

    def change(policy: dict[str, Any]) -> bool:
        listed = policy.get(PUBLISHERS) or []
        if any(address.lower() == known.lower() for known in listed):
            return False
        policy[PUBLISHERS] = [*listed, address]
        return True

    return change


def without(name: str, unwanted: Callable[[Any], bool]) -> Change:
    """Take entries off the list of this name."""

    def change(policy: dict[str, Any]) -> bool:
        listed = policy.get(name) or []
        policy[name] = [known for known in listed if not unwanted(known)]
        return len(policy[name]) < len(listed)

    return change


class _OutdatedError(Exception):
    """What is about to be signed would overwrite something that it does not know."""


class Trust:
    """Changes of the datasets that a wallet may change."""

    def __init__(self, client: OceanClient) -> None:
        self._client = client

    def change(self, dataset_did: str, change: Change) -> AllowResult:
        """Change a dataset's ``compute`` section and return when the index shows it.

        :raises NotAllowedError: when the dataset offers no compute service
        :raises TransactionRevertedError: when the wallet may not change the dataset's metadata; nothing was sent
        :raises MetadataChangedError: when others keep changing the dataset
        """
        transactions: list[str] = []
        with machine_lock(self._client.chain_id, dataset_did):
            writes = 0
            for number in itertools.count(1):
                step = STEP if number == 1 else f"{STEP} {number}"
                # What an earlier attempt wrote may have been overwritten while nobody looked.
                written = self._client.transactions.resume(step)
                if written is None:
                    writes += 1
                    written = self._write(step, dataset_did, change, writes)
                    if written is None:
                        return AllowResult(dataset_did, transactions)
                transactions.append(written.hash)
                self._wait_until_indexed(dataset_did, written)
        raise AssertionError("the loop returns or raises")

    def _write(self, step: str, did: str, change: Change, writes: int) -> MinedTransaction | None:
        """Write the changed metadata; None when there is nothing to change."""
        deadline = time.monotonic() + PATIENCE
        while True:
            dataset, last = self._newest(did)
            service = dataset.service("compute")
            ddo = {key: value for key, value in dataset.ddo.items() if key not in _ADDED}
            policy = ddo["services"][service.index].setdefault("compute", {})
            _check_policy(policy, did)
            if not change(policy):
                return None
            if writes > MOST_WRITES:
                raise MetadataChangedError(
                    f"{did}: {MOST_WRITES} times somebody else's change of the dataset overwrote this one's; a retry goes on "
                    "from what is there then. Do two programs undo each other's changes?"
                )
            ddo["services"][service.index]["compute"] = closed(policy)
            ddo["metadata"]["updated"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            if dataset.owner and dataset.owner.lower() != self._client.address.lower():
                logger.info("Dataset %s belongs to %s; trying as its manager", did, dataset.owner)

            def check(dataset: Asset = dataset, last: _Written | None = last) -> None:
                self._check_newest(dataset, last, patient=time.monotonic() < deadline)

            try:
                written = self._client.assets.write_metadata(step, ddo, service.endpoint, check)
            except _OutdatedError:
                time.sleep(0.5)
                continue
            self._tell_overwritten(dataset, last, written)
            return written

    # ------------------------------------------------------------------ what is there

    def _newest(self, did: str) -> tuple[Asset, _Written | None]:
        """Return a dataset as its last change left it, and that change if it is not old."""
        dataset = self._client.assets.resolve(did)
        last = next(reversed(self._changes(dataset)), None)
        if last is not None and last.transaction != _shown(dataset)[0]:
            try:
                self._client.services().wait_until_indexed(did, last.transaction, last.block, PATIENCE)
            except NotIndexedError as error:
                logger.warning(
                    "The index does not take the dataset's last change: %s. Going on without it", error
                )
            dataset = self._client.assets.resolve(did)
        return dataset, last

    def _changes(self, dataset: Asset) -> list[_Written]:
        """Return the changes of a dataset's metadata from the indexed one on, oldest first."""
        chain = self._client.transactions.chain
        latest = chain.quantity("eth_blockNumber")
        first = max(_shown(dataset)[1], latest - LOOK_BACK, 0)
        logs = chain.logs(dataset.nft_address, _TOPICS, first)
        return [_Written(str(log["transactionHash"]).lower(), int(log["blockNumber"], 16)) for log in logs]

    def _check_newest(self, dataset: Asset, last: _Written | None, *, patient: bool) -> None:
        """Refuse to sign when the chain has, or is about to have, another change than the last that was read."""
        chain, address = self._client.transactions.chain, self._client.address
        if patient:
            # One of the wallet's transactions that wait for a block may be such a change, from another machine.
            mined, sent = (
                chain.quantity("eth_getTransactionCount", address, block) for block in ("latest", "pending")
            )
            if sent > mined:
                raise _OutdatedError
        if next(reversed(self._changes(dataset)), None) != last:
            raise _OutdatedError

    def _wait_until_indexed(self, did: str, written: MinedTransaction) -> None:
        """Wait until the index shows a change, or the last one of the same block, which hides it."""
        chain, nft = self._client.transactions.chain, self._client.assets.resolve(did).nft_address
        last = chain.logs(nft, _TOPICS, written.block, written.block)[-1:]
        transaction = str(last[0]["transactionHash"]) if last else written.hash
        self._client.services().wait_until_indexed(did, transaction, written.block, INDEX_TIMEOUT)

    def _tell_overwritten(self, dataset: Asset, last: _Written | None, written: MinedTransaction) -> None:
        """Warn of changes that got between reading and writing all the same, as from another wallet."""
        changes = [change.transaction for change in self._changes(dataset)]
        begin = changes.index(last.transaction) + 1 if last and last.transaction in changes else 0
        end = changes.index(written.hash) if written.hash in changes else begin
        if between := changes[begin:end]:
            logger.warning(
                "Dataset %s was changed at the same moment by %s, which transaction %s overwrote; a task that still waits "
                "makes its change again, for others look at the dataset's lists",
                dataset.did, ", ".join(between), written.hash,
            )  # fmt: skip


def _check_policy(policy: Any, did: str) -> None:
    """Check the form of a ``compute`` section, as far as changes look into it.

    :raises InvalidInputError: when it is another
    """
    if isinstance(policy, dict):
        lists = ((policy.get(ALGORITHMS) or [], dict), (policy.get(PUBLISHERS) or [], str))
        if all(isinstance(given, list) and all(isinstance(e, kind) for e in given) for given, kind in lists):
            return
    raise InvalidInputError(
        f"the compute section of {did}'s metadata has an unknown form, so it cannot be changed: {str(policy)[:300]}; its "
        "publisher has to write it anew"
    )


def _shown(dataset: Asset) -> tuple[str, int]:
    """Return transaction and block of the change that the index shows; without them an empty text and 0."""
    event = dataset.ddo.get("event")
    event = event if isinstance(event, dict) else {}
    block = event.get("block")
    return str(event.get("tx", "")).lower(), block if isinstance(block, int) and block > 0 else 0
