"""Answers that no good service gives: broken ones, and well-formed ones that say something impossible."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from eth_account import Account as Signer
from eth_account.messages import encode_defunct

from airflow_ocean.c2d.errors import (
    AssetNotFoundError,
    CostLimitError,
    InsufficientFundsError,
    InvalidInputError,
    JobNotFoundError,
    NotAllowedError,
    OceanError,
    ServiceUnavailableError,
)
from include.localnet.provider.orders import fee_hash
from tests.support.fault_proxy import Answer, Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from include.localnet.accounts import Account

    Picked = Callable[[Request], bool]
    Changed = Callable[[Answer], Answer]
    # The task that makes a request, and how that is recognised.
    Asked = tuple[str, Picked]
    # What may come instead of a result: request, answer, error, words of its message.
    NoResult = tuple[Picked, Changed, type[OceanError], str]
    # Well-formed, and not possible: task, request, answer, error, words of its message.
    Impossible = tuple[str, Picked, Changed, type[OceanError], str]

OTHER_HASH = "0x" + "ab" * 32
NOWHERE = "0x" + "12" * 20
HUGE = 65 * 1024 * 1024

# What may come instead of any JSON answer.
BROKEN: dict[str, Callable[[Answer], Answer]] = {
    "truncated": lambda answer: Answer(200, answer.body[: len(answer.body) // 2], answer.headers),
    "empty": lambda answer: Answer(200, b"", answer.headers),
    "HTML": lambda _: Answer(200, b"<html><h1>Welcome</h1></html>", {"Content-Type": "text/html"}),
    "not UTF-8": lambda _: Answer(200, b'{"\xff\xfe": "\xc3\x28"}', {"Content-Type": "application/json"}),
    "not compressed as it says": lambda answer: Answer(
        200, answer.body, {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    ),
    "null": lambda _: Answer.of_json(None),
    "a number": lambda _: Answer.of_json(5),
    "a text": lambda _: Answer.of_json("hello"),
    "a list of numbers": lambda _: Answer.of_json([1, 2]),
    "an empty object": lambda _: Answer.of_json({}),
    "nested too deeply": lambda _: Answer(200, b"[" * 200_000, {"Content-Type": "application/json"}),
}
TOO_LARGE: Callable[[Answer], Answer] = lambda _: Answer(  # noqa: E731 - like its siblings above
    200, b'{"x": "' + b"x" * HUGE + b'"}', {"Content-Type": "application/json"}
)


def to(upstream: str, path: str, method: str | None = None) -> Callable[[Request], bool]:
    """Pick the requests to a service whose path holds a word, or ends if it is empty."""

    def applies(request: Request) -> bool:
        if request.upstream != upstream or method not in (None, request.method):
            return False
        bare = request.path.split("?")[0]
        return bare == "/" if path == "/" else path in bare

    return applies


def rpc(method: str) -> Callable[[Request], bool]:
    """Pick the requests of a JSON-RPC method."""
    return lambda request: request.rpc_method == method


def answers(result: Any) -> Callable[[Answer], Answer]:
    """Answer a JSON-RPC request with another result."""
    return lambda answer: Answer.of_json({**answer.json(), "result": result})


def edited(change: Callable[[Any], Any]) -> Callable[[Answer], Answer]:
    """Change an answer's JSON in place; what ``change`` returns is left aside."""

    def edit(answer: Answer) -> Answer:
        content = json.loads(answer.body)
        change(content)
        return Answer(answer.status, json.dumps(content).encode(), answer.headers)

    return edit


def replaced(content: Any) -> Callable[[Answer], Answer]:
    """Answer with another JSON."""
    return lambda _: Answer.of_json(content)


def says(status: int, text: str) -> Callable[[Answer], Answer]:
    """Answer with a text."""
    return lambda _: Answer(status, text.encode(), {"Content-Type": "text/plain"})


def first_service(**fields: Any) -> Callable[[Any], Any]:
    """Change the first service of a DDO in place."""
    return lambda ddo: ddo["services"][0].update(fields)


def fee(**fields: Any) -> Callable[[Answer], Answer]:
    """Change the signed fee of a quote's first dataset."""
    return edited(lambda quote: quote["datasets"][0]["providerFee"].update(fields))


