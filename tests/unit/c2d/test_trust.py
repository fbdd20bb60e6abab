"""Several tasks change whom one dataset trusts at the same moment, and every change lasts."""

from __future__ import annotations

import multiprocessing
import threading
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

from airflow_ocean.c2d import trust, wallet
from airflow_ocean.c2d.assets import AssetSpec
from airflow_ocean.c2d.client import OceanClient
from airflow_ocean.c2d.journal import FileJournal
from include.localnet.accounts import ALICE
from tests.unit.c2d.conftest import CONTAINER

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_ocean.c2d.assets import PublishedAsset
    from airflow_ocean.c2d.network import Network

TASKS = 4


@pytest.fixture
def dataset(client_of: Callable[..., OceanClient], data_file: dict[str, str]) -> PublishedAsset:
    return client_of(ALICE).assets.publish(AssetSpec("dataset", "Trusting", (data_file,)))


@pytest.fixture(scope="module")
def algorithms(client_of: Callable[..., OceanClient], algorithm_file: dict[str, str]) -> list[str]:
    def publish(number: int) -> str:
        spec = AssetSpec("algorithm", f"Algorithm {number}", (algorithm_file,), container=CONTAINER)
        return client_of(ALICE).assets.publish(spec).did

    return [publish(number) for number in range(TASKS)]


def trusted(client: OceanClient, did: str) -> list[str]:
    policy = client.assets.resolve(did).ddo["services"][0]["compute"]
    return sorted(entry["did"] for entry in policy["publisherTrustedAlgorithms"])


def _allow(network: Network, barrier: Any, dataset: str, algorithm: str, results: Any) -> None:
    with OceanClient(network, ALICE.private_key) as alice:
        alice.assets.resolve(dataset)
        barrier.wait(60)
        results.put(alice.assets.allow_algorithm(dataset, algorithm_did=algorithm).transactions)


def test_all_of_several_at_once_last(
    network: Network, client_of: Callable[..., OceanClient], dataset: PublishedAsset, algorithms: list[str]
) -> None:
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(TASKS), context.Queue()
    tasks = [
        context.Process(target=_allow, args=(network, barrier, dataset.did, algorithm, results))
        for algorithm in algorithms
    ]
    for task in tasks:
        task.start()
    sent = [results.get(timeout=120) for _ in tasks]
    for task in tasks:
        task.join()
    assert trusted(client_of(ALICE), dataset.did) == sorted(algorithms)
    assert [len(transactions) for transactions in sent] == [1] * TASKS


class Elsewhere:
    """Another machine: its locks are others, and it changes the dataset at a moment of the test's choice.

    :param moment: name of a method of :class:`Trust`; the change comes right before it is carried out
    """

    def __init__(
        self, patch: pytest.MonkeyPatch, make: Callable[..., OceanClient], path: Path, moment: str
    ) -> None:
        self._make, self._path = make, path
        self.results: list[Any] = []
        undisturbed = getattr(trust.Trust, moment)

        def disturbed(*arguments: Any, **options: Any) -> Any:
            if not self.results and threading.current_thread() is threading.main_thread():
                self.results.append(None)
                thread = threading.Thread(target=self._change)
                thread.start()
                thread.join()
            return undisturbed(*arguments, **options)

        patch.setattr(trust.Trust, moment, disturbed)

    def does(self, change: Callable[[OceanClient], Any]) -> None:
        """Say what it does."""
        self._wanted = change

    def _change(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            for module in (trust, wallet):
                patch.setattr(
                    module, "machine_lock", lambda _, what: FileLock(self._path / f"{what[-40:]}.lock")
                )
            client = self._make(ALICE)
            self.results[0] = self._wanted(client)


@pytest.mark.parametrize(
    "moment",
    [
        "_check_newest",  # read already, not yet signed: it is noticed before anything is sent
        "_wait_until_indexed",  # after the transaction: the entry is still there
    ],
)
def test_a_change_from_another_machine_lasts_too(
    client_of: Callable[..., OceanClient],
    dataset: PublishedAsset,
    algorithms: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    moment: str,
) -> None:
    elsewhere = Elsewhere(monkeypatch, client_of, tmp_path, moment)
    elsewhere.does(lambda client: client.assets.allow_algorithm(dataset.did, algorithm_did=algorithms[1]))
    allowed = client_of(ALICE).assets.allow_algorithm(dataset.did, algorithm_did=algorithms[0])
    assert len(elsewhere.results[0].transactions) == 1
    assert len(allowed.transactions) == 1
    assert trusted(client_of(ALICE), dataset.did) == sorted(algorithms[:2])


def _overwrite(client: OceanClient, did: str) -> None:
    """Write the dataset as it is without any trust, as a program does that read it before."""
    ddo = {k: v for k, v in client.assets.resolve(did).ddo.items() if k not in trust._ADDED}
    ddo["services"][0]["compute"]["publisherTrustedAlgorithms"] = []
    client.assets.write_metadata("overwrite", ddo)


def test_what_another_program_overwrites_is_written_again(
    client_of: Callable[..., OceanClient],
    dataset: PublishedAsset,
    algorithms: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    elsewhere = Elsewhere(monkeypatch, client_of, tmp_path, "_wait_until_indexed")
    elsewhere.does(lambda client: _overwrite(client, dataset.did))
    allowed = client_of(ALICE).assets.allow_algorithm(dataset.did, algorithm_did=algorithms[0])
    assert len(set(allowed.transactions)) == 2
    assert trusted(client_of(ALICE), dataset.did) == [algorithms[0]]


def test_a_retry_that_finds_itself_overwritten_writes_again(
    client_of: Callable[..., OceanClient], dataset: PublishedAsset, algorithms: list[str], tmp_path: Path
) -> None:
    """The first attempt died after its transaction was mined; before the retry another program overwrote it."""
    journal = FileJournal(tmp_path / "journal")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trust.Trust, "_wait_until_indexed", _dies)
        with pytest.raises(KeyboardInterrupt):
            client_of(ALICE, journal).assets.allow_algorithm(dataset.did, algorithm_did=algorithms[0])
    _overwrite(client_of(ALICE), dataset.did)
    retry = client_of(ALICE, journal)
    again = retry.assets.allow_algorithm(dataset.did, algorithm_did=algorithms[0])
    assert len(set(again.transactions)) == 2
    assert trusted(retry, dataset.did) == [algorithms[0]]
    # Cleared, it finds everything done.
    sent = retry.transactions.chain.quantity("eth_getTransactionCount", ALICE.address, "pending")
    cleared = client_of(ALICE, journal).assets.allow_algorithm(dataset.did, algorithm_did=algorithms[0])
    assert cleared.transactions == again.transactions
    assert retry.transactions.chain.quantity("eth_getTransactionCount", ALICE.address, "pending") == sent


def _dies(*_arguments: Any) -> None:
    raise KeyboardInterrupt
