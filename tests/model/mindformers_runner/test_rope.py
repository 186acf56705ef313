"""Rotary embeddings as mindformers' YAML files describe them, against its own tables; and of others."""

import numpy as np
import pytest

from model.families import Rope, read_spec
from model.mindformers_runner.configuration import from_mindformers
from model.mindformers_runner.rope import full_tables
from tests.model.mindformers_runner import scenarios
from tests.model.mindformers_runner.test_configuration import HUGGING_FACE, LLAMA3, mindformers

YARN = {
    "factor": 4.0,
    "original_max_position_embeddings": 256,
    "beta_slow": 1,
    "beta_fast": 32,
    "mscale": 1.0,
    "mscale_all_dim": 0.5,
}


@pytest.mark.parametrize(
    ("changes", "rope"),
    [
        ({}, Rope(10000.0)),
        ({"extend_method": "PI", "scaling_factor": 2}, Rope(10000.0, "linear", 2.0)),
        ({"extend_method": "NTK", "scaling_factor": 4.0, "theta": 5e5}, Rope(2e6)),
        (
            {"extend_method": "LLAMA3", "scaling_factor": {**LLAMA3, "original_max_position_embeddings": 256}},
            Rope(10000.0, "llama3", 32.0, 256, low_turns=1.0, high_turns=4.0),
        ),
        (
            {"extend_method": "YARN", "scaling_factor": YARN},
            Rope(10000.0, "yarn", 4.0, 256, 1.1386294361119891 / 1.0693147180559945, 1.0, 32.0),
        ),
    ],
)
def test_mindformers_variants(in_mindspore, changes, rope):
    spec, _ = from_mindformers(mindformers(**changes, seq_length=1024))
    assert spec.ropes == (rope,)
    theirs = in_mindspore(scenarios.tables_of_mindformers, spec.head_dim, 1024, **changes)
    for ours, table in zip(full_tables(spec, 1024), theirs, strict=True):
        np.testing.assert_allclose(ours, table, atol=2e-4)  # theirs are computed in float32


def test_part_of_a_head():
    """What does not turn is multiplied by 1."""
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    spec = read_spec({**HUGGING_FACE, "model_type": "phi3", "rope_parameters": rope})
    cos, sin = full_tables(spec, 8)
    assert cos.shape == sin.shape == (8, 64)
    np.testing.assert_array_equal(cos[:, :32], cos[:, 32:])
    assert (cos[:, 16:32] == 1).all()
    assert (sin[:, 16:32] == 0).all()
    assert (sin[1:, :16] != 0).all()
