"""What a job's state means."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_ocean.c2d.errors import InvalidInputError, JobNotFoundError
from airflow_ocean.c2d.jobs import parse_job, select_job

OUTPUT = {"filename": "result", "filesize": 1200, "type": "output"}
LOG = {"filename": "algorithm.log", "filesize": 30, "type": "algorithmLog"}


def answer(**fields: Any) -> dict[str, Any]:
    """Return a status as upstream's operator-service words it."""
    return {
        "agreementId": "0xAB",
        "jobId": "j1",
        "owner": "0x1",
        "status": 70,
        "statusText": "Job completed",
        "dateCreated": "1700000000.50",
        "dateFinished": "1700000060.75",
        "results": [OUTPUT, LOG],
        "algoDID": "did:op:a",
        "inputDID": ["did:op:d"],
        **fields,
    }


@pytest.mark.parametrize(
    ("fields", "finished", "succeeded", "words"),
    [
        ({}, True, True, "completed with 1 output"),
        ({"status": "70"}, True, True, "completed"),
        (
            {"status": 40, "statusText": "Running algorithm", "dateFinished": None, "results": []},
            False,
            False,
            "Running",
        ),
        # a state of 70 alone is not success: upstream writes it after a failing algorithm, too
        ({"results": [LOG]}, True, False, "ended without output"),
        ({"results": [{**OUTPUT, "filesize": 0}, LOG]}, True, False, "ended without output"),
        ({"results": []}, True, False, "ended without output"),
        (
            {"status": 31, "statusText": "Data provisioning failed", "results": []},
            True,
            False,
            "failed: Data provisioning",
        ),
        ({"status": 32, "statusText": None, "results": []}, True, False, "failed: Algorithm provisioning"),
        # not over before dateFinished is set, whatever the state says
        ({"dateFinished": None}, False, False, "Job completed"),
    ],
)
def test_meaning(fields: dict[str, Any], finished: bool, succeeded: bool, words: str) -> None:
    job = parse_job(answer(**fields))
    assert (job.is_finished, job.succeeded) == (finished, succeeded)
    assert words in job.describe()


def test_details() -> None:
    job = parse_job(answer())
    assert job.duration == 60.25
    assert [(file.index, file.name, file.type, file.size) for file in job.results] == [
        (0, "result", "output", 1200),
        (1, "algorithm.log", "algorithmLog", 30),
    ]
    assert (job.algorithm_did, job.dataset_dids) == ("did:op:a", ("did:op:d",))


def test_half_a_surrogate_pair_can_be_kept() -> None:
    """Python spells a file name that is no UTF-8 so, and JSON hands it on."""
    job = parse_job(answer(statusText="caf\udce9", results=[{**OUTPUT, "filename": "caf\udce9.csv"}]))
    assert job.results[0].name.encode() == rb"caf\udce9.csv"
    assert job.text.encode() == rb"caf\udce9"


@pytest.mark.parametrize(
    "broken",
    [
        None,
        [],
        "x",
        {},
        answer(status="done"),
        answer(dateCreated="yesterday"),
        answer(dateFinished=1.7e18),  # in nanoseconds
        answer(dateFinished=1e300),
        answer(results=5),
        answer(results=[5]),
    ],
)
def test_an_unknown_form_is_an_error(broken: Any) -> None:
    with pytest.raises(InvalidInputError, match="unknown form"):
        parse_job(broken)


def test_an_unknown_job_is_an_error() -> None:
    with pytest.raises(JobNotFoundError, match="http://p knows no job j2"):
        select_job([parse_job(answer())], "j2", "http://p")
