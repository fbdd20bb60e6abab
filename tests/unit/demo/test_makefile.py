"""The Makefile on machines that lack something."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from include.localnet.settings import PROJECT

if TYPE_CHECKING:
    from pathlib import Path


def programs(folder: Path, *names: str) -> str:
    """Return a search path on which there is nothing but some programs."""
    folder.mkdir()
    for name in names:
        found = shutil.which(name)
        assert found, name
        (folder / name).symlink_to(found)
    return str(folder)


def test_without_a_usable_python_it_says_what_to_install(tmp_path: Path) -> None:
    copy = tmp_path / "a copy"
    copy.mkdir()
    for name in (
        "Makefile",
        "pyproject.toml",
        "requirements.txt",
        "package.json",
        "package-lock.json",
        ".npmrc",
    ):
        shutil.copy(PROJECT / name, copy)
    path = programs(tmp_path / "bin", "sh", "make", "cat", "rm")
    (tmp_path / "bin" / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "python3").chmod(0o755)
    done = subprocess.run(
        ["make", "env"], cwd=copy, env={"PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "No Python 3.11 or 3.12 with its venv module was found" in done.stderr
    assert "apt install python3 python3-venv" in done.stderr
    assert not (copy / ".venv").exists()


def test_make_alone_lists_the_targets() -> None:
    listed = subprocess.run(["make"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    for target in ("demo", "up", "test", "lint", "lock", "clean"):
        assert f"make {target} " in listed
