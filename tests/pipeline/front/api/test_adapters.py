"""Adapters: each API's `model` chooses one, the answer names it, and lists, log and metrics know it."""

from __future__ import annotations

import json

import pytest
from openapi_spec_validator import validate

from pipeline.front.api.openapi.document import openapi_document
from pipeline.front.settings import FrontSettings
from tests.pipeline.front.conftest import DEFAULTS, Served

NAMES = ["plain", "org/fine-1.5:v2"]
MESSAGES = [{"role": "user", "content": "a b"}]
LLM_SERVING = {"inputs": "a b", "parameters": {"max_new_tokens": 2}}
BODIES = {
    "/v1/completions": {"prompt": "a b", "max_tokens": 2},
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": 2},
    "/v1/responses": {"input": "a b", "max_output_tokens": 2},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 2},
    "/api/chat": {"messages": MESSAGES, "options": {"num_predict": 2}, "stream": False},
    "/api/generate": {"prompt": "a b", "raw": True, "options": {"num_predict": 2}, "stream": False},
}


@pytest.fixture(scope="module")
def fine():
    served = Served(1 << 20, adapters=NAMES, model_aliases=["other"], log_format="json")
    yield served
    served.stop()


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("stream", [False, True])
def test_the_model_of_a_request_chooses(fine, path, stream):
    for name in (*NAMES, "tiny", "other", "llama2", None):
        body = BODIES[path] | {"model": name, "stream": stream}
        answer = fine.http.post(path, json=body)
        assert answer.status_code == 200, answer.text
        assert fine.peer.expect("submit")["adapter"] == (name if name in NAMES else "")
        called = name if path.startswith("/api/") else name if name in NAMES else "tiny"
        assert f'"model":"{called or "tiny:latest"}"' in answer.text


def test_ollamas_clients_may_write_a_tag(fine):
    for name, adapter in (("plain:latest", "plain"), ("org/fine-1.5:v2", "org/fine-1.5:v2"), ("tiny:latest", "")):
        assert fine.http.post("/api/chat", json=BODIES["/api/chat"] | {"model": name}).json()["model"] == name
        assert fine.peer.expect("submit")["adapter"] == adapter
        shown = fine.http.post("/api/show", json={"model": name}).json()
        assert shown["details"]["parent_model"] == ("tiny:latest" if adapter else "")
    for path in ("/api/tags", "/api/ps"):
        listed = fine.http.get(path).json()["models"]
        parents = {"tiny:latest": "", "plain:latest": "tiny:latest", "org/fine-1.5:v2": "tiny:latest"}
        assert {one["name"]: one["details"]["parent_model"] for one in listed} == parents


@pytest.mark.parametrize("path", BODIES)
def test_another_name_is_404_that_says_which_there_are(fine, path):
    answer = fine.http.post(path, json=BODIES[path] | {"model": "plainer"})
    assert answer.status_code == 404
    assert "plainer" in answer.text
    assert "tiny" in answer.text
    assert "org/fine-1.5:v2" in answer.text


def test_llm_serving_has_paths_for_each(fine):
    for name, adapter in (("llama2", ""), *zip(NAMES, NAMES, strict=True)):
        for way in ("", "/generate", "/generate_stream"):
            assert fine.http.post(f"/models/{name}{way}", json=LLM_SERVING).status_code == 200
            assert fine.peer.expect("submit")["adapter"] == adapter
        assert fine.http.post(f"/models/{name}", json=LLM_SERVING | {"stream": True}).text.count("\n") == 2
        fine.peer.expect("submit")
    assert fine.http.post("/models/plainer/generate", json=LLM_SERVING).status_code == 404
    assert fine.http.get("/models/llama2").status_code == 405


def test_models_are_listed_as_in_vllm(fine):
    listed = fine.http.get("/v1/models").json()["data"]
    told = [("tiny", "tiny", None), ("other", "tiny", None), *((name, name, "tiny") for name in NAMES)]
    assert [(one["id"], one["root"], one["parent"]) for one in listed] == told
    for name in NAMES:
        shown = fine.http.get(f"/v1/models/{name}").json()
        assert fine.http.get(f"/models/{name}").status_code == 405  # llm-serving's path
        assert (shown["id"], shown["parent"], shown["max_model_len"]) == (name, "tiny", DEFAULTS["max_length"])
    assert fine.http.get("/v1/models/llama2").json()["id"] == "tiny"
    assert fine.http.get("/v1/models/plainer").status_code == 404


def test_log_and_metrics_name_it(fine):
    name = NAMES[1]
    before = fine.metric("ringserve_adapter_requests_total", adapter=name)
    body = {"prompt": ["a", "b"], "n": 2, "max_tokens": 1, "model": name}
    assert fine.http.post("/v1/completions", json=body, headers={"x-request-id": "with"}).status_code == 200
    assert fine.http.post("/v1/completions", json=body | {"model": "tiny"}, headers={"x-request-id": "without"})
    assert json.loads(fine.front.log('"with"'))["adapter"] == name
    assert "adapter" not in json.loads(fine.front.log('"without"'))
    assert fine.metric("ringserve_adapter_requests_total", adapter=name) == before + 4
    lines = [line for line in fine.http.get("/metrics").text.splitlines() if "adapter_requests_total{" in line]
    assert len(lines) == len(NAMES)


def test_a_line_of_text_names_it(serve):
    served = serve(adapters=NAMES)
    served.complete("a", max_tokens=1, model="plain")
    assert " with plain: 5 prompt + 1 tokens" in served.front.log("request ")


def test_the_document_describes_their_paths():
    document = openapi_document(FrontSettings(**DEFAULTS, adapters=tuple(NAMES)), keys_needed=False)
    validate(document)
    posts = [document["paths"][f"/models/{{adapter}}{way}"]["post"] for way in ("", "/generate", "/generate_stream")]
    for post in posts:
        (parameter,) = [one for one in post["parameters"] if one["in"] == "path"]
        assert parameter["schema"]["enum"] == NAMES
    operations = [post["operationId"] for path in document["paths"].values() for post in path.values()]
    assert len(set(operations)) == len(operations)
    model = document["components"]["schemas"]["CompletionRequest"]["properties"]["model"]
    assert set(NAMES) < set(model["anyOf"][0]["enum"] if "anyOf" in model else model["enum"])
    assert "/models/{adapter}" not in openapi_document(FrontSettings(**DEFAULTS), keys_needed=False)["paths"]
