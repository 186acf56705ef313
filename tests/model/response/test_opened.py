"""What prompts leave open."""

from __future__ import annotations

from dataclasses import replace

import pytest

from model.response.format import Opened, ResponseFormat
from model.response.opened import initial_state
from model.response.template import read_template
from tests.model.response.reading import TEMPLATES, preset

TURN = "<|im_start|>assistant\n"
USER = "<|im_start|>user\n<think> is a mark<|im_end|>\n"
ANCHORED = replace(preset("hermes"), anchors=(TURN, "<other>"))
BARE = preset("hermes")


@pytest.mark.parametrize(
    ("behind", "opened"),
    [
        ("", Opened.NOTHING),
        ("<think>", Opened.REASONING),
        ("<think>\n", Opened.REASONING),
        ("<think>\nOnce", Opened.REASONING),
        ("<think>\n\n</think>\n\n", Opened.NOTHING),
        ("<think>\n\n</think>\n\nThe", Opened.TEXT),
        ("The answer", Opened.TEXT),
        ("</think> <think>", Opened.REASONING),
    ],
)
def test_looks_behind_the_last_anchor(behind, opened):
    assert initial_state(ANCHORED, USER + TURN + behind) is opened
    assert initial_state(ANCHORED, USER + TURN + "<think>old" + USER + "<other>" + USER + TURN + behind) is opened


@pytest.mark.parametrize(
    ("prompt", "opened"),
    [
        ("", Opened.NOTHING),
        (USER + "Assistant:", Opened.NOTHING),
        (USER + "Assistant:<think>\n", Opened.REASONING),
        (USER + "Assistant:<think>\n\n</think>\n\n", Opened.NOTHING),
    ],
)
def test_without_an_anchor_looks_at_the_end(prompt, opened):
    assert initial_state(BARE, prompt) is opened
    assert initial_state(replace(BARE, anchors=("<none>",)), prompt) is opened


def test_without_reasoning_nothing_is_open():
    assert initial_state(ResponseFormat("x"), "<think>\n") is Opened.NOTHING


def test_reasoning_that_needs_no_mark_is_open_from_the_start():
    format = read_template(TEMPLATES["ernie"])
    assert initial_state(format, "User: <think> Assistant:") is Opened.REASONING
    assert initial_state(format, "Assistant:<think>\n</think>\n") is Opened.NOTHING
    assert initial_state(format, "Assistant:\n</think>\n<response>\n") is Opened.TEXT
    assert initial_state(format, "Assistant:\n</think>\n<response>\nHi") is Opened.TEXT


def test_is_linear_in_the_prompt():
    assert initial_state(ANCHORED, (USER + TURN) * 50_000 + "<think>") is Opened.REASONING
