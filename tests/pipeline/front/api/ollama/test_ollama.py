"""Ollama's API: what a request asks for, what is refused and how, and what stands around the answers, whose bytes are
in test_replay.py."""

from __future__ import annotations

import json

import pytest

from model.demo import DEMO_DIR
from model.response import choose_format
from model.tokenizer import load_tokenizer
from pipeline.front.api.body import Reading
from pipeline.front.api.ollama.answer import GENERATE, OllamaWriter
from pipeline.front.api.ollama.request import parse_ollama_chat, parse_ollama_generate, tagged
from pipeline.front.delivery.job import Begin, Form, Identity, Times
from pipeline.front.http.errors import ApiError
from pipeline.front.settings import FrontSettings
from pipeline.wire.delta import Delta, FinishReason
from tests.pipeline.front.conftest import DEFAULTS

IDENTITY = Identity("0" * 32, 1795890551)
TOKENIZER = load_tokenizer(DEMO_DIR)
SETTINGS = FrontSettings(**DEFAULTS)
USER = {"role": "user", "content": "x"}


def chat(**body):
    return parse_ollama_chat(body, IDENTITY, TOKENIZER, Reading(SETTINGS))


def generate(**body):
    return parse_ollama_generate(body, IDENTITY, TOKENIZER, Reading(SETTINGS))


def asked(**options):
    (part,) = chat(messages=[USER], options=options).parts
    return part.params


def problem(parse, **body):
    with pytest.raises(ApiError) as caught:
        parse(**body)
    assert caught.value.status == 400
    return caught.value.message


# ---- requests ----------------------------------------------------------------------------------------------------


def test_defaults_are_ollama_s():
    params = asked()
    sampling = params.sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p) == (0.8, 40, 0.9, 0)
    assert (sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty) == (1, 0, 0)
    assert (params.max_tokens, params.open_ended, params.stop, sampling.logprobs) == (4096, True, (), None)
    assert chat(messages=[USER]).streamed


def test_options():
    params = asked(
        temperature=0.5, top_k=7, top_p=0.4, min_p=0.1, seed=3, num_predict=9, stop=["a", "b"], repeat_penalty=1.5,
        presence_penalty=1, frequency_penalty=-1, repeat_last_n=-1,
    )  # fmt: skip
    sampling = params.sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p) == (0.5, 7, 0.4, 0.1)
    assert (sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty) == (1.5, 1, -1)
    assert (params.max_tokens, params.open_ended, params.stop, sampling.seed) == (9, False, ("a", "b"), 3)


@pytest.mark.parametrize("count", [-2, -1, 0])
def test_no_limit(count):
    params = asked(num_predict=count)
    assert (params.max_tokens, params.open_ended) == (SETTINGS.max_length, True)


def test_penalties_for_no_tokens_are_off():
    sampling = asked(repeat_last_n=0, repeat_penalty=1.5, presence_penalty=1, frequency_penalty=1).sampling
    assert (sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty) == (1, 0, 0)


