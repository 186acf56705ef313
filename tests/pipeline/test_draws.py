"""Tokens that inference draws from candidates, in the stages as they are: answers are those that sampling draws."""

from __future__ import annotations

import random

import numpy as np
import pytest

from model.sampling import SamplingParams
from pipeline.preprocess.sequence import Abilities
from pipeline.wire.request import Request
from pipeline.wire.step import LogitsWanted
from tests.pipeline.stages import OVERLAPPED, PLAIN, Server, answer_all
from tests.pipeline.test_speculation import MOST, Told


def drawn(count, **options):
    own = {key: options.pop(key) for key in ("stop", "raw_logit", "prompt_logprobs") if key in options}
    return Request(SamplingParams(**{"temperature": 1.0, **options}), count, **own)


CASES = [
    drawn(30, temperature=0.7, top_k=40, top_p=0.95, seed=1),
    drawn(25, top_k=63, seed=2),
    drawn(25, top_k=1, seed=3),
    drawn(30, temperature=0.3, top_p=0.9, seed=4),
    drawn(20, top_p=0.999, seed=5),
    drawn(20, min_p=0.2, seed=6),
    drawn(20, top_k=20, logprobs=5, seed=7),
    drawn(20, top_p=0.5, logprobs=0, seed=8),
    drawn(20, top_k=20, raw_logit=True, seed=9),
    drawn(20, seed=10),  # by sampling
    drawn(20, top_k=9, presence_penalty=1.0, seed=11),  # likewise
    drawn(20, temperature=0.0),
    drawn(20, temperature=0.0, logprobs=20),
    drawn(12, top_k=9, seed=12, prompt_logprobs=2),
    drawn(1, top_k=9, seed=13),
    drawn(30, top_k=9, seed=14, stop=("a", "b")),
]
PROMPTS = [[1, 2, 3, 4, 5, 6, 7][: request % 8] + [request] * (1 + request * 3 % 7) for request in range(len(CASES))]


class Counting(Server):
    """How many tokens were drawn in inference, and how many not, in all steps with draws. Of an emulated device the
    candidates always tell; so here they do not, at random."""

    drawn, unknown, forget = 0, 0, 0.0

    def wire(self):
        super().wire()
        draws, chance = self.inference._draws, np.random.default_rng(3)
        prepare, draw, prepared = draws.prepare, draws.draw, []

        def keep(*of):
            prepared[:] = of
            prepare(*of)

        def count():
            step, rows, _, out = prepared
            assert draw() == 0
            forgotten = (step.wants_logits[rows] == LogitsWanted.TO_DRAW) & (chance.random(len(rows)) < self.forget)
            out.tokens[: len(rows)][forgotten] = -1
            unknown = np.count_nonzero(forgotten)
            self.unknown += unknown
            self.drawn += len(rows) - unknown
            return unknown

        draws.prepare, draws.draw = keep, count


class Forgetful(Counting):
    forget = 0.2


def ask(server, **how):
    answers = answer_all(server, CASES, PROMPTS, **how)
    return [(deltas, repr(server.scores.get(request))) for request, deltas in enumerate(answers, 1)]


@pytest.fixture(scope="module")
def by_sampling(tokenizer_file):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Abilities, "drawn_from", lambda *_: None)
        server = Counting(tokenizer_file)
        answers = ask(server)
    server.close()
    assert server.drawn + server.unknown == 0
    return answers


@pytest.mark.parametrize("ahead", [OVERLAPPED, PLAIN])
@pytest.mark.parametrize(
    "options",
    [{}, {"blocks": 26}, {"rows": 12, "budget": 64, "logit_rows": 3}, {"drafts": 4, "budget": 32}],
    ids=["plain", "preempted", "crowd", "drafts"],
)
def test_answers_are_those_that_sampling_draws(serve, by_sampling, ahead, options):
    server = serve(Forgetful, ahead=ahead, **options)
    assert ask(server, chance=random.Random(5)) == by_sampling
    assert server.drawn > 100
    assert server.unknown > 10
    if "blocks" in options:
        assert server.scheduler.stats.preemptions > 0


@pytest.mark.parametrize("seed", range(2))
def test_stages_may_die_at_any_time(serve, by_sampling, seed):
    server, restarts = serve(Forgetful, blocks=30), []

    def upset(server):
        restarts.append(1)
        server.restart()

    answers = ask(server, chance=random.Random(seed), upset=upset)
    assert len(restarts) > 3
    assert [[d[1:] for d in deltas] for deltas, _ in answers] == [
        [d[1:] for d in deltas] for deltas, _ in by_sampling
    ]


def test_a_step_whose_rows_all_draw_is_foreseen(serve):
    """Sampling publishes nothing, and inference waits for nothing."""
    server = serve(Counting, rows=4, budget=64)
    for request in range(1, 5):
        server.submit(request, [request] * 9, drawn(50, top_k=40, top_p=0.95, temperature=0.7, seed=request))
    server.run()
    assert server.drawn == 4 * 50
    assert server.rings["tokens"].snapshot().producer.index == 0


def test_of_a_row_that_is_not_finite_nothing_is_drawn(serve):
    """It fails; the others go on."""
    server = serve(Counting, rows=4)
    fetch_best = server.inference.runner.fetch_best

    def spoil(best, targets=None):
        fetch_best(best, targets)
        if server.inference.steps_done == 5:
            best.ids[0] = -1
            best.logits[0] = float("nan")

    server.inference.runner.fetch_best = spoil
    for request in (1, 2):
        server.submit(request, [request] * 5, drawn(20, top_k=5, seed=request))
    server.run()
    ends = [server.told[request][-1] for request in (1, 2)]
    assert sorted(len(server.told[request]) for request in (1, 2))[1] == 20
    assert "not finite" in next(end.text for end in ends if end.index < 19)


@pytest.mark.parametrize("right", [1.0, 0.5])
def test_rows_whose_drafts_are_verified_by_both(serve, by_sampling, right):
    """Of a row's positions some are drawn in inference, and of some logits are brought."""

    class Both(Forgetful, Told):
        pass

    every = zip(PROMPTS, by_sampling, strict=True)
    Both.known = {tuple(prompt): [delta[1] for delta in deltas] for prompt, (deltas, _) in every}
    Both.right = right
    server = serve(Both, drafts=MOST, rows=6, budget=64)
    assert ask(server, chance=random.Random(6)) == by_sampling
    assert server.drafter.drafted > 50
    assert server.unknown > 10
