"""HTTP to Ocean's off-chain services behind one small interface, a module per generation of them.

:mod:`provider <airflow_ocean.c2d.services.provider>` speaks Provider and Aquarius, the generation of ocean-lib,
:mod:`node <airflow_ocean.c2d.services.node>` Ocean Node, which the live network runs. Which one answers is found out by
asking it, in :mod:`generation <airflow_ocean.c2d.services.generation>`. Nothing outside this package knows; what differs
shows in what is quoted: an order may be needed or not, and a payment through the escrow may be.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterator
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
    """What a Provider found out about one file of a service.

    :param name: of the file among a job's inputs, where that is told; else empty
    """

    index: int
    valid: bool
    checksum: str | None
    content_length: int | None
    content_type: str | None
    name: str = ""


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
    :param needed: whether a job needs an order of it at all
    """

    provider_fee: dict[str, Any] | None
    valid_order: str | None
    needed: bool = True


@dataclass(frozen=True)
class JobTerms:
    """How a job is to run, as far as its consumer has a say.

    :param duration: seconds: for how long a Provider's environment is paid, for one job or several; how long a node's job
        may run, for every begun minute of which is paid
    :param resources: amounts by the environment's names (cpu, ram, disk, gpu …); what is not named gets its minimum
    :param queue_wait: seconds that the job may wait for resources that others use
    """

    duration: int
    resources: dict[str, float] = field(default_factory=dict)
    queue_wait: int = 0

    def resource_list(self) -> list[dict[str, Any]]:
        """Return the resources as services list them."""
        return [{"id": name, "amount": amount} for name, amount in self.resources.items()]


@dataclass(frozen=True)
class EscrowPayment:
    """What has to be locked in the escrow for a job. What is locked and not used comes back.

    :param escrow: the contract that the payee claims from, which need not be the newest one of its chain
    :param payee: who may lock, and claim
    :param token: address of the token, as the service spells it
    :param amount: in the token's smallest unit
    :param lock_seconds: for how long the payee must be allowed to lock
    """

    escrow: str
    payee: str
    token: str
    amount: int
    lock_seconds: int


@dataclass(frozen=True)
class JobQuote:
    """What a job takes: an order of each input that needs one, and a payment where the service is paid by escrow."""

    datasets: list[OrderQuote]
    algorithm: OrderQuote
    payment: EscrowPayment | None = None


@dataclass(frozen=True)
class JobRequest:
    """What to start, all of it paid for.

    :param environment: the environment's id
    :param custom_data: parameters for the algorithm
    :param variables: environment variables for the algorithm
    :param payment_token: what the escrow pays in, None where nothing is paid there
    :param label: marks the job, if the service can do that, so that whoever started it finds it again
    """

    datasets: list[AssetInput]
    algorithm: AssetInput
    environment: str
    terms: JobTerms
    custom_data: dict[str, Any] | None = None
    variables: dict[str, str] | None = None
    payment_token: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class ResultStream:
    """An open download. ``length`` in bytes, None when the service does not say."""

    chunks: Iterator[bytes]
    length: int | None


class OceanServices(Protocol):
    """The off-chain half of one Provider (and its metadata cache), or of one Ocean Node, for one wallet.

    :param url: its root URL
    :param orders_bind_jobs: whether an order carries the environment's fee, and serves one unfinished job at a time
    :param labels_jobs: whether a job keeps the label that it was started with
    :param anybody: the list of trusted publishers of a dataset that every published algorithm may run on
    :param trusts_publishers: whether a dataset can trust all algorithms of an address
    :param hands_out_all_files: whether a job gets every file of an asset, and not the first alone
    """

    url: str
    anybody: tuple[str, ...]
    trusts_publishers: bool
    hands_out_all_files: bool
    orders_bind_jobs: bool
    labels_jobs: bool

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

    def check_job(
        self, environment: ComputeEnvironment, terms: JobTerms, variables: dict[str, str] | None
    ) -> None:
        """See that a job can be told all this, before anything is spent for it.

        :param variables: environment variables that its algorithm is to get
        :raises InvalidInputError: naming what the service or the environment does not offer
        """

    def quote(
        self,
        datasets: list[AssetInput],
        algorithm: AssetInput,
        environment: ComputeEnvironment,
        valid_until: int,
        terms: JobTerms,
    ) -> JobQuote:
        """Ask what a job takes.

        :param valid_until: until when the environment is wanted, in seconds since 1970
        """

    def start(self, request: JobRequest, announce: Callable[[], None] | None = None) -> Job:
        """Start a job on paid inputs.

        :param announce: called right before each request that may start it
        :raises TransientError: when it is not known whether the job was started
        :raises FatalError: when it was not
        """

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


