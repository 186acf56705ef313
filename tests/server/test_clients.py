"""The clients that people have, against a whole server: nothing is changed but the address.

The server computes on an emulated device, whose every greedy token is known beforehand.
"""

from __future__ import annotations

import asyncio
import json

import anthropic
import openai
import pytest
import requests

from tests.server.launched import Launched

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "What is a ring?"}]},
]
PLAIN = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is a ring?"}]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Launched(tmp_path_factory.mktemp("clients"), ("model_config.model_name=org/emulated",))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=server.base + "/v1", api_key="none", max_retries=0) as client:
        yield client


def chat_text(server, count):
    ids = server.tokenizer.encode(server.tokenizer.apply_chat_template(PLAIN), add_special=False)
    return server.text(ids, count)


# ---- the official client of OpenAI's API --------------------------------------------------------------------


def test_models(client, server):
    assert [model.id for model in client.models.list()] == ["org/emulated"]
    model = client.models.retrieve("org/emulated")
    assert (model.object, model.owned_by, model.max_model_len) == ("model", "ringserve", 512)


def test_completions(client, server):
    answer = client.completions.create(
        model="org/emulated", prompt=["What is a ring?", "Tell me"], n=2, max_tokens=12, temperature=0
    )
    expected = [server.text(prompt, 12) for prompt in ("What is a ring?", "Tell me")]
    assert [(choice.index, choice.text) for choice in answer.choices] == list(
        enumerate([expected[0]] * 2 + [expected[1]] * 2)
    )
    assert {choice.finish_reason for choice in answer.choices} == {"length"}
    prompts = sum(len(server.tokenizer.encode(prompt)) for prompt in ("What is a ring?", "Tell me"))
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (prompts, 48)
    assert answer.object == "text_completion"


def test_completions_of_token_ids(client, server):
    ids = server.tokenizer.encode("What is a ring?")
    answer = client.completions.create(model="org/emulated", prompt=ids, max_tokens=7, temperature=0, echo=True)
    assert answer.choices[0].text == "What is a ring?" + server.text("What is a ring?", 7)
    assert answer.usage.prompt_tokens == len(ids)


def test_streamed_completions(client, server):
    stream = client.completions.create(
        model="org/emulated", prompt=["What is a ring?", "Tell me"], max_tokens=12, temperature=0, stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    texts, usage, reasons = {0: "", 1: ""}, None, {}
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            reasons[choice.index] = choice.finish_reason
    assert texts == {0: server.text("What is a ring?", 12), 1: server.text("Tell me", 12)}
    assert usage.completion_tokens == 24
    assert reasons == {0: "length", 1: "length"}


def test_log_probabilities(client, server):
    answer = client.completions.create(
        model="org/emulated", prompt="What is a ring?", max_tokens=5, temperature=0, logprobs=3
    )
    logprobs = answer.choices[0].logprobs
    ids = server.expected("What is a ring?", 5)
    assert logprobs.tokens == [server.tokenizer.token_text(token) for token in ids]
    assert all(token in best for token, best in zip(logprobs.tokens, logprobs.top_logprobs, strict=True))
    assert all(value <= 0 for value in logprobs.token_logprobs)


def test_chat(client, server):
    answer = client.chat.completions.create(model="org/emulated", messages=MESSAGES, max_tokens=12, temperature=0)
    ids = server.tokenizer.encode(server.tokenizer.apply_chat_template(PLAIN), add_special=False)
    message = answer.choices[0].message
    assert (message.role, message.content, message.tool_calls) == ("assistant", chat_text(server, 12), None)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(ids), 12)
    history = [*MESSAGES, message, {"role": "user", "content": "And now?"}]
    again = client.chat.completions.create(model="org/emulated", messages=history, max_tokens=3, temperature=0)
    assert again.usage.prompt_tokens > len(ids) + 12


def test_streamed_chat(client, server):
    stream = client.chat.completions.create(
        model="org/emulated", messages=MESSAGES, max_completion_tokens=12, temperature=0, stream=True, n=2,
        stream_options={"include_usage": True}, logprobs=True, top_logprobs=2,
    )  # fmt: skip
    texts, roles, tokens, usage = {0: "", 1: ""}, [], 0, None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            roles += [choice.delta.role] if choice.delta.role else []
            tokens += len(choice.logprobs.content) if choice.logprobs else 0
    assert texts == {0: chat_text(server, 12), 1: chat_text(server, 12)}
    assert (roles, tokens, usage.completion_tokens) == (["assistant"] * 2, 24, 24)


