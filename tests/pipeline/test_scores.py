"""Scores of prompts, from the plan to the record for the front, against the emulated device's own definition: in
pieces, in company, across preemptions and restarts."""

import random

import numpy as np
import pytest

from model.emulated import expected_logits, expected_tokens
from model.sampling import SamplingParams
from pipeline.wire.request import ALL_SCORED, Choice, Refused, Request, Submit
from pipeline.wire.step import Head
from tests.pipeline.stages import OVERLAPPED, PLAIN


def scored(best=2, count=3, **options):
    return Request(SamplingParams(temperature=0, **options), count, prompt_logprobs=best)


def drawn(best, count, seed):
    return Request(SamplingParams(temperature=1.0, seed=seed), count, prompt_logprobs=best)


def expected_scores(server, prompt, best):
    """By the definition, in double precision."""
    for position in range(1, len(prompt)):
        logits = expected_logits(prompt[:position], server.settings).astype(np.float64)
        logprobs = logits - np.logaddexp.reduce(logits)
        order = np.argsort(-logits, kind="stable")[:best]
        yield prompt[position], logprobs[prompt[position]], [(int(i), logprobs[i]) for i in order]


def check(server, request, prompt, best):
    found, wanted = server.scores.get(request, []), list(expected_scores(server, prompt, best))
    assert [one[0] for one in found] == prompt[1:]
    assert [[i for i, _ in one[2]] for one in found] == [[i for i, _ in one[2]] for one in wanted]
    for (token, logprob, tops), (_, exact, exact_tops) in zip(found, wanted, strict=True):
        assert logprob == pytest.approx(exact, abs=1e-5)
        assert [x for _, x in tops] == pytest.approx([x for _, x in exact_tops], abs=1e-5)
        same = [x for i, x in tops if i == token]
        assert same in ([], [logprob])  # the very same float


@pytest.mark.parametrize("ahead", [OVERLAPPED, PLAIN])
@pytest.mark.parametrize(("samples", "best"), [(0, 0), (0, 5), (12, 1), (16, 20)])
def test_every_token_of_a_prompt_has_a_score_but_the_first(serve, ahead, samples, best):
    server, prompt = serve(ahead=ahead, samples=samples), list(range(40, 77))
    server.submit(1, prompt, scored(best))
    server.run()
    check(server, 1, prompt, best)
    assert server.tokens(1) == expected_tokens(prompt, 3, server.settings)
    assert server.answers[1].first_id == 40


def test_a_prompt_of_one_token_has_none(serve):
    server = serve()
    server.submit(1, [7], scored())
    server.run()
    assert server.scores == {}
    assert (server.answers[1].first_id, server.tokens(1)) == (7, expected_tokens([7], 3, server.settings))


def test_cached_blocks_are_left_for_others_but_not_read(serve):
    server, prompt = serve(), [9] * 20
    for request, params in enumerate((scored(), scored(), Request(SamplingParams(temperature=0), 3)), 1):
        server.submit(request, prompt, params)
        server.run()
    assert [server.started[request].cached_tokens for request in (1, 2, 3)] == [0, 0, 16]
    check(server, 2, prompt, 2)


def test_one_choice_of_a_prompt_is_scored(serve):
    server, prompt = serve(), list(range(20))
    choices = [Choice(1), Choice(2, scored=ALL_SCORED), Choice(3, scored=ALL_SCORED)]
    server.submitted = dict.fromkeys((1, 2, 3))
    server.requests.write(Submit.of(choices, np.array(prompt, np.int32), scored(1)).pack())
    server.run()
    assert list(server.scores) == [1]
    check(server, 1, prompt, 1)
    assert server.tokens(1) == server.tokens(2) == server.tokens(3)


def test_scores_take_no_position_that_another_row_needs(serve):
    """As many are sampled as there are rows: other rows decode and begin as if nobody scored."""
    server, prompt = serve(rows=4, budget=16), list(range(60))
    server.submit(1, prompt, scored(1))
    for request in (2, 3, 4):
        server.submit(request, [request] * 3, Request(SamplingParams(temperature=0), 6))
    while not all(len(server.tokens(request)) == 6 for request in (2, 3, 4)):
        assert server.turn()
    assert server.inference.steps_done <= 9  # prompts of three tokens, six tokens, and steps ahead
    server.run()
    check(server, 1, prompt, 1)


