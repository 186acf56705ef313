"""Rotary embeddings as both kinds of configurations describe them."""

import pytest

from model.mindformers_runner.configuration import from_hugging_face, from_mindformers
from model.mindformers_runner.rope import Rope
from tests.model.mindformers_runner.test_configuration import HUGGING_FACE, LLAMA3, mindformers


@pytest.mark.parametrize(
    ("scaling", "rope"),
    [
        (None, Rope(500000.0)),
        ({"rope_type": "default"}, Rope(500000.0)),
        ({"type": "linear", "factor": 2}, Rope(500000.0, "PI", 2.0)),
        (
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096},
            Rope(500000.0, "YARN", {"factor": 4.0, "original_max_position_embeddings": 4096, "beta_slow": 1.0,
                                    "beta_fast": 32.0, "mscale": 1.0, "mscale_all_dim": 0.0}),
        ),
    ],
)  # fmt: skip
def test_rope_variants_of_hugging_face(scaling, rope):
    assert from_hugging_face({**HUGGING_FACE, "rope_scaling": scaling}).rope == rope


def test_newer_rope_parameters():
    parameters = {"rope_theta": 10.0, "rope_type": "llama3", **LLAMA3}
    assert from_hugging_face({**HUGGING_FACE, "rope_parameters": parameters}).rope == Rope(10.0, "LLAMA3", LLAMA3)


@pytest.mark.parametrize(
    ("changes", "rope"),
    [
        ({"extend_method": "PI", "scaling_factor": 2}, Rope(10000.0, "PI", 2.0)),
        ({"extend_method": "NTK", "scaling_factor": 4.0, "theta": 5e5}, Rope(5e5, "NTK", 4.0)),
        ({"extend_method": "LLAMA3", "scaling_factor": LLAMA3}, Rope(10000.0, "LLAMA3", LLAMA3)),
    ],
)
def test_rope_variants_of_mindformers(changes, rope):
    assert from_mindformers(mindformers(**changes)).rope == rope