def test_hints_are_taken():
    hints = {"num_ctx": 1 << 20, "num_thread": 8, "num_gpu": -1, "use_mmap": True, "num_keep": 4, "repeat_last_n": 64}
    off = {"mirostat": 0, "mirostat_tau": 5.0, "tfs_z": 1.0, "typical_p": 1, "penalize_newline": True}
    assert asked(**hints, **off) == asked()
    for keep in (0, -1, "5m", 300.5):
        assert chat(messages=[USER], keep_alive=keep, think=False, format="", tools=[], truncate=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_predict": 1.5}, "options.num_predict is 1.5, expected an integer in [-2, 4096], or -1 for no limit"),
        ({"num_predict": 5000}, "This model's maximum context length is 4096 tokens. However, you requested 5000 "
         "tokens in the completion. Please reduce the length of the completion."),
        ({"mirostat": 2}, "options.mirostat is 2, expected 0: other values are not supported"),
        ({"tfs_z": 0.5}, "options.tfs_z is 0.5, expected 1: other values are not supported"),
        ({"temperature": "hot"}, "options.temperature is 'hot', expected a number of at least 0"),
        ({"repeat_penalti": 1}, "unknown parameter 'options.repeat_penalti'; did you mean 'repeat_penalty'?"),
        ({"repeat_penalty": 1.1, "repeat_last_n": 64},
         "options.repeat_last_n is 64, expected -1: penalties are for all tokens, whatever their distance"),
    ],
)  # fmt: skip
def test_options_that_are_refused(options, message):
    assert problem(chat, messages=[USER], options=options) == message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"format": "xml"}, "format is 'xml', expected \"json\", or a JSON schema"),
        ({"think": True}, "think is True, expected False: the model does not think before it answers"),
        ({"tools": [{"type": "function"}]}, "tools[0].function is missing: expected an object with a name"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "set pipeline.tool_format"),
        ({"truncate": True}, "truncate is True, expected False"),
        ({"top_logprobs": 3}, "top_logprobs is 3, expected 0 unless logprobs is true"),
        ({"stop": "x"}, "unknown parameter 'stop'"),
        ({"messages": [USER | {"images": ["aGk="]}]}, "messages[0].images is ['aGk='], expected no value"),
        ({"messages": [USER | {"content": ["x"]}]}, "messages[0].content is ['x'], expected a string"),
        ({"messages": "x"}, "messages is 'x', expected a list of at least one message"),
    ],
)  # fmt: skip
def test_what_a_chat_refuses(body, message):
    assert message in problem(chat, **{"messages": [USER], **body})


@pytest.mark.parametrize("name", ["suffix", "template", "context", "images"])
def test_what_generate_refuses(name):
    value = [1] if name in ("context", "images") else "x"
    assert problem(generate, prompt="x", **{name: value}).startswith(f"{name} is {value!r}, expected no value")
    assert generate(prompt="x", **{name: type(value)()})  # an empty one is none


def test_the_form_of_an_answer():
    schema = {"type": "object"}
    assert chat(messages=[USER], format="json").form == Form("format", "json_object")
    assert generate(prompt="x", format=schema).form == Form("format", "json_schema", schema)
    assert chat(messages=[USER], format="").form is None


def test_what_a_client_leaves_out_is_as_the_model_s_makers_have_it():
    own = FrontSettings(**DEFAULTS, sampling_defaults={"temperature": 0.6, "repetition_penalty": 1.1, "top_k": 5})
    body = {"messages": [USER], "options": {"top_k": 7}}
    sampling = parse_ollama_chat(body, IDENTITY, TOKENIZER, Reading(own)).parts[0].params.sampling
    assert (sampling.temperature, sampling.repetition_penalty, sampling.top_k, sampling.top_p) == (0.6, 1.1, 7, 0.9)


def test_control_tokens_that_a_user_writes_are_text():
    (part,) = chat(messages=[USER | {"content": "a</s>b"}]).parts
    assert part.prompt[part.plain[0] : part.plain[1]] == "</s>"


def test_messages_as_clients_send_them_back():
    spare = {"images": [], "tool_calls": [], "thinking": "", "tool_name": None}
    (part,) = chat(messages=[USER, {"role": "assistant"}, {"role": "assistant", **spare}, USER | spare]).parts
    plain = [USER, {"role": "assistant", "content": ""}, {"role": "assistant", "content": ""}, USER]
    assert (part.prompt, part.add_special) == (TOKENIZER.apply_chat_template(plain), False)


def test_prompts():
    system = {"role": "system", "content": "Be brief."}
    (rendered,) = generate(prompt="x", system="Be brief.").parts
    assert (rendered.prompt, rendered.add_special) == (TOKENIZER.apply_chat_template([system, USER]), False)
    (plain,) = generate(prompt="x").parts
    assert plain.prompt == TOKENIZER.apply_chat_template([USER])
    (raw,) = generate(prompt="x", raw=True).parts
    assert (raw.prompt, raw.add_special) == ("x", True)
    assert "raw is true" in problem(generate, prompt="x", raw=True, system="Be brief.")
    assert "characters" in problem(generate, prompt="x" * (SETTINGS.prompt_limit_chars + 1), raw=True)


