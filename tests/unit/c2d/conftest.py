"""Clients of the local network, and one pair of assets that many tests may use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from airflow_ocean.c2d.assets import AlgorithmContainer, AssetSpec, Pricing, PublishedAsset
from airflow_ocean.c2d.client import OceanClient
from airflow_ocean.c2d.network import Network
from include.localnet.accounts import ALICE, BOB, CARLOS, Account

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_ocean.c2d.journal import Journal
    from airflow_ocean.c2d.limits import CostLimit
    from include.localnet.settings import NetworkSettings

CONTAINER = AlgorithmContainer("oceanprotocol/algo_dockers", "python-branin", "sha256:" + "8" * 64)


@dataclass(frozen=True)
class Branin:
    """The example's assets, free for everyone, the algorithm allowed on the dataset."""

    dataset: PublishedAsset
    algorithm: PublishedAsset


@pytest.fixture(scope="session")
def network(localnet: NetworkSettings) -> Network:
    return Network(
        localnet.rpc_url,
        localnet.provider_url,
        localnet.metadata_cache_url,
        address_file=str(localnet.address_file),
    )


@pytest.fixture(scope="session")
def client_of(network: Network) -> Iterator[Callable[..., OceanClient]]:
    """Make a client with a journal of its own; all are closed at the end."""
    clients: list[OceanClient] = []

    def make(account: Account, journal: Journal | None = None, limit: CostLimit | None = None) -> OceanClient:
        clients.append(OceanClient(network, account.private_key, journal, limit))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def publisher(client_of: Callable[..., OceanClient]) -> OceanClient:
    return client_of(ALICE)


@pytest.fixture
def consumer(client_of: Callable[..., OceanClient]) -> OceanClient:
    return client_of(BOB)


@pytest.fixture
def stranger(client_of: Callable[..., OceanClient]) -> OceanClient:
    return client_of(CARLOS)


@pytest.fixture(scope="session")
def data_file(localnet: NetworkSettings) -> dict[str, str]:
    return {"type": "url", "url": f"{localnet.files_url}/branin.arff"}


@pytest.fixture(scope="session")
def algorithm_file(localnet: NetworkSettings) -> dict[str, str]:
    return {"type": "url", "url": f"{localnet.files_url}/algorithm.py"}


@pytest.fixture(scope="session")
def branin(
    client_of: Callable[..., OceanClient], data_file: dict[str, str], algorithm_file: dict[str, str]
) -> Branin:
    dataset = client_of(ALICE).assets.publish(
        AssetSpec("dataset", "Branin", (data_file,), pricing=Pricing.dispenser(), template=2)
    )
    algorithm = client_of(ALICE).assets.publish(
        AssetSpec("algorithm", "GPR", (algorithm_file,), container=CONTAINER, pricing=Pricing.dispenser())
    )
    client_of(ALICE).assets.allow_algorithm(dataset.did, algorithm_did=algorithm.did)
    return Branin(dataset, algorithm)
