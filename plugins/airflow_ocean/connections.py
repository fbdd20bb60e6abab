"""What an Airflow connection of the type ``ocean`` says, read and checked; nothing is asked of any network here."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, quote, urlsplit, urlunsplit

from airflow_ocean.c2d.errors import InvalidInputError

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_ocean.c2d.network import KnownNetwork, Network

_PRIVATE_KEY = re.compile(r"(0[xX])?[0-9a-fA-F]{64}")
# Hosted RPC endpoints carry their API key as a long path segment.
_API_KEY_LENGTH = 20


@dataclass(frozen=True)
class OceanConnection:
    """A wallet on a network.

    :param conn_id: the connection's id, for messages
    :param rpc_url: JSON-RPC endpoint of the chain, the API key included
    :param provider_url: root URL of the Provider or Ocean Node
    :param rpc_api_key: the endpoint's API key, where it is kept apart from the URL
    :param password: the private key, or the password of the keystore file
    :param keystore_path: encrypted keystore file (Web3 Secret Storage) that holds the private key
    :param network_name: name of the public network that it has to be, for its explorer and contract addresses
    :param metadata_cache_url: root URL of Aquarius, for a Provider
    :param address_file: JSON file with contract addresses
    :param max_fee_gwei: the most a transaction may pay per unit of gas, in gwei
    :param max_cost: the most one task may spend, see :class:`~airflow_ocean.c2d.limits.CostLimit`
    :param confirmations: blocks a transaction must be deep before it counts
    :param explorer_url: root URL of a block explorer
    :param artifact_base: folder or object storage URL for results
    """

    conn_id: str
    rpc_url: str = field(repr=False)
    provider_url: str
    password: str | None = field(default=None, repr=False)
    rpc_api_key: str | None = field(default=None, repr=False)
    keystore_path: str | None = None
    network_name: str | None = None
    metadata_cache_url: str | None = None
    address_file: str | None = None
    max_fee_gwei: Decimal | None = None
    max_cost: Any = None
    confirmations: int = 1
    explorer_url: str | None = None
    artifact_base: str | None = None

    @classmethod
    def parse(cls, connection: Connection) -> OceanConnection:
        """Read an Airflow connection.

        :raises InvalidInputError: names the connection and the field that is missing or wrong, never a secret
        """
        conn_id = connection.conn_id
        if connection.conn_type not in (None, "", "ocean"):
            raise InvalidInputError(
                f"connection {conn_id!r} is of type {connection.conn_type!r}, expected 'ocean'"
            )
        extra = _Extra(conn_id, connection.extra)
        rpc_api_key = extra.text("rpc_api_key", secret=True)
        provider_url = extra.url("provider_url", published=True)
        if provider_url is None:
            raise extra.error(
                "provider_url",
                "is missing: the root URL of the Provider or Ocean Node, such as http://127.0.0.1:8030",
            )
        known = extra.known_network("network_name")
        return cls(
            conn_id=conn_id,
            rpc_url=_with_api_key(_rpc_url(connection), rpc_api_key),
            provider_url=provider_url,
            password=connection.password or None,
            rpc_api_key=rpc_api_key,
            network_name=None if known is None else known.name,
            keystore_path=extra.text("keystore_path"),
            metadata_cache_url=extra.url("metadata_cache_url"),
            address_file=extra.text("address_file"),
            max_fee_gwei=extra.gwei("max_fee_gwei"),
            max_cost=extra.values.get("max_cost"),
            confirmations=extra.count("confirmations", 1),
            explorer_url=extra.url("explorer_url", published=True) or (known.explorer_url if known else None),
            artifact_base=extra.text("artifact_base"),
        )

    def network(self) -> Network:
        """Return the network part, which holds no key."""
        from airflow_ocean.c2d.network import Network, known_networks

        return Network(
            rpc_url=self.rpc_url,
            provider_url=self.provider_url,
            metadata_cache_url=self.metadata_cache_url,
            address_file=self.address_file,
            max_fee_gwei=self.max_fee_gwei,
            confirmations=self.confirmations,
            explorer_url=self.explorer_url,
            known=known_networks()[self.network_name] if self.network_name else None,
        )

    def private_key(self) -> str:
        """Return the private key as 0x and 64 lower-case digits, decrypting the keystore file if there is one.

        Decryption takes seconds of computing by design; keep the result.

        :raises InvalidInputError: when there is no usable key; the message holds no part of it
        """
        if self.password is None:
            raise InvalidInputError(
                f"connection {self.conn_id!r}, field password: is empty; it holds the wallet's private key "
                "or, with the extra field keystore_path, the password of an encrypted keystore file"
            )
        if self.keystore_path is not None:
            return self._decrypt(Path(self.keystore_path).expanduser())
        key = self.password.strip()
        if not _PRIVATE_KEY.fullmatch(key):
            raise InvalidInputError(
                f"connection {self.conn_id!r}, field password: is not a private key, which is 0x and 64 hexadecimal "
                "digits; for an encrypted keystore file set the extra field keystore_path"
            )
        return "0x" + key[-64:].lower()

    def _decrypt(self, path: Path) -> str:
        from eth_account import Account

        where = f"connection {self.conn_id!r}, field keystore_path: "
        try:
            keystore = json.loads(path.read_text())
        except OSError as error:
            raise InvalidInputError(f"{where}cannot read {path}: {error.strerror}") from error
        except ValueError:
            raise InvalidInputError(f"{where}{path} is not a keystore file: it is not JSON") from None
        try:
            return "0x" + bytes(Account.decrypt(keystore, self.password)).hex()
        except ValueError:
            # eth-keyfile says "MAC mismatch" for a wrong password.
            raise InvalidInputError(f"{where}the connection's password does not open {path}") from None
        except (KeyError, TypeError, NotImplementedError):
            raise InvalidInputError(f"{where}{path} is not a keystore file of version 3") from None

    def secrets(self) -> list[str]:
        """Return every text of the connection that no log may show."""
        found = []
        if self.password:
            found += spellings(self.password.strip()) if self.keystore_path is None else [self.password]
        if self.rpc_api_key:
            found.append(self.rpc_api_key)
        for url in (self.rpc_url, self.provider_url, self.metadata_cache_url, self.explorer_url):
            found += _url_secrets(url or "")
        return found


def _url_secrets(url: str) -> list[str]:
    """Return a URL's password, and what in its path and query is as long as the API keys of hosted endpoints."""
    parts = urlsplit(url)
    values = [*parts.path.split("/"), *(value for _, value in parse_qsl(parts.query))]
    found = [text for text in values if len(text) >= _API_KEY_LENGTH]
    return [parts.password, *found] if parts.password else found


