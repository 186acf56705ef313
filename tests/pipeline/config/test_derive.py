"""Values that follow from others."""

from __future__ import annotations

import pytest

from pipeline.config import load_configuration


@pytest.mark.parametrize(("seq_length", "longest"), [(100, 100), (512, 511), (511, 511)])
def test_the_longest_prompt_leaves_room_for_a_token(write, model_dir, seq_length, longest):
    text = f"pipeline: {{model_dir: {model_dir.name}}}\nmodel_config: {{max_generate_length: 512, seq_length: "
    assert load_configuration(write(f"{text}{seq_length}}}")).max_prompt == longest
