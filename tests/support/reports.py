"""The Markdown report of the long runs: each test has a section of its own in the file that a variable names."""

from __future__ import annotations

import os
import re
from pathlib import Path

VARIABLE = "OCEAN_CHAOS_REPORT"


def write_section(text: str) -> None:
    """Put a section, which begins with its title as ``# Title``, into the report in place of an older one.

    Without a file in the variable nothing is written.
    """
    name = os.environ.get(VARIABLE)
    if not name:
        return
    path = Path(name)
    title = text.splitlines()[0]
    there = re.split(r"(?m)^(?=# )", path.read_text()) if path.exists() else []
    kept = [section for section in there if section.strip() and section.splitlines()[0] != title]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(section.strip() + "\n" for section in [*kept, text]))