def spellings(key: str) -> list[str]:
    """Return the ways a private key may be written in a log: the digits alone cover those with 0x in front."""
    digits = key[2:] if key[:2] in ("0x", "0X") else key
    return sorted({key, digits, digits.lower(), digits.upper()})


def _rpc_url(connection: Connection) -> str:
    """Put the URL together again, which Airflow splits into host, port and schema when it reads a connection URI.

    Without a scheme in the host it is http when a port other than 443 is given, https otherwise.
    """
    where = f"connection {connection.conn_id!r}, field host: "
    host = (connection.host or "").strip()
    if not host:
        raise InvalidInputError(
            f"{where}is empty; it holds the RPC URL of the chain, such as http://127.0.0.1:8545"
        )
    if "://" not in host:
        # The host may still bring its port: "127.0.0.1:8545".
        bare = _split(f"//{host}", where)
        port = connection.port or _port(bare, where)
        host = f"{'https' if port in (None, 443) else 'http'}://{host}"
    url = _split(host, where)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise InvalidInputError(f"{where}the RPC URL must begin with http:// or https:// and name a host")
    netloc, port = url.netloc, _port(url, where)
    if connection.port and port is None:
        netloc = f"{netloc}:{connection.port}"
    path = url.path or (f"/{connection.schema}" if connection.schema else "")
    return urlunsplit((url.scheme, netloc, path.rstrip("/"), url.query, ""))


def _with_api_key(rpc_url: str, api_key: str | None) -> str:
    """Append the API key as the path's last segment, where hosted endpoints expect it."""
    if api_key is None:
        return rpc_url
    url = urlsplit(rpc_url)
    return urlunsplit((url.scheme, url.netloc, f"{url.path}/{quote(api_key, safe='')}", url.query, ""))


def _split(url: str, where: str) -> SplitResult:
    """Take a URL apart, of which nothing may be shown."""
    try:
        return urlsplit(url)
    except ValueError:  # its message has the host, and for some the password
        raise InvalidInputError(f"{where}is not a URL: its host cannot be read") from None


def _port(url: Any, where: str) -> int | None:
    try:
        port: int | None = url.port
    except ValueError:
        raise InvalidInputError(f"{where}the port of the RPC URL is not a number from 0 to 65535") from None
    return port


class _Extra:
    """The extra field; an empty text counts as not given, as the form sends it."""

    def __init__(self, conn_id: str, text: str | None) -> None:
        self.conn_id = conn_id
        try:
            values = json.loads(text or "{}")
        except ValueError:
            raise InvalidInputError(f"connection {conn_id!r}, field extra: is not JSON") from None
        if not isinstance(values, dict):
            raise InvalidInputError(f"connection {conn_id!r}, field extra: must be a JSON object")
        self.values = values

    def error(self, name: str, problem: str) -> InvalidInputError:
        return InvalidInputError(f"connection {self.conn_id!r}, extra field {name}: {problem}")

    def text(self, name: str, *, secret: bool = False) -> str | None:
        value = self.values.get(name)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            raise self.error(name, "must be text" if secret else f"must be text, not {value!r}")
        return value.strip()

    def url(self, name: str, *, published: bool = False) -> str | None:
        value = self.text(name)
        if value is None:
            return None
        parts = _split(value, f"connection {self.conn_id!r}, extra field {name}: ")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise self.error(name, f"must be a URL that begins with http:// or https://, not {value!r}")
        if published and parts.username is not None:
            # It stands in assets on the chain, in links and in XComs.
            raise self.error(name, "is told to others, so it cannot hold a user and a password")
        return value.rstrip("/")

    def known_network(self, name: str) -> KnownNetwork | None:
        from airflow_ocean.c2d.network import known_networks

        value = self.text(name)
        if value is None:
            return None
        known = known_networks()
        if value not in known:
            raise self.error(
                name, f"must be one of {', '.join(known)}, or empty for another network, not {value!r}"
            )
        return known[value]

    def gwei(self, name: str) -> Decimal | None:
        from airflow_ocean.c2d.network import MOST_GWEI

        value = self.values.get(name)
        if value is None or value == "":
            return None
        try:
            number = Decimal(str(value))
        except InvalidOperation:
            raise self.error(name, f"must be a number, not {value!r}") from None
        if not number.is_finite() or not 0 < number <= MOST_GWEI:
            raise self.error(name, f"must be above 0 and no more than {MOST_GWEI}, not {value!r}")
        return number

    def count(self, name: str, default: int) -> int:
        value = self.values.get(name)
        if value is None or value == "":
            return default
        if isinstance(value, bool) or not re.fullmatch(r"[1-9][0-9]{0,5}", str(value).strip()):
            raise self.error(name, f"must be a whole number of 1 or more, not {value!r}")
        return int(value)
