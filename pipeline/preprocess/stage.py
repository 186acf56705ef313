"""The preprocess stage: requests in, step descriptors out, one step ahead of the device.

Tokenizing, admission and scheduling happen while the device computes. Two loops drive it: `run_overlapped` plans step
*k + 1* while step *k* runs, `run_plain` waits for the results of each step before it plans the next. Both give the
same text.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import ipc
from model.tokenizer import InvalidTextError, Tokenizer
from pipeline.descriptors import Head, Shapes, Stamp, results_layout, step_layout
from pipeline.messages import (
    Accepted,
    Admit,
    Cancel,
    Drop,
    GenerationParams,
    Refused,
    Started,
    Submit,
    unpack_request,
)
from pipeline.preprocess.quarantine import Quarantine
from pipeline.preprocess.scheduler import Scheduler
from pipeline.preprocess.sequence import Sequence
from pipeline.stats import Counters, PreprocessCounter, RingEnds

_NS = time.CLOCK_MONOTONIC
TOO_LONG = "context_length_exceeded"  # OpenAI's code, by which clients know that they may shorten the prompt
OVERLAPPED = 2  # steps under way: one computes, one waits with all but its token ids
PLAIN = 1


@dataclass(frozen=True, slots=True)
class PreprocessLimits:
    """What a request may ask for."""

    max_length: int  # prompt and output tokens together
    max_prompt: int
    max_queue: int  # requests waiting for a row
    greedy_on_device: bool
    end_ids: frozenset[int]
    max_prompt_chars: int = 1 << 20  # of text: what can't fit anyway is not to stop all rows while it is tokenized


class PreprocessStage:
    """Owns the scheduler and the ends of the rings around it."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        scheduler: Scheduler,
        limits: PreprocessLimits,
        shapes: Shapes,
        *,
        requests: ipc.ByteConsumer,
        results: ipc.SlotConsumer,
        replies: ipc.ByteProducer,
        rows: ipc.ByteProducer,
        steps: ipc.SlotProducer,
        selector: ipc.RingSelector,
        counters: Counters | None = None,
        ends: RingEnds | None = None,
        quarantine: Quarantine | None = None,
    ) -> None:
        self.scheduler = scheduler
        self.steps_planned = 0
        self.steps_done = 0
        self._tokenizer, self._limits = tokenizer, limits
        self._requests, self._results = requests, results
        self._replies, self._rows, self._steps = replies, rows, steps
        self._unsent: list[bytes] = []  # replies; a step is not to wait for them
        self._selector = selector
        self._counters, self._ends = counters, ends
        self._counted = {counter: counters.get(counter) for counter in _COUNTED} if counters else {}
        self._quarantine = quarantine or Quarantine()
        self._step_views = step_layout(shapes).resident_views(steps)
        self._result_views = results_layout(shapes).resident_views(results)

    def set_limits(self, limits: PreprocessLimits) -> None:
        """Those of requests that come from now on."""
        self._limits = limits

    # ---- the two loops --------------------------------------------------------------------------------------

    def run_overlapped(self, running: Callable[[], bool]) -> None:
        """Plan the next step while the device computes this one."""
        while running():
            moved = self.take_results() | self.take_request()
            if self.may_plan(OVERLAPPED):
                moved |= self.plan_step()
            self._rest(moved)

    def run_plain(self, running: Callable[[], bool]) -> None:
        """Plan a step when the one before is known in full."""
        while running():
            moved = self.take_results() | self.take_request()
            if self.may_plan(PLAIN):
                moved |= self.plan_step()
            self._rest(moved)

    def _rest(self, moved: bool) -> None:
        """Publish the gauges; sleep if there was nothing to do."""
        if self._counters is not None:
            publish_gauges(self._counters, self.scheduler, self.steps_planned, self._counted)
        if self._ends is not None:
            self._ends.copy()
        self.send_replies()
        if not moved:
            self._selector.wait(timeout=1.0)

    @property
    def under_way(self) -> int:
        return self.steps_planned - self.steps_done

    def may_plan(self, ahead: int) -> bool:
        """Whether another step may be under way; in a quarantine it must be the only one."""
        return self.under_way < (PLAIN if self.scheduler.quarantined else ahead)

    # ---- what a loop does -----------------------------------------------------------------------------------

    def take_results(self) -> bool:
        """Apply the results of steps that are done; False if there are none."""
        moved = False
        while (slot := self._results.try_read()) is not None:
            views = self._result_views[slot.index]
            self._apply(views, int(views.head[Head.LIVE_ROWS]))
            slot.release()
            self.steps_done += 1
            moved = True
        return moved

    def _apply(self, views: Any, rows: int) -> None:
        columns = (views.rows, views.epochs, views.sampled, views.token_ids, views.finished)
        for row, epoch, sampled, token, finished in zip(*(column[:rows].tolist() for column in columns), strict=True):
            if sampled:
                self.scheduler.on_token(row, epoch, token, finished=bool(finished))

    def take_request(self) -> bool:
        """Handle one message of the front; False if there is none. One at a time: steps are not to wait for them."""
        record = self._requests.try_read()
        if record is None:
            return False
        with record:
            message = unpack_request(bytes(record))
        if isinstance(message, Cancel):
            self._cancel(message.request)
        else:
            self._unsent.append(self._submit(message).pack())
        return True

    def send_replies(self) -> None:
        """Tell the front what became of requests since the last time."""
        if self._unsent:
            self._replies.write_many(self._unsent)
            self._unsent.clear()

    def _cancel(self, request: int) -> None:
        sequence = self.scheduler.cancel(request)
        if sequence is not None:
            self._rows.write(Drop(request).pack())

    def _submit(self, message: Submit) -> Accepted | Refused:
        if self._quarantine.is_convicted(message.request):
            return Refused(message.request, 500, "the request made a process of the server fail twice")
        refusal = None if message.resumed else self._turn_away(message)
        if refusal is not None:
            return refusal
        try:
            ids = self._token_ids(message)
        except InvalidTextError as error:
            return Refused(message.request, 400, str(error), "prompt")
        message = self._shorten(message, len(ids))
        refusal = self._check(message, len(ids))
        if refusal is not None:
            return refusal
        self.scheduler.submit(self._sequence(message, ids))
        return Accepted(message.request, ids)

    def _turn_away(self, message: Submit) -> Refused | None:
        """What can be said before a prompt is tokenized; limits may have changed since a request was let in."""
        if len(self.scheduler.waiting) >= self._limits.max_queue:
            return Refused(message.request, 429, f"the queue is full ({self._limits.max_queue} requests wait)")
        if isinstance(message.prompt, str) and len(message.prompt) > self._limits.max_prompt_chars:
            return Refused(message.request, 400, self._too_many_characters(message.prompt), "prompt")
        return None

    def _too_many_characters(self, prompt: str) -> str:
        limits = self._limits
        allowed = f"at most {limits.max_prompt_chars} characters and {limits.max_prompt} tokens are allowed"
        return f"the prompt has {len(prompt)} characters; {allowed}"

    def _token_ids(self, message: Submit) -> list[int]:
        if isinstance(message.prompt, str):
            return self._tokenizer.encode(message.prompt, add_special=message.add_special)
        return message.prompt

    @property
    def _longest(self) -> int:
        """Tokens of a sequence that is alone."""
        blocks = self.scheduler.blocks
        return min(self._limits.max_length, (blocks.num_blocks - 1) * blocks.block_size)

    def _shorten(self, message: Submit, prompt: int) -> Submit:
        """A limit that the client did not name is cut to what fits."""
        room, least = self._longest - prompt, max(1, message.params.sampling.min_tokens)
        if not message.params.open_ended or not least <= room < message.params.max_tokens:
            return message
        return dataclasses.replace(message, params=dataclasses.replace(message.params, max_tokens=room))

    def _check(self, message: Submit, prompt: int) -> Refused | None:
        limits, wanted, longest = self._limits, message.params.max_tokens, self._longest
        if prompt == 0:
            return Refused(message.request, 400, "the prompt has no tokens", "prompt")
        if prompt > limits.max_prompt:
            text = f"the prompt has {prompt} tokens; at most {limits.max_prompt} are allowed"
            return Refused(message.request, 400, text, "prompt", TOO_LONG)
        if prompt + wanted > longest:
            text = (
                f"{prompt} prompt tokens and {wanted} new ones are more than the {longest} that this server can hold"
            )
            return Refused(message.request, 400, text, "max_tokens", TOO_LONG)
        if len(message.output) >= wanted:
            return Refused(message.request, 500, "the request could not be resumed: no token is left to compute")
        return None

    def _sequence(self, message: Submit, ids: list[int]) -> Sequence:
        tokens = np.zeros(len(ids) + message.params.max_tokens, np.int32)
        known = len(ids) + len(message.output)
        tokens[:known] = ids + message.output
        params = self._complete(message)
        return Sequence(
            message.request,
            tokens,
            prompt=len(ids),
            limit=tokens.size,
            known=known,
            cached=message.cached_tokens,
            arrival_ns=message.arrival_ns,
            greedy=params.sampling.argmax_suffices and not params.raw_logit,
            logprobs=params.sampling.logprobs is not None,
            argmax=params.sampling.chooses_argmax,
            params=params,
        )

    def _complete(self, message: Submit) -> GenerationParams:
        """With a seed, so that a sequence that is preempted goes on as it began, and the model's end tokens."""
        params = message.with_seed().params
        sampling = params.sampling
        ends = () if params.ignore_eos else tuple(self._limits.end_ids - set(sampling.stop_token_ids))
        sampling = dataclasses.replace(sampling, stop_token_ids=(*sampling.stop_token_ids, *ends))
        return dataclasses.replace(params, sampling=sampling)

    def plan_step(self) -> bool:
        """Write and publish the next descriptor, then what is to be told of requests; False if there is nothing to
        compute."""
        planned = self._plan_step()
        self.send_replies()
        return planned

    def _plan_step(self) -> bool:
        if not self.scheduler.has_work:
            return False
        slot = self._steps.reserve()
        views = self._step_views[slot.index]
        views.stamps[:] = 0
        views.stamps[Stamp.BEGUN] = time.clock_gettime_ns(_NS)
        plan = self.scheduler.schedule(views, slot.index)
        if plan is None:
            slot.abandon()
            return False
        number = self.steps_planned + 1
        views.head[Head.STEP] = number
        views.head[Head.NEEDS : Head.LOGPROBS + 1] = (
            number - 1 if plan.decode_rows else 0,
            self._limits.greedy_on_device and self.scheduler.greedy,
            self.scheduler.argmax,
            self.scheduler.logprobs,
        )
        self._announce(number)
        views.stamps[Stamp.SCHEDULED] = time.clock_gettime_ns(_NS)
        slot.publish()
        self.steps_planned = number
        return True

    def _announce(self, step: int) -> None:
        """Tell sampling who sits where from this step on, before it can see the step."""
        for sequence in self.scheduler.admissions:
            if sequence.row >= 0:
                self._rows.write(self._admit(sequence, step).pack())
                if sequence.fresh:
                    waited = time.clock_gettime_ns(_NS) - sequence.arrival_ns
                    self._unsent.append(Started(sequence.request, waited, sequence.cached).pack())
        self.scheduler.admissions.clear()

    @staticmethod
    def _admit(sequence: Sequence, step: int) -> Admit:
        assert sequence.params is not None
        return Admit(
            request=sequence.request,
            from_step=step,
            row=sequence.row,
            epoch=sequence.epoch,
            limit=sequence.limit,
            cached_tokens=sequence.cached,
            params=sequence.params,
            prompt_ids=sequence.tokens[: sequence.prompt],
            output_ids=sequence.tokens[sequence.prompt : sequence.known],
            arrival_ns=sequence.arrival_ns,
        )


