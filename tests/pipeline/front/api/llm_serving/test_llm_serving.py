"""llm-serving's API: golden answers, both stream protocols, sloppy spellings, refusals."""

from __future__ import annotations

import json

import pytest

from pipeline.front.api.llm_serving.answer import LlmServingWriter
from pipeline.front.http.errors import ApiError
from pipeline.wire.request import TOO_LONG

GENERATE = "/models/llama2/generate"
STREAM = "/models/llama2/generate_stream"


def token(i, text, *, special="false"):
    return f'{{"id": {100 + i}, "logprob": {-0.25 * (i + 1):.7g}, "special": {special}, "text": {text}}}'


def test_golden_generate(shared):
    answer = shared.generate("it was a", max_new_tokens=3)
    assert answer.headers["content-type"] == "application/json"
    first = token(0, '"it"')
    assert answer.text == (
        '{"generated_text": "it was a", "finish_reason": "length", "generated_tokens": 3, '
        f'"prefill": [{first}], "seed": 0, "tokens": [{first}, {token(1, json.dumps(" was"))}, '
        f'{token(2, json.dumps(" a"))}], "top_tokens": [[{first}]], "details": null}}\n'
    )


def test_golden_stream(shared):
    answer = shared.generate("it was", stream=True, max_new_tokens=2, return_full_text=True, seed=7)
    assert answer.headers["content-type"] == "text/event-stream"
    first, second = token(0, '"it"'), token(1, '" was"')

    def line(text, token):
        return (
            '{"event": "message", "retry": 30000, "data": {"details": null, '
            f'"generated_text": {text}, "tokens": {token}, "top_tokens": [{token}]}}}}\n'
        )

    last = (
        '{"event": "message", "retry": 30000, "data": {"details": null, "generated_text": "it was", '
        f'"finish_reason": "length", "generated_tokens": 2, "prefill": [{first}], "seed": 7, '
        f'"tokens": [{first}, {second}], "top_tokens": [[{first}]]}}}}\n'
    )
    assert answer.text == line('"it"', first) + line('" was"', second) + last


def test_golden_raw_protocol(shared):
    raw = shared.generate("it was", stream=True, max_new_tokens=2, return_protocol="raw", return_full_text="True")
    sse = shared.generate("it was", stream=True, max_new_tokens=2, return_full_text="True")
    assert all(line.startswith("data:{") for line in raw.text.splitlines())
    inside = [json.loads(line.removeprefix("data:")) for line in raw.text.splitlines()]
    assert inside == [json.loads(line)["data"] for line in sse.text.splitlines()]


@pytest.mark.parametrize("whole", [True, False])
def test_the_known_load_client(shared, whole):
    """What it sends, and how it reads: the last line with return_full_text, else all lines joined."""
    body = {
        "inputs": "to be or not",
        "parameters": {
            "max_new_tokens": 6, "do_sample": "False", "return_full_text": str(whole), "topk_k": 3, "top_k": 3,
            "top_p": 1, "temperature": 1.0, "return_protocol": "sse",
        },
        "stream": "True",
    }  # fmt: skip
    answer = shared.http.post("/models/llama2", json=body, headers={"Connection": "close"})
    texts = [json.loads(line)["data"]["generated_text"] for line in answer.iter_lines() if line]
    assert (texts[-1] if whole else "".join(texts)) == "to be or not to be"


@pytest.mark.parametrize(
    ("stream", "lines"), [(True, 4), ("True", 4), ("true", 4), (False, 1), ("False", 1), (None, 1)]
)
def test_the_model_route_obeys_stream(shared, stream, lines):
    body = {"inputs": "a b", "parameters": {"max_new_tokens": 4}, "stream": stream}
    assert len(shared.http.post("/models/llama2", json=body).text.splitlines()) == lines


@pytest.mark.parametrize(("reason", "said"), [("length", "length"), ("eos", "eos"), ("stop", "stop")])
def test_finish_reasons(shared, reason, said):
    answer = shared.generate(f"a b @after=3 @reason={reason}", max_new_tokens=50).json()
    assert (answer["finish_reason"], answer["generated_tokens"]) == (said, 3)


def test_a_token_without_text_is_special(shared):
    tokens = shared.generate("_ b", max_new_tokens=2).json()["tokens"]
    assert [(token["text"], token["special"]) for token in tokens] == [("", True), (" b", False)]


