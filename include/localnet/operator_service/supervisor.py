"""Starts bubblewrap, keeps the algorithm's log, and ends the run when a limit is passed or a stop is asked for."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from include.localnet.operator_service import watchdog
from include.localnet.operator_service.jobspace import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from include.localnet.operator_service.jobspace import Folders, Limits

_INTERVAL = 0.1
_CHUNK = 64 * 1024
_MARK = "operator-service: "
STANDARD_OUTPUT, STANDARD_ERROR = 1, 2
FRAME_HEADER = 8
# Docker's log driver cuts longer lines.
_LONGEST_FRAME = 16 * 1024


class Log:
    """The algorithm's log, of which only so much is kept.

    :param path: an existing file of the service's own
    :param limit: bytes kept
    """

    def __init__(self, path: Path, limit: int) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._left = limit
        self.start = b""
        self.full = False

    def write(self, data: bytes, stream: int = STANDARD_OUTPUT) -> None:
        """Keep what fits, and say once that the rest does not.

        :param stream: where it was printed; a log without frames has both in one
        """
        if self.full:
            return
        if len(self.start) < _CHUNK:
            self.start += data
        kept = data[: self._left]
        self._left -= len(kept)
        os.write(self._descriptor, kept)
        if len(kept) < len(data):
            self.full = True
            self.line("The log is longer than is kept; the rest is left out.")

    def starts_with(self, text: bytes) -> bool:
        """Say how the algorithm's output begins."""
        return self.start.startswith(text)

    def line(self, text: str) -> None:
        """Add a sentence of the service's own, recognisable as such."""
        os.write(self._descriptor, f"\n{_MARK}{text}\n".encode())

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class FramedLog(Log):
    """The algorithm's log as Docker hands it out: a frame for each line, with its stream and length before it.

    https://docs.docker.com/reference/api/engine/version/v1.43/#tag/Container/operation/ContainerAttach
    """

    def __init__(self, path: Path, limit: int) -> None:
        super().__init__(path, limit)
        self._begun = {STANDARD_OUTPUT: b"", STANDARD_ERROR: b""}

    def write(self, data: bytes, stream: int = STANDARD_OUTPUT) -> None:
        """Keep the lines that are complete."""
        *lines, rest = (self._begun[stream] + data).split(b"\n")
        for line in lines:
            self._keep(line + b"\n", stream)
        while len(rest) >= _LONGEST_FRAME:
            self._keep(rest[:_LONGEST_FRAME], stream)
            rest = rest[_LONGEST_FRAME:]
        self._begun[stream] = rest

    def _keep(self, line: bytes, stream: int) -> None:
        for start in range(0, len(line), _LONGEST_FRAME):
            part = line[start : start + _LONGEST_FRAME]
            framed = frame(part, stream)
            if len(framed) > self._left:
                self.full = True
                return
            super().write(framed, stream)

    def starts_with(self, text: bytes) -> bool:
        """Say how the first frame's content begins."""
        return self.start[FRAME_HEADER:].startswith(text)

    def line(self, text: str) -> None:
        """Add nothing: the log has what the algorithm printed and nothing else."""

    def close(self) -> None:
        """Keep the last lines, which may have no end, and close the file."""
        for stream, rest in self._begun.items():
            if rest and not self.full:
                self._keep(rest, stream)
        super().close()


def frame(part: bytes, stream: int) -> bytes:
    """Return a part of a log behind Docker's header of eight bytes."""
    return bytes((stream, 0, 0, 0)) + len(part).to_bytes(4, "big") + part


def _memory_file(name: str, content: bytes) -> int:
    descriptor = os.memfd_create(name)
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