def open_job_reader(
    provider_url: str, consumer_address: str, job_id: str
) -> AbstractAsyncContextManager[JobReader]:
    """Return a context with a reader of a consumer's jobs at a Provider's or node's URL.

    :param job_id: one of the jobs; whose it is shows in its form
    """
    from airflow_ocean.c2d.services import generation, node_jobs, provider_status

    if generation.is_node_job(job_id):
        return node_jobs.open_reader(provider_url, consumer_address)
    return provider_status.open_reader(provider_url, consumer_address)


def fetch_job(provider_url: str, consumer_address: str, job_id: str) -> Job:
    """Return a job's state; needs no key, as status requests are not signed.

    :raises TransientError: when the service does not answer
    :raises JobNotFoundError: when it knows no such job of this consumer
    """
    from airflow_ocean.c2d.services import generation, node_jobs, provider_status

    if generation.is_node_job(job_id):
        return node_jobs.fetch_job(provider_url, consumer_address, job_id)
    return provider_status.fetch_job(provider_url, consumer_address, job_id)


def shows_running_log(job_id: str) -> bool:
    """Say whether the service of a job shows its log before the job is over."""
    from airflow_ocean.c2d.services import generation

    return generation.is_node_job(job_id)


def follow_log(provider_url: str, wallet: Wallet, job_id: str) -> AsyncIterator[bytes] | None:
    """Return a running job's log from its beginning, which goes on until the job ends, for an event loop.

    :return: None when the service shows a log only when the job is over
    :raises JobNotFoundError: while it is read, when the job does not run
    """
    from airflow_ocean.c2d.services import node_log

    return node_log.follow(provider_url, wallet, job_id) if shows_running_log(job_id) else None


def learn_kind(provider_url: str) -> None:
    """Learn which generation answers at a URL in the course of asking for its environments, if that is not known yet.

    For who needs the environments anyway, before anything else is asked: it saves the request for the kind alone.
    """
    from airflow_ocean.c2d.services import generation

    generation.learn_from_environments(provider_url)


def open_services(
    network: Network, wallet: Wallet, chain_id: int, provider_url: str, job_id: str | None = None
) -> OceanServices:
    """Return the services behind a URL.

    :param job_id: a job of them, if one is known: whose it is shows in its form, and nobody has to be asked
    """
    from airflow_ocean.c2d.services import generation
    from airflow_ocean.c2d.services.node import NodeServices
    from airflow_ocean.c2d.services.provider import ProviderServices

    is_node = generation.is_node_job(job_id) if job_id else generation.is_node(provider_url)
    services = NodeServices if is_node else ProviderServices
    return services(network, wallet, chain_id, provider_url)


def service_looks(network: Network, chain_id: int | None) -> dict[str, Callable[[], str]]:
    """Return, by the name of each service of a network, a function that asks how it is.

    It returns a short description, or raises an :class:`~airflow_ocean.c2d.errors.OceanError`.

    :param chain_id: the chain that the services must serve, None when it is not known
    """
    from airflow_ocean.c2d.services.looks import looks

    return looks(network, chain_id)
