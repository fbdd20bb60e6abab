"""Templates, and what they need to write addresses, times and file names."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from airflow_ocean.links import run_tab
from airflow_ocean.ui import amounts, steps, story
from airflow_ocean.ui.plugin import URL_PREFIX

if TYPE_CHECKING:
    from datetime import datetime

    from fastapi import Request

_TEMPLATES = Path(__file__).parent / "templates"
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]|[\"\\/%]")


class Pages:
    """Pages for one request.

    :param root: path of Airflow's root, without a slash at its end
    """

    def __init__(self, root: str) -> None:
        self.airflow = root
        self.ocean = root + URL_PREFIX

    @classmethod
    def of(cls, request: Request) -> Pages:
        """Return those whose addresses fit a request, also below a path prefix."""
        return cls(str(request.scope.get("root_path", "")).removesuffix(URL_PREFIX))

    def render(self, template: str, **values: Any) -> HTMLResponse:
        """Fill in a template."""
        return HTMLResponse(_environment().get_template(template).render(url=self, **values))

    def static(self, name: str) -> str:
        """Return the address of a style sheet, script or picture of the package."""
        return f"{self.ocean}/static/{name}"

    def runs(self, page: int = 1, **filters: str) -> str:
        """Return the address of the page with all runs."""
        query = urlencode({**filters, **({"page": page} if page > 1 else {})})
        return f"{self.ocean}/runs" + (f"?{query}" if query else "")

    def run(self, run: Any) -> str:
        """Return the address of a run's tab in the Airflow UI."""
        return f"{self.airflow}{run_tab(run.dag_id, run.run_id)}"

    def task(self, run: Any, task: Any) -> str:
        """Return the address of a task's page in the Airflow UI, which has its log."""
        mapped = f"/mapped/{task.map_index}" if task.map_index >= 0 else ""
        return f"{self.airflow}/dags/{_segment(run.dag_id)}/runs/{_segment(run.run_id)}/tasks/{_segment(task.task_id)}{mapped}"

    def artifact(self, run: Any, task: Any, number: int) -> str:
        """Return the address of a fetched file."""
        return f"{self._of_run(run)}/artifacts/{_segment(task.task_id)}/{task.map_index}/{number}"

    def plot(self, run: Any, task_id: str, map_index: int) -> str:
        """Return the address of a plot."""
        return f"{self._of_run(run)}/plots/{_segment(task_id)}/{map_index}"

    def _of_run(self, run: Any) -> str:
        return f"{self.ocean}/dags/{_segment(run.dag_id)}/runs/{_segment(run.run_id)}"


def attachment(name: str) -> str:
    """Return the header that has a browser save a file under a name (RFC 6266), which comes from outside."""
    plain = _UNPRINTABLE.sub("_", name).strip(". ") or "artifact"
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name.replace('/', '_'), safe='')}"


def size(count: int) -> str:
    """Give a number of bytes for people."""
    amount = float(count)
    for unit in ("B", "KB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


def moment(when: datetime | None) -> str:
    """Give a moment in UTC; the page's script turns it to the time zone chosen in Airflow."""
    return "" if when is None else f"{when:%Y-%m-%d %H:%M:%S} UTC"


def _segment(text: str) -> str:
    return quote(text, safe="")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "size": size,
        "moment": moment,
        "duration": steps.duration,
        "short": story.short,
        "gas_fee": amounts.gas_fee,
    }
    environment.globals |= {
        "transactions": story.transactions,
        "seconds_between": steps.seconds_between,
    }
    return environment
