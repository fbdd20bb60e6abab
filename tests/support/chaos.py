"""Runs of the compute flow while processes are killed at random: who, when, and what is left in the end."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from include.demo.processes import CommandError
from include.localnet import accounts, network
from include.localnet.ethereum import Chain
from include.localnet.processes import ProcessTable
from tests.conftest import STACK
from tests.support.airflow import PROJECT
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator

    from include.localnet.settings import NetworkSettings
    from tests.support.running_airflow import DagRun, MortalAirflow

TASKS = (
    "approve_spending",
    "publish_dataset",
    "publish_algorithm",
    "allow_algorithm",
    "transfer_datatokens",
    "pay_for_compute",
    "start_compute",
    "wait_for_compute",
    "fetch_and_plot.fetch_results",
    "fetch_and_plot.plot",
)
WAIT = "wait_for_compute"
WORKER, LONE_SCHEDULER = "worker", "scheduler alone"
# How often each is among the cards of which victims are dealt. A scheduler that dies alone leaves its workers' tasks
# running while the next one starts them again.
_SERVICES_OF = {
    "provider": {"aquarius": 2, "provider": 3, "operator_service": 2, "chain": 3},
    "node": {"node": 6, "chain": 3},
}
VICTIMS = {
    WORKER: 6,
    "triggerer": 2,
    "scheduler": 3,
    LONE_SCHEDULER: 2,
    "api-server": 1,
    **_SERVICES_OF[STACK],
}
SERVICES = tuple(_SERVICES_OF[STACK])
# Tasks, and their states, in which a victim has something to do with them; by default all, at work in any way. Plotting
# asks no service.
_PLACES = {
    **dict.fromkeys(SERVICES, TASKS[:-1]),
    "operator_service": TASKS[TASKS.index("pay_for_compute") : -1],
    "triggerer": (WAIT,),
}
_AT_WORK = {WORKER: ("running",), "triggerer": ("deferred",)}
_AT_WORK_ANY = ("running", "deferred")
# Their death touches one task only. With one kill of all others in each of two runs, and one kill of its own at most, no
# task loses more tries than the DAG's three retries make up for.
_PERSONAL = (WORKER, "triggerer")
_BETWEEN_LOOKS = 0.1
# The example's algorithm, with a pause: otherwise the job is over before its task is deferred.
UNHURRIED = """
import time
time.sleep(10)
exec(compile({}, "algorithm", "exec"), {{"__name__": "__main__"}})
"""


@dataclass(frozen=True)
class Moment:
    """When to kill: after a task was first seen at work, at the first of two things.

    :param requests: so many requests to the services
    :param seconds: so much time
    """

    task: str
    requests: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.task} +{self.requests} requests or {self.seconds:.1f} s"


@dataclass(frozen=True)
class Armed:
    """A kill that is about to come.

    :param task: seen at work
    :param requests: the count of requests at which it comes
    :param at: when it comes at the latest, on the monotonic clock
    """

    task: str
    requests: int
    at: float


@dataclass
class ChaoticRun:
    """A run, and what is done to it.

    :param plan: who is killed when, in this order; what is left of it
    :param kills: who was killed, and when
    """

    number: int
    run: DagRun
    plan: list[tuple[Moment, str]]
    began: float = field(default_factory=time.monotonic)
    kills: list[tuple[str, str]] = field(default_factory=list)
    tries: dict[str, int] = field(default_factory=dict)
    state: str = "running"
    seconds: float = 0.0
    armed: Armed | None = None

    @property
    def is_over(self) -> bool:
        """Whether the run is."""
        return self.state in ("success", "failed")


def plans(
    random_numbers: random.Random, victims: Iterable[str], runs: int
) -> dict[int, list[tuple[Moment, str]]]:
    """Choose one to three kills of each run, each at another task, in the order of the tasks.

    Victims are dealt like cards, so that a long series has them all.

    :param runs: how many; they are counted from 1
    """
    chosen = set(victims)
    personal = _dealt(random_numbers, [victim for victim in _PERSONAL if victim in chosen])
    common = _dealt(random_numbers, [victim for victim in VICTIMS if victim in chosen - set(_PERSONAL)])
    found = {}
    for number in range(1, runs + 1):
        hand = list(itertools.islice(common, 1))
        hand += itertools.islice(personal, random_numbers.randint(0 if hand else 1, 2))
        found[number] = _placed(random_numbers, hand)
    return found


def _dealt(random_numbers: random.Random, victims: list[str]) -> Iterator[str]:
    """Deal victims from decks in random order, of which each has a victim as often as it weighs."""
    while victims:
        deck = [victim for victim in victims for _ in range(VICTIMS[victim])]
        random_numbers.shuffle(deck)
        yield from deck


def _placed(random_numbers: random.Random, victims: list[str]) -> list[tuple[Moment, str]]:
    free, kills = list(TASKS), []
    # The choosiest first: a triggerer has to do with one task only.
    for victim in sorted(victims, key=lambda victim: len(_PLACES.get(victim, TASKS))):
        places = [task for task in free if task in _PLACES.get(victim, TASKS)]
        if not places:
            continue  # a second triggerer
        task = random_numbers.choice(places)
        free.remove(task)
        moment = Moment(task, random_numbers.randint(0, 6), random_numbers.uniform(0, 3))
        kills.append((moment, victim))
    return sorted(kills, key=lambda kill: TASKS.index(kill[0].task))


class Chaos:
    """Starts runs, kills by plan, starts again what was killed, and waits until the runs are over.

    :param say: told of each kill
    """

    def __init__(self, airflow: MortalAirflow, localnet: NetworkSettings) -> None:
        self._airflow = airflow
        self._localnet = localnet
        self._table = ProcessTable(localnet.home)
        algorithm = (PROJECT / "include" / "branin" / "algorithm.py").read_text()
        localnet.files_folder.mkdir(parents=True, exist_ok=True)
        (localnet.files_folder / "unhurried.py").write_text(UNHURRIED.format(json.dumps(algorithm)))

    def run(
        self, plans: dict[int, list[tuple[Moment, str]]], timeout: float, **conf: Any
    ) -> list[ChaoticRun]:
        """Run the flow once for each plan, all at the same time.

        :param plans: by the run's number
        :param timeout: seconds until it is given up
        :param conf: the runs' params
        """
        runs = [
            ChaoticRun(number, self._airflow.trigger("ocean_c2d", **conf), plan)
            for number, plan in plans.items()
        ]
        deadline = time.monotonic() + timeout
        while not all(run.is_over for run in runs) and time.monotonic() < deadline:
            for run in runs:
                if not run.is_over:
                    # The API server may be among the dead.
                    with contextlib.suppress(httpx.HTTPError, CommandError):
                        self._look_after(run)
            time.sleep(_BETWEEN_LOOKS)
        for run in runs:
            tasks = run.run.tasks()
            run.tries = {task: tasks[task]["try_number"] for task in TASKS}
            if not run.is_over:
                run.state = f"not over after {timeout:.0f} s: " + ", ".join(
                    f"{task} {tasks[task]['state']}" for task in TASKS if tasks[task]["state"] != "success"
                )
        return runs

    def _look_after(self, run: ChaoticRun) -> None:
        """Kill when the next moment of the plan has come, else see how the run is."""
        if run.plan and self._act(run):
            return
        run.state = run.run.state
        run.seconds = time.monotonic() - run.began

    def _act(self, run: ChaoticRun) -> bool:
        moment, victim = run.plan[0]
        tasks = run.run.tasks()
        at_work = [task for task in TASKS if tasks[task]["state"] in _AT_WORK.get(victim, _AT_WORK_ANY)]
        if run.armed is None:
            # A task that was too quick to be seen at work is made up for by the next one that is.
            passed = tasks[moment.task]["state"] == "success"
            target = moment.task if moment.task in at_work or not passed else next(iter(at_work), None)
            if target in at_work:
                latest = time.monotonic() + moment.seconds
                run.armed = Armed(target, self._requests() + moment.requests, latest)
            return False
        target = run.armed.task
        waiting = time.monotonic() < run.armed.at and self._requests() < run.armed.requests
        if target in at_work and waiting:
            return False
        run.armed = None
        if victim == WORKER and target not in at_work:
            return False  # its process has ended, another one will do
        if what := self._kill(victim, tasks[target]):
            run.plan.pop(0)
            run.kills.append((what, f"{target} +{moment.requests}"))
        return True

    def _requests(self) -> int:
        """Return how many requests the services have written down."""
        return sum(self._table.log(service).read_bytes().count(b"\n") for service in SERVICES)

    # ------------------------------------------------------------------ killing

    def _kill(self, victim: str, task: dict[str, Any]) -> str:
        """Kill with SIGKILL, start again, and say who it was; an empty text when nobody was there."""
        if victim == WORKER:
            return self._kill_worker(task)
        if victim in SERVICES:
            record = self._table.running(victim)
            assert record is not None, f"{victim} does not run"
            os.kill(record.pid, signal.SIGKILL)
            wait_until(lambda: not self._table.running(victim), f"{victim} is dead")
            network.up(self._localnet)
            return victim
        component = "scheduler" if victim == LONE_SCHEDULER else victim
        self._airflow.kill(component, with_children=victim != LONE_SCHEDULER)
        self._airflow.start_component(component)
        return victim

    def _kill_worker(self, task: dict[str, Any]) -> str:
        """Kill the process of a task and its supervisor; say nothing when they have just ended."""
        for worker in self._airflow.busy_workers():
            if task["pid"] in [process.pid for process in worker]:
                self._airflow.kill_worker(worker)
                return WORKER
        return ""


# ---------------------------------------------------------------------- counting


class Ledger:
    """What runs have done to the chain and at the services, and what they left on the disk.

    :param airflow: whose runs
    """

    def __init__(self, airflow: MortalAirflow, localnet: NetworkSettings) -> None:
        self._airflow = airflow
        self._localnet = localnet
        self._chain = Chain(localnet.rpc_url)
        self._http = httpx.Client(trust_env=False, timeout=30)
        addresses = json.loads(localnet.address_file.read_text())["development"]
        self._ocean, self._factory = addresses["Ocean"], addresses["ERC721Factory"]
        self._escrow = addresses["Escrow"]

    def conf(self) -> dict[str, Any]:
        """Return the params of the runs: on an Ocean Node a job that is paid through the escrow."""
        if STACK != "node":
            return {}
        url = f"{self._localnet.node_url}/api/services/computeEnvironments"
        (environment,) = self._http.get(url, params={"chainId": "8996"}).raise_for_status().json()
        return {"environment": environment["id"], "duration": 120}

    def totals(self) -> Counter[str]:
        """Return counts that grow by the same with each run."""
        block = self._chain.block_number()
        factory = self._chain.logs("ERC721Factory", ["NFTCreated", "TokenCreated"], 0, block, self._factory)
        counts = Counter({event: 0 for event in ("NFTCreated", "TokenCreated")})
        counts.update(event.name for event in factory)
        locks = self._chain.logs("Escrow", ["Lock"], 0, block, self._escrow)
        counts["locks"] = len(locks)
        for wallet in (accounts.ALICE, accounts.BOB):
            # What is in the escrow already need not be deposited again, so that the number of deposits depends on how soon
            # the node claims.
            if STACK != "node" or wallet is accounts.ALICE:
                nonce = self._chain.request("eth_getTransactionCount", wallet.address, "pending")
                counts[f"transactions of {wallet.address}"] = int(nonce, 16)
            held = self._chain.call(self._ocean, "OceanToken", "balanceOf", wallet.address)
            counts[f"OCEAN of {wallet.address}"] = int(held) + self._in_escrow(wallet.address)
        counts["jobs"] = len(self._jobs())
        return counts

    def _in_escrow(self, owner: str) -> int:
        """Return how much OCEAN is free for a wallet in the escrow, once all its jobs are settled."""

        def funds() -> tuple[int, int]:
            available, locked = self._chain.call(self._escrow, "Escrow", "getUserFunds", owner, self._ocean)
            return int(available), int(locked)

        wait_until(lambda: funds()[1] == 0, f"the jobs of {owner} are settled", 300)
        return funds()[0]

    def of_run(self, run: DagRun) -> dict[str, Any]:
        """Return all that a run has done, in a form that is the same for each run."""
        dataset, algorithm = (run.xcom(f"publish_{kind}") for kind in ("dataset", "algorithm"))
        orders = run.xcom("pay_for_compute")
        jobs = [job for job in self._jobs() if _computes(job, dataset, algorithm)]
        found: dict[str, Any] = {"orders": len(orders), "jobs": len(jobs)}
        # Only the answer to its start has an Ocean Node's cluster before the id.
        assert [job["jobId"] for job in jobs] == [run.xcom("start_compute").rpartition("-")[2]]
        assert jobs[0]["agreementId"] in (*orders, None)
        for kind in ("dataset", "algorithm"):
            nft = run.xcom(f"publish_{kind}", "nft_address")
            token = run.xcom(f"publish_{kind}", "datatoken_address")
            found[f"events of the {kind}'s NFT"] = self._events(nft)
            found[f"events of the {kind}'s datatoken"] = self._events(token)
            for name, wallet in (("Alice", accounts.ALICE), ("Bob", accounts.BOB)):
                held = self._chain.call(token, "ERC20Template", "balanceOf", wallet.address)
                found[f"{kind}'s datatokens of {name} in wei"] = int(held)
            supply = self._chain.call(token, "ERC20Template", "totalSupply")
            found[f"{kind}'s datatokens in wei"] = int(supply)
        found["files"] = self._files(run)
        return found

    def _jobs(self) -> list[dict[str, Any]]:
        url = f"{self._localnet.provider_url}/api/services/compute"
        answer = self._http.get(url, params={"consumerAddress": accounts.BOB.address})
        jobs: list[dict[str, Any]] = answer.raise_for_status().json()
        return jobs

    def _events(self, contract: str) -> Counter[str]:
        query = {"fromBlock": "0x0", "toBlock": "latest", "address": contract}
        return Counter(log["topics"][0] for log in self._chain.request("eth_getLogs", query))

    def _files(self, run: DagRun) -> list[str]:
        """Return the run's files by task, each as whole as its manifest says."""
        manifest = _path(run.xcom("fetch_and_plot.fetch_results", "manifest"))
        for file in json.loads(manifest.read_text())["files"]:
            assert hashlib.sha256(_path(file["uri"]).read_bytes()).hexdigest() == file["sha256"], file
        plot = _path(run.xcom("fetch_and_plot.plot")).read_bytes()
        assert plot.startswith(b"\x89PNG\r\n\x1a\n")
        assert plot.endswith(b"IEND\xaeB`\x82"), "half a picture"
        folder = manifest.parent.parent
        return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def _computes(job: dict[str, Any], dataset: str, algorithm: str) -> bool:
    """Say whether a job runs an algorithm on a dataset."""
    if metadata := job.get("metadata"):  # an Ocean Node tells by what its start was marked with
        return bool((metadata["algorithm"], metadata["datasets"]) == (algorithm, [dataset]))
    return bool((job["algoDID"], job["inputDID"]) == (algorithm, [dataset]))


def _path(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def report(seed: int, runs: list[ChaoticRun], fault_free: float) -> str:
    """Return a Markdown report.

    :param fault_free: seconds of a run without faults
    """
    victims = Counter(victim for run in runs for victim, _ in run.kills)
    lines = [
        "# Compute runs while processes are killed",
        "",
        f"Seed {seed}; {len(runs)} runs, {victims.total()} kills; a run without faults took {fault_free:.0f} s.",
        "Killed: " + ", ".join(f"{victim} {count}" for victim, count in victims.most_common()) + ".",
        "",
        "| run | killed | tries, where more than one | duration ÷ fault-free | result |",
        "|---|---|---|---|---|",
    ]
    for run in runs:
        killed = "; ".join(f"{victim} at {when}" for victim, when in run.kills)
        missed = "".join(f"; not at {moment}: {victim}" for moment, victim in run.plan)
        again = ", ".join(f"{task} {tries}" for task, tries in run.tries.items() if tries > 1)
        ratio = f"{run.seconds / fault_free:.1f}"
        lines.append(f"| {run.number} | {killed}{missed} | {again} | {ratio} | {run.state} |")
    return "\n".join([*lines, ""])
