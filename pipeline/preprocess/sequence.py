"""A sequence: one request's tokens, how many of them are known, scheduled and computed, and what it needs of its
steps beside its argmax."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from model.runner import RunnerFacts
from pipeline.preprocess.adapters import BASE, Adapter
from pipeline.preprocess.blocks import Digest
from pipeline.wire.request import Request
from pipeline.wire.step import MAX_CANDIDATES, Choice

_RECORD_BYTES = 8192  # beside the request's parameters and token ids: numbers, the model's end tokens


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the device may do for the host."""

    candidates: int = 1  # per position; 0: it brings logits only
    scores: bool = True  # log-sum-exps, too
    logits: bool = False  # all rows bring their logits whatever they need: they are saved

    @classmethod
    def of(cls, facts: RunnerFacts, *, argmax: bool, save_logits: bool) -> Abilities:
        """`argmax`: whether it may choose tokens."""
        return cls(min(facts.candidates, MAX_CANDIDATES) if argmax else 0, facts.scores, save_logits)


@dataclass(frozen=True, slots=True)
class Wants:
    """Of one row, or of all rows of a step. The default is the argmax alone."""

    choice: Choice = Choice.NONE  # why sampling must choose the token
    logits: bool = False  # on the host
    candidates: int = 1  # from the device, per position; 0: none, where it can't
    scores: bool = False  # the candidates' logits, and the log-sum-exp

    @classmethod
    def of(cls, request: Request, end_ids: Collection[int], abilities: Abilities) -> Wants:
        """`end_ids`: the model's, if the request obeys them; `min_tokens` holds them back."""
        sampling = request.sampling
        choice = Choice.NONE if sampling.greedy else Choice.DRAWN
        if sampling.edited or (sampling.min_tokens and end_ids):
            choice |= Choice.EDITED
        reported = sampling.logprobs is not None or request.raw_logit
        candidates = max(sampling.logprobs or 0, 1)
        by_device = candidates <= abilities.candidates and (abilities.scores or not reported)
        logits = abilities.logits or bool(choice) or not by_device
        if logits:
            return cls(choice, logits, min(abilities.candidates, 1))
        return cls(choice, logits, candidates, reported)

    def __or__(self, other: Wants) -> Wants:
        return Wants(
            self.choice | other.choice,
            self.logits or other.logits,
            max(self.candidates, other.candidates),
            self.scores or other.scores,
        )


ARGMAX, ARGMAX_ON_DEVICE, NOTHING = Wants(), Abilities(), Wants(candidates=0)


@dataclass(slots=True, eq=False)
class Sequence:
    """The scheduler's view of a request.

    `tokens[:known]` are prompt and output tokens that have reached preprocess. `pending` more are being sampled in
    steps that are under way. The KV cache holds, or will hold once those steps have run, the first `computed` tokens.
    A sequence decodes when only its newest, perhaps still unknown, token is missing from the cache.
    """

    request: int
    tokens: NDArray[np.int32]  # [prompt + output limit]
    prompt: int  # prompt tokens
    limit: int  # prompt + output tokens at most
    known: int = 0
    pending: int = 0
    computed: int = 0
    row: int = -1  # its index in the batch for as long as it runs; -1: waiting
    epoch: int = 0  # which use of that row
    blocks: list[int] = field(default_factory=list)
    digests: list[Digest] = field(default_factory=list)  # hashes of its first full blocks, kept while it waits
    sealed: int = 0  # number of its blocks that are in the prefix cache
    cached_blocks: int = 0  # number of its blocks that were cached at the last attempt to admit it
    releases: int = -1  # `BlockManager.releases` at that attempt; -1: none yet
    cached: int = 0  # prompt tokens found in cached blocks at the first admission
    preemptions: int = 0
    arrival_ns: int = 0
    wants: Wants = ARGMAX
    adapter: Adapter = BASE
    finished: bool = False
    # For sampling, not used here:
    attempt: int = 0
    seed: int | None = None
    end_ids: tuple[int, ...] = ()  # of the model, if it obeys them
    params: bytes = b""  # the request's, as they came

    @property
    def fresh(self) -> bool:
        """It has never had a row, in this process or in one before it."""
        return not self.preemptions and self.known == self.prompt

    @property
    def left_of_kind(self) -> int:
        """Known tokens to be computed next: of the prompt, and only then those that were sampled once."""
        end = self.prompt if self.computed < self.prompt else self.known
        return end - self.computed

    def next_chunk(self, most: int) -> int:
        """Tokens of the next one. It leaves no single token of a prompt: attention may sum in another order for one
        alone, and where a prompt is cut depends on who else is in the step."""
        left = self.left_of_kind
        leaves_one = self.computed < self.prompt and left == most + 1
        return most - 1 if leaves_one and most > 2 else min(most, left)

    @property
    def record_bytes(self) -> int:
        """Of the record that tells sampling of its row, at most."""
        return len(self.params) + 4 * self.known + _RECORD_BYTES

    @property
    def length(self) -> int:
        """Tokens, those being sampled included."""
        return self.known + self.pending

    @property
    def complete(self) -> bool:
        """Nothing more is to be scheduled: the tokens being sampled reach the length limit."""
        return self.length >= self.limit

    def append(self, token: int) -> None:
        """A token of this sequence has become known."""
        self.tokens[self.known] = token
        self.known += 1
        self.pending -= 1
