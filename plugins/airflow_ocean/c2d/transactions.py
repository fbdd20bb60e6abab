"""Sends the transactions of one wallet, each step exactly once, by standing in ocean-lib's way as a web3 middleware.

A transaction has its hash before it is sent. Each step of a task has a name; its signed transaction is written to
the journal before it is broadcast, and a retry broadcasts the stored one instead of signing another:

* stored and mined: its receipt is the answer;
* stored and not mined: broadcast again;
* its nonce used by another transaction, for good: dead, signed anew;
* mined but reverted, for good: fails with the reason, its gas counts, the next attempt signs anew;
* stuck: replaced at the same nonce with a higher fee up to the cap, whichever candidate is mined counts;
* stored for another call than the one asked for now: refused.

For good means ``confirmations`` deep. Endpoints have several nodes, of which one may not know yet what another tells.
"""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import rlp
from eth_utils import keccak, to_checksum_address
from hexbytes import HexBytes

from airflow_ocean.c2d.errors import (
    CostLimitError,
    FeeCapError,
    InsufficientFundsError,
    OceanError,
    StepChangedError,
    TransactionPendingError,
    TransactionRevertedError,
)
from airflow_ocean.c2d.limits import CostLimit
from airflow_ocean.c2d.mined_transaction import MinedTransaction
from airflow_ocean.c2d.rpc_errors import KNOWN, NONCE_TAKEN, TOO_CHEAP, RpcError
from airflow_ocean.c2d.units import format_units

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_ocean.c2d.chain import Chain
    from airflow_ocean.c2d.journal import Journal
    from airflow_ocean.c2d.network import Network
    from airflow_ocean.c2d.wallet import Wallet

logger = logging.getLogger(__name__)

# Seconds after which a transaction that no block takes is offered again with a higher fee.
REPLACE_AFTER = 60.0
# Nodes take a replacement that pays at least a tenth more, https://geth.ethereum.org/docs/faq
REPLACEMENT_FACTOR = (9, 8)
# Seconds for which a nonce has to be seen used, and no transaction of the step mined, before all of them are dead: more
# than a block of Ethereum, by which one node of an endpoint may be behind another.
LAG = 15.0
# Blocks after which no chain drops one, and after which a node may have forgotten in which one a transaction is: those of
# Polygon are final after a few hundred, geth keeps the places of the transactions of 2,350,000.
FINAL = 1_000
# A wallet used on several machines may lose the race for a nonce; it then takes the next.
NONCE_ATTEMPTS = 20


@dataclass(frozen=True)
class Call:
    """What a step asks of the chain."""

    to: str
    data: str
    value: int
    gas: int

    @property
    def selector(self) -> str:
        """The called function's first four bytes, 0x-hex."""
        return self.data[:10]

    @classmethod
    def of_raw(cls, raw: bytes) -> Call:
        """Read the call out of a signed transaction as ocean-lib hands it over.

        Source of the layout: EIP-1559, type 2.
        """
        if raw[0] != 2:
            raise OceanError(f"expected an EIP-1559 transaction, got type {raw[0]}")
        gas, to, value, data = rlp.decode(raw[1:])[4:8]
        return cls(
            to=to_checksum_address(to),
            data="0x" + data.hex(),
            value=int.from_bytes(value, "big"),
            gas=int.from_bytes(gas, "big"),
        )


