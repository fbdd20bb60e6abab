"""The Provider among its real neighbours, used by unmodified ocean-lib: ocean.py's C2D flow, and downloads."""

from __future__ import annotations

import pickle
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

    from include.localnet.settings import NetworkSettings

TOKENS = 20 * 10**18


@pytest.fixture(scope="module")
def algorithm(upstream_ocean: Any, localnet: NetworkSettings, alice: LocalAccount) -> Any:
    url = f"{localnet.files_url}/algorithm.py"
    return upstream_ocean.assets.create_algo_asset("gpr", url, {"from": alice}, wait_for_aqua=True)


@pytest.fixture(scope="module")
def dataset(
    upstream_ocean: Any, localnet: NetworkSettings, algorithm: Any, alice: LocalAccount, bob: LocalAccount
) -> Any:
    """Alice's dataset as the README publishes it: access and compute, the algorithm allowed, tokens with Bob."""
    ocean = upstream_ocean
    _, token, ddo = ocean.assets.create_url_asset(
        "Branin", f"{localnet.files_url}/branin.arff", {"from": alice}, with_compute=True, wait_for_aqua=True
    )
    ddo.services[1].add_publisher_trusted_algorithm(algorithm[2])
    ddo = ocean.assets.update(ddo, {"from": alice})
    for datatoken in (token, algorithm[1]):
        datatoken.mint(bob, TOKENS, {"from": alice})
    return token, ddo


def environment(ocean: Any, ddo: Any, paid: bool) -> Any:
    offered = ocean.compute.get_c2d_environments(ddo.services[1].service_endpoint, ddo.chain_id)
    return next(e for e in offered if (float(e["priceMin"]) > 0) == paid)


@pytest.mark.parametrize("paid", [False, True], ids=["free", "paid"])
def test_the_c2d_flow(
    upstream_ocean: Any, dataset: Any, algorithm: Any, bob: LocalAccount, paid: bool
) -> None:
    from ocean_lib.models.compute_input import ComputeInput

    ocean, (token, ddo), code = upstream_ocean, dataset, algorithm[2]
    service = ddo.services[1]
    chosen = environment(ocean, ddo, paid)
    inputs = ComputeInput(ddo, service), ComputeInput(code, code.services[0])
    valid_until = int(time.time()) + 1800
    if paid:
        # ocean-lib does not approve the fee.
        ocean.OCEAN_token.approve(token.address, 100 * 10**18, {"from": bob})

    def pay() -> Any:
        return ocean.assets.pay_for_compute_service(
            datasets=[inputs[0]],
            algorithm_data=inputs[1],
            consume_market_order_fee_address=bob.address,
            tx_dict={"from": bob},
            compute_environment=chosen["id"],
            valid_until=valid_until,
            consumer_address=chosen["consumerAddress"],
        )

    before = ocean.OCEAN_token.balanceOf(bob.address)
    (data_input,), code_input = pay()
    cost = before - ocean.OCEAN_token.balanceOf(bob.address)
    price_of_all = int(float(chosen["priceMin"]) * 30 * 10**18)
    assert price_of_all * 0.9 <= cost <= price_of_all
    job_id = ocean.compute.start(
        consumer_wallet=bob, dataset=data_input, compute_environment=chosen["id"], algorithm=code_input
    )

    def finished() -> Any:
        status = ocean.compute.status(ddo, service, job_id, bob)
        return status if status["dateFinished"] and float(status["dateFinished"]) > 0 else None

    status = wait_until(finished, "the job is over")
    assert (status["status"], status["owner"]) == (70, bob.address)
    carrier = data_input if paid else code_input
    assert status["agreementId"] == carrier.transfer_tx_id
    model = pickle.loads(ocean.compute.compute_job_result_logs(ddo, service, job_id, bob)[0])
    assert model.shape == (15, 15)

    # Paying again costs nothing while the orders are valid.
    orders = data_input.transfer_tx_id, code_input.transfer_tx_id
    tokens = token.balanceOf(bob.address)
    pay()
    assert (data_input.transfer_tx_id, code_input.transfer_tx_id) == orders
    assert token.balanceOf(bob.address) == tokens


def test_an_algorithm_that_was_not_allowed(
    upstream_ocean: Any, localnet: NetworkSettings, dataset: Any, alice: LocalAccount, bob: LocalAccount
) -> None:
    from ocean_lib.exceptions import DataProviderException
    from ocean_lib.models.compute_input import ComputeInput

    ocean, (_, ddo) = upstream_ocean, dataset
    url = f"{localnet.files_url}/algorithm.py"
    _, _, other = ocean.assets.create_algo_asset("other", url, {"from": alice}, wait_for_aqua=True)
    chosen = environment(ocean, ddo, paid=False)
    with pytest.raises(DataProviderException, match="not_trusted_algo"):
        ocean.assets.pay_for_compute_service(
            datasets=[ComputeInput(ddo, ddo.services[1])],
            algorithm_data=ComputeInput(other, other.services[0]),
            consume_market_order_fee_address=bob.address,
            tx_dict={"from": bob},
            compute_environment=chosen["id"],
            valid_until=int(time.time()) + 600,
            consumer_address=chosen["consumerAddress"],
        )


@pytest.mark.parametrize("template", [1, 2])
def test_ordered_files_are_downloaded(
    upstream_ocean: Any,
    localnet: NetworkSettings,
    alice: LocalAccount,
    bob: LocalAccount,
    tmp_path: Path,
    template: int,
) -> None:
    from ocean_lib.models.dispenser import DispenserArguments

    localnet.files_folder.mkdir(parents=True, exist_ok=True)
    (localnet.files_folder / "table.csv").write_bytes(b"a,b\n1,2\n")
    ocean = upstream_ocean
    _, token, ddo = ocean.assets.create_url_asset(
        "Table",
        f"{localnet.files_url}/table.csv",
        {"from": alice},
        dt_template_index=template,
        pricing_schema_args=DispenserArguments(10**18, 10**18),
        wait_for_aqua=True,
    )
    # Of template 2 this is one transaction: dispense and order at once.
    order = ocean.assets.pay_for_access_service(ddo, {"from": bob})
    order = order if isinstance(order, bytes | str) else order.transactionHash
    folder = ocean.assets.download_asset(ddo, bob, str(tmp_path), order.hex())
    assert (Path(folder) / "file0").read_bytes() == b"a,b\n1,2\n"
    assert token.balanceOf(bob.address) == 0
