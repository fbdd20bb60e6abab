"""The sensor and its trigger, against a Provider that answers as it is told."""

from __future__ import annotations

import contextlib
import time
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import (
    AirflowRescheduleException,
    AirflowRuntimeError,
    AirflowSensorTimeout,
    AirflowSkipException,
    ErrorType,
    TaskDeferred,
)
from airflow.sdk.execution_time.comms import ErrorResponse
from airflow.sdk.execution_time.context import set_current_context
from airflow.sdk.module_loading import import_string
from airflow.sdk.serde import deserialize, serialize

from airflow_ocean import sensors, triggers
from airflow_ocean.c2d.errors import (
    FatalError,
    ServiceUnavailableError,
)
from airflow_ocean.c2d.jobs import parse_job
from airflow_ocean.hooks import OceanHook
from airflow_ocean.operators.escrow import OceanSettlementSensor
from airflow_ocean.sensors import OceanComputeSensor
from airflow_ocean.triggers import OceanComputeTrigger
from tests.unit.airflow_ocean.conftest import CONN_ID, FINISHED_JOB, KEY, RUNNING_JOB

OWNER = RUNNING_JOB["owner"]


def make_trigger(provider, **arguments):
    return OceanComputeTrigger(
        **{
            "job_id": "job-1",
            "provider_url": provider.url,
            "consumer_address": OWNER,
            "deadline": time.time() + 60,
            "poll_interval": 0.1,
            "ocean_conn_id": CONN_ID,
            **arguments,
        }
    )


async def only_event(trigger):
    events = [event.payload async for event in trigger.run()]
    assert len(events) == 1
    return events[0]


def states_of(content):
    """The states of a time line, whose times must not fall."""
    times = [entry["at"] for entry in content["states"]]
    assert times == sorted(times)
    assert all(entry["text"] for entry in content["states"])
    return [entry["state"] for entry in content["states"]]


async def test_the_trigger_ends_with_the_finished_job(scripted_provider):
    scripted_provider.script({"status": 1}, {}, FINISHED_JOB)
    event = await only_event(make_trigger(scripted_provider))
    assert states_of(event) == [1, 40, 70]
    del event["states"]
    assert event == {
        "event": "finished",
        "job_id": "job-1",
        "status": "Job completed",
        "succeeded": True,
        "duration": 12.5,
    }
    assert scripted_provider.asked == 3


@pytest.mark.parametrize("failure", [503, 500, (429, {"Retry-After": "0"})])
async def test_the_trigger_waits_transient_errors_out(scripted_provider, failure):
    scripted_provider.script({}, failure, failure, FINISHED_JOB)
    assert (await only_event(make_trigger(scripted_provider)))["event"] == "finished"
    assert scripted_provider.asked == 4


async def test_the_trigger_goes_on_while_nothing_listens(scripted_provider):
    trigger = make_trigger(scripted_provider, provider_url="http://127.0.0.1:2", deadline=time.time() + 0.1)
    assert await only_event(trigger) == {"event": "timeout", "job_id": "job-1", "states": []}


async def test_the_trigger_gives_up_at_its_deadline(scripted_provider):
    scripted_provider.script({})
    trigger = make_trigger(scripted_provider, deadline=time.time() + 0.05, poll_interval=3600)
    event = await only_event(trigger)
    assert (event["event"], states_of(event)) == ("timeout", [40])
    # At once, and at the deadline if that has not passed meanwhile, however long the interval is.
    assert scripted_provider.asked in (1, 2)


async def test_the_trigger_looks_once_when_its_deadline_passed_while_no_triggerer_ran(scripted_provider):
    scripted_provider.script(FINISHED_JOB)
    assert (await only_event(make_trigger(scripted_provider, deadline=1.0)))["event"] == "finished"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"jobId": "job-2"}, "JobNotFoundError"),
        ({"status": "soon"}, "UnreadableAnswerError"),
        (400, "ServiceAnswerError"),
        (403, "NotAllowedError"),
    ],
)
async def test_the_trigger_ends_with_what_is_fatal(scripted_provider, answer, error):
    scripted_provider.script(answer)
    event = await only_event(make_trigger(scripted_provider))
    assert (event["event"], event["type"]) == ("error", error)
    assert event["message"]