@dataclass
class Transactions:
    """The wallet's way to the chain.

    :param wallet: the account that pays and signs
    :param network: fee cap, confirmations and time-out
    :param journal: where signed transactions are kept
    :param chain: the chain
    :param limit: what may be spent; of it only gas counts here
    :param mined: what this process saw mined, oldest first
    """

    wallet: Wallet
    network: Network
    journal: Journal
    chain: Chain
    limit: CostLimit = field(default_factory=CostLimit)
    mined: list[MinedTransaction] = field(default_factory=list)
    _next_nonce: int = 0
    _step: str | None = None
    _check: Callable[[], None] | None = None

    # ------------------------------------------------------------------ the middleware

    def middleware(self, _make_request: object, _web3: object) -> Callable[[str, Any], dict[str, Any]]:
        """Take the innermost place in web3's chain of middlewares; everything but sending passes through."""

        def handle(method: str, params: Any) -> dict[str, Any]:
            if method == "eth_sendRawTransaction":
                if self._step is None:
                    raise OceanError(
                        "a transaction was sent outside of a named step; this is a defect of the caller"
                    )
                return _result(self._perform(self._step, Call.of_raw(bytes(HexBytes(params[0])))))
            if method == "eth_estimateGas" and self._step is not None:
                if self._stored(self._step) is not None:
                    return _result("0x0")  # what is stored was estimated when it was signed
                return self._estimate(self._step, params[0])
            if method == "eth_chainId":  # web3 asks for it before each call
                return _result(hex(self.chain_id))
            if method == "eth_getTransactionCount" and self._step is not None:
                return _result("0x0")  # the real nonce is chosen under the wallet's lock
            if method == "eth_call":
                return self.chain.view(params)
            return _result(self.chain.request(method, *params))  # web3's own errors have no type of ours

        return handle

    @property
    def chain_id(self) -> int:
        """The chain's id.

        :raises InvalidInputError: when it is not the chain of the network that the connection names
        """
        chain_id = self.chain.constant("chain id", lambda: self.chain.quantity("eth_chainId"))
        self.network.check_chain(chain_id)
        return chain_id

    # ------------------------------------------------------------------ steps

    @contextlib.contextmanager
    def step(self, name: str, check: Callable[[], None] | None = None) -> Iterator[dict[str, Any]]:
        """Name the step whose transaction ocean-lib sends inside; yields the ``tx_dict`` to give to ocean-lib.

        :param check: called under the wallet's lock before the transaction is signed; it raises when that must not be
        """
        if self._step is not None:
            raise OceanError(
                f"step {name!r} began inside step {self._step!r}; this is a defect of the caller"
            )
        self._step, self._check = name, check
        try:
            # With fees given, web3 asks the node for none and builds EIP-1559 transactions on every chain; the
            # real fees are chosen when the transaction is signed for good.
            yield {
                "from": self.wallet.account,
                "chainId": self.chain_id,
                "maxFeePerGas": 0,
                "maxPriorityFeePerGas": 0,
            }
        finally:
            self._step = self._check = None

    def of_step(self, step: str) -> MinedTransaction:
        """Return what a step that this process carried out sent."""
        return next(sent for sent in reversed(self.mined) if sent.step == step and not sent.reverted)

    def resume(self, step: str, to: str | None = None) -> MinedTransaction | None:
        """Bring a step begun earlier to its end without being asked the same again.

        :param to: the contract that it has to be of, in checksum form
        :raises StepChangedError: when it is of another one
        :return: the mined transaction, None when the step never began, or its transaction was reverted or can no longer be
            mined: then it may be tried anew
        """
        entry = self._stored(step)
        if entry is None:
            return None
        if to is not None and entry["to"] != to:
            raise StepChangedError(
                f"{step}: an earlier attempt signed a call at {entry['to']}, this one asks for one at {to}. Run again with "
                "force_new, or give the step another name"
            )
        try:
            return self._settle(step, entry)
        except TransactionRevertedError as error:
            if self._stored(step) is not None:  # it is not what was mined that failed
                raise
            logger.warning("%s", error)
            return None

    def _stored(self, step: str) -> dict[str, Any] | None:
        """Return a step's entry if a transaction is under way; what it has spent in vain before counts from now on."""
        entry = self.journal.load(step) or {}
        for transaction in entry.get("reverted", ()):
            receipt = self.chain.receipt(transaction)
            if receipt is not None:  # none where a reorganisation has dropped it
                self._count(step, receipt)
        return entry if entry.get("candidates") else None

    def _reverted(self, step: str) -> list[str]:
        return [sent.hash for sent in self.mined if sent.step == step and sent.reverted]

    def _perform(self, step: str, call: Call) -> str:
        entry = self._stored(step)
        if entry is not None:
            if (entry["to"], entry["selector"]) != (call.to, call.selector):
                raise StepChangedError(
                    f"{step}: an earlier attempt signed a call of {entry['selector']} at {entry['to']}, this one asks "
                    f"for {call.selector} at {call.to}. Clear the task's state, or run again with force_new, to start over"
                )
            settled = self._settle(step, entry)
            if settled is not None:
                return settled.hash
            # Its nonce went to another transaction: the stored one can never be mined. What was estimated for it
            # was skipped, so the call is estimated now.
            request = {
                "from": self.wallet.address,
                "to": call.to,
                "data": call.data,
                "value": hex(call.value),
            }
            estimate = self._estimate(step, request)
            call = Call(call.to, call.data, call.value, int(estimate["result"], 16))
        for _ in range(NONCE_ATTEMPTS):
            mined = self._settle(step, self._sign_and_broadcast(step, call))
            if mined is not None:
                return mined.hash
        raise TransactionPendingError(
            f"{step}: {NONCE_ATTEMPTS} nonces of {self.wallet.address} were taken by others; is the wallet in heavy use?"
        )

    # ------------------------------------------------------------------ signing

    def _estimate(self, step: str, transaction: dict[str, Any]) -> dict[str, Any]:
        asked = {key: transaction[key] for key in ("from", "to", "data", "value") if key in transaction}
        return self.chain.estimate_or_raise(step, [asked])

    def _sign_and_broadcast(self, step: str, call: Call) -> dict[str, Any]:
        with self.wallet.lock(self.chain_id):
            fees = self.chain.fees(self.network.max_fee_wei)
            gas = gas_limit(call.gas)
            most = gas * highest_fee(fees) + call.value
            self._check_gas(step, most)
            self._check_balance(step, most)
            counted = self.chain.quantity("eth_getTransactionCount", self.wallet.address, "pending")
            nonce = max(counted, self._next_nonce)
            if self._check is not None:
                self._check()
            candidate = self._sign(call, gas, nonce, fees)
            entry = {
                "to": call.to,
                "selector": call.selector,
                "nonce": nonce,
                "candidates": [candidate],
                "reverted": self._reverted(step),
            }
            self.journal.save(step, entry)
            self._broadcast(step, candidate)
        return entry

    def _sign(self, call: Call, gas: int, nonce: int, fees: dict[str, int]) -> dict[str, Any]:
        transaction = {
            "chainId": self.chain_id,
            "nonce": nonce,
            "to": call.to,
            "data": call.data,
            "value": call.value,
            "gas": gas,
            **fees,
        }
        raw = bytes(self.wallet.account.sign_transaction(transaction).rawTransaction)
        return {
            "hash": "0x" + keccak(raw).hex(),
            "raw": "0x" + raw.hex(),
            "gas": gas,
            "value": call.value,
            "data": call.data,
            "fees": fees,
        }

    def _check_balance(self, step: str, needed: int) -> None:
        balance = self.chain.quantity("eth_getBalance", self.wallet.address, "latest")
        if balance < needed:
            raise InsufficientFundsError(
                f"{step}: wallet {self.wallet.address} holds {format_units(balance)} of the chain's coin and may need "
                f"up to {format_units(needed)} for gas; send it some. Nothing was sent"
            )

    def _broadcast(self, step: str, candidate: dict[str, Any]) -> None:
        """Offer a signed transaction to the chain; whether it can be mined is seen later, not from what the node says."""
        logger.info("%s: sending transaction %s", step, candidate["hash"])
        try:
            self.chain.request("eth_sendRawTransaction", candidate["raw"])
        except RpcError as error:
            if not error.says((*KNOWN, *NONCE_TAKEN, *TOO_CHEAP)):
                raise TransactionRevertedError(
                    f"{step}: the node refuses transaction {candidate['hash']}: {error.text}"
                ) from error
            logger.info("%s: the node says of transaction %s: %s", step, candidate["hash"], error.text)

    # ------------------------------------------------------------------ waiting

    def _settle(self, step: str, entry: dict[str, Any]) -> MinedTransaction | None:
        """Wait until one of the candidates is mined and confirmed; None when none can be any more."""
        began = last_sent = time.monotonic()
        passed_over: float | None = None
        pause = 0.1
        offered = False
        while True:
            found = self._mined_candidate(entry)
            if found is not None:
                mined = self._judge(step, entry, found)
                if mined is not None:
                    return mined
                # The block may still be dropped, and the transaction with it.
                offered, passed_over = False, None
            elif self._is_used(entry["nonce"]):
                passed_over = passed_over or time.monotonic()
                if time.monotonic() - passed_over > LAG:
                    return self._remembered(entry)
            else:
                passed_over = None
                if not offered:
                    # A stored transaction may never have reached the node, or was dropped by a reorganisation.
                    offered = True
                    self._offer_again(step, entry)
                elif time.monotonic() - last_sent > REPLACE_AFTER:
                    last_sent = time.monotonic()
                    self._replace(step, entry)
            if time.monotonic() - began > self.network.transaction_timeout:
                raise TransactionPendingError(
                    f"{step}: transaction {entry['candidates'][-1]['hash']} is not confirmed after "
                    f"{self.network.transaction_timeout:.0f} s; a retry goes on waiting for the same one"
                )
            time.sleep(pause)
            pause = min(pause * 1.5, 2.0)

    def _remembered(self, entry: dict[str, Any]) -> MinedTransaction | None:
        """Return what an earlier attempt saw mined, so deep by now that a node may have forgotten it."""
        if "mined" not in entry:
            return None
        mined = MinedTransaction.of_dict(entry["mined"])
        if self.chain.quantity("eth_blockNumber") - mined.block < FINAL:
            return None
        self._add(mined)
        return mined

    def _mined_candidate(self, entry: dict[str, Any]) -> dict[str, Any] | None:
        for candidate in reversed(entry["candidates"]):
            receipt = self.chain.receipt(candidate["hash"])
            if receipt is not None:
                return receipt
        return None

    def _is_used(self, nonce: int) -> bool:
        """Whether a block that is deep enough has a transaction of the wallet with this nonce."""

        def is_used_at(block: str) -> bool:
            return self.chain.quantity("eth_getTransactionCount", self.wallet.address, block) > nonce

        # The newest first: many nodes keep the state of some blocks only.
        used = is_used_at("latest")
        if used and self.network.confirmations > 1:
            deep = self.chain.quantity("eth_blockNumber") - self.network.confirmations + 1
            used = deep >= 0 and is_used_at(hex(deep))
        if used:
            self._next_nonce = max(self._next_nonce, nonce + 1)
        return used

    def _offer_again(self, step: str, entry: dict[str, Any]) -> None:
        """Broadcast the newest candidate unless the node has it."""
        newest = entry["candidates"][-1]
        if self.chain.request("eth_getTransactionByHash", newest["hash"]) is None:
            self._broadcast(step, newest)

    def _replace(self, step: str, entry: dict[str, Any]) -> None:
        """Offer the same call at the same nonce for a higher fee, as far as cap and limit allow."""
        last = entry["candidates"][-1]
        try:
            fees = self._higher_fees(step, last)
        except (FeeCapError, CostLimitError) as error:
            logger.warning("%s: transaction %s waits for a block: %s", step, last["hash"], error)
            self._offer_again(step, entry)  # the node may have dropped it
            return
        call = Call(entry["to"], last["data"], last["value"], last["gas"])
        replacement = self._sign(call, last["gas"], entry["nonce"], fees)
        entry["candidates"].append(replacement)
        self.journal.save(step, entry)
        logger.info(
            "%s: transaction %s is replaced with a higher fee by %s", step, last["hash"], replacement["hash"]
        )
        self._broadcast(step, replacement)

    def _higher_fees(self, step: str, last: dict[str, Any]) -> dict[str, int]:
        """Return what a replacement is to pay: enough to be taken, and what the network asks now.

        :raises FeeCapError: when that is more than the cap
        :raises CostLimitError: when the gas may cost more than the limit then
        """
        up, down = REPLACEMENT_FACTOR
        cap = self.network.max_fee_wei
        asked = self.chain.fees(cap)
        fees = {name: max(fee * up // down + 1, asked.get(name, 0)) for name, fee in last["fees"].items()}
        if cap is not None and highest_fee(fees) > cap:
            raise FeeCapError(f"a higher fee would pass max_fee_gwei ({format_units(cap, 9)})")
        self._check_gas(step, last["gas"] * highest_fee(fees) + last["value"])
        return fees

    def _check_gas(self, step: str, most: int) -> None:
        self.limit.check_gas(step, sum(transaction.fee for transaction in self.mined), most)

    def _judge(self, step: str, entry: dict[str, Any], receipt: dict[str, Any]) -> MinedTransaction | None:
        """Decide on a receipt: None while it is not deep enough."""
        block = int(receipt["blockNumber"], 16)
        if self.network.confirmations > 1:
            depth = self.chain.quantity("eth_blockNumber") - block + 1
            if depth < self.network.confirmations:
                return None
        self._next_nonce = max(self._next_nonce, entry["nonce"] + 1)
        if int(receipt["status"], 16) == 1:
            mined = self._count(step, receipt)
            if entry.get("mined") != mined.to_dict():
                self.journal.save(step, {**entry, "mined": mined.to_dict()})
            return mined
        asked = entry["candidates"][-1]
        call = {
            "from": self.wallet.address,
            "to": entry["to"],
            "data": asked["data"],
            "value": hex(asked["value"]),
            "gas": hex(asked["gas"]),
        }
        reason = self.chain.why_reverted(call, receipt["blockNumber"])
        self._count(step, receipt)
        self.journal.save(step, {**entry, "candidates": [], "reverted": self._reverted(step)})
        raise TransactionRevertedError(
            f"{step}: transaction {receipt['transactionHash']} was mined in block {block} and reverted: {reason}"
        )

    def _count(self, step: str, receipt: dict[str, Any]) -> MinedTransaction:
        """Add a transaction to those that count, once."""
        mined = MinedTransaction.of_receipt(step, receipt, self.wallet.address)
        self._add(mined)
        return mined

    def _add(self, mined: MinedTransaction) -> None:
        if any(known.hash == mined.hash for known in self.mined):
            return
        self.mined.append(mined)
        what = "was reverted" if mined.reverted else "is"
        logger.info(
            "%s: transaction %s %s in block %d, gas %d",
            mined.step, mined.hash, what, mined.block, mined.gas_used,
        )  # fmt: skip


def gas_limit(estimated: int) -> int:
    """Return the gas that is signed for: a fifth more, as another transaction of the block may change what one needs."""
    return estimated + estimated // 5


def highest_fee(fees: dict[str, int]) -> int:
    """Return the most that a unit of gas may cost, in wei, of the fees that :meth:`Chain.fees` chose."""
    return fees.get("maxFeePerGas") or fees["gasPrice"]


def _result(value: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 0, "result": value}
