"""A model's own sampling parameters."""

from __future__ import annotations

import json

import pytest

from model.generation_config import GenerationConfigError, read_sampling_defaults


def test_what_the_file_names_is_taken(tmp_path):
    assert read_sampling_defaults(tmp_path) == {}
    content = {
        "do_sample": True,
        "temperature": 0.6,
        "top_p": 0.9,
        "top_k": 20,
        "min_p": None,
        "eos_token_id": [1, 2],
    }
    (tmp_path / "generation_config.json").write_text(json.dumps(content))
    assert read_sampling_defaults(tmp_path) == {"temperature": 0.6, "top_p": 0.9, "top_k": 20}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "can't be read as JSON"), ("[]", "holds list, expected an object"),
        ('{"temperature": "hot"}', "temperature is 'hot', expected a number"),
        ('{"top_k": 1.5}', "top_k is 1.5, expected a number"), ('{"top_p": 2}', "top_p is 2, expected"),
    ],
)  # fmt: skip
def test_a_file_that_is_wrong_is_told_with_its_place(tmp_path, content, told):
    (tmp_path / "generation_config.json").write_text(content)
    with pytest.raises(GenerationConfigError, match=r"generation_config\.json") as caught:
        read_sampling_defaults(tmp_path)
    assert told in str(caught.value)
