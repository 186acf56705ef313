"""Messages of a chat, as chat templates know them: calls and their results, arguments as values."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from typing import Any, Final

import orjson

from model.tokenizer import Message

_ALPHABET: Final = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def assistant(
    text: str, calls: Sequence[Message] = (), *, reasoning: str = "", name: str | None = None
) -> dict[str, Any]:
    """`calls` are `call`'s."""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if reasoning:
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = list(calls)
    return message if name is None else message | {"name": name}


def call(call_id: str, name: str, arguments: str | dict[str, Any]) -> dict[str, Any]:
    """`arguments` are JSON in some APIs, and values in templates. What a model has written badly stays a text."""
    value: Any = arguments or {}
    if isinstance(value, str):
        with contextlib.suppress(orjson.JSONDecodeError):
            value = orjson.loads(value)
            value = {} if value is None else value
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": value}}


def result(call_id: str, text: str, name: str | None = None) -> dict[str, Any]:
    """What a tool has returned."""
    message = {"role": "tool", "content": text, "tool_call_id": call_id}
    return message if name is None else message | {"name": name}


def call_id(seed: str, choice: int, number: int, prefix: str = "call_") -> str:
    """Of a choice's `number`-th call; `seed` is that of the answer's `Identity`."""
    digest = hashlib.blake2b(f"{seed} {choice} {number}".encode(), digest_size=12)
    return prefix + digest.hexdigest()


def numbered(messages: Sequence[Message]) -> list[Message]:
    """With ids, of an API in which calls have none: a result is that of the first call of its tool that still waits
    for one, or of the first call at all."""
    open_calls: list[tuple[str, str]] = []  # names and ids
    every: list[Message] = []
    for message in messages:
        changed = dict(message)
        if calls := message.get("tool_calls"):
            ids = [one["id"] or f"call_{len(every)}_{number}" for number, one in enumerate(calls)]
            changed["tool_calls"] = [{**one, "id": new} for one, new in zip(calls, ids, strict=True)]
            open_calls = [(one["function"]["name"], new) for one, new in zip(calls, ids, strict=True)]
        elif message["role"] == "tool" and not message.get("tool_call_id") and open_calls:
            name = message.get("name")
            at = next((at for at, (known, _) in enumerate(open_calls) if known == name), 0)
            changed["tool_call_id"] = open_calls.pop(at)[1]
        every.append(changed)
    return every


def with_names(messages: Sequence[Message]) -> list[Message]:
    """Results with the names of their tools, for which many templates ask."""
    names: dict[str, str] = {}
    every: list[Message] = []
    for message in messages:
        names |= {one["id"]: one["function"]["name"] for one in message.get("tool_calls", ()) if one["id"]}
        name = names.get(message.get("tool_call_id", ""))
        lacking = message["role"] == "tool" and "name" not in message and name is not None
        every.append({**message, "name": name} if lacking else message)
    return every


def with_ids(messages: Sequence[Message], length: int) -> list[Message]:
    """With ids of this length, as the family's template demands them; the same for a call and its result."""

    def fit(call_id: str) -> str:
        if len(call_id) == length and call_id.isascii() and call_id.isalnum():
            return call_id
        digest = hashlib.blake2b(call_id.encode(errors="surrogatepass"), digest_size=length).digest()
        return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest)

    def fitted(message: Message) -> Message:
        changed = dict(message)
        if calls := message.get("tool_calls"):
            changed["tool_calls"] = [{**one, "id": fit(one["id"])} for one in calls]
        if call_id := message.get("tool_call_id"):
            changed["tool_call_id"] = fit(call_id)
        return changed

    return [fitted(message) for message in messages]
