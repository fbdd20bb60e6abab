"""Starts Ocean Node: ``python -m include.localnet.node`` with HOST, PORT, STATE_DIR, RPC_URL, ADDRESS_FILE, PRIVATE_KEY."""

from __future__ import annotations

import logging

from include.localnet.node.app import build_app
from include.localnet.node.configuration import Configuration, Node
from include.localnet.node.engine import Engine
from include.localnet.node.indexing import NodeIndexer
from include.localnet.operator_service.sandbox import Sandbox, SandboxUnavailable
from include.localnet.provider.__main__ import WithoutQuery
from include.localnet.service import ServiceSettings, alone_in, serve

logger = logging.getLogger(__name__)


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = ServiceSettings.from_environment()
    configuration = Configuration.from_environment(settings.state)
    logging.getLogger("uvicorn.access").addFilter(WithoutQuery())
    with alone_in(settings.state, "node"):
        sandbox = Sandbox(settings.state)
        try:
            sandbox.check()
        except SandboxUnavailable as error:
            logger.error("Jobs will fail, because no sandbox can be set up: %s", error)
        node = Node(configuration)
        indexer = NodeIndexer(
            node.index,
            configuration.rpc_url,
            configuration.address_file,
            configuration.private_key,
            configuration.index_seconds,
        )
        serve(build_app(node, Engine(node, sandbox), indexer), settings)


if __name__ == "__main__":
    main()
