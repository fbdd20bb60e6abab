"""The operator-service's routes: answers, status codes and words, called as the Provider calls them."""

from __future__ import annotations

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from include.localnet.operator_service.store import NonceUsed, Store

from .operator_service_bench import (
    BOB,
    CONSUMER,
    OCEAN,
    OWNER,
    PROVIDER,
    Service,
    container,
    raw,
    running_service,
    stage,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

SLEEP = "import time; time.sleep(300)"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("operator") / "state", MAX_JOBS="2") as running:
        yield running


def refusal(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


def test_root_says_what_it_is(service: Service) -> None:
    answer = service.http.get("/").json()
    assert answer["software"] == "Operator service"
    assert set(answer) == {"software", "version", "address", "algoTimeLimit", "storageExpiry"}


def test_environments_are_one_free_and_one_paid(service: Service) -> None:
    answer = service.http.get("/api/v1/operator/environments", params={"chainId": 8996})
    assert answer.status_code == 200
    free, paid = answer.json()
    assert (free["id"], free["priceMin"], free["free"]) == ("ocean-compute", 0, True)
    assert (paid["id"], paid["priceMin"] > 0, paid["free"]) == ("ocean-compute-env2", True, False)
    for environment in (free, paid):
        assert environment["consumerAddress"] == CONSUMER.address
        assert environment["feeToken"] == OCEAN
        assert environment["chainId"] == 8996
        assert environment["maxJobs"] == 2
        assert time.time() - 60 < float(environment["lastSeen"]) < time.time() + 60
        assert set(environment) >= {
            "cpuNumber", "cpuType", "gpuNumber", "ramGB", "diskGB", "desc", "currentJobs", "storageExpiry", "maxJobDuration",
        }  # fmt: skip


def test_environments_want_a_parameter(service: Service) -> None:
    status, error = refusal(service.http.get("/api/v1/operator/environments"))
    assert status == 400
    assert "Did not attempt to load JSON data" in error


def test_start_answers_one_status_object(service: Service) -> None:
    answer = service.post(workflow=raw("print('hello')"), agreementId="0xAbC")
    assert answer.status_code == 200
    (status,) = answer.json()
    assert status == {
        "agreementId": "0xAbC",
        "jobId": status["jobId"],
        "owner": OWNER,
        "status": 1,
        "statusText": "Warming up",
        "dateCreated": status["dateCreated"],
        "dateFinished": None,
        "results": "",
        "stopreq": 0,
        "removed": 0,
        "algoDID": "",
        "inputDID": [],
    }
    assert isinstance(status["dateCreated"], str)
    assert abs(float(status["dateCreated"]) - time.time()) < 60
    over = service.wait(status["jobId"])
    assert (over["status"], over["statusText"], over["stopreq"]) == (70, "Job finished", 0)
    assert float(over["dateFinished"]) >= float(over["dateCreated"])
    assert [(r["filename"], r["type"]) for r in over["results"]] == [
        ("algorithm.log", "algorithmLog"),
        ("configure.log", "configrationLog"),
        ("publish.log", "publishLog"),
    ]
    assert over["results"][0]["filesize"] == len("hello\n")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"workflow": ...}, '"workflow" is required in the call to POST:/compute'),
        ({"agreementId": ...}, '"agreementId" is required in the call to POST:/compute'),
        (
            {"owner": None, "providerSignature": ...},
            '"providerSignature" is required in the call to POST:/compute',
        ),
        ({"environment": ...}, '"environment" is required in the call to POST:/compute'),
        ({"nonce": ...}, '"nonce" is required in the call to POST:/compute'),
        ({"workflow": {}}, "`workflow` is required in the payload and must include workflow stages"),
        ({"environment": "elsewhere"}, "Environment invalid or does not exist"),
        ({"environment": {"id": 1}}, "Environment invalid or does not exist"),
        ({"providerSignature": "0x12"}, "Failed to recover address"),
        ({"providerSignature": None}, "Failed to recover address"),
        ({"workflow": {"stages": []}}, "Missing stages"),
        ({"workflow": {"stages": 5}}, "Missing stages"),
        ({"workflow": [1]}, "Missing stages"),
        ({"workflow": {"stages": [{}, {}]}}, "Multiple stages are not supported yet"),
        ({"workflow": {"stages": [{}]}}, "Missing algorithm in stage 0"),
        ({"workflow": {"stages": ["x"]}}, "Missing algorithm in stage 0"),
        ({"workflow": {"stages": [{"algorithm": {}}]}}, "Missing compute in stage 0"),
        ({"workflow": {"stages": [{"algorithm": {}, "compute": {}}]}}, "Missing input in stage 0"),
        (
            {"workflow": {"stages": [{"algorithm": {}, "compute": {}, "input": []}]}},
            "Missing output in stage 0",
        ),
        ({"workflow": stage([])}, "Malformed algorithm in stage 0"),  # type: ignore[arg-type]
        ({"workflow": stage({}, [7])}, "Malformed input in stage 0"),  # type: ignore[list-item]
        ({"workflow": raw("1"), "validUntil": "soon"}, "`validUntil` must be a number."),
        ({"nonce": "often"}, "Failed to recover address"),
    ],
)
def test_start_refuses(service: Service, changes: dict[str, Any], error: str) -> None:
    changes = {"workflow": raw("print('hello')"), **changes}
    before = len(service.call("GET").json())
    if error == "Failed to recover address" and changes.get("nonce") == "often":
        changes["providerSignature"] = "no hex"
    assert refusal(service.post(**changes)) == (400, error)
    assert len(service.call("GET").json()) == before


