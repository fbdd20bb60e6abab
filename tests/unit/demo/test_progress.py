"""What a person reads while the flow runs, and what a program reads at its end."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

from include.demo.progress import Progress
from include.demo.run import summary

if TYPE_CHECKING:
    from pathlib import Path


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def told(output: io.StringIO) -> str:
    progress = Progress(output)
    progress.begin("group.pay_for_compute")
    progress.end("group.pay_for_compute", "up_for_retry", 1.26, "\n no answer\nmore")
    progress.begin("group.pay_for_compute")
    progress.end("group.pay_for_compute", "success", 12, ["0x" + "1a" * 32, "0x" + "2b" * 32])
    progress.end("approve_spending", "success", 0.4, {"*": "10"})
    progress.end("fetch_and_plot.plot", "success", 0.04, "file:///a/folder/plot.png")
    return output.getvalue()


def test_a_log_gets_a_line_for_each_end_of_a_step() -> None:
    assert told(io.StringIO()).splitlines() == [
        "  pay_for_compute      retrying   1.3 s  no answer",
        "  pay_for_compute      success   12.0 s  0x1a1a1a1a…, 0x2b2b2b2b…",
        "  approve_spending     success    0.4 s",
        "  plot                 success    0.0 s  plot.png",
    ]


def test_a_terminal_shows_the_step_that_is_under_way_too(monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    output = told(Terminal())
    assert output.startswith("  pay_for_compute      running …\r\033[K  pay_for_compute      retrying")
    longest = max(len(line.rpartition("\033[K")[2]) for line in output.splitlines())
    assert longest <= 40


def test_the_summary_gives_paths(tmp_path: Path) -> None:
    manifest = tmp_path / "a % b" / "manifest.json"
    manifest.parent.mkdir()
    files = [
        {"type": "algorithmLog", "uri": "file:///log"},
        {"type": "output", "uri": f"file://{manifest.parent}/0-result"},
    ]
    manifest.write_text(json.dumps({"files": files}))
    values = {
        "publish_dataset": "did:op:1",
        "publish_algorithm": "did:op:2",
        "pay_for_compute": ["0x1", "0x2"],
        "start_compute": "job",
        "manifest": f"file://{manifest}",
        "plot": "file:///tmp/plot.png",
    }
    assert summary(values) == [
        "dataset_did=did:op:1",
        "algorithm_did=did:op:2",
        "order_tx=0x1,0x2",
        "job_id=job",
        f"result={manifest.parent}/0-result",
        "plot=/tmp/plot.png",
    ]
