"""The hook: connection fields in every form Airflow gives them, errors that name them, secrets that stay secret."""

from __future__ import annotations

import json
import logging

import pytest
from airflow.providers_manager import ProvidersManager
from airflow.sdk import Connection
from airflow.sdk._shared.secrets_masker import redact
from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime
from eth_account import Account

from airflow_ocean.c2d.errors import FatalError, InvalidInputError
from airflow_ocean.connections import OceanConnection
from airflow_ocean.get_provider_info import get_provider_info
from airflow_ocean.hooks import OceanHook
from tests.unit.airflow_ocean.conftest import KEY

ADDRESS = Account.from_key(KEY).address


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"host": "http://127.0.0.1:8545"}, "http://127.0.0.1:8545"),
        ({"host": "http://127.0.0.1", "port": 8545}, "http://127.0.0.1:8545"),
        ({"host": "127.0.0.1", "port": 8545}, "http://127.0.0.1:8545"),
        ({"host": "127.0.0.1:8545"}, "http://127.0.0.1:8545"),
        ({"host": "rpc.example.com"}, "https://rpc.example.com"),
        ({"host": "rpc.example.com", "port": 443}, "https://rpc.example.com:443"),
        ({"host": "https://rpc.example.com/v3/KeY/"}, "https://rpc.example.com/v3/KeY"),
        ({"host": "https://rpc.example.com", "schema": "v3/KeY"}, "https://rpc.example.com/v3/KeY"),
    ],
)
def test_rpc_url_from_the_fields(connection, fields, url):
    assert OceanHook(connection(**fields)).settings.rpc_url == url


@pytest.mark.parametrize("rpc_url", ["http://127.0.0.1:8545", "https://rpc.example.com/v3/KeY"])
def test_rpc_url_survives_airflows_connection_uri(rpc_url):
    extra = json.dumps({"provider_url": "http://127.0.0.1:8030"})
    first = Connection(conn_id="c", conn_type="ocean", host=rpc_url, password=KEY, extra=extra)
    again = OceanConnection.parse(Connection(conn_id="c", uri=first.get_uri()))
    assert (again.rpc_url, again.provider_url) == (rpc_url, "http://127.0.0.1:8030")
    assert again.private_key() == KEY


@pytest.mark.parametrize("key", [KEY, KEY[2:], "0X" + KEY[2:], f" {KEY}\n"])
def test_the_wallet_is_the_keys(connection, key):
    hook = OceanHook(connection(password=key))
    assert hook.private_key == KEY
    assert hook.client.address == ADDRESS
    assert hook.get_conn() is hook.client


BAD_FIELDS = [
    ({"host": ""}, None, "field host"),
    ({"host": "ftp://127.0.0.1"}, None, "field host"),
    ({"host": "http://127.0.0.1:99999999"}, None, "field host"),
    ({"host": "127.0.0.1:eth"}, None, "field host"),
    ({"password": ""}, None, "field password"),
    ({"password": KEY[:-1]}, None, "field password"),
    ({"password": KEY[:-1] + "z"}, None, "field password"),
    ({"conn_type": "http"}, None, "of type 'http'"),
    ({}, {"provider_url": None}, "provider_url"),
    ({}, {"provider_url": "127.0.0.1:8030"}, "provider_url"),
    ({}, {"provider_url": 8030}, "provider_url"),
    ({}, {"provider_url": f"https://user:{KEY[2:]}@ocean.example.com"}, "provider_url"),
    ({}, {"provider_url": "http://[::1"}, "provider_url"),
    ({"host": f"https://user:{KEY[2:]}@[::1"}, None, "field host"),
    ({}, {"metadata_cache_url": "aquarius"}, "metadata_cache_url"),
    ({}, {"network_name": "goerli"}, "network_name"),
    ({}, {"network_name": 1}, "network_name"),
    ({}, {"max_fee_gwei": "much"}, "max_fee_gwei"),
    ({}, {"max_fee_gwei": -1}, "max_fee_gwei"),
    ({}, {"max_fee_gwei": "NaN"}, "max_fee_gwei"),
    ({}, {"max_fee_gwei": "1e999"}, "max_fee_gwei"),
    ({}, {"max_cost": "much"}, "max_cost"),
    ({}, {"max_cost": {"gas": 1.5}}, "max_cost"),
    ({}, {"max_cost": "1e999"}, "max_cost"),
    ({}, {"address_file": 5}, "address_file"),
    ({}, {"rpc_api_key": [1]}, "rpc_api_key"),
    ({}, {"confirmations": 0}, "confirmations"),
    ({}, {"confirmations": 1.5}, "confirmations"),
    ({}, {"confirmations": "1" + "0" * 30}, "confirmations"),
    ({}, {"confirmations": True}, "confirmations"),
    ({}, {"explorer_url": "javascript:alert(1)"}, "explorer_url"),
    ({}, {"explorer_url": f"https://{KEY[2:]}@explorer.example.com"}, "explorer_url"),
    ({}, {"artifact_base": ["s3://b"]}, "artifact_base"),
    ({}, {"keystore_path": "/no/such/file"}, "keystore_path"),
    ({}, "{not json", "field extra"),
    ({}, "[1]", "field extra"),
]


