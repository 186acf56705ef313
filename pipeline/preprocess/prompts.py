"""From a request to sequences for the scheduler: tokenized, checked, hashed for the prefix cache."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import numpy as np

from model.tokenizer import InvalidTextError, Tokenizer
from pipeline.preprocess.blocks import BlockManager, Digest
from pipeline.preprocess.sequence import Sequence
from pipeline.preprocess.wants import ARGMAX_ON_DEVICE, Abilities, Wants
from pipeline.wire.request import TOO_LONG, Choice, Refused, Request, Submit, count_ids, ids_of, unpack_request
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
        self._end_ids = tuple(sorted(limits.end_ids))
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
            log.exception("request %016x: the tokenizer failed on its prompt", submit.request)
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
        if prompt.count <= self._limits.max_prompt:
            self._name(prompt.ids, digests)
        request = unpack_request(submit.params)
        return [self._read_choice(submit, request, choice, prompt, digests) for choice in submit.choices]

    def _token_ids(self, submit: Submit) -> tuple[int, Int32]:
        """Their number, and the ids unless they are too many."""
        if submit.text is not None:
            return self._tokenizer.encode_up_to(submit.text, self._limits.max_prompt, add_special=submit.add_special)
        return submit.size, ids_of(submit.token_ids)

    def _read_choice(
        self, submit: Submit, request: Request, choice: Choice, prompt: Tokenized, digests: list[Digest]
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
            self._name(tokens[:known], digests)
        elif len(submit.choices) > 1:
            digests = digests.copy()  # sequences extend them
        ends = () if request.ignore_eos else self._end_ids
        return Sequence(
            choice.request,
            tokens,
            prompt=count,
            limit=tokens.size,
            known=known,
            digests=digests,
            arrival_ns=submit.arrival_ns,
            wants=Wants.of(request, ends, self._limits.abilities),
            attempt=choice.attempt,
            seed=choice.seed,
            end_ids=ends,
            params=submit.params,
        )

    def _most_tokens(self, request: Request, count: int) -> int:
        """A limit that the client did not set is reduced to what fits."""
        room, least = self._longest - count, max(1, request.sampling.min_tokens)
        return room if request.open_ended and least <= room < request.max_tokens else request.max_tokens

    def _refusal(self, choice: Choice, wanted: int, count: int) -> Refused | None:
        most, longest = self._limits.max_prompt, self._longest
        if count == 0:
            return _refuse(choice, 400, "the prompt has no tokens", "prompt")
        if count > most:
            text = f"the prompt has {count} tokens; at most {most} are allowed"
            return _refuse(choice, 400, text, "prompt", TOO_LONG)
        if count + wanted > longest:
            text = f"{count} prompt tokens and {wanted} new tokens exceed the longest sequence, {longest} tokens"
            return _refuse(choice, 400, text, "max_tokens", TOO_LONG)
        if count_ids(choice.output) >= wanted:
            return _refuse(choice, 500, "the request could not be resumed: no token is left to compute")
        return None


def _refuse(choice: Choice, status: int, why: str, parameter: str | None = None, code: str | None = None) -> Refused:
    return Refused(choice.request, choice.attempt, status, why, parameter, code)
