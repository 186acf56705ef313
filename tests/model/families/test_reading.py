"""What a config.json says, in which spellings, and what is refused."""

from __future__ import annotations

import json

import pytest

from model.errors import ConfigurationError
from model.families import Rope, read_spec, read_spec_file
from model.families.features import FAMILIES
from scripts.lab.paths import ROOT
from tests.model.families.checkpoints import load, older

CONFIGS = {name: it.config for name, it in load().items()}


@pytest.mark.parametrize("name", CONFIGS)
def test_older_spelling_is_the_same(name):
    config = CONFIGS[name]
    changes = {"gemma3": {"sliding_window_pattern": 2}}.get(name, {})
    assert read_spec({**older(config), **changes}) == read_spec(config)


def test_gemma_as_it_is_published():
    """Older files leave out what is the family's default, and say gelu where the tanh form is meant."""
    config = {**older(CONFIGS["gemma2"]), "hidden_act": "gelu"}
    for key in ("head_dim", "tie_word_embeddings", "query_pre_attn_scalar"):
        del config[key]
    spec = read_spec({**config, "num_hidden_layers": 4})
    assert (spec.head_dim, spec.tied_embeddings, spec.query_scale) == (256, True, 1.0)
    assert spec.activation == "gelu_tanh"
    assert spec.windows == (12, 0, 12, 0)


def test_gemma3_pattern():
    config = {**older(CONFIGS["gemma3"]), "num_hidden_layers": 7}
    spec = read_spec({**config, "rope_scaling": {"rope_type": "linear", "factor": 8.0}})
    assert spec.windows == (12,) * 5 + (0, 12)
    assert spec.layer_ropes == (1,) * 5 + (0, 1)
    assert spec.ropes == (Rope(1e6, "linear", 8.0), Rope(1e4))


def test_smollm3_layers_without_positions():
    config = older(CONFIGS["smollm3"]) | {"num_hidden_layers": 8, "no_rope_layers": None}
    assert read_spec(config).layer_ropes == (0, 0, 0, 1) * 2


def test_windows_that_are_not_used():
    unused = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 1, "use_mrope": False}
    assert read_spec({**older(CONFIGS["qwen2"]), **unused}).windows == ()
    assert read_spec({**older(CONFIGS["mistral"]), "sliding_window": 4096}).windows == (4096, 4096)


@pytest.mark.parametrize(("given", "dtype"), [({"torch_dtype": "bfloat16"}, "bfloat16"), ({}, "float32")])
def test_dtype(given, dtype):
    config = older(CONFIGS["llama-mha"])
    del config["torch_dtype"]
    assert read_spec({**config, **given}).dtype == dtype


def test_long_contexts_choose_their_factors_by_what_is_served():
    (rope,) = read_spec(CONFIGS["phi4-mini"]).ropes
    short, long = rope.frequencies(12, 64), rope.frequencies(12, 65)
    assert (short[1:] / long[1:]).min() > 1


YARN = {"rope_type": "yarn", "factor": 4.0}


@pytest.mark.parametrize(
    ("rope", "magnitude"),
    [
        (YARN, 0.1 * 1.3862943611198906 + 1),
        ({**YARN, "attention_factor": 1.25}, 1.25),
        ({**YARN, "mscale": 1.0, "mscale_all_dim": 1.0}, 1.0),
        ({**YARN, "truncate": False}, 0.1 * 1.3862943611198906 + 1),
    ],
)
def test_yarn(rope, magnitude):
    (found,) = read_spec({**older(CONFIGS["llama-mha"]), "rope_scaling": rope}).ropes
    assert found.magnitude == pytest.approx(magnitude)
    assert found.original_length == 256
    assert found.truncate == rope.get("truncate", True)


