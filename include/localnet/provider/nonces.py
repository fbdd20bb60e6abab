"""Last used nonces and authentication tokens, kept in SQLite."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

from eth_utils import is_address, to_checksum_address
from sqlalchemy import Column, Engine, MetaData, String, Table, delete, select, update
from sqlalchemy.dialects.sqlite import insert as insert_or_ignore

_tables = MetaData()
_nonces = Table(
    "user_nonce",
    _tables,
    Column("address", String(255), primary_key=True),
    Column("nonce", String(255), nullable=False),
)
_revoked = Table("revoked_tokens", _tables, Column("token", String(255), primary_key=True))

FIRST_NONCE = "1"


class NonceTooLow(Exception):
    """The nonce is below the last one used."""


class NonceUsed(Exception):
    """The nonce is the last one used."""


def is_number(value: Any) -> bool:
    """Say whether a value can be a nonce: whole or fractional, as number or text, but finite."""
    if isinstance(value, bool):
        return False
    try:
        return Decimal(str(value)).is_finite()
    except InvalidOperation:
        return False


def _key(address: str) -> str:
    # Upstream takes the address as it is written, so that another case of it escapes the replay protection.
    return to_checksum_address(address) if is_address(address) else address


class NonceStore:
    """The last nonce of each address; a nonce is claimed by one request only, whatever runs at the same time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        _tables.create_all(engine)

    def last(self, address: str) -> str | None:
        """Return the last nonce an address used, None when it never used one."""
        with self._engine.connect() as connection:
            return connection.execute(
                select(_nonces.c.nonce).where(_nonces.c.address == _key(address))
            ).scalar_one_or_none()

    def last_or_first(self, address: str) -> str:
        """Return the last nonce; an address without one is given the first, as upstream does."""
        known = self.last(address)
        if known is None and is_address(address):
            self._insert(_key(address), FIRST_NONCE)
            known = self.last(address)
        return known or FIRST_NONCE

    def check(self, address: str, nonce: Any) -> None:
        """Check a nonce without using it.

        :raises NonceTooLow: when it is below the last one; the last one itself passes here, as upstream
        """
        last = self.last(address)
        if last is not None and Decimal(str(nonce)) < Decimal(last):
            raise NonceTooLow(f"Invalid signature expected nonce ({last}) > current nonce ({nonce}).")

    def claim(self, address: str, nonce: Any) -> None:
        """Use a nonce up.

        Upstream does so after the work, so that a repeated request is done and then fails. Here it is done before
        the work, and compared as numbers: of two requests with one nonce exactly one is served.

        :raises NonceTooLow: when it is below the last one
        :raises NonceUsed: when it is the last one
        """
        key, new = _key(address), str(nonce)
        while True:
            last = self.last(key)
            if last is None:
                if self._insert(key, new):
                    return
                continue
            self.check(key, nonce)
            if Decimal(new) == Decimal(last):
                raise NonceUsed(
                    f"Cannot create duplicates in the database.\n Existing nonce: {last} vs. new nonce: {new}"
                )
            with self._engine.begin() as connection:
                changed = connection.execute(
                    update(_nonces).where(_nonces.c.address == key, _nonces.c.nonce == last).values(nonce=new)
                )
            if changed.rowcount:
                return

    def _insert(self, address: str, nonce: str) -> bool:
        statement = insert_or_ignore(_nonces).values(address=address, nonce=nonce).on_conflict_do_nothing()
        with self._engine.begin() as connection:
            return bool(connection.execute(statement).rowcount)


class TokenStore:
    """Authentication tokens: JWTs signed with the Provider's key, and the list of those deleted early."""

    def __init__(self, engine: Engine, private_key: str) -> None:
        self._engine = engine
        self._key = private_key
        _tables.create_all(engine)

    def create(self, address: str, expiration: int) -> str:
        """Return the token of an address; one deleted before is valid again.

        :param expiration: Unix time in seconds
        """
        import jwt  # brings 10 MB of cryptography along, and hardly anyone asks for tokens

        token = jwt.encode({"exp": expiration, "address": address}, self._key, algorithm="HS256")
        with self._engine.begin() as connection:
            connection.execute(delete(_revoked).where(_revoked.c.token == token))
        return token

    def problem(self, token: str, address: str) -> str:
        """Return why a token is not valid for an address, an empty text when it is."""
        import jwt

        try:
            content = jwt.decode(token, self._key, algorithms=["HS256"])
            if to_checksum_address(content["address"]) != to_checksum_address(address):
                return "Token is invalid."
        except jwt.ExpiredSignatureError:
            return "Token is expired."
        except (jwt.InvalidTokenError, KeyError, ValueError, TypeError):
            return "Token is invalid."
        with self._engine.connect() as connection:
            deleted = connection.execute(select(_revoked.c.token).where(_revoked.c.token == token)).first()
        return "Token is deleted." if deleted else ""

    def revoke(self, token: str) -> None:
        """Delete a token before it expires."""
        with self._engine.begin() as connection:
            connection.execute(insert_or_ignore(_revoked).values(token=token).on_conflict_do_nothing())
