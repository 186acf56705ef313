"""What a config.json says that no engine here can serve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model.errors import ConfigurationError

ORIGINAL_WEIGHTS = (
    "take the repository with the original weights (bfloat16, float16 or float32), from which this one was made"
)
_UNNAMED = "an unnamed method"
_QUANTIZED = {"quantization_config": _UNNAMED, "compression_config": _UNNAMED, "quantization": "MLX"}
"""Keys of a config.json, and who writes them without the name of a method."""
_INNER = ("text_config", "vision_config", "audio_config", "thinker_config", "language_config")


def refuse_multimodal(config: Mapping[str, Any]) -> None:
    """Raises ConfigurationError for a wrapper of several models, or an encoder-decoder."""
    kind = config.get("model_type")
    if any(isinstance(config.get(name), Mapping) for name in _INNER):
        raise ConfigurationError(
            f"model_type {kind!r} is multi-modal, which is out of scope: only models of text alone are served; "
            "take the family's text model"
        )
    if config.get("is_encoder_decoder") is True:
        raise ConfigurationError(
            f"model_type {kind!r} is an encoder-decoder, which is out of scope: only decoders are served"
        )


def refuse_quantized(config: Mapping[str, Any]) -> None:
    """Raises ConfigurationError that names the method."""
    for key, usual in _QUANTIZED.items():
        if quantization := config.get(key):
            method = quantization.get("quant_method") if isinstance(quantization, Mapping) else None
            raise ConfigurationError(
                f"{key} (weights quantized by {method or usual}) is not supported; {ORIGINAL_WEIGHTS}"
            )
