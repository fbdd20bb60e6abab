"""How a running command tells what it is doing: a line for each step, on a terminal while it is under way as well."""

from __future__ import annotations

import os
import re
import shutil
from typing import IO, Any

_NAME_WIDTH = 20
_STATE_WIDTH = 8
_TRANSACTION = re.compile("0x[0-9a-f]{64}")
_WORDS = {"up_for_retry": "retrying"}


class Progress:
    """Lines of steps.

    :param output: where they go
    """

    def __init__(self, output: IO[str]) -> None:
        self._output = output
        self._live = output.isatty() and os.environ.get("TERM") != "dumb"

    def begin(self, step: str) -> None:
        """Show that a step is under way; only a terminal can take that back when the step ends."""
        if self._live:
            print(f"  {_short(step):<{_NAME_WIDTH}} running …", end="", file=self._output, flush=True)

    def forget(self) -> None:
        """Take back that a step is under way, as there was nothing to do in it."""
        if self._live:
            print("\r\033[K", end="", file=self._output, flush=True)

    def end(self, step: str, state: str, seconds: float, result: Any) -> None:
        """Show how a step ended.

        :param state: a word, such as Airflow's name of a task's state
        :param seconds: how long it took
        :param result: the one value a person would ask for
        """
        state = _WORDS.get(state, state)
        line = f"  {_short(step):<{_NAME_WIDTH}} {state:<{_STATE_WIDTH}} {seconds:5.1f} s  {_text(result)}".rstrip()
        if self._live:
            width = shutil.get_terminal_size().columns
            line = "\r\033[K" + (line if len(line) <= width else line[: width - 1] + "…")
        print(line, file=self._output, flush=True)


def _short(step: str) -> str:
    """Return a task's id without the groups that it is in."""
    return step.rpartition(".")[2]


def _text(result: Any) -> str:
    """Return a result in one short line; the end of the flow shows the important ones in full."""
    if isinstance(result, list):
        return ", ".join(_text(item) for item in result)
    if isinstance(result, dict):  # settings for other tasks, nothing to read
        return ""
    lines = str(result if result is not None else "").strip().splitlines() or [""]
    if _TRANSACTION.fullmatch(lines[0]):
        return f"{lines[0][:10]}…"
    return lines[0].rpartition("/")[2] if lines[0].startswith("file://") else lines[0]
