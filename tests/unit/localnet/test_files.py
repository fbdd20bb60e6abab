"""The file server."""

from __future__ import annotations

import http.client
import json
import threading
from typing import TYPE_CHECKING

import pytest

from include.localnet.files import FileServer, parse_range
from include.localnet.settings import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTENT = bytes(range(256)) * 1000


@pytest.fixture
def roots(tmp_path: Path) -> list[Path]:
    first, second = tmp_path / "first", tmp_path / "second"
    (first / "sub folder").mkdir(parents=True)
    (second / "__pycache__").mkdir(parents=True)
    (first / "branin.arff").write_text("@RELATION mine")
    (first / "sub folder" / "data.bin").write_bytes(CONTENT)
    (first / "empty.csv").touch()
    (second / "branin.arff").write_text("@RELATION theirs")
    (second / "algorithm.py").write_text("print()")
    (second / ".env").write_text("SECRET=1")
    (second / "__pycache__" / "algorithm.pyc").write_bytes(b"\0")
    (tmp_path / "outside.txt").write_text("outside")
    (first / "loop").symlink_to(first / "loop")
    (first / "link.txt").symlink_to(tmp_path / "outside.txt")
    return [first, second, tmp_path / "not there"]


@pytest.fixture
def connection(roots: list[Path]) -> Iterator[http.client.HTTPConnection]:
    with FileServer(HOST, 0, roots) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        connection = http.client.HTTPConnection(HOST, server.server_address[1], timeout=10)
        yield connection
        connection.close()
        server.shutdown()
        thread.join()


def ask(
    connection: http.client.HTTPConnection, path: str, method: str = "GET", **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, headers=named)
    response = connection.getresponse()
    return response.status, response.headers, response.read()


def test_the_list_names_what_is_served_and_nothing_hidden(connection: http.client.HTTPConnection) -> None:
    status, headers, body = ask(connection, "/")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    # A link that leads out of the folders is not served, hence not listed.
    assert json.loads(body) == ["/algorithm.py", "/branin.arff", "/empty.csv", "/sub%20folder/data.bin"]


@pytest.mark.parametrize(
    ("path", "kind", "content"),
    [
        ("/branin.arff", "text/plain", b"@RELATION mine"),
        ("/branin.arff?version=2", "text/plain", b"@RELATION mine"),
        ("/algorithm.py", "text/x-python", b"print()"),
        ("/empty.csv", "text/csv", b""),
        ("/sub%20folder/data.bin", "application/octet-stream", CONTENT),
    ],
)
def test_files_come_with_type_and_length(
    connection: http.client.HTTPConnection, path: str, kind: str, content: bytes
) -> None:
    status, headers, body = ask(connection, path)
    assert (status, body) == (200, content)
    assert headers["Content-Type"] == kind
    assert headers["Content-Length"] == str(len(content))
    status, head, body = ask(connection, path, "HEAD")
    assert (status, body) == (200, b"")
    assert (head["Content-Length"], head["ETag"]) == (headers["Content-Length"], headers["ETag"])


@pytest.mark.parametrize(
    "path",
    [
        "/missing",
        "/sub%20folder",
        "/sub%20folder/",
        "/../outside.txt",
        "/%2e%2e/outside.txt",
        "/..%2foutside.txt",
        "/sub%20folder/../../outside.txt",
        "/link.txt",
        "/loop",
        "//etc/passwd",
        "/%2fetc/passwd",
        "/branin.arff%00.txt",
        "/.env",
        "/__pycache__/algorithm.pyc",
        "/" + "a" * 5000,
    ],
)
def test_nothing_else_is_found(connection: http.client.HTTPConnection, path: str) -> None:
    status, headers, body = ask(connection, path)
    assert status == 404
    assert headers["Content-Type"] == "application/json"
    assert "error" in json.loads(body)
    # The connection is still in step.
    assert ask(connection, "/branin.arff")[0] == 200


def test_other_methods_are_refused(connection: http.client.HTTPConnection) -> None:
    assert ask(connection, "/branin.arff", "DELETE")[0] == 501


@pytest.mark.parametrize(
    ("header", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=10-19", 10, 19),
        ("bytes=255990-", 255990, 255999),
        ("bytes=-5", 255995, 255999),
    ],
)
def test_a_part_of_a_file(connection: http.client.HTTPConnection, header: str, first: int, last: int) -> None:
    status, headers, body = ask(connection, "/sub%20folder/data.bin", Range=header)
    assert (status, body) == (206, CONTENT[first : last + 1])
    assert headers["Content-Range"] == f"bytes {first}-{last}/256000"


@pytest.mark.parametrize("header", ["bytes=256000-", "bytes=-0", "bytes=300000-400000"])
def test_a_part_beyond_the_end(connection: http.client.HTTPConnection, header: str) -> None:
    status, headers, body = ask(connection, "/sub%20folder/data.bin", Range=header)
    assert (status, headers["Content-Range"], body) == (416, "bytes */256000", b"")


@pytest.mark.parametrize("header", ["bytes=5-2", "bytes=-", "lines=1-2", "bytes=0-1,4-5", "nonsense"])
def test_a_range_that_is_not_understood_is_ignored(header: str) -> None:
    assert parse_range(header, 100) is None


def test_an_unchanged_file_is_not_sent_again(
    connection: http.client.HTTPConnection, roots: list[Path]
) -> None:
    _, headers, _ = ask(connection, "/algorithm.py")
    status, _, body = ask(connection, "/algorithm.py", If_None_Match=headers["ETag"])
    assert (status, body) == (304, b"")
    status, _, body = ask(connection, "/algorithm.py", Range="bytes=0-1", If_Range=headers["ETag"])
    assert (status, body) == (206, b"pr")

    (roots[1] / "algorithm.py").write_text("print('changed')")
    assert ask(connection, "/algorithm.py", If_None_Match=headers["ETag"])[0] == 200
    status, _, body = ask(connection, "/algorithm.py", Range="bytes=0-1", If_Range=headers["ETag"])
    assert (status, body) == (200, b"print('changed')")