@pytest.mark.parametrize("ahead", [OVERLAPPED, PLAIN])
@pytest.mark.parametrize(("blocks", "samples"), [(64, 0), (22, 0), (22, 9)])
def test_a_crowd_of_which_some_are_scored(serve, ahead, blocks, samples):
    """Greedy and drawn, scored and not, cancelled, preempted: nothing is lost, nothing comes twice."""
    server = serve(rows=5, budget=12, blocks=blocks, ahead=ahead, samples=samples)
    rng, wanted, gone = random.Random(11), {}, set()
    for request in range(1, 41):
        prompt = [1, 2, 3, 4, 5, 6, 7, 8][: rng.randrange(9)] + rng.sample(range(200), rng.randrange(1, 24))
        best, count = rng.choice([None, None, 0, 1, 7]), rng.randrange(1, 30)
        params = scored(best, count) if request % 3 else drawn(best, count, request)
        wanted[request] = prompt, best, count
        server.submit(request, prompt, params)
        for _ in range(rng.randrange(6)):
            server.turn()
        if not rng.randrange(8):
            server.cancel(request)
            gone.add(request)
    server.run()
    assert server.scheduler.stats.preemptions > 0 or blocks == 64
    for request in wanted.keys() - gone:
        prompt, best, count = wanted[request]
        if best is None:
            assert request not in server.scores
        else:
            check(server, request, prompt, best)
        if request % 3:
            assert server.tokens(request) == expected_tokens(prompt, count, server.settings), f"request {request}"
    assert server.scheduler.blocks.used == 0
    assert not len(server.row_table)


def test_the_youngest_is_preempted_in_the_middle_of_its_prompt(serve):
    server = serve(rows=2, budget=8, blocks=15, prefix_cache=True)
    server.submit(1, [5, 6], Request(SamplingParams(temperature=0), 40))
    for _ in range(20):
        server.turn()
    prompt = list(range(100, 130))
    server.submit(2, prompt, scored(3))
    at_preemption = None
    while server.turn():
        if server.scheduler.stats.preemptions and at_preemption is None:
            at_preemption = len(server.scores[2])
    assert 0 < at_preemption < len(prompt) - 1
    check(server, 2, prompt, 3)


@pytest.mark.parametrize("turns", range(3, 30, 3))
def test_a_restart_anywhere(serve, turns):
    server = serve(rows=3, budget=8, samples=6)
    prompts = {request: random.Random(request).sample(range(200), 31) for request in (1, 2, 3)}
    for request, prompt in prompts.items():
        server.submit(request, prompt, scored(2, 5))
    for _ in range(turns):
        server.turn()
    server.restart()
    server.run()
    for request, prompt in prompts.items():
        check(server, request, prompt, 2)
        assert server.tokens(request) == expected_tokens(prompt, 5, server.settings)


def test_a_device_that_can_not_is_named(serve):
    server = serve(greedy_on_device=False)
    server.submit(1, [1, 2, 3], scored(1))
    server.submit(2, [1, 2, 3], Request(SamplingParams(temperature=0), 2))
    server.run()
    refused = server.answers[1]
    assert isinstance(refused, Refused)
    assert (refused.status, refused.parameter) == (400, "prompt_logprobs")
    assert len(server.tokens(2)) == 2


def test_steps_without_scores_ask_for_none(serve):
    server, asked = serve(), []
    fetch_best = server.inference.runner.fetch_best
    server.inference.runner.fetch_best = lambda best, targets=None: asked.append(targets) or fetch_best(best, targets)
    server.submit(1, [1, 2, 3], Request(SamplingParams(temperature=0, logprobs=3), 5))
    server.run()
    assert asked
    assert all(targets is None for targets in asked)
    assert server.sampling._logits_views[0].head[Head.SCORED] == 0
