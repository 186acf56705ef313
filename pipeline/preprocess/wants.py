"""What a row needs of its steps beside its argmax, and what the rows of a step need together."""

from __future__ import annotations

import functools
import operator
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from model.runner import RunnerFacts
from pipeline.wire.request import Request
from pipeline.wire.step import MAX_CANDIDATES, Choice


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


class Together:
    """What several rows want, as they come and go; there are only a few different wants."""

    def __init__(self) -> None:
        self._rows: Counter[Wants] = Counter()
        self._all: Wants | None = NOTHING  # None: to be found anew

    def add(self, wants: Wants) -> None:
        self._rows[wants] += 1
        self._all = None

    def remove(self, wants: Wants) -> None:
        self._rows[wants] -= 1
        if not self._rows[wants]:
            del self._rows[wants]
        self._all = None

    @property
    def all(self) -> Wants:
        if self._all is None:
            self._all = functools.reduce(operator.or_, self._rows, NOTHING)
        return self._all
