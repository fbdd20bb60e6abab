"""Rehearsing algorithms in real containers: what they find, what is kept, and what is refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException

from airflow_ocean.artifacts import Manifest
from airflow_ocean.c2d.errors import (
    InvalidInputError,
    JobFailedError,
    NotAllowedError,
    ServiceUnavailableError,
    TransientError,
)
from airflow_ocean.c2d.result_errors import UndecodableResultError
from airflow_ocean.operators.plots import OceanPlotOperator
from tests.docker.conftest import CONN_ID
from tests.support.airflow import PROJECT, airflow_environment
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_ocean.operators.rehearsal import OceanRehearseAlgorithmOperator
    from tests.support.docker_engine import Engine

    Rehearsal = Callable[..., OceanRehearseAlgorithmOperator]

LABEL = "org.airflow-ocean.task_id=a_task"
LAYOUT = """
import json, os
found = {}
for folder, _, names in os.walk("/data"):
    for name in names:
        path = os.path.join(folder, name)
        found[path] = open(path, errors="replace").read()
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
about = {
    "found": found, "environment": dict(os.environ), "cwd": os.getcwd(), "uid": os.getuid(),
    "capabilities": status["CapEff"].strip() + status["CapBnd"].strip(), "no_new": status["NoNewPrivs"].strip(),
    "devices": [line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:]],
    "memory": open("/sys/fs/cgroup/memory/memory.limit_in_bytes").read() if os.path.exists("/sys/fs/cgroup/memory")
        else open("/sys/fs/cgroup/memory.max").read(),
}
json.dump(about, open("/data/outputs/about.json", "w"))
open("/data/logs/own.log", "w").write("mine")
os.link("/data/outputs/about.json", "/data/outputs/twin.json")
os.symlink("/etc/shadow", "/data/outputs/shadow")
os.mkfifo("/data/outputs/pipe")
os.mkdir("/data/outputs/folder"); open("/data/outputs/folder/inner", "w").close()
print("printed")
"""


def path_of(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def test_the_example_is_rehearsed_and_plotted(
    rehearsal: Rehearsal, artifacts: Path, context: dict[str, Any], docker_engine: Engine
) -> None:
    uris = rehearsal(custom_data={"seed": 3}).execute(context)
    result, log = (path_of(uri) for uri in uris)
    assert result.is_relative_to(artifacts)
    assert "wrote 15 x 15 predictions" in log.read_text()
    manifest = Manifest.read(context["ti"].xcoms["manifest"])
    assert [(file.name, file.type) for file in manifest.files] == [
        ("result", "output"),
        ("algorithm.log", "algorithmLog"),
    ]
    assert not docker_engine.containers(LABEL)
    plot = OceanPlotOperator(
        task_id="plot",
        ocean_conn_id=CONN_ID,
        manifest=context["ti"].xcoms["manifest"],
        render="include.branin.plot:plot_surface",
    ).execute(context)
    assert path_of(plot).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("tag", "uid"), [("plain", 1000), ("user", 4321)])
def test_the_algorithm_finds_what_a_compute_job_finds(
    rehearsal: Rehearsal, context: dict[str, Any], tmp_path: Path, tag: str, uid: int
) -> None:
    for name in ("first", "second", "other"):
        (tmp_path / name).write_text(name)
    did = "ab" * 32
    operator = rehearsal(
        LAYOUT,
        tag_of_image=tag,
        sample_data=json.dumps(
            [
                {"did": f"did:op:{did}", "files": [str(tmp_path / "first"), f"file://{tmp_path}/second"]},
                str(tmp_path / "other"),
            ]
        ),
        custom_data='{"n": "ü"}',
        memory="200m",
    )
    uris = operator.execute(context)
    about = json.loads(path_of(uris[0]).read_text())
    dids = json.loads(about["environment"]["DIDS"])
    algorithm = about["environment"]["TRANSFORMATION_DID"]
    assert dids[0] == did
    ddos = {f"/data/ddos/{name}" for name in (*dids, algorithm)}
    found = about["found"]
    assert {json.loads(found.pop(path))["id"] for path in ddos} == {
        f"did:op:{name}" for name in (*dids, algorithm)
    }
    assert found == {
        f"/data/inputs/{did}/0": "first",
        f"/data/inputs/{did}/1": "second",
        f"/data/inputs/{dids[1]}/0": "other",
        "/data/inputs/algoCustomData.json": '{"n":"ü"}',
        "/data/transformations/algorithm": LAYOUT,
    }
    names = ("VOLUME", "LOGS", "INPUTS", "OUTPUTS")
    assert [about["environment"][name] for name in names] == [
        "/data",
        "/data/logs",
        "/data/inputs",
        "/data/outputs",
    ]
    assert len(about["environment"]["secret"]) == 32
    assert (about["cwd"], about["uid"], about["no_new"]) == ("/", uid, "1")
    assert set(about["capabilities"]) == {"0"}
    assert about["devices"] == ["lo"]
    assert int(about["memory"]) == 200 << 20
    manifest = Manifest.read(context["ti"].xcoms["manifest"])
    kept = [(file.name, path_of(file.uri).name) for file in manifest.files]
    assert kept == [
        ("about.json", "0-about.json"),
        ("twin.json", "1-twin.json"),
        ("own.log", "2-own.log"),
        ("algorithm.log", "3-algorithm.log"),
    ]
    assert path_of(uris[1]).read_bytes() == path_of(uris[0]).read_bytes()
    told = operator.get_openlineage_facets_on_complete(None)
    assert told is not None
    assert [(item.namespace, item.name) for item in told.inputs] == [("ocean", f"did:op:{did}")]
    assert [item.name for item in told.outputs] == [str(path_of(uri)) for uri in uris]


@pytest.mark.parametrize(
    ("code", "arguments", "words"),
    [
        ("print('why'); raise SystemExit(3)", {}, "exit status 3.*why"),
        ("import time; print('on', flush=True); time.sleep(300)", {"time_limit": 2}, "after the 2 s.*on"),
        ("x = bytearray(300 << 20); x[::4096] = b'1' * len(x[::4096])", {"memory": "64m"}, "memory limit"),
        (
            "import time\nfor n in range(30): open(f'/data/outputs/{n}', 'wb').write(bytes(1 << 20))\ntime.sleep(300)",
            {"max_output": "8m"},
            "had written 8,388,608 bytes",
        ),
        ("open('/data/outputs/x', 'wb').write(bytes(9 << 20))", {"max_output": "8m"}, "exit status"),
        ("print('nothing')", {}, "made no output"),
        ("", {"entrypoint": "sh -c 'exit 127' $ALGO"}, "exit status 127.*is the entrypoint right"),
    ],
    ids=["fails", "time", "memory", "output", "file size", "no output", "command"],
)
def test_what_fails_in_a_compute_job_fails_here(
    rehearsal: Rehearsal,
    context: dict[str, Any],
    docker_engine: Engine,
    code: str,
    arguments: dict[str, Any],
    words: str,
) -> None:
    with pytest.raises(JobFailedError, match=f"(?s){words}"):
        rehearsal(code, **arguments).execute(context)
    assert not docker_engine.containers(LABEL)


def test_cpus_are_a_limit(rehearsal: Rehearsal, context: dict[str, Any]) -> None:
    code = """
    import json, os, time
    paths = ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu.max")
    quota = next(open(path).read().split()[0] for path in paths if os.path.exists(path))
    json.dump({"quota": int(quota)}, open("/data/outputs/x", "w"))
    """
    uris = rehearsal(textwrap.dedent(code), cpus="0.25").execute(context)
    assert json.loads(path_of(uris[0]).read_text()) == {"quota": 25_000}


def test_outputs_must_decode_unless_told_otherwise(rehearsal: Rehearsal, context: dict[str, Any]) -> None:
    code = "open('/data/outputs/model', 'wb').write(bytes(range(256)))"
    with pytest.raises(UndecodableResultError, match="model"):
        rehearsal(code).execute(context)
    assert len(rehearsal(code, decode_outputs=False).execute(context)) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"checksum": "sha256:" + "0" * 64}, "has the checksum sha256:.*nothing was run"),
        ({"tag": "missing", "pull": "never"}, "docker pull ocean-test/python:missing"),
        ({"entrypoint": "julia $ALGO"}, "has no program 'julia'"),
        ({"entrypoint": "python3"}, "must contain \\$ALGO"),
        ({"image": "Not An Image"}, "refuses"),
        ({"checksum": "latest"}, "checksum must be sha256"),
        ({"sample_data": []}, "sample_data is empty"),
        ({"sample_data": ["/no/such/file"]}, "/no/such/file can't be read"),
        ({"memory": "much"}, "memory must be a size"),
        ({"cpus": "x"}, "cpus must be a number"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    rehearsal: Rehearsal,
    context: dict[str, Any],
    docker_engine: Engine,
    arguments: dict[str, Any],
    words: str,
) -> None:
    with pytest.raises(InvalidInputError, match=words):
        rehearsal("open('/data/outputs/x', 'w')", **arguments).execute(context)
    assert not docker_engine.containers(LABEL)


def test_an_image_that_cannot_be_pulled_says_so(rehearsal: Rehearsal, context: dict[str, Any]) -> None:
    # No registry listens there.
    with pytest.raises((InvalidInputError, ServiceUnavailableError), match="127.0.0.1:1/none:latest"):
        rehearsal(image="127.0.0.1:1/none", tag="latest").execute(context)


def test_no_engine(rehearsal: Rehearsal, context: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInputError, match=r"no Docker engine at unix://.*none\.sock.*install and start"
    ):
        rehearsal(docker_url=f"unix://{tmp_path}/none.sock").execute(context)
    with pytest.raises(ServiceUnavailableError, match="does not answer"):
        rehearsal(docker_url="tcp://127.0.0.1:1").execute(context)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_engine_that_may_not_be_used(
    rehearsal: Rehearsal, context: dict[str, Any], docker_engine: Engine, tmp_path: Path
) -> None:
    if not docker_engine.url.startswith("unix://"):
        pytest.skip("the engine has no socket here")
    operator = rehearsal()
    hidden = os.getresuid(), os.getresgid(), os.getgroups()
    socket = Path(docker_engine.url.removeprefix("unix://"))
    link_folder = Path("/tmp") / f"rehearsal-{os.getpid()}"
    link_folder.mkdir()
    try:
        (link_folder / "docker.sock").symlink_to(socket)
        operator.docker_url = f"unix://{link_folder}/docker.sock"
        os.setgroups([])
        os.setresuid(65534, 65534, 0)
        with pytest.raises((NotAllowedError, InvalidInputError), match="docker"):
            operator._new_container(operator._limits(), []).run(context, iter(()))
    finally:
        os.setresuid(*hidden[0])
        os.setgroups(hidden[2])
        (link_folder / "docker.sock").unlink()
        link_folder.rmdir()


def test_what_a_dead_worker_left_is_removed(
    rehearsal: Rehearsal, context: dict[str, Any], docker_engine: Engine, tmp_path: Path
) -> None:
    program = f"""
    from tests.support.airflow import recorded_context
    from airflow_ocean.operators.rehearsal import OceanRehearseAlgorithmOperator
    OceanRehearseAlgorithmOperator(task_id="rehearse", ocean_conn_id={CONN_ID!r}, **{{arguments!r}}).execute(recorded_context())
    """
    operator = rehearsal("import time; time.sleep(300)")
    names = ("image", "tag", "checksum", "algorithm", "sample_data", "docker_url")
    arguments = {name: getattr(operator, name) for name in names}
    worker = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program).replace("{arguments!r}", repr(arguments))],
        env={**os.environ, **airflow_environment(tmp_path / "home")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=PROJECT,
    )
    try:
        running = {"status": ["running"], "label": [LABEL]}
        client = docker_engine.client()
        (left,) = wait_until(
            lambda: client.containers(filters=running) or (worker.poll() is not None and [None]),
            "the container runs",
        )
        worker.kill()
        worker.wait(60)
        assert left["Id"] in docker_engine.containers(LABEL)
        rehearsal("open('/data/outputs/x', 'w').write('1')").execute(context)
        assert not docker_engine.containers(LABEL)
    finally:
        worker.kill()
        worker.wait(60)


def test_on_kill_removes_the_container(
    rehearsal: Rehearsal, context: dict[str, Any], docker_engine: Engine
) -> None:
    operator = rehearsal("import time; time.sleep(300)")
    errors: list[BaseException] = []

    def execute() -> None:
        try:
            operator.execute(context)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=execute)
    thread.start()
    client = docker_engine.client()
    running = {"status": ["running"], "label": [LABEL]}
    wait_until(lambda: client.containers(filters=running) or errors, "the container runs")
    operator.on_kill()
    thread.join(60)
    assert isinstance(errors[0], TransientError)
    assert not docker_engine.containers(LABEL)


def test_the_log_is_streamed(
    rehearsal: Rehearsal, context: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    code = """
    import sys
    for n in range(3): print("line", n); print("error", n, file=sys.stderr)
    open("/data/outputs/x", "w").write("1")
    """
    rehearsal(textwrap.dedent(code), entrypoint="python -u $ALGO").execute(context)
    shown = re.findall(r"((?:line|error) \d)", capsys.readouterr().out)
    assert shown == ["line 0", "error 0", "line 1", "error 1", "line 2", "error 2"]


def test_it_is_skipped_unless_asked_for(artifacts: Path, context: dict[str, Any]) -> None:
    from airflow_ocean.operators.rehearsal import OceanRehearseAlgorithmOperator

    operator = OceanRehearseAlgorithmOperator(
        task_id="rehearse",
        image="none",
        tag="none",
        checksum="none",
        algorithm="none",
        sample_data=[],
        enabled="False",
        docker_url="unix:///none",
    )
    with pytest.raises(AirflowSkipException):
        operator.execute(context)
