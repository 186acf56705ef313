"""The files of the live page, as they are served."""

from __future__ import annotations

import re

import pytest

from pipeline.front.page.routes import load_files

FILES = sorted(load_files())


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_served_with_its_headers(shared, name):
    path = "/" if name == "index.html" else f"/page/{name}"
    answer = shared.http.get(path)
    kinds = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    assert answer.status_code == 200
    assert answer.headers["content-type"].partition(";")[0] == kinds[name.rpartition(".")[2]]
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert {policy[kind] for kind in ("script-src", "style-src", "img-src", "connect-src")} == {"'self'"}
    again = shared.http.get(path, headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    head = shared.http.head(path)
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", answer.headers["etag"])


@pytest.mark.parametrize("name", FILES)
def test_nothing_comes_from_elsewhere(name):
    text = load_files()[name].content.decode()
    addresses = set(re.findall(r"[a-z]+://[^\s\"'`)<>]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert not re.search(r"\sstyle=|\son[a-z]+=\"|javascript:|@import|eval\(", text), "the policy forbids it"


def test_every_module_that_is_imported_is_there():
    for name in FILES:
        text = load_files()[name].content.decode()
        for imported in re.findall(r'from "\./([^"]+)"', text) + re.findall(r'"/page/([^"]+)"', text):
            assert imported in FILES


def test_other_paths_are_not_files(shared):
    assert shared.http.get("/page/main.js/").status_code == 200  # as with every path here
    for path in ("/page", "/page/", "/page/../settings.py", "/page/%2e%2e/settings.py", "/page/nothing.js"):
        assert shared.http.get(path).status_code == 404
    assert shared.http.post("/", json={}).status_code == 405
