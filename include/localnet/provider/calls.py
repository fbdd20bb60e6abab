"""One request, read: its fields as upstream finds them, its headers, query and body."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request


@dataclass(frozen=True)
class Call:
    """A request to an endpoint.

    :param data: the query's fields when there is a query, else the JSON body's
    """

    method: str
    data: dict[str, Any]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @classmethod
    async def of(cls, request: Request) -> Call:
        """Read a request; a body that is no JSON object counts as empty, so that the rules name what is missing."""
        body = await request.body()
        query = {key: request.query_params.getlist(key)[0] for key in request.query_params}
        return cls(request.method, query or _json_object(request, body), query, request.headers, body)


def _json_object(request: Request, body: bytes) -> dict[str, Any]:
    content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if content_type != "application/json" and not content_type.endswith("+json"):
        return {}
    try:
        content = json.loads(body)
        # Python reads NaN and halves of surrogate pairs, which no answer could repeat.
        json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