def test_the_client_s_own_helper_for_streams(client, server):
    """It insists on an end that is not the limit's."""
    text = chat_text(server, 20)
    stop = text[len(text) // 2 :][:4]
    with client.chat.completions.stream(
        model="org/emulated", messages=MESSAGES, temperature=0, stop=stop, stream_options={"include_usage": True}
    ) as stream:
        streamed = "".join(event.delta for event in stream if event.type == "content.delta")
        final = stream.get_final_completion()
    assert streamed == final.choices[0].message.content == text[: text.index(stop)]
    assert final.choices[0].finish_reason == "stop"
    assert final.usage.completion_tokens > 0


def test_parameters_that_vllm_adds(client, server):
    """top_k 1 is the best token at any temperature."""
    extra = {"top_k": 1, "min_p": 0.0, "repetition_penalty": 1.0, "ignore_eos": True, "min_tokens": 4}
    answer = client.completions.create(
        model="org/emulated", prompt="Tell me", max_tokens=8, temperature=1, extra_body=extra
    )
    assert answer.choices[0].text == server.text("Tell me", 8)
    stop = server.expected("Tell me", 8)[4]
    answer = client.completions.create(
        model="org/emulated", prompt="Tell me", max_tokens=8, temperature=0, extra_body={"stop_token_ids": [stop]}
    )
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("stop", 5)


def test_stop_strings(client, server):
    text = server.text("Tell me", 20)
    stop = text[len(text) // 2 :][:4]
    for include in (False, True):
        answer = client.completions.create(
            model="org/emulated", prompt="Tell me", max_tokens=20, temperature=0, stop=stop,
            extra_body={"include_stop_str_in_output": include},
        )  # fmt: skip
        end = text.index(stop) + (len(stop) if include else 0)
        assert (answer.choices[0].text, answer.choices[0].finish_reason) == (text[:end], "stop")


def test_choices_are_drawn_with_seeds_of_their_own(client):
    def texts(seed, n):
        answer = client.completions.create(model="org/emulated", prompt="Tell me", max_tokens=12, seed=seed, n=n)
        return [choice.text for choice in answer.choices]

    three = texts(11, 3)
    assert len(set(three)) == 3
    assert three == texts(11, 1) + texts(12, 1) + texts(13, 1)


def test_errors(client):
    with pytest.raises(openai.NotFoundError) as unknown:
        client.completions.create(model="gpt-4", prompt="x")
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model="org/emulated", messages=MESSAGES, temperature=-1)
    assert (wrong.value.param, wrong.value.type) == ("temperature", "invalid_request_error")
    assert wrong.value.request_id == wrong.value.response.headers["x-request-id"]
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model="org/emulated", messages=[{"role": "user", "content": "word " * 500}])
    assert (long.value.code, long.value.param) == ("context_length_exceeded", "messages")
    with pytest.raises(openai.BadRequestError, match="other tools are not supported"):
        client.chat.completions.create(model="org/emulated", messages=MESSAGES, tools=[{"type": "web_search"}])


TOOLS = [
    {"type": "function", "function": {"name": "add", "strict": True, "parameters": {
        "type": "object", "properties": {"a": {"enum": [1, 2]}, "b": {"enum": [3]}}, "required": ["a", "b"],
        "additionalProperties": False}}},
    {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {},
                                                                      "additionalProperties": False}}},
]  # fmt: skip


def test_a_tool_is_called_and_answered(client):
    pytest.importorskip("llguidance")
    asked = {"model": "org/emulated", "tools": TOOLS, "seed": 3, "max_tokens": 100, "parallel_tool_calls": False}
    answer = client.chat.completions.create(messages=MESSAGES, tool_choice="required", **asked).choices[0]
    assert (answer.finish_reason, answer.message.content) == ("tool_calls", None)
    for call in answer.message.tool_calls:
        arguments = json.loads(call.function.arguments)
        assert arguments == {} if call.function.name == "clock" else arguments.keys() == {"a", "b"}
    results = [{"role": "tool", "tool_call_id": call.id, "content": "4"} for call in answer.message.tool_calls]
    history = [*MESSAGES, answer.message, *results]
    text = client.chat.completions.create(messages=history, tool_choice="none", **asked).choices[0]
    assert text.message.content
    assert not text.message.tool_calls


