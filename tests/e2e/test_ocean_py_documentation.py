"""The code of ocean.py's documentation, with ocean-lib as upstream left it, on the local network.

The steps and names are those of its pages "Main flow" and "Compute-to-Data flow"; only URLs and pauses differ.
"""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from ocean_lib.models.compute_input import ComputeInput
from ocean_lib.models.datatoken_base import DatatokenArguments
from ocean_lib.models.dispenser import DispenserArguments
from ocean_lib.models.fixed_rate_exchange import ExchangeArguments
from ocean_lib.ocean.util import to_wei
from ocean_lib.structures.file_objects import UrlFile

from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

    from include.localnet.settings import NetworkSettings

pytestmark = pytest.mark.e2e
DATA_FILE = Path(__file__).parents[2] / "include" / "branin" / "branin.arff"


@pytest.fixture(scope="module")
def data_url(localnet: NetworkSettings) -> str:
    return f"{localnet.files_url}/branin.arff"


@pytest.fixture(scope="module")
def published(upstream_ocean: Any, alice: LocalAccount, data_url: str) -> tuple[Any, Any, Any]:
    """Main flow, 1: Alice publishes a dataset."""
    published: tuple[Any, Any, Any] = upstream_ocean.assets.create_url_asset(
        "Branin dataset", data_url, {"from": alice}
    )
    return published


def order_and_download(ocean: Any, ddo: Any, wallet: LocalAccount, folder: Path) -> bytes:
    """Main flow, 3: Bob consumes the dataset."""
    order_tx_id = ocean.assets.pay_for_access_service(ddo, {"from": wallet})
    # ocean-lib returns a hash when the wallet holds a datatoken, else the receipt of getting and ordering one
    order_tx_id = getattr(order_tx_id, "transactionHash", order_tx_id).hex()
    asset_dir = ocean.assets.download_asset(ddo, wallet, str(folder), order_tx_id)
    return (Path(asset_dir) / "file0").read_bytes()


def test_main_flow_minted(
    upstream_ocean: Any, alice: LocalAccount, bob: LocalAccount, published: Any, tmp_path: Path
) -> None:
    _, datatoken, ddo = published
    datatoken.mint(bob, to_wei(1), {"from": alice})
    datatoken.mint(alice, to_wei(1), {"from": alice})
    datatoken.transfer(bob, to_wei(1), {"from": alice})
    held = datatoken.balanceOf(bob)
    assert order_and_download(upstream_ocean, ddo, bob, tmp_path) == DATA_FILE.read_bytes()
    assert datatoken.balanceOf(bob) == held - to_wei(1)


def test_main_flow_dispensed(
    upstream_ocean: Any, alice: LocalAccount, bob: LocalAccount, published: Any, tmp_path: Path
) -> None:
    _, datatoken, ddo = published
    datatoken.create_dispenser({"from": alice})
    held = datatoken.balanceOf(bob)
    datatoken.dispense(to_wei(1), {"from": bob})
    assert datatoken.balanceOf(bob) == held + to_wei(1)
    assert order_and_download(upstream_ocean, ddo, bob, tmp_path) == DATA_FILE.read_bytes()


def test_main_flow_bought(
    upstream_ocean: Any, alice: LocalAccount, bob: LocalAccount, published: Any, tmp_path: Path
) -> None:
    ocean = upstream_ocean
    _, datatoken, ddo = published
    exchange = datatoken.create_exchange({"from": alice}, to_wei(100), ocean.OCEAN_address)
    datatoken.mint(alice, to_wei(100), {"from": alice})
    datatoken.approve(exchange.address, to_wei(100), {"from": alice})
    needed = exchange.BT_needed(to_wei(1), consume_market_fee=0)
    before = ocean.OCEAN_token.balanceOf(bob)
    ocean.OCEAN_token.approve(exchange.address, needed, {"from": bob})
    exchange.buy_DT(to_wei(1), consume_market_fee=0, tx_dict={"from": bob})
    assert ocean.OCEAN_token.balanceOf(bob) == before - needed
    assert order_and_download(ocean, ddo, bob, tmp_path) == DATA_FILE.read_bytes()


@pytest.mark.parametrize("template", [1, 2])
def test_bundled_pricing_is_used_by_the_order(
    upstream_ocean: Any, alice: LocalAccount, bob: LocalAccount, data_url: str, tmp_path: Path, template: int
) -> None:
    ocean = upstream_ocean
    for pricing in (
        DispenserArguments(to_wei(1), to_wei(1)),
        ExchangeArguments(rate=to_wei(3), base_token_addr=ocean.OCEAN_address, dt_decimals=18),
    ):
        _, datatoken, ddo = ocean.assets.create_url_asset(
            "Branin", data_url, {"from": alice}, pricing_schema_args=pricing, dt_template_index=template
        )
        assert datatoken.getId() == template
        assert order_and_download(ocean, ddo, bob, tmp_path) == DATA_FILE.read_bytes()


