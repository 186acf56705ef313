"""From a request to sequences for the scheduler: tokenized, checked, hashed for the prefix cache. Long prompts are
tokenized in threads, so that no step waits for a text.

A text can't be split without changing its tokens, and the tokenizer can't be interrupted: a long text takes seconds.
So there are two lanes, each a thread, and a text of usual length never waits for a very long one. Within a lane the
order is that of arrival. Lanes have low priority, and do nothing but call the tokenizer, which releases the GIL.
Python code that handles the ids has a thread of normal priority: at low priority it could lose its CPU while it holds
the GIL, and so block the loop.

The request that each lane works on is published on the statistics page: if this process fails, that request is to
blame; if it takes too long, the launcher's log names it.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from model.tokenizer import InvalidTextError, Tokenizer
from pipeline.preprocess.adapters import Adapter, adapters_of
from pipeline.preprocess.blocks import BlockManager, Digest
from pipeline.preprocess.encodings import Encodings, Tokenized
from pipeline.preprocess.sequence import ARGMAX_ON_DEVICE, NO_DRAW, Abilities, Sequence, Wants, draw_of
from pipeline.preprocess.work_thread import WorkThread
from pipeline.runtime import background
from pipeline.stats import Counters, PreprocessCounter
from pipeline.wire.request import (
    TOO_LONG,
    Choice,
    Encode,
    Refused,
    Request,
    Submit,
    count_ids,
    ids_of,
    too_long,
    unpack_request,
)
from pipeline.wire.step import Int32

log = logging.getLogger("ringserve.preprocess")

_NO_SCORES = (
    "log-probabilities of prompts are not computed here: the engine brings logits only, or has to "
    "(pipeline.greedy_on_device: false)"
)
LONG = 1 << 16  # characters from which a prompt goes to the second lane; the tokenizer takes some 40 ms for as many


@dataclass(frozen=True, slots=True)
class PreprocessLimits:
    """Limits of requests and of the queue."""

    max_length: int  # prompt and output tokens together
    max_prompt: int
    max_queue: int  # requests waiting for a row
    end_ids: frozenset[int]
    max_queue_chars: int = 1 << 23  # of the texts that wait to be tokenized
    abilities: Abilities = ARGMAX_ON_DEVICE
    not_deterministic: Callable[[], str] = str  # why no request can be, or nothing
    adapters: Mapping[str, Adapter] = field(default_factory=lambda: adapters_of({}))  # by name


class PromptReader:
    """Uses no rings and no queue, and may be called by any thread."""

    def __init__(self, tokenizer: Tokenizer, limits: PreprocessLimits, blocks: BlockManager) -> None:
        self.limits = limits
        self._tokenizer, self._name = tokenizer, blocks.name
        self._end_ids = tuple(sorted(limits.end_ids))
        self._longest = min(limits.max_length, (blocks.num_blocks - 1) * blocks.block_size)

    def tokenize(self, submit: Submit) -> Tokenized:
        """The part that takes long, and that releases the GIL."""
        return self._tokenized(submit.request, partial(self._token_ids, submit))

    def encode(self, asked: Encode) -> Tokenized:
        """As `tokenize`, for a text of which nothing is generated."""
        encode = partial(self._tokenizer.encode_up_to, asked.text, asked.most)
        return self._tokenized(asked.request, partial(encode, add_special=asked.add_special, plain=asked.plain))

    def _tokenized(self, request: int, encode: Callable[[], tuple[int, Int32]]) -> Tokenized:
        try:
            return Tokenized(*encode())
        except InvalidTextError as error:
            return Tokenized(refusal=(400, str(error)))
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:  # a panic of a library in Rust is no Exception; it must affect this request only
            log.exception("request %016x: the tokenizer failed on its prompt", request)
            return Tokenized(refusal=(500, "the tokenizer failed on this prompt"))

    def read(self, submit: Submit, tokenized: Tokenized | None = None) -> list[Sequence | Refused]:
        """One for each choice."""
        prompt = tokenized or self.tokenize(submit)
        if prompt.refusal is not None:
            status, why = prompt.refusal
            return [_refuse(choice, status, why, "prompt") for choice in submit.choices]
        try:
            return self._sequences(submit, prompt)
        except MemoryError:
            log.exception("request %016x: out of memory for its tokens", submit.request)
            return [_refuse(choice, 500, "the server ran out of memory") for choice in submit.choices]

    def _sequences(self, submit: Submit, prompt: Tokenized) -> list[Sequence | Refused]:
        digests: list[Digest] = []
        request = unpack_request(submit.params)
        adapter = self.limits.adapters.get(request.adapter)
        if adapter is None:
            why = f"the adapter {request.adapter} is not loaded here"
            return [_refuse(choice, 404, why, "model") for choice in submit.choices]
        if not self.limits.abilities.can_score(request):
            return [_refuse(choice, 400, _NO_SCORES, "prompt_logprobs") for choice in submit.choices]
        if request.deterministic and (why := self.limits.not_deterministic()):
            return [_refuse(choice, 400, why, "deterministic") for choice in submit.choices]
        if prompt.count <= self.limits.max_prompt:
            self._name(prompt.ids, digests, adapter.root_of(deterministic=request.deterministic))
        return [self._read_choice(submit, request, choice, prompt, digests, adapter) for choice in submit.choices]

    def _token_ids(self, submit: Submit) -> tuple[int, Int32]:
        """Their number, and the ids unless they are too many."""
        if submit.text is not None:
            most, plain = self.limits.max_prompt, submit.plain
            return self._tokenizer.encode_up_to(submit.text, most, add_special=submit.add_special, plain=plain)
        return submit.size, ids_of(submit.token_ids)

    def _read_choice(
        self,
        submit: Submit,
        request: Request,
        choice: Choice,
        prompt: Tokenized,
        digests: list[Digest],
        adapter: Adapter,
    ) -> Sequence | Refused:
        count, output = prompt.count, ids_of(choice.output)
        most = self._most_tokens(request, count)
        refused = self._refusal(choice, most, count)
        if refused is not None:
            return refused
        known = count + output.size
        tokens = np.zeros(count + most, np.int32)
        tokens[:count] = prompt.ids
        if output.size:
            tokens[count:known] = output
            digests = digests.copy()
            self._name(tokens[:known], digests, adapter.root_of(deterministic=request.deterministic))
        elif len(submit.choices) > 1:
            digests = digests.copy()  # sequences extend them
        ends = () if request.ignore_eos else self._end_ids
        wants = Wants.of(request, ends, self.limits.abilities)
        return Sequence(
            choice.request,
            tokens,
            prompt=count,
            limit=tokens.size,
            known=known,
            digests=digests,
            arrival_ns=submit.arrival_ns,
            wants=wants,
            prompt_wants=Wants.of_prompt(request),
            to_score=0 if request.prompt_logprobs is None else count - 1,
            scored=choice.scored,
            adapter=adapter,
            moved=submit.moved,
            suspect=submit.suspect,
            deterministic=request.deterministic,
            owner=submit.owner,
            deadline_ns=submit.deadline_ns,
            draw=draw_of(request.sampling) if wants.draws else NO_DRAW,
            seed=choice.seed,
            attempt=choice.attempt,
            end_ids=ends,
            params=submit.params,
        )

    def _most_tokens(self, request: Request, count: int) -> int:
        """A limit that the client did not set is reduced to what fits."""
        room, least = self._longest - count, max(1, request.sampling.min_tokens)
        return room if request.open_ended and least <= room < request.max_tokens else request.max_tokens

    def _refusal(self, choice: Choice, wanted: int, count: int) -> Refused | None:
        most, longest = self.limits.max_prompt, self._longest
        if count == 0:
            return _refuse(choice, 400, "the prompt has no tokens", "prompt")
        if count > most:
            text = too_long(longest, f"your prompt has {count} tokens, of which at most {most} are allowed")
            return _refuse(choice, 400, text, "prompt", TOO_LONG)
        if count + wanted > longest:
            told = f"you requested {count + wanted} tokens ({count} in the prompt, {wanted} in the completion)"
            text = too_long(longest, told, "prompt or completion")
            return _refuse(choice, 400, text, "max_tokens", TOO_LONG)
        if count_ids(choice.output) >= wanted:
            return _refuse(choice, 500, "the request could not be resumed: no token is left to compute")
        return None


def _refuse(choice: Choice, status: int, why: str, parameter: str | None = None, code: str | None = None) -> Refused:
    return Refused(choice.request, choice.attempt, status, why, parameter, code)


class Job:
    """A prompt to be tokenized. Only the thread that made it may call it, except for `tokenize` and `read`."""

    def __init__(self, submit: Submit, reader: PromptReader) -> None:
        self.requests = {choice.request for choice in submit.choices}  # not cancelled
        self.size = submit.size
        self.is_text = submit.text is not None
        self._submit: Submit | None = submit
        self._reader = reader
        self._tokenized: Tokenized | None = None
        self._results: list[Sequence | Refused] = []

    def cancel(self, request: int) -> None:
        self.requests.discard(request)
        if not self.requests:
            self._submit = None  # the text need not be kept until its turn comes

    def tokenize(self, publish: Callable[[int], None]) -> None:
        submit = self._submit
        if submit is not None:
            publish(submit.request)
            self._tokenized = self._reader.tokenize(submit)
            publish(0)

    def read(self) -> None:
        submit = self._submit
        if submit is not None:
            self._results = self._reader.read(submit, self._tokenized)

    def results(self) -> list[Sequence | Refused]:
        """One for each request that was not cancelled."""
        return [result for result in self._results if result.request in self.requests]


class PromptPool:
    """Called by one thread. `fileno` is readable when `take` may have something."""

    def __init__(self, counters: Counters | None = None) -> None:
        self._counters = counters
        self._reading: WorkThread[Job] = WorkThread("reading", self._read)
        self._lanes = (self._lane(PreprocessCounter.TOKENIZING), self._lane(PreprocessCounter.TOKENIZING_LONG))
        self.encodings = Encodings(self._publisher(PreprocessCounter.ENCODING), self._wake)
        self._jobs: dict[int, Job] = {}  # by request
        self._done: deque[Job] = deque()
        self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.characters = 0  # of all prompts; a token id counts as one

    def _publisher(self, word: PreprocessCounter) -> Callable[[int], None]:
        counters = self._counters

        def publish(request: int) -> None:
            if counters is not None:
                counters.set(word, request)

        return publish

    def _lane(self, word: PreprocessCounter) -> WorkThread[Job]:
        publish = self._publisher(word)

        def tokenize(job: Job) -> None:
            job.tokenize(publish)
            self._reading.put(job)

        return WorkThread(word.name.lower(), tokenize, background.lower_priority)

    @property
    def requests(self) -> int:
        """Requests whose prompt is being tokenized, or waits for that."""
        return len(self._jobs)

    def fileno(self) -> int:
        return self._eventfd

    def add(self, job: Job) -> None:
        self._jobs |= dict.fromkeys(job.requests, job)
        self.characters += job.size
        thread = self._lanes[job.size > LONG] if job.is_text else self._reading
        thread.put(job)

    def cancel(self, request: int) -> bool:
        """Forget a request; False: it is not here (any more)."""
        job = self._jobs.pop(request, None)
        if job is None:
            return False
        job.cancel(request)
        if not job.requests:
            self.characters -= job.size
        return True

    def take(self) -> Job | None:
        """A prompt that is done, if there is one."""
        while self._done:
            job = self._done.popleft()
            if job.requests:
                self._forget(job)
                return job
        return None

    def clear(self) -> None:
        """Forget all: the front sends their requests again, unless they were cancelled."""
        for request in list(self._jobs):
            self.cancel(request)
        self._done.clear()
        self.encodings.clear()

    def close(self) -> None:
        """Wait for running jobs, and end the threads."""
        self.clear()
        for thread in (*self._lanes, self._reading):
            thread.end()
        self.encodings.close()
        os.close(self._eventfd)

    def _forget(self, job: Job) -> None:
        for request in job.requests:
            del self._jobs[request]
        self.characters -= job.size

    def _read(self, job: Job) -> None:
        job.read()
        self._done.append(job)
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self._eventfd, 1)
