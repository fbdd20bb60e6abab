"""The command line of ``make demo`` and ``make up``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from include.demo.interrupts import Teardown
from include.demo.processes import CommandError
from include.demo.run import run
from include.demo.state import DEMO_HOME
from include.demo.up import up
from include.localnet.chain import AnvilNotFound
from include.localnet.contracts import DeploymentError
from include.localnet.ethereum import RpcError
from include.localnet.network import NetworkError

_EXPECTED = (CommandError, NetworkError, AnvilNotFound, DeploymentError, RpcError, httpx.HTTPError)


def _conf(text: str) -> dict[str, Any]:
    conf = json.loads(text)
    if not isinstance(conf, dict):
        raise ValueError
    return conf


def _folder(text: str) -> Path:
    return Path(text).expanduser().resolve()


def main() -> int:
    """Run a command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m include.demo", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run_parser = commands.add_parser("run", help="run the whole flow once on a local network of its own")
    run_parser.add_argument("--conf", type=_conf, default={}, help="params of the DAG run, as a JSON object")
    run_parser.add_argument(
        "--home", type=_folder, default=DEMO_HOME, help="folder of its state (default: .demo)"
    )
    up_parser = commands.add_parser("up", help="start a local network and the Airflow UI, until Ctrl-C")
    up_parser.add_argument(
        "--port", type=int, default=8080, help="port of the UI; the next free one if it is taken"
    )
    for command in (run_parser, up_parser):
        command.add_argument(
            "--stack",
            choices=("provider", "node"),
            help="which generation of Ocean's services the network has",
        )
    arguments = parser.parse_args()
    teardown = Teardown()
    if arguments.command == "run":
        work = partial(run, arguments.conf, teardown, arguments.home, arguments.stack)
    else:
        work = partial(up, teardown, arguments.port, arguments.stack)

    def reported() -> int:
        try:
            return work()
        except _EXPECTED as error:
            print(f"\nerror: {error}", file=sys.stderr)
        except BrokenPipeError:
            # Nobody reads on. Python would write what is left to the pipe once more when it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1

    return teardown.run(reported)


if __name__ == "__main__":
    sys.exit(main())
