"""Answers that no good service gives: broken ones, and well-formed ones that say something impossible."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from eth_account import Account
from eth_account.messages import encode_defunct

from include.localnet.accounts import PROVIDER
from include.localnet.provider.orders import fee_hash
from tests.support.fault_proxy import Answer, Request

if TYPE_CHECKING:
    from collections.abc import Callable

HUGE = 65 * 1024 * 1024

# What may come instead of any JSON answer.
BROKEN: dict[str, Callable[[Answer], Answer]] = {
    "truncated": lambda answer: Answer(200, answer.body[: len(answer.body) // 2], answer.headers),
    "empty": lambda answer: Answer(200, b"", answer.headers),
    "HTML": lambda _: Answer(200, b"<html><h1>Welcome</h1></html>", {"Content-Type": "text/html"}),
    "not UTF-8": lambda _: Answer(200, b'{"\xff\xfe": "\xc3\x28"}', {"Content-Type": "application/json"}),
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


def fee(**fields: Any) -> Callable[[Answer], Answer]:
    """Change the signed fee of a quote's first dataset."""
    return edited(lambda quote: quote["datasets"][0]["providerFee"].update(fields))


def signed_fee(**fields: Any) -> Callable[[Answer], Answer]:
    """Change the fee, too, and sign it as a Provider would that means it."""

    def change(quote: Any) -> None:
        asked = quote["datasets"][0]["providerFee"]
        asked.update(fields)
        data = bytes.fromhex(asked["providerData"][2:])
        amount, until = int(asked["providerFeeAmount"]), int(asked["validUntil"])
        digest = fee_hash(data, asked["providerFeeAddress"], asked["providerFeeToken"], amount, until)
        signature = Account.sign_message(encode_defunct(digest), PROVIDER.private_key)
        asked.update(v=signature.v, r=f"0x{signature.r:064x}", s=f"0x{signature.s:064x}")

    return edited(change)


def service(**fields: Any) -> Callable[[Answer], Answer]:
    """Change the first service of a DDO."""
    return edited(lambda ddo: ddo["services"][0].update(fields))
