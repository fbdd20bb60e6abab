"""What people and services may say wrongly, and the error that answers it; nothing here needs a network."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from airflow_ocean.c2d.environments import choose
from airflow_ocean.c2d.errors import InvalidInputError
from airflow_ocean.c2d.journal import FileJournal
from airflow_ocean.c2d.network import Network
from airflow_ocean.c2d.orders import Order
from airflow_ocean.c2d.services.provider import read_endpoints, read_environment
from airflow_ocean.c2d.specs import AlgorithmContainer, AssetSpec, ComputePolicy, Credentials, Pricing
from airflow_ocean.c2d.units import MAX_UINT256, format_units, parse_address, parse_units
from airflow_ocean.c2d.wallet import Wallet
from include.localnet.accounts import ALICE
from include.localnet.ethereum import signer_of

if TYPE_CHECKING:
    from pathlib import Path

FILE = {"type": "url", "url": "http://127.0.0.1/data.arff"}
CHECKSUM = "sha256:" + "0" * 64


class TestUnits:
    @pytest.mark.parametrize(
        ("text", "decimals", "units"),
        [
            ("1", 18, 10**18),
            ("4.35", 18, 4_350_000_000_000_000_000),
            (" 0.1 ", 18, 10**17),
            (Decimal("2.5"), 6, 2_500_000),
            (3, 0, 3),
            ("1e3", 18, 10**21),
            (f"{MAX_UINT256}", 0, MAX_UINT256),
            ("0.000000000000000001", 18, 1),
        ],
    )
    def test_exact(self, text: Any, decimals: int, units: int) -> None:
        assert parse_units(text, decimals=decimals) == units
        assert parse_units(format_units(units, decimals), decimals=decimals) == units

    @pytest.mark.parametrize(
        "amount",
        [
            "",
            "one",
            "-1",
            "nan",
            "inf",
            "1e80",
            "1e999999999",
            1.5,
            True,
            None,
            [],
            "0x10",
            "1.0000000000000000001",
        ],
    )
    def test_refused(self, amount: Any) -> None:
        with pytest.raises(InvalidInputError, match="mint amount"):
            parse_units(amount, "mint amount")

    @pytest.mark.parametrize("text", ["100", "1000000000000000000", "10"])
    def test_whole_numbers_keep_their_zeros(self, text: str) -> None:
        assert format_units(int(text), 0) == text

    @pytest.mark.parametrize(
        "address",
        ["", None, 5, "0x12", ALICE.address[:-1], ALICE.address.swapcase().replace("X", "x"), "alice.eth"],
    )
    def test_addresses_refused(self, address: Any) -> None:
        with pytest.raises(InvalidInputError, match="publisher .* is not an Ethereum address"):
            parse_address(address, "publisher")

    def test_addresses_get_their_checksum(self) -> None:
        assert parse_address(ALICE.address.lower(), "x") == ALICE.address


class TestWallet:
    @pytest.mark.parametrize(
        "key", ["", "0x", "secret-secret", "0x" + "0" * 64, "0x" + "f" * 64, ALICE.private_key + "0"]
    )
    def test_a_wrong_key_is_refused_and_not_repeated(self, key: str) -> None:
        with pytest.raises(InvalidInputError) as caught:
            Wallet(key)
        assert key[2:8] not in str(caught.value) or not key[2:8]
        assert caught.value.__cause__ is None

    def test_the_key_is_not_shown(self) -> None:
        assert ALICE.private_key[2:] not in repr(Wallet(ALICE.private_key))

    def test_signatures_are_what_services_recover(self) -> None:
        assert signer_of("did:op:1", Wallet(ALICE.private_key).sign_text("did:op:1")) == ALICE.address

    def test_nonces_rise(self) -> None:
        nonces = [Wallet.next_nonce() for _ in range(1000)]
        assert nonces == sorted(set(nonces))


class TestNetwork:
    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"rpc_url": "127.0.0.1:8545"}, "rpc_url must be a URL"),
            ({"provider_url": ""}, "provider_url must be a URL"),
            ({"provider_url": None}, "provider_url must be a URL"),
            ({"metadata_cache_url": "ftp://x"}, "metadata_cache_url must be a URL"),
            ({"confirmations": 0}, "confirmations must be 1 or more"),
            ({"max_fee_gwei": Decimal(0)}, "max_fee_gwei must be above 0"),
            ({"max_fee_gwei": Decimal("1e999999999")}, "max_fee_gwei must be above 0 and no more than"),
        ],
    )
    def test_refused(self, fields: dict[str, Any], words: str) -> None:
        right: dict[str, Any] = {"rpc_url": "http://127.0.0.1:1", "provider_url": "http://127.0.0.1:2"}
        with pytest.raises(InvalidInputError, match=words):
            Network(**{**right, **fields})

    def test_an_address_file_that_is_not_there(self) -> None:
        network = Network("http://127.0.0.1:1", "http://127.0.0.1:2", address_file="/nowhere/address.json")
        with pytest.raises(InvalidInputError, match="/nowhere/address.json does not exist"):
            network.contracts(8996)

    def test_an_address_file_that_is_no_json(self, tmp_path: Path) -> None:
        path = tmp_path / "address.json"
        path.write_text("{")
        network = Network("http://127.0.0.1:1", "http://127.0.0.1:2", address_file=str(path))
        with pytest.raises(InvalidInputError, match="is not JSON"):
            network.contracts(8996)

    def test_a_chain_without_contracts(self) -> None:
        with pytest.raises(InvalidInputError, match="no Ocean contracts are listed for chain 424242"):
            Network("http://127.0.0.1:1", "http://127.0.0.1:2").contracts(424242)

    def test_known_networks_need_no_address_file(self) -> None:
        name, addresses = Network("http://127.0.0.1:1", "http://127.0.0.1:2").contracts(137)
        assert name == "polygon"
        assert addresses["ERC721Factory"].startswith("0x")


class TestSpecs:
    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"kind": "model"}, "kind must be"),
            ({"name": " "}, "name is empty"),
            ({"files": ()}, "has no files"),
            ({"files": ({"url": "http://127.0.0.1/x"},)}, "a file needs a type"),
            ({"files": ({"type": "url"},)}, "needs url"),
            ({"files": ({"type": "url", "url": "/etc/passwd"},)}, "begins with http"),
            ({"files": ({"type": "graphql", "url": "http://x/"},)}, "needs query"),
            ({"files": ({"type": "arweave"},)}, "needs transactionId"),
            ({"files": ("http://127.0.0.1/x",)}, "a file needs a type"),
            ({"template": 3}, "template must be 1 or 2"),
            ({"timeout": -1}, "timeout must be"),
            ({"timeout": "3600"}, "timeout must be"),
            ({"services": ("download",)}, "services must be"),
            ({"services": ("compute", "compute")}, "services must be"),
            ({"kind": "algorithm"}, "needs a container"),
        ],
    )
    def test_assets_refused(self, fields: dict[str, Any], words: str) -> None:
        right: dict[str, Any] = {"kind": "dataset", "name": "Branin", "files": (FILE,)}
        with pytest.raises(InvalidInputError, match=words):
            AssetSpec(**{**right, **fields})

    def test_a_dataset_is_for_computing_only(self) -> None:
        assert AssetSpec("dataset", "Branin", (FILE,)).services == ("compute",)

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"image": ""}, "image is empty"),
            ({"tag": None}, "tag is empty"),
            ({"checksum": "sha256:xyz"}, "checksum must be"),
            ({"checksum": ""}, "checksum must be"),
            ({"entrypoint": "python algorithm.py"}, r"must contain \$ALGO"),
        ],
    )
    def test_containers_refused(self, fields: dict[str, Any], words: str) -> None:
        right: dict[str, Any] = {"image": "python", "tag": "3.11", "checksum": CHECKSUM}
        with pytest.raises(InvalidInputError, match=words):
            AlgorithmContainer(**{**right, **fields})

    def test_prices_refused(self) -> None:
        with pytest.raises(InvalidInputError, match="above 0 wei"):
            Pricing.fixed_rate(0)
        with pytest.raises(InvalidInputError, match="'dispenser' or 'fixed_rate'"):
            Pricing("auction")  # type: ignore[arg-type]

    def test_addresses_are_checked_where_they_are_used(self) -> None:
        with pytest.raises(InvalidInputError, match=r"credentials\.deny"):
            Credentials(deny=("bob",)).to_dict()
        with pytest.raises(InvalidInputError, match="trusted publisher"):
            ComputePolicy(trusted_publishers=("bob",)).to_dict()


class TestServiceAnswers:
    @pytest.mark.parametrize(
        "root", [None, [], "x", {}, {"serviceEndpoints": 5}, {"serviceEndpoints": {"nonce": "GET"}}]
    )
    def test_something_else_than_a_provider(self, root: Any) -> None:
        with pytest.raises(InvalidInputError, match="not as an Ocean Provider"):
            read_endpoints(root, "http://127.0.0.1:1")

    @pytest.mark.parametrize(
        "entry", [None, {}, {"id": "x"}, {"id": "x", "consumerAddress": "y", "priceMin": "free"}]
    )
    def test_broken_environments(self, entry: Any) -> None:
        with pytest.raises(InvalidInputError, match="unknown form"):
            read_environment(entry)

    def test_the_environments_are_listed_when_none_fits(self) -> None:
        paid = read_environment({"id": "big", "consumerAddress": ALICE.address, "priceMin": 0.5})
        with pytest.raises(
            InvalidInputError, match=r"no compute environment 'free' .* big \(0\.5 a minute\)"
        ):
            choose([paid], "free", "http://127.0.0.1:1")
        assert choose([paid], "cheapest", "http://127.0.0.1:1") is paid


class TestOrders:
    @pytest.mark.parametrize("fields", [None, [], "x", {}, {"provider_url": "http://x"}])
    def test_something_else_than_an_order(self, fields: Any) -> None:
        with pytest.raises(InvalidInputError, match="not an order"):
            Order.from_dict(fields)

    def test_json_and_back(self) -> None:
        asset = {"did": "did:op:1", "service_id": "0", "transaction": "0x1", "user_data": None}
        order = Order.from_dict(
            {
                "provider_url": "http://127.0.0.1:1",
                "environment": "free",
                "environment_consumer": ALICE.address,
                "valid_until": 5,
                "datasets": [asset],
                "algorithm": {**asset, "transaction": "0x2"},
                "terms": {"duration": 60, "resources": {"cpu": 2}, "queue_wait": 5},
                "payment": {
                    "escrow": ALICE.address,
                    "payee": ALICE.address,
                    "token": ALICE.address,
                    "amount": str(2**70),
                    "lock_seconds": 60,
                },
            }
        )
        assert Order.from_dict(json.loads(json.dumps(order.to_dict()))) == order
        assert order.transactions == ["0x1", "0x2"]
        assert order.payment
        assert order.payment.amount == 2**70


def test_a_damaged_journal_is_no_empty_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.json"
    path.write_text('{"order')
    with pytest.raises(InvalidInputError, match="what was already paid"):
        FileJournal(path).load("order")
