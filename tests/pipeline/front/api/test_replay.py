"""Answers are made again from their tokens, byte for byte: each form of each API.

A recording is a request, its identity, its tokens, and the bytes that a real front sent for them. Those in
recordings.jsonl are from an earlier day; after a change that is wanted, run with RINGSERVE_WRITE_GOLDEN=1. In which
order tokens of several texts are written depends on when they arrive; it is read from the bytes.
"""

from __future__ import annotations

import json
import os
import re
from collections import deque
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from model.demo import DEMO_DIR
from model.response import choose_format
from model.tokenizer import load_tokenizer
from pipeline.front.api.anthropic.request import parse_messages
from pipeline.front.api.body import Reading
from pipeline.front.api.llm_serving.request import parse_llm_serving
from pipeline.front.api.ollama.request import parse_ollama_chat, parse_ollama_generate
from pipeline.front.api.openai.chat import parse_chat
from pipeline.front.api.openai.completions import parse_completion
from pipeline.front.api.responses.request import LOGPROBS, parse_responses
from pipeline.front.delivery.job import (
    Begin,
    CallArguments,
    CallBegin,
    CallEnd,
    End,
    Identity,
    Reasoning,
    Text,
    Times,
    events_of,
)
from pipeline.front.http.errors import SERVER, ApiError
from pipeline.front.settings import FrontSettings
from pipeline.wire.delta import Delta, FinishReason
from tests.pipeline.front.conftest import DEFAULTS

FILE = Path(__file__).parent / "recordings.jsonl"
TOKENIZER = load_tokenizer(DEMO_DIR)
SETTINGS = FrontSettings(**DEFAULTS)
COMPLETIONS, CHAT, GENERATE = "/v1/completions", "/v1/chat/completions", "/models/llama2"
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
OTHERS = {
    CHAT: parse_chat, COMPLETIONS: parse_completion, RESPONSES: parse_responses, MESSAGES: parse_messages
}  # fmt: skip
OLLAMA = {"/api/chat": parse_ollama_chat, "/api/generate": parse_ollama_generate}
PROMPT_TOKENS, CACHED_TOKENS = 5, 2  # as the peer reports them


def chat(content, **body):
    return CHAT, {"messages": [{"role": "user", "content": content}], "max_tokens": 2, **body}


def completion(prompt, **body):
    return COMPLETIONS, {"prompt": prompt, "max_tokens": 2, **body}


def generate(prompt, *, stream, **parameters):
    return GENERATE, {"inputs": prompt, "parameters": {"max_new_tokens": 2, **parameters}, "stream": stream}


def responses(text, **body):
    return RESPONSES, {"input": text, "max_output_tokens": 2, **body}


def messages(content, **body):
    return MESSAGES, {"messages": [{"role": "user", "content": content}], "max_tokens": 2, **body}


def ollama_chat(content, **body):
    return "/api/chat", {"messages": [{"role": "user", "content": content}], "options": {"num_predict": 2}, **body}


def ollama_generate(prompt, **body):
    return "/api/generate", {"prompt": prompt, "raw": True, "options": {"num_predict": 2}, **body}


