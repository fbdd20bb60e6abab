"""What one job has: its folders on the host, its image, its limits, what runs it, and how its run ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What an algorithm may use.

    :param memory: bytes, of each process and of all together
    :param output: bytes in outputs and logs together, and of each file
    :param wall_seconds: seconds until it is killed
    :param cpus: threads that numerical libraries start; CPU time is limited to that many full ones
    :param processes: processes and threads at once
    :param files: entries in outputs and logs, and in ``/tmp``
    :param open_files: open files of each process
    :param log: bytes of its log that are kept
    :param temporary: bytes in ``/tmp``, which count as memory, too
    """

    memory: int
    output: int
    wall_seconds: float
    cpus: int = 1
    processes: int = 128
    files: int = 10_000
    open_files: int = 1024
    log: int = 10 * MEGABYTE
    temporary: int = 256 * MEGABYTE

    def variables(self) -> dict[str, str]:
        """Return what an algorithm's environment says of them, and what makes its output appear at once."""
        threads = str(self.cpus)
        return {
            "HOME": "/tmp",
            "TMPDIR": "/tmp",
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",  # what was printed before a kill is in the log
            "PYTHONDONTWRITEBYTECODE": "1",
            # Each thread of these libraries takes memory and a place in the process limit.
            "OMP_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "NUMEXPR_NUM_THREADS": threads,
        }


@dataclass(frozen=True)
class Container:
    """The image that an algorithm's metadata name."""

    image: str
    tag: str
    checksum: str


@dataclass(frozen=True)
class Folders:
    """The host's folders of one job, and what of them the algorithm sees: here the operator-engine's layout.

    :param root: the job's own folder, closed to other users
    """

    root: Path
    #: Whether the algorithm's log is a file of frames that tell the standard output from the standard error.
    framed_log: ClassVar[bool] = False
    #: The uid that the algorithm believes it has; None for the one it has.
    uid_inside: ClassVar[int | None] = None

    @property
    def inputs(self) -> Path:
        """Datasets and custom data, ``/data/inputs``."""
        return self.root / "inputs"

    @property
    def ddos(self) -> Path:
        """The assets' documents, ``/data/ddos``."""
        return self.root / "ddos"

    @property
    def transformations(self) -> Path:
        """The algorithm, ``/data/transformations``."""
        return self.root / "transformations"

    @property
    def outputs(self) -> Path:
        """What the algorithm makes, ``/data/outputs``."""
        return self.root / "outputs"

    @property
    def logs(self) -> Path:
        """What the algorithm logs by itself, ``/data/logs``."""
        return self.root / "logs"

    @property
    def algorithm_log(self) -> Path:
        """What the algorithm prints. It is mounted at ``/data/logs/algorithm.log``, so it can't be replaced by a link."""
        return self.root / "algorithm.log"

    @property
    def configuration_log(self) -> Path:
        """How inputs and algorithm were fetched; not shown to the algorithm."""
        return self.root / "configure.log"

    @property
    def publishing_log(self) -> Path:
        """How the results were collected; not shown to the algorithm."""
        return self.root / "publish.log"

    @property
    def accounts(self) -> Path:
        """The ``/etc/passwd`` of the sandbox."""
        return self.root / "passwd"

    @property
    def results(self) -> Path:
        """The results, each named by its index and nothing else."""
        return self.root / "results"

    @property
    def written(self) -> list[Path]:
        """Folders in ``/data`` that the algorithm can write to."""
        return [self.outputs, self.logs]

    @property
    def handed_over(self) -> list[Path]:
        """What has to belong to the algorithm's user."""
        return [self.outputs, self.logs, self.algorithm_log]

    def binds(self) -> list[str]:
        """Return bubblewrap's options that make ``/data``."""
        options = ["--perms", "0755", "--dir", "/data"]
        for folder in (self.inputs, self.ddos, self.transformations):
            options += ["--ro-bind", str(folder), f"/data/{folder.name}"]
        for folder in (self.outputs, self.logs):
            options += ["--bind", str(folder), f"/data/{folder.name}"]
        return [*options, "--bind", str(self.algorithm_log), "/data/logs/algorithm.log"]

    def create(self) -> None:
        """Make the folders, readable by the algorithm whatever the service's umask."""
        self.root.mkdir(parents=True)
        self.root.chmod(0o700)
        for folder in (self.inputs, self.ddos, self.transformations, self.outputs, self.logs):
            folder.mkdir()
            folder.chmod(0o755)
        for log in (self.algorithm_log, self.configuration_log, self.publishing_log):
            log.touch()
            log.chmod(0o644)


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    :param exit_status: the command's, or None when it was killed or never ran
    :param ended_by: ``itself``, ``stop`` (asked for), ``time``, ``limit``, or ``sandbox`` (it could not be set up)
    :param reason: a sentence for the log; empty when the command ended by itself with status 0
    """

    exit_status: int | None
    ended_by: str
    reason: str = ""


class Runner(Protocol):
    """What runs one job's algorithm: the sandbox, or a container."""

    advice: str
    """What usually helps when a run could not be set up."""

    def run(
        self,
        folders: Folders,
        command: str,
        variables: dict[str, str],
        limits: Limits,
        stop_requested: Callable[[], bool],
    ) -> Outcome:
        """Run a shell command until it ends or has to be ended, its output going to the job's algorithm log.

        :param folders: the job's, created
        :param command: for ``sh -c``
        :param variables: the algorithm's environment
        :param stop_requested: asked several times a second
        :raises OSError: when it can't be started at all
        """

    def check(self) -> None:
        """Run a trivial command.

        :raises Exception: when that fails, saying what to do
        """
