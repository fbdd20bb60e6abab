"""What the chain keeps on disk: its saved state, and a line for each change since."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

# The state is saved anew when the journal has grown to this size in bytes (about 1,000 transactions, which are back in
# two seconds), but at least to this share of the state: so the work of saving stays in proportion to what was written.
_JOURNAL_SIZE = 1_000_000
_JOURNAL_SHARE = 4


class JournalDamaged(Exception):
    """A line in the midst of the journal cannot be read."""


@dataclass(frozen=True)
class Record:
    """One change.

    :param number: counts the changes of this chain from 1
    :param transaction: signed transaction that came into the pool, 0x-hex
    :param blocks: timestamp (Unix seconds) and hash of each block mined after it
    """

    number: int
    transaction: str | None
    blocks: list[tuple[int, str]]


@dataclass(frozen=True)
class Saved:
    """What belongs to a saved state and is not in anvil's own dump.

    :param record: number of the last change that it contains
    :param pool: signed transactions that wait to be mined, in the order of their arrival
    :param base_fee: of the next block, 0x-hex wei per gas; None when it was not written down
    """

    record: int = 0
    pool: list[str] = field(default_factory=list)
    base_fee: str | None = None


class Journal:
    """The files ``chain.json`` and ``journal.jsonl`` of the chain's folder.

    ``chain.json`` is anvil's dump with one more key at its beginning, alone on the first line. Anvil does not mind it,
    and it is read here without the rest. As state and position in the journal are one file, no crash separates them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.state = folder / "chain.json"
        self._path = folder / "journal.jsonl"
        self._file: IO[bytes] | None = None
        self._number = 0
        self._size = 0
        self._limit = 0

    def load(self) -> tuple[Saved, list[Record]]:
        """Return what the saved state lacks: the pool and the changes since.

        :raises JournalDamaged: when the journal cannot be read as it was written
        """
        saved = self._saved()
        self._number = saved.record
        records = [record for record in self._records() if record.number > saved.record]
        if records:
            self._number = records[-1].number
        return saved, records

    def _saved(self) -> Saved:
        try:
            with self.state.open("rb") as file:
                first = file.readline()
            return Saved(**json.loads(first.rstrip(b",\n") + b"}")["journal"])
        except FileNotFoundError:
            return Saved()
        except (ValueError, KeyError, TypeError):
            # Not written here. Whether it is a state at all anvil will say.
            return Saved()

    def _records(self) -> list[Record]:
        try:
            lines = self._path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        # A line that is not ended was being written when the process died: nobody was told of that change.
        records = []
        for number, line in enumerate(lines[:-1], 1):
            try:
                fields = json.loads(line)
                blocks = [(int(timestamp), str(block_hash)) for timestamp, block_hash in fields["blocks"]]
                records.append(Record(int(fields["number"]), fields["transaction"], blocks))
            except (ValueError, KeyError, TypeError) as error:
                raise JournalDamaged(
                    f"line {number} of {self._path} cannot be read ({error!r}); what follows it is lost: delete the "
                    "file to go on from the state before it, or start a new chain with `up --fresh`"
                ) from error
        return records

    @property
    def unsaved(self) -> bool:
        """Whether there are changes that only the journal has."""
        return self._size > 0

    @property
    def is_long(self) -> bool:
        """Whether it is time to save the state."""
        return self._size > self._limit

    def append(self, transaction: str | None, blocks: list[tuple[int, str]]) -> None:
        """Write one change and return when it is on the disk."""
        if self._file is None:
            raise RuntimeError("the state has to be saved once before the journal can be continued")
        record = Record(self._number + 1, transaction, blocks)
        line = json.dumps(asdict(record), separators=(",", ":")).encode() + b"\n"
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._number += 1
        self._size += len(line)

    def save(self, dump: bytes, pool: list[str], base_fee: str) -> None:
        """Replace the saved state by a newer one and begin the journal anew.

        :param dump: anvil's state, a JSON object
        :param pool: see :class:`Saved`
        :param base_fee: see :class:`Saved`
        """
        header: dict[str, Any] = {"journal": asdict(Saved(self._number, pool, base_fee))}
        temporary = self.state.with_suffix(".tmp")
        with temporary.open("wb") as file:
            file.write(json.dumps(header).encode()[:-1] + b",\n" + dump.lstrip()[1:])
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.state)
        self._sync_folder()
        # From here on the old lines are passed over by their numbers, until they are gone.
        if self._file is None:
            self._file = self._path.open("ab")
        self._file.truncate(0)
        os.fsync(self._file.fileno())
        self._size = 0
        self._limit = max(_JOURNAL_SIZE, self.state.stat().st_size // _JOURNAL_SHARE)

    def _sync_folder(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