def test_start_refuses_what_is_no_payload(service: Service) -> None:
    url = "/api/v1/operator/compute"
    assert refusal(service.http.post(url, json={})) == (400, "payload seems empty.")
    assert refusal(service.http.post(url, json=[1])) == (400, "payload seems empty.")
    assert refusal(service.http.post(url)) == (400, "payload seems empty.")
    assert refusal(service.http.post(url, content=b"{"))[0] == 400
    assert refusal(service.http.post(url, content=b" " * (17 << 20)))[0] == 413


def test_unknown_paths_and_methods(service: Service) -> None:
    assert service.http.get("/api/v1/operator/nothing").status_code == 404
    assert service.http.put("/api/v1/operator/environments").status_code == 405


@pytest.mark.parametrize("nonce", ["often", "nan", "-1", "inf", "1e999"])
def test_nonces_are_numbers(service: Service, nonce: str) -> None:
    signed = service.signed(OWNER, nonce=nonce)
    answer = service.http.get("/api/v1/operator/compute", params={"owner": OWNER, **signed})
    assert refusal(answer) == (400, "`nonce` must be a number.")


def test_a_request_is_good_once_but_may_be_overtaken(service: Service) -> None:
    now = time.time_ns()
    url = "/api/v1/operator/compute"
    later, earlier = service.signed(OWNER, nonce=now + 1), service.signed(OWNER, nonce=now)
    assert service.http.get(url, params={"owner": OWNER, **later}).status_code == 200
    assert service.http.get(url, params={"owner": OWNER, **earlier}).status_code == 200
    for used in (later, earlier):
        status, error = refusal(service.http.get(url, params={"owner": OWNER, **used}))
        assert status == 400
        assert error == f"Invalid signature expected nonce ({now + 1}) > current nonce ({used['nonce']})."


def test_old_nonces_are_forgotten_and_refused(tmp_path: Any) -> None:
    store = Store(tmp_path / "db")
    for nonce in range(100, 1300):
        store.use_nonce("0xA", nonce)
    with pytest.raises(NonceUsed):
        store.use_nonce("0xA", 101)
    with pytest.raises(NonceUsed):
        store.use_nonce("0xA", "1299.0")
    store.use_nonce("0xA", "1299.5")
    store.use_nonce("0xB", 101)


