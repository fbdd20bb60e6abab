"""What a transaction's receipt says about tokens: transfers, Provider fees and orders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eth_utils import keccak, to_checksum_address

if TYPE_CHECKING:
    from collections.abc import Iterator

TRANSFER_TOPIC = "0x" + keccak(text="Transfer(address,address,uint256)").hex()
# ERC20Template's events; an order's token and a fee's token, payer and amount are where the code below reads them.
_ORDER = "OrderStarted(address,address,uint256,uint256,uint256,address,uint256)"
_FEE = "ProviderFee(address,address,uint256,bytes,uint8,bytes32,bytes32,uint256)"
ORDER_TOPIC, FEE_TOPIC = ("0x" + keccak(text=event).hex() for event in (_ORDER, _FEE))
# Escrow's events; the first fields of each are indexed.
DEPOSIT_TOPIC, WITHDRAW_TOPIC = (
    "0x" + keccak(text=f"{event}(address,address,uint256)").hex() for event in ("Deposit", "Withdraw")
)
CLAIM_TOPIC = "0x" + keccak(text="Claimed(address,uint256,address,address,uint256,bytes)").hex()
CANCEL_TOPIC = "0x" + keccak(text="Canceled(address,uint256,address,address,uint256)").hex()


def token_flow(logs: list[dict[str, Any]], wallet: str) -> dict[str, int]:
    """Return what a transaction's ERC-20 transfers took from a wallet: token address → amount, less what came in.

    Source of the layout: ERC-20, event ``Transfer(address indexed from, address indexed to, uint256 value)``. That of
    ERC-721 has a third indexed field and no data.
    """
    flow: dict[str, int] = {}
    for log in logs:
        if len(log["topics"]) != 3 or log["topics"][0] != TRANSFER_TOPIC:
            continue
        sender, receiver = (to_checksum_address("0x" + topic[-40:]) for topic in log["topics"][1:])
        sign = (sender == wallet) - (receiver == wallet)
        if sign:
            token = to_checksum_address(log["address"])
            flow[token] = flow.get(token, 0) + sign * int(log["data"], 16)
    return flow


def provider_fees(logs: list[dict[str, Any]]) -> dict[str, int]:
    """Return the Provider fees that a transaction paid: token address → amount."""
    fees: dict[str, int] = {}
    for log in logs:
        if len(log["topics"]) == 3 and log["topics"][0] == FEE_TOPIC and len(log["data"]) >= 66:
            token = to_checksum_address("0x" + log["topics"][2][-40:])
            amount = int(log["data"][2:66], 16)
            fees |= {token: fees.get(token, 0) + amount} if amount else {}
    return fees


def ordered_tokens(logs: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return the datatokens that a transaction started orders with."""
    return tuple(
        to_checksum_address(log["address"])
        for log in logs
        if log["topics"] and log["topics"][0] == ORDER_TOPIC
    )


def escrow_flow(logs: list[dict[str, Any]], wallet: str) -> dict[str, int]:
    """Return what a transaction put into an escrow for a wallet: token address → amount, less what it took out."""
    flow: dict[str, int] = {}
    for log in logs:
        kind = log["topics"][0] if len(log["topics"]) == 2 and len(log["data"]) >= 130 else None
        if kind in (DEPOSIT_TOPIC, WITHDRAW_TOPIC) and _topic_address(log, 1) == wallet:
            token = to_checksum_address("0x" + log["data"][26:66])
            amount = int(log["data"][66:130], 16)
            flow[token] = flow.get(token, 0) + (amount if kind == DEPOSIT_TOPIC else -amount)
    return flow


def released_amounts(logs: list[dict[str, Any]], escrow: str, payer: str) -> dict[int, int]:
    """Return what was claimed of a payer's locks that are over: the job's number in the contract → amount, 0 when given back."""
    given_back = {job: 0 for job, *_ in _releases(logs, CANCEL_TOPIC, escrow, payer)}
    return given_back | {job: amount for job, _, amount in _releases(logs, CLAIM_TOPIC, escrow, payer)}


def canceled_amounts(logs: list[dict[str, Any]], escrow: str, payer: str) -> dict[str, int]:
    """Return what an escrow gave back of a payer's expired locks: token address → amount."""
    given_back: dict[str, int] = {}
    for _, token, amount in _releases(logs, CANCEL_TOPIC, escrow, payer):
        given_back[token] = given_back.get(token, 0) + amount
    return given_back


def _releases(
    logs: list[dict[str, Any]], kind: str, escrow: str, payer: str
) -> Iterator[tuple[int, str, int]]:
    """Yield job, token and amount of the events of a kind; the payee and the payer are the indexed fields."""
    for log in logs:
        if len(log["topics"]) != 3 or log["topics"][0] != kind or len(log["data"]) < 194:
            continue
        if to_checksum_address(log["address"]) == escrow and _topic_address(log, 2) == payer:
            data = log["data"]
            yield int(data[2:66], 16), to_checksum_address("0x" + data[90:130]), int(data[130:194], 16)


def _topic_address(log: dict[str, Any], place: int) -> str:
    return str(to_checksum_address("0x" + log["topics"][place][-40:]))
