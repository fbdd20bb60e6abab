"""What an Ocean Node may answer wrongly before the first transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_ocean.c2d.errors import (
    AssetNotFoundError,
    CostLimitError,
    InsufficientFundsError,
    InvalidInputError,
    JobNotFoundError,
    NotAllowedError,
    OrderExpiredError,
    ServiceUnavailableError,
    TransactionRevertedError,
)
from airflow_ocean.c2d.result_errors import UndecodableResultError
from include.localnet.accounts import NODE
from include.localnet.settings import CHAIN_ID
from tests.e2e.bad_answers import (
    BROKEN,
    CHAIN_ANSWERS,
    CHAIN_REQUESTS,
    NOWHERE,
    OTHER_HASH,
    TOO_LARGE,
    edited,
    impossible_ddos,
    impossible_files,
    impossible_jobs,
    impossible_quotes,
    replaced,
    result,
    rpc,
    says,
    to,
)
from tests.e2e.fault_world import ETHER

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.bad_answers import Asked, Changed, Impossible, NoResult

DDO = to("provider", "/ddo/did:op:")
QUOTE = to("provider", "/initializeCompute")
ENVIRONMENTS, LIST = to("provider", "/computeEnvironments"), to("provider", "/compute", "GET")
VALIDATION, FILES, ENCRYPTION = (to("provider", path) for path in ("/ddo/validate", "/fileInfo", "/encrypt"))
START = to("provider", "/freeCompute")
JOB = {"jobId": "0x1-2", "status": 70, "environment": "0x1-0x2", "owner": NOWHERE, "dateCreated": "1"}

REQUESTS: dict[str, Asked] = {
    **CHAIN_REQUESTS,
    "a DDO": ("transfer", DDO),
    "DDOs, paying": ("pay", DDO),
    "an algorithm's DDO, starting": ("start_free", DDO),
    "validation": ("allow", VALIDATION),
    "the node's root": ("allow", to("provider", "/")),
    "file infos": ("allow", FILES),
    "encryption": ("allow", ENCRYPTION),
    "environments": ("pay", ENVIRONMENTS),
    "a quote": ("pay", QUOTE),
    "the escrow's view, starting": ("start", rpc("eth_call")),
    "the escrow's view, withdrawing": ("withdraw", rpc("eth_call")),
    "a job's state": ("wait", LIST),
    "a job's state, fetching": ("fetch", LIST),
    "a job's state, settling": ("settle", LIST),
    "a lock's receipt": ("settle", rpc("eth_getTransactionReceipt")),
    "the newest block, settling": ("settle", rpc("eth_getBlockByNumber")),
    "the escrow's view, settling": ("settle", rpc("eth_call")),
}
HUGE = ("the chain's id", "a DDO", "encryption", "a quote", "a job's state")


def environment(change: Callable[[dict[str, Any]], Any]) -> Changed:
    """Change each environment in place."""
    return edited(lambda found: [change(entry) for entry in found])


def price(value: Any) -> Changed:
    """Change what a processor costs."""
    return environment(lambda entry: _fee(entry)["prices"][0].update(price=value))


def _fee(entry: dict[str, Any]) -> Any:
    return entry["fees"][str(CHAIN_ID)][0]


def payment(**fields: Any) -> Changed:
    """Change what is to be locked in the escrow."""
    return edited(lambda quote: quote["payment"].update(fields))


def dataset(**fields: Any) -> Changed:
    """Change what a quote says of the first dataset."""
    return edited(lambda quote: quote["datasets"][0].update(fields))


def job(**fields: Any) -> Changed:
    """Change the first job."""
    return edited(lambda jobs: jobs[0].update(fields))


def job_payment(**fields: Any) -> Changed:
    """Change how the first job is paid."""
    return edited(lambda jobs: jobs[0]["payment"].update(fields))


def locked_by_the_claim(jobs: Any) -> None:
    jobs[0]["payment"]["lockTx"] = jobs[0]["payment"]["claimTx"]


QUOTES: dict[str, Impossible] = {
    "an order of another asset": (
        "pay", QUOTE, dataset(did="did:op:" + "0" * 64), InvalidInputError, "where one of did:op:"),
    "nothing to order": (
        "pay", QUOTE, edited(lambda quote: quote["datasets"][0].clear()), InvalidInputError, "where one of did:op:"),
    "no payment": ("pay", QUOTE, edited(lambda quote: quote.pop("payment")), InvalidInputError, "unknown form"),
    "a negative payment": ("pay", QUOTE, payment(amount="-5"), InvalidInputError, "amount"),
    "a payment with a point": ("pay", QUOTE, payment(amount=1.5), InvalidInputError, "amount"),
    "a payment that is no number": ("pay", QUOTE, payment(amount="a lot"), InvalidInputError, "a lot"),
    "a payment that no token can have": ("pay", QUOTE, payment(amount=str(2**256)), InvalidInputError, "amount"),
    "a payment of more than there is": (
        "pay", QUOTE, payment(amount=str(10**30)), CostLimitError, "costs 1000000000000 of token"),
    "a payment of more than the wallet has": (
        "pay_without_limit", QUOTE, payment(amount=str(101 * ETHER)), InsufficientFundsError, "(?s)100 OCEAN.*101"),
    "a payment in no token": ("pay", QUOTE, payment(token="OCEAN"), InvalidInputError, "token 'OCEAN'"),
    "a payment in another token": ("pay", QUOTE, payment(token=NOWHERE), InvalidInputError, "was asked for"),
    "a payment on another chain": ("pay", QUOTE, payment(chainId=1), InvalidInputError, "chainId 1"),
    "a payee that is no address": ("pay", QUOTE, payment(payee="me"), InvalidInputError, "payee 'me'"),
    "a payee that is nobody": ("pay", QUOTE, payment(payee="0x" + "0" * 40), InvalidInputError, "payee"),
    "an escrow that is no address": (
        "pay", QUOTE, payment(escrowAddress="0x12"), InvalidInputError, "escrowAddress '0x12'"),
    "an escrow where no contract is": (
        "pay", QUOTE, payment(escrowAddress=NOWHERE), InvalidInputError, f"no escrow contract at {NOWHERE}"),
    "an escrow that is another contract": (
        "pay", QUOTE, edited(lambda quote: quote["payment"].update(escrowAddress=quote["payment"]["token"])),
        TransactionRevertedError, "refuses to be asked"),
    "a lock for less than no time": ("pay", QUOTE, payment(minLockSeconds=-1), InvalidInputError, "minLockSeconds -1"),
    "a lock for ever": ("pay", QUOTE, payment(minLockSeconds=10**12), InvalidInputError, "minLockSeconds 1000000000000"),
    "a lock for no number": ("pay", QUOTE, payment(minLockSeconds="soon"), InvalidInputError, "soon"),
}  # fmt: skip

OFFERED: dict[str, Impossible] = {
    "no environment at all": ("pay", ENVIRONMENTS, replaced([]), InvalidInputError, "no compute environment"),
    "an environment without address": (
        "pay", ENVIRONMENTS, environment(lambda entry: entry.update(consumerAddress="me")),
        InvalidInputError, "consumerAddress"),
    "an environment without fees": (
        "pay", ENVIRONMENTS, environment(lambda entry: entry.update(fees={})), InvalidInputError, "no compute environment"),
    "fees of another chain": (
        "pay", ENVIRONMENTS, environment(lambda entry: entry.update(fees={"1": entry["fees"].popitem()[1]})),
        InvalidInputError, "no compute environment"),
    "fees that are no object": (
        "pay", ENVIRONMENTS, environment(lambda entry: entry.update(fees=[5])), InvalidInputError, "unknown form"),
    "a fee in no token": (
        "pay", ENVIRONMENTS, environment(lambda entry: _fee(entry).update(feeToken="OCEAN")),
        InvalidInputError, "does not accept payments"),
    "a negative price": ("pay", ENVIRONMENTS, price(-1), InvalidInputError, "price -1 of"),
    "a price that is no number": ("pay", ENVIRONMENTS, price("NaN"), InvalidInputError, "price NaN of"),
    "a price that is a text": ("pay", ENVIRONMENTS, price("dear"), InvalidInputError, "unknown form"),
    "a price without end": ("pay", ENVIRONMENTS, price(float("inf")), InvalidInputError, "price Infinity of"),
    "a negative least amount": (
        "pay", ENVIRONMENTS, environment(lambda entry: entry["resources"][0].update(min=-1)),
        InvalidInputError, "min -1 of"),
    "resources that are no list": (
        "pay", ENVIRONMENTS, environment(lambda entry: entry.update(resources=5)), InvalidInputError, "unknown form"),
    "a negative duration": (
        "pay", ENVIRONMENTS, environment(lambda entry: entry.update(maxJobDuration=-1)),
        InvalidInputError, "maxJobDuration -1"),
    "a duration without end": (
        "pay", ENVIRONMENTS, environment(lambda entry: entry["free"].update(maxJobDuration=float("inf"))),
        InvalidInputError, "maxJobDuration inf"),
}  # fmt: skip

JOBS: dict[str, Impossible] = {
    "jobs without ids": ("wait", LIST, replaced([{"status": 1}]), InvalidInputError, "no jobId"),
    "a job of another cluster": ("wait", LIST, job(environment="0x1-0x2"), JobNotFoundError, "knows no job"),
    "an exit code that is a text": (
        "wait", LIST, job(terminationDetails={"exitCode": "0"}), InvalidInputError, "exitCode '0'"),
    # Taken for a number it would be a success.
    "an exit code that is a truth": (
        "wait", LIST, job(terminationDetails={"exitCode": False}), InvalidInputError, "exitCode False"),
    "a payment that is none": ("settle", LIST, job(payment=5), InvalidInputError, "unknown form"),
    "a payment that was made in no token": (
        "settle", LIST, job_payment(token="OCEAN"), InvalidInputError, "token 'OCEAN'"),
    "a lock that is no transaction": ("settle", LIST, job_payment(lockTx="soon"), InvalidInputError, "lockTx 'soon'"),
    "a lock for another job": ("settle", LIST, job(jobIdHash=OTHER_HASH), InvalidInputError, "locked nothing of"),
    "a lock that locks nothing": ("settle", LIST, edited(locked_by_the_claim), InvalidInputError, "locked nothing of"),
    "a job without its number in the escrow": ("settle", LIST, job(jobIdHash=None), InvalidInputError, "unknown form"),
    "an order of another asset, starting": (
        "start_with_another_order", lambda _: False, replaced(None), OrderExpiredError, "order again"),
    "an algorithm without container": (
        "start_free", DDO, edited(lambda ddo: ddo["metadata"].pop("algorithm")), InvalidInputError, "how the algorithm is run"),
    "an algorithm that is a number": (
        "start_free", DDO, edited(lambda ddo: ddo["metadata"].update(algorithm=5)), InvalidInputError, "how the algorithm is run"),
    "another algorithm": (
        "start_free", DDO, edited(lambda ddo: ddo.update(id="did:op:" + "0" * 64)), InvalidInputError, "it is that of did:op:000"),
}  # fmt: skip

PUBLISHED: dict[str, Impossible] = {
    "facts of the chain that are none": (
        "transfer", DDO, edited(lambda ddo: ddo.update(indexedMetadata=5)), InvalidInputError, "no DDO"),
    "a DDO without the chain's facts": (
        "transfer", DDO, edited(lambda ddo: ddo.pop("indexedMetadata")), InvalidInputError, "no DDO"),
    "orders that are no number": (
        "transfer", DDO, edited(lambda ddo: ddo["indexedMetadata"]["stats"][0].update(orders="many")),
        InvalidInputError, "no DDO"),
    "a verdict without hash": ("allow", VALIDATION, replaced({"hash": "0x12"}), InvalidInputError, "no verdict"),
    "encrypted content that is not hexadecimal": (
        "allow", ENCRYPTION, says(200, "encrypted"), InvalidInputError, "not the encrypted content"),
    "encrypted content that is cut off": (
        "allow", ENCRYPTION, says(200, "0x" + "ab" * 100), InvalidInputError, "not the encrypted content"),
}  # fmt: skip

# A node's errors are texts, many of them with the status 500.
TEXTS: dict[str, Impossible] = {
    "an error that hides why": (
        "pay", QUOTE, says(500, "Internal Server Error"), ServiceUnavailableError, "the node hides why"),
    "an empty error": ("pay", QUOTE, says(500, ""), ServiceUnavailableError, "the node hides why"),
    "an error page": (
        "pay", QUOTE, says(502, "<html><head><title>x</title></head><h1>Bad Gateway</h1></html>"),
        ServiceUnavailableError, "502: Bad Gateway"),
    "an asset that is not there": (
        "pay", QUOTE, says(500, "Error: No DDO found for asset"), AssetNotFoundError, "was it published on a chain"),
    "an environment that is not there": (
        "pay", QUOTE, says(500, "Invalid C2D Environment"), InvalidInputError, "choose one that it offers now"),
    "a token that is not taken": (
        "pay", QUOTE, says(500, "This environment does not accept payments in this token"), InvalidInputError, "fees say"),
    "an algorithm that is not trusted": (
        "pay", QUOTE, says(400, "Algorithm x is not allowed to run on the dataset"), NotAllowedError, "has to allow"),
    "a nonce that is never high enough": (
        "allow", ENCRYPTION, says(401, "nonce: 1 is not a valid nonce"), NotAllowedError, "overtook this one"),
    "a signature that is never right": (
        "allow", VALIDATION, says(401, "Invalid signature, signature mismatch"), NotAllowedError, "does not take the signature"),
}  # fmt: skip

LOG, OUTPUTS = result(2), result(3)
RESULTS: dict[str, NoResult] = {
    "a log whose frames break off": (
        LOG, says(200, "\1\0\0\0\0\0\0\2ok and no frame"), InvalidInputError, "no log in Docker's frames"),
    "a page in the place of the outputs": (OUTPUTS, BROKEN["HTML"], UndecodableResultError, "archive of the outputs is damaged"),
    "no outputs": (OUTPUTS, BROKEN["empty"], UndecodableResultError, "archive of the outputs is damaged"),
    "outputs that are cut off": (OUTPUTS, BROKEN["truncated"], UndecodableResultError, "archive of the outputs is damaged"),
    "much else than outputs": (OUTPUTS, TOO_LARGE, UndecodableResultError, "archive of the outputs is damaged"),
    "an error in the place of the outputs": (
        OUTPUTS, says(500, "Internal Server Error"), ServiceUnavailableError, "the node hides why"),
    "a refusal": (OUTPUTS, says(500, "Error: Access denied"), NotAllowedError, "is it the wallet that started the job"),
}  # fmt: skip

IMPOSSIBLE: dict[str, Impossible] = {
    **CHAIN_ANSWERS,
    **impossible_ddos(DDO, DDO, edited),
    **impossible_files(FILES),
    **impossible_quotes(QUOTE, NODE),
    **impossible_jobs(LIST, JOB),
    **{f"{name}, quoted": row for name, row in QUOTES.items()},
    **{f"{name}, offered": row for name, row in OFFERED.items()},
    **JOBS,
    **PUBLISHED,
    **TEXTS,
}