@pytest.mark.parametrize(
    ("encrypt", "compress"), [(False, False), (False, True), (True, False), (True, True)]
)
def test_publishing_with_every_flag(
    upstream_ocean: Any, alice: LocalAccount, data_url: str, encrypt: bool, compress: bool
) -> None:
    metadata = {
        "created": "2021-12-28T10:55:11Z",
        "updated": "2021-12-28T10:55:11Z",
        "description": "Branin dataset",
        "name": f"Branin {encrypt} {compress}",
        "type": "dataset",
        "author": "Trent",
        "license": "CC0: PublicDomain",
    }
    _, _, ddo = upstream_ocean.assets.create(
        metadata,
        {"from": alice},
        datatoken_args=[DatatokenArguments(files=[UrlFile(url=data_url)])],
        encrypt_flag=encrypt,
        compress_flag=compress,
    )
    assert upstream_ocean.assets.resolve(ddo.did).metadata["name"] == f"Branin {encrypt} {compress}"


@pytest.mark.parametrize("environment", ["free", "paid"])
def test_compute_to_data_flow(
    localnet: NetworkSettings,
    upstream_ocean: Any,
    alice: LocalAccount,
    bob: LocalAccount,
    data_url: str,
    environment: str,
) -> None:
    ocean = upstream_ocean
    # 2, 3: Alice publishes dataset and algorithm
    _, data_token, data_ddo = ocean.assets.create_url_asset(
        "Branin dataset", data_url, {"from": alice}, with_compute=True, wait_for_aqua=True
    )
    _, algo_token, algo_ddo = ocean.assets.create_algo_asset(
        "grp", f"{localnet.files_url}/algorithm.py", {"from": alice}, wait_for_aqua=True
    )
    # 4: Alice allows the algorithm
    compute_service = data_ddo.services[1]
    compute_service.add_publisher_trusted_algorithm(algo_ddo)
    data_ddo = ocean.assets.update(data_ddo, {"from": alice})
    # 5: Bob acquires datatokens
    data_token.mint(bob, to_wei(5), {"from": alice})
    algo_token.mint(bob, to_wei(5), {"from": alice})
    # 6: Bob pays and starts
    data_ddo, algo_ddo = ocean.assets.resolve(data_ddo.did), ocean.assets.resolve(algo_ddo.did)
    compute_service, algo_service = data_ddo.services[1], algo_ddo.services[0]
    endpoint = compute_service.service_endpoint
    chosen = ocean.compute.get_free_c2d_environment(endpoint, data_ddo.chain_id)
    if environment == "paid":
        offered = ocean.compute.get_c2d_environments(endpoint, data_ddo.chain_id)
        chosen = next(entry for entry in offered if float(entry["priceMin"]) > 0)
        # ocean-lib approves no provider fee
        for token in (data_token, algo_token):
            ocean.OCEAN_token.approve(token.address, to_wei(10_000), {"from": bob})
    datasets, algorithm = ocean.assets.pay_for_compute_service(
        datasets=[ComputeInput(data_ddo, compute_service)],
        algorithm_data=ComputeInput(algo_ddo, algo_service),
        consume_market_order_fee_address=bob.address,
        tx_dict={"from": bob},
        compute_environment=chosen["id"],
        valid_until=int((datetime.now(UTC) + timedelta(days=1)).timestamp()),
        consumer_address=chosen["consumerAddress"],
    )
    job_id = ocean.compute.start(
        consumer_wallet=bob, dataset=datasets[0], compute_environment=chosen["id"], algorithm=algorithm
    )
    # 7: Bob monitors the job and fetches the output

    def finished() -> Any:
        status = ocean.compute.status(data_ddo, compute_service, job_id, bob)
        return status if status.get("dateFinished") and Decimal(status["dateFinished"]) > 0 else None

    status = wait_until(finished, "the job has ended")
    assert int(status["status"]) == 70
    output = ocean.compute.compute_job_result_logs(data_ddo, compute_service, job_id, bob)[0]
    model = pickle.loads(output)  # our own algorithm's
    assert np.shape(model) == (15, 15)
    assert np.isfinite(model).all()
    log = ocean.compute.compute_job_result_logs(data_ddo, compute_service, job_id, bob, "algorithmLog")[0]
    assert log
