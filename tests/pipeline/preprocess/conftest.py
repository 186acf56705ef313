"""A byte tokenizer that can be held up, and the statistics page on which is shown what it works on."""

from __future__ import annotations

import threading
from array import array

import pytest

from model.sampling import SamplingParams
from model.tokenizer import load_tokenizer
from pipeline.preprocess.blocks import BlockManager
from pipeline.preprocess.prompts import PreprocessLimits, PromptPool, PromptReader
from pipeline.stats import Counters
from pipeline.wire.request import NOBODY, Choice, Request, Submit
from tests.pipeline.stages import write_byte_tokenizer

WAIT_S = 20
LIMITS = PreprocessLimits(1 << 20, 1 << 19, 100, frozenset({256}))


class Panic(BaseException):
    """As the library's own, which is no Exception."""


class Gated:
    """The tokenizer, but a text that begins with a word of `gates` waits until that gate is open."""

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer
        self.gates = {"held": threading.Event(), "other": threading.Event()}
        self.texts = []
        self.inside = lambda: None

    def encode(self, text):
        return self._tokenizer.encode(text)

    def encode_up_to(self, text, most, *, add_special=True, plain=()):
        self.texts.append(text)
        self.inside()
        for word, gate in self.gates.items():
            if text.startswith(word):
                assert gate.wait(WAIT_S)
        if text.startswith("broken"):
            raise Panic("broken")
        return self._tokenizer.encode_up_to(text, most, add_special=add_special, plain=plain)


@pytest.fixture
def tokenizer(tmp_path):
    gated = Gated(load_tokenizer(write_byte_tokenizer(tmp_path)))
    yield gated
    for gate in gated.gates.values():
        gate.set()


@pytest.fixture
def counters(page):
    return Counters(page, "preprocess")


@pytest.fixture
def blocks():
    return BlockManager(1 << 17, 16)


@pytest.fixture
def reader(tokenizer, blocks):
    return PromptReader(tokenizer, LIMITS, blocks)


@pytest.fixture
def pool(counters, tokenizer):
    pool = PromptPool(counters)
    yield pool
    for gate in tokenizer.gates.values():
        gate.set()
    pool.close()


def submit(
    prompt, *requests, resumed=False, adapter="", owner=NOBODY, deadline_ns=0, deterministic=False, **sampling
):
    prompt = prompt if isinstance(prompt, str) else array("i", prompt)
    params = Request(SamplingParams(**sampling), max_tokens=4, adapter=adapter, deterministic=deterministic)
    choices = [Choice(request, 5, int(resumed)) for request in requests]
    return Submit.of(choices, prompt, params, owner=owner, deadline_ns=deadline_ns)