STREAM = {"stream": True}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
CONTINUOUS = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
PROMPTS = ["@report @pace=0.002 it was", "@report @pace=0.003 100% “quoted”\n"]
FAILS = "a @report @after=2 @reason=failed b"
ENDS = "a _ @report @after=2 @reason=eos b"  # with a token that has no text
CASES = {
    "completion": completion("@report it was"),
    "completion-stream": completion("@report it was", **STREAM),
    "completion-usage": completion("@report it was", **USAGE),
    "completion-continuous": completion("@report it was", **CONTINUOUS),
    "completion-eos": completion(ENDS, **STREAM),
    "completion-echo": completion("@report it", echo=True, **STREAM),
    "completion-logprobs": completion("@report it", logprobs=2),
    "completion-logprobs-stream": completion("@report it", logprobs=0, **USAGE),
    "completion-prompts": completion(PROMPTS, n=2, echo=True),
    "completion-prompts-stream": completion(PROMPTS, n=2, echo=True, **USAGE),
    "completion-prompts-all": completion(PROMPTS, n=2, logprobs=1, **CONTINUOUS),
    "completion-failed": completion(FAILS, **USAGE),
    "chat": chat("it @report was"),
    "chat-stream": chat("it @report was", **STREAM),
    "chat-continuous": chat("it @report was", **CONTINUOUS),
    "chat-eos": chat(ENDS, **STREAM),
    "chat-eos-logprobs": chat(ENDS, logprobs=True, **STREAM),
    "chat-n": chat("it @report @pace=0.002 was", n=2, logprobs=True, top_logprobs=2),
    "chat-n-stream": chat("it @report @pace=0.002 was", n=2, logprobs=True, top_logprobs=1, **USAGE),
    "chat-failed": chat(FAILS, **STREAM),
    "generate": generate("@report it was", stream=False, seed=7),
    "generate-sse": generate("@report it was", stream=True),
    "generate-sse-whole": generate(ENDS, stream=True, return_full_text=True),
    "generate-raw": generate("@report it was", stream=True, return_protocol="raw"),
    "generate-raw-whole": generate("@report it was", stream=True, return_protocol="raw", return_full_text=True),
    "generate-failed": generate(FAILS, stream=True),
    "responses": responses("it @report was", metadata={"a": "100%"}),
    "responses-stream": responses("it @report 100% “quoted”", instructions="Be brief.", **STREAM),
    "responses-eos": responses(ENDS, **STREAM),
    "responses-logprobs": responses("it @report was", top_logprobs=2, include=[LOGPROBS], **STREAM),
    "responses-failed": responses(FAILS, **STREAM),
    "messages": messages("it @report was", system="Be brief."),
    "messages-stream": messages("it @report 100% “quoted”", **STREAM),
    "messages-eos": messages(ENDS, max_tokens=9, **STREAM),
    "messages-failed": messages(FAILS, **STREAM),
    "ollama-chat": ollama_chat("it @report was", stream=False),
    "ollama-chat-stream": ollama_chat("it @report 100% “quoted”", model="tiny:latest"),
    "ollama-chat-eos": ollama_chat(ENDS),
    "ollama-chat-logprobs": ollama_chat("it @report was", logprobs=True, top_logprobs=2, stream=False),
    "ollama-generate": ollama_generate("@report it was", stream=False),
    "ollama-generate-stream": ollama_generate("@report it was"),
    "ollama-generate-logprobs": ollama_generate("@report it was", logprobs=True),
    "ollama-failed": ollama_generate(FAILS),
}


@dataclass
class Recording:
    """`tokens`: choice, index, id, log-probability, reason of the end, text, most probable tokens of each."""

    path: str
    body: dict[str, Any]
    identity: Identity
    tokens: list[list[Any]]
    answer: str


def job(recording):
    """Of the request and its identity."""
    body = orjson.loads(orjson.dumps(recording.body))
    if recording.path in OLLAMA:
        return OLLAMA[recording.path](body, recording.identity, TOKENIZER, Reading(SETTINGS))
    if recording.path == GENERATE:
        return parse_llm_serving(body, None, Reading(SETTINGS))
    return OTHERS[recording.path](body, recording.identity, TOKENIZER, Reading(SETTINGS))


def delta(index, token, logprob, reason, text, top):
    best, logprob = tuple(map(tuple, top)), float("nan") if logprob is None else logprob
    return Delta(1, 0, index, token, logprob, FinishReason(reason), text, best)


def times_in(answer):
    """How long it took is a part of what an answer is made from."""
    names = ("total", "prompt_eval", "eval")
    return Times(*(int(re.search(rf'"{name}_duration":(\d+)', answer)[1]) for name in names))


