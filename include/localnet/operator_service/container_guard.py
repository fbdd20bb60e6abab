"""Removes a service's containers when the service is gone, however it ended: the engine would let them run for ever.

``python -m include.localnet.operator_service.container_guard LABEL`` waits until its standard input is closed, which the
kernel does when the service dies, then removes every container with the label.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docker import APIClient

_SETTLING_SECONDS = 0.5


class ContainerGuard:
    """The guard's process, from the service's side.

    :param label: ``name=value``, of all containers of this service
    """

    def __init__(self, label: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, label],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def close(self) -> None:
        """Let it do its work, and wait until it is through."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)


def remove_all(client: APIClient, label: str) -> int:
    """Remove all containers with a label, running or not, and return how many there were."""
    from docker.errors import APIError

    found = client.containers(all=True, filters={"label": label})
    for container in found:
        with contextlib.suppress(APIError):  # somebody else removes it just now
            client.remove_container(container["Id"], force=True, v=True)
    return len(found)


def main() -> None:
    """Wait for the end of the service, then clear up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    from include.localnet.operator_service.docker_engine import connect

    client = connect()
    # A creation that was under way when the service died may come to its end after the first look.
    remove_all(client, sys.argv[1])
    time.sleep(_SETTLING_SECONDS)
    remove_all(client, sys.argv[1])


if __name__ == "__main__":
    main()
