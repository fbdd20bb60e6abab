"""The node's indexer: Aquarius' one, but it asks other nodes to decrypt, and it looks at the chain as seldom as it is told."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from include.localnet.aquarius.decryption import Decryptor, RefusedError
from include.localnet.aquarius.indexer import Indexer
from include.localnet.aquarius.processors import EventProcessor
from include.localnet.ethereum import did_of, sign_message

if TYPE_CHECKING:
    from pathlib import Path

    from include.localnet.aquarius.contracts import OceanContracts
    from include.localnet.aquarius.store import Store
    from include.localnet.ethereum import Event


class NodeDecryptor(Decryptor):
    """Asks the node that a metadata event names, which is this one as a rule, to decrypt."""

    decrypted_status = 200

    def payload(self, event: Event) -> dict[str, Any]:
        """Return the signed request for a document."""
        # Other numbers than a millisecond clock's would change when JavaScript reads them.
        nonce = str(time.time_ns() // 1_000_000)
        return {
            "transactionId": event.transaction,
            "chainId": self.chain_id,
            "decrypterAddress": self.address,
            "dataNftAddress": event.address,
            "signature": sign_message(f"{self.address}{nonce}decryptDDO", self.key),
            "nonce": nonce,
        }


class NodeProcessor(EventProcessor):
    """Indexes every DDO whose DID is right, valid or not, as upstream."""

    def check_ddo(self, ddo: dict[str, Any], nft: str) -> None:
        """Refuse a DDO of another NFT.

        :raises RefusedError: when it is one
        """
        if ddo.get("id") != did_of(nft, self.chain_id):
            raise RefusedError("Decrypted DDO ID does not match generated DID.")


class NodeIndexer(Indexer):
    """Follows the chain into the node's index.

    :param private_key: the node's key, for its requests to nodes
    :param interval: seconds between two looks at the chain
    """

    def __init__(
        self, store: Store, rpc_url: str, address_file: Path, private_key: str, interval: float
    ) -> None:
        super().__init__(
            store,
            rpc_url,
            address_file,
            private_key,
            publishers=set(),
            validators=set(),
            interval=interval,
        )
        self._private_key = private_key
        self._index = store

    def _processor(self, contracts: OceanContracts) -> EventProcessor:
        decryptor = NodeDecryptor(self._private_key, contracts.chain.chain_id)
        return NodeProcessor(self._index, contracts, decryptor, publishers=set(), validators=set())