def test_status_by_owner_agreement_and_job(service: Service) -> None:
    agreement = "0x" + os.urandom(32).hex()
    owner = BOB.address.lower()
    job = service.start("print(1)", agreementId=agreement, owner=owner)
    assert [j["jobId"] for j in service.call("GET", owner=owner).json()] == [job]
    assert [j["jobId"] for j in service.call("GET", owner=owner, agreementId=agreement).json()] == [job]
    assert service.call("GET", owner=owner, agreementId="0x00").json() == []
    assert service.call("GET", job).json() == []  # another owner's
    assert service.call("GET", "f" * 32).json() == []
    by_agreement = {"agreementId": agreement, **service.signed("None")}
    assert len(service.http.get("/api/v1/operator/compute", params=by_agreement).json()) == 1
    # The body serves where there is no query.
    body = json.dumps({"owner": owner, **service.signed(owner)})
    assert len(service.http.request("GET", "/api/v1/operator/compute", content=body).json()) == 1


def test_status_refuses(service: Service) -> None:
    url = "/api/v1/operator/compute"
    which = "You have to specify one of agreementId, jobId or owner"
    assert refusal(service.http.get(url, params={"nonce": 1})) == (400, which)
    assert refusal(service.http.get(url, params={"owner": "x"})) == (400, which)
    assert refusal(service.http.get(url, params={"owner": OWNER})) == (400, "Failed to recover address")


def test_stop_and_delete_refuse(service: Service) -> None:
    url = "/api/v1/operator/compute"
    for method in ("PUT", "DELETE"):
        for missing in ("owner", "providerSignature", "nonce"):
            query = {"owner": OWNER, **service.signed(OWNER)}
            del query[missing]
            error = f'"{missing}" is required in the call to {method}:/compute'
            assert refusal(service.http.request(method, url, params=query)) == (400, error)
        query = {"owner": OWNER, **service.signed(OWNER), "providerSignature": "0x00"}
        assert refusal(service.http.request(method, url, params=query)) == (400, "Failed to recover address")
        query = {"owner": "", **service.signed("")}
        which = "You have to specify one of agreementId, jobId or owner"
        assert refusal(service.http.request(method, url, params=query)) == (400, which)
    assert refusal(service.http.put(url, json={})) == (400, "payload seems empty.")
    assert service.http.request("DELETE", url, json={}).json() == ""


def test_only_the_jobs_provider_stops_it(service: Service) -> None:
    job = service.start(SLEEP)
    service.wait(job, lambda status: status["status"] == 40)
    assert service.call("PUT", job, key=BOB).status_code == 200
    assert service.status(job)["stopreq"] == 0
    assert refusal(service.result(job, 0, key=BOB)) == (404, f"Provider {BOB.address} mismatch for job {job}")
    (stopped,) = service.call("PUT", job).json()
    assert stopped["stopreq"] == 1
    over = service.wait(job)
    assert (over["status"], over["stopreq"]) == (70, 1)
    assert "stopped on request" in service.text(over, "algorithm.log")


def test_running_jobs(service: Service) -> None:
    job = service.start(SLEEP)
    service.wait(job, lambda status: status["status"] == 40)
    (running,) = [j for j in service.http.get("/api/v1/operator/runningjobs").json() if j["jobId"] == job]
    assert running["namespace"] == "ocean-compute"
    assert set(running) == {
        "agreementId", "jobId", "owner", "status", "statusText", "dateCreated", "namespace", "algoDID", "inputDID",
    }  # fmt: skip
    environments = service.http.get("/api/v1/operator/environments", params={"chainId": 1}).json()
    assert [environment["currentJobs"] for environment in environments] == [1, 0]
    service.call("PUT", job)
    service.wait(job)
    assert job not in [j["jobId"] for j in service.http.get("/api/v1/operator/runningjobs").json()]


def test_results_by_index(service: Service) -> None:
    code = """
import os
for name in ("b.json", "a", "..%2fup", "x\\r\\nSet-Cookie: y=1", "é.csv"):
    open("/data/outputs/" + name, "w").write("content of " + name)
"""
    job = service.start(code)
    over = service.wait(job)
    assert [r["type"] for r in over["results"]][:6] == ["output"] * 5 + ["algorithmLog"]
    for index, entry in enumerate(over["results"][:5]):
        answer = service.result(job, index)
        assert answer.status_code == 200
        assert answer.content.decode() == "content of " + entry["filename"]
        assert int(answer.headers["Content-Length"]) == entry["filesize"]
        assert "set-cookie" not in answer.headers
        assert answer.headers["Access-Control-Expose-Headers"] == "Content-Disposition"
    b = [r["filename"] for r in over["results"]].index("b.json")
    answer = service.result(job, b)
    assert answer.headers["Content-Disposition"] == "attachment;filename=b.json"
    assert answer.headers["Content-Type"] == "application/json"
    part = service.http.get(
        answer.request.url.copy_merge_params(service.signed(f"{OWNER}{job}")), headers={"Range": "bytes=0-6"}
    )
    assert (part.status_code, part.text) == (206, "content")