@pytest.mark.parametrize(
    "text", ["naïve", "日本語", "🦙", '"quoted"', "back\\slash", "%d%s%%", "tab\t", "line\nbreak", "\u2028"]
)
def test_text_survives(shared, text):
    lines = shared.generate(text, stream=True, max_new_tokens=1, return_full_text=True).text.split("\n")[:-1]
    assert [json.loads(line)["data"]["generated_text"] for line in lines] == [text, text]
    assert shared.generate(text, max_new_tokens=1).json()["generated_text"] == text


def test_defaults(shared):
    shared.http.post(GENERATE, json={"inputs": "defaults @after=1"})
    seen = shared.submitted("defaults @after=1")
    wanted: dict[str, object] = {
        "max_tokens": 300,
        "temperature": 0.0,
        "top_k": 0,
        "top_p": 1.0,
        "stop": [],
        "logprobs": 0,
    }
    assert {key: seen[key] for key in wanted} == wanted
    assert seen["seed"] is None  # the most probable token needs none


def test_a_seed_is_drawn_where_one_is_needed(shared):
    """Whoever computes the request again, after a death, must draw the same tokens."""
    shared.generate("drawing", do_sample=True, max_new_tokens=1)
    assert shared.submitted("drawing")["seed"] >= 0


def test_parameters_arrive(shared):
    parameters = {
        "do_sample": "True", "temperature": 0.5, "top_p": 0.9, "seed": 11, "stop": ["x", "yz"], "max_new_tokens": 2,
        "topk_k": 5, "ignore_eos": True,
    }  # fmt: skip
    shared.generate("arriving", **parameters)
    seen = shared.submitted("arriving")
    wanted = {"temperature": 0.5, "top_p": 0.9, "seed": 11, "stop": ["x", "yz"], "top_k": 5, "ignore_eos": True}
    assert {key: seen[key] for key in wanted} == wanted


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"temperature": -1}, "temperature"), ({"temperature": "hot"}, "temperature"), ({"top_p": -0.1}, "top_p"),
        ({"top_p": 1.1}, "top_p"), ({"top_k": -2}, "top_k"), ({"top_k": 1.5}, "top_k"), ({"top_k": True}, "top_k"),
        ({"max_new_tokens": 0}, "max_new_tokens"), ({"max_new_tokens": 1.5}, "max_new_tokens"),
        ({"max_new_tokens": "9"}, "max_new_tokens"), ({"do_sample": "yes"}, "do_sample"), ({"stop": [""]}, "stop"),
        ({"stop": [1]}, "stop"), ({"seed": 1 << 70}, "seed"), ({"seed": 1.5}, "seed"), ({"min_new_tokens": -1},
        "min_new_tokens"),
        ({"repetition_penalty": 0}, "repetition_penalty"), ({"presence_penalty": 3}, "presence_penalty"),
        ({"return_protocol": "xml"}, "return_protocol"), ({"details": 1}, "details"), ({"truncate": 5},
        "truncate"),
        ({"typical_p": 0.5}, "typical_p"), ({"watermark": True}, "watermark"), ({"top_n_tokens": 2},
        "top_n_tokens"),
        ({"decoder_input_details": "no"}, "decoder_input_details"), ({"stop_token_ids": [1000]}, "stop_token_ids"),
        ({"temprature": 1}, "temprature"), ({"top_k": 4, "topk_k": 5}, "topk_k"),
    ],
)  # fmt: skip
def test_a_parameter_is_honoured_or_refused(shared, parameters, name):
    answer = shared.generate("x", **parameters)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["type"]) == (422, name, "invalid_request_error")
    assert name in error["message"]


def test_an_unknown_parameter_is_answered_with_the_nearest(shared):
    assert "did you mean 'temperature'" in shared.generate("x", temprature=1).json()["error"]["message"]


@pytest.mark.parametrize(
    "parameters",
    [
        {"temperature": 0, "do_sample": True}, {"top_p": 1}, {"top_k": 0}, {"top_k": 1 << 40},
        {"max_new_tokens": 4096},
        {"details": False, "truncate": None, "typical_p": 1.0, "watermark": False, "top_n_tokens": None},
    ],
)  # fmt: skip
def test_legal_extremes(shared, parameters):
    assert shared.generate("x @after=1", **parameters).status_code == 200


@pytest.mark.parametrize(
    ("body", "name"),
    [({}, "inputs"), ({"inputs": 5}, "inputs"), ({"inputs": "x", "parameters": []}, "parameters"),
     ({"inputs": "x", "stream": "maybe"}, "stream"), ({"inputs": "x", "extra": 1}, "extra")],
)  # fmt: skip
def test_what_is_wrong_with_a_body(shared, body, name):
    answer = shared.http.post(GENERATE, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, name)


