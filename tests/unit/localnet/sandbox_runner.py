"""Runs one algorithm in the sandbox and prints how it ended: a program, so that tests can run it as another user."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from include.localnet.operator_service.jobspace import Folders, Limits
from include.localnet.operator_service.publishing import publish
from include.localnet.operator_service.sandbox import Sandbox


def main() -> None:
    order = json.loads(sys.stdin.read())
    folders = Folders(Path(order["state"]) / "job")
    folders.create()
    (folders.inputs / "data").write_text("input")
    (folders.transformations / "algorithm").write_text(order["code"])
    stop_file = Path(order["state"]) / "stop"
    limits = Limits(**order["limits"])
    outcome = Sandbox(Path(order["state"])).run(
        folders, order["command"], order["variables"], limits, stop_file.exists
    )
    log = folders.algorithm_log.read_text(errors="replace")
    results = publish(folders, limits.output)
    print(json.dumps({**dataclasses.asdict(outcome), "log": log, "results": results}))


if __name__ == "__main__":
    main()