def test_a_named_tool_is_called_in_a_stream(client):
    pytest.importorskip("llguidance")
    named = {"type": "function", "function": {"name": "add"}}
    with client.chat.completions.stream(
        model="org/emulated", messages=MESSAGES, tools=TOOLS, tool_choice=named, max_tokens=100
    ) as stream:
        kinds = [event.type for event in stream]
    (call,) = stream.get_final_completion().choices[0].message.tool_calls
    assert call.function.name == "add"
    assert call.function.parsed_arguments.keys() == {"a", "b"}
    assert "tool_calls.function.arguments.delta" in kinds


def test_request_names(client):
    answer = client.completions.create(
        model="org/emulated", prompt="x", max_tokens=1, extra_headers={"x-request-id": "mine"}
    )
    assert answer._request_id == "mine"


def test_limits_of_the_model(client):
    """512 tokens are a sequence, 400 a prompt: what fits exactly is served, one more is not."""
    prompt = [5] * 400
    full = client.completions.create(model="org/emulated", prompt=prompt, max_tokens=112, temperature=2)
    assert full.usage.total_tokens == 512
    with pytest.raises(openai.BadRequestError) as more:
        client.completions.create(model="org/emulated", prompt=prompt, max_tokens=113)
    assert (more.value.param, more.value.code) == ("max_tokens", "context_length_exceeded")
    with pytest.raises(openai.BadRequestError) as longer:
        client.completions.create(model="org/emulated", prompt=[*prompt, 5], max_tokens=1)
    assert longer.value.param == "prompt"
    open_ended = client.chat.completions.create(model="org/emulated", messages=MESSAGES, temperature=0)
    assert open_ended.usage.total_tokens == 512


def test_the_asynchronous_client(server):
    async def whole(client, i):
        answer = await client.completions.create(
            model="org/emulated", prompt=f"client {i}", max_tokens=9, temperature=0
        )
        return answer.choices[0].text

    async def streamed(client, i):
        stream = await client.completions.create(
            model="org/emulated", prompt=f"client {i}", max_tokens=9, temperature=0, stream=True
        )
        return "".join([chunk.choices[0].text async for chunk in stream])

    async def everybody():
        async with openai.AsyncOpenAI(base_url=server.base + "/v1", api_key="none", max_retries=0) as client:
            return await asyncio.gather(*[(whole, streamed)[i % 2](client, i) for i in range(24)])

    assert asyncio.run(everybody()) == [server.text(f"client {i}", 9) for i in range(24)]


# ---- llm-serving's clients ----------------------------------------------------------------------------------


def load_client(server, prompt, count, *, whole):
    """As the known load client asks and reads."""
    body = {
        "inputs": prompt,
        "parameters": {
            "max_new_tokens": count, "do_sample": "False", "return_full_text": str(whole), "topk_k": 3, "top_k": 3,
            "top_p": 1, "temperature": 1.0, "return_protocol": "sse",
        },
        "stream": "True",
    }  # fmt: skip
    headers = {"Content-Type": "application/json", "Connection": "close"}
    url = server.base + "/models/llama2/generate_stream"
    with requests.post(url, json.dumps(body), headers=headers, stream=True, timeout=60) as answer:
        assert answer.headers["connection"] == "close"
        texts = [json.loads(line)["data"]["generated_text"] for line in answer.iter_lines() if line]
    return texts[-1] if whole else "".join(texts)


@pytest.mark.parametrize("whole", [True, False])
def test_the_known_load_client(server, whole):
    assert load_client(server, "What is a ring?", 20, whole=whole) == server.text("What is a ring?", 20)


def test_mindspore_inference_client(server):
    """Its documented calls: `generate`, and `generate_stream`, which reads lines that begin with ``data:``."""
    parameters = {
        "do_sample": False, "repetition_penalty": 1.0, "temperature": 1.0, "top_k": 1, "top_p": 1,
        "max_new_tokens": 30, "return_full_text": None,
    }  # fmt: skip
    headers = {"user-agent": "mindspoer_serving/1.0", "authorization": "Bearer none"}
    url, expected = server.base + "/models/llama2", server.text("what is Monetary Policy?", 30)
    body = {"inputs": "what is Monetary Policy?", "parameters": parameters, "stream": False}
    answer = requests.post(url, json=body, headers=headers, timeout=60).json()
    assert (answer["generated_text"], answer["finish_reason"]) == (expected, "length")
    streamed = body | {
        "stream": True,
        "parameters": parameters | {"return_protocol": "raw", "return_full_text": True},
    }
    with requests.post(url, json=streamed, headers=headers, stream=True, timeout=60) as answer:
        lines = [json.loads(line.decode().removeprefix("data:")) for line in answer.iter_lines() if line]
    assert "".join(line["generated_text"] for line in lines[:-1]) == lines[-1]["generated_text"] == expected


