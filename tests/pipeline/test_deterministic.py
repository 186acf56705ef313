"""Requests that are deterministic, on a device whose numbers depend on the shape of a step: their texts stay the same
whoever else is served, and whatever happens. Others' do not: so it would be seen."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.emulated import EmulatedRunner
from model.sampling import SamplingParams
from pipeline.wire.request import Request
from pipeline.wire.step import Head
from tests.examples import examples
from tests.pipeline.stages import OVERLAPPED, PLAIN, Server, said

PROMPTS = [[number, 7, 7, *range(3, 3 + length)] for number, length in ((1, 4), (2, 17), (3, 30), (1, 9), (2, 1))]
COMPANY = [[90 + number, *range(5, 5 + length)] for number, length in ((1, 2), (2, 40), (3, 11))]


class ShapedRunner(EmulatedRunner):
    """Each bucket computes as another adapter would."""

    def _advance(self, binding):
        shape = np.full(binding.bucket.rows, self.facts.buckets.index(binding.bucket), np.int32)
        return super()._advance(
            dataclasses.replace(binding, inputs=dataclasses.replace(binding.inputs, adapter=shape))
        )


class Shaped(Server):
    def make_runner(self):
        runner = ShapedRunner(self.settings)
        runner.facts = dataclasses.replace(runner.facts, adapters=len(runner.facts.buckets))
        return runner


def params(number, *, deterministic):
    sampling = (
        SamplingParams(temperature=0.9, seed=number) if number % 2 else SamplingParams(temperature=0.0, logprobs=2)
    )
    return Request(sampling, 12 + number, deterministic=deterministic)


def alone(serve, *, deterministic):
    """What each is answered by a server that has nothing else to do."""
    answers = []
    for number, prompt in enumerate(PROMPTS):
        server = serve(Shaped, ahead=PLAIN, prefix_cache=False)
        server.submit(1 + number, prompt, params(number, deterministic=deterministic))
        server.run()
        answers.append(said(server, 1 + number))
    return answers


@pytest.fixture(scope="module")
def expected(tokenizer_file):
    servers = []
    yield alone(
        lambda kind, **options: servers.append(kind(tokenizer_file, **options)) or servers[-1], deterministic=True
    )
    for server in servers:
        server.close()


def disturb(server, cuts, *, deterministic, company=False):
    """`cuts`: how many moves stages get until all are lost."""
    for number, prompt in enumerate(PROMPTS):
        if company and number < len(COMPANY):
            server.submit(101 + number, COMPANY[number], params(number, deterministic=False))
        server.submit(1 + number, prompt, params(number, deterministic=deterministic))
    for moves in cuts:
        for move in itertools.islice(itertools.cycle(range(6)), moves):
            server.moves[move]()
        server.restart()
    server.run()
    return [said(server, 1 + number) for number in range(len(PROMPTS))]


options = st.fixed_dictionaries(
    {
        "budget": st.sampled_from([4, 7, 16, 40]),
        "blocks": st.sampled_from([20, 64]),
        "ahead": st.sampled_from([OVERLAPPED, PLAIN]),
        "prefix_cache": st.booleans(),
        "greedy_on_device": st.booleans(),
    }
)


@examples(40)
@given(options, st.lists(st.integers(0, 200), max_size=3), st.booleans())
def test_the_same_text_whatever_happens(tokenizer_file, expected, options, cuts, company):
    server = Shaped(tokenizer_file, **options)
    answers = disturb(server, cuts, deterministic=True, company=company)
    server.close()
    assert answers == expected


def test_others_change_on_this_device(serve, expected):
    before = alone(serve, deterministic=False)
    now = disturb(serve(Shaped), (), deterministic=False)
    assert sum(one != other for one, other in zip(before, now, strict=True)) >= 3
    assert before != expected


def test_prompts_share_blocks_with_their_like_alone(serve, expected):
    server = serve(Shaped, blocks=200)
    for first, deterministic, cached in ((0, False, 0), (10, True, 0), (20, True, 32), (30, False, 32)):
        server.submit(first + 3, PROMPTS[2], params(2, deterministic=deterministic))
        server.run()
        assert server.started[first + 3].cached_tokens == cached
    assert said(server, 13) == said(server, 23) == expected[2]


def test_only_steps_that_have_one_are_of_the_fixed_shape(serve):
    """Whoever does not ask for it does not pay for it."""
    server, heads = serve(Shaped, budget=40, rows=4), []
    write = server.preprocess.plan_step

    def plan():
        planned = write()
        if planned:
            views = server.preprocess._step_views[(server.preprocess.steps_planned - 1) % 4]
            heads.append((int(views.head[Head.FIXED]), int(views.head[Head.CHUNK_TOKENS])))
        return planned

    server.preprocess.plan_step = plan
    server.submit(1, COMPANY[1], params(0, deterministic=False))
    server.run()
    assert {fixed for fixed, _ in heads} == {0}
    assert max(tokens for _, tokens in heads) > 4
    heads.clear()
    server.submit(2, COMPANY[1], params(0, deterministic=True))
    server.submit(3, COMPANY[0], params(12, deterministic=False))
    server.run()
    first = [fixed for fixed, _ in heads]
    assert set(first) == {0, 4}
    assert first == sorted(first, reverse=True)  # until it is over, and then no more
    assert max(tokens for fixed, tokens in heads if fixed) <= 4
