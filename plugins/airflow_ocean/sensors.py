"""The sensor that waits for a compute job, deferred to the triggerer or poking from the worker."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import PokeReturnValue, get_current_context
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowRuntimeError, AirflowSensorTimeout, AirflowSkipException
from airflow.sdk.execution_time.context import NEVER_EXPIRE

from airflow_ocean import metrics, parameters, timeline
from airflow_ocean.base_sensor import OceanBaseSensor, until_cleared
from airflow_ocean.c2d import errors
from airflow_ocean.links import OceanJobLink
from airflow_ocean.timeline import STATES_KEY
from airflow_ocean.triggers import DEADLINE_KEY, OceanComputeTrigger, task_state

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import timedelta

    from airflow.sdk import BaseOperatorLink, Context

    from airflow_ocean.c2d.jobs import Job

# States of a task that a user has marked, cleared or deleted while it ran on a worker. In any other one somebody goes on
# waiting: this try, or the next.
_GIVEN_UP = (None, "failed", "skipped", "removed", "restarting")
# Those of a next try that may have begun, because this one was cleared or because its worker was taken for dead.
_NEXT_TRY = ("scheduled", "queued", "running")


class OceanComputeSensor(OceanBaseSensor):
    """Wait until a compute job is over.

    The job is looked at once; if it still runs, the task defers and takes no worker until the job is over. A job that
    failed fails the task with the end of the algorithm's log in the message.

    Returns the job id; pushes ``status`` and ``duration`` (seconds), and when it defers ``deadline`` (seconds since 1970).
    While it waits and afterwards ``states`` has the job's time line, oldest first: ``[{"at": 1700000000.0, "state": 40,
    "text": "Running algorithm"}, …]`` with ``at`` the time when the state was first seen, in seconds since 1970. It grows
    with each new state, also while the task is deferred, and survives retries and restarts of the triggerer; clearing the
    task begins a new one. A state that lasts shorter than ``poke_interval`` may not be seen.

    Tasks that wait deferred for jobs of one wallet at one Provider share their requests: one each ``poke_interval``,
    however many they are.

    :param job_id: (templated) the job
    :param provider_url: (templated) the Provider that runs it, the connection's own by default
    :param consumer_address: (templated) the wallet that started it, the connection's own by default
    :param deferrable: wait on the triggerer; otherwise poke from the worker. A job takes minutes to days, so waiting
        deferred is the default here whatever ``[operators] default_deferrable`` says
    :param stop_on_kill: stop the job when the task is marked failed or skipped, is cleared, or times out while it waits;
        so does marking the whole run failed. Marking the task successful lets the job go on, as does a restart of a
        worker, a scheduler or a triggerer. Between two pokes in the mode ``reschedule``, and while no triggerer runs,
        there is nobody to stop the job
    :param show_log: show the job's log while it runs, in the task's log and its end in the XCom ``log_tail``, where the
        service has one before the job is over (an Ocean Node), and while the task waits deferred
    :param poke_interval: seconds between two looks at the job
    :param timeout: seconds to wait altogether, retries included; clearing the task begins anew
    :param ocean_conn_id: (templated) the connection of the wallet that started the job
    :param retries: how often to try again after a transient error
    :param retry_delay: the wait before the first retry, doubled with each further one
    :param retry_policy: which errors to retry; by default transient ones, while fatal ones fail at once
    """

    template_fields: Sequence[str] = ("ocean_conn_id", "job_id", "provider_url", "consumer_address")
    operator_extra_links: Collection[BaseOperatorLink] = (OceanJobLink(),)
    ui_color = "#e6f4f7"

    def __init__(
        self,
        *,
        job_id: str,
        provider_url: str | None = None,
        consumer_address: str | None = None,
        deferrable: bool = True,
        stop_on_kill: bool = False,
        show_log: bool = True,
        poke_interval: timedelta | float = 15,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.job_id = job_id
        self.provider_url = provider_url
        self.consumer_address = consumer_address
        self.deferrable = parameters.boolean("deferrable", deferrable)
        self.stop_on_kill = parameters.boolean("stop_on_kill", stop_on_kill)
        self.show_log = parameters.boolean("show_log", show_log)
        # Whether this process has pushed the job's states: a new try, and a new poke in the mode reschedule, has no XCom.
        self._shown = False
        # When Airflow has answered this try last, in seconds since 1970.
        self._heard = 0.0
        self._asked_to_stop = False

    def execute(self, context: Context) -> Any:
        """Look at the job, then defer, or poke until it is over."""
        try:
            return self._wait(context)
        except AirflowRuntimeError:
            # Airflow knows a cleared task no more; that may show here before a heartbeat finds it out.
            self.on_kill()
            raise

    def _wait(self, context: Context) -> Any:
        parameters.text("job_id", self.job_id)
        deadline = self.deadline(context)
        if not self.deferrable:
            return self._poke_until_finished(context, deadline)
        if (done := self.poke(context)) is not None and done.is_done:
            return done.xcom_value
        self.log.info("Waiting on the triggerer, for %.0f s at most", max(deadline - time.time(), 0))
        context["ti"].xcom_push(DEADLINE_KEY, deadline)
        self.defer(
            trigger=OceanComputeTrigger(
                job_id=self.job_id,
                provider_url=self._provider_url,
                consumer_address=self._consumer_address,
                deadline=deadline,
                poll_interval=self.poke_interval,
                ocean_conn_id=self.ocean_conn_id,
                stop_on_kill=self.stop_on_kill,
                states=self._states(context),
                show_log=self.show_log,
            ),
            method_name="execute_complete",
        )
        return None

    def poke(self, context: Context) -> PokeReturnValue:
        """Look at the job once."""
        from airflow_ocean.c2d.jobs import get_job

        job = get_job(self._provider_url, self._consumer_address, self.job_id)
        states = self._states(context)
        if timeline.is_news(job, states) or not self._shown:
            states = self._push_states(context, [timeline.seen(job)])
            self.log.info("Compute %s, after %.0f s", job.describe(), timeline.elapsed(job, states))
        if not job.is_finished:
            return PokeReturnValue(is_done=False)
        return PokeReturnValue(
            is_done=True, xcom_value=self._conclude(context, job.text, job.succeeded, job.duration)
        )

    def execute_complete(self, context: Context, event: dict[str, Any]) -> str:
        """Go on after the trigger's event.

        :raises FatalError: of the type that ended the trigger
        :raises JobFailedError: with the end of the algorithm's log
        :raises AirflowSensorTimeout: when the deadline passed first
        """
        # A trigger that was begun anew by another triggerer may not know all that the first one saw, and wrote.
        instance = context["ti"]
        written = instance.xcom_pull(
            key=STATES_KEY, task_ids=instance.task_id, map_indexes=instance.map_index
        )
        self._push_states(context, [*(written or []), *event.get("states", ())])
        if event["event"] == "timeout":
            self._give_up()
        if event["event"] == "error":
            self._fail(errors.fatal_error(event["type"], event["message"]))
        return self._conclude(context, event["status"], event["succeeded"], event["duration"])

    def on_kill(self) -> None:
        """Stop the job, if told to, when a user gives the task up while it runs on a worker.

        Airflow calls this as well when the worker is shut down or loses the API server; the job then goes on.
        """
        if self.stop_on_kill and not self._asked_to_stop and self._is_given_up():
            self._stop_job()

    # ------------------------------------------------------------------

    @property
    def _provider_url(self) -> str:
        return parameters.optional_url("provider_url", self.provider_url) or self.hook.settings.provider_url

    @property
    def _consumer_address(self) -> str:
        given = parameters.optional_address("consumer_address", self.consumer_address)
        return given or str(self.hook.client.address)

    def _states(self, context: Context) -> list[dict[str, Any]]:
        """Return what this task has seen of the job, in its earlier tries too: Airflow deletes a try's XComs."""
        store: Any = context["task_state_store"]
        states: list[dict[str, Any]] = store.get(until_cleared("states", context)) or []
        self._heard = time.time()
        return states

    def _push_states(self, context: Context, more: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Add to what was seen of the job, and return it all."""
        store: Any = context["task_state_store"]
        states = timeline.merged(self._states(context), more)
        store.set(until_cleared("states", context), states, retention=NEVER_EXPIRE)
        context["ti"].xcom_push(STATES_KEY, states)
        self._shown = True
        return states

    def _is_given_up(self) -> bool:
        """Say whether a user has given the task up, as far as Airflow tells."""
        try:
            context = get_current_context()
        except RuntimeError:  # called without Airflow around it
            return True
        try:
            state = task_state(context["ti"])
        except AirflowRuntimeError as error:
            self.log.warning("Cannot ask why the task is killed; job %s goes on: %s", self.job_id, error)
            return False
        return state in _GIVEN_UP or (state in _NEXT_TRY and self._is_cleared(context))

    def _is_cleared(self, context: Context) -> bool:
        """Say whether a user has cleared this try, and the next one is on its way already.

        Airflow knows this try no more then. Neither does it when it took the worker for dead, but only after it has not
        heard of it for long.
        """
        if time.time() - self._heard > conf.getint(
            "scheduler", "task_instance_heartbeat_timeout", fallback=300
        ):
            return False
        try:
            self._states(context)
        except AirflowRuntimeError as error:
            return (error.error.detail or {}).get("status_code") == HTTPStatus.NOT_FOUND
        return False

    def _poke_until_finished(self, context: Context, deadline: float) -> Any:
        try:
            return self.poke_until(deadline, context)
        except (AirflowSensorTimeout, AirflowSkipException) as error:
            # A job that is over is left as it is: with soft_fail its failure ends here, too.
            is_over = isinstance(error, AirflowSensorTimeout) or time.time() >= deadline
            if self.stop_on_kill and is_over:
                self._stop_job()
            raise

    def _conclude(self, context: Context, status: str, succeeded: bool, duration: float | None) -> str:
        metrics.job_ended(succeeded, duration)
        if not succeeded:
            with self.hook.get_client() as client:
                job: Job = client.jobs.get(self.job_id, self._provider_url)
                log_tail = client.jobs.log_tail(job, self._provider_url)
            end = f"the end of its log:\n{log_tail}" if log_tail else "it left no log"
            self._fail(errors.JobFailedError(f"{job.describe()}; {end}"))
        self.log.info("Compute job %s is over: %s, after %.1f s", self.job_id, status, duration or 0.0)
        context["ti"].xcom_push("status", status)
        context["ti"].xcom_push("duration", duration)
        return self.job_id

    def _give_up(self) -> NoReturn:
        if self.stop_on_kill:
            self._stop_job()
        raise AirflowSensorTimeout(
            f"compute job {self.job_id} at {self._provider_url} is not over after {self.timeout:.0f} s; "
            + ("it was stopped" if self.stop_on_kill else "it goes on: raise timeout, or stop it")
        )

    def _fail(self, error: Exception) -> NoReturn:
        """Raise, or skip where Airflow's sensors do so for errors of its own."""
        if self.soft_fail or self.never_fail:
            raise AirflowSkipException(f"skipped instead of failed: {error}") from error
        raise error

    def _stop_job(self) -> None:
        self._asked_to_stop = True
        try:
            with self.hook.get_client() as client:
                job = client.jobs.stop(self.job_id, self._provider_url)
        except Exception:
            self._asked_to_stop = False
            raise
        self.log.info("Asked for the end of %s", job.describe())
