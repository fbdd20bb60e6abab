"""Buttons on a task: pages of the block explorer and of the run's Ocean tab, stored by the worker when the task ends."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink
from airflow.sdk.configuration import conf

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

# The last segment of the tab's address in the Airflow UI.
RUN_TAB = "ocean"


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


class OceanJobLink(BaseOperatorLink):
    """The task's compute job, on the Ocean tab of its run."""

    name = "Compute job"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the place of the job on the tab, of all jobs when the task does not name its own."""
        job_id = getattr(operator, "job_id", None)
        return _airflow_root() + run_tab(ti_key.dag_id, ti_key.run_id, f"job-{job_id}" if job_id else "jobs")


class OceanArtifactsLink(BaseOperatorLink):
    """The files that the task keeps, on the Ocean tab of its run."""

    name = "Artifacts"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the place of the artifacts on the tab."""
        return _airflow_root() + run_tab(ti_key.dag_id, ti_key.run_id, "artifacts")


def run_tab(dag_id: str, run_id: str, anchor: str = "") -> str:
    """Return the path of a run's Ocean tab below Airflow's root.

    :param anchor: the place on it
    """
    path = f"/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}/plugin/{RUN_TAB}"
    return f"{path}#{quote(anchor, safe='')}" if anchor else path


def _airflow_root() -> str:
    """Return the UI's own address, as workers know it; without one a path, which is right below any host."""
    return str(conf.get("api", "base_url", fallback="") or "").rstrip("/")
