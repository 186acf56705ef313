"""Requests at the limits of docs/api.md, as bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from scripts.bench.isolation.stands import Facts
from scripts.lab.http import message

Maker = Callable[[Facts], tuple[bytes, ...]]

MANY_PROMPTS, CHOICES, MESSAGES, SCHEMAS = 1000, 128, 10_000, 64
BIASED, STOPS, STOP_CHARS, LEVELS = 1024, 64, 1024, 1024
_SCORED_TOKENS = 10_000
_FIRST_ID, _IDS = 1000, 1000  # four digits each: so many bytes in JSON
_COMPLETIONS, _CHAT = "/v1/completions", "/v1/chat/completions"
_WORDS = "lorem ipsum dolor "


def one(make: Callable[[Facts], bytes]) -> Maker:
    """The same request again and again."""
    return lambda facts: (make(facts),)


def get(path: str) -> Maker:
    return one(lambda _: message("GET", path))


def weights(facts: Facts) -> tuple[bytes, ...]:
    """Of folders that are no model's: one is looked at beside the server at a time."""
    return (post("/admin/weights", {"folder": "/"}),)


def cancel(facts: Facts) -> tuple[bytes, ...]:
    """Of requests that are not there."""
    return tuple(post(f"/v1/requests/{number:032x}/cancel", {}) for number in range(64))


def kept(facts: Facts) -> tuple[bytes, ...]:
    """Answers that are not there."""
    return tuple(message("GET", f"/v1/streams/{number:032x}?starting_after={number}") for number in range(64))


def background(facts: Facts) -> tuple[bytes, ...]:
    """They take a row when their client has got its answer already, and memory behind that."""
    return (post("/v1/responses", {"input": "x", "max_output_tokens": 1, "background": True}),)


def post(path: str, body: bytes | dict[str, Any]) -> bytes:
    return message("POST", path, body if isinstance(body, bytes) else orjson.dumps(body))


def completion(prompt: object, **options: Any) -> bytes:
    return post(_COMPLETIONS, {"prompt": prompt, "max_tokens": 1, "ignore_eos": True} | options)