# ---- benchmarks ---------------------------------------------------------------------------------------------


def read_events(answer):
    """Server-sent events as vLLM's benchmark reads them: parts between empty lines."""
    parts = [part.strip().removeprefix("data: ") for part in answer.text.split("\n\n")]
    *chunks, done, rest = parts
    assert (done, rest) == ("[DONE]", "")
    return [json.loads(chunk) for chunk in chunks]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "Tell me", "repetition_penalty": 1.0, "max_tokens": 14, "logprobs": None}),
        ("/v1/completions", {"prompt": [5, 6, 7], "repetition_penalty": 1.0, "max_tokens": 14, "top_k": -1}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "text", "text": "Tell me"}]}],
                                  "max_completion_tokens": 14}),
    ],
)  # fmt: skip
def test_vllm_bench_serve(server, path, body):
    """What it sends, and what it takes from the answer: one chunk per token, and counts in one without choices."""
    models = server.client.get("/v1/models").json()["data"]
    assert (models[0]["id"], models[0]["root"]) == ("org/emulated", "org/emulated")
    common = {"model": "org/emulated", "stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True}
    answer = server.client.post(
        path, json={**body, **common, "temperature": 0.0}, headers={"x-request-id": "bench-0"}
    )
    chunks = read_events(answer)
    told = [
        chunk["choices"][0].get("text") or chunk["choices"][0].get("delta") for chunk in chunks if chunk["choices"]
    ]
    usage = [chunk["usage"] for chunk in chunks if not chunk["choices"]]
    assert len(told) >= 14
    assert [count["completion_tokens"] for count in usage] == [14]
    assert usage[0]["prompt_tokens"] > 0


@pytest.mark.parametrize("chat", [False, True])
def test_guidellm(server, chat):
    """It wants counts in every chunk."""
    assert server.client.get("/health").status_code == 200
    body = {
        "model": "org/emulated", "stream": True, "stop": None, "ignore_eos": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }  # fmt: skip
    if chat:
        own = {"messages": [{"role": "system", "content": "Be brief."}, *MESSAGES[1:]], "max_completion_tokens": 11}
    else:
        own = {"prompt": "Tell me", "max_tokens": 11}
    headers = {"Authorization": "Bearer none"}
    answer = server.client.post(
        "/v1/chat/completions" if chat else "/v1/completions", json=body | own, headers=headers
    )
    counts = [chunk["usage"]["completion_tokens"] for chunk in read_events(answer)]
    assert sorted(counts) == counts
    assert set(range(1, 12)) <= set(counts) <= set(range(12))


# ---- the official client of Anthropic's API -------------------------------------------------------------------


@pytest.fixture(scope="module")
def claude(server):
    with anthropic.Anthropic(base_url=server.base, api_key="none", max_retries=0) as client:
        yield client


def test_messages(claude, server):
    """Which stop sequence ended it is known to sampling alone."""
    asked = {"model": "org/emulated", "max_tokens": 12, "system": "Be brief.", "messages": PLAIN[1:]}
    asked["extra_body"] = {"temperature": 0}
    message = claude.messages.create(**asked)
    assert (message.content[0].text, message.stop_reason) == (chat_text(server, 12), "max_tokens")
    stop = message.content[0].text[-3:]
    with claude.messages.stream(**asked, stop_sequences=["\0no", stop]) as stream:
        first, *_ = stream
        last = stream.get_final_message()
    assert (last.stop_reason, last.stop_sequence) == ("stop_sequence", stop)
    counted = claude.messages.count_tokens(model="org/emulated", system="Be brief.", messages=PLAIN[1:]).input_tokens
    for usage in (message.usage, first.message.usage):
        assert usage.input_tokens + usage.cache_read_input_tokens == counted
