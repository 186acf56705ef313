"""How far a sequence has come, and what a row needs of a step, as its parameters and the device have it."""

from __future__ import annotations

import numpy as np
import pytest

from model.sampling import SamplingParams
from pipeline.preprocess.sequence import Abilities, Sequence, Wants
from pipeline.wire.request import Request
from pipeline.wire.step import Choice, LogitsWanted, Scores

ALL, ARGMAX_ALONE, NONE = Abilities(20), Abilities(1, scores=False), Abilities(0, scores=False)
MANY = Abilities(64)


def test_tokens_that_are_sampled_count_before_they_are_known():
    sequence = Sequence(1, np.zeros(5, np.int32), prompt=3, limit=5, known=3)
    assert sequence.fresh
    sequence.schedule()
    sequence.schedule()
    assert (sequence.length, sequence.complete) == (5, True)
    sequence.append([70])
    assert (sequence.known, sequence.pending, sequence.tokens[3]) == (4, 1, 70)
    assert not sequence.fresh
    assert sequence.complete


def test_a_step_with_drafts_may_bring_several_tokens_and_reach_further():
    sequence = Sequence(1, np.zeros(20, np.int32), prompt=3, limit=20, known=4, computed=3)
    assert sequence.reach == 3
    sequence.schedule(4)
    sequence.schedule(9)
    sequence.computed += 2
    assert (sequence.length, sequence.reach) == (6, 5 + 4 + 9)
    assert sequence.append([7, 8, 9]) == 4
    assert (sequence.known, sequence.pending, sequence.carried) == (7, 1, [9])
    assert sequence.sit_out() == 9
    sequence.schedule(99)
    assert sequence.reach == 19  # behind its limit there is nothing


def test_one_that_was_preempted_is_not_fresh():
    sequence = Sequence(1, np.zeros(5, np.int32), prompt=3, limit=5, known=3, preemptions=1)
    assert not sequence.fresh


def wants(abilities, *, raw_logit=False, end_ids=(), **sampling):
    params = SamplingParams(**{"temperature": 0.0, **sampling})
    return Wants.of(Request(params, 5, raw_logit=raw_logit), end_ids, abilities)


@pytest.mark.parametrize(
    ("sampling", "choice"),
    [
        ({}, Choice.NONE),
        ({"temperature": 0.5}, Choice.DRAWN),
        ({"presence_penalty": 1.0}, Choice.EDITED),
        ({"logit_bias": {3: 1.0}}, Choice.EDITED),
        ({"grammar": "a"}, Choice.EDITED),
        ({"banned_token_ids": (3,)}, Choice.EDITED),
        ({"min_tokens": 2, "stop_token_ids": (3,)}, Choice.EDITED),
        ({"stop_token_ids": (3,)}, Choice.NONE),
        ({"min_tokens": 2, "end_ids": (256,)}, Choice.EDITED),
        ({"end_ids": (256,)}, Choice.NONE),
        ({"temperature": 0.5, "repetition_penalty": 1.1}, Choice.DRAWN | Choice.EDITED),
        ({"top_k": 3, "top_p": 0.5, "seed": 4}, Choice.NONE),
    ],
)
def test_why_sampling_must_choose(sampling, choice):
    found = wants(ALL, **sampling)
    assert found == Wants(choice, logits=bool(choice), candidates=1)


@pytest.mark.parametrize(
    ("abilities", "asked", "candidates", "scores"),
    [
        (MANY, {"top_k": 40, "top_p": 0.9}, 41, Scores.LOGITS),
        (MANY, {"top_k": 63}, 64, Scores.LOGITS),
        (Abilities(64, scores=False), {"top_k": 5}, 6, Scores.LOGITS),
        (MANY, {"top_k": 5, "logprobs": 20}, 20, Scores.CANDIDATES),
        (MANY, {"top_p": 0.9}, 64, Scores.CANDIDATES),
        (MANY, {"min_p": 0.1, "temperature": 2.0}, 64, Scores.CANDIDATES),
        (MANY, {"top_k": 64, "top_p": 0.9}, 64, Scores.CANDIDATES),
    ],
)
def test_draws_from_candidates_need_room_for_logits_only(abilities, asked, candidates, scores):
    found = wants(abilities, **{"temperature": 1.0, **asked})
    assert found == Wants(logits=True, candidates=candidates, scores=scores, draws=True)
    assert found.logits_wanted is LogitsWanted.TO_DRAW


@pytest.mark.parametrize(
    ("abilities", "asked"),
    [
        (MANY, {}),
        (MANY, {"top_k": 64}),
        (MANY, {"top_p": 0.9, "temperature": 1.5}),  # what is not a candidate may weigh anything
        (Abilities(64, scores=False), {"top_p": 0.9}),
        (Abilities(64, logits=True), {"top_k": 5}),
        (ARGMAX_ALONE, {"top_p": 0.9}),
        (ARGMAX_ALONE, {"top_k": 1}),
        (NONE, {"top_k": 5}),
    ],
)
def test_other_draws_are_sampling_s(abilities, asked):
    found = wants(abilities, **{"temperature": 1.0, **asked})
    assert found == Wants(Choice.DRAWN, logits=True, candidates=min(abilities.candidates, 1))
    assert found.logits_wanted is LogitsWanted.YES


@pytest.mark.parametrize(
    ("abilities", "asked", "expected"),
    [
        (ALL, {"logprobs": 0}, Wants(scores=Scores.CANDIDATES)),
        (ALL, {"logprobs": 5}, Wants(candidates=5, scores=Scores.CANDIDATES)),
        (ALL, {"raw_logit": True}, Wants(scores=Scores.CANDIDATES)),
        (ARGMAX_ALONE, {}, Wants()),
        (ARGMAX_ALONE, {"logprobs": 0}, Wants(logits=True)),
        (Abilities(4), {"logprobs": 5}, Wants(logits=True)),
        (NONE, {}, Wants(logits=True, candidates=0)),
        (Abilities(20, logits=True), {}, Wants(logits=True)),
    ],
)
def test_what_the_device_can_not_say_comes_from_the_logits(abilities, asked, expected):
    assert wants(abilities, **asked) == expected