def filled(unit: str, size: int) -> str:
    """So many characters."""
    return (unit * (size // len(unit) + 1))[:size]


def ids(count: int, first: int = 0) -> list[int]:
    return [_FIRST_ID + (first + i) % _IDS for i in range(count)]


nothing = one(lambda _: b"")
"""A connection, and that is all."""

# ---- tokens ------------------------------------------------------------------------------------------------------


def tokenize(unit: str) -> Maker:
    """As much of it as a body has room for."""
    each = len(orjson.dumps(unit)) - 2
    return one(lambda facts: post("/tokenize", {"prompt": unit * (facts.body_room // each)}))


tokenize_limit = one(lambda facts: post("/tokenize", {"prompt": filled(_WORDS, facts.prompt_chars)}))
tokenize_names = one(
    lambda facts: post("/tokenize", {"prompt": filled(_WORDS, facts.prompt_chars // 4), "return_token_strs": True})
)
detokenize = one(lambda facts: post("/detokenize", {"tokens": ids(facts.max_length)}))

# ---- completions -------------------------------------------------------------------------------------------------


def text_prompt(beyond: int = 0, **options: Any) -> Maker:
    """As many characters as there may be, or more; far more tokens than there may be."""
    return one(lambda facts: completion(filled(_WORDS, facts.prompt_chars + beyond), **options))


@one
def many_texts(facts: Facts) -> bytes:
    """As long as the body and the model's context allow."""
    size = min(facts.body_room // MANY_PROMPTS - 20, facts.prompt_tokens)
    return completion([filled(f"{i} {_WORDS}", size) for i in range(MANY_PROMPTS)])


@one
def many_lists(facts: Facts) -> bytes:
    size = min(facts.body_room // MANY_PROMPTS // 5 - 2, facts.prompt_tokens)
    return completion([ids(size, i) for i in range(MANY_PROMPTS)])


def full_context(facts: Facts) -> tuple[bytes, ...]:
    """Different ones, of which none has the beginning of another: nothing is cached."""
    count = min(facts.prompt_tokens, facts.max_length - 1, facts.body_room // 5)
    return tuple(completion(ids(count, 100 * i)) for i in range(10))


def scored_prompts(facts: Facts) -> tuple[bytes, ...]:
    """Their answers have some megabytes."""
    count = min(facts.prompt_tokens, facts.max_length - 1, _SCORED_TOKENS)
    return tuple(completion(ids(count, 100 * i), echo=True, logprobs=20) for i in range(10))


def streams(count: int, prompt_tokens: int, tokens: int) -> Maker:
    every = range(count)
    return lambda _: tuple(completion(ids(prompt_tokens, 7 * i), max_tokens=tokens, stream=True) for i in every)


def batch(count: int, prompt_tokens: int, tokens: int) -> Maker:
    return one(lambda _: completion([ids(prompt_tokens, 7 * i) for i in range(count)], max_tokens=tokens))


def crowd(**options: Any) -> Maker:
    """Eight answers of 64 tokens."""
    return one(lambda _: completion("lorem", n=8, max_tokens=64, **options))


million_ids = one(lambda facts: completion(ids(min(1_000_000, facts.body_room // 5))))
bias = crowd(temperature=0.8, logit_bias={str(token): 1.5 for token in range(300, 300 + BIASED)})
stop_ids = crowd(min_tokens=64, stop_token_ids=list(range(300, 300 + BIASED)))
"""Banned until as many tokens have come as may come."""
stop_texts = crowd(stop=[filled(f"{i} no such text ", STOP_CHARS) for i in range(STOPS)])
short = one(lambda _: completion("byte by byte"))

# ---- chat --------------------------------------------------------------------------------------------------------


def _chat(contents: list[str]) -> bytes:
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]
    return post(_CHAT, {"messages": messages, "max_completion_tokens": 1})


@one
def ollama_messages(facts: Facts) -> bytes:
    """As LangChain sends them. Ollama's API renders as OpenAI's does, but parses by itself."""
    content = filled("lorem ipsum ", max(1, facts.prompt_chars * 9 // 10 // MESSAGES))
    messages: list[dict[str, object]] = [{"role": "user", "content": content, "images": []}] * MESSAGES
    return post("/api/chat", {"messages": messages, "stream": False, "options": {"num_predict": 1}})


@one
def responses_items(facts: Facts) -> bytes:
    """Calls with their results: two items a message, each read by a model of its own."""
    count = MESSAGES // 2
    output = filled("lorem ipsum ", max(1, facts.prompt_chars * 9 // 10 // count))
    call = {"type": "function_call", "call_id": "call_1", "name": "look_up", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "call_1", "output": [{"type": "input_text", "text": output}]}
    return post("/v1/responses", {"input": [call, result] * count, "max_output_tokens": 1})


@one
def anthropic_blocks(facts: Facts) -> bytes:
    """Calls with their results: two messages of blocks, each read by a model of its own."""
    count = MESSAGES // 2
    output = filled("lorem ipsum ", max(1, facts.prompt_chars * 9 // 10 // count))
    call = {"type": "tool_use", "id": "toolu_1", "name": "look_up", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": output}]}
    messages = [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}] * count
    return post("/v1/messages", {"messages": messages, "max_tokens": 1})


long_message = one(lambda facts: _chat([filled(_WORDS, facts.prompt_chars - 100)]))
many_messages = one(
    lambda facts: _chat([filled("lorem ipsum ", max(1, facts.prompt_chars * 9 // 10 // MESSAGES))] * MESSAGES)
)

# ---- JSON at the body's limit ------------------------------------------------------------------------------------


def _json(make: Callable[[int], bytes]) -> Maker:
    """`make` gets the number of bytes."""
    return one(lambda facts: post(_COMPLETIONS, b'{"prompt":"x","user":' + make(facts.body_room) + b"}"))


deep = _json(lambda size: b"[" * (size // 2) + b"]" * (size // 2))
levels = _json(lambda size: _list(b"[" * (LEVELS - 9) + b"]" * (LEVELS - 9), size))
numbers = _json(lambda size: _list(b"1", size))
string = _json(lambda size: b'"' + b"x" * (size - 2) + b'"')
escapes = _json(lambda size: b'"' + rb"\u00e9" * ((size - 2) // 6) + b'"')


@one
def keys(facts: Facts) -> bytes:
    """A million of them would not fit but for the shortest: a key and its value, `"abcd":1,`, take nine bytes."""
    count = min(1_000_000, facts.body_room // 9)
    pairs = b",".join(b'"%04x":1' % i if i < 0x10000 else b'"%x":1' % i for i in range(count))
    return post(_COMPLETIONS, (b'{"prompt":"x",' + pairs)[: facts.body_room].rpartition(b",")[0] + b"}")


def _list(item: bytes, size: int) -> bytes:
    return b"[" + b",".join([item] * (size // (len(item) + 1))) + b"]"


# ---- structured output -------------------------------------------------------------------------------------------


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _large_schema(variant: int) -> dict[str, Any]:
    """Another one each time, with as many properties as there may be, and patterns."""
    return _closed(
        {f"p{variant}_{i}": {"type": "string", "pattern": f"^[a-z]{{1,{i % 40 + 1}}}$"} for i in range(240)}
    )


def many_schemas(_: Facts) -> tuple[bytes, ...]:
    """None of them was compiled before."""
    return tuple(completion("x", max_tokens=8, json_schema=_large_schema(i)) for i in range(SCHEMAS))


def costly_masks(_: Facts) -> tuple[bytes, ...]:
    """Grammars whose masks take long: long choices, wide expressions, deep strings."""
    choices = [f"{_WORDS}{i} {_WORDS * (i % 3)}" for i in range(1500)]
    strings = {"type": "array", "items": {"type": "string", "maxLength": 9000}}
    forms: list[dict[str, Any]] = [
        {"guided_choice": choices},
        {"guided_regex": "([a-z]{1,30} ){1,30}[0-9]{1,900}"},
        {"json_schema": strings},
        {"json_schema": {"anyOf": [_closed({f"k{i}": {"type": "string", "format": "uri"}}) for i in range(90)]}},
    ]
    return tuple(completion("x", max_tokens=64, n=8, temperature=1.5, **form) for form in forms)


def refused_schemas(_: Facts) -> tuple[bytes, ...]:
    """What is beyond the limits, in several ways."""
    deep = '{"items":' * 500 + "{}" + "}" * 500  # as text: a schema may be sent so
    forms: list[dict[str, Any]] = [
        {"json_schema": _closed({f"p{i}": {"type": "string", "pattern": f"^{i}[a-z]+$"} for i in range(1500)})},
        {"guided_regex": "((a{900}){900}){900}"},
        {"json_schema": deep},
        {"guided_choice": [f"choice {i}" for i in range(50_000)]},
    ]
    return tuple(completion("x", max_tokens=8, **form) for form in forms)
