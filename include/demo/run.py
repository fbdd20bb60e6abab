"""`make demo`: the whole compute flow, run once on a local network of its own, and told step by step."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from include.demo.environment import airflow_environment, choose_port
from include.demo.processes import CommandError, end_of, start, stop
from include.demo.progress import Progress
from include.demo.state import DEMO_HOME, claim
from include.localnet import network
from include.localnet.cli import exports, resolve_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from include.demo.interrupts import Teardown

DAG_ID = "ocean_c2d"


class FlowRun:
    """One run of a DAG in a child process.

    :param dag_id: the DAG
    :param home: folder for the state of Airflow and the local network
    :param progress: where the steps are told
    :param teardown: what ends the processes
    """

    def __init__(self, dag_id: str, home: Path, progress: Progress, teardown: Teardown) -> None:
        self.values: dict[str, Any] = {}
        self.log = home / "logs" / "run.log"
        self.log.unlink(missing_ok=True)
        self._progress = progress
        self._failure: dict[str, Any] | None = None
        self._log_begins: dict[str, int] = {}
        reading, writing = os.pipe()
        self._events: IO[str] = os.fdopen(reading)
        with os.fdopen(writing, "w"), teardown.held():
            self._process = start(
                [sys.executable, "-m", "include.demo.dag_run", dag_id, str(writing)],
                environment=airflow_environment(home / "airflow", port=choose_port(8080)),
                log=self.log,
                stdin=subprocess.PIPE,
                pass_fds=[writing],
            )
            teardown.add(lambda: stop((self._process, 2)))

    def _read(self) -> Iterator[dict[str, Any]]:
        for line in self._events:
            yield json.loads(line)
        self._process.wait()

    def wait_until_prepared(self) -> None:
        """Wait until the child has imported Airflow.

        :raises CommandError: when it ends instead
        """
        if next(self._read(), None) is None:
            raise CommandError(f"Airflow could not be prepared. The end of {self.log}:\n{end_of(self.log)}")

    def run(self, environment: dict[str, str], conf: dict[str, Any]) -> None:
        """Run the DAG to its end and tell each task.

        :param environment: environment variables added to the run's
        :param conf: configuration of the run: the DAG's params
        :raises CommandError: when it fails; the text names the task and has the end of its log
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as pipe:
            pipe.write(json.dumps({"environment": environment, "conf": conf}) + "\n")
        state = None
        for event in self._read():
            if event["event"] == "end":
                state = event["state"]
            else:
                self._tell(event)
        if state == "success":
            return
        if self._failure:
            task, error = self._failure["task"], self._failure["error"]
            log = end_of(self.log, begin=self._log_begins[task], end=self._failure["log_end"])
            raise CommandError(f"task {task} failed: {error}\nThe end of its log, from {self.log}:\n{log}")
        what = f"the run of the DAG ended {state or f'with status {self._process.returncode}'}"
        raise CommandError(f"{what}. The end of {self.log}:\n{end_of(self.log)}")

    def _tell(self, event: dict[str, Any]) -> None:
        task = event["task"]
        if event["event"] == "running":
            self._log_begins[task] = event["log_begin"]
            self._progress.begin(task)
        elif event["event"] == "skipped":
            self._progress.forget()
        elif event["event"] == "success":
            self.values[task.rpartition(".")[2]] = event["value"]
            if event["manifest"]:
                self.values["manifest"] = event["manifest"]
            self._progress.end(task, "success", event["seconds"], event["value"])
        else:
            self._failure = event
            self._progress.end(task, event["state"], event["seconds"], event["error"])


def _path(uri: str) -> str:
    """Return the path of an artifact in a local folder, which is in its URI as it is."""
    return uri.removeprefix("file://")


def summary(values: dict[str, Any]) -> list[str]:
    """Return the last lines of the demo: what a program may read.

    :param values: the tasks' return values, by task, and the URI of the results' manifest
    """
    files = json.loads(Path(_path(values["manifest"])).read_text())["files"]
    model = next(file["uri"] for file in files if file["type"] == "output")
    return [
        f"dataset_did={values['publish_dataset']}",
        f"algorithm_did={values['publish_algorithm']}",
        f"order_tx={','.join(values['pay_for_compute'])}",
        f"job_id={values['start_compute']}",
        f"result={_path(model)}",
        f"plot={_path(values['plot'])}",
    ]


def run(conf: dict[str, Any], teardown: Teardown, home: Path = DEMO_HOME, stack: str | None = None) -> int:
    """Run the demo and return its exit status.

    :param conf: configuration of the run: the DAG's params
    :param teardown: what ends everything
    :param home: folder of the demo's state
    :param stack: a key of :data:`include.localnet.settings.STACKS`, None for Provider and Aquarius
    :raises CommandError: when it fails
    """
    begun = time.monotonic()
    progress = Progress(sys.stdout)
    with claim(home):
        settings = resolve_settings(home / "localnet", base_port=0, fresh=True, stack=stack or "provider")
        flow = FlowRun(DAG_ID, home, progress, teardown)
        # Added before it is up: an interrupted start leaves nothing either.
        teardown.add(lambda: network.down(settings.home))
        progress.begin("local network")
        network.up(settings, fresh=True)
        progress.end("local network", "up", time.monotonic() - begun, settings.provider_url)
        progress.begin("Airflow")
        flow.wait_until_prepared()
        progress.end("Airflow", "ready", time.monotonic() - begun, "")
        flow.run(exports(settings), conf)
        print(f"\nDone in {time.monotonic() - begun:.0f} s.", *summary(flow.values), sep="\n")
    return 0
