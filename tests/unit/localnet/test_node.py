"""What the recordings do not show of the local Ocean Node: limits, layout, queue, kills, and the whole network's stacks."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from include.localnet import accounts
from include.localnet.contracts import ensure_deployed
from include.localnet.node.authorization import signed_hash, signers
from include.localnet.node.javascript import number_text, parse_int
from include.localnet.node.rate_limit import RateLimit
from tests.support.anvil import running_anvil
from tests.support.waiting import wait_until
from tests.unit.localnet.node_bench import Gate, NodeProcess, Wallet, file_server
from tests.unit.localnet.test_node_recordings import frames

if TYPE_CHECKING:
    from collections.abc import Iterator

    from include.localnet.ethereum import Chain

PROJECT = Path(__file__).parents[3]
BRANIN = PROJECT / "include" / "branin"
CONTAINER = {"entrypoint": "python $ALGO", "image": "any", "tag": "v1", "checksum": "sha256:00"}


@dataclass
class World:
    """A node, a chain, and a web server with the Branin example."""

    node: NodeProcess
    chain: Chain
    bob: Wallet
    files: str

    def start(self, code: str, *inputs: str, entrypoint: str = "/bin/sh $ALGO", **more: Any) -> str:
        """Start a free job and return its id."""
        body = {
            **self.bob.fields("freeStartCompute"),
            "environment": self.node.environment()["id"],
            "datasets": [{"fileObject": {"type": "url", "url": url, "method": "GET"}} for url in inputs],
            "algorithm": {
                "meta": {"rawcode": code, "container": {**CONTAINER, "entrypoint": entrypoint}},
                **more.pop("algorithm", {}),
            },
            **more,
        }
        response = self.node.http.post("/api/services/freeCompute", json=body)
        assert response.status_code == 200, response.text
        job_id: str = response.json()[0]["jobId"]
        return job_id

    def status(self, job_id: str) -> dict[str, Any]:
        (job,) = self.node.jobs(jobId=job_id)
        return job

    def wait_for(self, job_id: str, *statuses: int) -> dict[str, Any]:
        """Wait until a job has one of some statuses."""
        wait_until(lambda: self.status(job_id)["status"] in statuses, f"{job_id} is {statuses}", 120)
        return self.status(job_id)

    def result(self, job_id: str, index: int) -> bytes:
        query = {**self.bob.fields("getComputeResult"), "jobId": job_id, "index": str(index)}
        response = self.node.http.get("/api/services/computeResult", params=query)
        assert response.status_code == 200, response.text
        return response.content

    def log(self, job_id: str) -> str:
        """Return what an algorithm printed."""
        return b"".join(line for _, line in frames(self.result(job_id, 2))).decode()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("node")
    with running_anvil(home / "chain") as chain, file_server(BRANIN, Gate()) as files:
        address_file = home / "address.json"
        ensure_deployed(chain, address_file)
        node = NodeProcess(home / "node", chain.rpc_url, address_file)
        try:
            node.start()
            yield World(node, chain, Wallet(accounts.BOB), files)
        finally:
            node.stop()
            node.http.close()


def test_the_example_algorithm_finds_its_data_and_is_seen_to_succeed(world: World) -> None:
    code = (BRANIN / "algorithm.py").read_text()
    job = world.start(
        code,
        f"{world.files}/branin.arff",
        entrypoint="python $ALGO",
        algorithm={"algocustomdata": {"points": 30}},
    )
    done = world.wait_for(job, 70, 71)
    assert done["terminationDetails"] == {"exitCode": 0, "OOMKilled": False}, world.log(job)
    assert "wrote 15 x 15 predictions to /data/outputs/result" in world.log(job)
    assert [result["type"] for result in done["results"]] == [
        "imageLog", "configurationLog", "algorithmLog", "output",
    ]  # fmt: skip


def test_a_job_sees_the_container_of_a_node(world: World) -> None:
    code = (
        "pwd\nid -u\nls -d /data/* | sort\nls /data/inputs | sort\n"
        "for d in / /data /data/inputs /data/outputs /data/logs /data/transformations /tmp; do\n"
        "touch $d/x 2>/dev/null && echo writable $d\ndone\n"
        'echo "FOO=$FOO DIDS=$DIDS $0"\ngrep -c : /proc/net/dev\necho problem >&2\n'
    )
    job = world.start(code, f"{world.files}/branin.arff", algorithm={"envs": {"FOO": "bar"}})
    world.wait_for(job, 70, 71)
    printed = world.log(job).splitlines()
    folders = ["ddos", "inputs", "logs", "outputs", "transformations"]
    assert [line for line in printed if line != "problem"] == [
        "/", "1000", *(f"/data/{folder}" for folder in folders), "algoCustomData.json", "branin.arff",
        *(f"writable {d}" for d in ("/data", *(f"/data/{f}" for f in ("inputs", "outputs", "logs", "transformations")))),
        "writable /tmp", "FOO=bar DIDS= data/transformations/algorithm", "1",
    ]  # fmt: skip
    streams = dict((line, stream) for stream, line in frames(world.result(job, 2)))
    assert (streams[b"/\n"], streams[b"problem\n"]) == (1, 2)


def test_a_jobs_variables_are_the_algorithms_only(world: World) -> None:
    # Bubblewrap reads its options, with NUL between them, before the algorithm has given up any rights.
    job = world.start("env", algorithm={"envs": {"A": "b\0--setenv\0LEAKED\0yes", "LD_PRELOAD": "/none.so"}})
    done = world.wait_for(job, 41, 70, 71)
    assert done["terminationDetails"]["exitCode"] != 0
    printed = world.result(job, 2)
    assert b"LEAKED=yes" not in printed
    assert b"cannot be preloaded" not in printed


def test_a_program_that_is_not_there_fails_to_run(world: World) -> None:
    job = world.start("x", entrypoint="no-such-program $ALGO")
    failed = world.wait_for(job, 41, 70)
    assert failed["terminationDetails"]["exitCode"] is None
    assert b"no-such-program" in world.result(job, 2)


def test_a_job_that_uses_too_much_memory_is_killed_as_such(world: World) -> None:
    job = world.start(
        "x = [bytes(2**26) for _ in range(40)]\nimport time; time.sleep(60)", entrypoint="python $ALGO"
    )
    done = world.wait_for(job, 70, 71)
    assert done["terminationDetails"]["exitCode"] != 0


def test_a_job_goes_on_after_a_kill_of_the_node(world: World) -> None:
    finished = world.start("echo before > /data/outputs/a.txt")
    before = world.wait_for(finished, 70, 71)
    output = world.result(finished, 3)
    running = world.start("sleep 2; echo ran > /data/outputs/b.txt", maxJobDuration=30)
    world.wait_for(running, 40)
    queued = world.start("echo waited", queueMaxWaitTime=100)
    nonce = world.bob.nonce
    world.node.kill()
    world.node.start()

    assert world.result(finished, 3) == output
    assert world.status(finished)["dateFinished"] == before["dateFinished"]
    answer = world.node.http.get("/api/services/nonce", params={"userAddress": world.bob.address}).json()
    assert int(answer["nonce"]) >= nonce
    for job in (running, queued):
        assert world.wait_for(job, 70, 71)["terminationDetails"]["exitCode"] == 0


def test_a_job_that_was_not_paid_is_settled_without_the_chain(world: World) -> None:
    job = world.start("echo free")
    assert world.wait_for(job, 70)["payment"] is None


def test_it_needs_little_memory(world: World) -> None:
    used = psutil.Process(world.node.pid).memory_info().rss / 1e6
    assert used < 130, f"{used:.0f} MB"


def test_a_second_node_on_the_same_state_does_not_start(world: World, tmp_path: Path) -> None:
    import subprocess

    environment = {
        "PORT": "1",
        "STATE_DIR": str(world.node.state),
        "RPC_URL": world.chain.rpc_url,
        "ADDRESS_FILE": str(world.node.state.parents[1] / "address.json"),
        "PRIVATE_KEY": accounts.NODE.private_key,
    }
    command = [sys.executable, "-m", "include.localnet.node"]
    second = subprocess.run(
        command, env=os.environ | environment, cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert "Another node works" in second.stderr
    assert second.returncode == 1


# --- parts by themselves -------------------------------------------------------------------------


def test_one_correct_signature_in_256_is_refused() -> None:
    bob = Wallet(accounts.BOB)
    nonce = bob.next_nonce("encrypt", leading_zero=True)
    digest = signed_hash(bob.address, nonce, "encrypt")
    assert digest[0] == 0
    mine = bob.address.lower()
    assert mine not in signers(digest, bob.sign(digest))
    assert mine in signers(digest, bob.sign(digest.lstrip(b"\0")))
    assert mine in signers(digest, bob.sign(b"0x" + digest.hex().encode()))
    nonce = bob.next_nonce("encrypt")
    digest = signed_hash(bob.address, nonce, "encrypt")
    assert mine in signers(digest, bob.sign(digest))
    assert signers(digest, "0x00") == set()


def test_numbers_are_javascripts() -> None:
    assert parse_int("12abc") == 12
    assert parse_int("abc") is None
    assert parse_int("1795359445005123456") == 1795359445005123600
    assert (number_text(1795359632.2), number_text(60.0), number_text(5)) == ("1795359632.2", "60", "5")


def test_the_rate_limit_counts_each_client_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    limit = RateLimit(2)
    assert [limit.refusal("a"), limit.refusal("a")] == ["", ""]
    now[0] += 20
    assert limit.refusal("a") == "Rate limit exceeded. Try again in 40 seconds."
    assert limit.refusal("b") == ""
    now[0] += 41
    assert limit.refusal("a") == ""
    assert RateLimit(0).refusal("a") == ""


def test_what_is_announced_is_json_without_surprises(world: World) -> None:
    described = world.node.http.get("/").json()
    assert described["software"] == "Ocean-Node"
    assert described["nodeId"].startswith("16Uiu2HA")
    assert json.dumps(world.node.environment())
