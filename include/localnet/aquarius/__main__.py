"""Starts Aquarius: ``python -m include.localnet.aquarius`` with HOST, PORT, STATE_DIR, RPC_URL, ADDRESS_FILE, PRIVATE_KEY."""

from __future__ import annotations

from pathlib import Path

from include.localnet.aquarius.app import create_app
from include.localnet.aquarius.indexer import Indexer
from include.localnet.aquarius.processors import addresses_from_environment
from include.localnet.aquarius.store import Store
from include.localnet.service import ServiceSettings, required, serve


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    settings = ServiceSettings.from_environment()
    private_key = required("PRIVATE_KEY")
    store = Store(settings.state / "aquarius.sqlite")
    indexer = Indexer(
        store,
        required("RPC_URL"),
        Path(required("ADDRESS_FILE")),
        private_key,
        publishers=addresses_from_environment("ALLOWED_PUBLISHERS"),
        validators=addresses_from_environment("ALLOWED_VALIDATORS"),
    )
    serve(create_app(store, private_key, indexer), settings)


if __name__ == "__main__":
    main()
