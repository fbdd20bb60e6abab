"""Who sends a request: nonces that only rise, signatures over them, and tokens that stand in for signatures."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from eth_account import Account
from eth_account.messages import encode_defunct
from eth_utils import is_address, keccak
from sqlalchemy import Column, Engine, Float, Integer, MetaData, String, Table, select, update
from sqlalchemy.dialects.sqlite import insert

from include.localnet.node.answers import Refused
from include.localnet.node.javascript import parse_int

if TYPE_CHECKING:
    from collections.abc import Mapping

_tables = MetaData()
_nonces = Table(
    "nonces",
    _tables,
    # As written by the client: upstream does not know two spellings of an address for one.
    Column("address", String, primary_key=True),
    Column("nonce", Integer, nullable=False),
)
_tokens = Table(
    "tokens",
    _tables,
    Column("token", String, primary_key=True),
    Column("address", String, nullable=False),
    Column("valid_until", Float),
    Column("valid", Integer, nullable=False, default=1),
)
_MISMATCH = "consumer address and nonce signature mismatch"
_NOTHING = (
    "Invalid authentication, you need to provide either a token or an address, signature, message and nonce"
)


def signed_hash(address: str, nonce: Any, command: str) -> bytes:
    """Return what a client signs for a command: keccak-256 of address, nonce and command."""
    return bytes(keccak(text=f"{address}{nonce}{command}"))


def signers(digest: bytes, signature: str) -> set[str]:
    """Return the lower-case addresses that may have made a signature.

    Upstream takes the hash's 66-character hex text for the message, or its bytes. Those it gets from
    ``ethers.toBeArray``, which drops leading zero bytes: of 256 hashes one begins with such a byte, and a correct
    signature of its 32 bytes is refused. The hex text always works, and so does another nonce.
    """
    found = set()
    for message in (encode_defunct(text="0x" + digest.hex()), encode_defunct(digest.lstrip(b"\0"))):
        try:
            found.add(str(Account.recover_message(message, signature=signature)).lower())
        except (
            Exception
        ):  # eth-account and eth-keys raise half a dozen unrelated types for what is no signature
            return set()
    return found


class Authority:
    """Checks who sends a request.

    :param secret: signs the tokens
    """

    def __init__(self, engine: Engine, secret: str) -> None:
        self._engine = engine
        self._secret = secret
        self._lock = threading.Lock()
        _tables.create_all(engine)

    def last_nonce(self, address: str) -> int:
        """Return the last nonce that an address used, 0 when it has used none."""
        with self._engine.connect() as connection:
            found = connection.execute(select(_nonces.c.nonce).where(_nonces.c.address == address)).scalar()
        return int(found or 0)

    def claim(self, address: str, nonce: Any, signature: str, command: str) -> None:
        """Check a signature and use its nonce up; a refused request uses none.

        :raises Refused: 401
        """
        number = parse_int(nonce)
        with self._lock:
            if number is not None and number <= self.last_nonce(address):
                raise Refused(f"nonce: {number} is not a valid nonce", 401)
            digest = signed_hash(address, "NaN" if number is None else number, command)
            if not is_address(address) or address.lower() not in signers(digest, signature):
                raise Refused(_MISMATCH, 401)
            statement = insert(_nonces).values(address=address, nonce=number)
            with self._engine.begin() as connection:
                connection.execute(
                    statement.on_conflict_do_update(index_elements=["address"], set_={"nonce": number})
                )

    def check(self, fields: Mapping[str, Any], command: str, token: str | None) -> None:
        """Check a request, by its signature or else by its token.

        A token is good for every address, as upstream; what belongs to somebody is guarded by his address besides.

        :param fields: ``consumerAddress``, ``nonce`` and ``signature``
        :param token: the ``Authorization`` header as it is, without ``Bearer``
        :raises Refused: 401
        """
        address, nonce, signature = (fields.get(name) for name in ("consumerAddress", "nonce", "signature"))
        if signature and address and nonce:
            self.claim(str(address), nonce, str(signature), command)
        elif token:
            if not self._is_valid(token):
                raise Refused("Invalid token", 401)
        else:
            raise Refused(_NOTHING, 401)

    def create_token(self, address: str, nonce: Any, valid_until: Any) -> str:
        """Return a new token.

        :param valid_until: milliseconds since 1970, None for ever
        """
        import jwt  # brings 10 MB of cryptography along, and hardly anyone asks for tokens

        now = time.time()
        content = {"address": address, "nonce": nonce, "createdAt": int(now * 1000), "iat": int(now)}
        token = str(jwt.encode(content, self._secret, algorithm="HS256"))
        with self._engine.begin() as connection:
            connection.execute(
                insert(_tokens)
                .values(token=token, address=address, valid_until=valid_until, valid=1)
                .on_conflict_do_nothing()
            )
        return token

    def invalidate_token(self, token: str) -> None:
        """End a token before its time."""
        with self._engine.begin() as connection:
            connection.execute(update(_tokens).where(_tokens.c.token == token).values(valid=0))

    def _is_valid(self, token: str) -> bool:
        query = select(_tokens.c.valid, _tokens.c.valid_until).where(_tokens.c.token == token)
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        return bool(row and row.valid and (row.valid_until is None or row.valid_until >= time.time() * 1000))
