"""The only door to ocean_lib, with the fixes that it needs; nothing else imports it.

ocean-lib is used for contracts, datatokens and DDOs. Its HTTP half is replaced by
:mod:`airflow_ocean.c2d.services`, and its transactions pass through :mod:`airflow_ocean.c2d.transactions`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import enforce_typing

# On Python 3.11 and later `isinstance(x, typing.Any)` raises, and enforce_types does that on every call. The
# decorator is bound when ocean_lib is imported, so it is replaced here, before the first import.
enforce_typing.enforce_types = lambda decorated: decorated

from ocean_lib.models.data_nft import DataNFT, DataNFTArguments
from ocean_lib.models.data_nft_factory import DataNFTFactoryContract
from ocean_lib.models.datatoken1 import Datatoken1
from ocean_lib.models.datatoken2 import Datatoken2
from ocean_lib.models.datatoken_base import DatatokenArguments, TokenFeeInfo
from ocean_lib.models.dispenser import Dispenser, DispenserArguments
from ocean_lib.models.fixed_rate_exchange import ExchangeArguments, FixedRateExchange, OneExchange
from ocean_lib.structures.file_objects import (
    ArweaveFile,
    FilesType,
    FilesTypeFactory,
    GraphqlQuery,
    IpfsFile,
    SmartContractCall,
    UrlFile,
)
from ocean_lib.web3_internal.contract_base import ContractBase
from web3 import HTTPProvider, Web3

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_ocean.c2d.network import Network

__all__ = [
    "ArweaveFile",
    "DataNFT",
    "DataNFTArguments",
    "DataNFTFactoryContract",
    "Datatoken1",
    "Datatoken2",
    "DatatokenArguments",
    "Dispenser",
    "DispenserArguments",
    "Escrow",
    "ExchangeArguments",
    "FilesType",
    "FilesTypeFactory",
    "FixedRateExchange",
    "GraphqlQuery",
    "IpfsFile",
    "OneExchange",
    "SmartContractCall",
    "TokenFeeInfo",
    "UrlFile",
    "connect",
    "ocean_config",
]


class Escrow(ContractBase):  # type: ignore[misc]
    """The contract through which Ocean Nodes are paid, which ocean-lib does not know; its ABI is in ocean-contracts."""

    CONTRACT_NAME = "Escrow"


def connect(provider: HTTPProvider, middleware: Callable[..., Any]) -> Web3:
    """Return a web3 instance on a provider with ``middleware`` directly at the wire."""
    web3 = Web3(provider)
    # No address here is a name of ENS, and for each contract web3 would make a client of that, with contracts of its own.
    web3.ens = None
    web3.middleware_onion.inject(middleware, name="airflow_ocean", layer=0)
    return web3


def ocean_config(network: Network, web3: Web3, chain_id: int) -> dict[str, Any]:
    """Build ocean-lib's configuration; its own helper knows only a fixed list of chains.

    :raises InvalidInputError: when no contracts are listed for the chain
    """
    name, _ = network.contracts(chain_id)
    return {
        "web3_instance": web3,
        "NETWORK_NAME": name,
        "CHAIN_ID": chain_id,
        "ADDRESS_FILE": str(network.address_file_path()),
        "RPC_URL": network.rpc_url,
        "PROVIDER_URL": network.provider_url,
        "METADATA_CACHE_URI": network.metadata_cache_url,
    }
