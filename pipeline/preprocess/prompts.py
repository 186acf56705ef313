"""From a request to sequences for the scheduler: tokenized, checked, hashed for the prefix cache."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass, field

import numpy as np

from model.tokenizer import InvalidTextError, Tokenizer
from pipeline.preprocess.blocks import BlockManager, Digest
from pipeline.preprocess.sequence import Sequence
from pipeline.preprocess.wants import ARGMAX_ON_DEVICE, Abilities, Wants
from pipeline.wire.request import TOO_LONG, Choice, GenerationParams, Refused, Submit
from pipeline.wire.step import Int32

log = logging.getLogger("ringserve.preprocess")


@dataclass(frozen=True, slots=True)
class PreprocessLimits:
    """Limits of requests and of the queue."""

    max_length: int  # prompt and output tokens together
    max_prompt: int
    max_queue: int  # requests waiting for a row
    end_ids: frozenset[int]
    max_queue_chars: int = 1 << 23  # of the texts that wait to be tokenized
    abilities: Abilities = ARGMAX_ON_DEVICE


@dataclass(frozen=True, slots=True)
class Tokenized:
    """A prompt: the number of token ids, and the ids unless they are too many; or status and reason of a refusal."""

    count: int = 0
    ids: Int32 = field(default_factory=lambda: np.zeros(0, np.int32))
    refusal: tuple[int, str] | None = None


class PromptReader:
    """Uses no rings and no queue, and may be called by any thread."""

    def __init__(self, tokenizer: Tokenizer, limits: PreprocessLimits, blocks: BlockManager) -> None:
        self._tokenizer, self._limits, self._name = tokenizer, limits, blocks.name
        self._longest = min(limits.max_length, (blocks.num_blocks - 1) * blocks.block_size)

    def tokenize(self, submit: Submit) -> Tokenized:
        """The part that takes long, and that releases the GIL."""
        try:
            return Tokenized(*self._token_ids(submit))
        except InvalidTextError as error:
            return Tokenized(refusal=(400, str(error)))
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:  # a panic of a library in Rust is no Exception; it must affect this request only
            log.exception("request %016x: the tokenizer failed on its prompt", submit.choices[0].request)
            return Tokenized(refusal=(500, "the tokenizer failed on this prompt"))

    def read(self, submit: Submit, tokenized: Tokenized | None = None) -> list[Sequence | Refused]:
        """One for each choice."""
        prompt = tokenized or self.tokenize(submit)
        if prompt.refusal is not None:
            status, why = prompt.refusal
            return [Refused(choice.request, status, why, "prompt") for choice in submit.choices]
        try:
            return self._sequences(submit, prompt)
        except MemoryError:
            log.exception("request %016x: out of memory for its tokens", submit.choices[0].request)
            return [Refused(choice.request, 500, "the server ran out of memory") for choice in submit.choices]

    def _sequences(self, submit: Submit, prompt: Tokenized) -> list[Sequence | Refused]:
        digests: list[Digest] = []
        if prompt.count <= self._limits.max_prompt:
            self._name(prompt.ids, digests)
        return [self._read_choice(submit, choice, prompt, digests) for choice in submit.choices]

    def _token_ids(self, submit: Submit) -> tuple[int, Int32]:
        """Their number, and the ids unless they are too many."""
        prompt = submit.prompt
        if isinstance(prompt, str):
            return self._tokenizer.encode_up_to(prompt, self._limits.max_prompt, add_special=submit.add_special)
        return len(prompt), np.asarray(prompt, np.int32)

    def _read_choice(
        self, submit: Submit, choice: Choice, prompt: Tokenized, digests: list[Digest]
    ) -> Sequence | Refused:
        count = prompt.count
        params = self._complete(self._shorten(submit.params, count), choice)
        refused = self._refusal(choice, params.max_tokens, count)
        if refused is not None:
            return refused
        known = count + len(choice.output)
        tokens = np.zeros(count + params.max_tokens, np.int32)
        tokens[:count] = prompt.ids
        if choice.output:
            tokens[count:known] = choice.output
            digests = digests.copy()
            self._name(tokens[:known], digests)
        elif len(submit.choices) > 1:
            digests = digests.copy()  # sequences extend them
        return Sequence(
            choice.request,
            tokens,
            prompt=count,
            limit=tokens.size,
            known=known,
            digests=digests,
            cached=choice.cached_tokens,
            arrival_ns=submit.arrival_ns,
            wants=Wants.of(params, self._limits.abilities),
            params=params,
        )

    def _shorten(self, params: GenerationParams, count: int) -> GenerationParams:
        """A limit that the client did not set is reduced to what fits."""
        room, least = self._longest - count, max(1, params.sampling.min_tokens)
        if not params.open_ended or not least <= room < params.max_tokens:
            return params
        return dataclasses.replace(params, max_tokens=room)

    def _complete(self, params: GenerationParams, choice: Choice) -> GenerationParams:
        """With the choice's seed, and the model's end tokens."""
        sampling = params.sampling
        ends = () if params.ignore_eos else tuple(self._limits.end_ids - set(sampling.stop_token_ids))
        sampling = dataclasses.replace(sampling, seed=choice.seed, stop_token_ids=(*sampling.stop_token_ids, *ends))
        return dataclasses.replace(params, sampling=sampling)

    def _refusal(self, choice: Choice, wanted: int, count: int) -> Refused | None:
        most, longest, request = self._limits.max_prompt, self._longest, choice.request
        if count == 0:
            return Refused(request, 400, "the prompt has no tokens", "prompt")
        if count > most:
            return Refused(
                request, 400, f"the prompt has {count} tokens; at most {most} are allowed", "prompt", TOO_LONG
            )
        if count + wanted > longest:
            text = f"{count} prompt tokens and {wanted} new tokens exceed the longest sequence, {longest} tokens"
            return Refused(request, 400, text, "max_tokens", TOO_LONG)
        if len(choice.output) >= wanted:
            return Refused(request, 500, "the request could not be resumed: no token is left to compute")
        return None
