"""Proof on the chain that a service was paid for: the order, and the provider fee signed by this Provider."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eth_account import Account
from eth_account.messages import encode_defunct
from eth_utils import is_address, keccak, to_checksum_address

from include.localnet.ethereum import Event, RpcError

if TYPE_CHECKING:
    from include.localnet.provider.assets import Asset, Service
    from include.localnet.provider.configuration import Provider

ONE_DATATOKEN = 10**18
# Block times can be off; upstream adds these seconds when a fee has just expired.
GRACE_SECONDS = 90
_RECEIPT_TIMEOUT = 120.0
_RECEIPT_POLL = 0.25


class InvalidOrder(Exception):
    """The transaction is no order of the service that is valid now."""


@dataclass(frozen=True)
class Order:
    """A verified order.

    :param transaction: hash of the transaction that started the order, also when another one reused it
    :param fee_amount: provider fee paid with the transaction asked about, in the fee token's smallest unit
    :param valid_until: Unix time (seconds) the fee was paid for; 0 means it does not expire
    """

    transaction: str
    fee_amount: int
    valid_until: int


def fee_hash(data: bytes, address: str, token: str, amount: int, valid_until: int) -> bytes:
    """Return what a provider fee's signature covers (``ERC20Template._checkProviderFee``)."""
    packed = data + bytes.fromhex(address[2:]) + bytes.fromhex(token[2:])
    return bytes(keccak(packed + amount.to_bytes(32, "big") + valid_until.to_bytes(32, "big")))