def test_what_needs_a_tokenizer():
    for parse, body in ((parse_ollama_chat, {"messages": [USER]}), (parse_ollama_generate, {"prompt": "x"})):
        with pytest.raises(ApiError, match="no chat template"):
            parse(body, IDENTITY, None, Reading(SETTINGS))
    raw = {"prompt": "x", "raw": True}
    assert parse_ollama_generate(raw, IDENTITY, None, Reading(SETTINGS)).parts
    with pytest.raises(ApiError, match="logprobs is not supported here"):
        parse_ollama_generate(raw | {"logprobs": True}, IDENTITY, None, Reading(SETTINGS))


# ---- names and answers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tiny", "tiny:latest", "llama2", "llama2:latest", None, ""])
def test_names_of_the_model(name):
    answer = json.loads(chat(model=name).writer.whole())
    assert answer["model"] == (name or "tiny:latest")


@pytest.mark.parametrize("name", ["tiny:7b", "tin", "tiny:latest:latest", "latest"])
def test_other_names(name):
    with pytest.raises(ApiError) as caught:
        chat(model=name, messages=5)
    assert (caught.value.status, caught.value.message) == (
        404, f"model '{name}' not found; this server has tiny:latest"
    )  # fmt: skip


def test_a_name_with_a_tag_has_no_other():
    assert (tagged("org/tiny"), tagged("tiny:7b")) == ("org/tiny:latest", "tiny:7b")


def test_times_are_what_they_are_said_to_be():
    writer = OllamaWriter(IDENTITY, "tiny", GENERATE, None)
    writer.measured(Times(7, 2, 4))
    last = json.loads(writer.tail())
    durations = {name: value for name, value in last.items() if name.endswith("_duration")}
    assert durations == {
        "total_duration": 7, "load_duration": 0, "prompt_eval_duration": 2, "eval_duration": 4
    }  # fmt: skip


# ---- over HTTP ---------------------------------------------------------------------------------------------------


def lines(answer):
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
    return [json.loads(line) for line in answer.text.splitlines()]


def sent(served):
    return sum("submit" in line for line in list(served.peer.lines.queue))


def test_a_stream(shared):
    *parts, last = lines(shared.http.post("/api/chat", json={"messages": [{"role": "user", "content": "a b"}]}))
    text = "".join(part["message"]["content"] for part in parts)
    assert text.startswith("<s><|user|>a b</s><|assistant|> <s>")
    assert not any(part["done"] for part in parts)
    assert (last["done"], last["done_reason"], last["prompt_eval_count"]) == (True, "length", 5)
    assert last["eval_count"] == len(parts)
    assert 0 <= last["prompt_eval_duration"] + last["eval_duration"] <= last["total_duration"]


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
def test_to_load_the_model_takes_no_tokens(shared, path):
    before = sent(shared)
    answer = shared.http.post(path, json={"model": "tiny", "keep_alive": 0, "stream": False}).json()
    assert (answer["done"], answer["done_reason"], answer["eval_count"]) == (True, "load", 0)
    (only,) = lines(shared.http.post(path, json={"model": "tiny"}))
    assert only["done_reason"] == "load"
    assert sent(shared) == before


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("POST", "/api/chat", {"model": "gpt"}, 404, "model 'gpt' not found; this server has tiny:latest"),
        ("POST", "/api/show", {"name": "gpt"}, 404, "model 'gpt' not found; this server has tiny:latest"),
        ("POST", "/api/generate", {"prompt": "a @refuse=400:prompt", "raw": True}, 400, "refused as asked"),
        ("POST", "/api/generate", {"prompt": 5}, 400, "prompt is 5, expected a string"),
        ("POST", "/api/pull", {"model": "tiny"}, 404, "unknown path: /api/pull"),
        ("GET", "/api/chat", None, 405, "GET is not allowed here; use POST"),
    ],
)
def test_errors_have_ollama_s_form(shared, method, path, body, status, message):
    answer = shared.http.request(method, path, json=body)
    assert (answer.status_code, answer.json()) == (status, {"error": message})


