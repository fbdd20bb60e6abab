"""The hook: from an Airflow connection of the type ``ocean`` to an :class:`~airflow_ocean.c2d.client.OceanClient`."""

from __future__ import annotations

import asyncio
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from airflow.sdk.log import amask_secret, mask_secret

from airflow_ocean import parameters
from airflow_ocean.c2d.errors import OceanError
from airflow_ocean.connections import OceanConnection, spellings

if TYPE_CHECKING:
    from airflow_ocean.c2d.client import OceanClient
    from airflow_ocean.c2d.journal import Journal
    from airflow_ocean.c2d.limits import CostLimit


class OceanHook(BaseHook):
    """A wallet on an Ocean network.

    The connection: *host* is the chain's RPC URL; *password* the private key, or the password of the encrypted
    keystore file that the extra field *keystore_path* names. Further extra fields: *provider_url* (required),
    *network_name*, *metadata_cache_url*, *rpc_api_key*, *address_file*, *max_fee_gwei*, *max_cost*, *confirmations*, *explorer_url*,
    *artifact_base*.

    :param ocean_conn_id: the Airflow connection
    """

    conn_name_attr = "ocean_conn_id"
    default_conn_name = "ocean_default"
    conn_type = "ocean"
    hook_name = "Ocean"

    def __init__(self, ocean_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ocean_conn_id = ocean_conn_id

    @classmethod
    async def acreate(cls, ocean_conn_id: str) -> OceanHook:
        """Build a hook on an event loop, everything read and masked, so that its methods may be used in a thread.

        :param ocean_conn_id: the Airflow connection
        """
        hook = cls(ocean_conn_id)
        settings = OceanConnection.parse(await cls.aget_connection(ocean_conn_id))
        for secret in settings.secrets():
            await amask_secret(secret)
        private_key = await asyncio.to_thread(settings.private_key)
        for secret in spellings(private_key):
            await amask_secret(secret)
        # Fills the cached properties below, which would block the loop.
        hook.settings, hook.private_key = settings, private_key
        return hook

    @cached_property
    def settings(self) -> OceanConnection:
        """The connection, checked, its secrets masked in all logs.

        :raises InvalidInputError: names the connection and the field that is missing or wrong
        """
        connection = self.get_connection(self.ocean_conn_id)
        if connection.password:
            # Before anything can fail with it in a message.
            mask_secret(connection.password)
        settings = OceanConnection.parse(connection)
        for secret in settings.secrets():
            mask_secret(secret)
        return settings

    @cached_property
    def private_key(self) -> str:
        """The wallet's private key, 0x and 64 digits, masked in all logs."""
        private_key = self.settings.private_key()
        for secret in spellings(private_key):
            mask_secret(secret)
        return private_key

    def get_client(self, journal: Journal | None = None, limit: CostLimit | None = None) -> OceanClient:
        """Return a new client, which is a context manager.

        :param journal: where the steps' signed transactions are kept; without one they end with the process
        :param limit: the most it may spend, beside the connection's own limit
        """
        from airflow_ocean.c2d.client import OceanClient
        from airflow_ocean.c2d.limits import CostLimit

        own = parameters.cost_limit(
            f"connection {self.ocean_conn_id!r}, extra field max_cost", self.settings.max_cost
        )
        return OceanClient(
            self.settings.network(), self.private_key, journal, own.and_also(limit or CostLimit())
        )

    @cached_property
    def client(self) -> OceanClient:
        """A client without a journal, for reading and for requests that are no transactions."""
        return self.get_client()

    def get_conn(self) -> OceanClient:
        """Return the client."""
        return self.client

    def test_connection(self) -> tuple[bool, str]:
        """Try every part of the connection, for the UI's Test button.

        :return: whether all is well, and for each of chain, contracts, Provider, Aquarius and wallet whether it is, and
            what was found or is wrong; a connection that cannot be read at all names the field
        """
        try:
            with self.get_client() as client:
                checks = client.check()
        except OceanError as error:
            return False, str(error)
        report = " | ".join(
            f"{check.part} {'OK' if check.ok else 'NOT OK'}: {check.detail}" for check in checks
        )
        return all(check.ok for check in checks), report