class OrderCheck:
    """Checks one order transaction of one service."""

    def __init__(self, provider: Provider, service: Service, transaction: Any) -> None:
        self._provider = provider
        self._chain = provider.chain
        self._service = service
        self._transaction = transaction
        self._name = f"Provider {provider.network}"

    def verify(
        self, sender: Any, environment: str | None = None, compute: bool = False, allow_expired: bool = False
    ) -> Order:
        """Check the order.

        :param sender: consumer or payer of the order
        :param environment: the compute environment the fee must have been quoted for
        :param compute: whether the environment counts at all
        :param allow_expired: accept a provider fee whose time is over
        :raises InvalidOrder: with upstream's words for what is wrong
        """
        receipt = self._receipt(str(self._transaction), "the `startOrder` transaction")
        fee, data = self._fee_event(receipt)
        self._check_fee(fee, data, environment, compute)
        if not allow_expired:
            self._check_fee_time(fee, receipt, data.get("timestamp", 0) if compute else 0)
        since = None
        reused = self._chain.events_of(receipt, "ERC20Template", "OrderReused", self._service.datatoken)
        if reused:
            since = reused[0].arguments["timestamp"]
            original = "0x" + reused[0].arguments["orderTxId"].hex()
            receipt = self._receipt(original, "the order referenced in OrderReused")
        self._check_order(receipt, sender, since)
        return Order(
            transaction=receipt["transactionHash"],
            fee_amount=fee.arguments["providerFeeAmount"],
            valid_until=fee.arguments["validUntil"],
        )

    def _receipt(self, transaction: str, what: str) -> dict[str, Any]:
        deadline = time.monotonic() + _RECEIPT_TIMEOUT
        try:
            while (receipt := self._chain.receipt(transaction)) is None:
                # Upstream waits for hashes the chain has never heard of, too; that only ties up a thread.
                if self._chain.transaction(transaction) is None or time.monotonic() > deadline:
                    raise InvalidOrder(f"{self._name}: Failed to get tx receipt for {what}..")
                time.sleep(_RECEIPT_POLL)
        except RpcError as error:
            raise InvalidOrder(f"{self._name}: {transaction} is no transaction hash.") from error
        if int(receipt["status"], 16) == 0:
            raise InvalidOrder(f"{self._name}: order transaction failed.")
        return receipt

    def _fee_event(self, receipt: dict[str, Any]) -> tuple[Event, dict[str, Any]]:
        """Return the last fee event of this service and what the Provider wrote into it.

        Upstream takes events of any contract; a contract that imitates one could so pay with worthless tokens.
        """
        found: tuple[Event, dict[str, Any]] | None = None
        for event in self._chain.events_of(receipt, "ERC20Template", "ProviderFee", self._service.datatoken):
            try:
                data = json.loads(event.arguments["providerData"])
                same_token = data["dt"].lower() == self._service.datatoken.lower()
                if same_token and data["id"].lower() == self._service.id.lower():
                    found = event, data
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
        if found is None:
            raise InvalidOrder(
                f"{self._name}: Cannot find the event for the provider fee in tx id {self._transaction}."
            )
        return found

    def _check_fee(self, fee: Event, data: dict[str, Any], environment: str | None, compute: bool) -> None:
        if compute and environment != data.get("environment"):
            raise InvalidOrder(f"{self._name}: Mismatch between ordered c2d environment and selected one.")
        values = fee.arguments
        if values["providerFeeAddress"] != self._provider.address:
            raise InvalidOrder(
                f"{self._name}: The providerFeeAddress {values['providerFeeAddress']} in the event does not "
                f"match the provider address {self._provider.address}\n"
            )
        signed = fee_hash(
            values["providerData"],
            values["providerFeeAddress"],
            values["providerFeeToken"],
            values["providerFeeAmount"],
            values["validUntil"],
        )
        parts = (values["v"], int.from_bytes(values["r"], "big"), int.from_bytes(values["s"], "big"))
        try:
            signer = Account.recover_message(encode_defunct(signed), vrs=parts)
        except Exception:  # eth-keys raises several unrelated types for numbers that are no signature
            signer = None
        if signer != self._provider.address:
            raise InvalidOrder(
                f"{self._name}: Provider was not able to check the signed message in ProviderFees event\n"
            )

    def _check_fee_time(self, fee: Event, receipt: dict[str, Any], quoted_at: float) -> None:
        valid_until = fee.arguments["validUntil"]
        now = time.time()
        if not valid_until or now < valid_until or quoted_at <= 0:
            return
        block = self._chain.block(int(receipt["blockNumber"], 16))
        mined_at = int(block["timestamp"], 16) if block else 0
        # What passed between quote and payment was not the consumer's to use.
        if now >= valid_until + (mined_at - quoted_at + GRACE_SECONDS):
            raise InvalidOrder(f"{self._name}: Ordered c2d time was exceeded, check validUntil.")

    def _check_order(self, receipt: dict[str, Any], sender: Any, since: int | None) -> None:
        started = self._chain.events_of(receipt, "ERC20Template", "OrderStarted", self._service.datatoken)
        orders = [event for event in started if event.arguments["serviceIndex"] == self._service.index]
        if not orders:
            raise InvalidOrder(
                f"{self._name}: Cannot find the event for the order transaction with tx id {self._transaction}."
            )
        values = orders[-1].arguments
        if values["amount"] < ONE_DATATOKEN:
            raise InvalidOrder(
                f"{self._name}: The amount in the event is less than the amount requested. \n"
                f"requested: amount={ONE_DATATOKEN}\nevent: amount={values['amount']}"
            )
        ordered_at = values["timestamp"] if since is None else since
        now = time.time()
        if self._service.timeout and now - ordered_at > self._service.timeout:
            raise InvalidOrder(
                f"{self._name}: The order has expired. \ncurrent timestamp={now}\n"
                f"order timestamp={ordered_at}\ntimestamp delta={now - ordered_at}\n"
                f"service timeout={self._service.timeout}"
            )
        parties = (values["consumer"], values["payer"])
        if not is_address(sender) or to_checksum_address(sender) not in parties:
            raise InvalidOrder(f"{self._name}: sender of order transaction is not the consumer/payer.")


def verify_order(
    provider: Provider,
    sender: Any,
    transaction: Any,
    asset: Asset,
    service: Service,
    *,
    environment: str | None = None,
    compute: bool = False,
    allow_expired: bool = False,
) -> Order:
    """Check that a transaction is an order of an asset's service, valid now, by ``sender``.

    :raises InvalidOrder: when it is not
    """
    try:
        belongs = provider.chain.call(asset.nft["address"], "ERC721Template", "isDeployed", service.datatoken)
    except RpcError as error:
        raise InvalidOrder(f"The data NFT {asset.nft['address']} does not answer: {error}") from error
    if not belongs:
        raise InvalidOrder(f"The datatoken {service.datatoken} is not one of the asset's data NFT.")
    check = OrderCheck(provider, service, transaction)
    return check.verify(sender, environment, compute, allow_expired)
