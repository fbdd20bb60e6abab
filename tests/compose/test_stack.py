"""The compose file for real: all services in containers, runs over the REST API, and the loss of a worker.

Nothing is pulled: images made of Debian's and PyPI's packages stand in for the official ones.
"""

from __future__ import annotations

import hashlib
import html
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from include.localnet.accounts import BOB
from include.localnet.ethereum import Chain
from include.localnet.settings import DEFAULT_PORTS
from tests.support.airflow import PROJECT
from tests.support.compose_images import build_official_images
from tests.support.compose_stack import ComposeStack, composer
from tests.support.docker_engine import running_engine
from tests.support.running_airflow import DagRun
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.compose, pytest.mark.timeout(7200)]

WORKERS = 2
PARAMETER_SETS = [
    {"kernel": kernel, "points": points} for kernel in ("rbf", "matern") for points in (20, 60, 100, 140)
]
FETCH, PLOT = "fetch_and_plot.fetch_results", "fetch_and_plot.plot"
MEMBER_TASKS = [
    f"member.{name}" for name in ("pay_for_compute", "start_compute", "wait_for_compute", "fetch_results")
]


def missing() -> list[str]:
    """Return what this machine lacks for the test, as names of Debian's packages."""
    lacking = [] if composer() else ["docker-compose"]
    lacking += [] if os.environ.get("DOCKER_HOST") or shutil.which("dockerd") else ["docker.io"]
    return lacking + ([] if shutil.which("mmdebstrap") else ["mmdebstrap"])


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeStack]:
    if os.geteuid() != 0 or missing():
        pytest.skip(
            f"the compose stack needs root and an engine: apt install {' '.join(missing() or ['docker.io'])}"
        )
    with running_engine() as engine:
        if engine is None:
            pytest.skip(f"no Docker engine answers at DOCKER_HOST={os.environ.get('DOCKER_HOST')}")
        official = build_official_images(engine.client())
        settings = {
            "AIRFLOW_BASE_IMAGE": official["airflow"],
            "POSTGRES_IMAGE": official["postgres"],
            "REDIS_IMAGE": official["redis"],
            "OCEAN_IMAGE": "ocean-test/project:latest",
            "OCEAN_LOCALNET_IMAGE": "ocean-test/localnet:latest",
        }
        changes = Path(__file__).parent / "changes.yaml"
        stack = ComposeStack(engine, tmp_path_factory.mktemp("stack"), changes, settings)
        with stack.up(PROJECT / "build" / "compose" / "services.log", **{"airflow-worker": WORKERS}):
            yield stack


@pytest.fixture(scope="module")
def chain(stack: ComposeStack) -> Chain:
    return Chain(f"http://{stack.address('localnet')}:{DEFAULT_PORTS['chain']}")


def jobs(stack: ComposeStack) -> list[dict[str, Any]]:
    """Return all jobs of Bob's, as the Provider lists them."""
    url = f"http://{stack.address('localnet')}:{DEFAULT_PORTS['provider']}/api/services/compute"
    answer = httpx.get(url, params={"consumerAddress": BOB.address}, trust_env=False, timeout=60)
    found: list[dict[str, Any]] = answer.raise_for_status().json()
    return found


def orders(chain: Chain, token: str) -> set[str]:
    """Return the transactions that ordered with a datatoken."""
    return {
        event.transaction
        for event in chain.logs("ERC20Template", ["OrderStarted"], 0, chain.block_number(), token)
    }


def start(stack: ComposeStack, dag_id: str, **conf: Any) -> DagRun:
    """Switch a DAG on and start a run of it."""
    wait_until(lambda: stack.find(f"/api/v2/dags/{dag_id}"), f"the DAG {dag_id} is there")
    stack.request("PATCH", f"/api/v2/dags/{dag_id}", json={"is_paused": False})
    body = {"logical_date": None, "conf": conf}
    started = stack.request("POST", f"/api/v2/dags/{dag_id}/dagRuns", json=body)
    return DagRun(stack, dag_id, started["dag_run_id"])


class FirstRun:
    """A run of ``ocean_c2d``, watched until its end.

    :ivar waited_on: the hosts of the triggerers that its sensor waited on
    """

    def __init__(self, stack: ComposeStack) -> None:
        self.run = start(stack, "ocean_c2d", amount=str(len(PARAMETER_SETS) + 1))
        self.waited_on: set[str] = set()
        self.state = wait_until(self._look, "the run is over", timeout=900, pause=0.5)

    def _look(self) -> str | None:
        triggerer = self.run.task("wait_for_compute").get("triggerer_job")
        if triggerer:
            self.waited_on.add(triggerer["hostname"])
        state = self.run.state
        return state if state in ("success", "failed") else None


@pytest.fixture(scope="module")
def first_run(stack: ComposeStack) -> FirstRun:
    return FirstRun(stack)


def hosts(stack: ComposeStack, service: str) -> dict[str, str]:
    """Return the containers of a service by their host name."""
    return {found["Config"]["Hostname"]: found["Id"] for found in stack.containers(service)}


def test_a_run_goes_through_worker_and_triggerer(stack: ComposeStack, first_run: FirstRun) -> None:
    tasks = first_run.run.tasks()
    states = {name: task["state"] for name, task in tasks.items()}
    assert first_run.state == "success", states
    workers = hosts(stack, "airflow-worker")
    assert len(workers) == WORKERS
    ran_on = {task["hostname"] for task in tasks.values() if task["state"] == "success"}
    assert ran_on
    assert ran_on <= set(workers)
    assert first_run.waited_on == set(hosts(stack, "airflow-triggerer"))


