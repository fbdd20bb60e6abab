"""What the page says of jobs that run: how they stand, and what they have logged until now."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.ocean_runs import CONSUMER, TaskRow, starting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.airflow_ocean.ui.conftest import Site

LOG = "half done <b>&"
ONLY_AFTER = "only after the job's end"


class Status(BaseHTTPRequestHandler):
    """Answers as a Provider does that is asked for the state of a job."""

    fields: dict[str, Any]

    def do_GET(self) -> None:  # noqa: N802 - http.server's name
        body = json.dumps([self.fields]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Keep quiet."""


@pytest.fixture
def provider() -> Iterator[str]:
    """A Provider whose job runs for ever."""
    Status.fields = {
        "agreementId": f"0x{'1' * 64}",
        "jobId": "job",
        "owner": CONSUMER,
        "status": 40,
        "statusText": "Running algorithm",
        "dateCreated": "1767323045.0",
        "dateFinished": None,
        "results": [],
    }
    server = HTTPServer(("127.0.0.1", 0), Status)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def running(site: Site, provider: str) -> Site:
    """A run that waits for that job."""
    start = starting("job")
    start.xcoms["provider_url"] = provider
    site.add_tasks("running", start, TaskRow("wait", "OceanComputeSensor", "deferred", {"deadline": 1.0}))
    return site


async def test_a_provider_that_does_not_answer_is_named(site: Site) -> None:
    site.add_tasks("running", starting("job"))
    page = (await site.get()).text
    assert "http://127.0.0.1:1" in page
    assert "does not say how the job stands" in page
    assert ONLY_AFTER not in page


async def test_a_provider_that_gives_no_log_of_a_running_job_is_said_not_to(running: Site) -> None:
    page = (await running.get()).text
    assert "Running algorithm" in page
    assert ONLY_AFTER in page


async def test_the_log_of_a_running_job_is_shown(site: Site, provider: str) -> None:
    start = starting("job")
    start.xcoms["provider_url"] = provider
    waiting = {"deadline": 1.0, "log_tail": LOG}
    site.add_tasks("running", start, TaskRow("wait", "OceanComputeSensor", "deferred", waiting))
    page = (await site.get()).text
    shown = "half done &lt;b&gt;&amp;"
    assert f'<summary>The algorithm&#39;s log until now</summary><pre tabindex="0">{shown}</pre>' in page
    assert ONLY_AFTER not in page


async def test_a_job_is_not_asked_for_while_a_triggerer_tells_how_it_is(site: Site) -> None:
    # At this Provider nobody answers; a node takes 30 requests a minute from all of an address.
    states = [{"at": 1767323045.0, "state": 40, "text": "Running algorithm"}]
    waiting = {"deadline": 1.0, "states": states, "log_tail": LOG}
    site.add_tasks("running", starting("job"), TaskRow("wait", "OceanComputeSensor", "deferred", waiting))
    page = (await site.get()).text
    assert "Running algorithm" in page
    assert "half done" in page
    assert "does not say how the job stands" not in page


async def test_a_service_that_shows_the_log_is_not_said_to_show_it_only_later(
    site: Site, provider: str
) -> None:
    node_job = f"0x{'e' * 64}-{'f' * 64}"
    Status.fields |= {"jobId": node_job.partition("-")[2], "environment": f"0x{'e' * 64}-0x{'a' * 64}"}
    start = starting(node_job)
    start.xcoms["provider_url"] = provider
    site.add_tasks("running", start, TaskRow("wait", "OceanComputeSensor", "deferred", {"deadline": 1.0}))
    page = (await site.get()).text
    assert "Running algorithm" in page
    assert ONLY_AFTER not in page


async def test_the_log_stays_when_the_provider_does_not_answer(site: Site) -> None:
    waiting = {"deadline": 1.0, "log_tail": LOG}
    site.add_tasks("running", starting("job"), TaskRow("wait", "OceanComputeSensor", "deferred", waiting))
    page = (await site.get()).text
    assert "does not say how the job stands" in page
    assert "half done" in page


async def test_a_job_that_is_over_has_no_log_until_now(running: Site) -> None:
    Status.fields |= {"status": 70, "statusText": "Job finished", "dateFinished": "1767323055.0"}
    page = (await running.get()).text
    assert "Job finished" in page
    assert ONLY_AFTER not in page
