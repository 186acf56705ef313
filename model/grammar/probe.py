"""Walks through a grammar over a made-up vocabulary: some of the library's limits are reached only on the way."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from model.grammar.errors import GrammarError
from model.grammar.library import load, new_matcher, require_sound
from model.grammar.limits import LIMITS

if TYPE_CHECKING:
    import llguidance

WALKS, STEPS = 2, 24
LENGTHS = (2, 3, 4, 6, 8, 12, 16)
LEADS = ("", '"', '{"', '["')
RUNS = ("a", "0", " ", "\n", "aB ", "a1 . ", "a-", '\\"', "\u00e9", "\u4e2d", "\U0001f600")


class _Runs:
    """All bytes and, as real vocabularies have them, tokens of many characters; what it asks of a tokenizer."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self) -> None:
        runs = [(lead + run * length).encode() for lead in LEADS for run in RUNS for length in LENGTHS]
        self.tokens = [*(bytes([byte]) for byte in range(256)), *runs, b"</s>"]
        self.eos_token_id = len(self.tokens) - 1
        self.special_token_ids = [self.eos_token_id]

    def __call__(self, text: str) -> list[int]:
        return list(text.encode())


def probe(text: str) -> None:
    """Raise GrammarError for a grammar whose beginnings reach a limit, or that allows nothing."""
    prototype = new_matcher(_vocabulary(), text)
    draw = random.Random(0)  # noqa: S311
    for _ in range(WALKS):
        _walk(prototype.deep_copy(), draw)


def probe_strings(documents: list[Any]) -> None:
    """The same for each string of canonical schemas that counts, by pattern or length: these multiply states."""
    counting = dict.fromkeys(_counting(documents))
    LIMITS.require("max_counting", len(counting), "different patterns with counts or lengths")
    for schema in counting:
        probe(json.dumps({"grammars": [{"json_schema": json.loads(schema)}]}))


def _counting(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for part in node:
            yield from _counting(part)
    elif isinstance(node, dict):
        yield from map(json.dumps, _own_counting(node))
        for name, part in node.items():
            if name not in ("const", "enum"):
                yield from _counting(part)


def _own_counting(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What `schema`, or a map of schemas, has of patterns beside counts."""
    pattern, named = schema.get("pattern"), schema.get("patternProperties")
    if isinstance(pattern, str) and (_counts(pattern) or "maxLength" in schema):
        lengths: dict[str, Any] = {key: schema[key] for key in ("minLength", "maxLength") if key in schema}
        yield {"type": "string", "pattern": pattern, **lengths}
    for name in filter(_counts, named if isinstance(named, dict) else ()):
        yield {"type": "object", "patternProperties": {name: True}}


def _counts(pattern: str) -> bool:
    return "{" in pattern.replace("\\x{", "").replace("\\p{", "").replace("\\P{", "")


def _walk(matcher: llguidance.LLMatcher, draw: random.Random) -> None:
    vocabulary = _vocabulary()
    for step in range(STEPS):
        mask = np.frombuffer(matcher.compute_bitmask(), np.uint8)
        require_sound(matcher)
        allowed = np.flatnonzero(np.unpackbits(mask, count=vocabulary.vocab_size, bitorder="little"))
        if not allowed.size and step == 0:
            raise GrammarError("grammar", "the grammar allows no text at all")
        chosen = int(draw.choice(allowed)) if allowed.size else vocabulary.eos_token
        if chosen == vocabulary.eos_token:
            return
        matcher.consume_token(chosen)
        require_sound(matcher)


@cache
def _vocabulary() -> llguidance.LLTokenizer:
    tokenizer: llguidance.LLTokenizer = load().LLTokenizer(_Runs())
    return tokenizer
