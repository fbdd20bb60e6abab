"""What chain, Provider and Aquarius may answer wrongly: each has its clear error, and no transaction is sent."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from airflow_ocean.c2d import cache
from airflow_ocean.c2d.errors import (
    AssetNotFoundError,
    InsufficientFundsError,
    InvalidInputError,
    JobNotFoundError,
    NotAllowedError,
    OceanError,
    ServiceUnavailableError,
)
from airflow_ocean.operators.assets import OceanAllowAlgorithmOperator, OceanPublishDatasetOperator
from airflow_ocean.operators.compute import OceanPayForComputeOperator, OceanStartComputeOperator
from airflow_ocean.operators.datatokens import OceanTransferDatatokensOperator
from airflow_ocean.operators.results import OceanFetchResultsOperator
from airflow_ocean.sensors import OceanComputeSensor
from include.localnet.accounts import ALICE
from tests.e2e.bad_answers import (
    BROKEN,
    TOO_LARGE,
    answers,
    edited,
    fee,
    replaced,
    rpc,
    service,
    signed_fee,
    to,
)
from tests.e2e.fault_scenarios import paid_order
from tests.e2e.fault_world import ETHER, Wallet, World
from tests.support.airflow import recorded_context
from tests.support.fault_proxy import Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.fault_proxy import Answer, Request

pytestmark = pytest.mark.e2e

OTHER_HASH = "0x" + "ab" * 32
NOWHERE = "0x" + "12" * 20


@pytest.fixture(scope="module")
def wallet(world: World) -> Wallet:
    """A consumer with all it needs, and nothing sent as long as all tests pass."""
    return world.wallet(ocean=100 * ETHER, held=ETHER, quick=ETHER)


@pytest.fixture(scope="module")
def order(world: World) -> tuple[Wallet, dict[str, Any]]:
    payer = world.wallet(ocean=100 * ETHER)
    return payer, paid_order(world, payer, paid=True).to_dict()


class Tasks:
    """Runs tasks in this process, through the proxy."""

    def __init__(
        self, world: World, patch: pytest.MonkeyPatch, wallet: Wallet, order: Any, folder: Path
    ) -> None:
        self.world, self._patch, self.wallet, self.folder = world, patch, wallet, folder
        self.payer, self.order = order
        self.context = recorded_context()

    def run(self, name: str) -> Any:
        """Run the task of a name."""
        operator, arguments, key = getattr(self, name)()
        self._patch.setenv("AIRFLOW_CONN_OCEAN_BAD", self.world.connection(key))
        return operator(task_id="a_task", ocean_conn_id="ocean_bad", **arguments).execute(self.context)

    def publish(self) -> tuple[Any, dict[str, Any], str]:
        url = f"{self.world.localnet.files_url}/branin.arff"
        pricing = {"type": "fixed_rate", "rate": "1"}
        return (
            OceanPublishDatasetOperator,
            {"asset_name": "x", "url": url, "pricing": pricing},
            self.wallet.private_key,
        )

    def allow(self) -> tuple[Any, dict[str, Any], str]:
        dids = {"dataset_did": self.did("closed"), "algorithm_did": self.did("quick")}
        return OceanAllowAlgorithmOperator, dids, ALICE.private_key

    def transfer(self) -> tuple[Any, dict[str, Any], str]:
        arguments = {
            "asset_dids": self.did("held"),
            "method": "transfer",
            "to": ALICE.address,
            "amount": "0.1",
        }
        return OceanTransferDatatokensOperator, arguments, self.wallet.private_key

    def buy(self) -> tuple[Any, dict[str, Any], str]:
        arguments = {"asset_dids": self.did("sold"), "method": "buy", "max_cost": "50"}
        return OceanTransferDatatokensOperator, arguments, self.wallet.private_key

    def pay(self) -> tuple[Any, dict[str, Any], str]:
        arguments = {
            "dataset_dids": [self.did("held")], "algorithm_did": self.did("quick"),
            "environment": self.world.paid_environment.id, "duration": 600, "max_cost": "60",
        }  # fmt: skip
        return OceanPayForComputeOperator, arguments, self.wallet.private_key

    def start(self) -> tuple[Any, dict[str, Any], str]:
        return OceanStartComputeOperator, {"order": self.order}, self.payer.private_key

    def wait(self) -> tuple[Any, dict[str, Any], str]:
        over = self.world.jobs_over
        return OceanComputeSensor, {"job_id": over.good}, over.wallet.private_key

    def fetch(self) -> tuple[Any, dict[str, Any], str]:
        over = self.world.jobs_over
        arguments = {"job_id": over.good, "artifact_base": str(self.folder)}
        return OceanFetchResultsOperator, arguments, over.wallet.private_key

    def did(self, name: str) -> str:
        return self.world.assets[name].did

    @contextmanager
    def nothing_sent(self) -> Iterator[None]:
        """Check that no wallet sends a transaction."""
        wallets = (
            self.wallet.address,
            self.payer.address,
            ALICE.address,
            self.world.jobs_over.wallet.address,
        )
        before = [self.world.nonce(address) for address in wallets]
        jobs = len(self.world.jobs(self.payer.address))
        yield
        assert [self.world.nonce(address) for address in wallets] == before, "a transaction was sent"
        assert len(self.world.jobs(self.payer.address)) == jobs, "a job was started"
        assert not [path for path in self.folder.rglob("*") if path.is_file()], "something was kept"


@pytest.fixture
def tasks(
    world: World,
    wallet: Wallet,
    order: tuple[Wallet, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Tasks:
    # Otherwise some things would be asked once in this process, and not in the tests that change the answer.
    cache.forget()
    return Tasks(world, monkeypatch, wallet, order, tmp_path)


# Each kind of request that comes before the first transaction: the task that makes it, and how it is recognised.
REQUESTS: dict[str, tuple[str, Callable[[Request], bool]]] = {
    "the chain's id": ("transfer", rpc("eth_chainId")),
    "code": ("transfer", rpc("eth_getCode")),
    "a contract's view": ("transfer", rpc("eth_call")),
    "a contract's view, buying": ("buy", rpc("eth_call")),
    "an estimate": ("transfer", rpc("eth_estimateGas")),
    "the newest block": ("transfer", rpc("eth_getBlockByNumber")),
    "the tip": ("transfer", rpc("eth_maxPriorityFeePerGas")),
    "the wallet's coins": ("transfer", rpc("eth_getBalance")),
    "the wallet's nonce": ("transfer", rpc("eth_getTransactionCount")),
    "a DDO": ("transfer", to("aquarius", "/ddo/did:op:")),
    "DDOs, paying": ("pay", to("aquarius", "/query")),
    "the newest block's number": ("allow", rpc("eth_blockNumber")),
    "a dataset's changes": ("allow", rpc("eth_getLogs")),
    "validation": ("allow", to("aquarius", "/ddo/validate")),
    "the Provider's root": ("pay", to("provider", "/")),
    "file infos": ("allow", to("provider", "/fileinfo")),
    "encryption": ("allow", to("provider", "/encrypt")),
    "environments": ("pay", to("provider", "/computeEnvironments")),
    "a quote": ("pay", to("provider", "/initializeCompute")),
    "the job list": ("start", to("provider", "/compute", "GET")),
    "a job's state": ("wait", to("provider", "/compute", "GET")),
    "a job's state, fetching": ("fetch", to("provider", "/compute", "GET")),
}


@pytest.mark.parametrize("request_kind", REQUESTS)
def test_broken_answers(tasks: Tasks, request_kind: str) -> None:
    task, applies = REQUESTS[request_kind]
    unclear = []
    with tasks.nothing_sent():
        for name, change in BROKEN.items():
            problem = _problem_of(tasks, task, Rule(applies, change))
            if problem:
                unclear.append(f"{name}: {problem}")
    assert not unclear, "\n".join(unclear)


@pytest.mark.parametrize(
    "request_kind", ["the chain's id", "a DDO", "a quote", "the job list", "a job's state"]
)
def test_huge_answers(tasks: Tasks, request_kind: str) -> None:
    task, applies = REQUESTS[request_kind]
    with tasks.nothing_sent():
        assert _problem_of(tasks, task, Rule(applies, TOO_LARGE)) is None


def _problem_of(tasks: Tasks, task: str, rule: Rule) -> str | None:
    """Return what is wrong with a task's error, None when it is a clear one."""
    with tasks.world.proxy.answering(rule):
        try:
            result = tasks.run(task)
        except OceanError as error:
            return None if len(str(error)) > 30 else f"says only {error!r}"
        except Exception as error:
            return f"{type(error).__name__}: {str(error)[:200]}"
    return f"was taken for good, the task returned {result!r}"


