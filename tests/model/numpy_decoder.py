"""The decoder that a `Spec` describes, in plain numpy and double precision, over canonical weights.

It is what a spec and `canonical` are tested with, family by family, without MindSpore.
"""

import math
from collections.abc import Mapping

import numpy as np

from model.families import Spec
from model.families.rope import rotary_table


class NumpyDecoder:
    """Logits of a whole sequence at once, without a cache."""

    def __init__(self, spec: Spec, weights: Mapping[str, np.ndarray]) -> None:
        self.spec = spec
        self.weights = {name: array.astype(np.float64) for name, array in weights.items()}

    def logits(self, tokens: np.ndarray) -> np.ndarray:
        """``[L]`` token ids to ``[L, vocab]`` logits."""
        spec = self.spec
        x = self.weights["embed.weight"][tokens] * spec.embedding_scale
        for number in range(spec.num_layers):
            layer = f"layers.{number}."
            out = self._attention(number, layer, self._norm(x, layer + "attention_norm"))
            x = x + self._norm(out, layer + "attention_post_norm")
            out = self._feed_forward(layer, self._norm(x, layer + "mlp_norm"))
            x = x + self._norm(out, layer + "mlp_post_norm")
        head = self.weights["embed.weight" if spec.tied_embeddings else "head.weight"]
        return softcap(self._norm(x, "norm") @ head.T, spec.logits_softcap)

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        """Where there is no such norm, nothing."""
        weight = self.weights.get(f"{name}.weight")
        return x if weight is None else x / np.sqrt((x * x).mean(-1, keepdims=True) + self.spec.norm_eps) * weight

    def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.weights[f"{name}.weight"].T + self.weights.get(f"{name}.bias", 0.0)

    def _feed_forward(self, layer: str, x: np.ndarray) -> np.ndarray:
        if f"{layer}router.weight" not in self.weights:
            return self._linear(self._gated(self._linear(x, layer + "gate_up")), layer + "down")
        return self._experts(layer, x) + self._shared(layer, x)

    def _gated(self, gate_up: np.ndarray) -> np.ndarray:
        gate, up = np.split(gate_up, 2, -1)
        if self.spec.activation == "gelu_tanh":
            return 0.5 * gate * (1 + np.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3))) * up
        return gate / (1 + np.exp(-gate)) * up

    def _experts(self, layer: str, x: np.ndarray) -> np.ndarray:
        experts, out = self.spec.experts, np.zeros_like(x)
        share = softmax(self._linear(x, layer + "router"))
        for token, shares in enumerate(share):
            chosen = np.argsort(-shares)[: experts.chosen]
            total = shares[chosen].sum() if experts.renormalize else 1.0
            for expert in chosen:
                inner = self._gated(x[token] @ self.weights[layer + "experts_gate_up.weight"][expert].T)
                out[token] += shares[expert] / total * (inner @ self.weights[layer + "experts_down.weight"][expert].T)
        return out

    def _shared(self, layer: str, x: np.ndarray) -> np.ndarray:
        if not self.spec.experts.shared_size:
            return np.zeros_like(x)
        out = self._linear(self._gated(self._linear(x, layer + "shared_gate_up")), layer + "shared_down")
        return out / (1 + np.exp(-self._linear(x, layer + "shared_gate")))

    def _attention(self, number: int, layer: str, x: np.ndarray) -> np.ndarray:
        spec, length = self.spec, len(x)
        query = self._rotate(number, self._heads(x, layer + "q"))
        key = self._rotate(number, self._heads(x, layer + "k"))
        value = self._linear(x, layer + "v").reshape(length, spec.num_kv_heads, -1)
        shared = np.arange(spec.num_heads) // (spec.num_heads // spec.num_kv_heads)
        scores = np.einsum("ihd,jhd->hij", query, key[:, shared]) / math.sqrt(spec.head_dim)
        scores = softcap(scores, spec.score_softcap)
        past = np.arange(length)[:, None] - np.arange(length)
        scores[:, (past < 0) | (past >= (spec.window(number) or length))] = -np.inf
        out = np.einsum("hij,jhd->ihd", softmax(scores), value[:, shared])
        return self._linear(out.reshape(length, -1), layer + "o")

    def _heads(self, x: np.ndarray, name: str) -> np.ndarray:
        """Queries or keys ``[L, heads, D]``, with their norm: of a head, or of all of them."""
        flat = self._linear(x, name)
        heads = flat.reshape(len(x), -1, self.spec.head_dim)
        if self.spec.qk_norm == "all":
            return self._norm(flat, f"{name}_norm").reshape(heads.shape)
        return self._norm(heads, f"{name}_norm") if self.spec.qk_norm else heads

    def _rotate(self, number: int, x: np.ndarray) -> np.ndarray:
        spec = self.spec
        tables = rotary_table(spec.ropes[spec.rope(number)], spec.rotary_dim, spec.head_dim, len(x))
        cos, sin = (table[:, None].astype(np.float64) for table in tables)
        first, second = np.split(x, 2, -1)
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)


def softmax(x: np.ndarray) -> np.ndarray:
    weights = np.exp(x - x.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def softcap(x: np.ndarray, cap: float) -> np.ndarray:
    return np.tanh(x / cap) * cap if cap else x