def test_the_trigger_survives_a_move_to_another_triggerer(scripted_provider):
    path, arguments = make_trigger(scripted_provider, stop_on_kill=True, deadline=5.0).serialize()
    again = import_string(path)(**deserialize(serialize(arguments)))
    assert again.serialize() == (path, arguments)


def test_the_trigger_never_holds_the_key(connection, context, scripted_provider):
    scripted_provider.script({})
    connection({"provider_url": scripted_provider.url})
    with pytest.raises(TaskDeferred) as deferred:
        make_sensor(stop_on_kill=True).execute(context)
    assert KEY[2:] not in str(deferred.value.trigger.serialize()) + str(vars(deferred.value.trigger))


def make_sensor(**arguments):
    return OceanComputeSensor(
        **{"task_id": "wait", "ocean_conn_id": CONN_ID, "job_id": "job-1", "poke_interval": 0.1, **arguments}
    )


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_job_that_is_over_needs_no_waiting(connection, context, scripted_provider, deferrable):
    scripted_provider.script(FINISHED_JOB)
    connection({"provider_url": scripted_provider.url})
    assert make_sensor(deferrable=deferrable).execute(context) == "job-1"
    assert states_of(context["ti"].xcoms) == [70]
    del context["ti"].xcoms["states"]
    assert context["ti"].xcoms == {"status": "Job completed", "duration": 12.5}
    assert scripted_provider.asked == 1


def test_the_sensor_defers_with_all_that_the_trigger_needs(connection, context, scripted_provider):
    scripted_provider.script({})
    connection({"provider_url": scripted_provider.url})
    before = time.time()
    with pytest.raises(TaskDeferred) as deferred:
        make_sensor(timeout=100).execute(context)
    assert deferred.value.method_name == "execute_complete"
    arguments = deferred.value.trigger.serialize()[1]
    assert before + 100 <= arguments.pop("deadline") <= time.time() + 100
    assert arguments.pop("states") == context["ti"].xcoms["states"] != []
    assert arguments == {
        "job_id": "job-1",
        "provider_url": scripted_provider.url,
        # The connection's wallet.
        "consumer_address": OWNER,
        "show_log": True,
        "poll_interval": 0.1,
        "ocean_conn_id": CONN_ID,
        "stop_on_kill": False,
    }


def test_the_deadline_is_the_first_trys_until_the_task_is_cleared(connection, context, scripted_provider):
    scripted_provider.script({})
    connection({"provider_url": scripted_provider.url})

    def deadline():
        with pytest.raises(TaskDeferred) as deferred:
            make_sensor(timeout=100).execute(context)
        announced = context["ti"].xcoms["deadline"]
        assert deferred.value.trigger.deadline == announced
        return announced

    first = deadline()
    assert deadline() == first
    context["ti"].max_tries += 1
    assert deadline() > first


def test_the_time_line_survives_retries_until_the_task_is_cleared(connection, context, scripted_provider):
    scripted_provider.script({"status": 1}, {"status": 20}, {"status": 20}, {})
    connection({"provider_url": scripted_provider.url})
    seen = []
    for _try in range(3):
        context["ti"].xcoms.clear()  # as Airflow does before each try
        with pytest.raises(TaskDeferred):
            make_sensor().execute(context)
        seen.append(states_of(context["ti"].xcoms))
    assert seen == [[1], [1, 20], [1, 20]]
    context["ti"].max_tries += 1
    with pytest.raises(TaskDeferred):
        make_sensor().execute(context)
    assert states_of(context["ti"].xcoms) == [40]


def test_the_time_line_holds_what_each_triggerer_saw(connection, context):
    connection()
    begun, earlier, later = (
        {"at": at, "state": state, "text": f"state {state}"} for at, state in ((1.0, 1), (2.0, 20), (4.0, 40))
    )
    context["ti"].xcoms["states"] = [begun, earlier]
    # The second triggerer knows what the task knew when it deferred, and sees the state that the first one saw.
    seen = [begun, {**earlier, "at": 3.0}, later]
    event = {"event": "timeout", "job_id": "job-1", "states": seen}
    with pytest.raises(AirflowSensorTimeout):
        make_sensor(provider_url="http://127.0.0.1:2").execute_complete(context, event)
    assert context["ti"].xcoms["states"] == [begun, earlier, later]