@pytest.mark.parametrize(("fields", "extra", "named"), BAD_FIELDS)
def test_a_bad_field_is_named_and_no_secret_shown(connection, fields, extra, named):
    hook = OceanHook(connection(extra, **fields))
    with pytest.raises(InvalidInputError) as raised:
        hook.get_client()
    assert "ocean_test" in str(raised.value)
    assert named in str(raised.value)
    assert KEY[2:-1] not in str(raised.value)
    assert hook.test_connection() == (False, str(raised.value))


def test_every_field_of_the_form_has_a_bad_value():
    (connection_type,) = get_provider_info()["connection-types"]
    tried = {name for _, extra, _ in BAD_FIELDS if isinstance(extra, dict) for name in extra}
    assert connection_type["conn-fields"].keys() == tried


def test_extra_fields_as_text_and_as_numbers_mean_the_same(connection):
    as_text = OceanHook(connection({"max_fee_gwei": "2.5", "confirmations": "3"})).settings
    as_numbers = OceanHook(connection({"max_fee_gwei": 2.5, "confirmations": 3})).settings
    assert as_text == as_numbers
    assert as_text.network().max_fee_wei == 2_500_000_000


def test_empty_extra_fields_count_as_left_out(connection):
    # The connection form sends an empty text for what nobody filled in.
    empty = {
        "network_name": "",
        "metadata_cache_url": "",
        "max_fee_gwei": "",
        "confirmations": "",
        "keystore_path": "",
    }
    assert OceanHook(connection(empty)).settings == OceanHook(connection()).settings


def test_a_named_network_brings_its_explorer_and_must_be_the_chains(connection):
    sepolia = OceanHook(connection({"network_name": "sepolia"})).settings
    assert sepolia.explorer_url == "https://sepolia.etherscan.io"
    assert sepolia.network().known.chain_id == 11155111
    own = OceanHook(connection({"network_name": "sepolia", "explorer_url": "https://e.example"})).settings
    assert own.explorer_url == "https://e.example"
    other = OceanHook(connection({"network_name": None})).settings
    assert (other.explorer_url, other.network().known) == (None, None)


@pytest.fixture(scope="module")
def keystore(tmp_path_factory):
    path = tmp_path_factory.mktemp("keystore") / "wallet.json"
    path.write_text(json.dumps(Account.encrypt(KEY, "open sesame", kdf="pbkdf2", iterations=1000)))
    return path


def test_keystore_file(connection, keystore):
    hook = OceanHook(connection({"keystore_path": str(keystore)}, password="open sesame"))
    assert hook.client.address == ADDRESS
    assert "open sesame" not in redact("the password is open sesame")
    assert KEY[2:] not in redact(f"the key is {KEY}")


def test_keystore_file_with_another_password(connection, keystore):
    hook = OceanHook(connection({"keystore_path": str(keystore)}, password="open barley"))
    with pytest.raises(InvalidInputError, match="does not open") as raised:
        hook.get_client()
    assert "barley" not in str(raised.value)


@pytest.mark.parametrize("content", ["", "{}", '{"version": 3}', "[]"])
def test_keystore_file_that_is_none(connection, tmp_path, content):
    path = tmp_path / "wallet.json"
    path.write_text(content)
    with pytest.raises(InvalidInputError, match="keystore file"):
        OceanHook(connection({"keystore_path": str(path)}, password="x")).get_client()


