"""The tables of `make bench`: as Markdown, as JSON, and in the documentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from include.bench.measurement import Outcome, Table, ratio
from include.bench.tables import BEGIN, END, machine, to_json, to_markdown, write_docs
from include.localnet.settings import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

OPTIONS = {"quick": False, "repeats": 3, "only": None}
OUTCOME = Outcome(
    "time",
    "Time of the flow",
    12.345,
    [Table("By way", ("way", "s", "ratio"), [("script", [3.0, 1.0, 2.0], None), ("DAG", 1234.5, 0.123)])],
)


def test_repetitions_are_shown_as_their_median() -> None:
    shown = to_markdown(machine(), OPTIONS, [OUTCOME])
    assert "### Time of the flow\n\n**By way**\n" in shown
    assert "| script |     2 |       |" in shown
    assert "| DAG    | 1,234 |  0.12 |" in shown
    assert "--quick" not in shown
    assert "`--quick`" in to_markdown(machine(), {**OPTIONS, "quick": True}, [OUTCOME])


def test_json_has_every_repetition() -> None:
    content = to_json(machine(), OPTIONS, [OUTCOME])
    [table] = content["measurements"]["time"]["tables"]
    assert table["rows"][0] == {"way": "script", "s": {"median": 2.0, "runs": [3.0, 1.0, 2.0]}, "ratio": None}


def test_a_failed_measurement_says_why() -> None:
    failed = Outcome("results", "Fetching results", 1.0, error="FileNotFoundError: no curl\nand more")
    assert "Not measured: FileNotFoundError: no curl\n" in to_markdown(machine(), OPTIONS, [failed])


def test_a_ratio_is_that_of_medians() -> None:
    assert ratio([4.0, 1.0, 100.0], [2.0]) == 2.0
    assert ratio(None, 2) is None
    assert ratio(3, 0) is None


def test_the_page_gets_the_tables_between_its_markers(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_docs(page, "new\n")
    assert page.read_text() == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    page.write_text("no markers")
    with pytest.raises(ValueError, match="figures: begin"):
        write_docs(page, "new\n")
    assert page.read_text() == "no markers"


def test_the_real_page_has_the_markers() -> None:
    text = (PROJECT / "docs" / "benchmarks.md").read_text()
    assert text.count(BEGIN) == text.count(END) == 1
    assert text.index(BEGIN) < text.index(END)
