"""The shape of a Llama, whichever configuration file it is written in."""

from __future__ import annotations

from dataclasses import dataclass

from model.errors import ConfigurationError
from model.mindformers_runner.rope import Rope

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Architecture:
    """Everything that decides a Llama's tensors and arithmetic."""

    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    intermediate_size: int
    vocab_size: int
    max_position: int
    norm_eps: float
    rope: Rope
    tied_embeddings: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    qkv_concat: bool = False  # mindformers' fused query/key/value and gate/up matrices
    pad_token_id: int = 0

    def __post_init__(self) -> None:
        for name in (
            "hidden_size",
            "num_layers",
            "num_heads",
            "num_kv_heads",
            "intermediate_size",
            "vocab_size",
        ):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it must be positive")
        if self.hidden_size % self.num_heads or self.head_dim % 2:
            raise ConfigurationError(
                f"hidden size {self.hidden_size} cannot be split into {self.num_heads} heads of an even size"
            )
        if self.num_heads % self.num_kv_heads:
            raise ConfigurationError(
                f"{self.num_heads} heads cannot share {self.num_kv_heads} key/value heads evenly"
            )

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def kv_width(self) -> int:
        return self.num_kv_heads * self.head_dim

    def tensors(self) -> dict[str, Shape]:
        """Every weight by its mindformers name, in the order of the computation."""
        shapes: dict[str, Shape] = {"model.tok_embeddings.embedding_weight": (self.vocab_size, self.hidden_size)}
        for layer in range(self.num_layers):
            prefix = f"model.layers.{layer}."
            shapes |= {prefix + name: shape for name, shape in self._layer_tensors().items()}
        shapes["model.norm_out.weight"] = (self.hidden_size,)
        if not self.tied_embeddings:
            shapes["lm_head.weight"] = (self.vocab_size, self.hidden_size)
        return shapes

    def _layer_tensors(self) -> dict[str, Shape]:
        hidden = self.hidden_size
        return {
            "attention_norm.weight": (hidden,),
            **self._attention_inputs(),
            **self._linear("attention.wo", hidden, hidden, self.output_bias),
            "ffn_norm.weight": (hidden,),
            **self._feed_forward(),
        }

    def _attention_inputs(self) -> dict[str, Shape]:
        hidden, kv = self.hidden_size, self.kv_width
        if self.qkv_concat:
            return self._linear("attention.w_qkv", hidden + 2 * kv, hidden, self.qkv_bias)
        return {
            **self._linear("attention.wq", hidden, hidden, self.qkv_bias),
            **self._linear("attention.wk", kv, hidden, self.qkv_bias),
            **self._linear("attention.wv", kv, hidden, self.qkv_bias),
        }

    def _feed_forward(self) -> dict[str, Shape]:
        hidden, wide = self.hidden_size, self.intermediate_size
        if self.qkv_concat:
            gate = {"feed_forward.w_gate_hidden.weight": (2 * wide, hidden)}
        else:
            gate = {"feed_forward.w1.weight": (wide, hidden), "feed_forward.w3.weight": (wide, hidden)}
        return {**gate, "feed_forward.w2.weight": (hidden, wide)}

    @staticmethod
    def _linear(name: str, outputs: int, inputs: int, bias: bool) -> dict[str, Shape]:
        weight: dict[str, Shape] = {f"{name}.weight": (outputs, inputs)}
        return {**weight, f"{name}.bias": (outputs,)} if bias else weight