def signed_fee(signer: Account, **fields: Any) -> Callable[[Answer], Answer]:
    """Change the fee, too, and sign it as a service would that means it.

    :param signer: the service's account
    """

    def change(quote: Any) -> None:
        asked = quote["datasets"][0]["providerFee"]
        asked.update(fields)
        data = bytes.fromhex(asked["providerData"][2:])
        amount, until = int(asked["providerFeeAmount"]), int(asked["validUntil"])
        digest = fee_hash(data, asked["providerFeeAddress"], asked["providerFeeToken"], amount, until)
        signature = Signer.sign_message(encode_defunct(digest), signer.private_key)
        asked.update(v=signature.v, r=f"0x{signature.r:064x}", s=f"0x{signature.s:064x}")

    return edited(change)


def result(index: int) -> Picked:
    """Pick the requests for a job's result."""
    return lambda request: "/computeResult" in request.path and f"index={index}" in request.path


# ---------------------------------------------------------------------- what both generations have in common

# Each kind of request to the chain that comes before the first transaction.
CHAIN_REQUESTS: dict[str, Asked] = {
    "the chain's id": ("transfer", rpc("eth_chainId")),
    "code": ("transfer", rpc("eth_getCode")),
    "a contract's view": ("transfer", rpc("eth_call")),
    "a contract's view, buying": ("buy", rpc("eth_call")),
    "an estimate": ("transfer", rpc("eth_estimateGas")),
    "the newest block": ("transfer", rpc("eth_getBlockByNumber")),
    "the tip": ("transfer", rpc("eth_maxPriorityFeePerGas")),
    "the wallet's coins": ("transfer", rpc("eth_getBalance")),
    "the wallet's nonce": ("transfer", rpc("eth_getTransactionCount")),
    "the newest block's number": ("allow", rpc("eth_blockNumber")),
    "a dataset's changes": ("allow", rpc("eth_getLogs")),
}

