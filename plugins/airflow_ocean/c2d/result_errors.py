"""What can be wrong with a job's result, and how text out of a result is shown in a message."""

from __future__ import annotations

from airflow_ocean.c2d.errors import FatalError


class UnsafeResultError(FatalError):
    """A result asks for code to be run when it is read; it was not read, and nothing of it was run."""


class ResultTooLargeError(FatalError):
    """A result is larger, or would become larger when unpacked, than the caller allowed."""


class UndecodableResultError(FatalError):
    """A result is damaged, empty, or of no kind that can be decoded."""


def shown(untrusted: object, length: int = 120) -> str:
    """Quote text that comes from outside so that it can stand in a message or a log.

    :param untrusted: a file name, a name found in a file, another library's message about a file
    :param length: characters to keep
    """
    text = str(untrusted)
    return ascii(text if len(text) <= length else text[: length - 3] + "...")
