"""How the node answers: as Express does, with errors that are plain text or, of some endpoints, a JSON string."""

from __future__ import annotations

import html
from typing import Any

from starlette.responses import Response

from include.localnet.node.javascript import stringify

HEADERS = {"X-Powered-By": "Express", "Access-Control-Allow-Origin": "*"}


class Refused(Exception):
    """The request ends with an error.

    :param status: HTTP status code; many wrong inputs get 500
    """

    def __init__(self, text: str, status: int = 500) -> None:
        super().__init__(text)
        self.text = text
        self.status = status


def text_answer(text: str, status: int = 200) -> Response:
    """Answer a text, which Express takes for HTML."""
    return Response(text, status, media_type="text/html; charset=utf-8")


def json_answer(value: Any, status: int = 200) -> Response:
    """Answer JSON."""
    return Response(stringify(value), status, media_type="application/json; charset=utf-8")


def not_found(method: str, path: str) -> Response:
    """Answer Express' page for a path that is not there."""
    message = f"Cannot {html.escape(method)} {html.escape(path)}"
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>Error</title>\n</head>\n<body>\n'
        f"<pre>{message}</pre>\n</body>\n</html>\n"
    )
    answer = text_answer(page, 404)
    answer.headers["Content-Security-Policy"] = "default-src 'none'"
    answer.headers["X-Content-Type-Options"] = "nosniff"
    return answer
