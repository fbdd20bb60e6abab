"""Tasks that meet what chain and services should not answer."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_ocean.operators.assets import OceanAllowAlgorithmOperator, OceanPublishDatasetOperator
from airflow_ocean.operators.compute import OceanPayForComputeOperator, OceanStartComputeOperator
from airflow_ocean.operators.datatokens import OceanTransferDatatokensOperator
from airflow_ocean.operators.escrow import OceanSettlementSensor, OceanWithdrawFromEscrowOperator
from airflow_ocean.operators.results import OceanFetchResultsOperator
from airflow_ocean.sensors import OceanComputeSensor
from include.localnet.accounts import ALICE
from tests.conftest import STACK
from tests.e2e.fault_cases_paying import paid_order
from tests.e2e.fault_scenarios_node import paid_order as node_order
from tests.e2e.fault_scenarios_node import settled_job
from tests.e2e.fault_world import ETHER
from tests.support.airflow import recorded_context

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

    from tests.e2e.fault_world import Wallet, World

# An operator, its arguments, and the key of its wallet.
Task = tuple[Any, dict[str, Any], str]


class Prepared:
    """What tasks need, so that nothing is sent for it afterwards.

    :param world: the network
    """

    def __init__(self, world: World) -> None:
        self.world = world
        # A consumer with all it needs, and nothing sent as long as all tests pass.
        self.wallet = world.wallet(ocean=100 * ETHER, held=ETHER, quick=ETHER)
        self.payer = world.wallet(ocean=100 * ETHER)
        self.over = world.jobs_over
        self.wallets = [self.wallet, self.payer, self.over.wallet]
        if STACK == "node":
            self.order = node_order(world, self.payer, world.paid_environment.id).to_dict()
            self.free = self.free_order(self.payer)
            self.settled_wallet, self.settled_job = settled_job(world)
            self.wallets.append(self.settled_wallet)
        else:
            self.order = paid_order(world, self.payer, paid=True).to_dict()

    def free_order(self, wallet: Wallet) -> dict[str, Any]:
        """Pay for a job in an environment that costs nothing."""
        if STACK == "node":
            return node_order(self.world, wallet, "free").to_dict()
        return paid_order(self.world, wallet, paid=False).to_dict()


class Tasks:
    """Runs tasks in this process, through the proxy."""

    def __init__(self, prepared: Prepared, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self.prepared, self.world, self._patch, self.folder = prepared, prepared.world, patch, folder
        self.wallet, self.payer, self.order = prepared.wallet, prepared.payer, prepared.order
        self.begin_anew()

    def begin_anew(self) -> None:
        """Let what runs next be no retry of what ran before."""
        self.context = recorded_context()

    def run(self, name: str) -> Any:
        """Run the task of a name."""
        operator, arguments, key = getattr(self, name)()
        self._patch.setenv("AIRFLOW_CONN_OCEAN_BAD", self.world.connection(key))
        return operator(task_id="a_task", ocean_conn_id="ocean_bad", **arguments).execute(self.context)

    def publish(self) -> Task:
        url = f"{self.world.localnet.files_url}/branin.arff"
        pricing = {"type": "fixed_rate", "rate": "1"}
        arguments = {"asset_name": "x", "url": url, "pricing": pricing}
        return OceanPublishDatasetOperator, arguments, self.wallet.private_key

    def allow(self) -> Task:
        dids = {"dataset_did": self.did("closed"), "algorithm_did": self.did("quick")}
        return OceanAllowAlgorithmOperator, dids, ALICE.private_key

    def transfer(self) -> Task:
        arguments = {
            "asset_dids": self.did("held"),
            "method": "transfer",
            "to": ALICE.address,
            "amount": "0.1",
        }
        return OceanTransferDatatokensOperator, arguments, self.wallet.private_key

    def buy(self) -> Task:
        arguments = {"asset_dids": self.did("sold"), "method": "buy", "max_cost": "50"}
        return OceanTransferDatatokensOperator, arguments, self.wallet.private_key

    def pay(self) -> Task:
        arguments = {
            "dataset_dids": [self.did("held")], "algorithm_did": self.did("quick"),
            "environment": self.world.paid_environment.id, "duration": 600, "max_cost": "60",
        }  # fmt: skip
        return OceanPayForComputeOperator, arguments, self.wallet.private_key

    def pay_without_limit(self) -> Task:
        operator, arguments, key = self.pay()
        return operator, {**arguments, "max_cost": None}, key

    def start(self) -> Task:
        return OceanStartComputeOperator, {"order": self.order}, self.payer.private_key

    def start_with_another_order(self) -> Task:
        """Offer the algorithm's order in the place of the dataset's."""
        transaction = self.order["algorithm"]["transaction"]
        mixed = {**self.order["datasets"][0], "transaction": transaction}
        return (
            OceanStartComputeOperator,
            {"order": {**self.order, "datasets": [mixed]}},
            self.payer.private_key,
        )

    def wait(self) -> Task:
        return OceanComputeSensor, {"job_id": self.prepared.over.good}, self.prepared.over.wallet.private_key

    def wait_for_a_failure(self) -> Task:
        return OceanComputeSensor, {"job_id": self.prepared.over.bad}, self.prepared.over.wallet.private_key

    def fetch(self) -> Task:
        over = self.prepared.over
        arguments = {"job_id": over.good, "artifact_base": str(self.folder)}
        return OceanFetchResultsOperator, arguments, over.wallet.private_key

    def start_free(self) -> Task:
        return OceanStartComputeOperator, {"order": self.prepared.free}, self.payer.private_key

    def settle(self) -> Task:
        """Look at a job that is paid through the escrow."""
        arguments = {"job_id": self.prepared.settled_job}
        return OceanSettlementSensor, arguments, self.prepared.settled_wallet.private_key

    def withdraw(self) -> Task:
        return OceanWithdrawFromEscrowOperator, {}, self.prepared.settled_wallet.private_key

    def did(self, name: str) -> str:
        return self.world.assets[name].did

    @contextmanager
    def nothing_sent(self) -> Iterator[None]:
        """Check that no wallet sends a transaction."""
        before = self.sent()
        yield
        assert self.sent() == before, "a transaction was sent, or a job started"
        assert not [path for path in self.folder.rglob("*") if path.is_file()], "something was kept"

    def sent(self) -> dict[str, tuple[int, int]]:
        """Return how many transactions and jobs there are of each wallet."""
        addresses = {ALICE.address} | {wallet.address for wallet in self.prepared.wallets}
        return {address: (self.world.nonce(address), len(self.world.jobs(address))) for address in addresses}
