"""Hangs that no ring's index shows."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from pipeline.launcher.child import Phase
from pipeline.launcher.oversight import BUSY_PATIENCE, HEALTHY_BEATS, PROMPT_PATIENCE, Oversight
from pipeline.stats import Counters, FrontCounter, PreprocessCounter, StatsPage

from .test_watch import Rings

PATIENCE_S = 0.02
REQUEST = 0x1234


@pytest.fixture
def page():
    page = StatsPage.create()
    page.unlink()
    yield page
    page.close()


@pytest.fixture
def oversight(page):
    with contextlib.ExitStack() as stack:
        rings = Rings(stack)
        stack.callback(rings.end)
        oversight = Oversight(page, PATIENCE_S)
        oversight.begin(rings)
        oversight.complete()
        yield oversight
        oversight.end()


def child(name, pid=None):
    return SimpleNamespace(name=name, phase=Phase.SERVING, pid=pid or os.getpid(), generation=1, heard=0)


def look_for(oversight, children, seconds):
    """Hangs that are seen within this time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if hangs := oversight.look(children):
            return hangs
        time.sleep(PATIENCE_S / 4)
    return []


@pytest.fixture
def busy_process():
    """One that uses the CPU as long as it may."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        yield process
        process.kill()


@pytest.fixture
def idle_process():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_a_front_that_stands_still_is_a_hang(oversight, idle_process):
    front = child("front", pid=idle_process.pid)
    (hang,) = look_for(oversight, [front], 30)
    assert hang.what == "its event loop stands still"
    assert not hang.stopped


def test_a_busy_front_has_more_time_and_not_for_ever(oversight, busy_process, page):
    """CPU time is counted in ticks of 10 ms: patience must be longer than that."""
    oversight.patience_s = 0.2
    front, counters = child("front", pid=busy_process.pid), Counters(page, "front")
    assert not look_for(oversight, [front], 5 * oversight.patience_s)
    counters.add(FrontCounter.BEAT)  # it got done
    (hang,) = look_for(oversight, [front], 60)
    assert hang.what == "its event loop is busy with one thing"
    assert hang.still_s >= BUSY_PATIENCE * oversight.patience_s


@pytest.mark.parametrize(("beats", "useful"), [(HEALTHY_BEATS - 1, False), (HEALTHY_BEATS, True)])
def test_a_front_that_came_back_well_was_useful(oversight, page, beats, useful):
    Counters(page, "front").add(FrontCounter.BEAT, beats)
    assert ("front" in oversight.end()) is useful


@pytest.mark.parametrize("lane", [PreprocessCounter.TOKENIZING, PreprocessCounter.TOKENIZING_LONG])
def test_a_prompt_that_takes_too_long_is_a_hang_that_names_it(oversight, page, lane):
    Counters(page, "preprocess").set(lane, REQUEST)
    (hang,) = look_for(oversight, [child("preprocess")], 30)
    assert hang.what == f"it does not get done with the prompt of request {REQUEST:016x}"
    assert hang.still_s >= PATIENCE_S * PROMPT_PATIENCE
    assert oversight.in_hand() == (REQUEST,)


def test_prompts_that_get_done_are_none(oversight, page):
    counters, preprocess = Counters(page, "preprocess"), child("preprocess")
    until, request = time.monotonic() + 4 * PATIENCE_S * PROMPT_PATIENCE, 0
    while time.monotonic() < until:
        request += 1
        counters.set(PreprocessCounter.TOKENIZING, request)
        assert not look_for(oversight, [preprocess], PATIENCE_S * PROMPT_PATIENCE / 4)


def test_what_a_dead_preprocess_had_in_hand_is_known_until_its_page_is_reset(oversight, page):
    counters = Counters(page, "preprocess")
    counters.set(PreprocessCounter.IN_HAND, 5)
    counters.set(PreprocessCounter.TOKENIZING, 7)
    counters.set(PreprocessCounter.TOKENIZING_LONG, 5)
    assert oversight.in_hand() == (5, 7)
    page.reset("preprocess")
    assert oversight.in_hand() == ()