CHAIN_ANSWERS: dict[str, Impossible] = {
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


def impossible_ddos(
    one: Picked, several: Picked, each: Callable[[Callable[[Any], Any]], Changed]
) -> dict[str, Impossible]:
    """Return DDOs that no index can have.

    :param one: the request for a DDO
    :param several: the request for the DDOs of a job
    :param each: makes a change of each DDO a change of the answer to that
    """

    def facts(**fields: Any) -> Callable[[Any], Any]:
        """Change what the chain tells of an asset, which a node has in a part of its own."""
        return lambda ddo: ddo.get("indexedMetadata", ddo).update(fields)

    return {
        "a DDO of another chain": (
            "pay", several, each(lambda ddo: ddo.update(chainId=1)), InvalidInputError, "lives on chain 1"),
        "a DDO of another asset": (
            "transfer", one, edited(lambda ddo: ddo.update(id="did:op:" + "0" * 64)), InvalidInputError, "asked for did:op:"),
        "a DDO with another NFT": (
            "transfer", one, edited(lambda ddo: ddo.update(nftAddress=NOWHERE)), InvalidInputError, "asked for did:op:"),
        "a withdrawn asset": (
            "pay", several, each(facts(nft={"state": 1})), AssetNotFoundError, "no longer active"),
        "a DDO without services": (
            "pay", several, each(lambda ddo: ddo.update(services=[])), AssetNotFoundError, "no longer active"),
        "a DDO whose NFT is no object": (
            "pay", several, each(facts(nft=[1])), AssetNotFoundError, "no longer active"),
        "a dataset that is an algorithm": (
            "allow", one, edited(lambda ddo: ddo["metadata"].update(type="dataset")), InvalidInputError, "not an algorithm"),
        "services that are no list": (
            "pay", several, each(lambda ddo: ddo.update(services=5)), InvalidInputError, "DDO is incomplete"),
        "a datatoken that is no address": (
            "transfer", one, edited(first_service(datatokenAddress="0x12")), InvalidInputError, "DDO is incomplete"),
        "a datatoken where no contract is": (
            "transfer", one, edited(first_service(datatokenAddress=NOWHERE)), InvalidInputError, "no datatoken contract"),
        "a time-out that is no number": (
            "pay", several, each(first_service(timeout="soon")), InvalidInputError, "DDO is incomplete"),
        "a time-out without end": (
            "pay", several, each(first_service(timeout=float("inf"))), InvalidInputError, "DDO is incomplete"),
        "an algorithm without container": (
            "allow", one, edited(lambda ddo: ddo["metadata"].pop("algorithm", None)), InvalidInputError, "what its container is"),
        "an algorithm whose container is a text": (
            "allow", one, edited(lambda ddo: ddo["metadata"].update(algorithm={"container": "x"})),
            InvalidInputError, "what its container is"),
        "a compute section that is none": (
            "allow", one, edited(first_service(compute=5)), InvalidInputError, "compute section"),
        "trusted algorithms that are none": (
            "allow", one, edited(first_service(compute={"publisherTrustedAlgorithms": [5]})),
            InvalidInputError, "compute section"),
        "an endpoint that is a file": (
            "pay", several, each(first_service(serviceEndpoint="file:///etc/passwd")), OceanError, "file:///etc/passwd"),
        "an endpoint that is no URL": (
            "pay", several, each(first_service(serviceEndpoint="http://[")), OceanError, "http://"),
    }  # fmt: skip


def impossible_files(asked: Picked) -> dict[str, Impossible]:
    """Return what no service can find out about files.

    :param asked: the request for that
    """

    def file(**fields: Any) -> Changed:
        return edited(lambda files: files[0].update(fields))

    return {
        "a file of a negative length": (
            "allow", asked, file(contentLength="-5"), InvalidInputError, "contentLength '-5'"),
        "a file without end": ("allow", asked, file(contentLength=float("inf")), InvalidInputError, "contentLength inf"),
        "a checksum that is a number": ("allow", asked, file(checksum=5), InvalidInputError, "checksum 5"),
        "a file that cannot be read": ("allow", asked, file(valid=False), NotAllowedError, "cannot read the files"),
        "no file at all": ("allow", asked, replaced([]), NotAllowedError, "cannot read the files"),
    }  # fmt: skip


def impossible_quotes(asked: Picked, signer: Account) -> dict[str, Impossible]:
    """Return quotes that no service can mean.

    :param asked: the request for one
    :param signer: the service's account
    """
    return {
        "an order nobody offered": (
            "pay", asked, edited(lambda quote: quote["datasets"][0].update(validOrder=OTHER_HASH)),
            InvalidInputError, "nobody offered"),
        "an order of another asset in place of a fee": (
            "pay", asked, edited(lambda quote: quote["algorithm"].update(validOrder=OTHER_HASH)),
            InvalidInputError, "nobody offered"),
        "too few datasets": (
            "pay", asked, edited(lambda quote: quote["datasets"].clear()), InvalidInputError, "unknown form"),
        "a negative fee": ("pay", asked, fee(providerFeeAmount="-5"), InvalidInputError, "providerFeeAmount"),
        "a fee of more than there is": (
            "pay", asked, signed_fee(signer, providerFeeAmount=str(10**30)), CostLimitError, "costs 10{10}[01]0 of token"),
        "a fee that no token can have": (
            "pay", asked, fee(providerFeeAmount=str(2**300)), InvalidInputError, "providerFeeAmount"),
        "a fee with a point": ("pay", asked, fee(providerFeeAmount=1.5), InvalidInputError, "providerFeeAmount"),
        "a fee in no token": ("pay", asked, fee(providerFeeToken="OCEAN"), InvalidInputError, "providerFeeToken"),
        "a fee in a token that is not there": (
            "pay", asked, signed_fee(signer, providerFeeToken=NOWHERE, providerFeeAmount="1"), InvalidInputError, "no datatoken contract"),
        "a fee without its signature": ("pay", asked, fee(r="", s=""), InvalidInputError, "unknown form"),
        "a fee with another's signature": (
            "pay", asked, fee(r=OTHER_HASH), OceanError, "not that of"),
    }  # fmt: skip


def impossible_jobs(asked: Picked, other: dict[str, Any]) -> dict[str, Impossible]:
    """Return jobs that no service can have.

    :param asked: the request for one or for all
    :param other: another one
    """
    return {
        "another job": ("wait", asked, replaced([other]), JobNotFoundError, "knows no job"),
        "a state that is no number": (
            "wait", asked, edited(lambda jobs: jobs[0].update(status="fine")), InvalidInputError, "unknown form"),
        "an end in a far future": (
            "wait", asked, edited(lambda jobs: jobs[0].update(dateFinished="1e300")), InvalidInputError, "unknown form"),
        "results that are no list": (
            "fetch", asked, edited(lambda jobs: jobs[0].update(results=7)), InvalidInputError, "unknown form"),
        "results of a negative size": (
            "fetch", asked, edited(lambda jobs: jobs[0]["results"][0].update(filesize=-5)), InvalidInputError, "unknown form"),
        "results of an astronomical size": (
            "fetch", asked, edited(lambda jobs: jobs[0]["results"][0].update(filesize=10**18)),
            InvalidInputError, "more than max_bytes"),
    }  # fmt: skip
