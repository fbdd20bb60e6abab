"""The connection type in Airflow's REST API, as its UI uses it: the form, the Test button, and what is never shown."""

from __future__ import annotations

import json
import logging

import pytest
from eth_account import Account
from fastapi.testclient import TestClient

from airflow_ocean.c2d.network import known_networks
from include.localnet.accounts import BOB
from include.localnet.cli import exports
from tests.support.airflow import migrate_database

CONN_ID = "ocean_form"
API_KEY = "SeCrEtApIkEy"


@pytest.fixture(scope="module")
def api():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__CORE__TEST_CONNECTION", "Enabled")
        patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "the secret of this test " * 4)
        migrate_database()
        from airflow.api_fastapi.app import create_app
        from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

        app = create_app(apps="core")
        token = app.state.auth_manager.generate_jwt(SimpleAuthManagerUser(username="admin", role="admin"))
        yield TestClient(app, headers={"Authorization": f"Bearer {token}"})


@pytest.fixture
def form(localnet):
    """What the form sends for Bob on the local network: a text for each field, empty for what was left out."""
    bob = json.loads(exports(localnet)["AIRFLOW_CONN_OCEAN_BOB"])
    extra = {"max_fee_gwei": "", "max_cost": "", "confirmations": None, "keystore_path": "", **bob["extra"]}
    return {
        "connection_id": CONN_ID,
        "conn_type": "ocean",
        "host": bob["host"],
        "password": bob["password"],
        "extra": json.dumps(extra),
    }


def changed(form, *, extra=None, **fields):
    return {**form, **fields, "extra": json.dumps({**json.loads(form["extra"]), **(extra or {})})}


def press_test(api, body, caplog):
    with caplog.at_level(logging.DEBUG):
        answer = api.post("/api/v2/connections/test", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["status"], answer.json()["message"]


def test_the_form_asks_for_what_ocean_needs_and_nothing_else(api):
    answer = api.get("/ui/connections/hook_meta")
    (ocean,) = [entry for entry in answer.json() if entry["connection_type"] == "ocean"]
    assert ocean["hook_name"] == "Ocean"
    standard = ocean["standard_fields"]
    assert {name for name, field in standard.items() if field and field["hidden"]} == {
        "url_schema",
        "login",
        "port",
    }
    assert standard["host"]["title"] == "RPC URL"
    assert standard["host"]["placeholder"] == "http://127.0.0.1:8545"
    assert standard["password"]["title"] == "Private key or keystore password"
    fields = ocean["extra_fields"]
    assert list(fields) == [
        "network_name",
        "provider_url",
        "metadata_cache_url",
        "keystore_path",
        "rpc_api_key",
        "address_file",
        "max_fee_gwei",
        "max_cost",
        "confirmations",
        "explorer_url",
        "artifact_base",
    ]
    for field in fields.values():
        assert field["schema"]["title"]
        assert field["description"]
        assert "null" in field["schema"]["type"]
    assert fields["rpc_api_key"]["schema"]["format"] == "password"
    choices = fields["network_name"]["schema"]
    assert choices["enum"] == [None, *known_networks()]
    assert set(choices["values_display"]) == {"null", *known_networks()}


def test_the_test_button_says_how_each_part_is(api, form, caplog):
    ok, message = press_test(api, form, caplog)
    assert ok, message
    parts = message.split(" | ")
    assert [part.split(":")[0] for part in parts] == [
        f"{name} OK" for name in ("Chain", "Contracts", "Provider", "Aquarius", "Wallet")
    ]
    assert BOB.address in parts[-1]
    assert BOB.private_key[2:] not in message + caplog.text


@pytest.mark.parametrize(
    ("change", "unwell"),
    [
        ({"provider_url": "http://127.0.0.1:9"}, ["Provider"]),
        ({"metadata_cache_url": "http://127.0.0.1:9"}, ["Aquarius"]),
        ({"address_file": "/no/such/file"}, ["Contracts", "Wallet"]),
        # The local network is not Sepolia.
        ({"network_name": "sepolia"}, ["Chain", "Contracts", "Wallet"]),
    ],
)
def test_the_test_button_says_what_is_wrong(api, form, caplog, change, unwell):
    ok, message = press_test(api, changed(form, extra=change), caplog)
    assert not ok
    assert [part.split(" NOT OK")[0] for part in message.split(" | ") if " NOT OK: " in part] == unwell, (
        message
    )


def test_the_test_button_with_a_bad_key_or_field(api, form, caplog):
    key = "0x" + "5e" * 31
    ok, message = press_test(api, changed(form, password=key), caplog)
    assert not ok
    assert "not a private key" in message
    assert key[2:] not in message + caplog.text
    ok, message = press_test(api, changed(form, extra={"confirmations": "-1"}), caplog)
    assert not ok
    assert "confirmations" in message


def test_the_test_button_with_an_encrypted_keystore(api, form, caplog, tmp_path):
    path = tmp_path / "bob.json"
    # As geth writes it, with a weaker scrypt than its own, which takes seconds.
    path.write_text(
        json.dumps(Account.encrypt(BOB.private_key, "correct horse", kdf="scrypt", iterations=4096))
    )
    with_keystore = changed(form, password="correct horse", extra={"keystore_path": str(path)})
    ok, message = press_test(api, with_keystore, caplog)
    assert ok, message
    assert BOB.address in message
    ok, refused = press_test(api, {**with_keystore, "password": "wrong horse"}, caplog)
    assert not ok
    assert "does not open" in refused
    for secret in ("correct horse", "wrong horse", BOB.private_key[2:]):
        assert secret not in message + refused + caplog.text


def test_a_stored_connection_shows_no_secret_and_keeps_it(api, form, caplog):
    body = changed(form, extra={"rpc_api_key": API_KEY})
    created = api.post("/api/v2/connections", json=body)
    try:
        assert created.status_code == 201, created.text
        shown = api.get(f"/api/v2/connections/{CONN_ID}")
        listed = api.get("/api/v2/connections")
        for text in (created.text, shown.text, listed.text, caplog.text):
            assert BOB.private_key[2:] not in text
            assert API_KEY not in text
        # Saving the form again sends the masked values back.
        assert shown.json()["password"] == "***"
        again = {
            key: shown.json()[key] for key in ("connection_id", "conn_type", "host", "password", "extra")
        }
        assert api.patch(f"/api/v2/connections/{CONN_ID}", json=again).status_code == 200
        from airflow.models import Connection
        from airflow.utils.session import create_session

        with create_session() as session:
            kept = session.query(Connection).filter_by(conn_id=CONN_ID).one()
            assert kept.password == BOB.private_key
            assert json.loads(kept.extra)["rpc_api_key"] == API_KEY
    finally:
        api.delete(f"/api/v2/connections/{CONN_ID}")
