"""Outcomes as Markdown for people, as JSON for programs, and as the part of the documentation that has the figures."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil  # type: ignore[import-untyped]

from include.bench.measurement import middle

if TYPE_CHECKING:
    from include.bench.measurement import Outcome, Table, Value

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def machine() -> dict[str, Any]:
    """Say what the figures were measured on."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 1),
        "bytecode_kept": not sys.dont_write_bytecode,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def to_json(measured_on: dict[str, Any], options: dict[str, Any], outcomes: list[Outcome]) -> dict[str, Any]:
    """Return everything, each repetition included, as plain JSON."""
    return {
        "machine": measured_on,
        "options": options,
        "measurements": {
            outcome.name: {
                "title": outcome.title,
                "seconds": round(outcome.seconds, 1),
                "error": outcome.error,
                "tables": [_table_json(table) for table in outcome.tables],
            }
            for outcome in outcomes
        },
    }


def _table_json(table: Table) -> dict[str, Any]:
    rows = [
        {column: _value_json(value) for column, value in zip(table.columns, row, strict=True)}
        for row in table.rows
    ]
    return {"title": table.title, "columns": list(table.columns), "rows": rows}


def _value_json(value: Value) -> Any:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return {"median": middle(value), "runs": list(value)}
    return value


def to_markdown(measured_on: dict[str, Any], options: dict[str, Any], outcomes: list[Outcome]) -> str:
    """Return the tables, with medians."""
    facts = measured_on
    lines = [
        f"Measured {facts['date'][:10]} on {facts['cores']} cores of {facts['processor']}, {facts['memory_gb']} GB, "
        f"{facts['system']}, Python {facts['python']}; load average before it {facts['load_before']}. "
        f"Medians of {options['repeats']}.",
    ]
    if not facts["bytecode_kept"]:
        lines += [
            "",
            "Python keeps no compiled files here (`PYTHONDONTWRITEBYTECODE`), so every process starts more slowly.",
        ]
    if options["quick"]:
        lines += ["", "**Smallest sizes (`--quick`): these figures show that it works and nothing else.**"]
    for outcome in outcomes:
        lines += ["", f"### {outcome.title}"]
        if outcome.error:
            lines += ["", f"Not measured: {outcome.error.splitlines()[0]}"]
        for table in outcome.tables:
            lines += ["", f"**{table.title}**", "", *_rows(table)]
    return "\n".join(lines) + "\n"


def _rows(table: Table) -> list[str]:
    shown = [[_shown(value) for value in row] for row in table.rows]
    widths = [max(3, *(len(row[at]) for row in [table.columns, *shown])) for at in range(len(table.columns))]
    aligned = [widths[0] * "-"] + [f"{(width - 1) * '-'}:" for width in widths[1:]]

    def line(cells: Sequence[str]) -> str:
        first, *rest = zip(cells, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]
        return f"| {' | '.join(padded)} |"

    return [line(table.columns), line(aligned), *(line(row) for row in shown)]


def _shown(value: Value) -> str:
    shown: str | float | None = middle(value)
    if shown is None or isinstance(shown, str):
        return shown or ""
    if float(shown).is_integer():
        return f"{int(shown):,}"
    return f"{shown:,.0f}" if abs(shown) >= 100 else f"{shown:.1f}" if abs(shown) >= 10 else f"{shown:.2f}"


def write_docs(page: Path, markdown: str) -> None:
    """Put the tables into the page, between its markers.

    :raises ValueError: when the page has not both markers
    """
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} lacks the lines {BEGIN} and {END}, between which the figures go")
    page.write_text(f"{before}{BEGIN}\n\n{markdown}\n{END}{after}")
