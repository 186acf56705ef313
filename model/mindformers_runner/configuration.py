"""Reads a model's configuration: a Hugging Face ``config.json``, or a mindformers YAML of a Llama.

Whatever the runner could not compute faithfully is refused here, by name, before anything is allocated.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from model.errors import ConfigurationError
from model.families import Rope, Spec, read_spec_file
from model.families.fields import Fields
from model.families.rope_reading import yarn_magnitude

_DTYPES = ("float16", "bfloat16", "float32")


def read_model(path: Path, ranks: int | None = None) -> tuple[Spec, bool]:
    """What a YAML, a ``config.json``, or a directory that holds a ``config.json`` describes, and whether mindformers'
    Llama is to have fused matrices (``qkv_concat`` of the YAML). ``ranks``: among how many the model is divided,
    which a YAML may say, too; None: does not matter.

    Raises:
        ConfigurationError: the file is missing or unreadable, or describes something that is not supported.
    """
    file = path / "config.json" if path.is_dir() else path
    if file.suffix == ".json":
        return read_spec_file(file), False
    if file.suffix not in {".yaml", ".yml"}:
        raise ConfigurationError(f"model configuration {file}: expected .json (Hugging Face) or .yaml (mindformers)")
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the model configuration {file}: {error}") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigurationError(f"model configuration {file}: {error}") from error
    try:
        return from_mindformers(_mapping(document, "the file"), ranks)
    except ConfigurationError as error:
        raise ConfigurationError(f"model configuration {file}: {error}") from error


def from_mindformers(document: Mapping[str, Any], ranks: int | None = 1) -> tuple[Spec, bool]:
    """From the content of a mindformers YAML such as ``predict_llama2_7b.yaml``; as `read_model`."""
    model = _mapping(document.get("model"), "model")
    config = _mapping(model.get("model_config"), "model.model_config")
    arch = _mapping(model.get("arch", {"type": "LlamaForCausalLM"}), "model.arch")
    _refuse(arch, "type", allowed=("LlamaForCausalLM",))
    _refuse(config, "type", allowed=("LlamaConfig",))
    _refuse(config, "quant_config", allowed=(None, {}))
    _refuse(config, "compute_dtype", allowed=_DTYPES)
    _refuse_parallel(document, ranks)
    _refuse_experts(config)
    c = Fields(config)
    return _llama(c), c.flag("qkv_concat")


def _llama(c: Fields) -> Spec:
    """With the defaults of mindformers' `LlamaConfig`."""
    hidden, heads, length = c.count("hidden_size", 4096), c.count("num_heads", 32), c.count("seq_length", 2048)
    if hidden % heads:
        raise ConfigurationError(f"hidden_size {hidden} cannot be split into {heads} heads")
    return Spec(
        family="llama",
        hidden_size=hidden,
        num_layers=c.count("num_layers", 32),
        num_heads=heads,
        num_kv_heads=c.count("n_kv_heads", heads),
        head_dim=hidden // heads,
        intermediate_size=_intermediate_size(c, hidden),
        vocab_size=c.count("vocab_size", 32000),
        max_position=max(c.count("max_position_embedding", length), length),
        norm_eps=c.number("rms_norm_eps", 1e-5),
        dtype=c.text("compute_dtype", "float16"),
        ropes=(_rope(c),),
        tied_embeddings=c.flag("tie_word_embeddings"),
        qkv_bias=c.flag("qkv_has_bias"),
        output_bias=c.flag("attn_proj_has_bias"),
    )


def _intermediate_size(c: Fields, hidden: int) -> int:
    """As mindformers' `LlamaFeedForward` computes it when ``intermediate_size`` is not given."""
    if c.get("intermediate_size") is not None:
        return c.count("intermediate_size")
    wide = 4 * hidden
    if c.get("ffn_dim_multiplier") is not None:
        wide = int((c.number("ffn_dim_multiplier") + 0.01) * wide)
    wide = int(2 * wide / 3)
    multiple = c.count("multiple_of", 256)
    return multiple * ((wide + multiple - 1) // multiple)


def _rope(c: Fields) -> Rope:
    """As mindformers' `FreqsMgr` computes it from ``theta``, ``extend_method`` and ``scaling_factor``."""
    theta, method = c.number("theta", 10000.0), c.get("extend_method") or "None"
    if method == "None":
        return Rope(theta)
    if method == "PI":
        return Rope(theta, "linear", _factor(c, "scaling_factor", 1.0))
    if method == "NTK":
        return Rope(theta * _factor(c, "scaling_factor", 1.0))
    if method not in {"LLAMA3", "YARN"}:
        raise c.error("extend_method", "supported are None, PI, NTK, LLAMA3 and YARN")
    scaling = c.section("scaling_factor") if isinstance(c.get("scaling_factor"), Mapping) else None
    if scaling is None:
        keys = "factor, original_max_position_embeddings and the others of its kind"
        raise c.error("scaling_factor", f"for extend_method {method} it must have the keys {keys}")
    return _extended(theta, method, scaling)


def _extended(theta: float, method: str, scaling: Fields) -> Rope:
    factor, trained = _factor(scaling, "factor"), scaling.count("original_max_position_embeddings")
    if method == "LLAMA3":
        low, high = scaling.number("low_freq_factor"), scaling.number("high_freq_factor")
        return Rope(theta, "llama3", factor, trained, low_turns=low, high_turns=high)
    part, whole = (yarn_magnitude(factor, scaling.number(key)) for key in ("mscale", "mscale_all_dim"))
    low, high = scaling.number("beta_slow"), scaling.number("beta_fast")
    return Rope(theta, "yarn", factor, trained, part / whole, low_turns=low, high_turns=high)


def _factor(c: Fields, key: str, default: float | None = None) -> float:
    factor = c.number(key, default)
    if factor < 1:
        raise c.error(key, "it must be at least 1")
    return factor


def _refuse_parallel(document: Mapping[str, Any], ranks: int | None) -> None:
    parts = _mapping(document.get("parallel_config") or {}, "parallel_config").get("model_parallel", 1)
    if ranks is not None and document.get("use_parallel") and parts != ranks:
        raise ConfigurationError(
            f"model_parallel is {parts}, but the model is divided among {ranks} (pipeline.ranks, by default one per "
            "port of serving_config.agent_ports); make them agree, or set use_parallel: False"
        )


def _refuse_experts(config: Mapping[str, Any]) -> None:
    experts = _mapping(config.get("moe_config") or {}, "moe_config").get("expert_num", 1)
    if experts != 1:
        raise ConfigurationError(f"moe_config.expert_num is {experts}; mixtures of experts are not supported")


def _refuse(config: Mapping[str, Any], key: str, *, allowed: tuple[object, ...]) -> None:
    """The first of those that are allowed is the default."""
    value = config.get(key, allowed[0])
    if value not in allowed:
        names = " or ".join(repr(choice) for choice in allowed)
        raise ConfigurationError(f"{key} {value!r} is not supported; it must be {names}")


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{where} must be a mapping, but is {type(value).__name__}")
    return value
