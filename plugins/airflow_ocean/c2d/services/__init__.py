"""HTTP to Ocean's off-chain services behind one small interface, a module per generation of them.

:mod:`provider <airflow_ocean.c2d.services.provider>` speaks Provider and Aquarius, the generation of ocean-lib.
Nothing outside this package and :mod:`airflow_ocean.c2d.orders` knows which generation answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from airflow_ocean.c2d.environments import ComputeEnvironment
    from airflow_ocean.c2d.errors import FatalError
    from airflow_ocean.c2d.jobs import Job
    from airflow_ocean.c2d.network import Network
    from airflow_ocean.c2d.wallet import Wallet


@dataclass(frozen=True)
class MetadataDocument:
    """What ``setMetaData`` of a data NFT is called with.

    :param flags: bit 1 LZMA-compressed, bit 2 ECIES-encrypted
    :param data: the document, 0x-hex
    :param digest: SHA-256 of the compact DDO JSON, 0x-hex
    :param proofs: a validator's signatures of the digest: (publicKey, v, r, s)
    """

    decryptor_url: str
    decryptor_address: str
    flags: int
    data: str
    digest: str
    proofs: list[tuple[str, int, str, str]]


@dataclass(frozen=True)
class FileInfo:
    """What a Provider found out about one file of a service."""

    index: int
    valid: bool
    checksum: str | None
    content_length: int | None
    content_type: str | None


@dataclass(frozen=True)
class AssetInput:
    """An asset's service as an input of a job, with its order where it has been paid for.

    :param order: id of the transaction that proves it
    :param started: id of the transaction that started the order, if ``order`` has only renewed it
    """

    did: str
    service_id: str
    order: str | None = None
    user_data: dict[str, Any] | None = None
    started: str | None = None


@dataclass(frozen=True)
class OrderQuote:
    """What the Provider asks for one input.

    :param provider_fee: the signed fee to hand to the contract, None when the offered order is good as it is
    :param valid_order: the transaction that started the offered order, if the Provider accepts it
    """

    provider_fee: dict[str, Any] | None
    valid_order: str | None


@dataclass(frozen=True)
class ResultStream:
    """An open download. ``length`` in bytes, None when the service does not say."""

    chunks: Iterator[bytes]
    length: int | None


class OceanServices(Protocol):
    """The off-chain half of one Provider (and its metadata cache), for one wallet."""

    url: str

    def close(self) -> None:
        """Close all connections."""

    def encrypt_files(self, files: dict[str, Any]) -> str:
        """Encrypt a service's file list so that only this Provider can read it; 0x-hex."""

    def prepare_metadata(self, ddo: dict[str, Any]) -> MetadataDocument:
        """Have a DDO validated and make the document that goes on the chain."""

    def resolve(self, did: str) -> dict[str, Any]:
        """Return the indexed DDO."""

    def resolve_all(self, dids: list[str]) -> list[dict[str, Any]]:
        """Return the indexed DDOs of several assets, in their order."""

    def wait_until_indexed(self, did: str, transaction: str, block: int, timeout: float) -> dict[str, Any]:
        """Return the DDO once the index shows a metadata transaction or a later one; ``timeout`` in seconds."""

    def file_infos(self, did: str, service_id: str, *, checksum: bool = False) -> list[FileInfo]:
        """Have the Provider look at an asset's files."""

    def environments(self) -> list[ComputeEnvironment]:
        """List the compute environments of the network's chain."""

    def quote(
        self,
        datasets: list[AssetInput],
        algorithm: AssetInput,
        environment: str,
        valid_until: int,
        consumer: str,
    ) -> tuple[list[OrderQuote], OrderQuote]:
        """Ask what the inputs cost; ``valid_until`` in seconds since 1970."""

    def start(
        self,
        datasets: list[AssetInput],
        algorithm: AssetInput,
        environment: str,
        custom_data: dict[str, Any] | None,
    ) -> Job:
        """Start a job on paid inputs."""

    def jobs(self) -> list[Job]:
        """List every job of the wallet."""

    def job(self, job_id: str) -> Job:
        """Return one job."""

    def stop(self, job: Job) -> Job:
        """Ask for a job's end."""

    def open_result(self, job_id: str, index: int) -> AbstractContextManager[ResultStream]:
        """Open one result for reading."""


@dataclass(frozen=True)
class JobsAnswer:
    """What one status request brought.

    :param jobs: by the id that was asked for: the job, or what is wrong with the service's description of it
    :param size: bytes of the answer
    """

    jobs: dict[str, Job | FatalError]
    size: int


class JobReader(Protocol):
    """Reads the states of one consumer's jobs on an event loop, with a request each time; nothing is signed.

    Jobs are named by the ids that starting them returned, whatever the service calls them when asked for their state.
    """

    async def fetch_jobs(self, job_ids: Collection[str]) -> JobsAnswer:
        """Return those of some jobs that are on the service's list of all jobs of the consumer.

        :raises TransientError: when the service does not answer
        :raises FatalError: when it does not list jobs
        """

    async def fetch_job(self, job_id: str) -> JobsAnswer:
        """Return one job.

        :raises TransientError: when the service does not answer
        :raises FatalError: when it never will, such as :class:`~airflow_ocean.c2d.errors.JobNotFoundError`
        """


def open_job_reader(provider_url: str, consumer_address: str) -> AbstractAsyncContextManager[JobReader]:
    """Return a context with a reader of a consumer's jobs at a Provider URL."""
    from airflow_ocean.c2d.services.provider_status import open_reader

    return open_reader(provider_url, consumer_address)


def open_services(network: Network, wallet: Wallet, chain_id: int, provider_url: str) -> OceanServices:
    """Return the services behind a Provider URL."""
    from airflow_ocean.c2d.services.provider import ProviderServices

    return ProviderServices(network, wallet, chain_id, provider_url)


def service_looks(network: Network, chain_id: int | None) -> dict[str, Callable[[], str]]:
    """Return, by the name of each service of a network, a function that asks how it is.

    It returns a short description, or raises an :class:`~airflow_ocean.c2d.errors.OceanError`.

    :param chain_id: the chain that the services must serve, None when it is not known
    """
    from airflow_ocean.c2d.services.provider import looks

    return looks(network, chain_id)
