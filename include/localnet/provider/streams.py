"""Content on its way through: an open source and the HTTP answer that streams it, never held in memory."""

from __future__ import annotations

import mimetypes
import os
from dataclasses import dataclass
from email.message import Message
from typing import TYPE_CHECKING

from starlette.responses import StreamingResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx

_CHUNK = 65536


def _filename_of(header: str) -> str:
    message = Message()
    message["Content-Disposition"] = header
    return message.get_filename() or ""


def _safe_header(text: str) -> str:
    """Return a file name that can stand in a header and is no path."""
    name = text.replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join(c for c in name if c.isprintable() and c not in ';"')
    return kept.encode("ascii", "replace").decode() or "file"


@dataclass
class Opened:
    """Content that is being read.

    :param name: file name offered to the client
    :param content_type: MIME type, empty when unknown
    :param headers: headers that are handed on as they are
    :param close: frees the source
    """

    status: int
    name: str
    content_type: str
    headers: dict[str, str]
    chunks: Iterator[bytes]
    close: Callable[[], None]

    @classmethod
    def of_response(cls, response: httpx.Response, name: str) -> Opened:
        """Wrap an HTTP response opened as a stream."""
        disposition = response.headers.get("Content-Disposition", "")
        # The length is handed on so that clients notice a cut; a decoded content's length is not known.
        encoded = "Content-Encoding" in response.headers
        kept = ("Content-Range",) if encoded else ("Content-Length", "Content-Range")
        return cls(
            status=response.status_code,
            name=_filename_of(disposition) or name,
            content_type=response.headers.get("Content-Type", ""),
            headers={key: response.headers[key] for key in kept if key in response.headers},
            chunks=response.iter_bytes(_CHUNK),
            close=response.close,
        )

    def response(self) -> StreamingResponse:
        """Return the answer that streams the content and closes the source at its end."""
        name, content_type = _safe_header(self.name), self.content_type
        extension = os.path.splitext(name)[1]
        if extension and not content_type:
            content_type = mimetypes.guess_type(name)[0] or ""
        elif content_type and not extension:
            name += mimetypes.guess_extension(content_type.split(";")[0]) or ""
        headers = {
            "Content-Disposition": f"attachment;filename={name}",
            "Access-Control-Expose-Headers": "Content-Disposition",
            **self.headers,
        }
        # As a header, because Starlette adds a character set to a media type.
        headers["Content-Type"] = content_type or "application/octet-stream"
        return StreamingResponse(self._read(), self.status, headers)

    def _read(self) -> Iterator[bytes]:
        try:
            yield from self.chunks
        finally:
            self.close()
