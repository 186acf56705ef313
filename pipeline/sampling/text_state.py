"""Sampling's state of a request: its text so far, its limits, and when it ends."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from model.sampling import SamplingParams
from model.tokenizer import LONGEST_CHARACTER, IncrementalDetokenizer, StopStrings, Tokenizer, end_with_bytes
from pipeline.wire.delta import Delta, FinishReason
from pipeline.wire.request import Assign, Request, count_ids, unpack_request


@dataclass(slots=True)
class TextState:
    """A request that has, or had, a row."""

    request: int
    attempt: int
    prompt_tokens: int
    limit: int
    output_tokens: int
    end_ids: frozenset[int]
    stop_ids: frozenset[int]
    min_tokens: int
    top_logprobs: int  # number of most probable tokens to report beside the chosen one; -1: no log-probabilities
    include_stop: bool
    raw_logit: bool
    sampling: SamplingParams
    text: IncrementalDetokenizer
    stops: StopStrings
    finished: bool = False

    @classmethod
    def of(cls, assign: Assign, tokenizer: Tokenizer) -> TextState:
        """The state at admission: after the tokens that its client has received already, if it was resumed or
        preempted."""
        params, end_ids = unpack_request(assign.params), frozenset(assign.end_ids)
        stops = StopStrings(params.stop, include=params.include_stop)
        return cls(
            request=assign.request,
            attempt=assign.attempt,
            prompt_tokens=count_ids(assign.prompt),
            limit=assign.limit,
            output_tokens=count_ids(assign.output),
            end_ids=end_ids,
            stop_ids=frozenset(params.sampling.stop_token_ids) - end_ids,
            min_tokens=params.sampling.min_tokens,
            top_logprobs=-1 if params.sampling.logprobs is None else params.sampling.logprobs,
            include_stop=params.include_stop,
            raw_logit=params.raw_logit,
            sampling=params.sampling,
            text=_text_so_far(assign, params, tokenizer, stops),
            stops=stops,
        )

    def take(self, token: int) -> Delta:
        """The next token: its text, and whether it is the last."""
        self.output_tokens += 1
        reason = self._reason(token)
        hidden = reason is FinishReason.EOS or (reason is FinishReason.STOP and not self.include_stop)
        text = "" if hidden else self._pass(self.text.push(token))
        if self.stops.matched is None and reason is not FinishReason.NONE:
            text += self._pass(self.text.finish()) + self.stops.finish()
        return self._delta(token, FinishReason.STOP if self.stops.matched is not None else reason, text)

    def _pass(self, text: str) -> str:
        """Stop strings do not count before `min_tokens`, as in vLLM."""
        return text if self.output_tokens < self.min_tokens else self.stops.push(text)

    def fail(self, why: str) -> Delta:
        return self._delta(-1, FinishReason.FAILED, why)

    def _reason(self, token: int) -> FinishReason:
        if token in self.end_ids:
            return FinishReason.EOS
        if token in self.stop_ids:
            return FinishReason.STOP
        at_limit = self.prompt_tokens + self.output_tokens >= self.limit
        return FinishReason.LENGTH if at_limit else FinishReason.NONE

    def _delta(self, token: int, reason: FinishReason, text: str) -> Delta:
        self.finished = reason is not FinishReason.NONE
        return Delta(self.request, self.attempt, self.output_tokens, token, math.nan, reason, text)


def _text_so_far(assign: Assign, params: Request, tokenizer: Tokenizer, stops: StopStrings) -> IncrementalDetokenizer:
    """The detokenizer's state after the output; `stops` gets the end of the text, which may begin a stop string.

    All streams wait while this is done, so it reads no more of the output than can make a difference.
    """
    prompt, output = assign.prompt_ids, assign.output_ids
    start = output.size
    if stops.memory and start:
        needed = LONGEST_CHARACTER * (stops.memory + 1)
        start = end_with_bytes(tokenizer, output.data, needed, skip_special=params.skip_special)
        start = min(max(start, params.sampling.min_tokens - 1), output.size)  # before, stop strings do not count
    context = np.concatenate((prompt, output[:start])) if start else prompt
    text = IncrementalDetokenizer(tokenizer, context.data, skip_special=params.skip_special)
    stops.push("".join(map(text.push, output[start:].tolist())))
    return text