def replayed(recording):
    """A pure function."""
    wanted, parts = job(recording), []
    for choice, *fields in recording.tokens:
        token, writer = delta(*fields), wanted.writer.choices[choice]
        if token.reason is FinishReason.FAILED:
            return b"".join([*parts, wanted.writer.failure(ApiError(500, token.text, kind=SERVER))]).decode()
        begin = [Begin(choice, PROMPT_TOKENS, CACHED_TOKENS)] if token.index == 1 else []
        for event in begin + events_of(choice, [token]):
            if wanted.streamed:
                parts.append(writer.write(event))
            else:
                writer.keep(event)
    if wanted.measured is not None:
        wanted.measured(times_in(recording.answer))
    return b"".join([*parts, wanted.writer.tail() if wanted.streamed else wanted.writer.whole()]).decode()


def record(served, path, body):
    answer = served.http.post(path, json=body)
    assert answer.status_code == 200
    found = re.search(
        r'"id":"(?:cmpl-|chatcmpl-|resp_)([^"]*)","object":"[^"]*","created(?:_at)?":(\d+)', answer.text
    )
    made = re.search(r'"created_at":"([^"]+)"', answer.text)
    created = int(datetime.fromisoformat(made[1]).timestamp()) if made else 0
    identity = Identity(found[1], int(found[2])) if found else Identity(answer.headers["x-request-id"], created)
    assert answer.headers["x-request-id"] == identity.seed
    return Recording(path, body, identity, list(in_order(path, answer.text, received(served))), answer.text)


def received(served):
    """Tokens of each choice, as the front got them."""
    tokens: dict[int, deque[list[Any]]] = {}
    while not tokens or not all(of_one and of_one[-1][3] for of_one in tokens.values()):
        line = served.peer.lines.get(timeout=20)
        if "submit" in line:
            tokens[line["submit"]] = deque()
        elif "delta" in line:
            tokens[line["delta"]].append(line["token"])
    return list(tokens.values())


def in_order(path, answer, tokens):
    """Those of several choices in the order of their events. A chat's first event has the role, and is no token's."""
    first = [path == CHAT] * len(tokens)
    for event in re.finditer(r'^data: .*?"choices":\[\{"index":(\d+)', answer, re.MULTILINE):
        choice = int(event[1])
        if not first[choice] and tokens[choice]:
            yield [choice, *tokens[choice].popleft()]
        first[choice] = False
    for choice, left in enumerate(tokens):
        yield from ([choice, *token] for token in left)


def load():
    for line in FILE.read_text(encoding="utf-8").splitlines():
        fields = json.loads(line)
        yield fields.pop("name"), Recording(**fields | {"identity": Identity(**fields["identity"])})


def test_what_a_front_sends(shared):
    """Of this day."""
    made = {name: record(shared, *case) for name, case in CASES.items()}
    if os.environ.get("RINGSERVE_WRITE_GOLDEN"):
        lines = [json.dumps({"name": name, **asdict(one)}, ensure_ascii=False) for name, one in made.items()]
        FILE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, recording in made.items():
        assert replayed(recording) == recording.answer, name
    assert len({recording.identity.seed for recording in made.values()}) == len(made)


def test_recordings_are_of_all_cases():
    assert {name: (one.path, one.body) for name, one in load()} == CASES


@pytest.mark.parametrize("name", CASES)
def test_recordings(name):
    recording = dict(load())[name]
    assert replayed(recording) == recording.answer


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("generate")])
def test_seed_time_and_tokens_decide(name):
    recording = dict(load())[name]
    other_seed, other_time = Identity("0" * 32, recording.identity.created), Identity(recording.identity.seed, 1)
    shown = {"ollama": (other_time,), "messages": (other_seed,)}.get(name.split("-")[0], (other_seed, other_time))
    for identity in shown:
        assert replayed(replace(recording, identity=identity)) != recording.answer
    recording.tokens[0][5] += "?"
    assert replayed(recording) != recording.answer


