"""The endpoints for DDOs: encrypt and decrypt, validate, get, query; and those for nonces, tokens and the escrow's events."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from eth_account import Account
from eth_account.messages import encode_defunct
from eth_utils import is_address, keccak, to_checksum_address
from starlette.responses import Response

from include.localnet.aquarius.matching import QueryError
from include.localnet.aquarius.search import Search, UnknownArgumentError
from include.localnet.aquarius.validation import UnknownSchemaError, validation_errors
from include.localnet.ethereum import RpcError, did_of
from include.localnet.node.answers import Refused, json_answer, text_answer
from include.localnet.node.escrow import EVENTS
from include.localnet.node.javascript import stringify
from include.localnet.provider.encryption import ENCRYPTED, decrypted, encrypted

if TYPE_CHECKING:
    from include.localnet.node.calls import Call
    from include.localnet.node.configuration import Node

_NOT_FOUND = "DDO not found"
# In these states a document is decrypted for nobody.
_CLOSED = (2, 3)


def nonce(node: Node, call: Call) -> Response:
    """Answer the last nonce of an address, as text."""
    return json_answer({"nonce": str(node.authority.last_nonce(call.query.get("userAddress", "undefined")))})


def encrypt(node: Node, call: Call) -> Response:
    """Encrypt the body, which is read as text, with the node's public key (ECIES)."""
    if not call.body:
        raise Refused("Missing required body", 400)
    node.authority.check(call.query, "encrypt", None)
    # Upstream reads the body as UTF-8: bytes that are none are lost.
    document = call.body.decode("utf-8", "replace").encode()
    answer = Response(encrypted(node.private_key, document))
    answer.headers["Content-Type"] = "application/octet-stream; charset=utf-8"
    return answer


def decrypt(node: Node, call: Call) -> Response:
    """Decrypt a DDO, given by its transaction or by itself, and check its hash."""
    data = call.json
    names = ("decrypterAddress", "chainId", "nonce", "signature")
    call.require("decryptDDO", {name: name for name in names}, data)
    if not is_address(data["decrypterAddress"]):
        raise Refused('Parameter : "decrypterAddress" is not a valid web3 address', 400)
    if str(data["chainId"]) != str(node.chain.chain_id):
        raise Refused("Decrypt DDO: Unsupported chain id", 400)
    fields = {**data, "consumerAddress": data["decrypterAddress"]}
    node.authority.check(fields, "decryptDDO", call.token)
    nft = data.get("dataNftAddress")
    if not is_address(nft):
        raise Refused("Decrypt DDO: Unknown error TypeError: invalid address")
    nft = str(to_checksum_address(nft))
    if node.chain.call(node.factory, "ERC721Factory", "erc721List", nft) != nft:
        raise Refused("Decrypt DDO: Asset not deployed by the data NFT factory", 400)
    document, flags, digest = _document(node, data, nft)
    state = node.chain.call(nft, "ERC721Template", "getMetaData")[2]
    if state in _CLOSED:
        raise Refused("Decrypt DDO: invalid metadata state", 403)
    if not flags & ENCRYPTED:
        raise Refused("Decrypt DDO: Failed to lzma decompress", 400)
    try:
        content = decrypted(node.private_key, document)
        did = json.loads(content)["id"]
    except (ValueError, KeyError, TypeError) as error:
        raise Refused("Decrypt DDO: Failed to decrypt", 400) from error
    if did != did_of(nft, node.chain.chain_id):
        raise Refused("Decrypt DDO: did does not match", 400)
    if hashlib.sha256(content).digest() != digest:
        raise Refused("Decrypt DDO: checksum does not match", 400)
    return Response(content, media_type="text/plain; charset=utf-8")


def _document(node: Node, data: dict[str, Any], nft: str) -> tuple[bytes, int, bytes]:
    """Return data, flags and hash of a document that is on the chain or in the request."""
    if data.get("transactionId"):
        try:
            receipt = node.chain.receipt(str(data["transactionId"])) or {"logs": []}
        except RpcError:
            receipt = {"logs": []}
        for name in ("MetadataCreated", "MetadataUpdated"):
            for event in node.chain.events_of(receipt, "ERC721Template", name, nft):
                values = event.arguments
                return values["data"], values["flags"][0] if values["flags"] else 0, values["metaDataHash"]
        raise Refused("Decrypt DDO: Failed to process transaction id", 400)
    try:
        texts = (data["encryptedDocument"], data["documentHash"])
        document, digest = (bytes.fromhex(str(text).removeprefix("0x")) for text in texts)
        return document, int(data["flags"]), digest
    except (ValueError, TypeError, KeyError) as error:
        raise Refused("Decrypt DDO: Failed to convert input args to bytes", 400) from error


