"""Prompts that take too long: a hang that no ring's index shows."""

from __future__ import annotations

import contextlib
import os
import time
from types import SimpleNamespace

import pytest

from pipeline.launcher.child import Attachment, Phase
from pipeline.launcher.hang_detector import PROMPT_PATIENCE, HangDetector
from pipeline.stats import LANES, Counters, PreprocessCounter
from pipeline.wire.topology import ONE_OF_EACH
from tests.pipeline.launcher.test_stage_progress import Rings

PATIENCE_S = 0.02
REQUEST = 0x1234


@pytest.fixture
def detector(page):
    with contextlib.ExitStack() as stack:
        rings = Rings(stack)
        stack.callback(rings.end)
        detector = HangDetector(page, PATIENCE_S)
        detector.begin(0, rings)
        detector.complete(0)
        yield detector
        detector.end(0)


def child(name):
    attachments = {0: Attachment(Phase.SERVING, 1)}
    spec = ONE_OF_EACH.stage(name)
    return SimpleNamespace(name=name, spec=spec, attachments=attachments, pid=os.getpid(), heard=0, loading=False)


def hangs_within(detector, children, seconds):
    """Hangs that are seen within this time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if hangs := detector.check(children):
            return hangs
        time.sleep(PATIENCE_S / 4)
    return []


@pytest.mark.parametrize("lane", LANES)
def test_a_prompt_that_takes_too_long_is_a_hang_that_names_it(detector, page, lane):
    Counters(page, "preprocess").set(lane, REQUEST)
    (hang,) = hangs_within(detector, [child("preprocess")], 30)
    assert hang.what == f"it does not finish tokenizing the prompt of request {REQUEST:016x}"
    assert hang.still_s >= PATIENCE_S * PROMPT_PATIENCE
    assert detector.in_hand(child("preprocess")) == (REQUEST,)


def test_prompts_that_get_done_are_none(detector, page):
    counters, preprocess = Counters(page, "preprocess"), child("preprocess")
    until, request = time.monotonic() + 4 * PATIENCE_S * PROMPT_PATIENCE, 0
    while time.monotonic() < until:
        request += 1
        counters.set(PreprocessCounter.TOKENIZING, request)
        assert not hangs_within(detector, [preprocess], PATIENCE_S * PROMPT_PATIENCE / 4)


def test_what_a_dead_preprocess_had_in_hand_is_known_until_its_page_is_reset(detector, page):
    counters = Counters(page, "preprocess")
    counters.set(PreprocessCounter.IN_HAND, 5)
    counters.set(PreprocessCounter.TOKENIZING, 7)
    counters.set(PreprocessCounter.TOKENIZING_LONG, 5)
    assert detector.in_hand(child("preprocess")) == (5, 7)
    page.reset("preprocess")
    assert detector.in_hand(child("preprocess")) == ()
