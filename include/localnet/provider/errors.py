"""What a request can end with besides an answer, in upstream's two error formats, and the hiding of URLs."""

from __future__ import annotations

import re
from typing import Any

_STRIPPED = "<URL stripped for security reasons>"
_URL = re.compile(r"\S*[a-zA-Z][a-zA-Z0-9+.-]*://\S+")


class Refused(Exception):
    """The request is answered ``{"error": …}``.

    :param error: text, or a mapping from the wrong part of the request to upstream's word for it
    :param status: HTTP status code
    """

    def __init__(self, error: str | dict[str, str], status: int = 400) -> None:
        super().__init__(str(error))
        self.error = error
        self.status = status


class Unavailable(Exception):
    """Something the Provider needs does not answer; the request is answered 503 with its context."""


class ValidationFailed(Exception):
    """The request's fields break the endpoint's rules; answered as upstream's validation library does.

    :param errors: field name to the messages about it
    """

    def __init__(self, errors: dict[str, list[str] | str]) -> None:
        super().__init__(str(list(errors)))
        self.errors = errors


def without_urls(text: str) -> str:
    """Hide every URL in a text, as it may be a file's, and join its lines, as upstream does."""
    return " ".join(_URL.sub(_STRIPPED, text).split())


def error_body(error: str | dict[str, str]) -> dict[str, Any]:
    """Return the JSON body of a refusal."""
    if isinstance(error, dict):
        return {"error": {key: without_urls(value) for key, value in error.items()}}
    return {"error": without_urls(error)}
