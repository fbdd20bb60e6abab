"""Jobs from start to end: fetching, running, queueing, stopping, and what is left after a crash."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from include.localnet.operator_service.interpreter import PROJECT

from .operator_service_bench import (
    ALGORITHM,
    CONSUMER,
    DATASET,
    ORDER,
    Service,
    World,
    container,
    launch,
    raw,
    remote,
    running_service,
    running_world,
    stage,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SLEEP = "import time; print('sleeping'); time.sleep(300)"
LAYOUT = b"""
import json, os
found = {}
for folder, _, names in os.walk("/data"):
    for name in names:
        path = os.path.join(folder, name)
        found[path] = open(path, errors="replace").read() if "logs" not in path else ""
names = ("DIDS", "TRANSFORMATION_DID", "VOLUME", "LOGS", "INPUTS", "OUTPUTS", "secret")
variables = {name: os.environ[name] for name in names}
json.dump({"found": found, "variables": variables, "cwd": os.getcwd()}, open("/data/outputs/layout.json", "w"))
"""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with running_world() as running:
        yield running


@pytest.fixture(autouse=True)
def quiet_world(world: World) -> None:
    world.files.clear()
    world.seen.clear()
    world.failures.clear()
    world.hold.clear()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("operator service") / "state", MAX_JOBS="2") as running:
        yield running


def is_running(status: dict[str, Any]) -> bool:
    return bool(status["status"] == 40)


def test_assets_are_fetched_from_their_provider(service: Service, world: World) -> None:
    world.files = {f"{DATASET}/0": b"first", f"{DATASET}/1": b"second", f"{ALGORITHM}/0": LAYOUT}
    algorithm = {
        **remote(ALGORITHM, userData={"depth": 3}),
        "rawcode": "",
        "container": container(),
        "algocustomdata": {"epochs": 5, "n": "ü"},
    }
    inputs = [remote(DATASET, userdata={"year": 2020})]
    over = service.wait(service.start("", workflow=stage(algorithm, inputs, world.url)))
    assert over["status"] == 70, service.text(over, "configure.log")
    assert (over["algoDID"], over["inputDID"]) == (ALGORITHM, [DATASET])
    layout = json.loads(service.text(over, "layout.json"))
    d, a = DATASET[7:], ALGORITHM[7:]
    ddo = '{{"id":"{}","services":[{{"id":"s1","serviceEndpoint":"' + world.url + '"}}]}}'
    assert layout["found"] == {
        f"/data/inputs/{d}/0": "first",
        f"/data/inputs/{d}/1": "second",
        "/data/inputs/algoCustomData.json": '{"epochs":5,"n":"ü"}',
        f"/data/ddos/{d}": ddo.format(DATASET),
        f"/data/ddos/{a}": ddo.format(ALGORITHM),
        "/data/transformations/algorithm": LAYOUT.decode(),
        "/data/logs/algorithm.log": "",
    }
    secret = layout["variables"].pop("secret")
    assert len(secret) == 32
    assert layout["variables"] == {
        "DIDS": json.dumps([d]),
        "TRANSFORMATION_DID": a,
        "VOLUME": "/data",
        "LOGS": "/data/logs",
        "INPUTS": "/data/inputs",
        "OUTPUTS": "/data/outputs",
    }
    assert layout["cwd"] == "/"
    downloads = [query for _, path, query in world.seen if path == "/api/services/download"]
    assert [
        (q["documentId"], q["fileIndex"], q["consumerAddress"], q["transferTxId"]) for q in downloads
    ] == [
        (DATASET, "0", CONSUMER.address, ORDER),
        (DATASET, "1", CONSUMER.address, ORDER),
        (ALGORITHM, "0", CONSUMER.address, ORDER),
    ]
    assert [json.loads(q["userdata"]) for q in downloads] == [{"year": 2020}, {"year": 2020}, {"depth": 3}]
    log = service.text(over, "configure.log")
    assert "signature" not in log
    assert "stands for the container image oceanprotocol/algo_dockers:python-branin" in log


def test_files_by_url_raw_algorithm_and_null_custom_data(service: Service, world: World) -> None:
    world.files = {"/a": b"A", "/b": b"B", "/algo": LAYOUT}
    inputs = [{"id": DATASET, "url": [f"{world.url}/a", f"{world.url}/b"]}]
    algorithm = {
        "id": "",
        "url": f"{world.url}/algo",
        "rawcode": "",
        "container": container(),
        "algocustomdata": None,
    }
    over = service.wait(service.start("", workflow=stage(algorithm, inputs, world.url)))
    found = json.loads(service.text(over, "layout.json"))["found"]
    assert found[f"/data/inputs/{DATASET[7:]}/1"] == "B"
    assert found["/data/inputs/algoCustomData.json"] == "null"


def test_passing_failures_are_tried_again(service: Service, world: World) -> None:
    world.files = {"/a": b"A"}
    world.failures = {"/a": 2}
    code = f"print(open('/data/inputs/{DATASET[7:]}/0').read())"
    over = service.wait(service.start("", workflow=raw(code, [{"id": DATASET, "url": f"{world.url}/a"}])))
    assert service.text(over, "algorithm.log") == "A\n"
    assert "Attempt 2 of 3" in service.text(over, "configure.log")


def test_a_provider_and_a_cache_that_are_killed_and_come_back_lose_no_job(
    service: Service, world: World
) -> None:
    world.files = {f"{DATASET}/0": b"first"}
    paths = ["/", f"/api/aquarius/assets/ddo/{DATASET}", "/api/services/fileinfo", "/api/services/download"]
    # More often than a file's host is asked.
    world.silences = dict.fromkeys(paths, 4)
    code = f"print(open('/data/inputs/{DATASET[7:]}/0').read())"
    workflow = raw(code, [remote(DATASET)])
    workflow["stages"][0]["output"]["metadataUri"] = world.url
    over = service.wait(service.start("", workflow=workflow))
    assert service.text(over, "algorithm.log") == "first\n"
    assert not any(world.silences.values())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"url": "WORLD/secret-path"}, "its URL answered 404"),
        ({"url": "http://127.0.0.1:1/secret-path"}, "could not be read (ConnectError)"),
        ({"url": "file:///etc/secret-path"}, "could not be read (UnsupportedProtocol)"),
        ({"url": None}, "neither code nor a URL"),
        ({"id": "did:op:../../secret"}, "no DID that can name a folder"),
        ({"id": "did:op:.."}, "no DID that can name a folder"),
        ({"id": 5}, "not of the form"),
        ({"remote": {"serviceId": "s1"}}, "its order's transaction is not named"),
        ({"remote": {"txId": ORDER, "serviceId": "other"}}, "its document has no service 'other'"),
        ({"remote": {"txId": "0x00", "serviceId": "s1"}}, "answered 400"),
        (
            {"id": "did:op:" + "00" * 32, "remote": {"txId": ORDER, "serviceId": "s1"}},
            "its Provider is unknown",
        ),
    ],
)
def test_data_that_can_not_be_fetched(
    service: Service, world: World, change: dict[str, Any], words: str
) -> None:
    world.files = {f"{DATASET}/0": b"first"}
    change = {k: v.replace("WORLD", world.url) if isinstance(v, str) else v for k, v in change.items()}
    workflow = raw("open('/data/outputs/x', 'w')", [{"id": DATASET, **change}])
    workflow["stages"][0]["output"]["metadataUri"] = world.url
    over = service.wait(service.start("", workflow=workflow))
    assert (over["status"], over["statusText"]) == (31, "Data provisioning failed")
    assert over["dateFinished"]
    assert [r["type"] for r in over["results"]] == ["algorithmLog", "configrationLog", "publishLog"]
    log = service.text(over, "configure.log")
    assert words in log
    assert "secret-path" not in log


@pytest.mark.parametrize(
    ("algorithm", "words"),
    [
        ({"id": "", "url": "WORLD/nothing", "container": container()}, "its URL answered 404"),
        ({"id": "", "url": None, "rawcode": "short", "container": container()}, "neither code nor a URL"),
        ({"id": "", "rawcode": "print('hello')"}, "no container with an entrypoint"),
        (
            {"id": "", "rawcode": "print('hello')", "container": {"image": "x"}},
            "no container with an entrypoint",
        ),
    ],
)
def test_algorithms_that_can_not_be_fetched(
    service: Service, world: World, algorithm: dict[str, Any], words: str
) -> None:
    algorithm = {k: v.replace("WORLD", world.url) if isinstance(v, str) else v for k, v in algorithm.items()}
    over = service.wait(service.start("", workflow=stage(algorithm)))
    assert (over["status"], over["statusText"]) == (32, "Algorithm provisioning failed")
    assert words in service.text(over, "configure.log")


def test_a_failing_algorithm_ends_with_its_log(service: Service) -> None:
    over = service.wait(service.start("print('before')\nraise ValueError('it is broken')"))
    assert (over["status"], over["statusText"]) == (70, "Job finished")
    assert "output" not in [r["type"] for r in over["results"]]
    log = service.text(over, "algorithm.log")
    assert log.startswith("before\n")
    assert "ValueError: it is broken" in log
    assert "exit status 1" in log


def test_what_was_paid_for_ends_the_algorithm(service: Service) -> None:
    job = service.start(SLEEP, validUntil=time.time() + 2, environment="ocean-compute-env2")
    over = service.wait(job)
    assert (over["status"], over["stopreq"]) == (70, 2)
    assert "ran longer than" in service.text(over, "algorithm.log")


def test_queue_and_stopping_in_it(service: Service) -> None:
    jobs = [service.start(SLEEP) for _ in range(4)]
    for job in jobs[:2]:
        service.wait(job, is_running)
    assert [service.status(job)["status"] for job in jobs] == [40, 40, 1, 1]
    environments = service.http.get("/api/v1/operator/environments", params={"chainId": 8996}).json()
    assert [e["currentJobs"] for e in environments] == [2, 0]
    # The other environment has places of its own.
    service.wait(service.start("print(1)", environment="ocean-compute-env2"))
    service.call("PUT", jobs[3])
    over = service.wait(jobs[3])
    assert (over["status"], over["stopreq"]) == (70, 1)
    assert "before its algorithm ran" in service.text(over, "configure.log")
    assert service.status(jobs[2])["status"] == 1
    service.call("PUT", jobs[0])
    service.wait(jobs[2], is_running)
    service.call("PUT")  # all of the owner's
    for job in jobs:
        assert service.wait(job)["stopreq"] == 1


def test_stop_while_fetching(service: Service, world: World) -> None:
    job = service.start("", workflow=raw(SLEEP, [{"id": DATASET, "url": f"{world.url}/slow"}]))
    service.wait(
        job, lambda status: status["status"] == 20 and any(path == "/slow" for _, path, _ in world.seen)
    )
    service.call("PUT", job)
    world.hold.set()
    over = service.wait(job)
    assert over["status"] == 70
    assert "before its algorithm ran" in service.text(over, "configure.log")


def test_delete_takes_results_away(service: Service) -> None:
    job = service.start("open('/data/outputs/x', 'w').write('x')")
    service.wait(job)
    folder = service.state / "jobs" / job
    # Inputs and everything else go as soon as the job is over, the results are kept.
    service.wait(job, lambda _: os.listdir(folder) == ["results"])
    (removed,) = service.call("DELETE", job).json()
    assert (removed["removed"], removed["results"]) == (1, "")
    assert service.result(job, 0).status_code == 404
    assert not folder.exists()


def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    state = tmp_path / "state"
    service = launch(state, MAX_JOBS="1")
    try:
        finished = service.start("open('/data/outputs/x', 'w').write('kept')")
        service.wait(finished)
        running, waiting = service.start(SLEEP), service.start(SLEEP)
        service.wait(running, is_running)
        log = state / "jobs" / running / "algorithm.log"
        while "sleeping" not in log.read_text():
            assert service.process.poll() is None
        last = service.start(SLEEP)  # acknowledged at the very end
        service.end(signal.SIGKILL)
        again = launch(state, MAX_JOBS="1")
        try:
            kept = again.status(finished)
            assert kept["status"] == 70
            assert again.text(kept, "x") == "kept"
            ended = again.status(running)
            assert ended["status"] == 40
            assert ended["statusText"] == "Running algorithm, then the service was restarted"
            assert ended["dateFinished"]
            assert [r["type"] for r in ended["results"]] == ["algorithmLog", "configrationLog", "publishLog"]
            text = again.text(ended, "algorithm.log")
            assert text.startswith("sleeping\n")
            assert "the service was restarted" in text
            for job in (waiting, last):
                never = again.status(job)
                assert (never["status"], never["statusText"]) == (
                    1,
                    "Warming up, then the service was restarted",
                )
                assert "the service was restarted" in again.text(never, "configure.log")
            # The agreement of an ended job is free again, and places are.
            again.wait(again.start("print(1)", agreementId=ended["agreementId"]))
            assert os.listdir(state / "jobs" / running) == ["results"]
        finally:
            again.end()
    finally:
        if service.process.poll() is None:
            service.end(signal.SIGKILL)


def test_sigterm_ends_cleanly_and_honestly(tmp_path: Path) -> None:
    state = tmp_path / "state"
    service = launch(state)
    job = service.start(SLEEP)
    service.wait(job, is_running)
    assert service.end() in (0, -signal.SIGTERM)
    again = launch(state)
    try:
        assert again.status(job)["statusText"] == "Running algorithm, then the service was stopped"
        assert "sleeping" in again.text(again.status(job), "algorithm.log")
    finally:
        again.end()


def test_results_expire(tmp_path: Path) -> None:
    state = tmp_path / "state"
    service = launch(state)
    job = service.start("print(1)")
    service.wait(job)
    service.end()
    with sqlite3.connect(state / "operator.sqlite") as database:
        database.execute("UPDATE jobs SET date_finished = date_finished - 1000000")
    (state / "jobs" / "leftover" / "inputs").mkdir(parents=True)
    with running_service(state) as again:
        over = again.wait(job, lambda status: status["removed"] == 1)
        assert over["results"] == ""
        again.wait(job, lambda _: os.listdir(state / "jobs") == [])


def test_one_service_a_state_folder(tmp_path: Path) -> None:
    with (
        running_service(tmp_path / "state"),
        pytest.raises(AssertionError, match="Another operator-service works"),
    ):
        launch(tmp_path / "state")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"MAX_JOBS": "0"}, "MAX_JOBS must be a whole number above 0"),
        ({"ALLOWED_PROVIDERS": "everyone"}, "ALLOWED_PROVIDERS must be a JSON list"),
        ({"ADDRESS_FILE": "/nowhere"}, "ADDRESS_FILE /nowhere gives no chainId"),
        ({"COMPUTE_PRIVATE_KEY": ""}, "COMPUTE_PRIVATE_KEY is not set"),
    ],
)
def test_wrong_settings(tmp_path: Path, changes: dict[str, str], words: str) -> None:
    addresses = tmp_path / "address.json"
    addresses.write_text(json.dumps({"development": {"chainId": 8996, "Ocean": "0x1"}}))
    environment = {
        "PORT": "1",
        "STATE_DIR": str(tmp_path / "state"),
        "ADDRESS_FILE": str(addresses),
        "COMPUTE_PRIVATE_KEY": CONSUMER.key.hex(),
        **changes,
    }
    command = [sys.executable, "-m", "include.localnet.operator_service"]
    ended = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert words in ended.stderr
