"""Every error of the library; its type says whether trying again can help.

A message says what was tried, on which asset, transaction or job, and what to do about it.
"""

from __future__ import annotations


class OceanError(Exception):
    """The base of all errors of this library."""


class TransientError(OceanError):
    """Trying the same again later may succeed.

    :param message: what was tried, on what, and what happened
    :param retry_after: seconds the other side asked to wait, if it did
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class FatalError(OceanError):
    """Trying the same again cannot succeed; someone has to change something first."""


class ServiceUnavailableError(TransientError):
    """A service or the chain's RPC cannot be reached, is overloaded, or failed inside (HTTP 5xx)."""


class RateLimitedError(TransientError):
    """A service refuses more requests for now (HTTP 429)."""


class NotIndexedError(TransientError):
    """An asset's transaction is mined, but the metadata cache does not list it yet."""


class MetadataChangedError(TransientError):
    """Somebody else keeps changing the same asset's metadata; what was wanted is not in it yet."""


class TransactionPendingError(TransientError):
    """A transaction was sent and is not mined yet; it is never sent a second time under another nonce."""


class AllowanceSpentError(TransientError):
    """Another machine that has the same wallet took, or replaced, what was approved for this payment; nothing was paid."""


class OrderInUseError(TransientError):
    """The order belongs to a job that is not finished; another job can start with it afterwards.

    :param job_id: the job, None when it is not known or not started yet
    :param provider_url: where it runs
    :param consumer_address: whose it is
    """

    def __init__(
        self,
        message: str,
        *,
        job_id: str | None = None,
        provider_url: str | None = None,
        consumer_address: str | None = None,
    ) -> None:
        super().__init__(message)
        self.job_id = job_id
        self.provider_url = provider_url
        self.consumer_address = consumer_address


class StartUnderWayError(TransientError):
    """A service has locked the payment of a job that was asked for, and does not list the job yet; nothing more was paid."""


class FeeCapError(TransientError):
    """The network's fee is above the connection's ``max_fee_gwei``; nothing was sent."""


class ServiceAnswerError(FatalError):
    """A service refused a request, in its own words.

    :param status: the HTTP status, 0 when it is not known any more
    :param text: what the service said
    """

    def __init__(self, message: str, status: int = 0, text: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.text = text


class InvalidInputError(FatalError):
    """A parameter, a connection field or a service's answer is not what it has to be."""


class UnreadableAnswerError(InvalidInputError):
    """A service says that it did what was asked, but the rest of its answer is not what it has to be."""


class AssetNotFoundError(FatalError):
    """No asset with this DID is known, or it is no longer active."""


class NotAllowedError(FatalError):
    """The publisher, the Provider or the contract does not permit this."""


class InsufficientFundsError(FatalError):
    """The wallet holds less ETH, tokens or datatokens than are needed."""


class CostLimitError(FatalError):
    """What is asked would cost more than the caller allowed; nothing was spent."""


class TransactionRevertedError(FatalError):
    """The chain executed a transaction and undid it, or says beforehand that it would."""


class StepChangedError(FatalError):
    """A retry asks for another call than the one its journal holds for this step."""


class OrderExpiredError(FatalError):
    """The order's time-out or the environment's validity has passed; a new payment is needed."""


class StartLostError(FatalError):
    """A service has locked the payment of a job that was asked for, and has lost the job; nothing more was paid."""


class JobNotFoundError(FatalError):
    """The Provider knows no such job of this consumer."""


class JobFailedError(FatalError):
    """The compute job ended without a usable result; the message carries the end of its log."""


def fatal_error(name: str, message: str) -> FatalError:
    """Make an error anew of its type's name and its message, which is all that gets from one process to another.

    :param name: a subclass of :class:`FatalError`; anything else stands for that class itself
    """
    kind = globals().get(name)
    if isinstance(kind, type) and issubclass(kind, FatalError):
        return kind(message)
    return FatalError(message)
