"""Writes tests/model/families/{families.json,references.npz}: what Hugging Face transformers answers, by family.

`make fixtures-families` installs torch and transformers >= 5.13 in an environment of their own. Weights are not
stored: they follow from a tensor's name (family_weights.py).
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from scripts.tools.family_checkpoints import FOLDER
from scripts.tools.family_weights import ANSWER, POSITIONS, PROMPT, make_tensor

Arrays = dict[str, NDArray[Any]]
Shapes = dict[str, tuple[int, ...]]

COMMON = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
MOE = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "decoder_sparse_step": 1}
SLIDING = ["sliding_attention", "full_attention"]


def rope(theta: Any = 10000.0, **kind: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_theta": theta, "rope_type": "default", **kind}}


LLAMA3: dict[str, Any] = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN: dict[str, Any] = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
GEMMA = {"head_dim": 32, "sliding_window": 12, "query_pre_attn_scalar": 24, "tie_word_embeddings": True}


def longrope(original: int) -> dict[str, Any]:
    factors = {"short_factor": [1 + 0.05 * i for i in range(6)], "long_factor": [2 + 0.5 * i for i in range(6)]}
    kind = rope(
        rope_type="longrope", original_max_position_embeddings=original, partial_rotary_factor=0.75, **factors
    )
    return {"original_max_position_embeddings": original, **kind}


FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-mha": ("Llama", {"num_key_value_heads": 4}),
    "llama-mqa": ("Llama", {"num_key_value_heads": 1}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True}),
    "llama-head-dim": ("Llama", {"head_dim": 32}),
    "llama-attention-bias": ("Llama", {"attention_bias": True}),
    "llama-mlp-bias": ("Llama", {"mlp_bias": True}),
    "llama-theta": ("Llama", rope(500000.0)),
    "llama-linear": ("Llama", rope(rope_type="linear", factor=4.0)),
    "llama-dynamic": ("Llama", rope(rope_type="dynamic", factor=4.0)),
    "llama-llama3": ("Llama", rope(500000.0, **LLAMA3, original_max_position_embeddings=32)),
    "llama-yarn": ("Llama", rope(**YARN)),
    "llama-bfloat16": ("Llama", {"dtype": "bfloat16"}),
    "llama-float16": ("Llama", {"dtype": "float16"}),
    "llama-bytes": ("Llama", {"vocab_size": 320, "bos_token_id": 318, "eos_token_id": 319, "pad_token_id": None}),
    "mistral": ("Mistral", {"sliding_window": None, "head_dim": 32}),
    "mistral-window": ("Mistral", {"sliding_window": 12, "head_dim": 16}),
    "qwen2": ("Qwen2", {}),
    "qwen2-tied": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2-window": ("Qwen2", {"use_sliding_window": True, "sliding_window": 12, "max_window_layers": 1}),
    "qwen3": ("Qwen3", {"head_dim": 32}),
    "qwen3-tied": ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True, "attention_bias": True}),
    "phi3": ("Phi3", {"sliding_window": 12}),
    "phi4-mini": ("Phi3", {"tie_word_embeddings": True, **longrope(64)}),
    "phi4-mini-long": ("Phi3", {"tie_word_embeddings": True, **longrope(16)}),
    "gemma": ("Gemma", {"head_dim": 32, "tie_word_embeddings": True}),
    "gemma2": ("Gemma2", {**GEMMA, "attn_logit_softcapping": 10.0, "final_logit_softcapping": 12.0}),
    "gemma3": ("Gemma3Text", {**GEMMA, "layer_types": SLIDING}),
    "smollm3": ("SmolLM3", {"no_rope_layers": [1, 0]}),
    "granite": (
        "Granite",
        {
            "embedding_multiplier": 12.0,
            "attention_multiplier": 0.2,
            "residual_multiplier": 0.22,
            "logits_scaling": 8.0,
        },
    ),
    "olmo2": ("Olmo2", {}),
    "glm": ("Glm", {"head_dim": 16, "attention_bias": True}),
    "glm4": ("Glm4", {"head_dim": 16, "attention_bias": True}),
    "mixtral": ("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}),
    "qwen2-moe": (
        "Qwen2Moe",
        {"norm_topk_prob": False, "shared_expert_intermediate_size": 48, "mlp_only_layers": [0], **MOE},
    ),
    "qwen3-moe": ("Qwen3Moe", {"head_dim": 32, "norm_topk_prob": True, **MOE}),
}
"""By name: transformers' configuration class and what it says besides `COMMON`."""

TWINS: dict[str, dict[str, Any]] = {
    "internlm2": {"model_type": "internlm2", "bias": True},
    "internlm3": {"model_type": "internlm3", "bias": False, "qkv_bias": False, "head_dim": 16},
}
"""Families whose code is not in transformers, but whose arithmetic is Llama's."""


