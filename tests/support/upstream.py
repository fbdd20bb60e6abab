"""ocean-lib as upstream left it, for tests that drive the local services with the client they are made for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ocean_lib.example_config import get_web3
from ocean_lib.ocean.ocean import Ocean

from include.localnet.settings import CHAIN_ID, NETWORK_NAME

if TYPE_CHECKING:
    from include.localnet.settings import NetworkSettings


def config_dict(settings: NetworkSettings) -> dict[str, Any]:
    """Return what ``ocean_lib.example_config.get_config_dict`` would, with this network's URLs for barge's."""
    return {
        "METADATA_CACHE_URI": settings.metadata_cache_url,
        "PROVIDER_URL": settings.provider_url,
        "DOWNLOADS_PATH": str(settings.home / "downloads"),
        "web3_instance": get_web3(settings.rpc_url),
        "CHAIN_ID": CHAIN_ID,
        "NETWORK_NAME": NETWORK_NAME,
        "ADDRESS_FILE": str(settings.address_file),
    }


def make_ocean(settings: NetworkSettings) -> Any:
    """Return an ``Ocean`` of its own: ocean-lib keeps URLs nowhere but in this object's configuration."""
    return Ocean(config_dict(settings))
