"""What lanes tell the router of a request."""

from __future__ import annotations

import itertools
from unittest.mock import Mock

import pytest

from model.sampling.params import SamplingParams
from pipeline.front.delivery.lane import Lanes
from pipeline.front.delivery.routing import Router, Weights
from pipeline.front.delivery.stream import TokenStream
from pipeline.wire.request import Choice, Request, Submit

OLD, LONG = "said before the others " * 200, "all of this is said before every question " * 100
NUMBERS = itertools.count(1)


@pytest.fixture
def lanes():
    lanes = Lanes(2, Router(2, Weights()))
    for lane in lanes:
        lane.attach(Mock(deterministic=True), 1, "")
        lanes.up_again(lane)
    return lanes


def serve(lanes, prompt, *, cached=None, **asks):
    """On the first one, from its arrival to its end; `cached`: None for as much as was expected. The choice."""
    choice = Choice(next(NUMBERS))
    submit = Submit((choice,), Request(SamplingParams(), 4, **asks).pack(), prompt)
    picked = lanes.choose(submit, [0])
    stream = TokenStream(submit, choice, 1)
    lanes.settle([stream], picked)
    stream.accept(len(prompt) // 4, -1)
    lanes.on_accepted(stream)
    stream.cached_tokens = picked.expected_cached if cached is None else cached
    lanes.on_started(stream)
    lanes.on_first_token(stream)
    lanes.on_end(stream)
    return picked


def test_deterministic_requests_share_no_prefix_with_others_and_take_none_away(lanes):
    serve(lanes, OLD)
    serve(lanes, LONG)
    assert serve(lanes, LONG, cached=0, deterministic=True).expected_cached == 0
    assert serve(lanes, LONG, deterministic=True).expected_cached > 0
    assert serve(lanes, OLD).expected_cached > 0


def test_a_lone_lane_is_asked_whether_it_can_be_deterministic():
    """What is new goes there and is refused by name; what has begun waits for one that can."""
    lanes = Lanes(1, Router(1, Weights()))
    submit, plain = (
        Submit((Choice(1),), Request(SamplingParams(), 4, deterministic=asked).pack(), "a") for asked in (True, False)
    )
    for able in (True, False, True):
        lanes[0].attach(Mock(deterministic=able), 1, "")
        lanes.up_again(lanes[0])
        assert lanes.choose(submit) is not None
        assert lanes.choose(plain, output=3) is not None
        assert (lanes.choose(submit, output=3) is not None) is able


def test_a_prompt_that_is_scored_says_nothing_of_what_is_cached(lanes):
    serve(lanes, OLD)
    serve(lanes, LONG)
    serve(lanes, LONG, cached=0, prompt_logprobs=1)
    assert serve(lanes, OLD).expected_cached > 0
    serve(lanes, LONG)
    serve(lanes, LONG, cached=0)
    assert serve(lanes, OLD).expected_cached == 0, "so that one would have been an eviction"


def test_adapters_share_nothing(lanes):
    serve(lanes, LONG)
    assert serve(lanes, LONG, adapter="fine").expected_cached == 0
