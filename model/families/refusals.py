"""What is refused: families that a decoder like this can't compute, and features that a family should not have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from model.errors import ConfigurationError
from model.families.fields import Fields

_LATENT = ("deepseek_v2", "deepseek_v3", "deepseek_v32", "kimi_k2", "minicpm3", "longcat_flash")

_NEUTRAL: dict[str, tuple[object, ...]] = {
    "attention_bias": (False,),
    "attention_multiplier": (),
    "attn_logit_softcapping": (),
    "alibi": (False,),
    "bias": (False,),
    "clip_qkv": (),
    "embedding_multiplier": (1,),
    "final_logit_softcapping": (),
    "kv_lora_rank": (),
    "logit_scale": (1,),
    "logits_scaling": (1,),
    "mlp_bias": (False,),
    "n_routed_experts": (),
    "no_rope_layers": (),
    "num_experts": (0, 1),
    "num_local_experts": (0, 1),
    "q_lora_rank": (),
    "qk_layernorm": (False,),
    "qkv_bias": (False,),
    "query_pre_attn_scalar": (),
    "residual_multiplier": (1,),
    "use_bidirectional_attention": (False,),
    "use_mrope": (False,),
    "use_parallel_residual": (False,),
    "use_qk_norm": (False,),
    "use_sliding_window": (False,),
}
"""Keys that change a model's arithmetic, and with which values they don't, beside null."""


def refuse_family(config: Mapping[str, Any], supported: Sequence[str]) -> NoReturn:
    """Raises ConfigurationError that says why ``config`` is none of the supported families."""
    kind = config.get("model_type")
    if kind is None:
        raise ConfigurationError("model_type is missing; it names the model's family, for example llama")
    if kind in _LATENT or config.get("kv_lora_rank"):
        raise ConfigurationError(
            f"model_type {kind!r} has multi-head latent attention (MLA), which is out of scope: "
            "the KV cache here holds keys and values"
        )
    if "text_config" in config or "vision_config" in config or "audio_config" in config:
        raise ConfigurationError(
            f"model_type {kind!r} is multi-modal, which is out of scope: only models of text alone are served"
        )
    raise ConfigurationError(f"model_type {kind!r} is not supported; supported are {', '.join(supported)}")


def refuse_features(c: Fields, family: str) -> None:
    """Raises ConfigurationError for a key that changes the arithmetic, and that the family did not look at."""
    for key in sorted(_NEUTRAL.keys() - c.seen):
        value = c.get(key)
        if value is not None and not any(value == neutral for neutral in _NEUTRAL[key]):
            raise ConfigurationError(
                f"{key} {value!r} is not supported for model_type {family!r}; leave it out if it means nothing there"
            )
