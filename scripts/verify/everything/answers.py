"""Whether two answers are the same, whole; and where they are not, how near to a tie it was.

What differs from one asking to the next is left out: ids, times, what was found in the prefix cache, and by which
weights it was computed. Everything else counts, event by event.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_PASSING = {"created", "created_at", "completed_at", "cached_tokens", "prompt_tokens_details", "input_tokens_details",
            "weights", "x_ringserve", "obfuscation", "stop_details"}  # fmt: skip
_IDS = {"id", "item_id", "call_id", "response_id", "tool_call_id", "request_id"}
_TIMES = ("_time", "_duration")
_PROBABILITIES = {"logprob", "token_logprobs"}
_RANKED = {"top_logprobs", "prompt_logprobs"}
_CACHED = "cache_read_input_tokens"

Choice = int | str


def normal(value: Any) -> Any:
    """What must be the same each time."""
    if isinstance(value, list):
        return [normal(one) for one in value]
    if not isinstance(value, dict):
        return value
    if _CACHED in value:  # Anthropic's count of the prompt is without it
        value = {**value, "input_tokens": value["input_tokens"] + value[_CACHED], _CACHED: 0}
    return {key: normal(one) for key, one in value.items() if not _passes(key, one)}


def _passes(key: str, value: Any) -> bool:
    return key in _PASSING or key.endswith(_TIMES) or (key in _IDS and isinstance(value, str))


def by_choice(events: Sequence[Any]) -> dict[Choice, list[Any]]:
    """Events of a stream by the choice that they are of: in which order choices progress is nobody's promise."""
    found: dict[Choice, list[Any]] = {}
    for event in events:
        choices = event.get("choices")
        one = choices[0]["index"] if choices is not None and len(choices) == 1 else ""
        found.setdefault(one, []).append(normal(event))
    return found


def differences(wanted: Sequence[Any], got: Sequence[Any], tolerance: float) -> list[str]:
    """Places that differ; log-probabilities may by so much."""
    one, other = by_choice(wanted), by_choice(got)
    found = list[str]()
    for choice in {**one, **other}:
        place = f"choice {choice}" if choice != "" else "answer"
        found += _differ(one.get(choice, []), other.get(choice, []), place, tolerance)
    return found


def _differ(wanted: Any, got: Any, place: str, tolerance: float, key: str = "") -> Iterator[str]:
    if key in _RANKED and isinstance(wanted, list | dict):
        yield from _ranked(wanted, got, place, tolerance)
    elif isinstance(wanted, dict) and isinstance(got, dict):
        for name in {**wanted, **got}:
            if name not in wanted or name not in got:
                yield f"{place}.{name} is in one of them only"
            else:
                yield from _differ(wanted[name], got[name], f"{place}.{name}", tolerance, name)
    elif isinstance(wanted, list) and isinstance(got, list):
        for at, (one, other) in enumerate(zip(wanted, got, strict=False)):
            yield from _differ(one, other, f"{place}[{at}]", tolerance, key)
        if len(wanted) != len(got):
            yield f"{place} has {len(got)} elements, expected {len(wanted)}"
    elif key in _PROBABILITIES and isinstance(wanted, float) and isinstance(got, float):
        if not math.isclose(wanted, got, rel_tol=0, abs_tol=tolerance):
            yield f"{place} is {got}, expected {wanted}: {abs(wanted - got):.2g} apart"
    elif wanted != got or type(wanted) is not type(got):
        yield f"{place} is {got!r}, expected {wanted!r}"


