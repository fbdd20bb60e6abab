"""The logs and results of jobs that ran on the local network's node, read, fetched and drawn."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Literal, cast

import pytest
from airflow.sdk import ObjectStoragePath

from airflow_ocean import running_log
from airflow_ocean.artifacts import Manifest, check_integrity, open_artifact
from airflow_ocean.c2d.errors import JobFailedError
from airflow_ocean.c2d.jobs import Jobs
from airflow_ocean.c2d.journal import FileJournal
from airflow_ocean.c2d.results import decode_result
from airflow_ocean.c2d.services.node import NodeServices
from airflow_ocean.c2d.wallet import Wallet
from airflow_ocean.fetching import ResultFetcher
from airflow_ocean.operators.plots import OceanPlotOperator
from airflow_ocean.operators.results import OceanFetchResultsOperator
from airflow_ocean.running_log import RunningLog
from airflow_ocean.sensors import OceanComputeSensor
from include.localnet import accounts
from include.localnet.contracts import ensure_deployed
from include.localnet.settings import CHAIN_ID
from tests.support.anvil import running_anvil
from tests.support.waiting import wait_until
from tests.unit.localnet.node_bench import Gate, NodeProcess, file_server
from tests.unit.localnet.node_bench import Wallet as Signer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_ocean.c2d.jobs import Job

SCRIPT = """
echo begun
cd /data/outputs
printf '{"a": 1}' > result.json
mkdir -p folds/1 folds/empty; echo '[1]' > folds/1/result.json; ln result.json folds/twin
ln -s /etc/passwd link; mkfifo pipe
i=0; while [ $i -lt 20000 ]; do echo 0123456789012345678901234567890123456789; i=$((i+1)); done > large.txt
"""
CONTAINER = {"image": "any", "tag": "v1", "checksum": "sha256:00"}


@dataclass
class World:
    """A node, and Bob who runs what he likes on it."""

    node: NodeProcess
    bob: NodeServices
    rpc_url: str
    address_file: Path

    def start(self, script: str, *, program: str = "/bin/sh", datasets: list[Any] | None = None) -> str:
        """Start a script, and return the job's id."""
        signer = Signer(accounts.BOB)
        signer.nonce = time.time_ns() // 10**6  # beyond those of the services, which are of the clock, too
        body = {
            **signer.fields("freeStartCompute"),
            "environment": self.node.environment()["id"],
            "datasets": datasets or [],
            "algorithm": {
                "meta": {"rawcode": script, "container": {**CONTAINER, "entrypoint": f"{program} $ALGO"}}
            },
        }
        response = self.node.http.post("/api/services/freeCompute", json=body)
        assert response.status_code == 200, response.text
        job_id: str = response.json()[0]["jobId"]
        return job_id

    def run(self, script: str, *, program: str = "/bin/sh") -> Job:
        """Run a script to its end."""
        job_id = self.start(script, program=program)
        wait_until(lambda: self.bob.job(job_id).is_finished, "the job is over", 120)
        return self.bob.job(job_id)

    def fetch(self, job: Job, folder: Path) -> ResultFetcher:
        """Return a fetcher of a job's results."""
        jobs = Jobs(
            cast("Any", lambda *_: self.bob), FileJournal(folder / "journal"), *cast("Any", (None, None))
        )
        kept = ObjectStoragePath(f"file://{folder}/kept")
        return ResultFetcher(jobs, job, kept, FileJournal(folder / "journal"), 2_000_000, 100)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home: Path = tmp_path_factory.mktemp("node")
    with running_anvil(home / "chain") as chain:
        address_file = home / "address.json"
        ensure_deployed(chain, address_file)
        node = NodeProcess(home / "node", chain.rpc_url, address_file)
        try:
            node.start()
            wallet = Wallet(accounts.BOB.private_key)
            bob = NodeServices(cast("Any", None), wallet, CHAIN_ID, node.url)
            yield World(node, bob, chain.rpc_url, address_file)
        finally:
            node.stop()
            node.http.close()


def test_outputs_become_artifacts_and_can_be_decoded(world: World, tmp_path: Path) -> None:
    job = world.run(SCRIPT)
    assert job.succeeded, job.describe()
    fetcher = world.fetch(job, tmp_path)
    artifacts = fetcher.fetch(job.results)
    outputs = {artifact.name: artifact for artifact in artifacts if artifact.type == "output"}
    assert set(outputs) == {"result.json", "folds/1/result.json", "folds/twin", "large.txt"}
    assert outputs["large.txt"].size == 20_000 * 41
    assert set(fetcher.left_out) == {"link", "pipe"}
    for artifact in artifacts:
        check_integrity(artifact)
    for name, value in (("result.json", {"a": 1}), ("folds/1/result.json", [1]), ("folds/twin", {"a": 1})):
        with open_artifact(outputs[name].uri) as stream:
            assert decode_result(stream, name).value == value
    names = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert len(names) == len(artifacts)

    # What is there is not fetched again, by another process either.
    large = outputs["large.txt"].uri.removeprefix("file://")
    with open(large, "w") as file:
        file.write("damaged")
    assert world.fetch(job, tmp_path).fetch(job.results) == artifacts
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == names
    check_integrity(outputs["large.txt"])


