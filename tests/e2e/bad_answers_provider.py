"""What Provider and Aquarius may answer wrongly before the first transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_ocean.c2d.errors import (
    InvalidInputError,
    JobNotFoundError,
    NotAllowedError,
    ServiceUnavailableError,
)
from include.localnet.accounts import PROVIDER
from tests.e2e.bad_answers import (
    CHAIN_ANSWERS,
    CHAIN_REQUESTS,
    NOWHERE,
    OTHER_HASH,
    edited,
    impossible_ddos,
    impossible_files,
    impossible_jobs,
    impossible_quotes,
    replaced,
    result,
    says,
    to,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.bad_answers import Asked, Changed, Impossible, NoResult

DDO, DDOS = to("aquarius", "/ddo/did:op:"), to("aquarius", "/query")
QUOTE = to("provider", "/initializeCompute")
ENVIRONMENTS, LIST = to("provider", "/computeEnvironments"), to("provider", "/compute", "GET")
FILES = to("provider", "/fileinfo")
START = to("provider", "/compute", "POST")
JOB = {"jobId": "1", "status": 70, "agreementId": OTHER_HASH, "owner": NOWHERE, "dateCreated": "1"}

REQUESTS: dict[str, Asked] = {
    **CHAIN_REQUESTS,
    "a DDO": ("transfer", DDO),
    "DDOs, paying": ("pay", DDOS),
    "validation": ("allow", to("aquarius", "/ddo/validate")),
    "the Provider's root": ("allow", to("provider", "/")),
    "file infos": ("allow", FILES),
    "encryption": ("allow", to("provider", "/encrypt")),
    "environments": ("pay", ENVIRONMENTS),
    "a quote": ("pay", QUOTE),
    "the job list": ("start", LIST),
    "a job's state": ("wait", LIST),
    "a job's state, fetching": ("fetch", LIST),
}
HUGE = ("the chain's id", "a DDO", "a quote", "the job list", "a job's state")


def environments(**fields: Any) -> Changed:
    def change(answer: Any) -> None:
        for listed in answer.values():
            for environment in listed:
                environment.update(fields)

    return edited(change)


def every_hit(change: Callable[[Any], Any]) -> Changed:
    """Change in place each DDO that a search has found."""
    return edited(lambda answer: [change(hit["_source"]) for hit in answer["hits"]["hits"]])


RESULTS: dict[str, NoResult] = {
    "an error": (result(0), says(503, "busy"), ServiceUnavailableError, "answers 503: busy"),
    "a refusal": (result(0), says(401, "no"), NotAllowedError, "answers 401: no"),
    "no such result": (result(0), says(404, "no such job"), JobNotFoundError, "no such job"),
}

IMPOSSIBLE: dict[str, Impossible] = {
    **CHAIN_ANSWERS,
    **impossible_ddos(DDO, DDOS, every_hit),
    **impossible_files(FILES),
    **impossible_quotes(QUOTE, PROVIDER),
    **impossible_jobs(LIST, JOB),
    "a negative price": ("pay", ENVIRONMENTS, environments(priceMin=-1), InvalidInputError, "unknown form"),
    "a price that is no number": (
        "pay", ENVIRONMENTS, environments(priceMin="NaN"), InvalidInputError, "unknown form"),
    "a duration without end": (
        "pay", ENVIRONMENTS, environments(maxJobDuration=float("inf")), InvalidInputError, "unknown form"),
    "an environment without address": (
        "pay", ENVIRONMENTS, environments(consumerAddress="me"), InvalidInputError, "consumerAddress"),
    "no environment at all": ("pay", ENVIRONMENTS, replaced([]), InvalidInputError, "no compute environment"),
    "an order of another asset": (
        "start_with_another_order", lambda _: False, replaced(None), NotAllowedError, "(?i)order|transaction"),
    "a list of jobs without ids": (
        "start", LIST, replaced([{"status": 1}]), InvalidInputError, "unknown form"),
}  # fmt: skip
