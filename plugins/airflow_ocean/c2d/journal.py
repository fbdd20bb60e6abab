"""Where the signed transactions of a task's steps are kept, so that a retry sends the same ones again."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Protocol

from airflow_ocean.c2d.errors import InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path


class Journal(Protocol):
    """One JSON object per step; ``save`` returns only when the entry is durable."""

    def load(self, step: str) -> dict[str, Any] | None:
        """Return the entry of a step, None when the step never began."""

    def save(self, step: str, entry: dict[str, Any]) -> None:
        """Replace the entry of a step."""


class MemoryJournal:
    """A journal that ends with the process: no protection against crashes."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, Any]] = {}

    def load(self, step: str) -> dict[str, Any] | None:
        """Return the entry of a step."""
        return self._entries.get(step)

    def save(self, step: str, entry: dict[str, Any]) -> None:
        """Replace the entry of a step."""
        self._entries[step] = json.loads(json.dumps(entry))


class FileJournal:
    """A journal in one JSON file, for use outside Airflow by one process at a time.

    :param path: the file; it is replaced as a whole, so that a crash leaves the old or the new content
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def _read(self) -> dict[str, dict[str, Any]]:
        if not self.path.exists():
            return {}
        try:
            entries: dict[str, dict[str, Any]] = json.loads(self.path.read_text())
        except ValueError as error:
            raise InvalidInputError(
                f"the journal {self.path} is not JSON: {error}. It records what was already paid: restore it, or "
                "delete it only when no step of it shall count"
            ) from error
        return entries

    def load(self, step: str) -> dict[str, Any] | None:
        """Return the entry of a step."""
        return self._read().get(step)

    def save(self, step: str, entry: dict[str, Any]) -> None:
        """Replace the entry of a step; on disk when this returns."""
        entries = {**self._read(), step: entry}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".new")
        with draft.open("w") as file:
            json.dump(entries, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path)
