"""`make demo` as a person sees it: its last lines, its failures, and what Ctrl-C leaves, which is nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from include.localnet.settings import PROJECT
from tests.conftest import STACK
from tests.support.leftovers import marked_processes, new_mark
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("a demo")


class Demo:
    """A running demo whose output is read while it is written."""

    def __init__(self, home: Path, options: tuple[str, ...], mark: dict[str, str]) -> None:
        self._output = home / "output"
        with self._output.open("w") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "include.demo", "run", "--home", str(home), *options],
                cwd=PROJECT,
                env={**os.environ, **mark, "AIRFLOW_OCEAN_ARTIFACTS": str(home / "artifacts")},
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._output.read_text()

    def wait(self) -> int:
        return self._process.wait(180)

    def wait_for(self, step: str) -> None:
        """Wait until a step is told as done."""
        wait_until(
            lambda: f"\n  {step} " in f"\n{self.output}" or self._process.poll() is not None, step, 120
        )
        assert self._process.poll() is None, self.output

    def interrupt(self, number: signal.Signals) -> None:
        # The terminal sends Ctrl-C to the whole foreground process group.
        os.killpg(self._process.pid, number)

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(60)


@contextmanager
def demo(home: Path, *options: str) -> Iterator[Demo]:
    """Run the demo; when it has ended, nothing of it may be left."""
    mark = new_mark()
    demo = Demo(home, options, mark)
    try:
        yield demo
    finally:
        demo.end()
    assert marked_processes(mark) == []


@pytest.mark.both_stacks
def test_it_ends_with_what_a_program_may_read(home: Path) -> None:
    with demo(home, "--stack", STACK) as running:
        assert running.wait() == 0, running.output
    ending = dict(line.split("=", 1) for line in running.output.splitlines()[-6:])
    assert list(ending) == ["dataset_did", "algorithm_did", "order_tx", "job_id", "result", "plot"]
    assert re.fullmatch("did:op:[0-9a-f]{64}", ending["dataset_did"])
    assert re.fullmatch("did:op:[0-9a-f]{64}", ending["algorithm_did"])
    assert ending["dataset_did"] != ending["algorithm_did"]
    # The free part of an Ocean Node's environment takes no orders.
    orders = "" if STACK == "node" else "0x[0-9a-f]{64},0x[0-9a-f]{64}"
    assert re.fullmatch(orders, ending["order_tx"])
    assert ending["job_id"]
    assert Path(ending["result"]).read_bytes().startswith(b"\x80")  # a pickle
    assert Path(ending["plot"]).read_bytes().startswith(b"\x89PNG")
    for step in ("local network", "publish_dataset", "pay_for_compute", "wait_for_compute", "plot"):
        assert re.search(rf"^  {step} +(up|success) +[0-9.]+ s", running.output, re.MULTILINE), running.output


def test_a_failure_names_the_task_and_shows_the_end_of_its_log(home: Path) -> None:
    conf = json.dumps({"environment": "there-is-no-such-environment"})
    with demo(home, "--conf", conf) as running:
        assert running.wait() == 1
    # Before anything is published or paid.
    assert "error: task approve_spending failed: " in running.output
    _, _, log = running.output.partition("The end of its log")
    assert "there-is-no-such-environment" in log
    assert "Traceback" in log or "File " in log
    assert "dataset_did=" not in running.output


@pytest.mark.parametrize(
    ("step", "number"),
    [
        (None, signal.SIGINT),
        ("local network", signal.SIGINT),
        ("publish_dataset", signal.SIGTERM),
        ("start_compute", signal.SIGINT),
    ],
)
def test_an_interrupt_leaves_nothing(home: Path, step: str | None, number: signal.Signals) -> None:
    with demo(home) as running:
        if step is None:
            wait_until(lambda: (home / "lock").read_text(), "the demo is at work")
            wait_until(lambda: list((home / "localnet").glob("run/*.json")), "the first process is started")
        else:
            running.wait_for(step)
        running.interrupt(number)
        assert running.wait() == 128 + number
    assert "Traceback" not in running.output