def test_the_artifacts_are_readable_from_the_pages(stack: ComposeStack, first_run: FirstRun) -> None:
    run = first_run.run
    page = f"/ocean/dags/{run.dag_id}/runs/{run.run_id}"
    content = stack.http.get(page).raise_for_status().text
    links = {html.unescape(link) for link in re.findall(r'(?:href|src)="([^"]+)"', content)}
    uris = run.xcom(FETCH)
    assert uris
    offered = sorted(link for link in links if f"/artifacts/{FETCH}/" in link)
    assert len(offered) == len(uris)
    served = {hashlib.sha256(stack.http.get(link).raise_for_status().content).hexdigest() for link in offered}
    written = {
        hashlib.sha256(stack.read_file("airflow-worker", uri.removeprefix("file://"))).hexdigest()
        for uri in uris
    }
    assert served == written
    # Shown, and offered to be saved.
    plots = [link for link in links if f"/plots/{PLOT}/" in link]
    assert plots
    for plot in plots:
        assert stack.http.get(plot).raise_for_status().content.startswith(b"\x89PNG")
    for link in [page, *plots, *offered]:
        assert httpx.get(stack.http.base_url.join(link), trust_env=False, timeout=60).status_code in (
            401,
            403,
        )


def kill_busy_worker(stack: ComposeStack, run: DagRun) -> tuple[str, str] | None:
    """Kill a worker that is in the middle of a task of a run, and return its host name and the task; None when none is."""
    for host, container in hosts(stack, "airflow-worker").items():
        # Frozen, it cannot end the task between the look and the kill.
        stack.pause(container)
        for task_id in MEMBER_TASKS:
            for member in run.members(task_id):
                if member["state"] == "running" and member["hostname"] == host:
                    stack.kill(container)
                    return host, f"{task_id} {member['map_index']}"
        stack.unpause(container)
    return None


def test_a_killed_worker_loses_nothing(stack: ComposeStack, chain: Chain, first_run: FirstRun) -> None:
    published = {
        name: first_run.run.xcom(f"publish_{name}", "datatoken_address") for name in ("dataset", "algorithm")
    }
    before = {name: orders(chain, token) for name, token in published.items()}
    jobs_before = {job["jobId"] for job in jobs(stack)}
    count = len(PARAMETER_SETS)
    run = start(stack, "ocean_c2d_sweep", parameter_sets=PARAMETER_SETS, parallel_jobs=count)

    def shared_out() -> bool:
        done = [m for task_id in MEMBER_TASKS for m in run.members(task_id) if m["state"] == "success"]
        assert run.state in ("queued", "running")
        return {member["hostname"] for member in done} == set(hosts(stack, "airflow-worker"))

    wait_until(shared_out, "both workers have done a part of the sweep", 600, 0.5)
    killed = wait_until(lambda: kill_busy_worker(stack, run), "a worker is in the middle of a task", 300, 0.2)
    wait_until(lambda: run.state in ("success", "failed"), "the sweep is over", 1200, 1)

    states = {
        task_id: [(m["state"], m["try_number"]) for m in run.members(task_id)] for task_id in MEMBER_TASKS
    }
    assert run.state == "success", (killed, states)
    assert all(len(members) == count for members in states.values())
    assert {state for members in states.values() for state, _ in members} == {"success"}
    # The task that died with its worker was tried again, by the one that was left.
    host, (task_id, index) = killed[0], killed[1].split()
    again = run.members(task_id)[int(index)]
    assert again["try_number"] > 1
    assert again["hostname"] != host
    _check_nothing_lost_or_twice(stack, chain, run, published, before, jobs_before)


def _check_nothing_lost_or_twice(
    stack: ComposeStack,
    chain: Chain,
    run: DagRun,
    published: dict[str, str],
    orders_before: dict[str, set[str]],
    jobs_before: set[str],
) -> None:
    """Check that each member of a sweep has a result and a job of its own, and that no order was made for nothing."""
    members = range(len(PARAMETER_SETS))
    started = [run.xcom("member.start_compute", map_index=index) for index in members]
    made = [job for job in jobs(stack) if job["jobId"] not in jobs_before]
    assert sorted(job["jobId"] for job in made) == sorted(started)
    assert {job["status"] for job in made} == {70}
    results = [run.xcom("member.fetch_results", map_index=index) for index in members]
    contents = [
        stack.read_file("airflow-apiserver", uris[0].removeprefix("file://")) for uris in results if uris
    ]
    # Different parameters, different results.
    assert len({hashlib.sha256(content).hexdigest() for content in contents}) == len(members)
    used = [run.xcom("member.pay_for_compute", "order", map_index=index) for index in members]
    for name, token in published.items():
        new = orders(chain, token) - orders_before[name]
        parts = [order["algorithm"] if name == "algorithm" else order["datasets"][0] for order in used]
        transactions = {part["transaction"] for part in parts}
        # An order that was there, or that another member was through with, is used again; none is left over.
        assert new <= transactions, f"orders of the {name} that no member uses"
        assert transactions <= new | orders_before[name]
        assert len(new) <= len(members)
    # In the free environment a job runs on the order of its algorithm: each member's job on that member's order.
    agreements = [job["agreementId"].lower() for job in made]
    assert sorted(agreements) == sorted(order["algorithm"]["transaction"].lower() for order in used)
    assert run.task("plot")["state"] == "success"
