"""Scores of prompts in OpenAI's form, with `echo`, and in vLLM's, as `prompt_logprobs`.

Both are written as JSON piece by piece, as scores come: a prompt has many, and other clients wait while they
are written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final

import orjson

from model.tokenizer import IncrementalDetokenizer, Vocabulary
from pipeline.front.api.body import Problem
from pipeline.front.api.fields import given, integer
from pipeline.front.api.openai.answer import finite
from pipeline.front.api.openai.body import OpenAIBody, most_logprobs
from pipeline.front.settings import FrontSettings
from pipeline.wire.delta import PromptScores
from pipeline.wire.request import Prompt

COLUMNS: Final = ("text_offset", "token_logprobs", "tokens", "top_logprobs")
_MOST_SCORES = 1 << 20  # that an answer may hold: 30 to 60 MB of JSON, which are sent at once


class ScoredBody(OpenAIBody):
    prompt_logprobs: Annotated[int, integer(0, most_logprobs)] | None = given(
        None, "Return log-probabilities of the prompt's tokens and of this many most probable ones; not streamed."
    )

    def conflicts(self, settings: FrontSettings) -> Iterator[Problem]:
        yield from super().conflicts(settings)
        if self.prompt_logprobs is not None and self.stream:
            yield "prompt_logprobs", "prompt_logprobs is not available with stream: true"


def too_many_scores(
    name: str, prompts: Iterable[Prompt], best: int, n: int, settings: FrontSettings
) -> Iterator[Problem]:
    """`best`: tokens beside each of the prompt; all choices repeat its scores."""
    scores = n * (1 + best) * sum(min(len(prompt), settings.max_prompt) for prompt in prompts)
    if scores > _MOST_SCORES:
        yield name, f"up to {scores} log-probabilities of prompts are asked for; an answer holds {_MOST_SCORES}"


def best_by_text(
    names: Vocabulary, top: Iterable[tuple[int, float]], token_id: int, logprob: float
) -> dict[str, float]:
    """The most probable tokens, and the chosen one if it is not among them. Of two with the same text, the more
    probable one."""
    best: dict[str, float] = {}
    for other, its in (*top, (token_id, logprob)):
        best.setdefault(names.token_text(other), finite(its))
    return best


class EchoScores:
    """The prompt's part of `logprobs`. `length`: characters of the prompt as it is echoed, where all offsets are."""

    def __init__(self, names: Vocabulary, top: int, length: int, *, skip_special: bool) -> None:
        self._names, self._top, self._length = names, top, length
        self._text, self._offset = IncrementalDetokenizer(names, skip_special=skip_special), 0
        self._pieces: dict[str, list[bytes]] = {name: [] for name in COLUMNS}

    def begin(self, first_id: int) -> None:
        self._add([first_id], [None], [None])

    def add(self, scores: PromptScores) -> None:
        ids, logprobs = scores.ids.tolist(), scores.logprobs.tolist()
        best: list[dict[str, float] | None] = [None] * len(ids)
        if self._top:
            tops = _tops(scores, self._top)
            best = [best_by_text(self._names, *one) for one in zip(tops, ids, logprobs, strict=True)]
        self._add(ids, [finite(one) for one in logprobs], best)

    def _add(
        self, ids: Sequence[int], logprobs: Sequence[float | None], best: Sequence[dict[str, float] | None]
    ) -> None:
        columns = {
            "text_offset": [self._next_offset(one) for one in ids],
            "token_logprobs": logprobs,
            "tokens": list(map(self._names.token_text, ids)),
            "top_logprobs": best,
        }
        for name, column in columns.items():
            self._pieces[name].append(_inside(column))

    def _next_offset(self, token_id: int) -> int:
        at = self._offset
        self._offset += len(self._text.push(token_id))
        return min(at, self._length)

    def before(self, columns: Mapping[str, Sequence[Any]]) -> bytes:
        """JSON of all columns: the prompt's, then these."""
        every = (b'"%b":%b' % (name.encode(), _list(self._pieces[name], columns[name])) for name in COLUMNS)
        return b"{" + b",".join(every) + b"}"


class PromptLogprobs:
    """vLLM's: for each token a map of ids, its own first. `rank` is null where the token is not among the most
    probable ones."""

    def __init__(self, names: Vocabulary, top: int) -> None:
        self._names, self._top = names, top
        self._pieces: list[bytes] = []

    def begin(self, first_id: int) -> None:
        self._pieces.append(b"null")

    def add(self, scores: PromptScores) -> None:
        each = zip(_tops(scores, self._top), scores.ids.tolist(), scores.logprobs.tolist(), strict=True)
        self._pieces.append(_inside([self._ranked(*one) for one in each]))

    def _ranked(self, top: Sequence[tuple[int, float]], token_id: int, logprob: float) -> dict[str, Any]:
        ranks = {other: rank for rank, (other, _) in enumerate(top, 1)}
        every = {token_id: logprob, **dict(top)}
        return {
            str(one): {"logprob": finite(its), "rank": ranks.get(one), "decoded_token": self._names.token_text(one)}
            for one, its in every.items()
        }

    def member(self) -> bytes:
        """To follow others in an object."""
        return b',"prompt_logprobs":' + _list(self._pieces)


def _tops(scores: PromptScores, most: int) -> list[list[tuple[int, float]]]:
    ids, logprobs = scores.top_ids[:, :most].tolist(), scores.top_logprobs[:, :most].tolist()
    return [list(zip(*one, strict=True)) for one in zip(ids, logprobs, strict=True)]


def _inside(values: Sequence[Any]) -> bytes:
    """A list's elements as JSON."""
    return orjson.dumps(values)[1:-1]


def _list(pieces: Sequence[bytes], values: Sequence[Any] = ()) -> bytes:
    return b"[" + b",".join([*pieces, *([_inside(values)] if values else ())]) + b"]"
