"""Requests at the limits of docs/api.md, as bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from scripts.bench.isolation.stands import Facts
from scripts.lab.http import message

Maker = Callable[[Facts], tuple[bytes, ...]]

MANY_PROMPTS, CHOICES, MESSAGES = 1000, 128, 10_000
BIASED, STOPS, STOP_CHARS, LEVELS = 1024, 64, 1024, 1024
_MARGIN = 1024  # bytes of a body beside its largest part
_FIRST_ID, _IDS = 1000, 1000  # four digits each: so many bytes in JSON
_COMPLETIONS, _CHAT = "/v1/completions", "/v1/chat/completions"


def get(path: str) -> Maker:
    return lambda _facts: (message("GET", path),)


def nothing(_facts: Facts) -> tuple[bytes, ...]:
    """A connection, and that is all."""
    return (b"",)


def post(path: str, body: bytes | dict[str, Any]) -> bytes:
    return message("POST", path, body if isinstance(body, bytes) else orjson.dumps(body))


def filled(unit: str, size: int) -> str:
    """So many characters."""
    return (unit * (size // len(unit) + 1))[:size]


def ids(count: int, first: int = 0) -> list[int]:
    return [_FIRST_ID + (first + i) % _IDS for i in range(count)]


# ---- tokens ------------------------------------------------------------------------------------------------------


def tokenize(unit: str) -> Maker:
    """As much of it as a body has room for."""

    def make(facts: Facts) -> tuple[bytes, ...]:
        each = len(orjson.dumps(unit)) - 2
        text = unit * ((facts.body_bytes - _MARGIN) // each)
        return (post("/tokenize", {"prompt": text}),)

    return make


def tokenize_limit(facts: Facts) -> tuple[bytes, ...]:
    return (post("/tokenize", {"prompt": filled("lorem ipsum dolor ", facts.prompt_chars)}),)


def tokenize_names(facts: Facts) -> tuple[bytes, ...]:
    text = filled("lorem ipsum dolor ", facts.prompt_chars // 4)
    return (post("/tokenize", {"prompt": text, "return_token_strs": True}),)


def detokenize(facts: Facts) -> tuple[bytes, ...]:
    return (post("/detokenize", {"tokens": ids(facts.max_length)}),)


# ---- completions -------------------------------------------------------------------------------------------------


def completion(prompt: object, **options: Any) -> bytes:
    return post(_COMPLETIONS, {"prompt": prompt, "max_tokens": 1, "ignore_eos": True} | options)


def text_prompt(beyond: int = 0, **options: Any) -> Maker:
    """As many characters as there may be, or more; far more tokens than there may be."""
    return lambda facts: (completion(filled("lorem ipsum dolor ", facts.prompt_chars + beyond), **options),)


def many_texts(facts: Facts) -> tuple[bytes, ...]:
    """As long as the body and the model's context allow."""
    size = min((facts.body_bytes - _MARGIN) // MANY_PROMPTS - 20, facts.prompt_tokens)
    return (completion([filled(f"{i} lorem ipsum dolor ", size) for i in range(MANY_PROMPTS)]),)


def many_lists(facts: Facts) -> tuple[bytes, ...]:
    size = min((facts.body_bytes - _MARGIN) // MANY_PROMPTS // 5 - 2, facts.prompt_tokens)
    return (completion([ids(size, i) for i in range(MANY_PROMPTS)]),)


def full_context(facts: Facts) -> tuple[bytes, ...]:
    """Different ones, of which none has the beginning of another: nothing is cached."""
    count = min(facts.prompt_tokens, facts.max_length - 1, (facts.body_bytes - _MARGIN) // 5)
    return tuple(completion(ids(count, 100 * i)) for i in range(10))


def million_ids(facts: Facts) -> tuple[bytes, ...]:
    return (completion(ids(min(1_000_000, (facts.body_bytes - _MARGIN) // 5))),)


def bias(_facts: Facts) -> tuple[bytes, ...]:
    wanted = {str(token): 1.5 for token in range(300, 300 + BIASED)}
    return (completion("lorem", n=8, max_tokens=64, temperature=0.8, logit_bias=wanted),)


def stop_ids(_facts: Facts) -> tuple[bytes, ...]:
    """Banned until as many tokens have come as may come."""
    never = list(range(300, 300 + BIASED))
    return (completion("lorem", n=8, max_tokens=64, min_tokens=64, stop_token_ids=never),)


def stop_texts(_facts: Facts) -> tuple[bytes, ...]:
    texts = [filled(f"{i} no such text ", STOP_CHARS) for i in range(STOPS)]
    return (completion("lorem", n=8, max_tokens=64, stop=texts),)


def streams(count: int, prompt_tokens: int, tokens: int) -> Maker:
    def make(_facts: Facts) -> tuple[bytes, ...]:
        return tuple(completion(ids(prompt_tokens, 7 * i), max_tokens=tokens, stream=True) for i in range(count))

    return make


def batch(count: int, prompt_tokens: int, tokens: int) -> Maker:
    return lambda _facts: (completion([ids(prompt_tokens, 7 * i) for i in range(count)], max_tokens=tokens),)


def short(_facts: Facts) -> tuple[bytes, ...]:
    return (completion("byte by byte"),)


# ---- chat --------------------------------------------------------------------------------------------------------


def _chat(contents: list[str]) -> bytes:
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]
    return post(_CHAT, {"messages": messages, "max_completion_tokens": 1})


def many_messages(facts: Facts) -> tuple[bytes, ...]:
    size = max(1, facts.prompt_chars * 9 // 10 // MESSAGES)
    return (_chat([filled("lorem ipsum ", size)] * MESSAGES),)


def long_message(facts: Facts) -> tuple[bytes, ...]:
    return (_chat([filled("lorem ipsum dolor ", facts.prompt_chars - 100)]),)


# ---- JSON at the body's limit ------------------------------------------------------------------------------------


def _json(make: Callable[[int], bytes]) -> Maker:
    """`make` gets the number of bytes."""
    return lambda facts: (post(_COMPLETIONS, b'{"prompt":"x","user":' + make(facts.body_bytes - _MARGIN) + b"}"),)


deep = _json(lambda size: b"[" * (size // 2) + b"]" * (size // 2))
levels = _json(lambda size: _list(b"[" * (LEVELS - 9) + b"]" * (LEVELS - 9), size))
numbers = _json(lambda size: _list(b"1", size))
string = _json(lambda size: b'"' + b"x" * (size - 2) + b'"')
escapes = _json(lambda size: b'"' + rb"\u00e9" * ((size - 2) // 6) + b'"')


def keys(facts: Facts) -> tuple[bytes, ...]:
    """A million of them would not fit but for the shortest: a key and its value, `"abcd":1,`, take nine bytes."""
    count = min(1_000_000, (facts.body_bytes - _MARGIN) // 9)
    pairs = b",".join(b'"%04x":1' % i if i < 0x10000 else b'"%x":1' % i for i in range(count))
    return (post(_COMPLETIONS, (b'{"prompt":"x",' + pairs)[: facts.body_bytes - _MARGIN].rpartition(b",")[0] + b"}"),)


def _list(item: bytes, size: int) -> bytes:
    return b"[" + b",".join([item] * (size // (len(item) + 1))) + b"]"
