"""The life of a job: it waits for resources, its files are fetched, its algorithm runs, its payment is claimed.

Statuses and their order are upstream's. Upstream looks at its jobs every two seconds; here a job goes on at once. Every
step is in the database before it is done: after a crash a job begins anew, as upstream's does whose container is gone.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from typing import TYPE_CHECKING

from include.localnet.node import store
from include.localnet.node.answers import Refused
from include.localnet.node.javascript import now_text
from include.localnet.node.layout import NodeFolders
from include.localnet.node.provisioning import Provisioning, ProvisioningFailed
from include.localnet.node.results import pack_outputs
from include.localnet.node.settlement import Settlement
from include.localnet.operator_service.interpreter import view_of_host
from include.localnet.operator_service.provisioning import Stopped
from include.localnet.operator_service.publishing import discard
from include.localnet.operator_service.sandbox import ADVICE
from include.localnet.operator_service.supervisor import STANDARD_ERROR, frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from include.localnet.node.configuration import Node
    from include.localnet.node.store import Job
    from include.localnet.operator_service.jobspace import Outcome
    from include.localnet.operator_service.sandbox import Sandbox

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5  # a queued job's time may be over, and nobody says so
_CLOSING_SECONDS = 4.0
_SWEEP_SECONDS = 60.0
# Upstream waits a minute after its start for the first round, then an hour for each.
_FIRST_CLAIM_SECONDS = 0.5
_KILLED = 137
_ALGORITHM = "data/transformations/algorithm"


class Engine:
    """Runs the stored jobs, and claims what was locked for them."""

    def __init__(self, node: Node, sandbox: Sandbox) -> None:
        self._node, self._sandbox = node, sandbox
        self._jobs = node.jobs
        self._root = node.configuration.state / "jobs"
        self._search_path = view_of_host(node.configuration.state).search_path
        self._changed = threading.Condition()
        self._running: dict[str, threading.Event] = {}
        self._closing = threading.Event()
        # Held while resources are looked at and taken, so that two jobs don't get the same.
        self.admission = threading.Lock()
        self._settlement = Settlement(node)
        self._threads = [
            threading.Thread(target=self._dispatch, name="dispatcher", daemon=True),
            threading.Thread(target=self._settle, name="settlement", daemon=True),
        ]

    def start(self) -> None:
        """Take up what an earlier process left unfinished, then take jobs."""
        self._root.mkdir(parents=True, exist_ok=True)
        known = self._jobs.known()
        for folder in self._root.iterdir():
            if folder.name not in known:
                discard(folder)
        for job in self._jobs.unfinished():
            if not job.is_queued:
                self.take(job)
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop taking jobs; those that run end here and begin anew when the node is started again."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._running, timeout=_CLOSING_SECONDS)

    def folders(self, job_id: str) -> NodeFolders:
        """Return a job's folders."""
        return NodeFolders(self._root / job_id)

    def take(self, job: Job) -> None:
        """Begin with a job that is stored."""
        stop = threading.Event()
        with self._changed:
            self._running[job.id] = stop
        # Maybe it was asked for since the job was read.
        if any(found.body["stopRequested"] for found in self._jobs.find(job.id)):
            stop.set()
        threading.Thread(target=self._live, args=(job, stop), name=f"job-{job.id[:8]}", daemon=True).start()

    def stop(self, job_id: str) -> None:
        """End a job's run whose stop was stored."""
        with self._changed:
            if job_id in self._running:
                self._running[job_id].set()

    def is_running(self, job_id: str) -> bool:
        """Say whether a job's algorithm runs now."""
        found = self._jobs.find(job_id)
        return bool(found) and found[0].status == store.RUNNING and not self._closing.is_set()

    # --- queue -----------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        swept = 0.0
        while not self._closing.is_set():
            try:
                for job in self._jobs.unfinished():
                    if job.is_queued:
                        self._look_at_queued(job)
                if time.monotonic() - swept > _SWEEP_SECONDS:
                    swept = time.monotonic()
                    self._sweep()
            except Exception:
                logger.exception("The dispatcher could not look for jobs; it tries again")
            self._closing.wait(_LOOK_SECONDS)

    def _look_at_queued(self, job: Job) -> None:
        if time.time() - float(job.body["dateCreated"]) > job.body["queueMaxWaitTime"]:
            self._jobs.change(job.id, store.EXPIRED, finish=True)
            return
        with self.admission:
            try:
                self._node.environment.check_available(
                    job.body["resources"], self._jobs.unfinished(), free=job.is_free
                )
            except Refused:
                return
            job = self._jobs.change(job.id, store.PULLING)
        self.take(job)

    def _sweep(self) -> None:
        kept = self._node.environment.fields["storageExpiry"]
        for job_id in self._jobs.finished_before(time.time() - kept):
            logger.info("The results of job %s have been kept for %s s", job_id, kept)
            self._jobs.remove(job_id)
            discard(self._root / job_id)

    def _settle(self) -> None:
        interval = self._node.configuration.claim_seconds
        wait = min(_FIRST_CLAIM_SECONDS, interval)
        while not self._closing.wait(wait):
            wait = interval
            try:
                self._settlement.run()
            except Exception as error:
                logger.warning("Payments could not be claimed now (%s); they are tried again", error)

    # --- run -------------------------------------------------------------------------------------

    def _live(self, job: Job, stop: threading.Event) -> None:
        logger.info("Job %s starts", job.id)
        try:
            self._steps(job, lambda: stop.is_set() or self._closing.is_set())
        except Exception:
            logger.exception("Job %s failed for a reason of the node's own", job.id)
            # Nobody pays for what the node did wrong but the shortest time.
            times = dict.fromkeys(("algoStartTimestamp", "algoStopTimestamp"), now_text())
            self._jobs.change(job.id, store.ALGORITHM_FAILED, finish=True, **times)
        finally:
            with self._changed:
                self._running.pop(job.id, None)
                self._changed.notify_all()
            logger.info("Job %s is over", job.id)

    def _steps(self, job: Job, stop_requested: Callable[[], bool]) -> None:
        folders = self.folders(job.id)
        if job.status not in (store.PUBLISHING, store.DISK_FULL) and not self._run(
            job, folders, stop_requested
        ):
            return
        pack_outputs(folders)
        # The status that a breach of the disk's limit left is the last one.
        last = self._jobs.find(job.id)[0].status
        final = store.DISK_FULL if last == store.DISK_FULL else store.SETTLING
        self._jobs.change(job.id, final, finish=True)
        self._tidy(folders)

    def _run(self, job: Job, folders: NodeFolders, stop_requested: Callable[[], bool]) -> bool:
        """Run a job's algorithm and say whether there are outputs to publish."""
        discard(folders.root)
        folders.create()
        self._pull(job, folders)
        self._jobs.change(job.id, store.CONFIGURING)
        self._jobs.change(job.id, store.PROVISIONING)
        limits = self._node.environment.limits(job)
        deadline = time.monotonic() + job.max_duration
        work = Provisioning(self._node, job, folders, limits.output, deadline, stop_requested)
        try:
            work.run()
        except ProvisioningFailed as error:
            self._jobs.change(job.id, error.status, finish=True)
            self._tidy(folders)
            return False
        except Stopped:
            if self._closing.is_set():
                return False
        return self._compute(job, folders, stop_requested) and not self._closing.is_set()

    def _pull(self, job: Job, folders: NodeFolders) -> None:
        image = job.order["containerImage"]
        folders.image_log.write_text(
            f"{image} : no image is run here, the local network's sandbox stands for it\n"
            f"Successfully pulled image: {image}\n"
        )

    def _compute(self, job: Job, folders: NodeFolders, stop_requested: Callable[[], bool]) -> bool:
        for log in (folders.image_log, folders.configuration_log):
            shutil.copy(log, folders.logs / log.name)
        algorithm = job.order["algorithm"]
        entrypoint = str(algorithm["meta"]["container"].get("entrypoint") or "")
        # Split at blanks, without a shell; only the first variable is replaced, by a relative path. As upstream.
        command = entrypoint.replace("$ALGO", _ALGORITHM, 1).split(" ")
        self._jobs.change(job.id, store.RUNNING, algoStartTimestamp=now_text())
        if shutil.which(command[0], path=self._search_path) is None:
            message = f'exec: "{command[0]}": executable file not found in $PATH: unknown'
            folders.algorithm_log.write_text(message)
            self._jobs.change(job.id, store.ALGORITHM_FAILED, algoStopTimestamp=now_text(), finish=True)
            self._tidy(folders)
            return False
        variables = {"HOME": "/", **{str(k): str(v) for k, v in (algorithm.get("envs") or {}).items()}}
        limits = self._node.environment.limits(job)
        outcome = self._sandbox.run(folders, command, variables, limits, stop_requested)
        logger.info("Job %s: its algorithm was ended by %s. %s", job.id, outcome.ended_by, outcome.reason)
        self._conclude(job, folders, outcome)
        return True

    def _conclude(self, job: Job, folders: NodeFolders, outcome: Outcome) -> None:
        if self._closing.is_set():
            return
        out_of_memory = "memory" in outcome.reason and outcome.ended_by == "limit"
        breach = outcome.ended_by == "limit" and not out_of_memory
        if outcome.ended_by in ("limit", "sandbox"):
            reason = outcome.reason if outcome.ended_by == "limit" else f"{outcome.reason} {ADVICE}"
            with folders.algorithm_log.open("ab") as log:
                log.write(frame(f"{reason}\n".encode(), STANDARD_ERROR))
        code = _KILLED if outcome.exit_status is None else outcome.exit_status
        self._jobs.change(
            job.id,
            store.DISK_FULL if breach else store.PUBLISHING,
            algoStopTimestamp=now_text(),
            terminationDetails={"exitCode": code, "OOMKilled": out_of_memory},
        )

    def _tidy(self, folders: NodeFolders) -> None:
        """Delete what is no result."""
        for path in (folders.data, folders.accounts):
            discard(path)
