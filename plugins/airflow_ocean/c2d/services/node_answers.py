"""What an Ocean Node answers, read: environments, quotes, DDOs, files; and its errors, which are text, typed.

Source: Ocean Node 3.2.0, and recorded exchanges with one.
"""

from __future__ import annotations

import logging
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from airflow_ocean.c2d import retry_after
from airflow_ocean.c2d.environments import Access, ComputeEnvironment
from airflow_ocean.c2d.errors import (
    AssetNotFoundError,
    InsufficientFundsError,
    InvalidInputError,
    JobNotFoundError,
    NotAllowedError,
    OceanError,
    OrderExpiredError,
    RateLimitedError,
    ServiceAnswerError,
    ServiceUnavailableError,
    UnreadableAnswerError,
)
from airflow_ocean.c2d.services import EscrowPayment, FileInfo, JobQuote, OrderQuote
from airflow_ocean.c2d.services.fees import check_fee, check_offered
from airflow_ocean.c2d.services.fields import optional_text, whole_number
from airflow_ocean.c2d.services.http import MALFORMED, is_passing, reading, said
from airflow_ocean.c2d.units import MAX_UINT256, ZERO_ADDRESS, parse_address

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)

# A node's environment has a free part; it is offered as an environment of its own, under the id with this behind it.
FREE = "#free"
# A node locks a job's payment for as long as the job may take, and an hour to claim it. Who asks for more than this, seconds,
# asks for the money itself.
LONGEST_LOCK = 366 * 24 * 3600

# What a node says, what it means, and what to do; the first that fits counts.
_ERRORS: tuple[tuple[str, type[OceanError], str], ...] = (
    ("Rate limit exceeded|Too many active connections", RateLimitedError,
     "other requests from this address count, too"),
    ("does not have enough funds", InsufficientFundsError,
     "the wallet's deposit in the escrow is used up by other jobs: pay again, which deposits what is missing"),
    ("No escrow auths found|No valid escrow auths", InsufficientFundsError,
     "the node may not lock this much of the wallet's deposit, or not for so long: pay again, which allows it"),
    ("Not enough available|Too many running", ServiceUnavailableError,
     "others use it now: let the job wait in the queue, ask for less, or take another environment"),
    ("insufficient gas funds", ServiceUnavailableError,
     "the node's own wallet cannot pay for its transaction: tell its owner, or take another node"),
    # How ethers marks what others have to do with who use the node's wallet, its RPC or the chain at the same moment.
    ("code=(NONCE_EXPIRED|REPLACEMENT_UNDERPRICED|TRANSACTION_REPLACED|TIMEOUT|SERVER_ERROR|NETWORK_ERROR"
     "|UNKNOWN_ERROR)\\b|ECONNRE(FUSED|SET)|ETIMEDOUT|EAI_AGAIN|socket hang up|(Start|Initialize) Compute ?: (?!Blockchain instance)",
     ServiceUnavailableError,
     "the node's own transaction, or its look at the chain, failed: others may have come between, or its RPC is down"),
    ("TxId Service .* is not valid|Missing transferTxId|order has expired|Tx id used not valid", OrderExpiredError,
     "the order does not pay for this service in this environment, or not any more: order again"),
    ("not allowed to run on", NotAllowedError,
     "the dataset's owner has to allow the algorithm, and to do it again when its file or its image has changed"),
    ("not authorized|Not allowed to download|was denied|Access denied", NotAllowedError,
     "is it the wallet that started the job, and does the owner let it in?"),
    ("is not a valid nonce", NotAllowedError, "a request of the same wallet overtook this one"),
    ("signature mismatch|Invalid authentication|Invalid token", NotAllowedError,
     "the node does not take the signature for the wallet's: does something between here and there change requests?"),
    ("DDO did:op:.* not found|No DDO found|DDO not found|Cannot resolve DID|Asset provided is", AssetNotFoundError,
     "was it published on a chain that this node follows? What is new is shown after half a minute"),
    ("Nft not present in the asset", AssetNotFoundError, "was it published on a chain that this node follows?"),
    ("Cannot find job|Job not found or not running", JobNotFoundError,
     "is it a job of this node and wallet, and does it run, where its log is asked for?"),
    ("Invalid C2D Environment", InvalidInputError,
     "its id changes with the node's configuration: choose one that it offers now"),
    ("does not accept payments", InvalidInputError,
     "the environment's fees say in what it is paid on this chain, in the spelling that counts"),
    ("Not enough \\w+ resources", InvalidInputError, "ask for no more than the environment's maximum"),
    ("reading 'access'", InvalidInputError, "choose an environment that is free, or pay for this one"),
    ("Metadata size", InvalidInputError, "give the job less of it"),
    ("Cannot find service", InvalidInputError, "does the asset have this service still?"),
    ("Failed to retrieve algorithm checksums", InvalidInputError,
     "does the node know the algorithm, can it read its file, and does its container name a checksum?"),
    ("Unable to decrypt files", InvalidInputError,
     "only the node that encrypted an asset's files can read them: its service names that one"),
    ("Cannot find image", InvalidInputError,
     "is the algorithm's image public, with this tag, and made for the node's architecture?"),
    ("Unable to extract docker image|cannot be used in compute", InvalidInputError,
     "does the algorithm's metadata name its container?"),
    ("Validation error", InvalidInputError,
     "the node does not say which field: name, author, description and license must be there"),
    ("Unsupported DDO version", InvalidInputError, "4.1.0 is known to be taken"),
    ("Missing|Parameter :|Invalid|Cannot read properties", InvalidInputError,
     "is it a version of Ocean Node that takes other requests than 3.2.0?"),
)  # fmt: skip
HASH = re.compile("0x[0-9a-fA-F]{64}")
_WAIT = re.compile(r"Try again in (\d+) seconds")
_TAGS = re.compile(r"(?s)<head>.*?</head>|<[^>]*>")


