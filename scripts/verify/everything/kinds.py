"""Every kind of request, a row each.

Prompts differ and repeat something, so that tokens can be guessed. What is drawn is drawn with a seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

COMPLETIONS, CHAT, RESPONSES = "/v1/completions", "/v1/chat/completions", "/v1/responses"
MESSAGES, OLLAMA, OLLAMA_CHAT = "/v1/messages", "/api/generate", "/api/chat"
GENERATE, GENERATE_STREAM = "/models/llama2/generate", "/models/llama2/generate_stream"

DETERMINISTIC, ADAPTERS, SCORES, GRAMMARS = "deterministic", "adapters", "scores of prompts", "grammars"
ADAPTER = "tuned"
"""The adapter's name."""


class Way(Enum):
    """In which an answer comes."""

    STREAM = "a stream that is kept, whose client comes back"
    WHOLE = "an answer as a whole; whoever loses it asks again"
    KEPT = "the same, kept"
    BACKGROUND = "a response that its client looks for now and then"


@dataclass(frozen=True, slots=True)
class Kind:
    """`needs`: what an engine must be able to do. `scored`: the answer has scores of its prompt, so that it fails
    when its front is lost (docs/api.md). `twin`: a path and a body that get the same text with log-probabilities,
    where the answer has none itself."""

    name: str
    path: str
    body: dict[str, Any]
    way: Way = Way.STREAM
    needs: tuple[str, ...] = ()
    scored: bool = False
    twin: tuple[str, dict[str, Any]] | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def deterministic(self) -> bool:
        return DETERMINISTIC in self.needs

    @property
    def drawn(self) -> bool:
        return any("seed" in place for place in (self.body, *self.body.values()) if isinstance(place, dict))

    @property
    def steady(self) -> bool:
        """One text of one replica, of which each token is an event: gaps between them mean something."""
        return self.path == COMPLETIONS and self.way is Way.STREAM and not {"n", "stop", "echo"} & {*self.body}


_TOPICS = ("ring", "buffer", "slot", "memory", "token", "step", "row", "block", "cache", "model", "shared", "queue")
_SCHEMA = {
    "type": "object",
    "properties": {
        "topic": {"enum": list(_TOPICS[:5])},
        "size": {"type": "integer", "minimum": 0, "maximum": 4096},
        "shared": {"type": "boolean"},
        "note": {"type": "string", "maxLength": 12},
    },
    "required": ["topic", "size", "shared", "note"],
    "additionalProperties": False,
}
_LOOK_UP = {
    "name": "look_up",
    "description": "Look a topic up.",
    "parameters": {"type": "object", "properties": {"topic": {"enum": list(_TOPICS)}}, "required": ["topic"],
                   "additionalProperties": False},
}  # fmt: skip
_ADD = {
    "name": "add",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                   "required": ["a", "b"], "additionalProperties": False},
}  # fmt: skip
_TOOLS = [{"type": "function", "function": one} for one in (_LOOK_UP, _ADD)]
_USAGE = {"stream": True, "stream_options": {"include_usage": True}}


def kinds(tokens: int, able: Sequence[str], copies: int) -> list[Kind]:
    """Of answers of at most so many tokens, so many of each kind with prompts of their own, for an engine that is
    able to do this."""
    every = [kind for number in range(copies) for kind in _kinds(tokens, number)]
    return [kind for kind in every if set(kind.needs) <= set(able)]


def left_out(able: Sequence[str]) -> list[str]:
    """Names of what an engine can't do."""
    return sorted({need for kind in _kinds(1, 0) for need in kind.needs} - set(able))


def _kinds(tokens: int, number: int) -> Iterator[Kind]:
    for kind in (*_completions(tokens, number), *_conversations(tokens, number), *_others(tokens, number)):
        yield Kind(f"{kind.name} {number}", kind.path, kind.body, kind.way, kind.needs, kind.scored, kind.twin)


