"""The straight script that ocean.py's documentation builds up to for Compute-to-Data, with ocean-lib as it is.

Steps and names are those of its page "Compute-to-Data flow"; URLs differ. A recurring run is its second half again:
it resolves the assets, pays, starts, waits and fetches; the page knows no reuse of orders.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from include.bench.phases import Stopwatch
from include.bench.surroundings import tell_result
from include.localnet.accounts import ALICE, BOB
from include.localnet.settings import CHAIN_ID, NETWORK_NAME

# The page's pause between two looks at the job, seconds.
PAUSE = 5.0


def allow_ocean_lib() -> None:
    """Let ocean-lib be imported on Python 3.11, where its type checks raise on ``typing.Any``."""
    import enforce_typing

    enforce_typing.enforce_types = lambda function: function


def make_ocean(rpc_url: str, provider_url: str, metadata_cache_url: str, address_file: str) -> Any:
    """Return the page's ``ocean`` on a local network."""
    allow_ocean_lib()
    from ocean_lib.example_config import get_web3
    from ocean_lib.ocean.ocean import Ocean

    return Ocean(
        {
            "METADATA_CACHE_URI": metadata_cache_url,
            "PROVIDER_URL": provider_url,
            "DOWNLOADS_PATH": "",
            "web3_instance": get_web3(rpc_url),
            "CHAIN_ID": CHAIN_ID,
            "NETWORK_NAME": NETWORK_NAME,
            "ADDRESS_FILE": address_file,
        }
    )


def publish(ocean: Any, alice: Any, bob: Any, files_url: str, watch: Stopwatch) -> tuple[str, str]:
    """Steps 2 to 5: Alice publishes dataset and algorithm, allows the one on the other, and hands Bob datatokens."""
    from ocean_lib.ocean.util import to_wei

    watch.begin("publish dataset")
    _, data_token, data_ddo = ocean.assets.create_url_asset(
        "Branin dataset", f"{files_url}/branin.arff", {"from": alice}, with_compute=True, wait_for_aqua=True
    )
    watch.begin("publish algorithm")
    _, algo_token, algo_ddo = ocean.assets.create_algo_asset(
        "grp", f"{files_url}/algorithm.py", {"from": alice}, wait_for_aqua=True
    )
    watch.begin("allow")
    data_ddo.services[1].add_publisher_trusted_algorithm(algo_ddo)
    data_ddo = ocean.assets.update(data_ddo, {"from": alice})
    watch.begin("transfer")
    data_token.mint(bob, to_wei(5), {"from": alice})
    algo_token.mint(bob, to_wei(5), {"from": alice})
    return data_ddo.did, algo_ddo.did


def compute(ocean: Any, bob: Any, data_did: str, algo_did: str, watch: Stopwatch) -> float:
    """Steps 6 and 7: Bob pays, starts, watches, and fetches; returns how long the job took, in seconds."""
    from ocean_lib.models.compute_input import ComputeInput

    watch.begin("pay")
    data_ddo, algo_ddo = ocean.assets.resolve(data_did), ocean.assets.resolve(algo_did)
    compute_service, algo_service = data_ddo.services[1], algo_ddo.services[0]
    environment = ocean.compute.get_free_c2d_environment(compute_service.service_endpoint, CHAIN_ID)
    datasets, algorithm = ocean.assets.pay_for_compute_service(
        datasets=[ComputeInput(data_ddo, compute_service)],
        algorithm_data=ComputeInput(algo_ddo, algo_service),
        consume_market_order_fee_address=bob.address,
        tx_dict={"from": bob},
        compute_environment=environment["id"],
        valid_until=int((datetime.now(UTC) + timedelta(days=1)).timestamp()),
        consumer_address=environment["consumerAddress"],
    )
    watch.begin("start")
    job_id = ocean.compute.start(
        consumer_wallet=bob, dataset=datasets[0], compute_environment=environment["id"], algorithm=algorithm
    )
    watch.begin("wait")
    while True:
        status = ocean.compute.status(data_ddo, compute_service, job_id, bob)
        if status.get("dateFinished") and Decimal(status["dateFinished"]) > 0:
            break
        time.sleep(PAUSE)
    watch.begin("fetch")
    for log_type in ("output", "algorithmLog"):
        ocean.compute.compute_job_result_logs(data_ddo, compute_service, job_id, bob, log_type)
    watch.begin(None)
    return float(status["dateFinished"]) - float(status["dateCreated"])


def main(network: dict[str, str], files_url: str, recurring: int = 0) -> dict[str, Any]:
    """Run the script, then its second half some times more.

    :returns: for each run the seconds of its phases and of its job
    """
    from eth_account import Account

    watch = Stopwatch("run 0")
    watch.begin("connect")
    ocean = make_ocean(**network)
    alice, bob = (Account.from_key(account.private_key) for account in (ALICE, BOB))
    dids = publish(ocean, alice, bob, files_url, watch)
    runs = [{"job": compute(ocean, bob, *dids, watch), "phases": watch.seconds}]
    for number in range(1, recurring + 1):
        watch = Stopwatch(f"run {number}")
        runs.append({"job": compute(ocean, bob, *dids, watch), "phases": watch.seconds})
    return {"runs": runs}


if __name__ == "__main__":
    tell_result(main)
