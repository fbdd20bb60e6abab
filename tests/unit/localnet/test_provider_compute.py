"""Compute services: quotes, fees, trust, and what exactly the operator-service is sent."""

from __future__ import annotations

import hashlib
import json
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from include.localnet import accounts
from include.localnet.ethereum import signer_of
from include.localnet.provider import fees, orders
from tests.unit.localnet.provider_bench import (
    CONTAINER,
    FREE,
    PAID,
    PRICE_PER_MINUTE,
    Bench,
    Published,
    environments,
    running_bench,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

BOB, COMPUTE = accounts.BOB, accounts.COMPUTE
ACCESS, COMPUTING = 0, 1
CODE = b"print('hello')"
OPERATOR = "/api/v1/operator/compute"
HOUR = 3600


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with running_bench(tmp_path_factory.mktemp("provider")) as running:
        running.cupboard.put(OPERATOR, [{"jobId": "job-1", "status": 1}], method="POST")
        yield running


@pytest.fixture(scope="module")
def data_files(bench: Bench) -> list[dict[str, Any]]:
    return [{"type": "url", "url": bench.cupboard.put("/data.arff", b"data"), "method": "GET"}]


@pytest.fixture(scope="module")
def algorithm(bench: Bench) -> Published:
    url = bench.cupboard.put("/algorithm.py", CODE)
    return bench.publish([{"type": "url", "url": url, "method": "GET"}], "algorithm")


@pytest.fixture(scope="module")
def dataset(bench: Bench, data_files: list[dict[str, Any]], algorithm: Published) -> Published:
    return bench.publish(data_files, compute=trusting(algorithm))


def trusting(algorithm: Published, **changes: Any) -> dict[str, Any]:
    section = CONTAINER["entrypoint"] + CONTAINER["checksum"]
    entry = {
        "did": algorithm.did,
        "filesChecksum": hashlib.sha256(CODE).hexdigest(),
        "containerSectionChecksum": hashlib.sha256(section.encode()).hexdigest(),
    }
    return {
        "allowRawAlgorithm": False,
        "publisherTrustedAlgorithms": [{**entry, **changes}],
        "publisherTrustedAlgorithmPublishers": [],
    }


def in_an_hour() -> int:
    return int(time.time()) + HOUR


def quote(
    bench: Bench, datasets: list[Any], algorithm: Any, environment: str = FREE, until: Any = None, **more: Any
) -> httpx.Response:
    request = {
        "datasets": datasets,
        "algorithm": algorithm,
        "compute": {"env": environment, "validUntil": in_an_hour() if until is None else until},
        "consumerAddress": COMPUTE.address,
        **more,
    }
    return bench.http.post("/initializeCompute", json=request)


def start(bench: Bench, dataset: Any, algorithm: Any, environment: str = FREE, **more: Any) -> httpx.Response:
    did = dataset.get("documentId", "") if isinstance(dataset, dict) else ""
    request = {
        "dataset": dataset,
        "algorithm": algorithm,
        "environment": environment,
        "consumerAddress": BOB.address,
        **bench.signed(BOB, f"{BOB.address}{did}"),
        **more,
    }
    return bench.http.post("/compute", json=request)


def ordered(
    bench: Bench, dataset: Published, algorithm: Published, environment: str = FREE, until: int | None = None
) -> tuple[str, str]:
    """Quote and order both; return the two transactions."""
    answer = quote(
        bench, [dataset.reference("compute")], algorithm.reference("access"), environment, until
    ).json()
    return (
        bench.order(dataset, answer["datasets"][0]["providerFee"], COMPUTING),
        bench.order(algorithm, answer["algorithm"]["providerFee"], ACCESS),
    )


def error(answer: httpx.Response) -> Any:
    assert answer.status_code == 400, answer.text
    return answer.json()["error"]


# --- environments ------------------------------------------------------------------------------------------------


def test_environments(bench: Bench) -> None:
    answer = bench.http.get("/computeEnvironments")
    fee_token = bench.addresses["Ocean"]
    assert answer.json() == {"8996": [{**e, "feeToken": fee_token} for e in environments()]}
    assert bench.cupboard.requests("GET", "/api/v1/operator/environments")[-1].query == {"chainId": "8996"}


def test_a_provider_without_compute(bench: Bench, dataset: Published, algorithm: Published) -> None:
    with bench.another_provider("download-only", operator_service_url="") as client:
        for method, path in [
            ("GET", "/computeEnvironments"),
            ("GET", "/compute"),
            ("POST", "/compute"),
            ("PUT", "/compute"),
            ("DELETE", "/compute"),
            ("GET", "/computeResult"),
        ]:
            assert client.request(method, path).status_code == 404
        request = {
            "datasets": [dataset.reference("compute")],
            "algorithm": algorithm.reference("access"),
            "compute": {"env": FREE, "validUntil": in_an_hour()},
            "consumerAddress": BOB.address,
        }
        assert error(client.post("/initializeCompute", json=request)) == "Compute environment does not exist"


def test_an_operator_service_that_does_not_answer(bench: Bench) -> None:
    with bench.another_provider("no-operator", operator_service_url="http://127.0.0.1:1") as client:
        environments_ = client.get("/computeEnvironments")
        assert environments_.status_code == 503
        assert environments_.json()["error"] == (
            "Compute envs could not be retrieved for chainId 8996, check configuration."
        )
        status = client.get("/compute", params={"consumerAddress": BOB.address})
        assert status.status_code == 503
        assert "OPERATOR_SERVICE_URL" in status.json()["error"]


# --- quotes ------------------------------------------------------------------------------------------------------


def test_a_free_quote(bench: Bench, dataset: Published, algorithm: Published) -> None:
    until = in_an_hour()
    answer = quote(bench, [dataset.reference("compute")], algorithm.reference("access"), until=until).json()
    assert answer["datasets"][0]["datatoken"] == dataset.token
    assert answer["algorithm"]["datatoken"] == algorithm.token
    for item, service in ((answer["datasets"][0], "compute"), (answer["algorithm"], "access")):
        fee = item["providerFee"]
        assert (fee["providerFeeAmount"], fee["validUntil"]) == ("0", until)
        data = json.loads(bytes.fromhex(fee["providerData"][2:]))
        assert (data["environment"], data["id"], data["dt"]) == (FREE, service, item["datatoken"])
        assert abs(data["timestamp"] - time.time()) < 60


@pytest.mark.parametrize("hours", [1, 25, 24 * 30])
def test_a_paid_quote_counts_all_the_time(
    bench: Bench, dataset: Published, algorithm: Published, hours: int
) -> None:
    """Upstream leaves whole days out: there 25 hours cost what one costs."""
    asked_at = time.time()
    until = int(asked_at) + hours * HOUR
    answer = quote(
        bench, [dataset.reference("compute")], algorithm.reference("access"), PAID, until=until
    ).json()
    amount = int(answer["datasets"][0]["providerFee"]["providerFeeAmount"])
    full = Decimal(until) - Decimal(asked_at)
    price = Decimal(str(PRICE_PER_MINUTE)) * 10**18 / 60
    assert (full - 60) * price < amount <= full * price
    assert answer["algorithm"]["providerFee"]["providerFeeAmount"] == "0"


def test_the_contracts_accept_the_fee(bench: Bench, dataset: Published, algorithm: Published) -> None:
    before = bench.chain.call(
        bench.addresses["Ocean"], "ERC20Template", "balanceOf", accounts.PROVIDER.address
    )
    ordered(bench, dataset, algorithm, PAID)
    after = bench.chain.call(
        bench.addresses["Ocean"], "ERC20Template", "balanceOf", accounts.PROVIDER.address
    )
    # The Ocean community takes its part of the hour's 150 tokens.
    assert after - before > 100 * 10**18


def test_quotes_refused(bench: Bench, dataset: Published, algorithm: Published) -> None:
    one, code = dataset.reference("compute"), algorithm.reference("access")
    for until in (1, int(time.time()) - 1, 10**30):
        assert error(quote(bench, [one], code, until=until)) == "The validUntil value is not correct."
    assert error(quote(bench, [one], code, "none")) == "Compute environment does not exist"
    assert error(quote(bench, [one], dataset.reference("access"))) == "DID is not a valid algorithm"
    assert error(quote(bench, [one], {"documentId": "did:op:0"})) == "DID is not a valid algorithm"
    assert error(quote(bench, [one], algorithm.reference("x"))) == {"algorithm.serviceId": "not_found"}
    assert error(quote(bench, [one], {"documentId": algorithm.did})) == {"algorithm.serviceId": "missing"}
    assert error(quote(bench, "x", code)) == {"datasets": "invalid"}  # type: ignore[arg-type]
    assert error(quote(bench, ["x"], code)) == {"dataset": "invalid"}
    assert error(quote(bench, [{"serviceId": "x"}], code)) == {"dataset.documentId": "missing"}
    assert error(quote(bench, [{"documentId": dataset.did}], code)) == {"dataset.serviceId": "missing"}
    assert error(quote(bench, [one, {"documentId": "did:op:0", "serviceId": "x"}], code)) == {
        "datasets[1].documentId": "did_not_found"
    }
    assert error(quote(bench, [dataset.reference("x")], code)) == {"dataset.serviceId": "not_found"}
    assert error(quote(bench, [dataset.reference("access")], code)) == {
        "dataset.serviceId": "main_service_compute"
    }
    assert error(quote(bench, [one], {"meta": {"rawcode": "x"}})) == {"dataset": "no_raw_algo_allowed"}


def test_orders_are_offered_again(bench: Bench, dataset: Published, algorithm: Published) -> None:
    until = in_an_hour()
    data_order, code_order = ordered(bench, dataset, algorithm, PAID, until)

    def again(until: int, environment: str = PAID, data: str = data_order) -> Any:
        return quote(
            bench,
            [dataset.reference("compute", data)],
            algorithm.reference("access", code_order),
            environment,
            until,
        ).json()

    # Paid for until then: nothing is left to do.
    assert again(until) == {
        "datasets": [{"validOrder": data_order}],
        "algorithm": {"validOrder": code_order},
    }
    # For longer: the order stands, the fee is due again.
    longer = again(until + HOUR)
    assert longer["datasets"][0]["validOrder"] == data_order
    assert int(longer["datasets"][0]["providerFee"]["providerFeeAmount"]) > 0
    assert longer["algorithm"]["validOrder"] == code_order
    reused = bench.reuse(dataset, data_order, longer["datasets"][0]["providerFee"])
    assert again(until + HOUR, data=reused)["datasets"] == [{"validOrder": data_order}]
    # In another environment the order is none.
    assert "validOrder" not in again(until, FREE)["datasets"][0]


def test_an_order_without_the_fee_is_not_enough(
    bench: Bench, dataset: Published, algorithm: Published
) -> None:
    """Upstream would hand it back as valid, and then refuse to start with it."""
    until = in_an_hour()
    answer = quote(
        bench,
        [dataset.reference("compute"), dataset.reference("compute")],
        algorithm.reference("access"),
        PAID,
        until,
    ).json()
    free_rider = bench.order(dataset, answer["datasets"][1]["providerFee"], COMPUTING)
    again = quote(
        bench, [dataset.reference("compute", free_rider)], algorithm.reference("access"), PAID, until
    ).json()["datasets"][0]
    assert again["validOrder"] == free_rider
    assert int(again["providerFee"]["providerFeeAmount"]) > 0


def test_another_providers_asset_is_quoted_there(
    bench: Bench, dataset: Published, algorithm: Published
) -> None:
    elsewhere = bench.cupboard.url + "/elsewhere"
    bench.cupboard.put("/", {"providerAddresses": {"8996": accounts.CARLOS.address}})
    bench.cupboard.put("/elsewhere/api/services/initialize", {"datatoken": "0xd", "providerFee": {}})
    dataset.ddo["services"][1]["serviceEndpoint"] = elsewhere
    bench.index(dataset)
    try:
        answer = quote(bench, [dataset.reference("compute")], algorithm.reference("access"))
        assert answer.json()["datasets"] == [{"datatoken": "0xd", "providerFee": {}}]
        bench.cupboard.put("/elsewhere/api/services/initialize", {"error": "no"}, status=400)
        assert quote(bench, [dataset.reference("compute")], algorithm.reference("access")).status_code == 503
    finally:
        dataset.ddo["services"][1]["serviceEndpoint"] = bench.url
        bench.index(dataset)


# --- start -------------------------------------------------------------------------------------------------------


def test_what_the_operator_service_is_sent(bench: Bench, dataset: Published, algorithm: Published) -> None:
    until = in_an_hour()
    data_order, code_order = ordered(bench, dataset, algorithm, FREE, until)
    answer = start(
        bench,
        dataset.reference("compute", data_order, userdata={"year": 2020}),
        algorithm.reference("access", code_order, algouserdata={"a": 1}, algocustomdata={"b": 2}),
    )
    assert (answer.status_code, answer.json()) == (200, [{"jobId": "job-1", "status": 1}])
    sent = bench.cupboard.requests("POST", OPERATOR)[-1].json
    nonce, signature = sent.pop("nonce"), sent.pop("providerSignature")
    assert abs(nonce - time.time_ns()) < 60 * 10**9
    assert signer_of(f"{BOB.address}{nonce}", signature) == accounts.PROVIDER.address
    assert signature[-2:] in ("00", "01")
    assert sent == {
        "workflow": {
            "stages": [
                {
                    "index": 0,
                    "input": [
                        {
                            "index": 0,
                            "id": dataset.did,
                            "remote": {
                                "txId": data_order,
                                "serviceId": "compute",
                                "userdata": {"year": 2020},
                            },
                        }
                    ],
                    "compute": {"Instances": 1, "namespace": "ocean-compute", "maxtime": 3600},
                    "algorithm": {
                        "id": algorithm.did,
                        "rawcode": "",
                        "container": CONTAINER,
                        "algouserdata": None,
                        "remote": {
                            "serviceEndpoint": bench.url,
                            "txId": code_order,
                            "serviceId": "access",
                            "userData": {"a": 1},
                            "userdata": {"a": 1},
                        },
                        "algocustomdata": {"b": 2},
                    },
                    "output": {"metadataUri": bench.cupboard.url},
                }
            ]
        },
        "agreementId": code_order,
        "owner": BOB.address,
        "providerAddress": accounts.PROVIDER.address,
        "environment": FREE,
        "validUntil": until,
        "chainId": 8996,
    }


def test_the_agreement_is_the_order_that_paid(bench: Bench, dataset: Published, algorithm: Published) -> None:
    data_order, code_order = ordered(bench, dataset, algorithm, PAID)
    one, code = dataset.reference("compute", data_order), algorithm.reference("access", code_order)
    assert start(bench, one, code, PAID).status_code == 200
    assert bench.cupboard.requests("POST", OPERATOR)[-1].json["agreementId"] == data_order


def test_several_datasets(
    bench: Bench, dataset: Published, algorithm: Published, data_files: list[dict[str, Any]]
) -> None:
    second = bench.publish(data_files, compute=trusting(algorithm))
    references = [dataset.reference("compute"), second.reference("compute"), second.reference("access")]
    answer = quote(bench, references, algorithm.reference("access"), PAID).json()
    amounts = [int(item["providerFee"]["providerFeeAmount"]) > 0 for item in answer["datasets"]]
    assert amounts == [True, False, False]
    transactions = [
        bench.order(asset, item["providerFee"], index)
        for asset, item, index in zip(
            (dataset, second, second), answer["datasets"], (COMPUTING, COMPUTING, ACCESS), strict=True
        )
    ]
    first, *others = [
        {**reference, "transferTxId": transaction}
        for reference, transaction in zip(references, transactions, strict=True)
    ]
    code = algorithm.reference("access", bench.order(algorithm, answer["algorithm"]["providerFee"], ACCESS))
    assert start(bench, first, code, PAID, additionalDatasets=others).status_code == 200
    sent = bench.cupboard.requests("POST", OPERATOR)[-1].json
    stage = sent["workflow"]["stages"][0]
    assert [(i["index"], i["id"], i["remote"]["serviceId"]) for i in stage["input"]] == [
        (0, dataset.did, "compute"),
        (1, second.did, "compute"),
        (2, second.did, "access"),
    ]
    assert sent["agreementId"] == transactions[0]
    assert error(start(bench, first, code, PAID, additionalDatasets="x")) == {"additional_input": "invalid"}
    unpaid = {**others[0], "transferTxId": "0x" + "1" * 64}
    assert error(start(bench, first, code, PAID, additionalDatasets=[unpaid])) == {
        "datasets[1].serviceId": "order_invalid"
    }
    nameless = {"documentId": second.did, "serviceId": "compute"}
    assert error(start(bench, first, code, PAID, additionalDatasets=[nameless])) == {
        "datasets[1].transferTxId": "missing"
    }


def test_raw_algorithms(bench: Bench, data_files: list[dict[str, Any]]) -> None:
    dataset = bench.publish(data_files, compute={"allowRawAlgorithm": True})
    meta = {"rawcode": "print(1)", "container": CONTAINER, "format": "docker-image"}
    answer = quote(bench, [dataset.reference("compute")], {"meta": meta}, PAID).json()
    assert "algorithm" not in answer
    order = bench.order(dataset, answer["datasets"][0]["providerFee"], COMPUTING)
    one = dataset.reference("compute", order)
    assert start(bench, one, {"meta": meta}, PAID).status_code == 200
    sent = bench.cupboard.requests("POST", OPERATOR)[-1].json
    assert sent["agreementId"] == order
    assert sent["workflow"]["stages"][0]["algorithm"] == {
        "id": "",
        "url": None,
        "rawcode": "print(1)",
        "container": CONTAINER,
    }
    assert start(bench, one, {"meta": json.dumps(meta)}, PAID).status_code == 200
    nothing = {"algorithm": "meta_oneof_url_rawcode_remote"}
    assert error(start(bench, one, {"meta": {"container": CONTAINER}}, PAID)) == nothing
    assert error(start(bench, one, {"meta": "no json"}, PAID)) == nothing
    incomplete = {"algorithm.container": "missing_entrypoint_image_checksum"}
    assert error(start(bench, one, {"meta": {"rawcode": "x"}}, PAID)) == incomplete
    assert error(start(bench, one, {"meta": {"rawcode": "x", "container": "x"}}, PAID)) == incomplete
    odd = {**meta, "container": {**CONTAINER, "checksum": "md5:1"}}
    assert error(start(bench, one, {"meta": odd}, PAID)) == {"algorithm.container": "checksum_prefix"}


def test_starts_refused(bench: Bench, dataset: Published, algorithm: Published) -> None:
    data_order, code_order = ordered(bench, dataset, algorithm)
    one, code = dataset.reference("compute", data_order), algorithm.reference("access", code_order)
    sent = len(bench.cupboard.requests("POST", OPERATOR))
    unknown = "0x" + "1" * 64
    cases: list[tuple[Any, Any, str, Any]] = [
        (one, code, PAID, {"dataset.serviceId": "order_invalid"}),
        (one, code, "some inexistent env", {"dataset.serviceId": "order_invalid"}),
        ({**one, "transferTxId": unknown}, code, FREE, {"dataset.serviceId": "order_invalid"}),
        ({**one, "transferTxId": code_order}, code, FREE, {"dataset.serviceId": "order_invalid"}),
        (one, {**code, "transferTxId": unknown}, FREE, {"algorithm": "in_use_or_not_on_chain"}),
        (one, {**code, "transferTxId": data_order}, FREE, {"algorithm": "in_use_or_not_on_chain"}),
        (one, algorithm.reference("access"), FREE, {"algorithm": "in_use_or_not_on_chain"}),
        (one, {**code, "serviceId": ""}, FREE, {"algorithm.serviceId": "missing"}),
        (one, {**code, "serviceId": "x"}, FREE, {"algorithm.serviceId": "not_found"}),
        (one, {**code, "documentId": "did:op:0"}, FREE, {"algorithm": "did_not_found"}),
        (one, {**code, "documentId": dataset.did}, FREE, {"algorithm": "not_algo"}),
        ({**one, "documentId": "did:op:0"}, code, FREE, {"dataset.documentId": "did_not_found"}),
        ({**one, "serviceId": "access"}, code, FREE, {"dataset.serviceId": "main_service_compute"}),
    ]
    for data, code_, environment, expected in cases:
        assert error(start(bench, data, code_, environment)) == expected
    assert error(start(bench, one, code, output="{")) == {"output": "invalid"}
    assert start(bench, one, code, nonce=3).status_code == 400
    assert len(bench.cupboard.requests("POST", OPERATOR)) == sent
    assert start(bench, one, code).status_code == 200


def test_the_paid_environment_must_be_paid(bench: Bench, dataset: Published, algorithm: Published) -> None:
    answer = quote(
        bench,
        [dataset.reference("compute"), dataset.reference("compute")],
        algorithm.reference("access"),
        PAID,
    ).json()
    free_rider = bench.order(dataset, answer["datasets"][1]["providerFee"], COMPUTING)
    code = algorithm.reference("access", bench.order(algorithm, answer["algorithm"]["providerFee"], ACCESS))
    assert error(start(bench, dataset.reference("compute", free_rider), code, PAID)) == {
        "order": "fees_not_paid"
    }


def test_time_that_is_over(
    bench: Bench, dataset: Published, algorithm: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, paid = (ordered(bench, dataset, algorithm, environment) for environment in (FREE, PAID))

    def start_after(seconds: float, transactions: tuple[str, str], environment: str) -> httpx.Response:
        later = time.time() + HOUR + seconds
        with monkeypatch.context() as patch:
            for module in (fees, orders):
                patch.setattr(module, "time", Clock(later))
            data_order, code_order = transactions
            return start(
                bench,
                dataset.reference("compute", data_order),
                algorithm.reference("access", code_order),
                environment,
            )

    for asset in (dataset, algorithm):
        for service in asset.ddo["services"]:
            service["timeout"] = 0
        bench.index(asset)
    # Free environments start within 90 seconds of grace, paid ones when they are paid.
    assert start_after(20, free, FREE).status_code == 200
    assert error(start_after(20, paid, PAID)) == {"order": "fees_not_paid"}
    assert error(start_after(2 * HOUR, free, FREE)) == {"dataset.serviceId": "order_invalid"}


class Clock:
    """The module ``time`` at another time."""

    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)

    def __init__(self, now: float) -> None:
        self._now = now

    def time(self) -> float:
        return self._now


ODDITIES: list[Any] = [
    *(None, "", "x", "0x", "²", "../..", "did:op:\0", -1, 0, 1.5, 10**400, True, [], ["x"], {}, {"a": {}}),
]


def odd_requests(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Return a good request with each of its values, at every depth, replaced by two of the oddities in turn."""
    for number, (key, value) in enumerate(request.items()):
        for oddity in (ODDITIES * 2)[number * 5 % len(ODDITIES) :][:2]:
            yield {**request, key: oddity}
        if isinstance(value, dict):
            for inner in odd_requests(value):
                yield {**request, key: inner}
        if isinstance(value, list) and value:
            for inner in odd_requests(value[0]):
                yield {**request, key: [inner]}


def test_odd_values_are_answered(bench: Bench, dataset: Published, algorithm: Published) -> None:
    data_order, code_order = ordered(bench, dataset, algorithm)
    one = dataset.reference("compute", data_order, userdata={})
    code = algorithm.reference("access", code_order, userdata={}, algocustomdata={})
    quoting = {
        "datasets": [one],
        "algorithm": code,
        "compute": {"env": FREE, "validUntil": in_an_hour()},
        "consumerAddress": COMPUTE.address,
    }
    starting = {
        "dataset": one,
        "algorithm": code,
        "environment": FREE,
        "consumerAddress": BOB.address,
        "additionalDatasets": [one],
        "output": {},
    }
    for path, good in (("/initializeCompute", quoting), ("/compute", starting)):
        for request in odd_requests(good):
            data = request.get("dataset")
            did = data.get("documentId") if isinstance(data, dict) else None
            signed = bench.signed(BOB, f"{request['consumerAddress']}{'' if did is None else did}")
            answer = bench.http.post(path, json={**request, **signed})
            assert answer.status_code in (200, 400), (request, answer.text)


# --- trust -------------------------------------------------------------------------------------------------------


def test_trust(bench: Bench, data_files: list[dict[str, Any]], algorithm: Published) -> None:
    dataset = bench.publish(data_files)
    wrong = "0" * 64
    alice, bob = accounts.ALICE.address, BOB.address

    def asked(**compute: Any) -> Any:
        dataset.ddo["services"][1]["compute"] = compute
        bench.index(dataset)
        answer = quote(bench, [dataset.reference("compute")], algorithm.reference("access"))
        return answer.status_code if answer.status_code == 200 else error(answer)["dataset"]

    # As upstream: no list at all trusts everyone.
    assert asked() == 200
    assert asked(**trusting(algorithm)) == 200
    assert asked(**trusting(algorithm, filesChecksum=None, containerSectionChecksum=None)) == 200
    assert asked(**trusting(algorithm, did="did:op:0")) == "not_trusted_algo"
    assert asked(**trusting(algorithm, filesChecksum=wrong)) == "algorithm_file_checksum_mismatch"
    assert asked(**trusting(algorithm, containerSectionChecksum=wrong)) == (
        "algorithm_container_checksum_mismatch"
    )
    assert asked(publisherTrustedAlgorithms=[{}]) == "no_publisherTrustedAlgorithms"
    assert asked(publisherTrustedAlgorithmPublishers=[alice]) == 200
    assert asked(publisherTrustedAlgorithmPublishers=[bob]) == "not_trusted_algo_publisher"
    both = {**trusting(algorithm), "publisherTrustedAlgorithmPublishers": [bob]}
    assert asked(**both) == "not_trusted_algo_publisher"
    both = {**trusting(algorithm, did="did:op:0"), "publisherTrustedAlgorithmPublishers": [alice]}
    assert asked(**both) == "not_trusted_algo"


def test_an_algorithm_changed_after_it_was_trusted(
    bench: Bench, dataset: Published, algorithm: Published
) -> None:
    one, code = dataset.reference("compute"), algorithm.reference("access")
    bench.cupboard.put("/algorithm.py", b"import os  # changed")
    try:
        assert error(quote(bench, [one], code)) == {"dataset": "algorithm_file_checksum_mismatch"}
        bench.cupboard.put("/algorithm.py", b"", status=404)
        assert error(quote(bench, [one], code)) == {"algorithm": "file_unavailable"}
    finally:
        bench.cupboard.put("/algorithm.py", CODE)
    changed = {**CONTAINER, "entrypoint": "sh -c evil"}
    algorithm.ddo["metadata"]["algorithm"]["container"] = changed
    bench.index(algorithm)
    try:
        assert error(quote(bench, [one], code)) == {"dataset": "algorithm_container_checksum_mismatch"}
    finally:
        algorithm.ddo["metadata"]["algorithm"]["container"] = CONTAINER
        bench.index(algorithm)


def test_meta_does_not_smuggle_code_past_the_trust(
    bench: Bench, dataset: Published, algorithm: Published
) -> None:
    data_order, code_order = ordered(bench, dataset, algorithm)
    smuggled = algorithm.reference("access", code_order, meta={"rawcode": "evil", "container": CONTAINER})
    assert start(bench, dataset.reference("compute", data_order), smuggled).status_code == 200
    stage = bench.cupboard.requests("POST", OPERATOR)[-1].json["workflow"]["stages"][0]["algorithm"]
    assert (stage["id"], stage["rawcode"]) == (algorithm.did, "")


def test_credentials_of_dataset_and_algorithm(bench: Bench, dataset: Published, algorithm: Published) -> None:
    data_order, code_order = ordered(bench, dataset, algorithm)
    one, code = dataset.reference("compute", data_order), algorithm.reference("access", code_order)
    denied = {"allow": [], "deny": [{"type": "address", "values": [BOB.address]}]}
    for asset, resource in ((dataset, "dataset"), (algorithm, "algorithm.credentials")):
        asset.ddo["credentials"] = denied
        bench.index(asset)
        refusal = error(start(bench, one, code))
        assert refusal == {
            resource: f"Error: Access to asset {asset.did} was denied with code: "
            "ConsumableCodes.CREDENTIAL_IN_DENY_LIST."
        }
        asset.ddo["credentials"] = {}
        bench.index(asset)


def test_files_of_another_provider(bench: Bench, dataset: Published, algorithm: Published) -> None:
    own = dataset.ddo["services"][1]["files"]
    dataset.ddo["services"][1]["files"] = "0x04" + "11" * 120
    bench.index(dataset)
    try:
        assert error(quote(bench, [dataset.reference("compute")], algorithm.reference("access"))) == {
            "dataset.serviceId": "compute_services_not_in_same_provider"
        }
    finally:
        dataset.ddo["services"][1]["files"] = own
        bench.index(dataset)


def test_consumer_parameters(bench: Bench, dataset: Published, algorithm: Published) -> None:
    data_order, code_order = ordered(bench, dataset, algorithm)
    one, code = dataset.reference("compute", data_order), algorithm.reference("access", code_order)
    declared = [{"name": "epochs", "type": "number", "required": True}]
    algorithm.ddo["metadata"]["algorithm"]["consumerParameters"] = declared
    bench.index(algorithm)
    try:
        assert error(start(bench, one, code)) == {
            "algorithm.algocustomdata": "missing_consumer_parameter epochs"
        }
        assert error(start(bench, one, {**code, "algocustomdata": {"epochs": "many"}})) == {
            "algorithm.algocustomdata": "invalid_consumer_parameter epochs"
        }
        assert start(bench, one, {**code, "algocustomdata": {"epochs": 3}}).status_code == 200
    finally:
        del algorithm.ddo["metadata"]["algorithm"]["consumerParameters"]
        bench.index(algorithm)


# --- jobs --------------------------------------------------------------------------------------------------------


def test_status_needs_no_signature(bench: Bench) -> None:
    bench.cupboard.put(OPERATOR, [{"jobId": "1"}])
    answer = bench.http.get("/compute", params={"consumerAddress": BOB.address})
    assert answer.json() == [{"jobId": "1"}]
    sent = bench.cupboard.requests("GET", OPERATOR)[-1].query
    assert signer_of(f"{BOB.address}{sent.pop('nonce')}", sent.pop("providerSignature")) == (
        accounts.PROVIDER.address
    )
    assert sent == {"owner": BOB.address, "providerAddress": accounts.PROVIDER.address}

    one = {"consumerAddress": BOB.address, "jobId": "1", "documentId": "did:op:1"}
    assert bench.http.get("/compute", params=one).status_code == 200
    sent = bench.cupboard.requests("GET", OPERATOR)[-1].query
    assert signer_of(f"{BOB.address}1{sent['nonce']}", sent["providerSignature"]) == accounts.PROVIDER.address
    assert (sent["jobId"], sent["documentId"]) == ("1", "did:op:1")


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_stop_and_delete(bench: Bench, method: str) -> None:
    bench.cupboard.put(OPERATOR, [{"jobId": "7"}], method=method)
    signed = bench.signed(BOB, f"{BOB.address}7did:op:1")
    fields = {"consumerAddress": BOB.address, "jobId": "7", "documentId": "did:op:1", **signed}
    answer = bench.http.request(method, "/compute", params=fields)
    assert (answer.status_code, answer.json()) == (200, [{"jobId": "7"}])
    sent = bench.cupboard.requests(method, OPERATOR)[-1].query
    assert (sent["owner"], sent["jobId"]) == (BOB.address, "7")
    bench.cupboard.put(OPERATOR, {"error": "no"}, method=method, status=401)
    refused = bench.http.request(
        method, "/compute", params={**fields, **bench.signed(BOB, f"{BOB.address}7did:op:1")}
    )
    assert (refused.status_code, refused.json()) == (401, {"error": "no"})


def result(bench: Bench, index: int, **headers: str) -> httpx.Response:
    signed = bench.signed(BOB, f"{BOB.address}9{index}")
    fields = {"consumerAddress": BOB.address, "jobId": "9", "index": index, **signed}
    return bench.http.get("/computeResult", params=fields, headers=headers)


def test_results_are_streamed(bench: Bench) -> None:
    content = b"x" * 300_000
    disposition = "attachment;filename=model.bin"
    path = "/api/v1/operator/getResult"
    bench.cupboard.put(path, content, Content_Type="application/x-model", Content_Disposition=disposition)
    answer = result(bench, 0)
    assert (answer.status_code, answer.content) == (200, content)
    assert answer.headers["content-disposition"] == disposition
    assert answer.headers["content-type"] == "application/x-model"
    sent = bench.cupboard.requests("GET", path)[-1].query
    assert signer_of(f"{BOB.address}9{sent['nonce']}", sent["providerSignature"]) == accounts.PROVIDER.address
    assert (sent["owner"], sent["jobId"], sent["index"]) == (BOB.address, "9", "0")

    bench.cupboard.put(path, b"xx", status=206, Content_Range="bytes 0-1/9")
    assert result(bench, 0, Range="bytes=0-1").status_code == 206
    assert bench.cupboard.requests("GET", path)[-1].headers["Range"] == "bytes=0-1"

    bench.cupboard.put(path, {"error": "No such index 5 in this compute job"}, status=404)
    missing = result(bench, 5)
    assert (missing.status_code, missing.json()) == (404, {"error": "No such index 5 in this compute job"})


def test_results_are_the_owners(bench: Bench) -> None:
    signed = bench.signed(accounts.CARLOS, f"{BOB.address}90")
    fields = {"consumerAddress": BOB.address, "jobId": "9", "index": 0, **signed}
    answer = bench.http.get("/computeResult", params=fields)
    assert answer.status_code == 400
    assert "Invalid signature" in answer.json()["errors"]["signature"]
