"""One command at a time works in a folder."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from include.demo.processes import CommandError
from include.demo.state import claim

if TYPE_CHECKING:
    from pathlib import Path


def test_a_second_command_is_told_who_works_there(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with claim(home), pytest.raises(CommandError, match=f"process {os.getpid()} is at work in"):
        claim(home)
    with claim(home):
        pass
