"""A Llama in plain numpy and double precision, written from the papers, as an independent reference.

It reads a Hugging Face directory itself and shares no code with `model/`.
"""

import json
import math
import struct
from pathlib import Path

import numpy as np

from scripts.tools.family_checkpoints import write_safetensors  # noqa: F401 - tests take it from here


class NumpyLlama:
    """Logits of a whole sequence at once, without a cache."""

    def __init__(self, directory: Path) -> None:
        self.config = json.loads((directory / "config.json").read_text())
        self.weights = {}
        for file in directory.glob("*.safetensors"):
            self.weights |= read_safetensors(file)

    def logits(self, tokens: np.ndarray) -> np.ndarray:
        """``[L]`` token ids to ``[L, vocab]`` logits."""
        w = self.weights
        x = w["model.embed_tokens.weight"][tokens]
        for layer in range(self.config["num_hidden_layers"]):
            prefix = f"model.layers.{layer}."
            x = x + self._attention(prefix, self._norm(x, prefix + "input_layernorm"))
            x = x + self._feed_forward(prefix, self._norm(x, prefix + "post_attention_layernorm"))
        head = "model.embed_tokens" if self.config["tie_word_embeddings"] else "lm_head"
        return self._norm(x, "model.norm") @ w[f"{head}.weight"].T

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        scale = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + self.config["rms_norm_eps"])
        return x * scale * self.weights[f"{name}.weight"]

    def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.weights[f"{name}.weight"].T + self.weights.get(f"{name}.bias", 0.0)

    def _feed_forward(self, prefix: str, x: np.ndarray) -> np.ndarray:
        gate = self._linear(x, prefix + "mlp.gate_proj")
        up = self._linear(x, prefix + "mlp.up_proj")
        return self._linear(gate / (1 + np.exp(-gate)) * up, prefix + "mlp.down_proj")

    def _attention(self, prefix: str, x: np.ndarray) -> np.ndarray:
        heads, kv_heads = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        length, dim = len(x), self.config["hidden_size"] // heads
        query = self._rotate(self._linear(x, prefix + "self_attn.q_proj").reshape(length, heads, dim))
        key = self._rotate(self._linear(x, prefix + "self_attn.k_proj").reshape(length, kv_heads, dim))
        value = self._linear(x, prefix + "self_attn.v_proj").reshape(length, kv_heads, dim)
        out = np.empty((length, heads, dim))
        for head in range(heads):
            shared = head // (heads // kv_heads)
            scores = query[:, head] @ key[:, shared].T / math.sqrt(dim)
            scores[np.triu_indices(length, 1)] = -np.inf
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            out[:, head] = weights / weights.sum(-1, keepdims=True) @ value[:, shared]
        return self._linear(out.reshape(length, -1), prefix + "self_attn.o_proj")

    def _rotate(self, x: np.ndarray) -> np.ndarray:
        """Pairs (i, i + D/2) of ``[L, heads, D]`` turned by position times frequency."""
        half = x.shape[-1] // 2
        frequencies, magnitude = self._frequencies(x.shape[-1])
        angle = np.arange(len(x))[:, None, None] * frequencies
        cos, sin = np.cos(angle) * magnitude, np.sin(angle) * magnitude
        first, second = x[..., :half], x[..., half:]
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)

    def _frequencies(self, dim: int) -> tuple[np.ndarray, float]:
        base = self.config["rope_theta"]
        frequencies = base ** (-np.arange(0, dim, 2) / dim)
        scaling = self.config.get("rope_scaling") or {"rope_type": "default"}
        if scaling["rope_type"] == "linear":
            return frequencies / scaling["factor"], 1.0
        if scaling["rope_type"] == "llama3":
            return _llama3(frequencies, scaling), 1.0
        if scaling["rope_type"] == "yarn":
            return _yarn(frequencies, base, scaling), 0.1 * math.log(scaling["factor"]) + 1
        return frequencies, 1.0


def _llama3(frequencies: np.ndarray, scaling: dict) -> np.ndarray:
    """Low frequencies are divided, high ones kept, those between blended (Llama 3.1's rule)."""
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    blend = np.clip((turns - low) / (high - low), 0, 1)
    return frequencies * (blend + (1 - blend) / scaling["factor"])


def _yarn(frequencies: np.ndarray, base: float, scaling: dict) -> np.ndarray:
    """YaRN (arXiv:2309.00071), with the correction range rounded to whole dimensions as its authors do."""
    dim, trained = 2 * len(frequencies), scaling["original_max_position_embeddings"]

    def dimension_of(turns: float) -> float:
        return dim * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = max(math.floor(dimension_of(32)), 0), min(math.ceil(dimension_of(1)), dim - 1)
    ramp = np.clip((np.arange(dim // 2) - low) / max(high - low, 0.001), 0, 1)
    return frequencies * (1 - ramp) + frequencies / scaling["factor"] * ramp


def read_safetensors(file: Path) -> dict[str, np.ndarray]:
    """Every tensor as float64."""
    data = file.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    tensors = {}
    for name, entry in json.loads(data[8 : 8 + size]).items():
        if name != "__metadata__":
            first, last = (8 + size + offset for offset in entry["data_offsets"])
            tensors[name] = _widen(data[first:last], entry["dtype"]).reshape(entry["shape"])
    return tensors


def _widen(raw: bytes, dtype: str) -> np.ndarray:
    if dtype == "BF16":
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4").astype(np.float64)
    return np.frombuffer(raw, {"F32": "<f4", "F16": "<f2"}[dtype]).astype(np.float64)