@pytest.mark.parametrize("shown", [KEY, KEY[2:], KEY[2:].upper(), f"prefix{KEY}suffix"])
def test_the_key_is_masked_with_and_without_its_prefix(connection, shown):
    key = "0x" + "Ab" * 32
    hook = OceanHook(connection(password=key))
    assert hook.client.address
    shown = shown.replace(KEY[2:], key[2:])
    for spelling in (shown, shown.lower(), shown.replace("aB", "AB")):
        assert "ab" * 10 not in redact(spelling).lower()


def test_the_api_key_of_an_rpc_url_is_masked(connection):
    api_key = "9aa3d95b3bc440fa88ea12eaa4456161"
    assert OceanHook(connection(host=f"https://mainnet.infura.io/v3/{api_key}")).settings.rpc_url.endswith(
        api_key
    )
    assert api_key not in redact(f"https://mainnet.infura.io/v3/{api_key} does not answer")


def test_an_api_key_that_is_kept_apart_from_the_rpc_url(connection):
    settings = OceanHook(connection({"rpc_api_key": "Ke/Y"}, host="https://rpc.example.com/v3/")).settings
    assert settings.rpc_url == "https://rpc.example.com/v3/Ke%2FY"
    assert "Ke" not in repr(settings)
    with pytest.raises(InvalidInputError, match="rpc_api_key") as raised:
        _ = OceanHook(connection({"rpc_api_key": ["OtherKey"]})).settings
    assert "OtherKey" not in str(raised.value)


@pytest.mark.parametrize("field", ["host", "metadata_cache_url"])
def test_a_password_in_a_url_is_masked(connection, field):
    password = f"hidden-in-{field}"
    url = f"https://user:{password}@ocean.example.com"
    fields = ({}, {"host": url}) if field == "host" else ({field: url}, {})
    assert OceanHook(connection(fields[0], **fields[1])).settings
    assert password not in redact(f"https://user:{password}@ocean.example.com does not answer")


def test_the_spending_limit_as_the_form_sends_it(connection):
    assert OceanHook(connection({"max_cost": "2.5"})).client.limit.amounts == {"*": 25 * 10**17}
    assert OceanHook(connection({"max_cost": '{"gas": "0.01"}'})).client.limit.amounts == {"gas": 10**16}
    with pytest.raises(InvalidInputError, match="extra field max_cost"):
        OceanHook(connection({"max_cost": "much"})).get_client()


def test_no_secret_in_representations(connection):
    hook = OceanHook(connection())
    assert KEY[2:] not in repr(hook.settings) + repr(hook.client) + repr(hook.client.network)


async def test_building_the_hook_on_an_event_loop(connection):
    hook = await OceanHook.acreate(connection())
    assert hook.client.address == ADDRESS


def test_test_connection_says_which_part_is_not_well(connection, caplog):
    with caplog.at_level(logging.DEBUG):
        ok, message = OceanHook(connection()).test_connection()
    assert not ok
    assert "Chain NOT OK: " in message
    assert KEY[2:] not in message + caplog.text


def test_airflow_knows_the_connection_type_and_its_form():
    manager = ProvidersManager()
    hook = ProvidersManagerTaskRuntime().hooks["ocean"]
    assert (hook.hook_class_name, hook.hook_name) == ("airflow_ocean.hooks.OceanHook", "Ocean")
    assert callable(getattr(OceanHook, "test_connection", None))
    assert manager.providers["airflow-ocean"].data["package-name"] == "airflow-ocean"
    (connection_type,) = get_provider_info()["connection-types"]
    assert connection_type["conn-fields"].keys() <= OceanConnection.__dataclass_fields__.keys()
    behaviour = {
        info.connection_type: info.field_behaviour for info in manager.iter_connection_type_hook_ui_metadata()
    }["ocean"]
    assert behaviour["relabeling"]["host"] == "RPC URL"
    assert "extra__ocean__provider_url" in manager._connection_form_widgets_from_metadata


def test_errors_of_connections_are_fatal():
    assert issubclass(InvalidInputError, FatalError)
