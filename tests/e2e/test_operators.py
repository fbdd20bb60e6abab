"""What the operators offer beyond the DAG: every way of getting datatokens, trust by publisher, and taking it back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_ocean.c2d.errors import (
    CostLimitError,
    InsufficientFundsError,
    NotAllowedError,
    TransactionRevertedError,
)
from airflow_ocean.hooks import OceanHook
from airflow_ocean.operators.assets import (
    OceanAllowAlgorithmOperator,
    OceanPublishAlgorithmOperator,
    OceanPublishDatasetOperator,
)
from airflow_ocean.operators.compute import OceanPayForComputeOperator
from airflow_ocean.operators.datatokens import OceanTransferDatatokensOperator
from include.localnet import accounts
from include.localnet.ethereum import Chain
from tests.conftest import STACK
from tests.support.airflow import recorded_context

if TYPE_CHECKING:
    from include.localnet.settings import NetworkSettings

pytestmark = [pytest.mark.e2e, pytest.mark.both_stacks]

ETHER = 10**18
# An Ocean Node knows no trust in publishers.
TRUSTED = ["algorithm", "publisher"] if STACK == "provider" else ["algorithm"]


def run(operator: type, connection: str, context: dict[str, Any] | None = None, **arguments: Any) -> Any:
    return operator(task_id="a_task", ocean_conn_id=connection, **arguments).execute(
        context or recorded_context()
    )


def publish_dataset(network: NetworkSettings, **arguments: Any) -> tuple[str, str]:
    context = recorded_context()
    url = f"{network.files_url}/branin.arff"
    did = run(OceanPublishDatasetOperator, "ocean_alice", context, asset_name="data", url=url, **arguments)
    return did, context["ti"].xcoms["datatoken_address"]


def publish_algorithm(network: NetworkSettings) -> str:
    return run(
        OceanPublishAlgorithmOperator,
        "ocean_alice",
        asset_name="algorithm",
        url=f"{network.files_url}/algorithm.py",
        image="oceanprotocol/algo_dockers",
        tag="python-branin",
        checksum="sha256:" + "0c" * 32,
    )


@pytest.fixture
def balance(airflow_home, localnet):
    chain = Chain(localnet.rpc_url)

    def read(datatoken: str, account: accounts.Account) -> int:
        return chain.call(datatoken, "ERC20Template", "balanceOf", account.address)

    return read


def test_minting_and_transferring_exact_amounts(localnet, balance):
    did, datatoken = publish_dataset(localnet)
    minted = run(
        OceanTransferDatatokensOperator,
        "ocean_alice",
        asset_dids=did,
        amount="4.35",
        to_conn_id="ocean_alice",
    )
    sent = run(
        OceanTransferDatatokensOperator,
        "ocean_alice",
        asset_dids=did,
        amount="0.000000000000000001",
        method="transfer",
        to=accounts.BOB.address,
    )
    assert len(minted) == len(sent) == 1
    assert balance(datatoken, accounts.BOB) == 1
    assert balance(datatoken, accounts.ALICE) == 4_350_000_000_000_000_000 - 1


def test_only_the_publisher_mints(localnet, balance):
    did, _ = publish_dataset(localnet)
    with pytest.raises(NotAllowedError, match="no minter"):
        run(OceanTransferDatatokensOperator, "ocean_bob", asset_dids=did, to_conn_id="ocean_bob")


def test_nobody_transfers_what_he_does_not_hold(localnet, balance):
    did, _ = publish_dataset(localnet)
    with pytest.raises(InsufficientFundsError):
        run(
            OceanTransferDatatokensOperator,
            "ocean_bob",
            asset_dids=did,
            method="transfer",
            to=accounts.ALICE.address,
        )


def test_a_dispenser_gives_datatokens_away(localnet, balance):
    did, datatoken = publish_dataset(
        localnet, pricing={"type": "dispenser", "max_tokens": "2", "max_balance": "5"}
    )
    run(OceanTransferDatatokensOperator, "ocean_bob", asset_dids=[did], amount="1.5", method="dispense")
    assert balance(datatoken, accounts.BOB) == 15 * ETHER // 10


def test_a_fixed_rate_sells_datatokens_up_to_the_price_limit(localnet, balance):
    did, datatoken = publish_dataset(localnet, pricing='{"type": "fixed_rate", "rate": "3"}')
    buy = {"asset_dids": did, "amount": 2, "method": "buy"}
    with pytest.raises(CostLimitError):
        run(OceanTransferDatatokensOperator, "ocean_bob", **buy, max_cost="5")
    assert balance(datatoken, accounts.BOB) == 0
    run(OceanTransferDatatokensOperator, "ocean_bob", **buy, max_cost="7")
    assert balance(datatoken, accounts.BOB) == 2 * ETHER


def test_a_retry_does_not_mint_again(localnet, balance):
    did, datatoken = publish_dataset(localnet)
    context = recorded_context()
    arguments = {"asset_dids": did, "to": accounts.BOB.address}
    first = run(OceanTransferDatatokensOperator, "ocean_alice", context, **arguments)
    assert run(OceanTransferDatatokensOperator, "ocean_alice", context, **arguments) == first
    assert balance(datatoken, accounts.BOB) == ETHER


@pytest.mark.parametrize("trusted", TRUSTED)
def test_trust_and_taking_it_back(localnet, with_orders, trusted):
    did, _ = publish_dataset(localnet)
    algorithm = publish_algorithm(localnet)
    trust = {"algorithm_did": algorithm} if trusted == "algorithm" else {"publisher": accounts.ALICE.address}

    def is_allowed() -> bool:
        with OceanHook("ocean_bob").get_client() as bob:
            try:
                bob.orders.quote([did], algorithm, **with_orders)
            except NotAllowedError:
                return False
        return True

    assert not is_allowed()
    assert run(OceanAllowAlgorithmOperator, "ocean_alice", dataset_did=did, **trust) == did
    assert is_allowed()
    context = recorded_context()
    run(OceanAllowAlgorithmOperator, "ocean_alice", context, dataset_did=did, **trust)
    assert context["ti"].xcoms["transactions"] == []
    run(OceanAllowAlgorithmOperator, "ocean_alice", dataset_did=did, **trust, revoke=True)
    assert not is_allowed()


def test_only_the_owner_allows_algorithms(localnet, airflow_home):
    did, _ = publish_dataset(localnet)
    algorithm = publish_algorithm(localnet)
    with pytest.raises(TransactionRevertedError, match="METADATA_ROLE.*Nothing was sent"):
        run(OceanAllowAlgorithmOperator, "ocean_bob", dataset_did=did, algorithm_did=algorithm)


@pytest.mark.parametrize("template", [1, 2])
def test_paying_gets_the_datatokens_that_an_asset_offers(localnet, with_orders, template):
    did, _ = publish_dataset(localnet, pricing={"type": "dispenser"}, datatoken_template=template)
    algorithm = publish_algorithm(localnet)
    run(OceanAllowAlgorithmOperator, "ocean_alice", dataset_did=did, algorithm_did=algorithm)
    pay = {"dataset_dids": did, "algorithm_did": algorithm, **with_orders}
    # The algorithm offers none.
    with pytest.raises(InsufficientFundsError):
        run(OceanPayForComputeOperator, "ocean_bob", **pay)
    run(OceanTransferDatatokensOperator, "ocean_alice", asset_dids=algorithm, to_conn_id="ocean_bob")
    context = recorded_context()
    orders = run(OceanPayForComputeOperator, "ocean_bob", context, **pay)
    assert len(orders) == 2
    pushed = context["ti"].xcoms
    assert pushed["cost"]["gas_used"] > 0
    # What a person needs to read the cost.
    assert [asset["did"] for asset in pushed["assets"]] == [did, algorithm]
    assert pushed["tokens"].keys() == pushed["cost"]["tokens"].keys() | pushed["cost"]["locked"].keys()
    assert all(token["symbol"] and token["decimals"] == 18 for token in pushed["tokens"].values())