@pytest.mark.parametrize(("dtype", "expected"), [("torch.bfloat16", "bfloat16"), ("auto", "float32")])
def test_dtypes_as_other_tools_write_them(dtype, expected):
    assert read_spec({**CONFIGS["llama-mha"], "dtype": dtype}).dtype == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"model_type": "lla', "it is not valid JSON .*; if it is truncated, download it again"),
        (b"[]", "the file must hold an object"),
        ("{}".encode("utf-16"), "cannot read the model configuration"),
        (b"\xef\xbb\xbf{}", "model_type is missing"),
    ],
)
def test_files_that_are_no_configuration(content, message, tmp_path):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ConfigurationError, match=message):
        read_spec_file(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": None}, "model_type is missing; it names the model's family"),
        ({"model_type": "mamba"}, "model_type 'mamba' is not supported; supported are llama, mistral, qwen2,"),
        ({"model_type": "deepseek_v3"}, r"multi-head latent attention \(MLA\), which is out of scope"),
        ({"model_type": "new", "kv_lora_rank": 512}, "multi-head latent attention"),
        ({"model_type": "gemma3", "text_config": {}}, "'gemma3' is multi-modal, which is out of scope"),
        ({"hidden_act": "relu2"}, "hidden_act 'relu2' is not supported; it must be one of silu"),
        ({"quantization_config": {"quant_method": "awq"}}, r"weights quantized by awq\) is not supported"),
        ({"quantization": {"group_size": 64, "bits": 4}}, r"quantization \(weights quantized by MLX\)"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan; it must be a number"),
        ({"num_experts": 8}, "num_experts 8 is not supported for model_type 'llama'"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping 50.0 is not supported"),
        ({"use_qk_norm": True}, "use_qk_norm True is not supported"),
        ({"hidden_size": None}, "hidden_size is missing; it must be a positive whole number"),
        ({"num_hidden_layers": "2"}, "num_hidden_layers is '2'; it must be a positive whole number"),
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps is '1e-5'; it must be a number"),
        ({"mlp_bias": 1}, "mlp_bias is 1; it must be true or false"),
        ({"num_attention_heads": 3, "head_dim": None}, "64 cannot be split into 3 heads; give head_dim"),
        ({"num_key_value_heads": 3}, "4 heads cannot share 3 key/value heads evenly"),
        ({"head_dim": 15}, "15 of 15 dimensions of a head cannot be rotated in pairs"),
        ({"torch_dtype": "float8_e4m3fn"}, "dtype 'float8_e4m3fn' is not supported"),
        ({"rope_scaling": "long"}, "rope_scaling is 'long'; it must be an object or null"),
        ({"rope_scaling": {"type": "ntk"}}, "rope_scaling.type is 'ntk'; supported are default, linear"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling.factor is missing; it must be a number"),
        ({"rope_scaling": {"type": "linear", "factor": 0.5}}, "rope_scaling.factor is 0.5; it must be at least 1"),
        ({"rope_scaling": {**YARN, "rope_type": "llama3"}}, "original_max_position_embeddings is missing"),
        ({"model_type": "mistral", "layer_types": ["full_attention"]}, "layer_types is .*; it must be a list of 2"),
        ({"model_type": "mistral", "layer_types": ["x", "y"]}, "layer_types has x, y; supported are full_attention"),
        (
            {"model_type": "phi3", "rope_scaling": {"type": "su", "short_factor": [1.0], "long_factor": [1.0]}},
            "short_factor is .*; it must be a list of 8",
        ),
    ],
)
def test_refused(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        read_spec({**older(CONFIGS["llama-mha"]), **changes})


def test_files(tmp_path):
    file = tmp_path / "config.json"
    with pytest.raises(ConfigurationError, match="cannot read the model configuration"):
        read_spec_file(tmp_path)
    for text, message in (("[]", "must hold an object"), ("{", "Expecting"), ('{"model_type": "x"}', "'x' is not")):
        file.write_text(text)
        with pytest.raises(ConfigurationError, match=f"{file}: .*{message}"):
            read_spec_file(file)
    file.write_text(json.dumps(CONFIGS["qwen3"]))
    assert read_spec_file(tmp_path).family == "qwen3"


def test_docs_name_every_family():
    text = (ROOT / "docs" / "models.md").read_text()
    assert [family for family in FAMILIES if f"| `{family}` |" not in text] == []