def validate(node: Node, call: Call) -> Response:
    """Check a DDO and sign its hash; who asks may leave the request unsigned."""
    data = call.json
    ddo = data.get("ddo")
    call.require("validateDDO", {"ddo": "ddo"}, {"ddo": ddo or None})
    if not isinstance(ddo, dict) or not str(ddo.get("id") or "").startswith("did:op"):
        raise Refused(' Missing or invalid required parameter "id', 400)
    if not ddo.get("version"):
        raise Refused("Missing DDO version", 400)
    if any(data.get(name) for name in ("signature", "nonce", "publisherAddress")) or call.token:
        fields = {**data, "consumerAddress": data.get("publisherAddress")}
        node.authority.check(fields, "validateDDO", call.token)
    try:
        errors = validation_errors(ddo, ddo.get("chainId", ""), ddo.get("nftAddress", ""))
    except UnknownSchemaError as error:
        raise Refused(f"Unknown error: Unsupported DDO version: {ddo['version']}") from error
    errors.pop("id", None)  # upstream does not compare it
    if errors:
        raise Refused("Validation error: [object Object]", 400)
    digest = "0x" + hashlib.sha256(stringify(ddo).encode(errors="replace")).hexdigest()
    signed = Account.sign_message(encode_defunct(keccak(text=digest)), node.private_key)
    verdict = {
        "hash": digest,
        "publicKey": node.address,
        "r": f"0x{signed.r:064x}",
        "s": f"0x{signed.s:064x}",
        "v": signed.v,
    }
    return json_answer(verdict)


def ddo(node: Node, call: Call) -> Response:
    """Answer an indexed DDO."""
    did = call.path["did"]
    if not did.startswith("did:op"):
        raise Refused('Missing or invalid required parameter: "did"', 400)
    document = node.document(did)
    return text_answer(_NOT_FOUND, 404) if document is None else json_answer(document)


def state(node: Node, call: Call) -> Response:
    """Answer what came of the last metadata event of an asset; of one that is indexed it names no transaction."""
    did, nft, transaction = (call.query.get(name) for name in ("did", "nft", "txId"))
    if not did and not nft and not transaction:
        raise Refused(
            'Missing or invalid required parameters, you need to specify one of: "did", "txId", "nft"', 400
        )
    found = node.index.did_state(None, nft, transaction, did)
    if found is None:
        return text_answer("Not found", 404)
    return json_answer(
        {
            "id": found["did"],
            "chainId": found["chain_id"],
            "did": found["did"],
            "nft": found["nft"],
            "txId": " " if found["valid"] else found["tx_id"],
            "valid": found["valid"],
            "error": found["error"] or " ",
        }
    )


def query(node: Node, call: Call) -> Response:
    """Search with an Elasticsearch query.

    The answer has the form of a Typesense database: an entry for each of its collections, of which the second holds DDOs of
    version 4.
    """
    if not isinstance(call.json.get("query"), dict):
        raise Refused("Internal Server Error")
    try:
        search = Search(call.json)
        found = search.run(node.documents(), node.document)
    except (QueryError, UnknownArgumentError) as error:
        raise Refused("Internal Server Error") from error
    hits = [{"document": hit["_source"], "highlights": [], "text_match": 1} for hit in found["hits"]["hits"]]
    count = sum(1 for _ in node.documents())
    empty = _collection([], 0, 0)
    return json_answer(
        [empty, _collection(hits, found["hits"]["total"]["value"], count), empty, empty, empty]
    )


def _collection(hits: list[Any], found: int, out_of: int) -> dict[str, Any]:
    return {
        "facet_counts": [],
        "found": found,
        "out_of": out_of,
        "page": 1,
        "request_params": {},
        "search_time_ms": 0,
        "hits": hits,
    }


def create_token(node: Node, call: Call) -> Response:
    """Answer a token that stands in for signatures."""
    return _with_token(node, call, "createAuthToken", ("signature", "address"))


def invalidate_token(node: Node, call: Call) -> Response:
    """End a token."""
    return _with_token(node, call, "invalidateAuthToken", ("signature", "address", "token"))


def _with_token(node: Node, call: Call, command: str, names: tuple[str, ...]) -> Response:
    data = call.json
    if not all(data.get(name) for name in names):
        return json_answer({"error": "Missing required parameters"}, 400)
    address = str(data["address"])
    try:
        node.authority.claim(address, data.get("nonce"), str(data["signature"]), command)
    except Refused as error:
        return json_answer({"error": error.text}, error.status)
    if command == "createAuthToken":
        return json_answer(
            {"token": node.authority.create_token(address, data.get("nonce"), data.get("validUntil"))}
        )
    node.authority.invalidate_token(str(data["token"]))
    return json_answer({"success": True})


def escrow_events(node: Node, call: Call) -> Response:
    """List what happened in the escrow."""
    criteria = dict(call.query)
    chain_id = criteria.pop("chainId", None)
    if chain_id is not None and not chain_id.isdigit():
        raise Refused("chainId must be a number", 400)
    if criteria.get("eventType", EVENTS[0]) not in EVENTS:
        raise Refused(f"eventType must be one of: {', '.join(EVENTS)}", 400)
    if chain_id not in (None, str(node.chain.chain_id)):
        return json_answer([])
    offset, size = (criteria.pop(name, "") for name in ("offset", "size"))
    events = node.escrow.events(criteria)[int(offset) if offset.isdigit() else 0 :]
    return json_answer(events[: int(size)] if size.isdigit() else events)
