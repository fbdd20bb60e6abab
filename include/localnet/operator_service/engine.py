"""The life of a job: it waits for a place, its files are fetched, its algorithm runs, its results are published.

Statuses and their order are the operator-engine's. Every step is in the database before it is done, so after a crash the
service knows which jobs it owes an end.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import TYPE_CHECKING

from include.localnet.operator_service.jobspace import Container, Folders
from include.localnet.operator_service.provisioning import Provisioning, Stopped, without_prefix
from include.localnet.operator_service.publishing import discard, discard_all_but_results, publish
from include.localnet.operator_service.runners import RunnerUnavailable
from include.localnet.operator_service.store import STATUS_TEXTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from include.localnet.operator_service.environments import Environment
    from include.localnet.operator_service.jobspace import Runner
    from include.localnet.operator_service.provider_client import ProviderClient
    from include.localnet.operator_service.runners import Runners
    from include.localnet.operator_service.store import Job, Store

logger = logging.getLogger(__name__)

_SWEEP_SECONDS = 60.0
_LOOK_SECONDS = 10.0  # should nobody say that there is something to do
_CLOSING_SECONDS = 4.0
_ALGORITHM = "/data/transformations/algorithm"


class Engine:
    """Runs the stored jobs.

    :param state: folder of the jobs' folders
    :param environments: the environments on offer by id
    """

    def __init__(
        self,
        store: Store,
        environments: Mapping[str, Environment],
        client: ProviderClient,
        runners: Runners,
        state: Path,
    ) -> None:
        self._store, self._environments, self._client, self._runners = store, environments, client, runners
        self._jobs = state / "jobs"
        self._changed = threading.Condition()
        self._running: dict[str, tuple[str, threading.Event]] = {}
        self._closing = False
        self._awake = True
        self._dispatcher = threading.Thread(target=self._dispatch, name="dispatcher", daemon=True)

    def start(self) -> None:
        """End what an earlier process left unfinished, then take jobs."""
        self._jobs.mkdir(parents=True, exist_ok=True)
        for job in self._store.unfinished():
            self._end_badly(job, "the service was restarted")
        needed = self._store.known()
        for folder in self._jobs.iterdir():
            if folder.name not in needed:
                discard(folder)
            else:
                discard_all_but_results(Folders(folder))
        self._dispatcher.start()

    def close(self) -> None:
        """Stop taking jobs and end the running ones."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._running, timeout=_CLOSING_SECONDS)

    def wake(self) -> None:
        """Say that a job was stored, or its stop."""
        with self._changed:
            self._awake = True
            self._changed.notify_all()

    def stop(self, job_id: str) -> None:
        """End a job whose stop request was stored; one that waits ends when its turn comes."""
        with self._changed:
            if job_id in self._running:
                self._running[job_id][1].set()

    def remove(self, job_id: str) -> None:
        """Delete a job's results, when it is over; one that is not is only marked, and loses them in the end."""
        finished = self._store.mark_removed(job_id)
        if finished:
            discard(self._jobs / job_id)

    def running(self, environment: str) -> int:
        """Return how many jobs of an environment run now."""
        with self._changed:
            return sum(name == environment for name, _ in self._running.values())

    def result_path(self, job_id: str, index: int) -> Path:
        """Return the file of a result that the database lists."""
        return Folders(self._jobs / job_id).results / str(index)

    def _dispatch(self) -> None:
        swept = 0.0
        while not self._closing:
            with self._changed:
                self._awake = False  # before looking, so that nothing stored meanwhile is overlooked
            try:
                for name, environment in self._environments.items():
                    while job := self._store.next_waiting(name, stopped=True):  # needs no place to end
                        self._take(job)
                    while self.running(name) < environment.max_jobs and (
                        job := self._store.next_waiting(name)
                    ):
                        self._take(job)
                if time.monotonic() - swept > _SWEEP_SECONDS:
                    swept = time.monotonic()
                    self._sweep()
            except Exception:
                logger.exception("The dispatcher could not look for jobs; it tries again")
            with self._changed:
                self._changed.wait_for(lambda: self._awake or self._closing, timeout=_LOOK_SECONDS)

    def _take(self, job: Job) -> None:
        stop = threading.Event()
        with self._changed:
            self._running[job.job_id] = (job.environment, stop)
        self._store.reach(job.job_id, 10)
        if self._store.flags(job.job_id).stop_requested:  # maybe since the job was read
            stop.set()
        threading.Thread(target=self._live, args=(job, stop), name=f"job-{job.job_id}", daemon=True).start()

    def _live(self, job: Job, stop: threading.Event) -> None:
        logger.info("Job %s starts in %s", job.job_id, job.environment)
        try:
            self._steps(job, lambda: stop.is_set() or self._closing)
        except Exception as error:
            logger.exception("Job %s failed for a reason of the service's own", job.job_id)
            if not self._store.flags(job.job_id).finished:
                self._end_badly(job, f"the operator-service failed ({type(error).__name__}: {error})")
        finally:
            if self._store.flags(job.job_id).removed:
                self.remove(job.job_id)
            with self._changed:
                del self._running[job.job_id]
                self._awake = True
                self._changed.notify_all()
            logger.info("Job %s is over", job.job_id)

    def _steps(self, job: Job, stop_requested: Callable[[], bool]) -> None:
        environment, folders = self._environments[job.environment], Folders(self._jobs / job.job_id)
        folders.create()
        self._store.reach(job.job_id, 20)
        status, runner = self._provide(job, environment, folders, stop_requested)
        if runner is not None:
            self._store.reach(job.job_id, 40)
            self._compute(job, environment, folders, runner, stop_requested)
        if self._closing:
            self._end_badly(job, "the service was stopped")
            return
        if status in (31, 32):
            self._store.finish(job.job_id, publish(folders, 0, with_outputs=False))
        else:
            self._store.reach(job.job_id, 60)
            self._store.finish(job.job_id, publish(folders, environment.limits(0).output), status=70)
        discard_all_but_results(folders)

    def _provide(
        self, job: Job, environment: Environment, folders: Folders, stop_requested: Callable[[], bool]
    ) -> tuple[int | None, Runner | None]:
        """Fetch the job's files; return the status this leads to, None when it was stopped, and what runs the algorithm."""
        with folders.configuration_log.open("a", encoding="utf-8", errors="backslashreplace") as log:
            deadline = time.monotonic() + environment.max_job_duration
            limit = environment.limits(0).output
            work = Provisioning(self._client, folders, limit, deadline, log, stop_requested)
            try:
                if stop_requested():
                    raise Stopped
                status = work.run(job.stage)
                runner = None
                if status == 30:
                    try:
                        runner = self._runners.for_job(_container(job), work.say, stop_requested)
                    except RunnerUnavailable as error:
                        work.say(f"The algorithm can't be run: {error}.")
                        status = 32
                    if stop_requested():
                        raise Stopped
            except Stopped:
                work.say("The job was stopped on request before its algorithm ran.")
                return None, None
        self._store.reach(job.job_id, status)
        return status, runner

    def _compute(
        self,
        job: Job,
        environment: Environment,
        folders: Folders,
        runner: Runner,
        stop_requested: Callable[[], bool],
    ) -> None:
        algorithm = job.stage["algorithm"]
        variables = {
            "DIDS": json.dumps([without_prefix(item["id"]) for item in job.stage["input"]]),
            "TRANSFORMATION_DID": str(algorithm.get("id") or "").replace("did:op:", ""),
            "VOLUME": "/data",
            "LOGS": "/data/logs",
            "INPUTS": "/data/inputs",
            "OUTPUTS": "/data/outputs",
            "secret": job.secret,
        }
        command = algorithm["container"]["entrypoint"].replace("$ALGO", _ALGORITHM)
        limits = environment.limits(_seconds_to_run(job, environment))
        outcome = runner.run(folders, command, variables, limits, stop_requested)
        if outcome.ended_by == "time":
            self._store.note_time_out(job.job_id)
        if outcome.ended_by == "sandbox":
            with folders.algorithm_log.open("a") as log:
                log.write(f"{runner.advice}\n")
        logger.info("Job %s: its algorithm was ended by %s. %s", job.job_id, outcome.ended_by, outcome.reason)

    def _end_badly(self, job: Job, reason: str) -> None:
        """End a job that can't go on: its status stays what it reached, its text and its logs say why."""
        reached = STATUS_TEXTS[self._store.flags(job.job_id).status]
        folders = Folders(self._jobs / job.job_id)
        results = []
        try:
            folders.root.mkdir(parents=True, exist_ok=True)
            for log in (folders.algorithm_log, folders.configuration_log):
                with log.open("a", encoding="utf-8") as file:
                    file.write(f"\noperator-service: The job ended at {reached!r}: {reason}.\n")
            results = publish(folders, 0, with_outputs=False)
        except OSError:
            logger.exception("The logs of job %s can't be kept", job.job_id)
        self._store.finish(job.job_id, results, text=f"{reached}, then {reason}")
        discard_all_but_results(folders)

    def _sweep(self) -> None:
        for name, environment in self._environments.items():
            for job_id in self._store.expired(name, environment.storage_expiry):
                logger.info(
                    "The results of job %s have been kept for %s s", job_id, environment.storage_expiry
                )
                self.remove(job_id)


def _seconds_to_run(job: Job, environment: Environment) -> float:
    """Return how long the algorithm may run: the environment's limit, or less if the consumer paid for less.

    What was paid for counts from the job's creation to ``validUntil``; time in the queue does not use it up. A job
    accepted after that moment has the grace of a free environment.
    """
    if job.valid_until is None or job.valid_until <= job.date_created:
        return environment.max_job_duration
    return min(environment.max_job_duration, job.valid_until - job.date_created)


def _container(job: Job) -> Container:
    """Return the image that a job's algorithm names."""
    named = job.stage["algorithm"]["container"]
    return Container(*(str(named.get(name) or "") for name in ("image", "tag", "checksum")))