@pytest.mark.parametrize(
    ("directive", "kind"),
    [("@refuse=400:prompt", "prompt_out_of_range"), ("@refuse=400:prompt @empty", "prompt_token_ids_empty")],
)
@pytest.mark.parametrize("stream", [True, False])
def test_faults_of_the_prompt_have_llm_servings_names(shared, directive, kind, stream):
    answer = shared.generate(directive, stream=stream)
    assert (answer.status_code, answer.json()["error"]["type"], answer.json()["error"]["param"]) == (
        422,
        kind,
        "inputs",
    )


def test_of_an_error_nothing_but_its_name_changes():
    writer = LlmServingWriter(raw=False, whole_at_end=False, seed=0)
    told = writer.translate(ApiError(400, "x", parameter="prompt", code=TOO_LONG, headers=((b"a", b"b"),)))
    assert (told.status, told.kind, told.parameter) == (422, "prompt_out_of_range", "inputs")
    assert (told.code, told.headers) == (TOO_LONG, ((b"a", b"b"),))


def test_max_tokens_is_named_as_the_client_wrote_it(shared):
    error = shared.generate("@refuse=400:max_tokens").json()["error"]
    assert (error["param"], error["type"]) == ("max_new_tokens", "invalid_request_error")


def test_a_model_that_fails(shared):
    assert shared.generate("a @after=1 @reason=failed").status_code == 500
    answer = shared.generate("a b @after=3 @reason=failed", stream=True, max_new_tokens=9, return_full_text=True)
    lines = [json.loads(line)["data"] for line in answer.text.splitlines()]
    assert [line["generated_text"] for line in lines] == ["a", " b", ""]
    assert lines[-1]["finish_reason"] == "predict_failed"
    assert "not finite" in lines[-1]["error"]["message"]


def test_another_model_is_404_and_lists_the_served_ones(shared):
    for path in ("/models/gpt/generate", "/models/gpt", "/models/llama2/else"):
        answer = shared.http.post(path, json={"inputs": "x"})
        assert answer.status_code == 404
        assert "llama2" in answer.json()["error"]["message"]


def test_serving_routes(shared):
    shared.obey("numbers")
    assert shared.http.get("/serving/get_bs").json() == {"event": "message", "retry": 30000, "data": 13}
    assert shared.http.get("/serving/get_request_numbers").json() == {"event": "message", "retry": 30000, "data": 12}
    info = shared.http.get("/serving/get_serverd_model_info").json()
    assert list(info) == [
        "docker_label", "max_batch_total_tokens", "max_concurrent_requests", "max_input_length", "max_total_tokens",
        "model_device_type", "model_dtype", "model_id", "model_pipeline_tag", "version",
    ]  # fmt: skip
    assert (info["model_pipeline_tag"], info["max_total_tokens"]) == ("text-generation", 4096)


def test_without_logprobs(serve):
    served = serve(llm_serving_logprobs=False)
    assert [token["logprob"] for token in served.generate("a b", max_new_tokens=2).json()["tokens"]] == [None, None]
    assert served.peer.expect("submit")["logprobs"] is None


def test_the_prompt_s_tokens_are_in_the_answer_or_in_a_stream_s_last_line(shared):
    asked = {"max_new_tokens": 2, "decoder_input_details": "True"}
    whole = shared.generate("x", **asked).json()
    assert [token["id"] for token in whole["prefill"]] == [9, 10, 11, 12, 13]
    assert [token["logprob"] for token in whole["prefill"]] == [None, -0.5, -1, -1.5, -2]
    assert whole["details"] is None
    lines = shared.generate("x", stream=True, return_full_text=True, details=True, **asked).text.splitlines()
    last = json.loads(lines[-1])["data"]
    assert last["prefill"] == last["details"]["prefill"] == whole["prefill"]
    assert json.loads(lines[0])["data"]["details"] is None
    refused = shared.generate("x", stream=True, **asked)
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "decoder_input_details")
    assert "return_full_text" in refused.json()["error"]["message"]


@pytest.mark.parametrize(("reason", "said"), [("length", "length"), ("eos", "eos_token"), ("stop", "stop_sequence")])
def test_details_have_the_names_of_text_generation_inference(shared, reason, said):
    details = shared.generate(f"x @after=2 @reason={reason}", details=True).json()["details"]
    assert (details["finish_reason"], details["generated_tokens"], details["prefill"]) == (said, 2, [])
    assert len(details["tokens"]) == 2
