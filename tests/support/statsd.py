"""What Airflow's metrics say, as a StatsD server hears it."""

from __future__ import annotations

import socket
import threading


class StatsDListener:
    """What a StatsD server receives, on loopback."""

    def __enter__(self) -> StatsDListener:
        self.lines: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._receive)
        self._thread.start()
        return self

    def _receive(self) -> None:
        while (packet := self._socket.recv(65536)) != b"end":
            self.lines += packet.decode().split("\n")

    def __exit__(self, *_exception: object) -> None:
        self.end()

    def end(self) -> None:
        """Take in what has been sent until now, and stop."""
        if self._thread.is_alive():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ending:
                ending.sendto(b"end", ("127.0.0.1", self.port))
            self._thread.join()
            self._socket.close()

    def counted(self, name: str, begin: int = 0, end: int | None = None) -> int | None:
        """Return the sum of a counter, None when it was never sent.

        :param begin: the number of the first line to look at
        :param end: that of the first one not to look at
        """
        values = [
            line for line in self.lines[begin:end] if line.startswith(f"airflow.{name}:") and "|c" in line
        ]
        return sum(int(line.split(":")[1].split("|")[0]) for line in values) if values else None
