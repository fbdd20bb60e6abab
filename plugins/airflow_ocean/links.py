"""Buttons on a task: pages of the block explorer, stored by the worker when the task ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class _ExplorerLink(BaseOperatorLink):
    """A page of the explorer that the operator put down in its ``explorer_pages`` while it ran.

    The worker asks right after ``execute``; without an explorer in the connection there is no page and no button.
    """

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the page, empty when there is none."""
        pages: dict[str, str] = getattr(operator, "explorer_pages", {})
        return pages.get(self.name, "")


class OceanAssetLink(_ExplorerLink):
    """The asset's data NFT."""

    name = "Asset on the chain"


class OceanTransactionLink(_ExplorerLink):
    """The task's last transaction."""

    name = "Transaction"
