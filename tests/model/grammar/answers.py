"""Models with random logits that answer by a grammar, and what a reader makes of their answers."""

from __future__ import annotations

import json

import numpy as np
import tokenizers

from model.demo import DEMO_DIR
from model.grammar import AnswerShape, Grammars, ToolShape, Vocabulary, check, grammar_text
from model.response import Kind, Opened, ResponseReader, choose_format
from model.tokenizer import IncrementalDetokenizer, load_tokenizer

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "unit": {"enum": ["c", "f"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
        "now": {"type": "boolean"},
    },
    "required": ["city"],
    "additionalProperties": False,
}
NOTE = {
    "type": "object",
    "properties": {"tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]{1,5}$"}, "maxItems": 3}},
    "required": ["tags"],
    "additionalProperties": False,
}
ORDERS = (ToolShape("get_weather", WEATHER), ToolShape("note", NOTE), ToolShape("any", None))
SCHEMAS = {tool.name: tool.parameters for tool in ORDERS}
MARKS = ("<tool_call>", "</tool_call>", "<think>", "</think>", "[TOOL_CALLS]", "<|python_tag|>", "<|python_end|>",
         "<say>", "</say>")  # fmt: skip


class Model:
    """Random logits over a vocabulary, in which the ends of things are likely."""

    def __init__(self, tokenizer):
        self.tokenizer, self.size = tokenizer, tokenizer.vocab_size
        self.vocabulary = Vocabulary(tokenizer, self.size, [2])
        self.grammars = Grammars(self.vocabulary, most=64)
        self.rng, self.bias = np.random.default_rng(1), np.zeros(self.size, np.float32)
        for token in range(self.size):
            text = tokenizer.token_bytes(token)
            self.bias[token] = 6 * bool(text and all(byte in b'"}],:)<>/' for byte in text))
        self.bias[2] = 8
        self.noise = self.rng.gumbel(size=(64, self.size)).astype(np.float32) + self.bias

    def allowed(self, matcher):
        mask = np.zeros_like(self.vocabulary.known)
        matcher.fill(mask)
        assert not matcher.error
        return np.unpackbits(mask.view(np.uint8), bitorder="little")[: self.size].astype(bool)

    def walk(self, text, begin="", most=250):
        """The ids of an answer that begins so; None if it has no end."""
        matcher, ids = self.grammars.matcher(text), self.ids(begin)
        assert matcher.replay(ids), matcher.error
        while len(ids) < most:
            allowed = self.allowed(matcher)
            assert allowed.any()
            token = int(np.argmax(np.where(allowed, self.noise[self.rng.integers(64)], -np.inf)))
            if token == 2:
                return ids
            assert matcher.take(token)
            ids.append(token)
            if matcher.stopped:
                return ids
        return None

    def answer(self, text, begin=""):
        """One that has an end."""
        return next(ids for _ in range(50) if (ids := self.walk(text, begin)) is not None)

    def ids(self, text):
        return self.tokenizer.encode(text, add_special=False)

    def text(self, ids):
        return self.tokenizer.decode(ids, skip_special=False)


def with_tokens(folder, texts):
    """The demo model's tokenizer, in which each of these texts is one token."""
    tokenizer = tokenizers.Tokenizer.from_file(str(DEMO_DIR / "tokenizer.json"))
    tokenizer.add_special_tokens(list(texts))
    tokenizer.save(str(folder / "tokenizer.json"))
    return load_tokenizer(folder)


def shape(model, name="hermes", reasoning="none", **more):
    chosen = choose_format(model.tokenizer, name, "think" if reasoning != "none" else "none")
    opened = Opened.REASONING if reasoning == "open" else Opened.NOTHING
    return AnswerShape(chosen, **{"opened": opened, "tools": ORDERS, **more})


def pieces(model, asked, ids, tools=SCHEMAS):
    reader = ResponseReader(asked.format, tools=tools, opened=asked.opened)
    detokenizer = IncrementalDetokenizer(model.tokenizer, skip_special=False)
    found = [piece for token in ids for piece in reader.push(detokenizer.push(token), token)]
    return found + reader.finish()


def calls(found):
    """Names and arguments of complete calls, and the text around them."""
    made, text = [], ""
    for kind, part in found:
        if kind is Kind.CALL_BEGIN:
            made.append([part, ""])
        elif kind is Kind.CALL_ARGUMENTS:
            made[-1][1] += part
        elif kind is Kind.TEXT:
            text += part
    assert sum(kind is Kind.CALL_END for kind, _ in found) == len(made)
    return [(name, json.loads(arguments)) for name, arguments in made], text


def compiled(asked):
    text = grammar_text("answer", asked)
    check(text)
    return text
