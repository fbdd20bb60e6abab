"""One request, read: query, JSON body, raw body, and the rules that most endpoints have for their fields."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eth_utils import is_address

from include.localnet.node.answers import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request


@dataclass(frozen=True)
class Call:
    """A request to an endpoint.

    :param path: values of the path's parameters
    :param json: the JSON body's object; empty when it has none
    """

    path: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    json: dict[str, Any]

    @classmethod
    async def of(cls, request: Request) -> Call:
        """Read a request.

        :raises Refused: when its body says that it is JSON and is none
        """
        body = await request.body()
        query = {key: request.query_params.getlist(key)[0] for key in request.query_params}
        return cls(request.path_params, query, request.headers, body, _json_object(request, body))

    @property
    def token(self) -> str | None:
        """The ``Authorization`` header."""
        return self.headers.get("authorization")

    def require(
        self, command: str, names: Mapping[str, str], fields: Mapping[str, Any] | None = None
    ) -> None:
        """Check that fields are there.

        :param names: the command's names of its fields, to the request's
        :param fields: the query's by default
        :raises Refused: 400, naming the first that is not
        """
        given = self.query if fields is None else fields
        for name, field in names.items():
            if given.get(field) is None or (fields is None and given[field] == ""):
                raise Refused(
                    f'Missing one ( "{name}" ) or more required field(s) for command: "{command}". '
                    f"Required fields: {','.join(names)}",
                    400,
                )

    def check_address(self, address: Any, *, optional: bool = False) -> None:
        """Check that a consumer's address is one.

        :raises Refused: 400
        """
        if optional and not address:
            return
        if not is_address(address):
            raise Refused('Parameter : "consumerAddress" is not a valid web3 address', 400)


def _json_object(request: Request, body: bytes) -> dict[str, Any]:
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        return {}
    try:
        content = json.loads(body) if body else {}
        # Python reads NaN and halves of surrogate pairs, which no answer could repeat.
        json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise Refused("SyntaxError: the body is no JSON", 400) from error
    return content if isinstance(content, dict) else {}
