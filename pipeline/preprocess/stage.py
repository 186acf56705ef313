"""The preprocess stage: requests in, step descriptors out, one step ahead of the device.

Tokenizing, admission and scheduling happen while the device computes. Two loops drive it: `run_overlapped` plans step
*k + 1* while step *k* runs, `run_plain` waits for the results of each step before it plans the next. Both give the
same text.
"""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import ipc
from model.tokenizer import InvalidTextError, Tokenizer
from pipeline.descriptors import Head, Shapes, Stamp, results_layout, step_layout
from pipeline.messages import Accepted, Admit, Cancel, Drop, Refused, Started, Submit, unpack_request
from pipeline.preprocess.scheduler import Scheduler
from pipeline.preprocess.sequence import Sequence
from pipeline.stats import Counters, PreprocessCounter

_NS = time.CLOCK_MONOTONIC
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
    ) -> None:
        self.scheduler = scheduler
        self.steps_planned = 0
        self.steps_done = 0
        self._tokenizer, self._limits = tokenizer, limits
        self._requests, self._results = requests, results
        self._replies, self._rows, self._steps = replies, rows, steps
        self._selector = selector
        self._counters = counters
        self._step_views = step_layout(shapes).resident_views(steps)
        self._result_views = results_layout(shapes).resident_views(results)

    # ---- the two loops --------------------------------------------------------------------------------------

    def run_overlapped(self, running: Callable[[], bool]) -> None:
        """Plan the next step while the device computes this one."""
        while running():
            moved = self.take_results() | self.take_request()
            if self.under_way < OVERLAPPED:
                moved |= self.plan_step()
            self._rest(moved)

    def run_plain(self, running: Callable[[], bool]) -> None:
        """Plan a step when the one before is known in full."""
        while running():
            moved = self.take_results() | self.take_request()
            if self.under_way < PLAIN:
                moved |= self.plan_step()
            self._rest(moved)

    def _rest(self, moved: bool) -> None:
        """Publish the gauges; sleep if there was nothing to do."""
        if self._counters is not None:
            publish_gauges(self._counters, self.scheduler, self.steps_planned)
        if not moved:
            self._selector.wait(timeout=1.0)

    @property
    def under_way(self) -> int:
        return self.steps_planned - self.steps_done

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
            self._replies.write(self._submit(message).pack())
        return True

    def _cancel(self, request: int) -> None:
        sequence = self.scheduler.cancel(request)
        if sequence is not None:
            self._rows.write(Drop(request).pack())

    def _submit(self, message: Submit) -> Accepted | Refused:
        if len(self.scheduler.waiting) >= self._limits.max_queue:
            return Refused(message.request, 429, f"the queue is full ({self._limits.max_queue} requests wait)")
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
        room = self._longest - prompt
        if not message.params.open_ended or not 1 <= room < message.params.max_tokens:
            return message
        return dataclasses.replace(message, params=dataclasses.replace(message.params, max_tokens=room))

    def _check(self, message: Submit, prompt: int) -> Refused | None:
        limits, wanted, longest = self._limits, message.params.max_tokens, self._longest
        if prompt == 0:
            return Refused(message.request, 400, "the prompt has no tokens", "prompt")
        if prompt > limits.max_prompt:
            text = f"the prompt has {prompt} tokens; at most {limits.max_prompt} are allowed"
            return Refused(message.request, 400, text, "prompt")
        if prompt + wanted > longest:
            text = (
                f"{prompt} prompt tokens and {wanted} new ones are more than the {longest} that this server can hold"
            )
            return Refused(message.request, 400, text, "max_tokens")
        return None

    def _sequence(self, message: Submit, ids: list[int]) -> Sequence:
        tokens = np.zeros(len(ids) + message.params.max_tokens, np.int32)
        tokens[: len(ids)] = ids
        params = self._complete(message)
        return Sequence(
            message.request,
            tokens,
            prompt=len(ids),
            limit=tokens.size,
            known=len(ids),
            arrival_ns=message.arrival_ns,
            greedy=params.sampling.argmax_suffices and not params.raw_logit,
            logprobs=params.sampling.logprobs is not None,
            argmax=params.sampling.chooses_argmax,
            params=params,
        )

    def _complete(self, message: Submit) -> Any:
        """Fix the seed, so that a sequence that is preempted goes on as it began, and add the model's end tokens."""
        params = message.params
        sampling = params.sampling
        ends = () if params.ignore_eos else tuple(self._limits.end_ids - set(sampling.stop_token_ids))
        seed = secrets.randbits(63) if sampling.seed in (None, -1) else sampling.seed
        sampling = dataclasses.replace(sampling, seed=seed, stop_token_ids=(*sampling.stop_token_ids, *ends))
        return dataclasses.replace(params, sampling=sampling)

    def plan_step(self) -> bool:
        """Write and publish the next descriptor; False if there is nothing to compute."""
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
        views.head[Head.NEEDS] = number - 1 if plan.decode_rows else 0
        views.head[Head.GREEDY] = self._limits.greedy_on_device and self.scheduler.greedy
        views.head[Head.LOGPROBS] = self.scheduler.logprobs
        views.head[Head.FORESEEN] = self.scheduler.argmax
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
                if not sequence.preemptions:
                    waited = time.clock_gettime_ns(_NS) - sequence.arrival_ns
                    self._replies.write(Started(sequence.request, waited).pack())
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


def publish_gauges(counters: Counters, scheduler: Scheduler, steps: int) -> None:
    """What `/metrics` shows of the scheduler: plain stores into the statistics page."""
    blocks, stats = scheduler.blocks, scheduler.stats
    counters.set(PreprocessCounter.STEPS, steps)
    counters.set(PreprocessCounter.WAITING, len(scheduler.waiting))
    counters.set(PreprocessCounter.RUNNING, scheduler.running)
    counters.set(PreprocessCounter.KV_BLOCKS_USED, blocks.used)
    counters.set(PreprocessCounter.KV_BLOCKS_TOTAL, blocks.num_blocks - 1)
    counters.set(PreprocessCounter.CACHED_BLOCKS, blocks.cached)
    counters.set(PreprocessCounter.PREFIX_QUERIES, blocks.stats.queries)
    counters.set(PreprocessCounter.PREFIX_HITS, blocks.stats.hits)
    counters.set(PreprocessCounter.PREEMPTIONS, stats.preemptions)
    counters.set(PreprocessCounter.ADMITTED, stats.admitted)
    counters.set(PreprocessCounter.CANCELLED, stats.cancelled)