def stored_shapes(model: Any, folder: Path) -> Shapes:
    """As `save_pretrained` writes them."""
    model.save_pretrained(folder)
    with safe_open(folder / "model.safetensors", "np") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def random_model(name: str, folder: Path) -> tuple[Any, dict[str, Any], Shapes]:
    """The model with its weights, its config.json and its tensors' shapes."""
    kind, changes = FAMILIES[name]
    config = getattr(transformers, f"{kind}Config")(**{**COMMON, **changes})
    shapes = stored_shapes(transformers.AutoModelForCausalLM.from_config(config), folder)
    return (
        reloaded(folder, {key: make_tensor(name, key, shape) for key, shape in shapes.items()}),
        read(folder),
        shapes,
    )


def twin(name: str, folder: Path) -> tuple[Any, dict[str, Any], Shapes]:
    """Llama's answers, and the family's own names and shapes."""
    own = TWINS[name]
    llama = transformers.LlamaConfig(**COMMON, attention_bias=own["bias"])
    llama_shapes = stored_shapes(transformers.AutoModelForCausalLM.from_config(llama), folder)
    shapes = internlm2_shapes(own["bias"]) if name == "internlm2" else llama_shapes
    tensors = {key: make_tensor(name, key, shape) for key, shape in shapes.items()}
    config = {
        **{key: value for key, value in read(folder).items() if key not in {"attention_bias", "mlp_bias"}},
        **own,
    }
    return (
        reloaded(folder, internlm2_as_llama(tensors) if name == "internlm2" else tensors),
        {**config, **own},
        shapes,
    )


def internlm2_shapes(bias: bool) -> Shapes:
    """From the family's own modeling_internlm2.py; 4 query heads of 16 share 2 key/value heads."""
    layer: Shapes = {
        "attention.wqkv.weight": (128, 64),
        "attention.wo.weight": (64, 64),
        **({"attention.wqkv.bias": (128,), "attention.wo.bias": (64,)} if bias else {}),
        "feed_forward.w1.weight": (96, 64),
        "feed_forward.w3.weight": (96, 64),
        "feed_forward.w2.weight": (64, 96),
        "attention_norm.weight": (64,),
        "ffn_norm.weight": (64,),
    }
    layers: Shapes = {f"model.layers.{i}.{name}": shape for i in range(2) for name, shape in layer.items()}
    outside: Shapes = {
        "model.tok_embeddings.weight": (256, 64),
        "model.norm.weight": (64,),
        "output.weight": (256, 64),
    }
    return {**outside, **layers}


def internlm2_as_llama(tensors: Arrays) -> Arrays:
    """Per key/value head, `wqkv` has its two queries, its key and its value, of 16 rows each."""
    words = {
        "tok_embeddings": "embed_tokens",
        "output": "lm_head",
        "attention.wo": "self_attn.o_proj",
        "feed_forward.w1": "mlp.gate_proj",
        "feed_forward.w3": "mlp.up_proj",
        "feed_forward.w2": "mlp.down_proj",
        "attention_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
    }
    renamed: Arrays = {}
    for name, array in tensors.items():
        if "wqkv" in name:
            heads = [array[i * 16 : (i + 1) * 16] for i in range(8)]
            for letter, which in {"q": (0, 1, 4, 5), "k": (2, 6), "v": (3, 7)}.items():
                target = name.replace("attention.wqkv", f"self_attn.{letter}_proj")
                renamed[target] = np.concatenate([heads[i] for i in which])
        else:
            theirs = next((word for word in words if word in name), "")
            renamed[name.replace(theirs, words.get(theirs, ""))] = array
    return renamed


def reloaded(folder: Path, tensors: Arrays) -> Any:
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not info["missing_keys"], info
    assert not info["unexpected_keys"], info
    return model.eval()


def read(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


def answers(model: Any) -> Arrays:
    """Prompt and greedy answer, its tokens' log-probabilities, and logits of some positions, computed without a
    cache."""
    ids = torch.from_numpy(np.random.default_rng(0).integers(3, COMMON["vocab_size"], (1, PROMPT)))
    with torch.no_grad():
        for _ in range(ANSWER):
            best = model(ids, use_cache=False).logits[:, -1:].argmax(-1)
            ids = torch.cat([ids, best], 1)
        logits = model(ids, use_cache=False).logits[0].float()
    logprobs = logits[PROMPT - 1 : -1].log_softmax(-1).gather(1, ids[0, PROMPT:, None])[:, 0]
    return {
        "tokens": ids[0].numpy().astype(np.int32),
        "logits": logits[list(POSITIONS)].numpy(),
        "logprobs": logprobs.numpy(),
    }


def main() -> None:
    torch.set_num_threads(1)
    described: dict[str, Any] = {}
    arrays: Arrays = {}
    for name in [*FAMILIES, *TWINS]:
        with tempfile.TemporaryDirectory() as directory:
            make = random_model if name in FAMILIES else twin
            model, config, shapes = make(name, Path(directory))
        arrays |= {f"{name}.{what}": array for what, array in answers(model).items()}
        described[name] = {"config": config, "tensors": shapes}
        print(f"{name:22} standard deviation of logits {arrays[f'{name}.logits'].std():.2f}")
    lines = (f"{json.dumps(name)}: {json.dumps(it)}" for name, it in described.items())
    (FOLDER / "families.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    np.savez_compressed(FOLDER / "references.npz", **arrays)


if __name__ == "__main__":
    main()
