"""Logits of mixed steps on CPU against three references that share no code with the runner."""

import numpy as np
import pytest

from tests.model import scenarios
from tests.model.conftest import DATA
from tests.model.numpy_llama import NumpyLlama

MODELS = ("grouped", "tied", "llama3", "yarn")
TOLERANCE = 1e-4


@pytest.fixture(scope="session")
def run(in_mindspore, reference):
    """One mixed run per model, shared by the comparisons."""
    done = {}

    def of(name: str):
        if name not in done:
            tokens = [tokens for tokens, _ in reference(name)]
            done[name] = in_mindspore(scenarios.mixed_run, DATA / name, tokens, seed=len(name))
        return done[name]

    return of


@pytest.mark.parametrize("name", MODELS)
def test_run_is_long_and_ends_every_sequence(run, reference, name):
    steps, rows = run(name)
    assert steps >= 64
    last = {sequence: position for sequence, position, _ in rows}
    assert [last[number] + 1 for number in sorted(last)] == [len(tokens) for tokens, _ in reference(name)]


@pytest.mark.parametrize("name", MODELS)
def test_stored_logits_of_transformers(run, reference, name):
    stored = reference(name)
    compared = 0
    for sequence, position, logits in run(name)[1]:
        expected = stored[sequence][1].get(position)
        if expected is not None:
            compared += 1
            np.testing.assert_allclose(logits, expected, atol=TOLERANCE, rtol=0)
    assert compared > 64


@pytest.mark.parametrize("name", MODELS)
def test_numpy_llama(run, reference, name):
    llama = NumpyLlama(DATA / name)
    expected = [llama.logits(tokens) for tokens, _ in reference(name)]
    for sequence, position, logits in run(name)[1]:
        np.testing.assert_allclose(logits, expected[sequence][position], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_uncached_mindformers(in_mindspore, run, reference, name):
    expected = in_mindspore(scenarios.uncached_logits, DATA / name, [tokens for tokens, _ in reference(name)])
    for sequence, position, logits in run(name)[1]:
        np.testing.assert_allclose(logits, expected[sequence][position], atol=TOLERANCE, rtol=0)
