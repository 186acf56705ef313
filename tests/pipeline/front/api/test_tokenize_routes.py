"""/tokenize, /detokenize and /v1/models in detail, and the names of requests. Their forms are in golden/."""

from __future__ import annotations

import json

import pytest

from model.demo import DEMO_DIR
from model.tokenizer import load_tokenizer
from pipeline.preprocess.encodings import PIECE
from tests.pipeline.front.conftest import post, read_until

TOKENIZER = load_tokenizer(DEMO_DIR)
MESSAGES = [{"role": "user", "content": "Hé 🦙"}]


def tokenize(served, **body):
    return served.http.post("/tokenize", json=body)


@pytest.mark.parametrize("text", ["", "a", "Hé 🦙 ring", "<s>special</s>", "x" * 100_000])
@pytest.mark.parametrize("add_special", [True, False])
def test_there_and_back(shared, text, add_special):
    answer = tokenize(shared, prompt=text, add_special_tokens=add_special, return_token_strs=True).json()
    ids = TOKENIZER.encode(text, add_special=add_special)
    assert (answer["tokens"], answer["count"], answer["max_model_len"]) == (ids, len(ids), 4096)
    assert answer["token_strs"] == [TOKENIZER.token_text(token) for token in ids]
    if max(ids, default=0) < 1000 and len(ids) <= 4096:  # the vocabulary of these tests is cut
        back = shared.http.post("/detokenize", json={"tokens": ids}).json()
        assert back == {"prompt": ("<s>" if add_special else "") + text}


@pytest.mark.parametrize(
    ("fields", "ending"),
    [({}, "</s><|assistant|>"), ({"add_generation_prompt": False}, "</s>"), ({"continue_final_message": True}, "")],
)
def test_a_chat_is_what_the_chat_route_makes_of_it(shared, fields, ending):
    ids = tokenize(shared, messages=MESSAGES, **fields).json()["tokens"]
    assert ids == TOKENIZER.encode("<s><|user|>Hé 🦙" + ending, add_special=False)


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/tokenize", {}, "prompt"), ("/tokenize", {"prompt": 5}, "prompt"),
        ("/tokenize", {"prompt": ["a"]}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": MESSAGES}, "prompt"), ("/tokenize", {"messages": []}, "messages"),
        ("/tokenize", {"prompt": "a", "add_generation_prompt": True}, "add_generation_prompt"),
        ("/tokenize", {"messages": [{"role": "clown", "content": "x"}]}, "messages"),
        ("/tokenize", {"prompt": "a", "return_token_strs": 1}, "return_token_strs"),
        ("/detokenize", {}, "tokens"), ("/detokenize", {"tokens": "a"}, "tokens"),
        ("/detokenize", {"tokens": [1000]}, "tokens"), ("/detokenize", {"tokens": [-1]}, "tokens"),
        ("/detokenize", {"tokens": [5] * 4097}, "tokens"), ("/detokenize", {"tokens": [5], "x": 1}, "x"),
    ],
)  # fmt: skip
def test_what_is_wrong(shared, path, body, name):
    answer = shared.http.post(path, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
def test_another_model(shared, path):
    answer = shared.http.post(path, json={"model": "gpt-4", "prompt": "x", "tokens": [5]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_a_long_text_does_not_stop_the_streams(serve):
    """It is tokenized beside the event loop: a stream that is under way goes on."""
    served = serve()
    with served.connect() as long, served.connect() as stream:
        stream.sendall(post({"prompt": "a b @pace=0.001", "max_tokens": 4000, "stream": True}, "/v1/completions"))
        read_until(stream, b"text_completion")
        long.sendall(post({"prompt": "a ring buffer in shared memory " * 10_000}, "/tokenize"))
        tokens = 0
        long.setblocking(False)
        while not _readable(long):
            tokens += stream.recv(65536).count(b"text_completion")
        long.setblocking(True)
        assert b'"count":' in read_until(long, b'"count":')
    assert tokens > 20


def test_a_text_waits_for_a_pipeline_that_is_restarted(serve):
    served = serve()
    text = "a ring buffer " * 3000
    expected = tokenize(served, prompt=text).json()
    assert len(expected["tokens"]) > 2 * PIECE
    served.end_generation()
    with served.connect() as waiting:
        waiting.sendall(post({"prompt": text}, "/tokenize"))
        waiting.settimeout(0.2)
        with pytest.raises(TimeoutError):
            waiting.recv(1)
        waiting.settimeout(20)
        served.wire()
        assert f'"count":{expected["count"]}'.encode() in read_until(waiting, b'"count":%d' % expected["count"])


def _readable(connection):
    try:
        return bool(connection.recv(1, 2))  # MSG_PEEK
    except BlockingIOError:
        return False


def test_models_with_a_name_of_several_segments(serve):
    served = serve(model_name="org/tiny model")
    for name in ("org/tiny model", "org%2Ftiny%20model", "llama2", "org/tiny%20model/"):
        assert served.http.get(f"/v1/models/{name}").json()["id"] == "org/tiny model"
    assert served.http.get("/v1/models/").json()["object"] == "list"
    assert served.http.post("/v1/models/llama2").status_code == 405
    answer = served.complete("a", max_tokens=1, model="org/tiny model")
    assert answer.json()["model"] == "org/tiny model"


# ---- x-request-id -------------------------------------------------------------------------------------------

CALLS = [
    ("POST", "/v1/completions", {"prompt": "a", "max_tokens": 1}),
    ("POST", "/v1/completions", {"prompt": ["a", "b"], "max_tokens": 1, "stream": True}),
    ("POST", "/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 1}),
    ("POST", "/models/llama2/generate", {"inputs": "a", "parameters": {"max_new_tokens": 1}}),
    ("POST", "/v1/completions", {"prompt": "a", "temperature": -1}),
    ("POST", "/v1/completions", {"prompt": "@refuse=429"}),
    ("GET", "/v1/models", None),
    ("GET", "/nothing", None),
]


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
def test_a_request_keeps_the_name_that_its_client_gave_it(shared, method, path, body):
    headers = {"x-request-id": "trace-4711/äöü".encode().decode("ascii", "ignore")}
    answer = shared.http.request(method, path, json=body, headers=headers)
    assert answer.headers["x-request-id"] == "trace-4711/"
    assert len(answer.headers.get_list("x-request-id")) == 1


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
@pytest.mark.parametrize("name", [b"", b"x" * 129, b"two words", "ü".encode(), b"tab\there"])
def test_a_name_that_is_not_fit_is_replaced(shared, method, path, body, name):
    answer = shared.http.request(method, path, json=body, headers={b"x-request-id": name})
    assert len(answer.headers["x-request-id"]) == 32
    int(answer.headers["x-request-id"], 16)


def test_the_log_names_both(serve):
    served = serve(log_format="json")
    answer = served.http.post(
        "/v1/completions", json={"prompt": "a", "max_tokens": 1}, headers={"x-request-id": "trace-4711"}
    )
    line = json.loads(served.front.log("trace-4711"))
    assert line["client_id"] == "trace-4711"
    assert answer.json()["id"] == f"cmpl-{line['id']}"
    plain = serve()
    plain.http.post("/v1/completions", json={"prompt": "a", "max_tokens": 1}, headers={"x-request-id": "trace-4712"})
    assert " (trace-4712): 5 prompt + 1 tokens" in plain.front.log("trace-4712")