def test_a_retry_pokes_no_longer_than_to_the_first_deadline(connection, context, scripted_provider):
    scripted_provider.script({})
    connection({"provider_url": scripted_provider.url})
    with pytest.raises(TaskDeferred):
        make_sensor(timeout=0).execute(context)
    with pytest.raises(AirflowSensorTimeout):
        make_sensor(deferrable=False, timeout=3600).execute(context)


def test_neither_does_a_retry_that_is_rescheduled(connection, context, scripted_provider):
    """Airflow counts from the first poke of each try in that mode, so this one has all of its hour left."""
    scripted_provider.script({})
    connection({"provider_url": scripted_provider.url})
    context["ti"].get_first_reschedule_date = lambda _context: None
    patient = {"deferrable": False, "mode": "reschedule", "timeout": 3600}
    with pytest.raises(AirflowRescheduleException):
        make_sensor(**patient).execute(context)
    context["ti"].max_tries += 1
    with pytest.raises(AirflowSensorTimeout):
        make_sensor(**patient | {"timeout": 0}).execute(context)
    with pytest.raises(AirflowSensorTimeout):
        make_sensor(**patient).execute(context)
    with pytest.raises(AirflowSkipException):
        make_sensor(**patient, soft_fail=True).execute(context)


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_a_job_is_stopped_when_time_is_over_also_where_that_only_skips(
    connection, context, scripted_provider, monkeypatch, mode
):
    scripted_provider.script({})
    connection({"provider_url": scripted_provider.url})
    context["ti"].get_first_reschedule_date = lambda _context: None
    stopped = []
    monkeypatch.setattr(OceanComputeSensor, "_stop_job", lambda sensor: stopped.append(sensor.job_id))
    impatient = {"deferrable": False, "mode": mode, "timeout": 0, "soft_fail": True, "stop_on_kill": True}
    with pytest.raises(AirflowSkipException):
        make_sensor(**impatient).execute(context)
    assert stopped == ["job-1"]


def test_a_settlement_waits_out_what_may_pass(connection, context, scripted_provider, capsys):
    scripted_provider.script(503)
    connection({"provider_url": scripted_provider.url})
    sensor = OceanSettlementSensor(task_id="settle", ocean_conn_id=CONN_ID, job_id="job-1")
    assert not sensor.poke(context)
    assert "trying again in 120 s" in capsys.readouterr().out


def test_waiting_needs_no_key_when_provider_and_consumer_are_given(connection, context, scripted_provider):
    scripted_provider.script(FINISHED_JOB)
    connection(password="")
    sensor = make_sensor(provider_url=scripted_provider.url, consumer_address=OWNER)
    assert sensor.execute(context) == "job-1"


def test_poking_until_the_job_is_over(connection, context, scripted_provider):
    scripted_provider.script({"status": 20}, {}, FINISHED_JOB)
    connection({"provider_url": scripted_provider.url})
    assert make_sensor(deferrable=False).execute(context) == "job-1"
    assert scripted_provider.asked == 3
    assert states_of(context["ti"].xcoms) == [20, 40, 70]


def test_poking_times_out(connection, context, scripted_provider):
    scripted_provider.script({})
    connection({"provider_url": scripted_provider.url})
    with pytest.raises(AirflowSensorTimeout):
        make_sensor(deferrable=False, timeout=0.05).execute(context)


def test_poking_leaves_transient_errors_to_the_retries(connection, context, scripted_provider):
    scripted_provider.script(503)
    connection({"provider_url": scripted_provider.url})
    with pytest.raises(ServiceUnavailableError):
        make_sensor(deferrable=False).execute(context)