def test_choices_do_not_depend_on_one_another():
    """Whose token comes first changes the order of a stream's events, and nothing else."""
    recording = dict(load())["chat-n-stream"]
    orders = [sorted(recording.tokens, key=lambda token: token[column]) for column in (0, 1)]
    one, other = (replayed(replace(recording, tokens=tokens)) for tokens in orders)
    assert one != other
    assert sorted(one.split("\n\n")) == sorted(other.split("\n\n"))


# ---- events -------------------------------------------------------------------------------------------------------

TOKEN = delta(3, 7, None, 2, "x", [])
NEW = [Reasoning(0, TOKEN, 0, "x"), CallBegin(0, TOKEN, 0, 0, "f"), CallArguments(0, TOKEN, 0, 0, "{}"),
       CallEnd(0, TOKEN, 0, 0)]  # fmt: skip


@pytest.mark.parametrize("event", NEW, ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("name", ["completion-stream", "generate-sse"])
def test_an_event_that_has_no_form_is_an_error(name, event):
    for method in ("write", "keep"):
        (choice,) = job(dict(load())[name]).writer.choices
        with pytest.raises(TypeError, match=f"has no form for {type(event).__name__}"):
            getattr(choice, method)(event)


def test_events_have_ids():
    tokens = [delta(1, 7, None, 0, "", []), delta(2, 8, None, 0, "y", []), TOKEN]
    events = events_of(1, tokens)
    assert [(event.choice, event.token.index, event.part) for event in events] == [
        (1, 1, 0), (1, 2, 0), (1, 3, 0), (1, 3, 1)
    ]  # fmt: skip
    assert [type(event) for event in events] == [Text, Text, Text, End]
    assert [event.text for event in events[:3]] == ["", "y", "x"]
    assert events[3].reason is FinishReason.EOS


# ---- reasoning and calls -------------------------------------------------------------------------------------------

REASONS = FrontSettings(**DEFAULTS, response_format=choose_format(TOKENIZER, "hermes", "think"))
PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}}}
FUNCTION = {"name": "f", "parameters": PARAMETERS}
TOOLS = {
    CHAT: [{"type": "function", "function": FUNCTION}],
    RESPONSES: [{"type": "function", **FUNCTION}],
    MESSAGES: [{"name": "f", "input_schema": PARAMETERS}],
    "/api/chat": [{"type": "function", "function": FUNCTION}],
}
ASKED = {CHAT: chat, RESPONSES: responses, MESSAGES: messages, "/api/chat": ollama_chat}
ANSWER = ["<th", "ink>So", ".</think>", "Well: ", '<tool_call>{"name": "f", "argu', 'ments": {"a": ',
          "1}}</tool_call>",
          '<tool_call>{"name": "f", "arguments": {}}</tool_call>']  # fmt: skip


def answered(path, seed, *, stream):
    _, body = ASKED[path]("x", tools=TOOLS[path], stream=stream)
    made = {**OTHERS, **OLLAMA}[path](body, Identity(seed, 7), TOKENIZER, Reading(REASONS))
    (choice,), read = made.writer.choices, made.reader(0)
    tokens = [delta(i + 1, 7, None, 2 * (i == len(ANSWER) - 1), text, []) for i, text in enumerate(ANSWER)]
    events = [Begin(0, 5, 2), *(event for token in tokens for event in read([token]))]
    if made.measured is not None:
        made.measured(Times(1, 2, 3))
    if stream:
        return b"".join(map(choice.write, events)) + made.writer.tail()
    for event in events:
        choice.keep(event)
    return made.writer.whole()


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("stream", [True, False])
def test_calls_and_reasoning_are_made_again_byte_for_byte(path, stream):
    made = answered(path, "a" * 32, stream=stream)
    assert answered(path, "a" * 32, stream=stream) == made
    assert (answered(path, "b" * 32, stream=stream) == made) == (path == "/api/chat")  # it shows no id
    assert b"So." in made.replace(b'"So"', b"So.")
    assert made.count(b'"f"') >= 2
