"""Starts the operator-service: ``python -m include.localnet.operator_service``."""

from __future__ import annotations

import logging
from pathlib import Path

from include.localnet.operator_service.app import Routes, create_app
from include.localnet.operator_service.engine import Engine
from include.localnet.operator_service.environments import environments_on_offer, network_addresses
from include.localnet.operator_service.provider_client import ProviderClient
from include.localnet.operator_service.runners import Runners
from include.localnet.operator_service.signatures import allowed_providers
from include.localnet.operator_service.store import Store
from include.localnet.service import ServiceSettings, alone_in, required, serve

logger = logging.getLogger(__name__)


def main() -> None:
    """Read the settings, check what runs jobs, serve."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = ServiceSettings.from_environment()
    allowed = allowed_providers()
    network = network_addresses(Path(required("ADDRESS_FILE")))
    client = ProviderClient(required("COMPUTE_PRIVATE_KEY"))
    with alone_in(settings.state, "operator-service"):
        runners = Runners.from_environment(settings.state)
        runners.check()
        environments = environments_on_offer(runners.description)
        store = Store(settings.state / "operator.sqlite")
        engine = Engine(store, environments, client, runners, settings.state)
        routes = Routes(store, engine, environments, network, client.address, allowed)
        try:
            serve(create_app(routes, engine), settings)
        finally:
            runners.close()


if __name__ == "__main__":
    main()