def error_of(response: httpx.Response, what: str) -> OceanError:
    """Return the typed error that an answer stands for.

    A node answers 500 for much that trying again cannot help, so its text decides. A bare 500 hides the reason.
    """
    text = said(response)
    if text.lstrip().startswith("<"):  # a page of the server below the node, or of one before it
        text = " ".join(_TAGS.sub(" ", text).split())
    url = f"{response.url.scheme}://{response.url.netloc.decode()}{response.url.path}"
    message = f"{what}: {url} answers {response.status_code}: {text}"
    for pattern, error, advice in _ERRORS:
        if re.search(pattern, text):
            message = f"{message}; {advice}"
            if error is RateLimitedError:
                # It sends no Retry-After.
                wait = _WAIT.search(text)
                return RateLimitedError(message, retry_after=float(wait[1]) if wait else None)
            return error(message)
    if response.status_code == 429:  # not the node's own
        wait_for = retry_after.seconds(response.headers.get("Retry-After"))
        return RateLimitedError(message, retry_after=wait_for)
    if is_passing(response):
        return ServiceUnavailableError(
            f"{message}; the node hides why: its owner finds it in its log, when it stays so"
        )
    if response.status_code in (401, 403):
        return NotAllowedError(message)
    return ServiceAnswerError(f"{message}; is it an Ocean Node's URL, and what is asked for there?",
                              response.status_code, text)  # fmt: skip


def check(response: httpx.Response, what: str) -> None:
    """Raise the typed error that an answer stands for, unless it is a success."""
    if not response.is_success:
        raise error_of(response, what)


# ---------------------------------------------------------------------- environments and quotes


def read_environments(answer: Any, chain_id: int, consumer: str, what: str) -> list[ComputeEnvironment]:
    """Read the environments of a node: of each its paid part, in the first token that is taken, and its free one.

    One that is described in an unknown form is passed over where the node has others.

    :param chain_id: the chain whose tokens pay; a free part is of every chain
    :param consumer: whose access is read, in checksum form
    :raises UnreadableAnswerError: when it is no list of them, or none of them can be understood
    """
    if not isinstance(answer, list):
        raise UnreadableAnswerError(
            f"{what}: the node answers with something that is no list of environments"
        )
    found: list[ComputeEnvironment] = []
    strange: list[str] = []
    for entry in answer:
        try:
            found += _parts(entry, chain_id, consumer)
        except MALFORMED as error:
            strange.append(f"{what}: one is described in an unknown form ({error!r}): {str(entry)[:300]}")
            logger.warning("%s", strange[-1])
    if strange and len(strange) == len(answer):
        raise UnreadableAnswerError(f"{strange[-1]}; the node has no other")
    return found


