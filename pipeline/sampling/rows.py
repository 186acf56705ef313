"""Which request has which row, from which step on; and a request's text so far, its limits, and when it ends."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from model.sampling import SamplingParams
from model.tokenizer import (
    LONGEST_CHARACTER,
    IncrementalDetokenizer,
    ShowingSpecial,
    StopStrings,
    Tokenizer,
    end_with_bytes,
)
from pipeline.sampling.chooser import PendingAdmits
from pipeline.sampling.grammars import RowGrammars
from pipeline.wire.delta import Delta, FinishReason
from pipeline.wire.request import Assign, Drop, Request, RowChange, count_ids, unpack_request

_NO_EPOCH = -1


class Rows:
    """`pending`: what the sampler has yet to be told of. `grammars`: of rows that have one. `most_drafts`: of a
    row."""

    def __init__(
        self,
        max_rows: int,
        tokenizer: Tokenizer,
        pending: PendingAdmits,
        grammars: RowGrammars,
        most_drafts: int = 0,
    ) -> None:
        self._tokenizer, self._pending, self.grammars = tokenizer, pending, grammars
        self._most_drafts = most_drafts
        self._epochs = [_NO_EPOCH] * max_rows
        self._states: list[TextState | None] = [None] * max_rows
        self._by_request: dict[int, TextState] = {}
        self._coming: deque[Assign] = deque()

    def __len__(self) -> int:
        """Requests that are remembered: in a row, preempted, or about to get one."""
        return len(self._by_request)

    def change(self, change: RowChange) -> None:
        """Take up a record of the rows ring: an admission counts from its step on, a cancellation at once."""
        if isinstance(change, Drop):
            self._drop(change.request)
        else:
            self._state_of(change)  # now, since a step may be awaited meanwhile
            self._coming.append(change)

    def _state_of(self, assign: Assign) -> TextState:
        """Of its request; made if there is none."""
        if (state := self._by_request.get(assign.request)) is None:
            state = self._by_request[assign.request] = TextState.of(assign, self._tokenizer)
        return state

    def begin_step(self, step: int) -> None:
        """A row's sequence changes with the step that first serves the new one."""
        while self._coming and self._coming[0].from_step <= step:
            self._install(self._coming.popleft())

    def begin_alone(self) -> None:
        """The only one that is remembered: no step can be about another that had its row."""
        if len(self._coming) == len(self._by_request) == 1:
            self._install(self._coming.popleft())

    def _install(self, assign: Assign) -> None:
        state = self._state_of(assign)
        self._pending.add(assign, state.sampling, 0 if state.sampling.grammar else state.most_drafts)
        self.grammars.assign(assign, state.sampling.grammar, min(state.most_drafts, self._most_drafts))
        self._states[assign.row] = state
        self._epochs[assign.row] = assign.epoch

    def _drop(self, request: int) -> None:
        """A cancelled request, wherever it is: waiting for its row, in it, or preempted."""
        self._coming = deque(assign for assign in self._coming if assign.request != request)
        state = self._by_request.pop(request, None)
        for row, there in enumerate(self._states):
            if there is state:
                self._vacate(row)

    def _vacate(self, row: int) -> None:
        self._states[row] = None
        self._epochs[row] = _NO_EPOCH
        self._pending.discard(row)
        self.grammars.vacate(row)

    def select(self, rows: list[int], epochs: list[int]) -> list[int]:
        """Rows whose sequence is still there; -1 in place of others. Few as they are, they are looked at one by one:
        numpy's code would have to be fetched from memory first."""
        now = self._epochs
        return [row if now[row] == epoch else -1 for row, epoch in zip(rows, epochs, strict=True)]

    def state(self, row: int) -> TextState:
        """Of a row that `select` gave."""
        state = self._states[row]
        assert state is not None
        return state

    def release(self, row: int) -> None:
        """Its request has ended."""
        del self._by_request[self.state(row).request]
        self._vacate(row)


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
    most_drafts: int
    sampling: SamplingParams
    prompt_logprobs: int  # number of most probable tokens to report beside each of its prompt, if that is scored
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
            most_drafts=params.most_drafts,
            sampling=params.sampling,
            prompt_logprobs=params.prompt_logprobs or 0,
            text=_text_so_far(assign, params, tokenizer, stops),
            stops=stops,
        )

    def take(self, token: int, *, complete: bool = False) -> Delta:
        """The next token: its text, and whether it is the last. `complete`: by its grammar."""
        self.output_tokens += 1
        reason = self._reason(token)
        hidden = reason is FinishReason.EOS or (reason is FinishReason.STOP and not self.include_stop)
        if complete and not hidden:
            reason = FinishReason.STOP
        text = "" if hidden else self._pass(self.text.push(token))
        if self.stops.matched is None and reason is not FinishReason.NONE:
            text += self._pass(self.text.finish()) + self.stops.finish()
        if self.stops.matched is not None:
            return self._delta(token, FinishReason.STOP, text, self.stops.matched_index)
        return self._delta(token, reason, text)

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

    def _delta(self, token: int, reason: FinishReason, text: str, stop: int = -1) -> Delta:
        self.finished = reason is not FinishReason.NONE
        return Delta(self.request, self.attempt, self.output_tokens, token, math.nan, reason, text, (), stop)


def _text_so_far(assign: Assign, params: Request, tokenizer: Tokenizer, stops: StopStrings) -> IncrementalDetokenizer:
    """The detokenizer's state after the output; `stops` gets the end of the text, which may begin a stop string.

    All streams wait while this is done, so it reads no more of the output than can make a difference.
    """
    prompt, output = assign.prompt_ids, assign.output_ids
    source = ShowingSpecial(tokenizer, params.shown_ids) if params.shown_ids else tokenizer
    start = output.size
    if stops.memory and start:
        needed = LONGEST_CHARACTER * (stops.memory + 1)
        start = end_with_bytes(source, output.data, needed, skip_special=params.skip_special)
        start = min(max(start, params.sampling.min_tokens - 1), output.size)  # before, stop strings do not count
    context = np.concatenate((prompt, output[:start])) if start else prompt
    text = IncrementalDetokenizer(source, context.data, skip_special=params.skip_special)
    stops.push("".join(map(text.push, output[start:].tolist())))
    return text