@pytest.mark.parametrize("event_type", ["JobNotFoundError", "InvalidInputError", "ServiceAnswerError"])
def test_after_a_fatal_event_the_task_fails_with_its_type(connection, context, event_type):
    connection()
    event = {"event": "error", "job_id": "job-1", "type": event_type, "message": "what happened"}
    with pytest.raises(FatalError, match="what happened") as failure:
        make_sensor().execute_complete(context, event)
    assert type(failure.value).__name__ == event_type


@pytest.mark.parametrize("event_type", ["FatalError", "ServiceUnavailableError", "Any", "NewerError"])
def test_after_an_event_of_another_version_the_task_fails_for_good(connection, context, event_type):
    connection()
    event = {"event": "error", "job_id": "job-1", "type": event_type, "message": "what happened"}
    with pytest.raises(FatalError, match="what happened"):
        make_sensor().execute_complete(context, event)


def test_after_the_deadline_the_task_times_out(connection, context):
    connection()
    with pytest.raises(AirflowSensorTimeout, match="job-1.*it goes on"):
        make_sensor().execute_complete(context, {"event": "timeout", "job_id": "job-1"})


@pytest.mark.parametrize("flag", ["soft_fail", "never_fail"])
def test_a_failure_is_skipped_where_airflow_skips(connection, context, flag):
    connection()
    event = {"event": "error", "job_id": "job-1", "type": "JobNotFoundError", "message": "gone"}
    with pytest.raises(AirflowSkipException, match="gone"):
        make_sensor(**{flag: True}).execute_complete(context, event)


class StoppedJobs:
    """Keeps which jobs were stopped, in the place of a client that would sign the request."""

    def __init__(self, *failures):
        self.failures = list(failures)
        self.stopped = []

    def stop(self, job_id, _provider_url):
        if self.failures:
            raise self.failures.pop(0)
        self.stopped.append(job_id)
        return parse_job({**RUNNING_JOB, "jobId": job_id})


@pytest.fixture
def stopping(monkeypatch, connection):
    """What Airflow says of the task and its XCom, and the jobs that are stopped."""

    def prepare(*failures, state=None, deadline=None):
        connection()
        jobs = StoppedJobs(*failures)
        client = SimpleNamespace(jobs=jobs)

        async def announced(**_ids):
            return deadline

        monkeypatch.setattr(OceanHook, "get_client", lambda _hook: contextlib.nullcontext(client))
        monkeypatch.setattr(triggers, "task_state", lambda _instance: state)
        monkeypatch.setattr(sensors, "task_state", lambda _instance: state)
        monkeypatch.setattr(triggers.BaseXCom, "aget_one", announced)
        monkeypatch.setattr(triggers, "_STOP_PAUSES", (0.0, 0.0))
        return jobs

    return prepare


INSTANCE = SimpleNamespace(dag_id="a_dag", run_id="a_run", task_id="wait", map_index=-1)
DEADLINE = 2e9


async def kill_trigger(scripted_provider, **arguments):
    trigger = make_trigger(scripted_provider, deadline=DEADLINE, stop_on_kill=True, **arguments)
    # As the triggerer sets it; Airflow's own setter looks for more than these ids.
    trigger._task_instance = INSTANCE
    await trigger.on_kill()


@pytest.mark.parametrize("state", [None, "failed", "skipped", "removed", "scheduled", "queued", "running"])
async def test_a_killed_trigger_stops_the_job_of_a_task_that_was_given_up(stopping, scripted_provider, state):
    jobs = stopping(state=state)
    await kill_trigger(scripted_provider)
    assert jobs.stopped == ["job-1"]


async def test_a_killed_trigger_stops_the_job_of_a_cleared_task_that_waits_again(stopping, scripted_provider):
    jobs = stopping(state="deferred", deadline=DEADLINE + 1)
    await kill_trigger(scripted_provider)
    assert jobs.stopped == ["job-1"]


@pytest.mark.parametrize("state", ["success", "deferred", "up_for_retry"])
async def test_a_killed_trigger_leaves_the_job_that_is_still_wanted(stopping, scripted_provider, state):
    jobs = stopping(state=state, deadline=DEADLINE)
    await kill_trigger(scripted_provider)
    assert jobs.stopped == []


