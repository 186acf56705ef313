"""A random Llama in Hugging Face's form: what it says is nonsense, what it costs is not."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.demo import DEMO_DIR

Float32 = NDArray[np.float32]
_SPREAD = 0.02  # standard deviation of the weights, as Hugging Face initializes them


@dataclass(frozen=True, slots=True)
class Size:
    """About 134 million parameters by default, 49 million of them in embedding and head."""

    vocab_size: int = 32000
    hidden_size: int = 768
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_key_value_heads: int = 12
    max_position_embeddings: int = 2048

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


def make_checkpoint(folder: Path, size: Size, seed: int = 0) -> Path:
    """config.json, model.safetensors in float32, and a tokenizer; as it is if it is there already."""
    config = _config(size)
    file = folder / "config.json"
    if file.exists() and json.loads(file.read_text(encoding="utf-8")) == config:
        return folder
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(_weights(size, np.random.default_rng(seed)), folder / "model.safetensors", {"format": "pt"})
    _write_tokenizer(folder, size.vocab_size)
    file.write_text(json.dumps(config, indent=1), encoding="utf-8")  # last: says that all is there
    return folder


def _config(size: Size) -> dict[str, Any]:
    return asdict(size) | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "head_dim": size.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "torch_dtype": "float32",
    }


def _weights(size: Size, rng: np.random.Generator) -> dict[str, Float32]:
    hidden, key_value = size.hidden_size, size.num_key_value_heads * size.head_dim
    shapes = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (key_value, hidden),
        "self_attn.v_proj": (key_value, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (size.intermediate_size, hidden),
        "mlp.up_proj": (size.intermediate_size, hidden),
        "mlp.down_proj": (hidden, size.intermediate_size),
    }
    table = (size.vocab_size, hidden)
    weights = {"model.embed_tokens.weight": _random(rng, table), "lm_head.weight": _random(rng, table)}
    for layer in range(size.num_hidden_layers):
        name = f"model.layers.{layer}."
        weights |= {f"{name}{part}.weight": _random(rng, shape) for part, shape in shapes.items()}
        weights |= {f"{name}{part}.weight": np.ones(hidden, np.float32) for part in _NORMS}
    return weights | {"model.norm.weight": np.ones(hidden, np.float32)}


_NORMS = ("input_layernorm", "post_attention_layernorm")


def _random(rng: np.random.Generator, shape: tuple[int, ...]) -> Float32:
    return rng.standard_normal(shape, np.float32) * np.float32(_SPREAD)


def _write_tokenizer(folder: Path, vocab_size: int) -> None:
    """The demo model's, with as many more tokens as the model has: no text becomes one of them, but they have one."""
    tokenizer = json.loads((Path(DEMO_DIR) / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    for token in range(len(vocabulary), vocab_size):
        vocabulary[f"<{token}>"] = token
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    settings = json.loads((Path(DEMO_DIR) / "tokenizer_config.json").read_text(encoding="utf-8"))
    del settings["model_max_length"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
