"""Paths as tools spell them."""

from __future__ import annotations

import pytest

BODY = {"prompt": "a b", "max_tokens": 2}


@pytest.mark.parametrize("path", ["/v1/completions", "/completions", "//v1/completions", "///completions/"])
def test_completions(shared, path):
    assert shared.http.post(path, json=BODY).json()["choices"][0]["text"] == "a b"


def test_the_rest_without_v1(shared):
    chat = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1}
    assert shared.http.post("/chat/completions", json=chat).status_code == 200
    assert shared.http.get("/models").json() == shared.http.get("/v1/models").json()
    assert shared.http.get("/models/tiny").json() == shared.http.get("/v1/models/tiny").json()
    assert shared.http.post("/models", json={}).status_code == 405


def test_llm_serving_s_paths_are_what_they_were(shared):
    body = {"inputs": "a b", "parameters": {"max_new_tokens": 2}}
    assert shared.http.post("/models/llama2/generate", json=body).json()["generated_text"] == "a b"
    assert shared.http.get("/models/llama2").status_code == 405
    for method, path in (("POST", "/models/tiny"), ("GET", "/models/other")):
        answer = shared.http.request(method, path)
        assert (answer.status_code, answer.json()["error"]["param"]) == (404, "model")


def test_probes(shared):
    assert shared.http.get("/ping").json() == shared.http.get("/health").json() == {"status": "alive"}
    assert shared.http.head("/ping").status_code == 200


def test_load(serve):
    served = serve()
    assert served.http.get("/load").json() == {"server_load": 0}
    served.peer.tell("numbers")
    served.peer.expect("done")
    numbers = [served.http.get(f"/serving/get_{name}").json()["data"] for name in ("bs", "request_numbers")]
    assert served.http.get("/load").json() == {"server_load": sum(numbers)}
    assert all(numbers)


def test_tokenizer_info(shared):
    info = shared.http.get("/tokenizer_info").json()
    assert (info["tokenizer_class"], info["model_max_length"]) == ("PreTrainedTokenizerFast", 4096)
    assert (info["bos_token"], info["eos_token"]) == ("<s>", "</s>")
    assert {"<s>", "</s>", "<|user|>"} <= set(info["all_special_tokens"])
    assert "{% for message in messages %}" in info["chat_template"]
