"""A sequence: one request's tokens, how many of them are known, scheduled and computed, and what it needs of its
steps beside its argmax."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from model.runner import RunnerFacts
from model.sampling import DRAW, SamplingParams
from pipeline.preprocess.adapters import BASE, Adapter
from pipeline.preprocess.blocks import Digest
from pipeline.wire.request import NOBODY, Assign, Owner, Request
from pipeline.wire.step import MOST_CANDIDATES, Choice, LogitsWanted, Scores

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
        return cls(min(facts.candidates, MOST_CANDIDATES) if argmax else 0, facts.scores, save_logits)

    def drawn_from(self, sampling: SamplingParams) -> tuple[int, Scores] | None:
        """How many candidates, with which scores, tell nearly always what is drawn; None: the device's do not. What
        equals the last of the `top_k` must be seen, too."""
        if 1 <= sampling.top_k < self.candidates:
            return sampling.top_k + 1, Scores.LOGITS
        concentrated = sampling.min_p > 0 or (sampling.top_p < 1 and sampling.temperature <= 1)
        return (self.candidates, Scores.CANDIDATES) if concentrated and self.scores and self.candidates > 1 else None

    def can_score(self, request: Request) -> bool:
        """Whether the prompt's scores, if they are wanted, can be had."""
        wanted = request.prompt_logprobs
        return wanted is None or (self.scores and max(wanted, 1) <= self.candidates)


@dataclass(frozen=True, slots=True)
class Wants:
    """Of one row, or of all rows of a step. The default is the argmax alone."""

    choice: Choice = Choice.NONE  # why sampling must choose the token
    logits: bool = False  # on the host, or room for them
    candidates: int = 1  # from the device, per position; 0: none, where it can't
    scores: Scores = Scores.NONE
    draws: bool = False  # inference draws the token

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
        scores = Scores.CANDIDATES if reported else Scores.NONE
        among = abilities.drawn_from(sampling) if choice == Choice.DRAWN else None
        if among and by_device and not abilities.logits:
            return cls(Choice.NONE, True, max(candidates, among[0]), max(scores, among[1]), draws=True)
        if abilities.logits or choice or not by_device:
            return cls(choice, True, min(abilities.candidates, 1))
        return cls(choice, False, candidates, scores)

    @classmethod
    def of_prompt(cls, request: Request) -> Wants:
        """Of positions of its prompt that are scored."""
        wanted = request.prompt_logprobs
        return NOTHING if wanted is None else cls(candidates=max(wanted, 1), scores=Scores.TARGETS)

    def __or__(self, other: Wants) -> Wants:
        return Wants(
            self.choice | other.choice,
            self.logits or other.logits,
            max(self.candidates, other.candidates),
            max(self.scores, other.scores),
            self.draws or other.draws,
        )

    @property
    def logits_wanted(self) -> LogitsWanted:
        return LogitsWanted.TO_DRAW if self.draws else LogitsWanted(self.logits)


ARGMAX, ARGMAX_ON_DEVICE, NOTHING = Wants(), Abilities(), Wants(candidates=0)
NO_DRAW = (0.0,) * len(DRAW)  # temperature 0: the argmax


def draw_of(sampling: SamplingParams) -> tuple[float, ...]:
    return tuple(float(getattr(sampling, name)) for name in DRAW)


@dataclass(slots=True, eq=False)
class Sequence:
    """The scheduler's view of a request.

    `tokens[:known]` are prompt and output tokens that have reached preprocess. `pending` more at least are being
    sampled in steps that are under way: one in each, and one for each draft that is right. The KV cache holds, or
    will hold once those steps have run, the first `computed` tokens at least.
    A sequence decodes when only its newest, perhaps still unknown, token is missing from the cache.
    """

    request: int
    tokens: NDArray[np.int32]  # [prompt + output limit]
    prompt: int  # prompt tokens
    limit: int  # prompt + output tokens at most
    known: int = 0
    pending: int = 0
    computed: int = 0
    carried: list[int] = field(default_factory=list)  # by those steps, the oldest first: drafts at most
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
    prompt_wants: Wants = NOTHING  # of positions of its prompt that are scored
    to_score: int = 0  # so many: all but the last, behind which a token is sampled
    scored: int = 0  # of them, the first ones, in steps that are done or under way
    adapter: Adapter = BASE
    moved: bool = False  # from another replica, and its tokens so far are not computed here yet
    suspect: bool = False  # it may have made that one fail
    deterministic: bool = False  # it is computed in steps of one shape
    owner: Owner = NOBODY
    deadline_ns: int = 0  # by which it must be over; 0: whenever
    charged: int = 0  # of its tokens, the first ones, for which its owner's share was charged
    finished: bool = False
    draw: tuple[float, ...] = NO_DRAW  # what its draws obey, in the order of DRAW
    seed: int | None = None  # of them
    # For sampling, not used here:
    attempt: int = 0
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
    def root(self) -> Digest:
        """Where hashes of its blocks begin."""
        return self.adapter.root_of(deterministic=self.deterministic)

    @property
    def record_bytes(self) -> int:
        """Of the record that tells sampling of its row, at most."""
        return len(self.params) + 4 * self.known + _RECORD_BYTES

    @property
    def length(self) -> int:
        """Tokens at least, those being sampled included."""
        return self.known + self.pending

    @property
    def complete(self) -> bool:
        """Nothing more is to be scheduled: the tokens being sampled reach the length limit."""
        return self.length >= self.limit

    @property
    def draw_seed(self) -> int:
        return (self.seed or 0) % 2**64

    @property
    def scoring(self) -> bool:
        """Positions of its prompt are still to be scored."""
        return self.scored < self.to_score

    @property
    def scores_next(self) -> bool:
        """Its next chunk is scored. After a preemption, what was scored before is computed again first, without."""
        return self.scored <= self.computed < self.to_score

    @property
    def reusable(self) -> int:
        """Tokens that it may find in cached blocks. At least one is left over, so that there is a step that yields
        the next one, and so are all that are to be scored: their logits are nowhere."""
        return self.scored if self.scoring else self.known - 1

    @property
    def reach(self) -> int:
        """The last position that the next step may compute without drafts of its own: if all drafts under way are
        right, and at most the one behind which the sequence is over."""
        return min(self.computed + sum(self.carried), self.limit - 1)

    def assign(self, step: int) -> Assign:
        """What sampling must know of it: its row is its own from this step on."""
        return Assign(
            request=self.request,
            attempt=self.attempt,
            from_step=step,
            row=self.row,
            epoch=self.epoch,
            limit=self.limit,
            seed=self.seed,
            end_ids=self.end_ids,
            params=self.params,
            prompt=self.tokens[: self.prompt].tobytes(),
            output=self.tokens[self.prompt : self.known].tobytes(),
            adapter=self.adapter.slot,
        )

    def schedule(self, drafts: int = 0) -> None:
        """A step that samples it, with so many drafts at most, is on its way."""
        self.pending += 1
        self.carried.append(drafts)

    def append(self, tokens: list[int]) -> int:
        """Tokens of this sequence that one step has brought; returns how many drafts that was planned with."""
        self.tokens[self.known : self.known + len(tokens)] = tokens
        self.known += len(tokens)
        return self.sit_out()

    def sit_out(self) -> int:
        """A step is done; if it brought tokens, `append` takes them."""
        self.pending -= 1
        return self.carried.pop(0)
