"""What a decoder is made of, whichever family it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model.errors import ConfigurationError
from model.families.rope import Rope

Shape = tuple[int, ...]

_SIZES = (
    "hidden_size",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "intermediate_size",
    "vocab_size",
    "max_position",
)


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture in the place of a layer's MLP. Fields with a default are features, off by default."""

    count: int
    chosen: int  # of them, for each token
    intermediate_size: int
    renormalize: bool = False  # the chosen ones' shares add up to 1
    shared_size: int = 0  # intermediate size of an expert that every token has besides, behind a gate of its own
    dense_layers: tuple[int, ...] = ()  # that have a plain MLP


@dataclass(frozen=True, slots=True)
class Spec:
    """All that decides a decoder's tensors and arithmetic. Fields with a default are features, off by default."""

    family: str  # `model_type`
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_position: int
    norm_eps: float
    dtype: str  # that the checkpoint asks to be computed in: float32, float16 or bfloat16
    ropes: tuple[Rope, ...]
    layer_ropes: tuple[int, ...] = ()  # per layer which of `ropes`; empty: all have the first
    rotated: int = 0  # dimensions of a head that are; 0: all
    interleaved: bool = False  # dimensions (2i, 2i + 1) turn together, not (i, i + half)
    tied_embeddings: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: Literal["", "head", "all"] = ""  # of each head alone, or of all heads together
    norms: Literal["before", "after", "both"] = "before"  # attention and MLP
    norm_offset: float = 0.0  # what is stored is the weight less this
    activation: Literal["silu", "gelu_tanh"] = "silu"
    embedding_scale: float = 1.0
    query_scale: float = 1.0  # beside 1 / sqrt(head_dim)
    residual_scale: float = 1.0
    logits_scale: float = 1.0
    score_softcap: float = 0.0
    logits_softcap: float = 0.0
    windows: tuple[int, ...] = ()  # per layer how many keys a token sees, 0: all; empty: all in every layer
    experts: Experts | None = None

    def __post_init__(self) -> None:
        for name in _SIZES:
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it must be positive")
        if self.num_heads % self.num_kv_heads:
            raise ConfigurationError(
                f"{self.num_heads} heads cannot share {self.num_kv_heads} key/value heads evenly"
            )
        if self.head_dim % 2 or self.rotary_dim % 2 or self.rotary_dim > self.head_dim:
            raise ConfigurationError(
                f"{self.rotary_dim} of {self.head_dim} dimensions of a head cannot be rotated in pairs"
            )
        for name in ("windows", "layer_ropes"):
            if len(getattr(self, name)) not in {0, self.num_layers}:
                raise ConfigurationError(f"{name}: {len(getattr(self, name))} given for {self.num_layers} layers")

    @property
    def rotary_dim(self) -> int:
        return self.rotated or self.head_dim

    @property
    def query_width(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def kv_width(self) -> int:
        return self.num_kv_heads * self.head_dim

    def window(self, layer: int) -> int:
        """Keys that a token of this layer sees, itself among them; 0: all."""
        return self.windows[layer] if self.windows else 0

    def rope(self, layer: int) -> int:
        """Which of `ropes` this layer has."""
        return self.layer_ropes[layer] if self.layer_ropes else 0

    def has_experts(self, layer: int) -> bool:
        return self.experts is not None and layer not in self.experts.dense_layers

    def tensors(self) -> dict[str, Shape]:
        """A decoder's weights by the names that `canonical` gives them, in the order of the computation."""
        shapes: dict[str, Shape] = {"embed.weight": (self.vocab_size, self.hidden_size)}
        for layer in range(self.num_layers):
            of_layer = {**self._attention(), **self._feed_forward(layer)}
            shapes |= {f"layers.{layer}.{name}": shape for name, shape in of_layer.items()}
        shapes["norm.weight"] = (self.hidden_size,)
        if not self.tied_embeddings:
            shapes["head.weight"] = (self.vocab_size, self.hidden_size)
        return shapes

    def _attention(self) -> dict[str, Shape]:
        hidden, query, kv = self.hidden_size, self.query_width, self.kv_width
        norms: dict[str, Shape] = {}
        if self.qk_norm:
            one = self.qk_norm == "head"
            norms = {
                "q_norm.weight": (self.head_dim if one else query,),
                "k_norm.weight": (self.head_dim if one else kv,),
            }
        return {
            **self._norm("attention_norm", "before"),
            **linear("q", query, hidden, self.qkv_bias),
            **linear("k", kv, hidden, self.qkv_bias),
            **linear("v", kv, hidden, self.qkv_bias),
            **norms,
            **linear("o", hidden, query, self.output_bias),
            **self._norm("attention_post_norm", "after"),
        }

    def _feed_forward(self, layer: int) -> dict[str, Shape]:
        inside = self._experts(self.experts) if self.experts and self.has_experts(layer) else self._mlp()
        return {**self._norm("mlp_norm", "before"), **inside, **self._norm("mlp_post_norm", "after")}

    def _mlp(self) -> dict[str, Shape]:
        hidden, wide = self.hidden_size, self.intermediate_size
        return {
            **linear("gate_up", 2 * wide, hidden, self.mlp_bias),
            **linear("down", hidden, wide, self.mlp_bias),
        }

    def _experts(self, experts: Experts) -> dict[str, Shape]:
        hidden, wide = self.hidden_size, experts.intermediate_size
        shapes: dict[str, Shape] = {
            "router.weight": (experts.count, hidden),
            "experts_gate_up.weight": (experts.count, 2 * wide, hidden),
            "experts_down.weight": (experts.count, hidden, wide),
        }
        if experts.shared_size:
            shapes |= linear("shared_gate_up", 2 * experts.shared_size, hidden)
            shapes |= linear("shared_down", hidden, experts.shared_size)
            shapes |= linear("shared_gate", 1, hidden)
        return shapes

    def _norm(self, name: str, place: str) -> dict[str, Shape]:
        return {f"{name}.weight": (self.hidden_size,)} if self.norms in {place, "both"} else {}


def linear(name: str, outputs: int, inputs: int, bias: bool = False) -> dict[str, Shape]:
    """Shapes of a linear layer's weight and, perhaps, bias."""
    weight: dict[str, Shape] = {f"{name}.weight": (outputs, inputs)}
    return {**weight, f"{name}.bias": (outputs,)} if bias else weight
