"""What the pages give out: the run's own files only, and nothing in them or in their names becomes a page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.ocean_runs import TaskRow

if TYPE_CHECKING:
    from tests.unit.airflow_ocean.ui.conftest import Site

PNG = b"\x89PNG\r\n\x1a\n and so on"
HTML = "<script>alert(1)</script>"


def listed(uri: str, name: str = "result", **fields: Any) -> dict[str, Any]:
    return {"name": name, "uri": uri, "type": "output", "size": 5, "sha256": "0" * 64, **fields}


async def test_a_fetched_file_is_a_download(site: Site) -> None:
    content = HTML.encode() * 50_000  # more than one chunk
    site.add({"manifest": site.manifest(listed(site.keep("fetch", "0-result", content), "page.html"))})
    answer = await site.get("/artifacts/fetch/-1/0")
    assert (answer.status_code, answer.content) == (200, content)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith('attachment; filename="page.html"')
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "name",
    ['"><script>alert(1)</script>', "../../etc/passwd", "a\r\nSet-Cookie: x=1", "ünï\u202e.txt", "", "..."],
)
async def test_names_from_outside_stay_names(site: Site, name: str) -> None:
    site.add({"manifest": site.manifest(listed(site.keep("fetch", "0", b"hello"), name))})
    answer = await site.get("/artifacts/fetch/-1/0")
    assert answer.content == b"hello"
    disposition = answer.headers["content-disposition"]
    assert disposition.isascii()
    assert disposition.startswith("attachment; ")
    assert "set-cookie" not in answer.headers
    assert "/" not in disposition.replace("UTF-8''", "")
    assert disposition.count('"') == 2
    page = (await site.get()).text
    assert "<script>alert" not in page
    assert "artifacts/fetch/-1/0" in page


@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc/passwd",
        "/etc/passwd",
        "{folder}/../../../../secret",
        "{folder}/..",
        "{folder}/%2e%2e/secret",
        "{folder}//0-result",
        "{folder}/link",
        "{base}/secret",
        "{base}/other_dag/run/fetch/0-result",
        "{folder}/../plot/plot.png",
        "{base}-beside/0-result",
        "{folder}/0-result\x00.png",
        "s3://another-bucket/0-result",
        "",
    ],
)
async def test_no_other_file_is_given_out(site: Site, uri: str) -> None:
    folder = f"file://{site.folder('fetch')}"
    (site.base / "secret").write_text("secret")
    (site.base.parent / "artifacts-beside").mkdir()
    (site.base.parent / "artifacts-beside" / "0-result").write_text("secret")
    site.keep("fetch", "0-result", b"mine")
    outside = site.base.parent / "outside"
    outside.write_text("secret")
    (site.folder("fetch") / "link").symlink_to(outside)
    asked = uri.format(folder=folder, base=f"file://{site.base}")
    site.add({"manifest": site.manifest(listed(asked))}, plot=asked)
    for path in ("/artifacts/fetch/-1/0", "/plots/plot/-1"):
        answer = await site.get(path)
        assert answer.status_code == 404, answer.text
        assert "secret" not in answer.text.replace(uri, "")
    # The file itself would be given out.
    site.manifest(listed(f"{folder}/0-result"))
    assert (await site.get("/artifacts/fetch/-1/0")).content == b"mine"


async def test_a_manifest_elsewhere_is_not_read(site: Site) -> None:
    elsewhere = site.base.parent / "manifest.json"
    elsewhere.write_text(json.dumps({"job_id": "j", "algorithm_did": None, "dataset_dids": [], "files": []}))
    site.add({"manifest": f"file://{elsewhere}"})
    assert (await site.get("/artifacts/fetch/-1/0")).status_code == 404
    page = await site.get()
    assert page.status_code == 200
    assert "The list of files is not shown" in page.text


@pytest.mark.parametrize("number", ["1", "-1", "x", "0%2F..", "99999999999999999999"])
async def test_only_listed_numbers(site: Site, number: str) -> None:
    site.add({"manifest": site.manifest(listed(site.keep("fetch", "0", b"hello")))})
    assert (await site.get(f"/artifacts/fetch/-1/{number}")).status_code in (404, 422)


@pytest.mark.parametrize("path", ["/artifacts/other/-1/0", "/artifacts/fetch/3/0", "/plots/fetch/-1"])
async def test_only_tasks_that_have_such_files(site: Site, path: str) -> None:
    site.add({"manifest": site.manifest(listed(site.keep("fetch", "0", b"hello")))})
    assert (await site.get(path)).status_code == 404


async def test_a_plot_is_shown_only_when_it_is_a_png(site: Site) -> None:
    site.add({}, plot=site.keep("plot", "plot.png", PNG))
    answer = await site.get("/plots/plot/-1")
    assert (answer.content, answer.headers["content-type"]) == (PNG, "image/png")
    assert "sandbox" in answer.headers["content-security-policy"]
    assert "content-disposition" not in answer.headers
    download = await site.get("/plots/plot/-1?download=true")
    assert download.headers["content-disposition"].startswith("attachment")
    site.keep("plot", "plot.png", f"<svg>{HTML}</svg>".encode())
    refused = await site.get("/plots/plot/-1")
    assert refused.status_code == 404
    assert HTML not in refused.text


@pytest.mark.parametrize("content", ["no JSON", "[]", '{"files": [{"name": 1}]}', '{"files": 5}'])
async def test_a_broken_manifest_does_not_break_the_page(site: Site, content: str) -> None:
    site.add({"manifest": site.keep("fetch", "manifest.json", content.encode())})
    page = await site.get()
    assert page.status_code == 200
    assert "The list of files cannot be read" in page.text
    assert (await site.get("/artifacts/fetch/-1/0")).status_code == 404


async def test_files_that_are_gone_are_said_to_be(site: Site) -> None:
    site.add({"manifest": site.manifest(listed(site.keep("fetch", "0", b"hello"), type="algorithmLog"))})
    (site.folder("fetch") / "0").unlink()
    assert (await site.get("/artifacts/fetch/-1/0")).status_code == 404
    assert "The log cannot be read" in (await site.get()).text
    (site.folder("fetch") / "manifest.json").unlink()
    assert "there is no manifest" in (await site.get()).text


async def test_what_others_wrote_is_shown_as_text(site: Site) -> None:
    log = site.keep("fetch", "1", f"{HTML}\nthe end".encode())
    kept = listed(log, HTML, type="algorithmLog", size=100, sha256=HTML)
    manifest = site.manifest(kept)
    site.add(
        {"manifest": manifest, "asset_name": HTML, "nft_address": HTML, "return_value": HTML, "status": HTML}
    )
    page = await site.get()
    assert page.status_code == 200
    assert HTML not in page.text
    assert "&lt;script&gt;" in page.text
    assert "the end" in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


async def test_the_pages_need_nothing_from_elsewhere(site: Site) -> None:
    site.add({})
    page = (await site.get()).text
    assert "http://" not in page
    assert "https://" not in page
    assert " style=" not in page
    assert "<script src=" in page
    assert page.count("<script") == 1


@pytest.mark.parametrize("may", [True, False])
async def test_errors_are_told_to_those_who_may_read_logs(
    site: Site, monkeypatch: pytest.MonkeyPatch, may: bool
) -> None:
    from airflow_ocean.ui import app, failures

    def explain(_session: Any, _run: Any, tasks: list[Any]) -> list[failures.Failure]:
        return [failures.Failure(task, "InvalidInputError", "as the log says", "", False) for task in tasks]

    # Logs are files of a running Airflow; a browser test reads one.
    monkeypatch.setattr(failures, "explain", explain)
    site.app.dependency_overrides[app.may_read_logs] = lambda: may
    site.add_tasks("failed", TaskRow("pay", "OceanPayForComputeOperator", "failed"))
    page = (await site.get()).text
    assert "What went wrong" in page
    assert ("as the log says" in page) is may
    assert ("The task&#39;s log says why." in page) is not may