class Run:
    """One run of a sandbox.

    :param bwrap: path of the binary
    :param arguments: bubblewrap's options; they go through a file that no process list shows
    :param confinement: the command inside
    :param whole_filter: a system-call filter for bubblewrap's own process inside, too, or None
    :param orders: what that command reads from its standard input
    """

    def __init__(
        self,
        bwrap: str,
        arguments: Sequence[str],
        confinement: Sequence[str],
        orders: bytes,
        whole_filter: bytes | None,
        folders: Folders,
        limits: Limits,
    ) -> None:
        self._folders, self._limits = folders, limits
        log = FramedLog if folders.framed_log else Log
        self._log = log(folders.algorithm_log, limits.log)
        self._first: int | None = None
        self._first_handle: int | None = None
        self._status = b""
        self._next_count = 0.0
        self._output, output = os.pipe()
        self._errors: int | None = None
        errors = output
        if folders.framed_log:
            self._errors, errors = os.pipe()
        self._status_pipe, status = os.pipe()
        options = b"".join(os.fsencode(argument) + b"\0" for argument in arguments)
        passed = {"--args": _memory_file("options", options), "--json-status-fd": status}
        if whole_filter is not None:
            passed["--seccomp"] = _memory_file("filter", whole_filter)
        stdin = _memory_file("orders", orders)
        try:
            self._process = subprocess.Popen(
                [
                    bwrap,
                    *(word for name, fd in passed.items() for word in (name, str(fd))),
                    "--",
                    *confinement,
                ],
                stdin=stdin,
                stdout=output,
                stderr=errors,
                env={},  # the first process inside keeps bubblewrap's environment
                cwd="/",
                pass_fds=tuple(passed.values()),
            )
        finally:
            for descriptor in {*passed.values(), stdin, output, errors}:
                os.close(descriptor)
        for descriptor in self._pipes():
            os.set_blocking(descriptor, False)

    def until_end(self, stop_requested: Callable[[], bool]) -> Outcome:
        """Wait for the command, or end it; either way nothing of it runs any more afterwards."""
        deadline = time.monotonic() + self._limits.wall_seconds
        try:
            while self._process.poll() is None:
                self._relay()
                outcome = self._interruption(deadline, stop_requested)
                if outcome is not None:
                    self._kill()
                    break
            else:
                outcome = None
            self._relay()
            outcome = outcome or self._natural_end()
            if outcome.reason:
                self._log.line(outcome.reason)
            return outcome
        finally:
            self._kill()
            self._log.close()
            for descriptor in self._pipes():
                os.close(descriptor)
            if self._first_handle is not None:
                os.close(self._first_handle)

    def _pipes(self) -> list[int]:
        return [pipe for pipe in (self._output, self._errors, self._status_pipe) if pipe is not None]

    def _relay(self) -> None:
        """Move what was printed to the log, for at most one interval."""
        until = time.monotonic() + _INTERVAL
        open_pipes = self._pipes()
        while open_pipes and (left := until - time.monotonic()) > 0:
            for descriptor in select.select(open_pipes, [], [], left)[0]:
                data = os.read(descriptor, _CHUNK)
                if not data:
                    open_pipes.remove(descriptor)
                elif descriptor == self._output:
                    self._log.write(data)
                elif descriptor == self._errors:
                    self._log.write(data, STANDARD_ERROR)
                else:
                    self._learn(data)
            if self._log.full:
                time.sleep(0.01)  # an endless printer waits for its reader
        if not open_pipes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_INTERVAL)

    def _learn(self, data: bytes) -> None:
        self._status += data
        if self._first is None and b"\n" in self._status:
            self._first = int(json.loads(self._status.split(b"\n")[0])["child-pid"])
            with contextlib.suppress(OSError):  # it has ended already
                self._first_handle = os.pidfd_open(self._first)

    def _interruption(self, deadline: float, stop_requested: Callable[[], bool]) -> Outcome | None:
        if stop_requested():
            return Outcome(None, "stop", "The algorithm was stopped on request.")
        if time.monotonic() > deadline:
            seconds = f"{self._limits.wall_seconds:g}"
            return Outcome(
                None, "time", f"The algorithm was killed: it ran longer than the {seconds} s it had."
            )
        breach = self._breach()
        return Outcome(None, "limit", f"The algorithm was killed: {breach}.") if breach else None

    def _breach(self) -> str:
        """Return the limit that is passed as a clause, or nothing."""
        limits = self._limits
        if self._first is not None:
            temporary, temporary_files = watchdog.temporary_use(self._first)
            usage = watchdog.usage_of(self._first, limits.memory - temporary)
            if usage.tasks > limits.processes + 8:  # the sandbox's own
                return f"it started more than {limits.processes} processes and threads"
            if usage.memory + temporary > limits.memory:
                return f"it used more than {limits.memory} bytes of memory"
            if temporary_files > limits.files:
                return f"it made more than {limits.files} files in /tmp"
        began = time.monotonic()
        if began < self._next_count:
            return ""
        breach = self._output_breach()
        # A tree that takes long to count is counted less often.
        self._next_count = time.monotonic() + 5 * (time.monotonic() - began)
        return breach

    def _output_breach(self) -> str:
        limits, folders = self._limits, self._folders
        try:
            size, files = watchdog.folder_use(folders.written, limits.files)
        except watchdog.Unmeasurable as error:
            return f"its output can't be counted, because {error}"
        # What it printed is kept up to a limit of its own; what it appended by itself counts here.
        size += max(0, folders.algorithm_log.stat().st_size - limits.log - _CHUNK)
        if files > limits.files:
            return f"it made more than {limits.files} files in outputs and logs"
        if size > limits.output:
            return f"it wrote more than {limits.output} bytes to outputs and logs"
        return ""

    def _natural_end(self) -> Outcome:
        status = self._process.returncode
        if b'"exit-code"' not in self._status and self._log.starts_with(b"bwrap: "):
            return Outcome(None, "sandbox", "The sandbox could not be set up on this machine.")
        breach = self._output_breach()
        if breach:
            return Outcome(status, "limit", f"The algorithm's results are refused: {breach}.")
        return ending(status)

    def _kill(self) -> None:
        """Kill the namespace's first process, with which the kernel ends all others before anybody sees it gone."""
        if self._process.poll() is not None:
            return
        if self._first_handle is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._first_handle, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def ending(status: int) -> Outcome:
    """Return how a command ended that ended by itself, from its shell's exit status."""
    if status > 128:
        known = status - 128 in set(signal.Signals)
        name = signal.Signals(status - 128).name if known else str(status - 128)
        return Outcome(status, "itself", f"The algorithm was ended by signal {name}.")
    if status:
        return Outcome(status, "itself", f"The algorithm ended with exit status {status}.")
    return Outcome(status, "itself")
