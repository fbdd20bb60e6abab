"""Killing the task that waits stops the job, from the worker as well as from the triggerer, and only when told to."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from airflow_ocean.c2d.jobs import get_job
from airflow_ocean.c2d.specs import AlgorithmContainer, AssetSpec
from airflow_ocean.hooks import OceanHook
from airflow_ocean.operators.compute import OceanStopComputeOperator
from airflow_ocean.sensors import OceanComputeSensor
from airflow_ocean.triggers import OceanComputeTrigger
from include.localnet import accounts
from tests.support.airflow import recorded_context
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from include.localnet.settings import NetworkSettings

pytestmark = [pytest.mark.e2e, pytest.mark.both_stacks]

SLEEPING_ALGORITHM = """
import time
print("asleep", flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def sleeping_assets(localnet: NetworkSettings, airflow_home):
    localnet.files_folder.mkdir(parents=True, exist_ok=True)
    (localnet.files_folder / "sleeping.py").write_text(SLEEPING_ALGORITHM)
    container = AlgorithmContainer("oceanprotocol/algo_dockers", "python-branin", "sha256:" + "0c" * 32)

    def url(name):
        return ({"type": "url", "url": f"{localnet.files_url}/{name}", "method": "GET"},)

    with OceanHook("ocean_alice").get_client() as alice:
        dataset = alice.assets.publish(AssetSpec("dataset", "data", url("branin.arff")))
        algorithm = (
            OceanHook("ocean_alice")
            .get_client()
            .assets.publish(AssetSpec("algorithm", "sleeping", url("sleeping.py"), container=container))
        )
    OceanHook("ocean_alice").get_client().assets.allow_algorithm(dataset.did, algorithm_did=algorithm.did)
    return dataset, algorithm


@pytest.fixture
def sleeping_job(sleeping_assets, localnet):
    """A job of Bob's that runs until it is stopped."""
    dataset, algorithm = sleeping_assets
    with ExitStack() as stack:
        alice, bob = (
            stack.enter_context(OceanHook(name).get_client()) for name in ("ocean_alice", "ocean_bob")
        )
        for asset in (dataset, algorithm):
            alice.datatokens.mint(asset.datatoken_address, bob.address, 10**18, step=f"mint {asset.did}")
        job = bob.jobs.start(bob.orders.pay(bob.orders.quote([dataset.did], algorithm.did)))
        wait_until(lambda: state(job.id, localnet).state == 40, "the job runs")
        yield job.id
        bob.jobs.stop(job.id)
    wait_until(lambda: state(job.id, localnet).is_finished, "the job is over")


def state(job_id, localnet):
    return get_job(localnet.provider_url, accounts.BOB.address, job_id)


def is_stopped(job_id, localnet):
    return wait_until(lambda: state(job_id, localnet).is_finished, "the job is stopped")


def make_trigger(job_id, localnet, **arguments):
    return OceanComputeTrigger(
        job_id=job_id,
        provider_url=localnet.provider_url,
        consumer_address=accounts.BOB.address,
        deadline=2e9,
        poll_interval=1,
        ocean_conn_id="ocean_bob",
        **arguments,
    )


async def test_killing_the_deferred_task_stops_the_job(sleeping_job, localnet):
    await make_trigger(sleeping_job, localnet, stop_on_kill=True).on_kill()
    assert is_stopped(sleeping_job, localnet)


async def test_being_cancelled_again_does_not_save_the_job(sleeping_job, localnet):
    """Airflow cancels a trigger that stops its job again and again, as it has not ended yet."""
    killing = asyncio.create_task(make_trigger(sleeping_job, localnet, stop_on_kill=True).on_kill())
    await asyncio.sleep(0)
    killing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await killing
    assert await asyncio.to_thread(is_stopped, sleeping_job, localnet)


async def test_the_job_goes_on_when_it_is_not_to_be_stopped(sleeping_job, localnet):
    trigger = make_trigger(sleeping_job, localnet)
    await trigger.on_kill()
    # What a restart of the triggerer calls.
    await make_trigger(sleeping_job, localnet, stop_on_kill=True).cleanup()
    OceanComputeSensor(task_id="wait", ocean_conn_id="ocean_bob", job_id=sleeping_job).on_kill()
    with OceanHook("ocean_bob").get_client() as bob:
        assert not bob.jobs.get(sleeping_job).is_finished


def test_killing_the_poking_task_stops_the_job(sleeping_job, localnet):
    OceanComputeSensor(
        task_id="wait", ocean_conn_id="ocean_bob", job_id=sleeping_job, deferrable=False, stop_on_kill=True
    ).on_kill()
    assert is_stopped(sleeping_job, localnet)


def test_a_timeout_stops_the_job(sleeping_job, localnet):
    from airflow.sdk.exceptions import AirflowSensorTimeout

    sensor = OceanComputeSensor(
        task_id="wait", ocean_conn_id="ocean_bob", job_id=sleeping_job, stop_on_kill=True
    )
    with pytest.raises(AirflowSensorTimeout, match="it was stopped"):
        sensor.execute_complete(recorded_context(), {"event": "timeout", "job_id": sleeping_job})
    assert is_stopped(sleeping_job, localnet)


def test_the_stop_operator(sleeping_job, localnet):
    xcoms = {}
    context = {"ti": SimpleNamespace(xcom_push=xcoms.__setitem__)}
    stop = OceanStopComputeOperator(task_id="stop", ocean_conn_id="ocean_bob", job_id=sleeping_job)
    assert stop.execute(context) == sleeping_job
    assert xcoms.keys() == {"status"}
    assert is_stopped(sleeping_job, localnet)
    # One that is over stays as it is.
    assert stop.execute(context) == sleeping_job


def test_the_connection_test_finds_all_well(airflow_home):
    ok, message = OceanHook("ocean_bob").test_connection()
    assert ok, message
    assert accounts.BOB.address in message
