"""Browsers of other origins."""

from __future__ import annotations

from tests.pipeline.front.http.test_access import KEY, bearer


def preflight(served, origin, headers="authorization, content-type, x-stainless-lang", path="/v1/completions"):
    asks = {"origin": origin, "access-control-request-method": "POST", "access-control-request-headers": headers}
    return served.http.options(path, headers=asks)


def cors_headers(answer):
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


def test_without_cors_no_header_tells_of_it(shared):
    for answer in (
        shared.http.get("/v1/models", headers={"origin": "https://example.org"}),
        preflight(shared, "https://example.org"),
        shared.http.post("/v1/completions", json={}, headers={"origin": "null"}),
    ):
        assert cors_headers(answer) == {}
        assert "vary" not in answer.headers
    assert preflight(shared, "https://example.org").status_code == 405


def test_origins_that_are_named(serve):
    served = serve(cors_origins=["https://example.org", "http://localhost:3000"], api_keys=[KEY])
    asked = preflight(served, "https://example.org")
    assert (asked.status_code, asked.content) == (204, b"")
    assert cors_headers(asked) == {
        "access-control-allow-origin": "https://example.org",
        "access-control-allow-methods": "GET, HEAD, POST",
        "access-control-allow-headers": "authorization, content-type, x-stainless-lang",
        "access-control-expose-headers": "retry-after, x-request-id",
        "access-control-max-age": "600",
    }
    assert "content-length" not in asked.headers
    origin = {"origin": "http://localhost:3000"}
    body = {"prompt": "a b", "max_tokens": 2, "stream": True}
    for answer in (
        served.http.post("/v1/completions", json=body, headers=origin | bearer(KEY)),
        served.http.post("/v1/completions", json=body, headers=origin),
        served.http.get("/nowhere", headers=origin | bearer(KEY)),
    ):
        assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
        assert answer.headers["vary"] == "origin"
    for answer in (preflight(served, "https://evil.org"), preflight(served, "null")):
        assert (answer.status_code, cors_headers(answer), answer.headers["vary"]) == (403, {}, "origin")
    assert cors_headers(served.http.get("/health", headers={"origin": "https://example.org.evil.org"})) == {}
    assert served.http.get("/health").headers["vary"] == "origin"


def test_all_origins(serve):
    served = serve(cors_origins=["*"])
    assert cors_headers(preflight(served, "https://anything.example"))["access-control-allow-origin"] == "*"
    assert served.http.get("/v1/models", headers={"origin": "null"}).headers["access-control-allow-origin"] == "*"
    assert cors_headers(served.http.get("/v1/models")) == {}
    assert preflight(served, "https://a.example", headers="x\x01y").status_code == 400
    assert served.http.options("/v1/models").status_code == 405  # no browser asks like that
