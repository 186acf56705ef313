"""RoPE variants: from Hugging Face's names to those of mindformers' `FreqsMgr`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model.errors import ConfigurationError

ScalingFactor = float | Mapping[str, float | int]


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary embedding as mindformers' `LlamaConfig` takes it."""

    theta: float = 10000.0
    extend_method: str = "None"
    scaling_factor: ScalingFactor = 1.0

    def original_length(self) -> int:
        """Length the model was trained with before it was extended; 0 when the variant does not say."""
        if isinstance(self.scaling_factor, Mapping):
            return int(self.scaling_factor["original_max_position_embeddings"])
        return 0


_LLAMA3_KEYS = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
_YARN_KEYS = (
    "factor",
    "original_max_position_embeddings",
    "beta_slow",
    "beta_fast",
    "mscale",
    "mscale_all_dim",
)
_MINDFORMERS_KEYS: dict[str, tuple[str, ...]] = {
    "None": (),
    "PI": (),
    "NTK": (),
    "LLAMA3": _LLAMA3_KEYS,
    "YARN": _YARN_KEYS,
}
_INTEGER_KEYS = ("original_max_position_embeddings",)


def rope_from_mindformers(config: Mapping[str, Any]) -> Rope:
    """From ``theta``, ``extend_method`` and ``scaling_factor`` of a ``model_config``."""
    theta = _number("theta", config.get("theta", 10000.0))
    method = str(config.get("extend_method") or "None")
    scaling = config.get("scaling_factor", 1.0)
    if method not in _MINDFORMERS_KEYS:
        raise ConfigurationError(
            f"extend_method {method!r} is not supported; mindformers' Llama runs with {', '.join(_MINDFORMERS_KEYS)}"
        )
    keys = _MINDFORMERS_KEYS[method]
    if keys:
        return Rope(theta, method, _pick(scaling, keys, f"scaling_factor of extend_method {method}"))
    return Rope(theta, method, 1.0 if method == "None" else _number("scaling_factor", scaling))


def rope_from_hugging_face(config: Mapping[str, Any], max_position: int) -> Rope:
    """From ``rope_theta`` and ``rope_scaling`` (or ``rope_parameters``) of a ``config.json``.

    "linear" becomes mindformers' position interpolation, which divides positions instead of frequencies;
    its own "linear" refuses every factor.
    """
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(scaling, Mapping):
        raise ConfigurationError(f"rope_scaling is {scaling!r}; it must be an object or null")
    theta = _number("rope_theta", scaling.get("rope_theta", config.get("rope_theta", 10000.0)))
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return Rope(theta)
    if kind == "linear":
        return Rope(theta, "PI", _pick(scaling, ("factor",), "rope_scaling of type linear")["factor"])
    if kind == "llama3":
        return Rope(theta, "LLAMA3", _pick(scaling, _LLAMA3_KEYS, "rope_scaling of type llama3"))
    if kind == "yarn":
        return Rope(theta, "YARN", _yarn(scaling, max_position))
    raise ConfigurationError(
        f"rope_scaling type {kind!r} is not supported; mindformers knows default, linear, llama3 and yarn"
    )


def _yarn(scaling: Mapping[str, Any], max_position: int) -> dict[str, float | int]:
    """Hugging Face's defaults filled in; mscale 1 over mscale_all_dim 0 is its attention factor."""
    if scaling.get("attention_factor") is not None:
        raise ConfigurationError("rope_scaling of type yarn: attention_factor is not supported by mindformers")
    if scaling.get("truncate") is False:
        raise ConfigurationError("rope_scaling of type yarn: truncate false is not supported by mindformers")
    defaults = {
        "original_max_position_embeddings": max_position,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 1.0,
        "mscale_all_dim": 0.0,
    }
    given = {key: value for key, value in scaling.items() if value is not None}
    return _pick({**defaults, **given}, _YARN_KEYS, "rope_scaling of type yarn")


def _pick(scaling: object, keys: tuple[str, ...], where: str) -> dict[str, float | int]:
    if not isinstance(scaling, Mapping):
        raise ConfigurationError(f"{where} is {scaling!r}; it must have the keys {', '.join(keys)}")
    missing = [key for key in keys if scaling.get(key) is None]
    if missing:
        raise ConfigurationError(f"{where} lacks {', '.join(missing)}")
    return {key: _scaling_number(key, scaling[key], where) for key in keys}


def _scaling_number(key: str, value: object, where: str) -> float | int:
    number = _number(f"{key} in {where}", value)
    if key == "factor" and number < 1:
        raise ConfigurationError(f"factor in {where} is {number}; it must be at least 1")
    return int(number) if key in _INTEGER_KEYS else number


def _number(name: str, value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ConfigurationError(f"{name} is {value!r}; it must be a number") from None
