"""Starting, waiting, stopping and fetching under faults: one job per run, and whole files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_ocean.c2d.jobs import get_job
from tests.e2e.fault_case import Case, same
from tests.e2e.fault_cases_paying import paid_order
from tests.e2e.fault_world import ETHER
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.e2e.fault_world import Wallet, World
    from tests.support.task_runner import FinishedTask


def start(world: World, paid: bool = False, renewed: bool = False) -> Case:
    wallet = world.wallet(ocean=100 * ETHER)
    order = paid_order(world, wallet, paid, renewed)
    nonce = world.nonce(wallet.address)

    def verify(finished: FinishedTask) -> None:
        (job,) = world.jobs(wallet.address)
        same(job["jobId"], finished.xcoms["return_value"], "job")
        assert job["agreementId"] in order.transactions
        same(wallet.address, finished.xcoms["consumer_address"], "consumer")
        same(world.proxy.url("provider"), finished.xcoms["provider_url"], "Provider")
        same(nonce, world.nonce(wallet.address), "transactions")

    return Case({"order": order.to_dict()}, wallet.private_key, verify)


def wait_poking(world: World, _folder: Path) -> Case:
    jobs = world.jobs_over

    def verify(finished: FinishedTask) -> None:
        same(jobs.good, finished.xcoms["return_value"], "job")
        assert finished.xcoms["status"] == "Job finished"
        assert finished.xcoms["duration"] >= 0

    arguments = {"job_id": jobs.good, "deferrable": False, "poke_interval": 0.1}
    return Case(arguments, jobs.wallet.private_key, verify)


def _start_job(world: World, wallet: Wallet, algorithm: str) -> str:
    """Start a job past all faults."""
    with world.client(wallet.private_key) as client:
        quote = client.orders.quote([world.assets["dispensed 2"].did], world.assets[algorithm].did)
        return client.jobs.start(client.orders.pay(quote)).id


def wait_deferred(world: World, _folder: Path) -> Case:
    wallet = world.wallet()
    job = _start_job(world, wallet, "slow")

    def verify(finished: FinishedTask) -> None:
        same(job, finished.xcoms["return_value"], "job")
        (found,) = world.jobs(wallet.address)
        assert found["dateFinished"], "the task was over before the job"
        stop_requests = found["stopRequested"] if "stopRequested" in found else found["stopreq"]
        same("None", str(stop_requests or None), "requests to stop")

    arguments = {"job_id": job, "poke_interval": 0.2, "stop_on_kill": True, "timeout": 60}
    return Case(arguments, wallet.private_key, verify)


def wait_failed(world: World, _folder: Path) -> Case:
    jobs = world.jobs_over

    def verify(finished: FinishedTask) -> None:
        assert "JobFailedError" in finished.errors[-1], finished.errors
        assert "gives up on purpose" in finished.errors[-1], finished.errors
        assert "return_value" not in finished.xcoms

    return Case({"job_id": jobs.bad, "poke_interval": 0.1}, jobs.wallet.private_key, verify)


def stop(world: World, _folder: Path) -> Case:
    wallet = world.wallet()
    job = _start_job(world, wallet, "lasting")
    nonce = world.nonce(wallet.address)

    def verify(finished: FinishedTask) -> None:
        same(job, finished.xcoms["return_value"], "job")
        assert finished.xcoms["status"]
        # It would run for a quarter of an hour.
        wait_until(lambda: get_job(world.localnet.provider_url, wallet.address, job).is_finished, "the end")
        same(1, len(world.jobs(wallet.address)), "jobs")
        same(nonce, world.nonce(wallet.address), "transactions")

    return Case({"job_id": job}, wallet.private_key, verify)


def fetch(world: World, folder: Path) -> Case:
    base, jobs = folder / "artifacts", world.jobs_over

    def verify(finished: FinishedTask) -> None:
        manifest = Path(finished.xcoms["manifest"].removeprefix("file://"))
        described = json.loads(manifest.read_text())
        same(jobs.good, described["job_id"], "job")
        same([file["uri"] for file in described["files"]], finished.xcoms["return_value"], "files told")
        outputs = {file["name"]: file["size"] for file in described["files"] if file["type"] == "output"}
        same({"result": 8, "large": 256 * 8192}, outputs, "outputs")
        for file in described["files"]:
            content = Path(file["uri"].removeprefix("file://")).read_bytes()
            same(file["sha256"], hashlib.sha256(content).hexdigest(), f"content of {file['name']}")
        same(len(described["files"]) + 1, _files(base), "files among the artifacts")

    arguments = {"job_id": jobs.good, "artifact_base": str(base)}
    return Case(arguments, jobs.wallet.private_key, verify)


def _files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))
