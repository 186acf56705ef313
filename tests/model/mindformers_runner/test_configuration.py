"""Model configurations of both kinds, and everything that is refused."""

import json

import pytest
import yaml

from model.errors import ConfigurationError
from model.families import Rope, read_spec
from model.mindformers_runner.configuration import from_mindformers, read_model

HUGGING_FACE = {
    "model_type": "llama",
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 8192,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "head_dim": 64,
    "hidden_act": "silu",
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
}
LLAMA3 = {
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}

PREDICT_LLAMA2_7B = """
use_parallel: False
parallel_config: {data_parallel: 8, model_parallel: 1}
context: {mode: 0, device_target: "Ascend"}
model:
  model_config:
    type: LlamaConfig
    batch_size: 1 # add for increase predict
    seq_length: 4096
    hidden_size: 4096
    num_layers: 32
    num_heads: 32
    vocab_size: 32000
    multiple_of: 256
    rms_norm_eps: 1.0e-5
    pad_token_id: 0
    compute_dtype: "float16"
    use_past: True
    scaling_factor: 1.0
    extend_method: "None"
    use_flash_attention: True
    block_size: 16
    num_blocks: 1024
    qkv_concat: False
    checkpoint_name_or_path: "llama2_7b"
  arch:
    type: LlamaForCausalLM
"""


def mindformers(**changes):
    document = yaml.safe_load(PREDICT_LLAMA2_7B)
    document["model"]["model_config"] |= changes
    return document


def test_hugging_face():
    shape = read_spec({**HUGGING_FACE, "rope_scaling": {"rope_type": "llama3", **LLAMA3}})
    assert (shape.hidden_size, shape.num_layers, shape.num_heads, shape.num_kv_heads) == (2048, 16, 32, 8)
    assert (shape.head_dim, shape.kv_width, shape.tied_embeddings) == (64, 512, True)
    assert shape.ropes == (Rope(500000.0, "llama3", 32.0, 8192, low_turns=1.0, high_turns=4.0),)
    assert "head.weight" not in shape.tensors()
    assert shape.tensors()["layers.15.k.weight"] == (512, 2048)


def test_mindformers_yaml(tmp_path):
    file = tmp_path / "predict_llama2_7b.yaml"
    file.write_text(PREDICT_LLAMA2_7B)
    shape, fused = read_model(file)
    assert (shape.intermediate_size, shape.num_kv_heads, shape.max_position) == (11008, 32, 4096)
    assert shape.norm_eps == 1e-5
    assert (shape.ropes, shape.family, shape.dtype, fused) == ((Rope(10000.0),), "llama", "float16", False)
    assert sum(a * (b[0] if (b := rest) else 1) for a, *rest in shape.tensors().values()) == 6738415616


@pytest.mark.parametrize(
    ("changes", "width"),
    [({"intermediate_size": 100}, 100), ({"multiple_of": 1024}, 11264), ({"ffn_dim_multiplier": 1.3}, 14336)],
)
def test_mindformers_feed_forward_width(changes, width):
    """The sizes of Llama-2's feed-forward layers, as in its paper's code."""
    assert from_mindformers(mindformers(**changes))[0].intermediate_size == width


def test_mindformers_features():
    named = {"qkv_concat": True, "qkv_has_bias": True, "attn_proj_has_bias": True, "tie_word_embeddings": True}
    shape, fused = from_mindformers(mindformers(**named, compute_dtype="bfloat16", n_kv_heads=8))
    assert fused
    assert (shape.qkv_bias, shape.output_bias, shape.tied_embeddings) == (True, True, True)
    assert (shape.dtype, shape.num_kv_heads) == ("bfloat16", 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "relu"}, "hidden_act 'relu' is not supported; it must be one of silu"),
        ({"quantization_config": {"bits": 4}}, "quantization_config.* is not supported"),
        ({"num_key_value_heads": 5}, "32 heads cannot share 5 key/value heads evenly"),
        ({"num_attention_heads": 31, "head_dim": None}, "cannot be split into 31 heads"),
        ({"hidden_size": None}, "hidden_size is missing; it must be a positive whole number"),
        ({"vocab_size": "many"}, "vocab_size is 'many'; it must be a positive whole number"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "original_max_position_embeddings is missing"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0.5}}, "factor is 0.5; it must be at least 1"),
        ({"rope_scaling": "linear"}, "rope_scaling is 'linear'; it must be an object or null"),
        ({"rope_theta": "big"}, "rope_theta is 'big'; it must be a number"),
    ],
)
def test_refused_by_hugging_face(tmp_path, changes, message):
    (tmp_path / "config.json").write_text(json.dumps({**HUGGING_FACE, **changes}))
    with pytest.raises(ConfigurationError, match=f"config.json: .*{message}"):
        read_model(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extend_method": "DYNAMIC_NTK"}, "extend_method is 'DYNAMIC_NTK'; supported are None, PI, NTK"),
        ({"extend_method": "YARN"}, "scaling_factor is 1.0; for extend_method YARN it must have the keys factor"),
        ({"extend_method": "LLAMA3", "scaling_factor": {"factor": 8.0}}, "scaling_factor.original_max_.* is missing"),
        ({"extend_method": "PI", "scaling_factor": 0.5}, "scaling_factor is 0.5; it must be at least 1"),
        ({"compute_dtype": "int8"}, "compute_dtype 'int8' is not supported; it must be 'float16' or 'bfloat16'"),
        ({"num_heads": 31}, "hidden_size 4096 cannot be split into 31 heads"),
        ({"moe_config": {"expert_num": 8}}, "mixtures of experts are not supported"),
        ({"quant_config": {"quant_method": "ptq"}}, "quant_config .* is not supported"),
        ({"type": "BaichuanConfig"}, "type 'BaichuanConfig' is not supported"),
        ({"num_heads": 0}, "num_heads is 0; it must be a positive whole number"),
    ],
)
def test_refused_by_mindformers(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        from_mindformers(mindformers(**changes))


def test_as_many_devices_as_there_are_ranks():
    document = {**mindformers(), "use_parallel": True, "parallel_config": {"model_parallel": 4}}
    with pytest.raises(ConfigurationError, match="model_parallel is 4, but the model is divided among 1 "):
        from_mindformers(document)
    assert from_mindformers(document, 4) == from_mindformers(mindformers())
    with pytest.raises(ConfigurationError, match="model_parallel is 1, but the model is divided among 2 "):
        from_mindformers({**document, "parallel_config": {}}, 2)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", "{", "Expecting property name"),
        ("config.json", "[]", "the file must hold an object"),
        ("model.yaml", "[]", "the file must be a mapping, but is list"),
        ("model.yaml", "a: [", "while parsing"),
        ("model.yaml", "model: 3", "model must be a mapping, but is int"),
        ("model.yaml", "!!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("model.toml", "", r"expected \.json \(Hugging Face\) or \.yaml \(mindformers\)"),
    ],
)
def test_unreadable_files(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        read_model(tmp_path / name)


def test_missing_file(tmp_path):
    with pytest.raises(ConfigurationError, match=r"cannot read the model configuration .*config\.json"):
        read_model(tmp_path)


def test_directory_stands_for_its_config(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(HUGGING_FACE))
    assert read_model(tmp_path) == (read_spec(HUGGING_FACE), False)
