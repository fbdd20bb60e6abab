"""The endpoints that create and delete authentication tokens, which stand in for signatures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eth_utils import is_address
from starlette.responses import JSONResponse, Response

from include.localnet.provider.errors import Refused

if TYPE_CHECKING:
    from include.localnet.provider.calls import Call
    from include.localnet.provider.configuration import Provider


def create_auth_token(provider: Provider, call: Call) -> Response:
    """Answer a token for an address; asking again for a deleted one restores it."""
    address = str(call.data["address"])
    if not is_address(address):
        raise Refused("Token is invalid.")
    return JSONResponse({"token": provider.tokens.create(address, int(call.data["expiration"]))})


def delete_auth_token(provider: Provider, call: Call) -> Response:
    """Delete a token before it expires."""
    token = str(call.data["token"])
    problem = provider.tokens.problem(token, str(call.data["address"]))
    if problem:
        raise Refused(problem)
    provider.tokens.revoke(token)
    return JSONResponse({"success": "Token has been deactivated."})
