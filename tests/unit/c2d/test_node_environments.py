"""What a node's environments are for a wallet: shown whatever they cost and where, and closed where the node is."""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest

from airflow_ocean.c2d import cache
from airflow_ocean.c2d.environments import choose
from airflow_ocean.c2d.errors import InvalidInputError, NotAllowedError
from airflow_ocean.c2d.services.node import NodeServices
from airflow_ocean.c2d.services.node_answers import FREE, read_environments
from airflow_ocean.c2d.wallet import Wallet
from include.localnet import accounts
from include.localnet.contracts import ensure_deployed
from include.localnet.settings import CHAIN_ID
from tests.support.anvil import running_anvil
from tests.unit.localnet.node_bench import NodeProcess
from tests.unit.localnet.node_bench import Wallet as Signer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from airflow_ocean.c2d.environments import ComputeEnvironment

    Configured = Callable[..., AbstractContextManager[NodeProcess]]

BOB = accounts.BOB.address
RESOURCES = [{"id": name, "total": 8, "max": 4, "min": 1} for name in ("cpu", "ram", "disk")]
FREE_PART = {"maxJobDuration": 600, "maxJobs": 4}
PRICED = {"prices": [{"id": "cpu", "price": 2}], "feeToken": "0x" + "aB" * 20}
CONTRACTS = [{str(CHAIN_ID): ["0x" + "cd" * 20]}]
RAW = {
    "meta": {"rawcode": "exit 0", "container": {"entrypoint": "/bin/sh $ALGO", "image": "any", "tag": "v1"}}
}


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Configured]:
    """Return what runs a node whose environment is configured in some way."""
    home: Path = tmp_path_factory.mktemp("nodes")
    with running_anvil(home / "chain") as chain:
        ensure_deployed(chain, home / "address.json")

        @contextmanager
        def run(**environment: Any) -> Iterator[NodeProcess]:
            description = json.dumps({"resources": RESOURCES, **environment})
            node = NodeProcess(
                home / "node", chain.rpc_url, home / "address.json", DOCKER_COMPUTE_ENVIRONMENTS=description
            )
            cache.forget()
            node.start()
            try:
                yield node
            finally:
                node.stop()
                node.http.close()

        yield run


def environments(node: NodeProcess, chain_id: int = CHAIN_ID) -> list[ComputeEnvironment]:
    services = NodeServices(cast("Any", None), Wallet(accounts.BOB.private_key), chain_id, node.url)
    try:
        return services.environments()
    finally:
        services.close()


def start(node: NodeProcess, environment: ComputeEnvironment) -> tuple[int, str]:
    """Start a job of raw code, and return what the node answers."""
    free = environment.id.endswith(FREE)
    signer = Signer(accounts.BOB)
    signer.nonce = int(node.http.get("/api/services/nonce", params={"userAddress": BOB}).json()["nonce"])
    body = {
        **signer.fields("freeStartCompute" if free else "startCompute"),
        "environment": environment.id.removesuffix(FREE),
        "datasets": [],
        "algorithm": RAW,
        "maxJobDuration": 60,
    }
    response = node.http.post(f"/api/services/{'freeCompute' if free else 'compute'}", json=body)
    return response.status_code, response.text


@pytest.mark.parametrize("fees", [None, {"1": [PRICED]}])
def test_a_free_part_is_shown_whatever_is_paid_elsewhere(configured: Configured, fees: Any) -> None:
    with configured(fees=fees, free=FREE_PART) as node:
        (free,) = environments(node)
        assert choose([free], "free", node.url) is free
        # Where it has no limits of its own, those of the whole hold.
        assert (free.cpu_number, free.ram_gb, free.max_job_duration) == (4, 4, 600)
        assert start(node, free)[0] == 200
        elsewhere = environments(node, 1)
        assert [found.is_free for found in elsewhere] == ([True] if fees is None else [False, True])


@pytest.mark.parametrize(
    ("access", "expected"),
    [
        ({"addresses": [], "accessLists": []}, "open"),
        ({"addresses": [accounts.ALICE.address], "accessLists": None}, "open"),
        ({"addresses": [accounts.ALICE.address]}, "open"),
        ({"addresses": [BOB], "accessLists": []}, "open"),
        ({"addresses": [BOB], "accessLists": CONTRACTS}, "open"),
        ({"addresses": [accounts.ALICE.address], "accessLists": []}, "closed"),
        ({"addresses": [BOB.lower()], "accessLists": []}, "closed"),
        ({"addresses": [], "accessLists": CONTRACTS}, "listed"),
    ],
)
def test_who_is_let_in_is_known_before_paying(configured: Configured, access: Any, expected: str) -> None:
    with configured(access=access, free={**FREE_PART, "access": access}) as node:
        paid, free = environments(node)
        for part, choice in ((paid, "cheapest"), (free, "free")):
            assert part.access == expected
            status, text = start(node, part)
            assert ("Access denied" in text) is (status == 403) is (expected != "open"), text
            if expected == "open":
                choose([part], choice, node.url)
                continue
            with pytest.raises(InvalidInputError, match="whom a contract lists|not for this wallet"):
                choose([part], choice, node.url)
            if expected == "listed":
                assert choose([part], part.id, node.url) is part
            else:
                with pytest.raises(NotAllowedError, match="does not let this wallet in"):
                    choose([part], part.id, node.url)


def test_only_what_cannot_be_understood_is_passed_over(
    configured: Configured, caplog: pytest.LogCaptureFixture
) -> None:
    with configured(free=FREE_PART) as node:
        entry = node.environment()
    caplog.set_level(logging.WARNING)
    broken = [{"free": {}}, None, "environment", {**entry, "consumerAddress": "nobody"}]
    found = read_environments([*broken, entry], CHAIN_ID, BOB, "listing")
    assert [part.id for part in found] == [entry["id"], entry["id"] + FREE]
    assert len(caplog.records) == len(broken) - 1, "what offers nothing can be understood"
    with pytest.raises(InvalidInputError, match="nobody.*the node has no other"):
        read_environments(broken[-1:], CHAIN_ID, BOB, "listing")
    for no_list in ({}, None, "environments"):
        with pytest.raises(InvalidInputError, match="no list of environments"):
            read_environments(no_list, CHAIN_ID, BOB, "listing")
