"""What each family has: its peculiarities stand here, in names.py, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from model.errors import ConfigurationError
from model.families.fields import Fields
from model.families.rope import Rope
from model.families.rope_reading import read_rope, read_scaling
from model.families.spec import Experts

Features = dict[str, Any]
"""Fields of a `Spec`."""

_SLIDING, _FULL = "sliding_attention", "full_attention"


def _rotation(c: Fields, sizes: Features, part: float = 1.0) -> Features:
    """``part`` of a head turns, unless the configuration says otherwise."""
    rope, rotary_dim = read_rope(c, sizes["head_dim"], part=part)
    return {"ropes": (rope,), "rotated": 0 if rotary_dim == sizes["head_dim"] else rotary_dim}


def _biases(c: Fields, key: str = "attention_bias", default: bool = False) -> Features:
    bias = c.flag(key, default)
    return {"qkv_bias": bias, "output_bias": bias}


def _llama(c: Fields, sizes: Features) -> Features:
    return {**_rotation(c, sizes), **_biases(c), "mlp_bias": c.flag("mlp_bias")}


def _mistral(c: Fields, sizes: Features) -> Features:
    return {**_rotation(c, sizes), **_windows(c, sizes, lambda layer: True)}


def _qwen2(c: Fields, sizes: Features) -> Features:
    c.get("attention_bias")  # some say it, and it changes nothing
    return {**_rotation(c, sizes), "qkv_bias": True, **_qwen_windows(c, sizes)}


def _qwen3(c: Fields, sizes: Features) -> Features:
    return {**_rotation(c, sizes), **_biases(c), "qk_norm": "head", **_qwen_windows(c, sizes)}


def _qwen3_moe(c: Fields, sizes: Features) -> Features:
    windows = _windows(c, sizes, lambda layer: True) if c.flag("use_sliding_window") else {}
    experts = _sparse(c, sizes)
    return {**_rotation(c, sizes), **_biases(c), "qk_norm": "head", **windows, "experts": experts}


def _qwen2_moe(c: Fields, sizes: Features) -> Features:
    experts = _sparse(c, sizes, c.count("shared_expert_intermediate_size"))
    return {
        **_rotation(c, sizes),
        "qkv_bias": c.flag("qkv_bias", True),
        **_qwen_windows(c, sizes),
        "experts": experts,
    }


def _mixtral(c: Fields, sizes: Features) -> Features:
    experts = Experts(
        c.count("num_local_experts"), c.count("num_experts_per_tok", 2), sizes["intermediate_size"], renormalize=True
    )
    return {**_mistral(c, sizes), "experts": experts}


def _sparse(c: Fields, sizes: Features, shared: int = 0) -> Experts:
    step, layers = c.count("decoder_sparse_step", 1), range(sizes["num_layers"])
    named = c.items("mlp_only_layers") or ()
    return Experts(
        c.count("num_local_experts" if c.get("num_experts") is None else "num_experts"),  # transformers 5 renames it
        c.count("num_experts_per_tok"),
        c.count("moe_intermediate_size"),
        renormalize=c.flag("norm_topk_prob"),
        shared_size=shared,
        dense_layers=tuple(layer for layer in layers if layer in named or (layer + 1) % step),
    )


def _gemma(c: Fields, sizes: Features) -> Features:
    """Its activation is the tanh form, also where older files say gelu."""
    c.get("hidden_activation")
    rotation = {} if c.get("model_type") == "gemma3_text" else _rotation(c, sizes)
    return {
        **rotation,
        **_biases(c),
        "activation": "gelu_tanh",
        "norm_offset": 1.0,
        "embedding_scale": sizes["hidden_size"] ** 0.5,
        "tied_embeddings": c.flag("tie_word_embeddings", True),
    }


def _gemma2(c: Fields, sizes: Features) -> Features:
    return {
        **_gemma(c, sizes),
        "norms": "both",
        "query_scale": _query_scale(c, sizes),
        "score_softcap": c.number("attn_logit_softcapping", 0.0),
        "logits_softcap": c.number("final_logit_softcapping", 0.0),
        **_windows(c, sizes, lambda layer: layer % 2 == 0),
    }


def _gemma3(c: Fields, sizes: Features) -> Features:
    pattern = c.count("sliding_window_pattern", c.count("_sliding_window_pattern", 6))
    kinds = _layer_types(c, sizes, lambda layer: (layer + 1) % pattern != 0)
    return {
        **_gemma2(c, sizes),
        "qk_norm": "head",
        "windows": _window_of(kinds, c),
        "ropes": _gemma3_ropes(c, sizes["head_dim"]),
        "layer_ropes": tuple(int(kind == _SLIDING) for kind in kinds),
    }


def _gemma3_ropes(c: Fields, head_dim: int) -> tuple[Rope, Rope]:
    """Of full and of sliding layers."""
    sections = c.section("rope_parameters")
    full = sections and sections.section(_FULL)
    local = sections and sections.section(_SLIDING)
    if full and local:
        return (
            read_scaling(full, c, full.number("rope_theta", 1e6), head_dim),
            read_scaling(local, c, local.number("rope_theta", 1e4), head_dim),
        )
    return read_rope(c, head_dim, theta=1e6)[0], Rope(c.number("rope_local_base_freq", 1e4))


def _query_scale(c: Fields, sizes: Features) -> float:
    return float((sizes["head_dim"] / c.number("query_pre_attn_scalar", 256)) ** 0.5)


def _smollm3(c: Fields, sizes: Features) -> Features:
    """Some layers know no positions."""
    interval, layers = c.count("no_rope_layer_interval", 4), range(sizes["num_layers"])
    turning = c.items("no_rope_layers", len(layers)) or [int((layer + 1) % interval != 0) for layer in layers]
    rope, _ = read_rope(c, sizes["head_dim"])
    return {
        **_llama(c, sizes),
        **_qwen_windows(c, sizes),
        "ropes": (rope, Rope(rope.theta, "none")),
        "layer_ropes": tuple(int(not turns) for turns in turning),
        "tied_embeddings": c.flag("tie_word_embeddings", True),
    }


def _granite(c: Fields, sizes: Features) -> Features:
    return {
        **_llama(c, sizes),
        "embedding_scale": c.number("embedding_multiplier", 1.0),
        "query_scale": c.number("attention_multiplier", 1.0) * sizes["head_dim"] ** 0.5,
        "residual_scale": c.number("residual_multiplier", 1.0),
        "logits_scale": 1 / c.number("logits_scaling", 1.0),
    }


def _olmo2(c: Fields, sizes: Features) -> Features:
    return {**_rotation(c, sizes), **_biases(c), "qk_norm": "all", "norms": "after"}


def _glm(c: Fields, sizes: Features) -> Features:
    """Half of a head's dimensions turn, in neighbouring pairs."""
    return {"qkv_bias": c.flag("attention_bias"), "interleaved": True, **_rotation(c, sizes, part=0.5)}