def _ranked(wanted: Any, got: Any, place: str, tolerance: float) -> Iterator[str]:
    """Most probable tokens. Which ones they are may differ where the last of them are nearly equal."""
    if isinstance(wanted, list) and isinstance(got, list) and not _is_ranking(wanted) and not _is_ranking(got):
        for at, (one, other) in enumerate(zip(wanted, got, strict=False)):
            yield from _ranked(one, other, f"{place}[{at}]", tolerance)
        if len(wanted) != len(got):
            yield f"{place} has {len(got)} elements, expected {len(wanted)}"
        return
    one, other = ranking(wanted), ranking(got)
    if not one or not other:
        if one != other:
            yield f"{place} is {got!r}, expected {wanted!r}"
        return
    least = min(one.values()), min(other.values())
    for token in {**one, **other}:
        apart = abs(one.get(token, least[0]) - other.get(token, least[1]))
        if apart > tolerance:
            yield f"{place}, {token!r}: {other.get(token)}, expected {one.get(token)}"


def _is_ranking(value: list[Any]) -> bool:
    return all(isinstance(one, dict) and "logprob" in one for one in value)


def ranking(value: Any) -> dict[str, float]:
    """Log-probabilities by token, in whichever form."""
    if isinstance(value, list):
        return {one["token"]: one["logprob"] for one in value}
    return {name: one["logprob"] if isinstance(one, dict) else one for name, one in (value or {}).items()}


# ---- near ties ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scored:
    """A token of an answer."""

    token: str
    logprob: float
    top: dict[str, float]


def scored(events: Sequence[Any]) -> dict[Choice, list[Scored]]:
    """Tokens of each choice, where an answer has their log-probabilities."""
    found: dict[Choice, list[Scored]] = {}
    for event in events:
        for choice in event.get("choices") or [event]:
            found.setdefault(choice.get("index", ""), []).extend(_scored(choice))
    return {choice: tokens for choice, tokens in found.items() if tokens}


def _scored(choice: dict[str, Any]) -> Iterator[Scored]:
    """Of OpenAI's forms, Ollama's and llm-serving's."""
    told = choice.get("logprobs")
    if isinstance(told, dict) and "tokens" in told:
        tops = told.get("top_logprobs") or [{}] * len(told["tokens"])
        for token, logprob, top in zip(told["tokens"], told["token_logprobs"], tops, strict=True):
            yield Scored(token, logprob or 0.0, ranking(top))
        return
    if isinstance(told, dict):
        told = told.get("content")
    if choice.get("type") in (None, "response.output_text.delta"):
        for one in told or ():
            yield Scored(one["token"], one["logprob"], ranking(one.get("top_logprobs")))
    data = choice.get("data") or {}
    if "tokens" in data and isinstance(data["tokens"], dict):
        yield Scored(data["tokens"]["text"], data["tokens"]["logprob"], {})
    for item in choice.get("output") or ():  # a response as a whole
        for part in item.get("content") or ():
            for one in part.get("logprobs") or ():
                yield Scored(one["token"], one["logprob"], ranking(one.get("top_logprobs")))


def flip(wanted: Sequence[Scored], got: Sequence[Scored]) -> tuple[int, float, str] | None:
    """The first token that differs: where, how far from a tie, and what is there. None: there is none."""
    for at, (one, other) in enumerate(zip(wanted, got, strict=False)):
        if one.token != other.token:
            apart = abs(one.logprob - other.logprob)
            return at, apart, f"{one.token!r} {one.logprob:.6f}, now {other.token!r} {other.logprob:.6f}"
    return None


def apart_before(wanted: Sequence[Scored], got: Sequence[Scored], end: int) -> float:
    """How far the log-probabilities of the same tokens are apart."""
    pairs = zip(wanted[:end], got[:end], strict=False)
    return max((abs(one.logprob - other.logprob) for one, other in pairs), default=0.0)


def text_of(events: Sequence[Any]) -> str:
    """Of an answer with one choice and without calls."""
    text = ""
    for event in events:
        choice = (event.get("choices") or [{}])[0]
        inner = choice.get("delta") or choice.get("message") or event.get("delta") or {}
        text += inner if isinstance(inner, str) else inner.get("content") or inner.get("text") or ""
        text += choice.get("text") or ""
    return text
