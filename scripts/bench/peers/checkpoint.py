"""A random Llama in Hugging Face's form: what it says is nonsense, what it costs is not."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.demo import DEMO_DIR
from model.openvino.loading import bfloat16
from scripts.bench.peers.safetensors_file import Array, write_tensors

_SPREAD = 0.02  # standard deviation of the weights, as Hugging Face initializes them
_ROWS = 1024  # that are made at once


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

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for _, shape in _shapes(self))


@dataclass(frozen=True, slots=True)
class Model:
    """`dtype`: of the stored weights. Bfloat16 takes half of the disk, and becomes any other width all the same."""

    size: Size
    dtype: str = "float32"  # or bfloat16

    def with_layers(self, layers: int | None) -> Model:
        return self if layers is None else replace(self, size=replace(self.size, num_hidden_layers=layers))


MODELS = {
    "3m": Model(Size(2048, 256, 768, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4)),
    "134m": Model(Size()),
    "1.1b": Model(  # TinyLlama's shape
        Size(
            hidden_size=2048,
            intermediate_size=5632,
            num_hidden_layers=22,
            num_attention_heads=32,
            num_key_value_heads=4,
        ),
        "bfloat16",
    ),
}


def make_checkpoint(folder: Path, size: Size, dtype: str = "float32", seed: int = 0) -> Path:
    """config.json, model.safetensors, and a tokenizer; as it is if it is there already."""
    config = _config(size, dtype)
    file = folder / "config.json"
    if file.exists() and json.loads(file.read_text(encoding="utf-8")) == config:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    shapes = dict(_shapes(size))
    write_tensors(folder / "model.safetensors", shapes, dtype, _weights(shapes, dtype, np.random.default_rng(seed)))
    _write_tokenizer(folder, size.vocab_size)
    file.write_text(json.dumps(config, indent=1), encoding="utf-8")  # last: says that all is there
    return folder


def _config(size: Size, dtype: str) -> dict[str, Any]:
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
        "torch_dtype": dtype,
    }


def _shapes(size: Size) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, key_value = size.hidden_size, size.num_key_value_heads * size.head_dim
    layer = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (key_value, hidden),
        "self_attn.v_proj": (key_value, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (size.intermediate_size, hidden),
        "mlp.up_proj": (size.intermediate_size, hidden),
        "mlp.down_proj": (hidden, size.intermediate_size),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    yield "model.embed_tokens.weight", (size.vocab_size, hidden)
    yield "lm_head.weight", (size.vocab_size, hidden)
    for number in range(size.num_hidden_layers):
        for part, shape in layer.items():
            yield f"model.layers.{number}.{part}.weight", shape
    yield "model.norm.weight", (hidden,)


def _weights(shapes: dict[str, tuple[int, ...]], dtype: str, rng: np.random.Generator) -> Iterator[Array]:
    """In the order of `shapes`, some rows at a time."""
    for shape in shapes.values():
        for first in range(0, shape[0], _ROWS):
            part = (min(_ROWS, shape[0] - first), *shape[1:])
            values = np.ones(part, np.float32) if len(part) == 1 else _random(rng, part)
            yield values if dtype == "float32" else bfloat16(values)


def _random(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
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
