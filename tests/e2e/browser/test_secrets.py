"""What a person can read of a run, a finished and a failed one: everything is searched for keys, signatures and passwords."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import TYPE_CHECKING

import httpx
import pytest

from include.localnet import accounts
from tests.e2e.browser.conftest import DATASET, KEYSTORE_PASSWORD, every_route
from tests.support.leaks import leaks
from tests.support.running_airflow import COMPONENTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from include.demo.airflow import Airflow
    from tests.support.running_airflow import DagRun

pytestmark = [pytest.mark.e2e, pytest.mark.both_stacks, pytest.mark.timeout(1500)]

KEY = accounts.ALICE.private_key
SIGNATURE = "0x" + "5a" * 64 + "1c"


@pytest.fixture(scope="module")
def reader(ui_airflow: Airflow, passwords: dict[str, str]) -> Iterator[httpx.Client]:
    """The administrator, who may read most."""
    with httpx.Client(base_url=ui_airflow.url, trust_env=False, timeout=60) as http:
        answer = http.post("/auth/token", json={"username": "admin", "password": passwords["admin"]})
        token = answer.json()["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        http.cookies.set("_token", token)
        yield http


def answers(reader: httpx.Client, run: DagRun) -> dict[str, str]:
    """Return all that the REST API and the pages say of a run, by address."""
    found: dict[str, str] = {}

    def read(path: str, **query: str | int | bool) -> httpx.Response:
        answer = reader.get(path, params=query)
        answer.raise_for_status()
        found[path] = answer.text
        return answer

    read(run.path)
    read(f"{run.path}/hitlDetails")
    for task in read(f"{run.path}/taskInstances").json()["task_instances"]:
        path = f"{run.path}/taskInstances/{task['task_id']}"
        read(f"{path}/links")
        for entry in read(f"{path}/xcomEntries").json()["xcom_entries"]:
            read(f"{path}/xcomEntries/{entry['key']}")
        for attempt in read(f"{path}/tries").json()["task_instances"]:
            # A task that was skipped, or never got a worker, has no log.
            if attempt["start_date"] is not None:
                read(f"{path}/logs/{attempt['try_number']}", full_content=True)
    for address in every_route(run):
        if "/plots/" not in address and "/artifacts/" not in address:
            read(address)
    read("/ocean/runs", dag=run.dag_id)
    listed = read("/api/v2/connections", limit=1000).json()["connections"]
    for connection in listed:
        read(f"/api/v2/connections/{connection['connection_id']}")
    read("/api/v2/eventLogs", limit=1000)
    return found


def files(airflow: Airflow) -> dict[str, str]:
    """Return all that is in the logs' and the artifacts' folders, and in the database."""
    home = airflow.home
    found = {
        str(path.relative_to(home)): path.read_bytes().decode("latin-1")
        for folder in ("logs", "artifacts")
        for path in (home / folder).rglob("*")
        if path.is_file()
    }
    with contextlib.closing(
        sqlite3.connect(f"file:{home / 'airflow.db'}?mode=ro", uri=True, timeout=60)
    ) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            rows = db.execute(f'SELECT * FROM "{table}"')
            found[f"table {table}"] = "\n".join(
                value.hex() + value.decode("latin-1") if isinstance(value, bytes) else str(value)
                for row in rows
                for value in row
            )
    return found


def test_nothing_of_a_run_is_secret(
    ui_airflow: Airflow, reader: httpx.Client, run: DagRun, failed_run: DagRun
) -> None:
    """No key, no signature and no password is in anything that Airflow shows or keeps in clear."""
    texts = {**answers(reader, failed_run), **answers(reader, run), **files(ui_airflow)}
    # It was read: each task's log, XCom and templates, the pages, the components' logs.
    for task_id, task in run.tasks().items():
        path = f"{run.path}/taskInstances/{task_id}"
        assert f"{path}/logs/1" in texts
        assert f"logs/dag_id={run.dag_id}/run_id={run.run_id}/task_id={task_id}/attempt=1.log" in texts
        assert task["rendered_fields"]["ocean_conn_id"] in texts[f"{run.path}/taskInstances"]
    assert f"{run.path}/taskInstances/pay_for_compute/xcomEntries/order" in texts
    assert f"{failed_run.path}/taskInstances/pay/logs/1" in texts
    assert sum(DATASET in text for source, text in texts.items() if source.startswith("/ocean/")) == 2
    assert all(texts[f"logs/{component}.log"] for component in COMPONENTS)
    assert "ocean_bob" in texts["table connection"]
    assert '"***"' in texts["/api/v2/connections/ocean_bob"]
    assert leaks(texts, [KEYSTORE_PASSWORD]) == []


def test_a_secret_would_be_found_wherever_it_is(
    ui_airflow: Airflow, reader: httpx.Client, failed_run: DagRun
) -> None:
    """What the test above reads is searched: a secret in an XCom, a log and a component's log is found there."""
    entries = f"{failed_run.path}/taskInstances/pay/xcomEntries"
    log = next((ui_airflow.home / "logs").glob(f"dag_id={failed_run.dag_id}/**/attempt=1.log"))
    triggerer = ui_airflow.log("triggerer")
    planted = {"key": "xcom", "value": {"said": KEY.upper()}, "map_index": -1}
    sizes = {path: path.stat().st_size for path in (log, triggerer)}
    reader.post(entries, json=planted).raise_for_status()
    try:
        with log.open("a") as file:
            file.write(json.dumps({"event": f"url?nonce=1&signature={SIGNATURE}", "level": "info"}) + "\n")
        with triggerer.open("a") as file:
            file.write(f"opened with {KEYSTORE_PASSWORD}\n")
        found = leaks({**answers(reader, failed_run), **files(ui_airflow)}, [KEYSTORE_PASSWORD])
    finally:
        reader.delete(f"{entries}/xcom").raise_for_status()
        for path, size in sizes.items():
            with path.open("r+b") as file:
                file.truncate(size)
    sources = {
        line.rpartition(": ")[0] if "signature" not in line else line.split(": a sig")[0] for line in found
    }
    assert sources >= {
        f"{entries}/xcom",
        "table xcom",
        f"{failed_run.path}/taskInstances/pay/logs/1",
        str(log.relative_to(ui_airflow.home)),
        "logs/triggerer.log",
    }


@pytest.mark.parametrize(
    "text",
    [
        *(form for account in accounts.ACCOUNTS for form in (account.private_key, account.private_key[2:])),
        KEY.upper(),
        f"https://rpc.example/v3/{KEY[2:].upper()}?",
        KEYSTORE_PASSWORD,
        SIGNATURE,
        SIGNATURE[2:].upper(),
        json.dumps({"signature": SIGNATURE}),
        json.dumps(json.dumps({"signature": SIGNATURE})),
        f"{{'signature': '{SIGNATURE}'}}",
        f"GET /compute?signature={SIGNATURE}&nonce=1",
        f"signature=0x{'5a' * 65}",
    ],
)
def test_each_form_of_a_secret_is_found(text: str) -> None:
    assert len(leaks({"a log": f"before {text} after"}, [KEYSTORE_PASSWORD])) >= 1


@pytest.mark.parametrize(
    "text",
    [
        accounts.ALICE.address,
        "0x" + "5a" * 32,  # a transaction's hash
        "0x" + "5a" * 31 + "5b" + "5a" * 200 + "1c",  # what a contract is called with
        "0x04" + "5a" * 64,  # a public key
        '"signature": "***"',
    ],
)
def test_what_is_public_is_not_taken_for_a_secret(text: str) -> None:
    assert leaks({"a log": text}, [KEYSTORE_PASSWORD]) == []
