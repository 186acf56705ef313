"""Every limit of the front, at the limit and one beyond it; and what refusals leave in the log."""

from __future__ import annotations

import json

import pytest

from tests.pipeline.front.conftest import post, read_all

GENERATE, COMPLETE = "/models/llama2/generate", "/v1/completions"


def exchange(served, data):
    """Status, headers and body of what a raw request gets."""
    with served.connect() as connection:
        connection.sendall(data)
        head, _, body = read_all(connection).partition(b"\r\n\r\n")
    return int(head.split()[1]), head, body


# ---- HTTP --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    from tests.pipeline.front.conftest import Served

    served = Served(1 << 20, body_limit_bytes=1000, header_limit_bytes=2000)
    yield served
    served.stop()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_at_the_limit_and_one_byte_beyond(small, chunked):
    for size, status in ((1000, 200), (1001, 413)):
        body = json.dumps({"inputs": "a", "parameters": {"max_new_tokens": 1}}).encode().ljust(size)
        content = iter([body[:500], body[500:]]) if chunked else body
        answer = small.http.post(GENERATE, content=content)
        assert answer.status_code == status
    assert answer.json()["error"]["message"] == "the body is larger than 1000 bytes"


@pytest.mark.parametrize("pieces", [1, 3])
def test_headers_at_the_limit_and_one_byte_beyond(small, pieces):
    fixed = b"/health" + b"Connection: close\r\n" + b"X: \r\n"
    for size, status in ((2000, 200), (2001, 431)):
        head = b"GET /health HTTP/1.1\r\nConnection: close\r\nX: " + b"x" * (size - len(fixed)) + b"\r\n\r\n"
        with small.connect() as connection:
            for i in range(pieces):
                connection.sendall(head[i * len(head) // pieces : (i + 1) * len(head) // pieces])
            answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"the request line and the headers are larger than 2000 bytes" in answer


@pytest.mark.parametrize("behind", [b"0\r\nX: %b", b"1;x=%b"])
@pytest.mark.parametrize("pieces", [1, 3])
def test_trailers_and_chunk_extensions_that_never_end(small, behind, pieces):
    """Nobody else counts them: the parser keeps what it has of a trailer, and passes extensions over."""
    head = f"POST {GENERATE} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    with small.connect() as connection:
        connection.sendall(head)
        data = behind % (b"y" * 6000)
        for i in range(pieces):
            connection.sendall(data[i * len(data) // pieces : (i + 1) * len(data) // pieces])
        assert read_all(connection).startswith(b"HTTP/1.1 431 ")


def test_many_small_chunks_are_no_headers(small):
    """What is between the parts of a body may be more than headers may be."""
    body = json.dumps({"inputs": "a", "parameters": {"max_new_tokens": 1}}).encode().ljust(900)
    chunks = b"".join(b"1;extension\r\n%c\r\n" % byte for byte in body)
    head = f"POST {GENERATE} HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    assert exchange(small, head + chunks + b"0\r\n\r\n")[0] == 200


def test_a_path_beyond_the_limit(small):
    assert exchange(small, b"GET /" + b"x" * 2000 + b" HTTP/1.1\r\n\r\n")[0] == 431


def test_as_many_headers_as_there_may_be_and_one_more(shared):
    for count, status in ((256, 200), (257, 431)):
        lines = b"Connection: close\r\n" + b"A: b\r\n" * (count - 1)
        assert exchange(shared, b"GET /health HTTP/1.1\r\n" + lines + b"\r\n")[0] == status


def test_trailers_count_as_headers(shared):
    head = f"POST {GENERATE} HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode()
    body = json.dumps({"inputs": "a b", "parameters": {"max_new_tokens": 2}}).encode()
    chunk = b"%x\r\n%b\r\n0\r\n" % (len(body), body)
    assert exchange(shared, head + chunk + b"A: b\r\n" * 10 + b"\r\n")[0] == 200
    assert exchange(shared, head + chunk + b"A: b\r\n" * 300 + b"\r\n")[0] == 431


def test_http_1_0_gets_no_chunks(shared):
    body = {"inputs": "a b c", "parameters": {"max_new_tokens": 3}, "stream": True}
    request = post(body, "/models/llama2").replace(b"HTTP/1.1", b"HTTP/1.0")
    status, head, answer = exchange(shared, request)
    assert status == 200
    assert b"transfer-encoding" not in head
    assert b"content-length" not in head
    assert b"connection: close" in head
    lines = answer.decode().splitlines()
    assert "".join(json.loads(line)["data"]["generated_text"] for line in lines) == "a b c"
    kept = request.replace(b"Host: x", b"Connection: keep-alive")
    assert exchange(shared, kept)[2].count(b'"event"') == 3  # and it closes, since nothing else tells the end
    status, head, answer = exchange(shared, b"HEAD /health HTTP/1.0\r\n\r\n")
    assert (status, answer) == (200, b"")
    status, head, answer = exchange(shared, b"GET /nowhere HTTP/1.0\r\n\r\n")
    assert status == 404
    assert b"content-length: %d" % len(answer) in head


# ---- JSON --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["prompt", "max_tokens", "stop", "logit_bias", "stream_options", "model", "nonsense"]
)
@pytest.mark.parametrize("depth", [5, 900, 1023, 1024, 100_000])
def test_depth(shared, name, depth):
    """Up to 1024 levels it is JSON, of a wrong type; deeper it is refused as JSON."""
    nested = '{"x":' * (depth // 2) + "[" * (depth - depth // 2) + "]" * (depth - depth // 2) + "}" * (depth // 2)
    answer = shared.http.post(COMPLETE, content=f'{{"prompt": "x", "{name}": {nested}}}')
    assert answer.status_code == 400
    message = answer.json()["error"]["message"]
    assert ("not valid JSON" in message) == (depth > 1023)
    assert len(message) < 400


@pytest.mark.parametrize(
    "number", ["1e308", "-1e308", "18446744073709551616", "9" * 300, "1e400", "9" * 5000, "-0.0"]
)
@pytest.mark.parametrize("name", ["max_tokens", "temperature", "seed", "top_k", "logprobs", "n", "min_tokens"])
def test_numbers(shared, name, number):
    answer = shared.http.post(COMPLETE, content=f'{{"prompt": "x", "max_tokens": 1, "{name}": {number}}}')
    assert answer.status_code in (200, 400)
    if name in ("max_tokens", "n") or (name in ("seed", "logprobs", "min_tokens") and number != "-0.0"):
        assert answer.status_code == 400


def ids(count):
    return [i % 1000 for i in range(count)]


LISTS = [
    ("stop", ["x" * 10] * 64, ["x" * 10] * 65),
    ("stop", "x" * 1024, "x" * 1025),
    ("stop", ["x"], [""]),
    ("stop_token_ids", ids(1000), ids(1025)),
    ("stop_token_ids", [999], [1000]),
    ("logit_bias", {str(i): 1 for i in range(1000)}, {str(i): 1 for i in range(1001)}),
    ("logit_bias", {"999": 100}, {"999": 100.5}),
]


@pytest.mark.parametrize(("name", "most", "more"), LISTS)
def test_lists(shared, name, most, more):
    body = {"prompt": "a b", "max_tokens": 1}
    assert shared.http.post(COMPLETE, json={**body, name: most}).status_code == 200
    answer = shared.http.post(COMPLETE, json={**body, name: more})
    assert answer.status_code == 400
    assert name in answer.json()["error"]["message"]


def test_ids_and_biases_together(shared):
    body = {"prompt": "a b", "max_tokens": 1, "logit_bias": {str(i): 1 for i in range(1000)}}
    assert shared.http.post(COMPLETE, json={**body, "stop_token_ids": ids(24)}).status_code == 200
    assert shared.http.post(COMPLETE, json={**body, "stop_token_ids": ids(25)}).status_code == 400


def test_a_name_as_long_as_a_body(shared):
    answer = shared.http.post(COMPLETE, json={"prompt": "x", "y" * 2_000_000: 1})
    assert answer.status_code == 400
    assert len(answer.content) < 1000


# ---- the log -----------------------------------------------------------------------------------------------


def test_refusals_do_not_flood_the_log(serve):
    served = serve(api_keys=["k"])
    for _ in range(300):
        served.http.get("/v1/models")
    assert served.front.log("401")
    more = served.front.log("more requests were refused")
    lines = [line for line in served.front.errors if "401" in line]
    assert 20 <= len(lines) < 300
    assert int(more.split("more requests")[0].split()[-1]) > 0
    served.http.headers["authorization"] = "Bearer k"
    assert served.generate("a", max_new_tokens=1).status_code == 200
    assert served.front.log("length")  # what was served is always there


def test_whatever_a_field_holds_the_error_can_show_it(shared):
    """A chain of lists that is as deep as JSON may be, where an error would tell of it."""
    nested = "[" * 1000 + "]" * 1000
    head = '{"messages":[{"role":"user","content":"x"}],'
    for fields in (f'"model":{nested}', f'"max_tokens":{nested},"max_completion_tokens":{nested}'):
        answer = shared.http.post("/v1/chat/completions", content=head + fields + "}")
        assert answer.status_code in (400, 404)
        assert answer.json()["error"]["param"] in ("model", "max_completion_tokens")
