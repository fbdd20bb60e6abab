"""The state store of the Airflow asset ``ocean_orders``, for who is no task."""

from __future__ import annotations

import json
from typing import Any


class StoredOrders:
    """Orders where the tasks of ``dag.test()`` find them; one of them must have been parsed before."""

    def __init__(self) -> None:
        from airflow.models.asset import AssetModel
        from airflow.state import AssetScope
        from airflow.state.metastore import MetastoreBackend
        from airflow.utils.session import create_session

        with create_session() as session:
            (row,) = session.query(AssetModel).filter(AssetModel.name == "ocean_orders")
            self._scope = AssetScope(asset_id=row.id)
        self._backend = MetastoreBackend()

    def get(self, key: str) -> Any:
        """Return what is kept, None when nothing is."""
        kept = self._backend.get(self._scope, key)
        return None if kept is None else json.loads(kept)

    def set(self, key: str, value: Any) -> None:
        """Keep a value."""
        self._backend.set(self._scope, key, json.dumps(value))