DDO, DDOS = to("aquarius", "/ddo/did:op:"), to("aquarius", "/query")
QUOTE = to("provider", "/initializeCompute")
ENVIRONMENTS, LIST = to("provider", "/computeEnvironments"), to("provider", "/compute", "GET")
JOB = {"jobId": "1", "status": 70, "agreementId": OTHER_HASH, "owner": NOWHERE, "dateCreated": "1"}


def environments(**fields: Any) -> Callable[[Answer], Answer]:
    def change(answer: Any) -> None:
        for listed in answer.values():
            for environment in listed:
                environment.update(fields)

    return edited(change)


def every_hit(change: Callable[[Any], Any]) -> Callable[[Answer], Answer]:
    """Change in place each DDO that a search has found."""
    return edited(lambda answer: [change(hit["_source"]) for hit in answer["hits"]["hits"]])


def every_service(**fields: Any) -> Callable[[Answer], Answer]:
    """Change the first service of each DDO that a search has found."""
    return every_hit(lambda ddo: ddo["services"][0].update(fields))


# Well-formed, and not possible: task, request, answer, error, words of its message.
IMPOSSIBLE: dict[str, tuple[str, Any, Any, type[OceanError], str]] = {
    "a DDO of another chain": (
        "pay", DDOS, every_hit(lambda ddo: ddo.update(chainId=1)), InvalidInputError, "lives on chain 1"),
    "a DDO of another asset": (
        "transfer", DDO, edited(lambda ddo: ddo.update(id="did:op:" + "0" * 64)), InvalidInputError, "asked for did:op:"),
    "a DDO with another NFT": (
        "transfer", DDO, edited(lambda ddo: ddo.update(nftAddress=NOWHERE)), InvalidInputError, "asked for did:op:"),
    "a withdrawn asset": (
        "pay", DDOS, every_hit(lambda ddo: ddo["nft"].update(state=1)), AssetNotFoundError, "no longer active"),
    "a DDO without services": (
        "pay", DDOS, every_hit(lambda ddo: ddo.update(services=[])), AssetNotFoundError, "no longer active"),
    "a DDO whose NFT is no object": (
        "pay", DDOS, every_hit(lambda ddo: ddo.update(nft=[1])), AssetNotFoundError, "no longer active"),
    "a dataset that is an algorithm": (
        "allow", DDO, edited(lambda ddo: ddo["metadata"].update(type="dataset")), InvalidInputError, "not an algorithm"),
    "services that are no list": (
        "pay", DDOS, every_hit(lambda ddo: ddo.update(services=5)), InvalidInputError, "DDO is incomplete"),
    "a datatoken that is no address": (
        "transfer", DDO, service(datatokenAddress="0x12"), InvalidInputError, "DDO is incomplete"),
    "a datatoken where no contract is": (
        "transfer", DDO, service(datatokenAddress=NOWHERE), InvalidInputError, "no datatoken contract"),
    "a time-out that is no number": (
        "pay", DDOS, every_service(timeout="soon"), InvalidInputError, "DDO is incomplete"),
    "an endpoint that is a file": (
        "pay", DDOS, every_service(serviceEndpoint="file:///etc/passwd"), OceanError, "file:///etc/passwd"),
    "an endpoint that is no URL": (
        "pay", DDOS, every_service(serviceEndpoint="http://["), OceanError, "http://"),
    "an order nobody offered": (
        "pay", QUOTE, edited(lambda quote: quote["datasets"][0].update(validOrder=OTHER_HASH)),
        InvalidInputError, "nobody offered"),
    "an order of another asset in place of a fee": (
        "pay", QUOTE, edited(lambda quote: quote.update(algorithm={"validOrder": OTHER_HASH})),
        InvalidInputError, "nobody offered"),
    "too few datasets": (
        "pay", QUOTE, edited(lambda quote: quote["datasets"].clear()), InvalidInputError, "unknown form"),
    "a negative fee": ("pay", QUOTE, fee(providerFeeAmount="-5"), InvalidInputError, "providerFeeAmount"),
    "a fee of more than there is": (
        "pay", QUOTE, signed_fee(providerFeeAmount=str(10**30)), OceanError, "costs 1000000000000 of token"),
    "a fee that no token can have": (
        "pay", QUOTE, fee(providerFeeAmount=str(2**300)), InvalidInputError, "providerFeeAmount"),
    "a fee with a point": ("pay", QUOTE, fee(providerFeeAmount=1.5), InvalidInputError, "providerFeeAmount"),
    "a fee in no token": ("pay", QUOTE, fee(providerFeeToken="OCEAN"), InvalidInputError, "providerFeeToken"),
    "a fee in a token that is not there": (
        "pay", QUOTE, signed_fee(providerFeeToken=NOWHERE, providerFeeAmount="1"), InvalidInputError, "no datatoken contract"),
    "a fee without its signature": ("pay", QUOTE, fee(r="", s=""), InvalidInputError, "unknown form"),
    "a fee with another's signature": (
        "pay", QUOTE, fee(r=OTHER_HASH), OceanError, "not that of"),
    "a negative price": ("pay", ENVIRONMENTS, environments(priceMin=-1), InvalidInputError, "unknown form"),
    "a price that is no number": (
        "pay", ENVIRONMENTS, environments(priceMin="NaN"), InvalidInputError, "unknown form"),
    "an environment without address": (
        "pay", ENVIRONMENTS, environments(consumerAddress="me"), InvalidInputError, "consumerAddress"),
    "no environment at all": ("pay", ENVIRONMENTS, replaced([]), InvalidInputError, "no compute environment"),
    "an order of another asset": (
        "start other", lambda _: False, None, NotAllowedError, "(?i)order|transaction"),
    "a list of jobs without ids": (
        "start", LIST, replaced([{"status": 1}]), InvalidInputError, "unknown form"),
    "another job": ("wait", LIST, replaced([JOB]), JobNotFoundError, "knows no job"),
    "a state that is no number": (
        "wait", LIST, edited(lambda jobs: jobs[0].update(status="fine")), InvalidInputError, "unknown form"),
    "an end in a far future": (
        "wait", LIST, edited(lambda jobs: jobs[0].update(dateFinished="1e300")), InvalidInputError, "unknown form"),
    "results that are no list": (
        "fetch", LIST, edited(lambda jobs: jobs[0].update(results=7)), InvalidInputError, "unknown form"),
    "results of an astronomical size": (
        "fetch", LIST, edited(lambda jobs: jobs[0]["results"][0].update(filesize=10**18)),
        InvalidInputError, "more than max_bytes"),
    "a chain without Ocean": ("transfer", rpc("eth_chainId"), answers("0x1869f"), OceanError, "chain is 99999"),
    "a negative balance": (
        "transfer", rpc("eth_getBalance"), answers("-0x1"), ServiceUnavailableError, "which cannot be"),
    "an empty wallet": ("transfer", rpc("eth_getBalance"), answers("0x0"), InsufficientFundsError, "holds 0 of"),
    "an astronomical amount of gas": (
        "transfer", rpc("eth_estimateGas"), answers(hex(2**70)), InsufficientFundsError, "may need up to"),
    "gas that no number holds": (
        "transfer", rpc("eth_estimateGas"), answers("0x" + "f" * 80), ServiceUnavailableError, "which cannot be"),
    "an astronomical fee": (
        "transfer", rpc("eth_maxPriorityFeePerGas"), answers(hex(10**30)), InsufficientFundsError, "may need up to"),
    "a block without number": (
        "transfer", rpc("eth_getBlockByNumber"), answers({"baseFeePerGas": 7}), ServiceUnavailableError, "cannot be"),
    "no code anywhere": ("transfer", rpc("eth_getCode"), answers("0x"), InvalidInputError, "no datatoken contract"),
    "contracts that answer nothing": (
        "transfer", rpc("eth_call"), answers("0x"), InvalidInputError, "is no contract that answers"),
}  # fmt: skip


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_impossible_answers(tasks: Tasks, name: str) -> None:
    task, applies, change, error, words = IMPOSSIBLE[name]
    if task == "start other":
        # The algorithm's order in the place of the dataset's.
        mixed = {**tasks.order["datasets"][0], "transaction": tasks.order["algorithm"]["transaction"]}
        tasks.order, task = {**tasks.order, "datasets": [mixed]}, "start"
    with (
        tasks.nothing_sent(),
        tasks.world.proxy.answering(Rule(applies, change)),
        pytest.raises(error, match=words) as caught,
    ):
        tasks.run(task)
    assert tasks.wallet.private_key[2:] not in str(caught.value)


RECEIPTS: dict[str, Callable[[Answer], Answer]] = {
    **BROKEN,
    "of another transaction": edited(
        lambda answer: (answer["result"] or {}).update(transactionHash=OTHER_HASH)
    ),
    "without logs": edited(lambda answer: (answer["result"] or {}).update(logs=None)),
    "without state": edited(lambda answer: (answer["result"] or {}).update(status="fine")),
    "in no block": edited(lambda answer: (answer["result"] or {}).update(blockNumber=None)),
}


@pytest.mark.parametrize("name", RECEIPTS)
def test_receipts_that_are_none(world: World, tasks: Tasks, name: str) -> None:
    """The transaction is out by then: a clear error, and the retry does not send another."""
    wallet = world.wallet(held=ETHER)
    tasks.wallet = wallet
    with (
        world.proxy.answering(Rule(rpc("eth_getTransactionReceipt"), RECEIPTS[name])),
        pytest.raises(OceanError),
    ):
        tasks.run("transfer")
    (sent,) = tasks.run("transfer")
    assert world.chain.receipt(sent)["status"] == "0x1"
    assert world.nonce(wallet.address) == 1
    assert world.balance(world.assets["held"].datatoken_address, wallet.address) == ETHER - ETHER // 10