def draw(value: Any, stream: IO[bytes]) -> None:
    """Draw a result: what stands for it is what can be compared."""
    stream.write(json.dumps(value).encode())


@pytest.fixture
def bob(world: World, connection: Callable[..., str]) -> str:
    """Bob's connection."""
    extra = {"provider_url": world.node.url, "address_file": str(world.address_file)}
    return connection(extra, host=world.rpc_url, password=accounts.BOB.private_key)


def test_the_operators_fetch_and_draw(
    world: World, bob: str, context: dict[str, Any], tmp_path: Path
) -> None:
    job = world.run(SCRIPT)
    common: dict[str, Any] = {"task_id": "t", "ocean_conn_id": bob, "artifact_base": str(tmp_path)}
    uris = OceanFetchResultsOperator(job_id=job.id, **common).execute(context)
    manifest = context["ti"].xcoms["manifest"]
    assert uris == [file.uri for file in Manifest.read(manifest).files]
    plot = OceanPlotOperator(
        manifest=manifest, render=f"{__name__}:draw", result_name="folds/1/result.json", **common
    ).execute(context)
    with open_artifact(plot) as stream:
        assert json.loads(stream.read()) == [1]


def test_a_job_that_wrote_nothing_has_failed(
    world: World, bob: str, context: dict[str, Any], tmp_path: Path
) -> None:
    job = world.run("echo nothing to say; ln -s /etc/passwd /data/outputs/link")
    assert job.succeeded
    fetch = OceanFetchResultsOperator(
        task_id="t", job_id=job.id, ocean_conn_id=bob, artifact_base=str(tmp_path)
    )
    with pytest.raises(
        JobFailedError, match=r"wrote nothing to /data/outputs; .*'link'.*\nnothing to say"
    ) as raised:
        fetch.execute(context)
    assert job.id in str(raised.value)


def test_a_program_that_cannot_start_is_named_in_the_error(
    world: World, bob: str, context: dict[str, Any]
) -> None:
    job = world.run("exit 0", program="no-such-program")
    # The node writes the reason as plain text, where the log of what ran is in Docker's frames.
    sensor = OceanComputeSensor(task_id="t", job_id=job.id, ocean_conn_id=bob)
    with pytest.raises(JobFailedError, match='no-such-program": executable file not found'):
        sensor.execute(context)


async def seen(condition: Callable[[], Any]) -> None:
    """Wait for something on the event loop."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.05)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("[job]")]


async def test_a_log_is_followed_that_is_not_there_at_once(
    world: World, bob: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(running_log, "_OPEN_PAUSE", 0.05)
    caplog.set_level(logging.INFO)
    (tmp_path / "data.csv").write_text("1")
    gate = Gate()
    gate.open.clear()
    with file_server(tmp_path, gate) as files:
        data = {"fileObject": {"type": "url", "url": f"{files}/data.csv", "method": "GET"}}
        job_id = world.start("echo begun; sleep 60", datasets=[data])
        log = RunningLog(world.node.url, job_id, bob, logging.getLogger("task"), None)
        # As a node says it of a job before its container is started.
        log.note(runs=True)
        refused = world.node.log.count("Job not found or not running")
        await seen(lambda: world.node.log.count("Job not found or not running") > refused)
        assert lines(caplog) == []
        gate.open.set()
        await seen(lambda: lines(caplog))
    world.bob.stop(await asyncio.to_thread(world.bob.job, job_id))
    await log.end(60)
    assert lines(caplog) == ["[job] begun"]


async def test_a_log_that_cannot_be_shown_is_no_failure(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """As where only the workers have the connection."""
    log = RunningLog(
        world.node.url, "0xc1-" + "ab" * 32, "no_such_connection", logging.getLogger("task"), None
    )
    log.note(runs=True)
    await log.end(60)
    assert "is not shown while it runs" in caplog.text
    assert "no_such_connection" in caplog.text


class CountedTurns(asyncio.Semaphore):
    """One turn, and how often somebody has asked for it and got it."""

    def __init__(self) -> None:
        super().__init__(1)
        self.asked = self.given = 0

    async def acquire(self) -> Literal[True]:
        self.asked += 1
        await super().acquire()
        self.given += 1
        return True


async def test_a_log_waits_for_its_turn(
    world: World, bob: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    turns = CountedTurns()
    monkeypatch.setattr(running_log, "_turns", turns)
    caplog.set_level(logging.INFO)
    jobs = [world.start(f"echo {name}; sleep 60") for name in ("first", "second")]
    logs = [RunningLog(world.node.url, job, bob, logging.getLogger("task"), None) for job in jobs]
    for job in jobs:
        await seen(lambda job=job: world.bob.job(job).state == 40)  # type: ignore[misc]
    logs[0].note(runs=True)
    # A node says that a job runs before it has a log: until then whoever asks for it gives its turn away again.
    await seen(lambda: lines(caplog))
    asked = turns.asked
    logs[1].note(runs=True)
    await seen(lambda: turns.asked > asked)
    assert turns.given < turns.asked
    assert lines(caplog) == ["[job] first"]
    world.bob.stop(world.bob.job(jobs[0]))
    await seen(lambda: len(lines(caplog)) > 1)
    assert lines(caplog) == ["[job] first", "[job] second"]
    world.bob.stop(world.bob.job(jobs[1]))
    for log in logs:
        await log.end(60)
