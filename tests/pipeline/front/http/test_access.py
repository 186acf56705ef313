"""Who may do what: API keys, the port for operators, and browsers of other origins."""

from __future__ import annotations

import httpx
import pytest

from pipeline.front.http.access import ApiKeys
from pipeline.front.http.errors import ApiError
from pipeline.launcher.api_keys import digest
from pipeline.wire.api_key import ApiKey
from tests.pipeline.front.conftest import Served, read_all

KEY, OTHER = "sk-alice-0123456789", "sk-bob-0123456789"
PROTECTED = [
    ("POST", "/models/llama2/generate"), ("POST", "/models/llama2/generate_stream"), ("POST", "/models/llama2"),
    ("POST", "/v1/completions"), ("POST", "/v1/chat/completions"), ("POST", "/tokenize"), ("POST", "/detokenize"),
    ("GET", "/v1/models"), ("GET", "/v1/models/tiny"), ("GET", "/version"), ("GET", "/openapi.json"),
    ("GET", "/serving/get_bs"), ("GET", "/debug/trace"), ("GET", "/load"), ("GET", "/tokenizer_info"),
    ("POST", "/v1/responses"), ("POST", "/responses"),
    ("GET", "/models"), ("GET", "/models/tiny"), ("POST", "/chat/completions"), ("POST", "/completions"),
    ("GET", "/nowhere"), ("DELETE", "/v1/models"), ("OPTIONS", "/v1/models"), ("POST", "//v1/completions"),
]  # fmt: skip


def bearer(key):
    return {"authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def locked():
    served = Served(1 << 20, api_keys=[KEY, OTHER])
    yield served
    served.stop()


# ---- keys --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), PROTECTED)
def test_what_needs_a_key(locked, method, path):
    answer = locked.http.request(method, path)
    assert answer.status_code == 401
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("authentication_error", "authorization")
    assert error["code"] == "invalid_api_key"
    assert answer.headers["www-authenticate"] == 'Bearer realm="ringserve"'
    wrong = locked.http.request(method, path, headers=bearer("sk-mallory"))
    assert wrong.status_code == 401
    assert wrong.headers["www-authenticate"] == 'Bearer realm="ringserve", error="invalid_token"'
    assert "mallory" not in wrong.text
    assert locked.http.request(method, path + "?seconds=0", headers=bearer(KEY)).status_code != 401


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/health/", "/ping", "//health"])
def test_what_needs_none(locked, path):
    assert locked.http.get(path).status_code == 200


@pytest.mark.parametrize("key", [KEY, OTHER])
def test_each_key_serves(locked, key):
    body = {"inputs": "a b", "parameters": {"max_new_tokens": 2}}
    answer = locked.http.post("/models/llama2/generate", json=body, headers=bearer(key))
    assert answer.json()["generated_text"] == "a b"


@pytest.mark.parametrize(
    "header",
    ["", KEY, "Bearer", f"Basic {KEY}", f"Bearer {KEY[:-1]}", f"Bearer {KEY}x", f"Bearer {KEY} {OTHER}",
     f"Bearer {KEY},{OTHER}", f"Bearer {KEY.upper()}", f"Bearer {digest(KEY.encode())}", "Bearer \xff\xfe"],
)  # fmt: skip
def test_what_is_no_key(locked, header):
    answer = locked.http.get("/v1/models", headers={"authorization": header.encode("latin-1")})
    assert answer.status_code == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer  "])
def test_the_scheme_in_any_spelling(locked, scheme):
    assert locked.http.get("/v1/models", headers={"authorization": f"{scheme} {KEY}"}).status_code == 200


@pytest.mark.parametrize("name", ["x-api-key", "api-key"])
def test_keys_in_headers_of_their_own(locked, name):
    for more in ({}, bearer("sk-mallory"), {"authorization": "Basic x"}):
        assert locked.http.get("/v1/models", headers={name: KEY, **more}).status_code == 200
    for wrong in ("", KEY[:-1], f"Bearer {KEY}"):
        answer = locked.http.get("/v1/models", headers={name: wrong})
        assert (answer.status_code, answer.json()["error"]["message"]) == (401, "the API key is not valid")
    assert locked.http.get("/v1/models", headers={name: "sk-mallory", **bearer(KEY)}).status_code == 200


def test_what_needs_a_key_says_so_in_the_form_of_its_api(locked):
    for method, path in (("POST", "/api/chat"), ("GET", "/api/tags"), ("GET", "/api/nowhere")):
        answer = locked.http.request(method, path)
        needed = "an API key is needed; send the header Authorization: Bearer <key>"
        assert (answer.status_code, answer.json()) == (401, {"error": needed})


def test_keys_are_in_no_log(serve):
    served = serve(api_keys=[KEY], log_level="debug")
    served.http.get("/v1/models", headers=bearer("sk-mallory"))
    served.http.get("/v1/models", headers=bearer(KEY))
    served.http.post("/v1/completions", json={"prompt": "a", "max_tokens": 1}, headers=bearer(KEY))
    served.http.post("/v1/completions", json={"prompt": KEY, "max_tokens": "x"}, headers=bearer(KEY))
    served.front.log("400")
    everything = "".join(served.front.errors)
    assert KEY not in everything
    assert "mallory" not in everything


def test_keys_can_be_replaced():
    keys = ApiKeys([ApiKey(digest(b"old"))])
    keys.check(b"Bearer old")
    keys.replace([ApiKey(digest(b"new")), ApiKey(digest(b"newer"))])
    assert keys.check(b"Bearer newer").key.digest == digest(b"newer")
    assert keys.check(None, [b"no", b"new"]).key.digest == digest(b"new")
    for header in (b"Bearer old", None):
        with pytest.raises(ApiError) as caught:
            keys.check(header)
        assert caught.value.status == 401
    assert repr(keys) == "ApiKeys(2)"
    assert not ApiKeys().needed
    assert ApiKeys().check(None) is None


# ---- the port for operators --------------------------------------------------------------------------------


def test_metrics_on_a_port_of_their_own(serve):
    served = serve(metrics_port=0, max_connections=3)
    with httpx.Client(base_url=f"http://127.0.0.1:{served.metrics_port}") as operators:
        assert operators.get("/metrics").status_code == 200
        assert operators.get("/debug/trace?seconds=0.01").status_code == 200
        assert (operators.get("/health").status_code, operators.get("/ready").status_code) == (200, 200)
        for path in ("/v1/models", "/v1/completions", "/models/llama2/generate", "/serving/get_bs"):
            assert operators.get(path).status_code == 404
    for path in ("/metrics", "/debug/trace", "/metrics/"):
        assert served.http.get(path).status_code == 404
    assert served.http.get("/health").status_code == 200
    assert served.complete("a", max_tokens=1).status_code == 200


def test_operators_see_a_server_that_is_overrun(serve):
    served = serve(metrics_port=0, max_connections=3)
    served.http.close()
    crowd = [served.connect() for _ in range(3)]
    with served.connect() as one_more:
        assert b" 503 " in read_all(one_more)
    assert httpx.get(f"http://127.0.0.1:{served.metrics_port}/metrics").status_code == 200
    for connection in crowd:
        connection.close()


# ---- browsers of other origins -------------------------------------------------------------------------------


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
        "access-control-allow-methods": "GET, HEAD, POST, DELETE",
        "access-control-allow-headers": "authorization, content-type, x-stainless-lang",
        "access-control-expose-headers": "retry-after, x-request-id, x-stream-id",
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