def _glm4(c: Fields, sizes: Features) -> Features:
    return {**_glm(c, sizes), "norms": "both"}


def _internlm2(c: Fields, sizes: Features) -> Features:
    return {**_rotation(c, sizes), **_biases(c, "bias")}


def _internlm3(c: Fields, sizes: Features) -> Features:
    bias = c.flag("bias")
    return {**_rotation(c, sizes), "qkv_bias": c.flag("qkv_bias"), "output_bias": bias, "mlp_bias": bias}


def _qwen_windows(c: Fields, sizes: Features) -> Features:
    """Layers from ``max_window_layers`` on have a window, where windows are used at all."""
    first = c.get("max_window_layers")
    used = c.flag("use_sliding_window")
    c.get("layer_types")
    return _windows(c, sizes, lambda layer: layer >= (first or 0)) if used else {}


def _windows(c: Fields, sizes: Features, slides: Callable[[int], bool]) -> Features:
    return {"windows": _window_of(_layer_types(c, sizes, slides), c)}


def _window_of(kinds: tuple[str, ...], c: Fields) -> tuple[int, ...]:
    window = c.get("sliding_window")
    if window is None or _SLIDING not in kinds:
        return ()
    return tuple(c.count("sliding_window") if kind == _SLIDING else 0 for kind in kinds)


def _layer_types(c: Fields, sizes: Features, slides: Callable[[int], bool]) -> tuple[str, ...]:
    layers = sizes["num_layers"]
    kinds = c.items("layer_types", layers) or [_SLIDING if slides(layer) else _FULL for layer in range(layers)]
    unknown = sorted({str(kind) for kind in kinds} - {_SLIDING, _FULL})
    if unknown:
        raise ConfigurationError(f"layer_types has {', '.join(unknown)}; supported are {_FULL} and {_SLIDING}")
    return tuple(kinds)


FAMILIES: dict[str, Callable[[Fields, Features], Features]] = {
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "phi3": _mistral,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "smollm3": _smollm3,
    "granite": _granite,
    "olmo2": _olmo2,
    "glm": _glm,
    "glm4": _glm4,
    "internlm2": _internlm2,
    "internlm3": _internlm3,
    "mixtral": _mixtral,
    "qwen2_moe": _qwen2_moe,
    "qwen3_moe": _qwen3_moe,
}
"""By `model_type`: from the configuration, and the sizes that all families have."""
