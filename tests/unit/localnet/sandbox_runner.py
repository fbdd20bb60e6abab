"""Runs one algorithm in the sandbox, or in a container, and prints how it ended.

It is a program so that tests can run it as another user, and kill it.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from include.localnet.operator_service.jobspace import Container, Folders, Limits
from include.localnet.operator_service.publishing import publish
from include.localnet.operator_service.runners import Runners


def main() -> None:
    order = json.loads(sys.stdin.read())
    folders = Folders(Path(order["state"]) / "job")
    folders.create()
    (folders.inputs / "data").write_text("input")
    (folders.transformations / "algorithm").write_text(order["code"])
    stop_file = Path(order["state"]) / "stop"
    limits = Limits(**order["limits"])
    image = order.get("image")
    runners = Runners(Path(order["state"]), "docker" if image else "sandbox")
    runner = runners.for_job(Container(**(image or {"image": "", "tag": "", "checksum": ""})))
    outcome = runner.run(folders, order["command"], order["variables"], limits, stop_file.exists)
    runners.close()
    log = folders.algorithm_log.read_text(errors="replace")
    results = publish(folders, limits.output)
    print(json.dumps({**dataclasses.asdict(outcome), "log": log, "results": results}))


if __name__ == "__main__":
    main()
