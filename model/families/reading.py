"""Reads a Hugging Face ``config.json``: what all families have; features.py has what each has besides.

What the decoder could not compute faithfully is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.errors import ConfigurationError
from model.families.features import FAMILIES, Features
from model.families.fields import Fields
from model.families.refusals import refuse_family, refuse_features
from model.families.spec import Spec
from model.folder import refuse_quantized

_DTYPES = ("float32", "float16", "bfloat16")
_ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh"}


def read_spec_file(path: Path) -> Spec:
    """From a ``config.json``, or a directory with one. Raises ConfigurationError, which names the file."""
    file = path / "config.json" if path.is_dir() else path
    try:
        config = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the model configuration {file}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"model configuration {file}: it is not valid JSON ({error}); if it is truncated, download it again"
        ) from error
    if not isinstance(config, dict):
        raise ConfigurationError(f"model configuration {file}: the file must hold an object")
    try:
        return read_spec(config)
    except ConfigurationError as error:
        raise ConfigurationError(f"model configuration {file}: {error}") from error


def read_spec(config: Mapping[str, Any]) -> Spec:
    """From a ``config.json``'s content.

    Raises:
        ConfigurationError: the family, or a feature, is not supported; a value is missing or wrong.
    """
    family = config.get("model_type")
    if family not in FAMILIES:
        refuse_family(config, tuple(FAMILIES))
    assert isinstance(family, str)
    c = Fields(config)
    sizes = _sizes(c, family)
    refuse_quantized(config)
    features = {**_common(c, sizes, family), **FAMILIES[family](c, sizes)}
    refuse_features(c, family)
    return Spec(family=family, **{**sizes, **features})


def _sizes(c: Fields, family: str) -> Features:
    heads, hidden = c.count("num_attention_heads"), c.count("hidden_size")
    head_dim = c.count("head_dim", 256 if family.startswith("gemma") else max(1, hidden // heads))
    if c.get("head_dim") is None and hidden % heads and not family.startswith("gemma"):
        raise ConfigurationError(f"hidden_size {hidden} cannot be split into {heads} heads; give head_dim")
    return {
        "hidden_size": hidden,
        "num_layers": c.count("num_hidden_layers"),
        "num_heads": heads,
        "num_kv_heads": c.count("num_key_value_heads", heads),
        "head_dim": head_dim,
        "intermediate_size": c.count("intermediate_size"),
        "vocab_size": c.count("vocab_size"),
        "max_position": c.count("max_position_embeddings", 2048),
        "norm_eps": c.number("rms_norm_eps", 1e-6),
    }


def _common(c: Fields, sizes: Features, family: str) -> Features:
    """What most families have in the same way; a family's own features win."""
    dtype = c.text("dtype", c.text("torch_dtype", "float32")).removeprefix("torch.")
    if dtype not in ("auto", *_DTYPES):
        raise ConfigurationError(f"dtype {dtype!r} is not supported; it must be one of {', '.join(_DTYPES)}")
    activation = c.text("hidden_act", "silu")
    if activation not in _ACTIVATIONS and not family.startswith("gemma"):
        raise ConfigurationError(
            f"hidden_act {activation!r} is not supported; it must be one of {', '.join(_ACTIVATIONS)}"
        )
    return {
        "dtype": "float32" if dtype == "auto" else dtype,
        "activation": _ACTIVATIONS.get(activation, "silu"),
        "tied_embeddings": c.flag("tie_word_embeddings"),
    }
