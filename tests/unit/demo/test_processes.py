"""Processes end with everything they have started, and their logs can be shown."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import psutil

from include.demo.processes import end_of, start, stop
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""
OBEDIENT = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
print("ready", flush=True)
time.sleep(600)
"""


def test_stop_ends_what_does_not_heed_the_request_and_its_children(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = start([sys.executable, "-c", STUBBORN], environment=os.environ, log=log)
    wait_until(lambda: log.read_text().endswith("\n"), "the process tells its child's id")
    child = psutil.Process(int(log.read_text()))
    stop((process, 0.2))
    assert process.returncode == -9
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_stop_lets_a_process_end_in_its_own_way(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = start([sys.executable, "-c", OBEDIENT], environment=os.environ, log=log)
    wait_until(lambda: log.read_text() == "ready\n", "the process is ready")
    stop((process, 30))
    assert process.returncode == 5
    stop((process, 30))  # a second time does no harm


def test_a_started_process_is_out_of_the_terminal_s_reach(tmp_path: Path) -> None:
    process = start([sys.executable, "-c", OBEDIENT], environment=os.environ, log=tmp_path / "log")
    try:
        assert os.getpgid(process.pid) == process.pid != os.getpgid(0)
    finally:
        stop((process, 0))


def test_end_of_gives_the_last_lines_of_a_part(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"one\ntwo\nthree\nf\xffur\nfive\n")
    assert end_of(log, lines=2) == "f�ur\nfive"
    assert end_of(log, begin=4, end=13) == "two\nthree"
    assert end_of(tmp_path / "none") == ""
