"""The life of a job: it waits for a place, its files are fetched, its algorithm runs, its results are published.

Statuses and their order are the operator-engine's. Every step is in the database before it is done, so after a crash the
service knows which jobs it owes an end.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from typing import TYPE_CHECKING

from include.localnet.operator_service.jobspace import Folders
from include.localnet.operator_service.provisioning import Provisioning, Stopped, without_prefix
from include.localnet.operator_service.publishing import discard, discard_all_but_results, publish

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from include.localnet.operator_service.environments import Environment
    from include.localnet.operator_service.provider_client import ProviderClient
    from include.localnet.operator_service.sandbox import Sandbox
    from include.localnet.operator_service.store import Job, Store

logger = logging.getLogger(__name__)

_SWEEP_SECONDS = 60.0
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
        sandbox: Sandbox,
        state: Path,
    ) -> None:
        self._store, self._environments, self._client, self._sandbox = store, environments, client, sandbox
        self._jobs = state / "jobs"
        self._changed = threading.Condition()
        self._running: dict[str, tuple[str, threading.Event]] = {}
        self._closing = False
        self._dispatcher = threading.Thread(target=self._dispatch, name="dispatcher", daemon=True)

    def start(self) -> None:
        """End what an earlier process left unfinished, then take jobs."""
        self._jobs.mkdir(parents=True, exist_ok=True)
        for job in self._store.unfinished():
            self._end_interrupted(job, "restarted")
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
        """Say that a job was stored."""
        with self._changed:
            self._changed.notify_all()

    def stop(self, job_id: str) -> None:
        """End a job whose stop request was stored; one that waits ends when its turn comes."""
        with self._changed:
            if job_id in self._running:
                self._running[job_id][1].set()

    def remove(self, job_id: str) -> None:
        """Delete the results of a job that is over."""
        self._store.mark_removed(job_id)
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
            try:
                for name, environment in self._environments.items():
                    while self.running(name) < environment.max_jobs and (job := self._store.next_waiting(name)):
                        self._take(job)
                if time.monotonic() - swept > _SWEEP_SECONDS:
                    swept = time.monotonic()
                    self._sweep()
            except Exception:
                logger.exception("The dispatcher could not look for jobs; it tries again")
            with self._changed:
                if not self._closing:
                    self._changed.wait(1.0)

    def _take(self, job: Job) -> None:
        self._store.reach(job.job_id, 10)
        stop = threading.Event()
        if job.stop_request:
            stop.set()
        with self._changed:
            self._running[job.job_id] = (job.environment, stop)
        threading.Thread(target=self._live, args=(job, stop), name=f"job-{job.job_id}", daemon=True).start()

    def _live(self, job: Job, stop: threading.Event) -> None:
        logger.info("Job %s starts in %s", job.job_id, job.environment)
        try:
            self._steps(job, stop)
        except Exception as error:
            logger.exception("Job %s failed for a reason of the service's own", job.job_id)
            self._end_badly(job, f"Internal error of the operator-service: {type(error).__name__}: {error}")
        finally:
            with self._changed:
                del self._running[job.job_id]
                self._changed.notify_all()
            logger.info("Job %s is over", job.job_id)

    def _steps(self, job: Job, stop: threading.Event) -> None:
        environment, folders = self._environments[job.environment], Folders(self._jobs / job.job_id)

        def stop_requested() -> bool:
            return stop.is_set() or self._closing

        folders.create()
        self._store.reach(job.job_id, 20)
        status = self._provide(job, environment, folders, stop_requested)
        if self._closing:
            self._end_interrupted(job, "stopped")
            return
        if status is not None and status != 30:
            self._store.reach(job.job_id, status)
            self._store.finish(job.job_id, publish(folders, 0, with_outputs=False))
            discard_all_but_results(folders)
            return
        if status == 30:
            self._store.reach(job.job_id, 30)
            self._compute(job, environment, folders, stop_requested)
            if self._closing:
                self._end_interrupted(job, "stopped")
                return
        self._store.reach(job.job_id, 60)
        results = publish(folders, environment.limits(0).output)
        self._store.finish(job.job_id, results, status=70)
        discard_all_but_results(folders)

    def _provide(self, job, environment, folders, stop_requested):  # type: ignore[no-untyped-def]
        return None