def _parts(entry: dict[str, Any], chain_id: int, consumer: str) -> list[ComputeEnvironment]:
    fees = (entry.get("fees") or {}).get(str(chain_id), [])
    parts = [_paid(entry, fee, consumer) for fee in fees[:1]]
    return [*parts, _free(entry, consumer)] if entry.get("free") else parts


def _access(part: dict[str, Any], consumer: str) -> Access:
    """Say whether a node lets a consumer in, as it will at a job's start, when the orders are paid.

    Source: Ocean Node 3.2.0, ``startCompute.validateAccess``: addresses count only beside a list of contracts, which may be
    empty.
    """
    access = part.get("access") or {}
    addresses, contracts = access.get("addresses") or [], access.get("accessLists")
    if contracts is None or not (contracts or addresses) or consumer in addresses:
        return "open"
    return "listed" if contracts else "closed"


def _amount(resources: list[dict[str, Any]], name: str, key: str) -> Any:
    return next((resource.get(key) or 0 for resource in resources if resource["id"] == name), 0)


def _by_resource(entries: list[dict[str, Any]], key: str) -> dict[str, Decimal]:
    """Return a number of each resource: its price, or how much of it there is."""
    numbers = {str(entry["id"]): Decimal(str(entry.get(key) or 0)) for entry in entries}
    for name, number in numbers.items():
        if not number.is_finite() or not 0 <= number <= MAX_UINT256:
            raise ValueError(f"{key} {number} of {name}")
    return numbers


def _most(resources: list[dict[str, Any]]) -> dict[str, Decimal]:
    limited = [entry for entry in resources if entry.get("max") is not None]
    return {str(entry["id"]): Decimal("Infinity") for entry in resources} | _by_resource(limited, "max")


def _paid(entry: dict[str, Any], fee: dict[str, Any], consumer: str) -> ComputeEnvironment:
    prices, least = _by_resource(fee["prices"], "price"), _by_resource(entry["resources"], "min")
    smallest = sum((price * least.get(name, Decimal(0)) for name, price in prices.items()), Decimal(0))
    return ComputeEnvironment(
        id=str(entry["id"]),
        consumer_address=parse_address(entry["consumerAddress"], "consumerAddress"),
        price_per_minute=smallest,
        # Nodes compare a token's address case-sensitively: it stays as it was written.
        fee_token=str(fee["feeToken"]),
        max_job_duration=whole_number(entry, "maxJobDuration"),
        cpu_number=int(_amount(entry["resources"], "cpu", "max")),
        ram_gb=int(_amount(entry["resources"], "ram", "max")),
        description=str(entry.get("description") or "Ocean Node"),
        raw=entry,
        resource_prices=prices,
        least_resources=least,
        most_resources=_most(entry["resources"]),
        access=_access(entry, consumer),
    )


def _free(entry: dict[str, Any], consumer: str) -> ComputeEnvironment:
    free = entry["free"]
    # Without limits of its own it has those of the paid part. Source: Ocean Node 3.2.0, ``getMaxMinResource``.
    resources = free.get("resources", entry["resources"])
    return ComputeEnvironment(
        id=f"{entry['id']}{FREE}",
        consumer_address=parse_address(entry["consumerAddress"], "consumerAddress"),
        price_per_minute=Decimal(0),
        fee_token=None,
        max_job_duration=whole_number(free, "maxJobDuration"),
        cpu_number=int(_amount(resources, "cpu", "max")),
        ram_gb=int(_amount(resources, "ram", "max")),
        description=f"{entry.get('description') or 'Ocean Node'}, free part",
        raw=entry,
        needs_orders=False,
        most_resources=_most(resources),
        access=_access(free, consumer),
    )


def read_quote(answer: Any, asked: dict[str, Any], what: str) -> JobQuote:
    """Read what a job takes.

    :param asked: the body of the request that it answers
    :raises UnreadableAnswerError: when it is said in an unknown form, or of something else than was asked
    """
    with reading(what, "the node answers in an unknown form"):
        pairs = zip(answer["datasets"], asked["datasets"], strict=True)
        return JobQuote(
            [_order(*pair) for pair in pairs],
            _order(answer["algorithm"], asked["algorithm"]),
            _payment(answer["payment"], asked["payment"]),
        )


