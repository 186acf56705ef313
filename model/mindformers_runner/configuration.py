"""Reads a model configuration: a mindformers YAML or a Hugging Face ``config.json``.

Whatever the runner could not compute faithfully is refused here, by name, before anything is allocated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from model.errors import ConfigurationError
from model.folder import refuse_quantized
from model.mindformers_runner.architecture import Architecture
from model.mindformers_runner.rope import rope_from_hugging_face, rope_from_mindformers


def read_architecture(path: Path) -> Architecture:
    """The architecture described by a YAML, a ``config.json``, or a directory that holds a ``config.json``.

    Raises:
        ConfigurationError: the file is missing or unreadable, or describes something that is not supported.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the model configuration {file}: {error}") from error
    try:
        if file.suffix == ".json":
            return from_hugging_face(_mapping(json.loads(text), "the file"))
        if file.suffix in {".yaml", ".yml"}:
            return from_mindformers(_mapping(yaml.safe_load(text), "the file"))
    except (ConfigurationError, ValueError, yaml.YAMLError) as error:
        raise ConfigurationError(f"model configuration {file}: {error}") from error
    raise ConfigurationError(f"model configuration {file}: expected .json (Hugging Face) or .yaml (mindformers)")


def from_hugging_face(config: Mapping[str, Any]) -> Architecture:
    """From the content of a Hugging Face ``config.json`` of model type "llama"."""
    if config.get("model_type") != "llama":
        raise ConfigurationError(
            f'model_type {config.get("model_type")!r} is not supported; this runner drives Llama ("llama")'
        )
    _refuse(config, "hidden_act", allowed=("silu",), default="silu")
    _refuse(config, "mlp_bias", allowed=(False,), default=False)
    refuse_quantized(config)
    hidden, heads = _count(config, "hidden_size"), _count(config, "num_attention_heads")
    _refuse(config, "head_dim", allowed=(None, hidden // heads), default=None)
    bias = bool(config.get("attention_bias", False))
    max_position = _count(config, "max_position_embeddings", 2048)
    return Architecture(
        hidden_size=hidden,
        num_layers=_count(config, "num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=_count(config, "num_key_value_heads", heads),
        intermediate_size=_count(config, "intermediate_size"),
        vocab_size=_count(config, "vocab_size"),
        max_position=max_position,
        norm_eps=float(config.get("rms_norm_eps", 1e-6)),
        rope=rope_from_hugging_face(config, max_position),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
        qkv_bias=bias,
        output_bias=bias,
        pad_token_id=_pad_token(config.get("pad_token_id")),
    )


def from_mindformers(document: Mapping[str, Any]) -> Architecture:
    """From the content of a mindformers YAML such as ``predict_llama2_7b.yaml``."""
    model = _mapping(document.get("model"), "model")
    config = _mapping(model.get("model_config"), "model.model_config")
    arch = _mapping(model.get("arch", {"type": "LlamaForCausalLM"}), "model.arch")
    _refuse(arch, "type", allowed=("LlamaForCausalLM",), default="LlamaForCausalLM")
    _refuse(config, "type", allowed=("LlamaConfig",), default="LlamaConfig")
    _refuse(config, "quant_config", allowed=(None, {}), default=None)
    _refuse_parallel(document)
    _refuse_experts(config)
    heads = _count(config, "num_heads", 32)
    seq_length = _count(config, "seq_length", 2048)
    return Architecture(
        hidden_size=_count(config, "hidden_size", 4096),
        num_layers=_count(config, "num_layers", 32),
        num_heads=heads,
        num_kv_heads=_count(config, "n_kv_heads", heads),
        intermediate_size=_intermediate_size(config),
        vocab_size=_count(config, "vocab_size", 32000),
        max_position=max(_count(config, "max_position_embedding", seq_length), seq_length),
        norm_eps=float(config.get("rms_norm_eps", 1e-5)),
        rope=rope_from_mindformers(config),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
        qkv_bias=bool(config.get("qkv_has_bias", False)),
        output_bias=bool(config.get("attn_proj_has_bias", False)),
        qkv_concat=bool(config.get("qkv_concat", False)),
        pad_token_id=_pad_token(config.get("pad_token_id")),
    )


def _intermediate_size(config: Mapping[str, Any]) -> int:
    """As mindformers' `LlamaFeedForward` computes it when ``intermediate_size`` is not given."""
    if config.get("intermediate_size") is not None:
        return _count(config, "intermediate_size")
    wide = 4 * _count(config, "hidden_size", 4096)
    if config.get("ffn_dim_multiplier") is not None:
        wide = int((float(config["ffn_dim_multiplier"]) + 0.01) * wide)
    wide = int(2 * wide / 3)
    multiple = _count(config, "multiple_of", 256)
    return multiple * ((wide + multiple - 1) // multiple)


def _refuse_parallel(document: Mapping[str, Any]) -> None:
    ranks = _mapping(document.get("parallel_config") or {}, "parallel_config").get("model_parallel", 1)
    if document.get("use_parallel") and ranks != 1:
        raise ConfigurationError(f"model_parallel is {ranks}; this runner drives one device (use_parallel: False)")


def _refuse_experts(config: Mapping[str, Any]) -> None:
    experts = _mapping(config.get("moe_config") or {}, "moe_config").get("expert_num", 1)
    if experts != 1:
        raise ConfigurationError(f"moe_config.expert_num is {experts}; mixtures of experts are not supported")


def _refuse(config: Mapping[str, Any], key: str, *, allowed: tuple[object, ...], default: object) -> None:
    value = config.get(key, default)
    if value not in allowed:
        names = " or ".join(repr(choice) for choice in allowed)
        raise ConfigurationError(f"{key} {value!r} is not supported; it must be {names}")


def _count(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        problem = "is missing" if value is None else f"is {value!r}"
        raise ConfigurationError(f"{key} {problem}; it must be a positive whole number")
    return value


def _pad_token(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{where} must be a mapping, but is {type(value).__name__}")
    return value