_COUNTED = (
    PreprocessCounter.STEPS,
    PreprocessCounter.PREFIX_QUERIES,
    PreprocessCounter.PREFIX_HITS,
    PreprocessCounter.PREEMPTIONS,
    PreprocessCounter.ADMITTED,
    PreprocessCounter.CANCELLED,
)


def publish_gauges(
    counters: Counters, scheduler: Scheduler, steps: int, before: Mapping[PreprocessCounter, int]
) -> None:
    """What `/metrics` shows of the scheduler: plain stores into the statistics page. `before` is what the schedulers
    of earlier generations have counted."""
    blocks, stats = scheduler.blocks, scheduler.stats
    counted = (steps, blocks.stats.queries, blocks.stats.hits, stats.preemptions, stats.admitted, stats.cancelled)
    for counter, count in zip(_COUNTED, counted, strict=True):
        counters.set(counter, before[counter] + count)
    counters.set(PreprocessCounter.WAITING, len(scheduler.waiting))
    counters.set(PreprocessCounter.RUNNING, scheduler.running)
    counters.set(PreprocessCounter.KV_BLOCKS_USED, blocks.used)
    counters.set(PreprocessCounter.KV_BLOCKS_TOTAL, blocks.num_blocks - 1)
    counters.set(PreprocessCounter.CACHED_BLOCKS, blocks.cached)
