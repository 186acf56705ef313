"""One process with MindSpore for all tests of the mindformers runner."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def in_mindspore():
    """Calls a function of tests.model.scenarios in a process with MindSpore, and returns its result."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:

        def call(function: Callable, *args, **kwargs):
            return pool.submit(function, *args, **kwargs).result(timeout=280)

        yield call


@pytest.fixture(scope="session")
def reference():
    """Tokens and Hugging Face logits of a stored model: ``[(tokens, {position: logits})]``."""

    def read(name: str):
        arrays = np.load(DATA / name / "reference.npz")
        sequences = []
        for number in range(len(arrays) // 2):
            tokens, logits = arrays[f"tokens_{number}"], arrays[f"logits_{number}"]
            positions = np.arange(0, len(tokens), -(-len(tokens) // len(logits)))
            sequences.append((tokens, dict(zip(positions, logits, strict=True))))
        return sequences

    return read
