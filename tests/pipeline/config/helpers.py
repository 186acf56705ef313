"""Small configurations, and the mistakes in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import ConfigurationError, load_configuration

ROOT = Path(__file__).parents[3]
DATA = Path(__file__).parent / "data"
MODEL = "pipeline: {model_dir: model}\n"
LLM_SERVING = (DATA / "llm_serving.yaml").read_text()
EMULATED = """\
model_config: {vocab_size: 32000, decode_batch_size: 32, max_generate_length: 4096}
tokenizer: {vocab_file: model}
pipeline:
  runner: {kind: emulated, name: a device, cost_model: {fixed_ms: 22.5, per_row_ms: 0.1}, token_range: [259, 32000]}
"""


def problems_of(path, overrides=(), **options):
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(path, overrides, **options)
    return caught.value.problems


def the_problem(path, overrides=(), **options):
    (problem,) = problems_of(path, overrides, **options)
    return problem
