"""A file server for the assets' files: the URLs that datasets and algorithms are published with point here."""

from __future__ import annotations

import json
import mimetypes
import os
import re
import signal
import socketserver
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote, urlsplit

_TYPES = {".arff": "text/plain", ".py": "text/x-python", ".csv": "text/csv", ".json": "application/json"}
_CHUNK = 1 << 16
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def _is_public(relative: Path) -> bool:
    return not any(part.startswith((".", "__")) for part in relative.parts)


def find_file(roots: list[Path], url_path: str) -> Path | None:
    """Return the file a URL path names, from the first folder that has it; nothing outside the folders is found."""
    relative = unquote(url_path).lstrip("/")
    if not relative or "\0" in relative or not _is_public(Path(relative)):
        return None
    for root in roots:
        try:
            found = (root / relative).resolve()
            if found.is_relative_to(root.resolve()) and found.is_file():
                return found
        except (OSError, RuntimeError):  # a name too long, or (RuntimeError) a loop of links
            continue
    return None


def list_files(roots: list[Path]) -> list[str]:
    """Return the URL paths of all files."""
    names = {path.relative_to(root).as_posix() for root in roots for path in root.rglob("*")}
    return [path for name in sorted(names) if find_file(roots, path := f"/{quote(name)}")]


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return first and last byte of a single range (RFC 9110, section 14), None when the whole file is meant.

    :raises ValueError: when the range lies outside the file
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or match.group(1) == match.group(2) == "":
        return None  # a header that is not understood is to be ignored
    first, last = match.groups()
    if not first:
        start, end = max(size - int(last), 0), size - 1
    else:
        start, end = int(first), min(int(last), size - 1) if last else size - 1
        if last and int(last) < start:
            return None
    if start >= size or end < start:
        raise ValueError(f"{header} lies outside the file's {size} bytes")
    return start, end


class FileHandler(BaseHTTPRequestHandler):
    """Answers GET and HEAD."""

    protocol_version = "HTTP/1.1"
    server_version = "OceanLocalnetFiles"
    timeout = 60  # seconds an idle connection is kept
    roots: list[Path] = []

    def do_GET(self) -> None:
        """Serve a file, or the list of all files at ``/``."""
        path = urlsplit(self.path).path
        if path == "/":
            self._send_text(HTTPStatus.OK, json.dumps(list_files(self.roots)))
            return
        found = find_file(self.roots, path)
        if found is None:
            self._send_text(HTTPStatus.NOT_FOUND, json.dumps({"error": f"no file {path}"}))
            return
        try:
            file = found.open("rb")
        except OSError as error:
            message = json.dumps({"error": f"{path} cannot be read: {error.strerror}"})
            self._send_text(HTTPStatus.FORBIDDEN, message)
            return
        with file:
            self._send_file(file, found.suffix)

    do_HEAD = do_GET

    def _send_text(self, status: HTTPStatus, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_file(self, file: BinaryIO, suffix: str) -> None:
        facts = os.fstat(file.fileno())
        etag = f'"{facts.st_mtime_ns:x}-{facts.st_size:x}"'
        if self.headers.get("If-None-Match") == etag:
            self.send_response(HTTPStatus.NOT_MODIFIED)
            self.send_header("ETag", etag)
            self.end_headers()
            return
        # A range of a file that has changed since would be glued to a part of the old one.
        current = self.headers.get("If-Range", etag) == etag
        try:
            part = parse_range(self.headers.get("Range") if current else None, facts.st_size)
        except ValueError:
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self.send_header("Content-Range", f"bytes */{facts.st_size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        first, last = part or (0, facts.st_size - 1)
        self.send_response(HTTPStatus.PARTIAL_CONTENT if part else HTTPStatus.OK)
        kind = _TYPES.get(suffix.lower()) or mimetypes.guess_type(f"file{suffix}")[0]
        self.send_header("Content-Type", kind or "application/octet-stream")
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", etag)
        self.send_header("Last-Modified", self.date_time_string(int(facts.st_mtime)))
        if part:
            self.send_header("Content-Range", f"bytes {first}-{last}/{facts.st_size}")
        self.end_headers()
        if self.command != "HEAD":
            self._send_bytes(file, first, last - first + 1)

    def _send_bytes(self, file: BinaryIO, first: int, count: int) -> None:
        file.seek(first)
        while count > 0:
            chunk = file.read(min(count, _CHUNK))
            if not chunk:  # the file was cut meanwhile: the promised length cannot be kept
                self.close_connection = True
                return
            self.wfile.write(chunk)
            count -= len(chunk)


class FileServer(ThreadingHTTPServer):
    """Serves the files below ``roots``; of two files with one name the earlier folder's is served."""

    daemon_threads = True

    def __init__(self, host: str, port: int, roots: list[Path]) -> None:
        super().__init__((host, port), type("ConfiguredFileHandler", (FileHandler,), {"roots": roots}))

    def server_bind(self) -> None:
        """Bind without the parent's reverse DNS look-up, which takes seconds where no DNS server answers."""
        socketserver.TCPServer.server_bind(self)


def main() -> None:
    """Serve the folders of ``FILES_ROOTS`` until SIGTERM or SIGINT."""
    configured = os.environ.get("FILES_ROOTS")
    port = os.environ.get("PORT")
    if not configured or not port:
        raise SystemExit("FILES_ROOTS (folders to serve) and PORT must be set in the environment")
    roots = [Path(root) for root in configured.split(os.pathsep) if root]
    server = FileServer(os.environ.get("HOST", "127.0.0.1"), int(port), roots)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    with server:
        server.serve_forever()


if __name__ == "__main__":
    main()
