"""`make bench` at its smallest: it measures, writes what a program may read, and leaves nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from include.localnet.settings import PROJECT
from tests.support.leftovers import marked_processes, new_mark

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.e2e


def bench(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    temporary = folder / "temporary"
    temporary.mkdir()
    mark = new_mark()
    done = subprocess.run(
        [sys.executable, "-m", "include.bench", "--output", str(folder), *options],
        cwd=PROJECT,
        env={**os.environ, **mark, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert marked_processes(mark) == []
    assert [path.name for path in temporary.iterdir() if path.name.startswith("ocean-bench-")] == []
    return done


def rows(measurement: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the rows of the only table by their first value."""
    [table] = measurement["tables"]
    for row in table["rows"]:
        assert list(row) == table["columns"]
    return {row[table["columns"][0]]: row for row in table["rows"]}


def test_the_quickest_measurements(tmp_path: Path) -> None:
    done = bench(tmp_path, "--quick", "--only", "parsing", "--only", "publishing")
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "bench.json").read_text())
    assert content["options"] == {"quick": True, "repeats": 1, "only": ["parsing", "publishing"]}
    assert content["machine"]["cores"] == os.cpu_count()
    assert set(content["measurements"]) == {"parsing", "publishing"}
    parsed = rows(content["measurements"]["parsing"])
    files = {f"dags/{file.name}" for file in (PROJECT / "dags").glob("*.py")}
    assert set(parsed) == {"an empty DAG", *files}
    assert {row["heavy imports"] for row in parsed.values()} == {"none"}
    for row in parsed.values():
        assert row["parse, ms"]["median"] > 0
    published = rows(content["measurements"]["publishing"])
    assert set(published) == {"3 one after another", "3 at once"}
    for row in published.values():
        # Two transactions each, however they share blocks.
        assert row["transactions"]["runs"] == [6]
        assert 1 <= row["blocks they are in"]["median"] <= 6
    markdown = (tmp_path / "bench.md").read_text()
    assert "| dags/ocean_c2d.py " in markdown
    assert "| 3 at once " in markdown
    assert markdown in done.stdout


def test_the_page_is_not_written_with_a_part_of_the_figures(tmp_path: Path) -> None:
    page = (PROJECT / "docs" / "benchmarks.md").read_text()
    done = bench(tmp_path, "--quick", "--write-docs")
    assert done.returncode == 2
    assert "--write-docs" in done.stderr
    assert (PROJECT / "docs" / "benchmarks.md").read_text() == page