def _payment(payment: dict[str, Any], asked: dict[str, Any]) -> EscrowPayment:
    for name in ("chainId", "token"):
        if str(payment[name]) != str(asked[name]):
            raise ValueError(f"{name} {payment[name]!r}, where {asked[name]!r} was asked for")
    payee = parse_address(payment["payee"], "payee")
    if payee == ZERO_ADDRESS:
        raise ValueError("a payee that is nobody")
    return EscrowPayment(
        parse_address(payment["escrowAddress"], "escrowAddress"),
        payee,
        str(payment["token"]),
        whole_number(payment, "amount"),
        whole_number(payment, "minLockSeconds", LONGEST_LOCK),
    )


def _order(entry: dict[str, Any], asked: dict[str, Any]) -> OrderQuote:
    """Read what has to be done about one order.

    A node proposes a new fee beside an order whose fee's time is over. Nothing is due in it, and a start does not look at
    it, so an order that the node accepts is good as it is. Source: Ocean Node 3.2.0, ``initializeCompute`` and
    ``startCompute``.
    """
    did, found = asked.get("documentId"), entry.get("did")
    if did != found:
        raise ValueError(f"an order of {found}, where one of {did} was asked for")
    if did is None:  # raw code, which nobody sells
        return OrderQuote(None, None, needed=False)
    fee, valid_order = entry.get("providerFee"), entry.get("validOrder") or None
    if valid_order is not None:
        check_offered(valid_order, asked.get("transferTxId"))
    if isinstance(fee, dict):
        check_fee(fee)
    elif valid_order is None:
        raise KeyError("providerFee")
    if valid_order is not None and fee and int(fee["providerFeeAmount"]) == 0:
        fee = None
    return OrderQuote(fee, valid_order)


# ---------------------------------------------------------------------- assets


def read_ddo(answer: Any, what: str) -> dict[str, Any]:
    """Return a DDO in the form of the other generation's index: what the chain tells at the top.

    :raises UnreadableAnswerError: when it is none
    """
    with reading(what, "the node answers with something that is no DDO"):
        indexed = answer["indexedMetadata"]
        event = indexed.get("event") or {}
        ddo = {key: value for key, value in answer.items() if key != "indexedMetadata"}
        return {
            **ddo,
            "nft": indexed["nft"],
            "event": {"tx": event.get("txid"), **event},
            "stats": {"orders": sum(int(entry.get("orders") or 0) for entry in indexed.get("stats") or [])},
            "purgatory": indexed.get("purgatory") or {"state": False},
        }


def read_algorithm(ddo: dict[str, Any], did: str, what: str) -> dict[str, Any]:
    """Return what an algorithm's DDO says of how it is run.

    :raises UnreadableAnswerError: when it is another asset's, or says nothing of it
    """
    with reading(what, f"the node's DDO of {did} does not say how the algorithm is run"):
        if ddo["id"] != did:
            raise ValueError(f"it is that of {ddo['id']}")
        return dict(ddo["metadata"]["algorithm"])


def check_verdict(answer: Any, what: str) -> None:
    """Check that an answer is a node's proof of a validation, which nobody needs beyond that.

    :raises UnreadableAnswerError: when it is none
    """
    with reading(what, "the node answers with something that is no verdict"):
        if not HASH.fullmatch(answer["hash"]):
            raise ValueError(f"hash {answer['hash']!r}")
        parse_address(answer["publicKey"], "publicKey")


def read_file_infos(answer: Any, what: str) -> list[FileInfo]:
    """Read what a node found out about files: one that it could not read has no content and no type.

    :raises UnreadableAnswerError: when it is said in an unknown form
    """
    with reading(what, "the node answers in an unknown form"):
        return [_file_info(index, entry) for index, entry in enumerate(answer)]


def _file_info(index: int, entry: dict[str, Any]) -> FileInfo:
    length, content_type = whole_number(entry, "contentLength"), entry.get("contentType") or None
    return FileInfo(
        index=index,
        valid=bool(entry["valid"]) and bool(length or content_type),
        checksum=optional_text(entry, "checksum"),
        content_length=length,
        content_type=content_type,
        name=optional_text(entry, "name") or "",
    )
