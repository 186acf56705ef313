"""Settings, and the configuration file that ships with the emulated device."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from model.emulated import CostModel, EmulatedRunner, EmulatedSettings
from model.errors import ConfigurationError
from model.runner import Bucket

CONFIG = Path(__file__).parents[3] / "configs" / "emulated_910b.yaml"
CAPACITY: dict[str, Any] = {
    "vocab_size": 32000,
    "max_length": 4096,
    "num_blocks": 1024,
    "block_size": 16,
    "buckets": (Bucket(1, 1), Bucket(32, 32)),
}
SECTION: dict[str, Any] = {"kind": "emulated", "cost_model": {"fixed_ms": 1.0}}


@pytest.fixture(scope="module")
def shipped():
    return yaml.safe_load(CONFIG.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def shipped_settings(shipped):
    return EmulatedSettings.from_mapping(shipped["pipeline"]["runner"], **CAPACITY)


def test_the_shipped_file_takes_22_5_ms_for_a_decode_step_at_batch_1(shipped_settings):
    cost = shipped_settings.cost
    step_ms = cost.step_ms(tokens=1, rows=1, cached_tokens=54) + cost.per_logits_row_ms
    assert step_ms == pytest.approx(22.5, abs=0.005)


def test_the_shipped_numbers_follow_from_the_formulas_beside_them(shipped_settings):
    cost = shipped_settings.cost
    bandwidth = 6.61e9 * 2 / cost.fixed_ms  # bytes per ms
    assert bandwidth == pytest.approx(591e6, rel=0.002)
    assert cost.per_cached_token_ms == pytest.approx(2 * 32 * 4096 * 2 / bandwidth, rel=0.01)
    assert cost.per_token_ms == pytest.approx(2 * 6.48e9 / (280e12 * 0.5) * 1e3, rel=0.01)
    assert cost.per_row_ms == pytest.approx(2 * 0.131e9 / 140e12 * 1e3, rel=0.02)
    assert cost.per_logits_row_ms == pytest.approx(32000 * 4 / 25e9 * 1e3, rel=0.02)
    assert cost.jitter_ms == 0


def test_the_shipped_file_is_in_llm_servings_form_and_says_what_it_is(shipped, shipped_settings):
    assert set(shipped) == {"model_config", "serving_config", "pa_config", "tokenizer", "pipeline"}
    assert shipped["pipeline"]["runner"]["kind"] == "emulated"
    assert EmulatedRunner(shipped_settings).facts.name == "emulated Llama-2-7B on Ascend 910B4"
    assert not shipped_settings.emit_eos


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"kind": "emulated"}, "pipeline.runner.cost_model is missing"),
        ({**SECTION, "cost_model": {}}, "cost_model.fixed_ms is missing"),
        ({**SECTION, "cost_model": {"fixed": 1}}, "cost_model.fixed is unknown; did you mean fixed_ms"),
        ({**SECTION, "cost_model": {"fixed_ms": -1}}, "cost_model.fixed_ms is -1, expected a number >= 0"),
        ({**SECTION, "cost_model": {"fixed_ms": "22"}}, "cost_model.fixed_ms is '22'"),
        ({**SECTION, "emit_eso": True}, "pipeline.runner.emit_eso is unknown; did you mean emit_eos"),
        ({**SECTION, "vocab_size": 5}, "pipeline.runner.vocab_size is unknown"),
        ({**SECTION, "token_range": 7}, "token_range is 7, expected two integers"),
        ({**SECTION, "token_range": [5, 5]}, "0 <= first < last"),
        ({**SECTION, "token_range": [0, 32001]}, "0 <= first < last"),
        ({**SECTION, "token_range": [2, 3]}, "nothing but eos_token_id"),
        ({**SECTION, "eos_probability": 2}, "eos_probability must be in"),
        ({**SECTION, "spin_us": -1}, "spin_us in"),
        ({**SECTION, "seed": -1}, "seed is -1"),
        ({**SECTION, "seed": "x"}, "seed is 'x', expected an integer"),
        ({**SECTION, "emit_eos": "yes"}, "emit_eos is 'yes', expected true or false"),
        ({**SECTION, "spin_us": None}, "spin_us is None, expected a number"),
        ({**SECTION, "name": 4}, "name is 4, expected a string"),
        ({**SECTION, "fault": "sulk"}, "fault is 'sulk', expected one of error, exit, abort, segfault, hang"),
        ({**SECTION, "fault_token": "x"}, "fault_token is 'x', expected an integer"),
        ({**SECTION, "fault_token": 32000}, "fault_token is 32000, outside the vocabulary"),
    ],
)
def test_errors_say_what_to_change(section, message):
    with pytest.raises(ConfigurationError, match=message.replace("[", r"\[")):
        EmulatedSettings.from_mapping(section, **CAPACITY)


@pytest.mark.parametrize("name", ["vocab_size", "max_length", "num_blocks", "block_size"])
def test_capacity_must_be_positive(name):
    with pytest.raises(ConfigurationError, match=f"{name} is 0"):
        EmulatedSettings(cost=CostModel(1.0), **{**CAPACITY, name: 0})


def test_there_may_be_no_adapters_but_not_less():
    assert EmulatedSettings(cost=CostModel(1.0), **CAPACITY, adapters=2).adapters == 2
    with pytest.raises(ConfigurationError, match="adapters is -1, expected at least 0"):
        EmulatedSettings(cost=CostModel(1.0), **CAPACITY, adapters=-1)


@pytest.mark.parametrize(
    "buckets", [(), (Bucket(2, 2), Bucket(1, 1)), (Bucket(1, 1), Bucket(1, 1)), (Bucket(4, 1, 2), Bucket(4, 1))]
)
def test_buckets_must_ascend(buckets):
    with pytest.raises(ConfigurationError, match="ascending"):
        EmulatedSettings(cost=CostModel(1.0), **{**CAPACITY, "buckets": buckets})


def test_eos_outside_the_vocabulary_cannot_be_emitted():
    EmulatedSettings(cost=CostModel(1.0), eos_token_id=-1, **CAPACITY)
    with pytest.raises(ConfigurationError, match="eos_token_id is -1"):
        EmulatedSettings(cost=CostModel(1.0), eos_token_id=-1, emit_eos=True, **CAPACITY)
