"""An Airflow of the tests' own on the local network, and runs of its DAGs."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from include.localnet import network
from include.localnet.cli import exports
from include.localnet.settings import NetworkSettings, choose_ports
from tests.conftest import STACK
from tests.support.airflow import PROJECT, migrate_database, prepare_airflow_home

prepare_airflow_home()

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.e2e.fault_world import World
    from tests.support.running_airflow import MortalAirflow


@pytest.fixture(scope="session")
def airflow_home(localnet: NetworkSettings) -> Iterator[Path]:
    """An Airflow whose database is there, and whose connections are wallets on the local network."""
    home = prepare_airflow_home()
    migrate_database()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in exports(localnet).items():
            patch.setenv(name, value)
        yield home


@pytest.fixture(scope="session")
def with_orders(airflow_home: Path) -> dict[str, Any]:
    """Return params of a computation that takes orders; the free part of an Ocean Node's environment takes none."""
    if STACK == "provider":
        return {}
    from airflow_ocean.hooks import OceanHook

    with OceanHook("ocean_bob").get_client() as client:
        paid = next(found.id for found in client.orders.environments() if found.needs_orders)
    return {"environment": paid, "duration": 120}


@dataclass
class FinishedRun:
    """A DAG run that is over. Members of a mapped task are told apart as in ``task_id[0]``.

    :param state: the run's own
    :param states: each task's state
    :param tries: how often each task was tried
    :param xcoms: by task and key; without the links that Airflow keeps there, too
    """

    run_id: str
    state: str
    states: dict[str, str] = field(default_factory=dict)
    tries: dict[str, int] = field(default_factory=dict)
    xcoms: dict[str, dict[str, Any]] = field(default_factory=dict)


def _name(row: Any) -> str:
    return row.task_id if row.map_index < 0 else f"{row.task_id}[{row.map_index}]"


@pytest.fixture(scope="session")
def run_dag(airflow_home: Path) -> Callable[..., FinishedRun]:
    """Run a DAG of the project to its end through ``dag.test()``, with a configuration for its params."""
    from airflow.dag_processing.dagbag import DagBag
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    def run(dag_id: str, logical_date: datetime | None = None, **configuration: Any) -> FinishedRun:
        dag = DagBag(PROJECT / "dags").dags[dag_id]
        dag_run = dag.test(run_conf=configuration, logical_date=logical_date or datetime.now(UTC))
        finished = FinishedRun(dag_run.run_id, str(dag_run.state))
        with create_session() as session:
            for instance in dag_run.get_task_instances(session=session):
                name = _name(instance)
                finished.states[name] = str(instance.state)
                finished.tries[name] = instance.try_number
            for xcom in session.scalars(XComModel.get_many(run_id=dag_run.run_id, dag_ids=dag_id)):
                if not xcom.key.startswith("_link_"):
                    # As it is stored: what is not plain JSON shows as Airflow's own encoding of it.
                    finished.xcoms.setdefault(_name(xcom), {})[xcom.key] = xcom.value
        return finished

    return run


@pytest.fixture(scope="session")
def world(airflow_home: Path, localnet: NetworkSettings) -> Iterator[World]:
    """The local network behind a fault proxy, with assets for each way of paying."""
    from tests.e2e.fault_world import World

    made = World(localnet)
    yield made
    made.close()


@pytest.fixture(scope="session")
def mortal_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkSettings]:
    """A local network of its own, whose parts may be killed."""
    settings = NetworkSettings(tmp_path_factory.mktemp("mortal-localnet"), choose_ports(0), stack=STACK)
    try:
        network.up(settings)
        yield settings
    finally:
        network.down(settings.home)


@pytest.fixture(scope="session")
def mortal_airflow(
    mortal_network: NetworkSettings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MortalAirflow]:
    """A running Airflow whose processes may be killed."""
    from tests.support.running_airflow import MortalAirflow, project_dag

    dags = [project_dag("ocean_c2d"), PROJECT / "tests" / "support" / "dags" / "waiting.py"]
    airflow = MortalAirflow(mortal_network, tmp_path_factory.mktemp("mortal-airflow") / "home", dags)
    try:
        airflow.start()
        airflow.wait_until_ready()
        for dag_id in ("ocean_c2d", "wait_deferred", "wait_poking", "wait_briefly"):
            airflow.wait_for_dag(dag_id)
            airflow.unpause(dag_id)
        yield airflow
    finally:
        airflow.stop()
