"""Which weights a text's tokens come from."""

from __future__ import annotations

import pytest

from model.sampling import SamplingParams
from pipeline.front.delivery.stream import TokenStream
from pipeline.wire.request import Choice, Request, Submit


def stream_of(tokens):
    """With so many tokens."""
    choice = Choice(1, output=bytes(4 * tokens))
    return TokenStream(Submit.of([choice], "a", Request(SamplingParams(), 20)), choice, 100)


def test_it_is_told_when_they_change():
    stream, told = stream_of(0), []
    stream.on_weights = lambda *news: told.append(news)
    for tokens, weights in ((0, "a"), (0, "b"), (2, "b"), (1, "c"), (0, "d"), (0, "c")):
        for token in range(tokens):
            stream.note(token, 0)
        stream.computed_with(weights)
    assert stream.weights == [(0, "b"), (3, "c")]
    assert told == [(0, "a"), (0, "b"), (3, "c"), (3, "d"), (3, "c")]


@pytest.mark.parametrize(
    ("now", "before", "weights"),
    [
        ("b", [(0, "a")], [(0, "a"), (5, "b")]),
        ("b", [(0, "a"), (3, "b")], [(0, "a"), (3, "b")]),
        ("c", [(0, "a"), (3, "b"), (7, "c")], [(0, "a"), (3, "b"), (5, "c")]),  # two tokens were lost
        ("c", [], [(5, "c")]),
        (None, [(0, "a"), (5, "b")], [(0, "a")]),
    ],
)
def test_what_the_front_before_has_noted_comes_first(now, before, weights):
    stream = stream_of(5)
    if now is not None:
        stream.computed_with(now)
    stream.computed_before(before)
    assert stream.weights == weights