def test_results_refuse(service: Service) -> None:
    job = service.start("print(1)")
    service.wait(job)
    count = 3
    assert refusal(service.result(job, count)) == (404, f"No such index {count} in this compute job")
    assert refusal(service.result(job, -1)) == (404, "Negative index -1")
    status, error = refusal(service.result(job, "one"))  # type: ignore[arg-type]
    assert (status, error.startswith("Error getResult: ")) == (400, True)
    other = CONSUMER.address
    assert refusal(service.result(job, 0, owner=other)) == (404, f"Owner {other} mismatch for job {job}")
    assert refusal(service.result("f" * 32, 0)) == (404, f"Owner {OWNER} mismatch for job {'f' * 32}")
    for missing in ("owner", "providerSignature", "nonce", "index", "jobId"):
        query = {"owner": OWNER, "jobId": job, "index": 0, **service.signed(f"{OWNER}{job}")}
        del query[missing]
        error = f'"{missing}" is required in the call to GET:/getResult'
        assert refusal(service.http.get("/api/v1/operator/getResult", params=query)) == (400, error)
    query = {
        "owner": OWNER,
        "jobId": job,
        "index": 0,
        **service.signed(f"{OWNER}{job}"),
        "providerSignature": "0x1",
    }
    answer = service.http.get("/api/v1/operator/getResult", params=query)
    assert refusal(answer) == (400, "Failed to recover address")


def test_no_results_while_running(service: Service) -> None:
    job = service.start(SLEEP)
    assert refusal(service.result(job, 0)) == (404, f"No results for job {job}")
    (removed,) = service.call("DELETE", job).json()
    assert (removed["stopreq"], removed["removed"]) == (1, 1)
    over = service.wait(job)
    assert over["results"] == ""


def test_an_agreement_has_one_unfinished_job(service: Service) -> None:
    agreement = "0x" + os.urandom(32).hex()
    gate = threading.Barrier(8)

    def start(_: int) -> int:
        gate.wait()
        return service.post(workflow=raw(SLEEP), agreementId=agreement).status_code

    with ThreadPoolExecutor(8) as pool:
        answers = sorted(pool.map(start, range(8)))
    assert answers == [200] + [400] * 7
    in_use = (400, "`agreementId` already in use for other job.")
    assert refusal(service.post(workflow=raw(SLEEP), agreementId=agreement)) == in_use
    (job,) = service.call("GET", agreementId=agreement).json()
    service.call("PUT", job["jobId"])
    service.wait(job["jobId"])
    again = service.start("print(1)", agreementId=agreement)
    service.wait(again)


def test_allowed_providers(tmp_path: Any) -> None:
    allowed = json.dumps([PROVIDER.address.upper().replace("0X", "0x")])
    with running_service(tmp_path / "state", ALLOWED_PROVIDERS=allowed) as service:
        assert service.call("GET").status_code == 200
        status, error = refusal(service.call("GET", key=BOB))
        assert status == 401
        assert f"the signing ethereum account {BOB.address} is not authorized to use this service." in error


def test_entrypoint_is_a_shell_line(service: Service) -> None:
    workflow = raw("print('from python')", entrypoint="echo one && python $ALGO; exit 4")
    over = service.wait(service.start("", workflow=workflow))
    assert over["status"] == 70
    log = service.text(over, "algorithm.log")
    assert log.startswith("one\nfrom python\n")
    assert "exit status 4" in log
    assert container()["image"] in service.text(over, "configure.log")


def test_idle_memory(service: Service) -> None:
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    resident = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))
    assert resident < 110 * 1024