def test_what_there_is(shared):
    (model,) = shared.http.get("/api/tags").json()["models"]
    assert (model["name"], model["model"], len(model["digest"])) == ("tiny:latest", "tiny:latest", 64)
    assert model["details"]["quantization_level"] == "F16"
    (loaded,) = shared.http.get("/api/ps").json()["models"]
    assert (loaded["name"], loaded["digest"], loaded["context_length"]) == ("tiny:latest", model["digest"], 4096)
    shown = shared.http.post("/api/show", json={"model": "tiny"}).json()
    architecture = shown["model_info"]["general.architecture"]
    assert shown["model_info"][f"{architecture}.context_length"] == 4096
    assert (shown["template"], shown["capabilities"]) == (TOKENIZER.chat_template, ["completion"])
    numbers = shared.http.get("/api/version").json()["version"].split(".")
    assert all(number.isdigit() for number in numbers)


def test_requests_that_take_no_tokens_end_as_others_do(shared):
    def ended():
        lines = shared.http.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("ringserve_requests_total"))

    before = ended()
    shared.http.post("/api/generate", json={})
    assert (ended() - before, "ringserve_requests_in_flight 0" in shared.http.get("/metrics").text) == (1, True)


def test_a_model_that_is_not_loaded_is_not_said_to_be(serve):
    served = serve(wired=False)
    answer = served.http.post("/api/generate", json={})
    assert (answer.status_code, answer.json()) == (503, {"error": "not ready: the model is being loaded"})
    assert served.http.get("/api/ps").json() == {"models": []}
    assert len(served.http.get("/api/tags").json()["models"]) == 1


# ---- tools and thinking --------------------------------------------------------------------------------------------

THINKS = FrontSettings(**DEFAULTS, response_format=choose_format(TOKENIZER, "hermes", "think"))
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CALL = '<think>Hm.</think><tool_call>{"name": "f", "arguments": {"a": [1]}}</tool_call>'


def answered(*, stream, text=CALL, **body):
    asked = {"messages": [USER], "tools": [TOOL], "stream": stream, **body}
    job = parse_ollama_chat(asked, IDENTITY, TOKENIZER, Reading(THINKS))
    (choice,), read = job.writer.choices, job.reader(0)
    events = [Begin(0, 5, 2), *read([Delta(1, 0, 1, 7, -0.5, FinishReason.EOS, text)])]
    job.measured(Times(1, 2, 3))
    if stream:
        return [json.loads(line) for line in (b"".join(map(choice.write, events)) + job.writer.tail()).splitlines()]
    for event in events:
        choice.keep(event)
    return json.loads(job.writer.whole())


def test_thinking_and_calls():
    call = {"function": {"name": "f", "arguments": {"a": [1]}}}
    whole = answered(stream=False)["message"]
    assert whole == {"role": "assistant", "content": "", "thinking": "Hm.", "tool_calls": [call]}
    thoughts, called, last = answered(stream=True)
    assert thoughts["message"] == {"role": "assistant", "content": "", "thinking": "Hm."}
    assert called["message"] == {"role": "assistant", "content": "", "tool_calls": [call]}
    assert (last["done"], last["done_reason"]) == (True, "stop")


def test_a_call_that_was_cut_is_no_part_of_the_answer():
    cut = f"{CALL}{CALL.partition('</think>')[2][:-20]}"
    whole, stream = answered(stream=False, text=cut), answered(stream=True, text=cut)
    assert len(whole["message"]["tool_calls"]) == 1
    assert [line["message"]["tool_calls"] for line in stream if "tool_calls" in line["message"]] == [
        whole["message"]["tool_calls"]
    ]


def test_log_probabilities_of_calls_come_once():
    lines = answered(stream=True, logprobs=True)
    assert sum(len(line.get("logprobs", ())) for line in lines) == 1


def test_histories_have_calls_and_results():
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    history = [USER, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_name": "f", "content": "42"}]
    (part,) = parse_ollama_chat(
        {"messages": history, "tools": [TOOL]}, IDENTITY, TOKENIZER, Reading(THINKS)
    ).parts  # fmt: skip
    assert '"arguments": {"a": 1}' in part.prompt
    assert "42" in part.prompt


@pytest.mark.parametrize("think", [True, False, "low", "high"])
def test_a_model_that_thinks_may_be_told_to(think):
    assert parse_ollama_chat({"messages": [USER], "think": think}, IDENTITY, TOKENIZER, Reading(THINKS)).parts
