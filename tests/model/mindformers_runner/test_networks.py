"""Which of mindformers' networks computes what, in which numbers, and what neither does."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest

from model.errors import ConfigurationError
from model.families import read_spec
from model.mindformers_runner import MindFormersRunner
from model.mindformers_runner.networks import choose_network, compute_dtype
from scripts.lab.paths import ROOT
from tests.model.families.checkpoints import load
from tests.model.mindformers_runner import scenarios

CHECKPOINTS = load()
LLAMA = (
    "llama-mha",
    "llama-tied",
    "llama-attention-bias",
    "llama-dynamic",
    "llama-yarn",
    "qwen2",
    "phi4-mini",
    "glm",
    "internlm2",
    "internlm3",
)
GPT = ("llama-head-dim", "llama-mlp-bias", "mistral", "qwen3", "glm4", "mixtral", "qwen3-moe")
NEITHER = {
    "mistral-window": r"windows \(of 12 tokens; up to a max_generate_length of 12",
    "gemma": "activation gelu_tanh; a scale of embeddings; serve it on CPU with",
    "gemma2": "softcaps",
    "gemma3": "rotary embeddings that differ between layers",
    "smollm3": "rotary embeddings that differ between layers",
    "granite": "a scale of embeddings",
    "olmo2": "norms only after attention and MLP; a norm over all heads",
    "qwen2-moe": "a shared expert behind a gate",
}


@pytest.mark.parametrize(("names", "network"), [(LLAMA, "Llama"), (GPT, "GPTModel")])
def test_chosen_by_features(names, network):
    assert {choose_network(read_spec(CHECKPOINTS[name].config), 64) for name in names} == {network}


@pytest.mark.parametrize(("name", "message"), NEITHER.items())
def test_refused_by_name(name, message):
    spec = read_spec(CHECKPOINTS[name].config)
    lacking = f"model_type '{spec.family}': mindformers' networks lack .*{message}"
    with pytest.raises(ConfigurationError, match=lacking):
        choose_network(spec, 64)


def test_an_experts_network_without_a_bias():
    spec = replace(read_spec(CHECKPOINTS["mixtral"].config), output_bias=True)
    with pytest.raises(ConfigurationError, match="experts beside a bias of attention's output"):
        choose_network(spec, 64)


def test_a_window_that_no_sequence_reaches_is_none():
    spec = read_spec(CHECKPOINTS["mistral-window"].config)
    assert choose_network(spec, 12) == choose_network(replace(spec, windows=()), 64)
    with pytest.raises(ConfigurationError, match="windows"):
        choose_network(spec, 13)


def test_refused_before_weights_and_mindspore(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CHECKPOINTS["gemma2"].config))
    with pytest.raises(ConfigurationError, match=r"pipeline\.runner: \{kind: mindspore, device: CPU\}"):
        MindFormersRunner(scenarios.settings(tmp_path))  # there are no weights
    assert "mindspore" not in sys.modules


@pytest.mark.parametrize(
    ("given", "device", "computed"),
    [
        ("bfloat16", "Ascend", "bfloat16"),
        ("float16", "Ascend", "float16"),
        ("float32", "Ascend", "float16"),
        ("bfloat16", "CPU", "float32"),
        ("float16", "CPU", "float32"),
    ],
)
def test_numbers(given, device, computed):
    spec = replace(read_spec(CHECKPOINTS["qwen3"].config), dtype=given)
    assert compute_dtype(spec, device) == computed


def test_docs_say_which_families_it_serves():
    """A family's row says yes where some checkpoint of it is served."""
    served: dict[str, bool] = {}
    for it in CHECKPOINTS.values():
        spec = read_spec(it.config)
        try:
            choose_network(replace(spec, windows=()), 64)
        except ConfigurationError:
            served.setdefault(spec.family, False)
        else:
            served[spec.family] = True
    rows = [row.split("|") for row in (ROOT / "docs" / "models.md").read_text().splitlines() if row.startswith("| ")]
    told = {row[2].strip(" `"): row[5].strip() for row in rows if len(row) > 6}
    assert {family: not told[family].startswith("no") for family in served} == served