def _completions(tokens: int, number: int) -> Iterator[Kind]:
    prompt = _prompt(number)
    plain = {"prompt": prompt, "max_tokens": tokens, "temperature": 0}
    drawn = {**plain, "temperature": 0.9, "top_p": 0.95, "seed": 100 + number}
    score = {"logprobs": 5}

    def row(name: str, body: dict[str, Any], *needs: str, way: Way = Way.STREAM, scored: bool = False) -> Kind:
        streamed = {**body, **_USAGE} if way is Way.STREAM else body
        twin = None if "logprobs" in body else (COMPLETIONS, {**body, **score, "echo": False})
        return Kind(f"completion, {name}", COMPLETIONS, streamed, way, needs, scored, twin)

    yield row("greedy", plain)
    yield row("greedy, with log-probabilities", {**plain, **score})
    yield row("drawn", {**drawn, **score})
    yield row("two choices, drawn", {**drawn, **score, "n": 2})
    yield row("two prompts, two choices, whole", {**drawn, **score, "n": 2, "prompt": [prompt, prompt[::-1]]},
              way=Way.WHOLE)  # fmt: skip
    yield row("penalties, bias and stops", {**drawn, **score, "presence_penalty": 0.5, "frequency_penalty": 0.3,
              "repetition_penalty": 1.1, "min_p": 0.02, "logit_bias": {"400": 2, "500": -5},
              "stop": ["ing the", "qu"]})  # fmt: skip
    yield row("no drafts", {**plain, **score, "speculation": False})
    yield row("many drafts", {**plain, **score, "prompt": f"{' '.join(_TOPICS)}\n" * 4})
    yield row("echo and scores", {**plain, **score, "echo": True}, SCORES, scored=True)
    yield row("echo and scores, whole", {**drawn, **score, "echo": True, "n": 2}, SCORES, way=Way.WHOLE, scored=True)
    yield row("prompt_logprobs", {**plain, **score, "prompt_logprobs": 3}, SCORES, way=Way.WHOLE, scored=True)
    yield row("echo alone", {**plain, "max_tokens": tokens // 2, "echo": True})
    yield row("deterministic", {**plain, **score, "deterministic": True}, DETERMINISTIC)
    yield row("deterministic, drawn, two choices", {**drawn, **score, "deterministic": True, "n": 2}, DETERMINISTIC)
    yield row("adapter", {**plain, **score, "model": ADAPTER}, ADAPTERS)
    yield row("adapter, drawn, two choices", {**drawn, **score, "model": ADAPTER, "n": 2}, ADAPTERS)
    yield row("regular expression", {**drawn, **score, "structured_outputs": {"regex": "([a-z]{2,9} ){3,12}end"}},
              GRAMMARS)  # fmt: skip
    yield row("choice", {**plain, **score, "structured_outputs": {"choice": [" A queue", " A stack"]}}, GRAMMARS)
    yield row("schema, two choices", {**drawn, **score, "n": 2, "response_format": _format()}, GRAMMARS)
    yield row("schema and adapter", {**plain, **score, "model": ADAPTER, "response_format": _format()},
              GRAMMARS, ADAPTERS)  # fmt: skip


def _conversations(tokens: int, number: int) -> Iterator[Kind]:
    said = [{"role": "system", "content": "You are helpful."}, {"role": "user", "content": _prompt(number)}]
    plain = {"messages": said, "max_tokens": tokens, "temperature": 0}
    drawn = {**plain, "temperature": 0.9, "seed": 200 + number}
    score = {"logprobs": True, "top_logprobs": 5}

    def row(name: str, body: dict[str, Any], *needs: str, way: Way = Way.STREAM) -> Kind:
        streamed = {**body, **_USAGE} if way is Way.STREAM else body
        twin = None if "logprobs" in body else (CHAT, {**body, **score})
        return Kind(f"chat, {name}", CHAT, streamed, way, needs, False, twin)

    yield row("greedy", plain)
    yield row("two choices, whole", {**drawn, **score, "n": 2}, way=Way.WHOLE)
    yield row("whole, kept", plain, way=Way.KEPT)
    yield row("schema", {**plain, **score, "response_format": _format()}, GRAMMARS)
    yield row("tools, a call is due", {**plain, **score, "tools": _TOOLS, "tool_choice": "required"}, GRAMMARS)
    yield row("tools, two choices", {**drawn, **score, "n": 2, "tools": _TOOLS, "tool_choice": "required",
                                     "parallel_tool_calls": False}, GRAMMARS)  # fmt: skip
    yield row("tools, as it likes", {**plain, **score, "tools": _TOOLS})
    asked = {"input": _prompt(number), "max_output_tokens": tokens, "temperature": 0}
    told = {"include": ["message.output_text.logprobs"], "top_logprobs": 5}
    yield Kind("response", RESPONSES, {**asked, "stream": True}, twin=(RESPONSES, {**asked, **told}))
    yield Kind("response in the background", RESPONSES, {**asked, **told, "background": True}, Way.BACKGROUND)
    warm = {"background": True, "stream": True, "temperature": 0.8, "seed": 300 + number}
    yield Kind("response in the background, streamed", RESPONSES, {**asked, **told, **warm})
    flat = [{"type": "function", **one} for one in (_LOOK_UP, _ADD)]
    called = {**asked, "tools": flat, "tool_choice": "required", "stream": True}
    yield Kind("response, a call is due", RESPONSES, called, needs=(GRAMMARS,))


def _others(tokens: int, number: int) -> Iterator[Kind]:
    prompt = _prompt(number)
    said = [{"role": "user", "content": prompt}]
    plain = {"messages": said, "max_tokens": tokens, "temperature": 0}
    message = {**plain, "stream": True}
    scored = {"logprobs": True, "top_logprobs": 5}
    yield Kind("message", MESSAGES, message, twin=(CHAT, {**plain, **scored}))
    tools = [{"name": one["name"], "input_schema": one["parameters"]} for one in (_LOOK_UP, _ADD)]
    yield Kind("message, a call is due", MESSAGES, {**message, "tools": tools, "tool_choice": {"type": "any"}},
               needs=(GRAMMARS,))  # fmt: skip
    options = {"temperature": 0.9, "seed": 400 + number, "num_predict": tokens}
    yield Kind("Ollama chat", OLLAMA_CHAT, {"messages": said, "options": options, **scored})
    formed = {"prompt": prompt, "raw": True, "format": _SCHEMA, "options": options, **scored}
    yield Kind("Ollama, JSON", OLLAMA, formed, needs=(GRAMMARS,))
    plain = {"max_new_tokens": tokens, "return_full_text": True}
    drawn = {**plain, "do_sample": True, "temperature": 0.9, "top_k": 40, "seed": 500 + number}
    yield Kind("llm-serving, greedy", GENERATE_STREAM, {"inputs": prompt, "parameters": plain, "stream": True})
    yield Kind("llm-serving, drawn", GENERATE_STREAM, {"inputs": prompt, "parameters": drawn, "stream": True})
    yield Kind("llm-serving, with its prompt", GENERATE_STREAM,
               {"inputs": prompt, "parameters": {**plain, "decoder_input_details": True}, "stream": True},
               needs=(SCORES,), scored=True)  # fmt: skip
    yield Kind(
        "llm-serving, whole", GENERATE, {"inputs": prompt, "parameters": {**drawn, "details": True}}, Way.WHOLE
    )


def _prompt(number: int) -> str:
    turned = _TOPICS[number % len(_TOPICS) :] + _TOPICS[: number % len(_TOPICS)]
    words = " ".join(turned[: 4 + number % 5])
    question = f"Question: What is a {words}?\nAnswer:"
    return f"{number}. {question} a {words} is a {words}.\n{question}"


def _format() -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": _SCHEMA}}
