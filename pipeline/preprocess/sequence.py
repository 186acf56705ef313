"""A sequence: one request's tokens, and how many of them are known, scheduled and computed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.preprocess.blocks import Digest
from pipeline.preprocess.wants import ARGMAX, Wants

_RECORD_BYTES = 8192  # beside the request's parameters and token ids: numbers, the model's end tokens


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