async def test_a_killed_trigger_tries_again_when_the_provider_is_away(stopping, scripted_provider):
    away = ServiceUnavailableError("away")
    jobs = stopping(away, away, state="failed")
    await kill_trigger(scripted_provider)
    assert jobs.stopped == ["job-1"]
    jobs = stopping(away, away, away, state="failed")
    with pytest.raises(ServiceUnavailableError):
        await kill_trigger(scripted_provider)


@pytest.mark.parametrize(
    ("state", "stopped"),
    [
        ("failed", True),
        ("restarting", True),
        (None, True),
        ("skipped", True),
        ("running", False),
        ("success", False),
        ("up_for_retry", False),
        ("queued", False),
    ],
)
def test_a_killed_worker_stops_the_job_only_of_a_task_that_was_given_up(stopping, context, state, stopped):
    jobs = stopping(state=state)
    with set_current_context(context):
        make_sensor(deferrable=False, stop_on_kill=True, provider_url="http://127.0.0.1:2").on_kill()
    assert jobs.stopped == (["job-1"] if stopped else [])


def test_a_killed_worker_leaves_the_job_when_airflow_does_not_answer(stopping, context, monkeypatch):
    jobs = stopping()

    def no_answer(_instance):
        raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR))

    monkeypatch.setattr(sensors, "task_state", no_answer)
    with set_current_context(context):
        make_sensor(deferrable=False, stop_on_kill=True).on_kill()
    assert jobs.stopped == []


def api_error(status_code):
    return AirflowRuntimeError(
        ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": status_code})
    )


@pytest.mark.parametrize(
    ("status_code", "state", "stopped"),
    [
        # A cleared task whose next try is on its way: Airflow knows this one no more.
        (404, None, True),
        (404, "scheduled", True),
        (404, "running", True),
        (404, "up_for_retry", False),
        (404, "success", False),
        (503, "running", False),
    ],
)
def test_a_poking_task_that_airflow_knows_no_more_stops_its_job_when_it_was_cleared(
    stopping, scripted_provider, connection, context, monkeypatch, status_code, state, stopped
):
    jobs = stopping(state=state)
    scripted_provider.script(RUNNING_JOB)
    connection({"provider_url": scripted_provider.url})
    store = context["task_state_store"]

    def get(key, known=store.get):
        if scripted_provider.asked > 1:
            raise api_error(status_code)
        return known(key)

    monkeypatch.setattr(store, "get", get)
    sensor = make_sensor(deferrable=False, stop_on_kill=True, consumer_address=OWNER)
    with set_current_context(context), pytest.raises(AirflowRuntimeError):
        sensor.execute(context)
    with set_current_context(context):
        sensor.on_kill()  # a heartbeat may find it out in the same moment
    assert jobs.stopped == (["job-1"] if stopped else [])


def test_a_worker_that_was_away_for_long_does_not_take_its_successor_for_a_cleared_task(
    stopping, scripted_provider, connection, context, monkeypatch
):
    jobs = stopping(state="running")
    scripted_provider.script(RUNNING_JOB)
    connection({"provider_url": scripted_provider.url})
    sensor = make_sensor(deferrable=False, stop_on_kill=True, consumer_address=OWNER)
    sensor.poke(context)
    monkeypatch.setattr(
        context["task_state_store"], "get", lambda _key: (_ for _ in ()).throw(api_error(404))
    )
    later = time.time() + 301
    monkeypatch.setattr(sensors.time, "time", lambda: later)
    with set_current_context(context):
        sensor.on_kill()
    assert jobs.stopped == []


def test_a_stop_that_did_not_get_through_is_asked_for_again(stopping, context):
    jobs = stopping(ServiceUnavailableError("away"), state="failed")
    sensor = make_sensor(deferrable=False, stop_on_kill=True, provider_url="http://127.0.0.1:2")
    with set_current_context(context):
        with pytest.raises(ServiceUnavailableError):
            sensor.on_kill()
        for _ in range(2):
            sensor.on_kill()
    assert jobs.stopped == ["job-1"]
