"""From stored tensors to a decoder's own, one by one.

Every weight of the decoder is a stack of rows of stored tensors. What can be folded into weights is: norms that add
1, scales of queries, residuals and logits, rotation in neighbouring pairs or of a part of a head, fused matrices.
Tensor by tensor is read and written to where the weight stays: loading takes the memory of the weights and of one
tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from model.checkpoint.arrays import aligned_zeros
from model.checkpoint.files import index_files, is_derived, require_fit
from model.checkpoint.stored_tensor import Bits, Dtype, Float, StoredTensor
from model.checkpoint.weight import Weight
from model.families.names import Names, from_mindformers, names_of, to_mindformers
from model.families.rope import head_order
from model.families.spec import Shape, Spec

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of a stored tensor, and what becomes of them."""

    source: str
    shape: Shape  # of the stored tensor
    rows: Ranges = ()  # first and end of each run; empty: all
    order: tuple[int, ...] = ()  # where each row of a head comes from; empty: as it is
    offset: float = 0.0  # added to what is stored, before it is scaled
    scale: float = 1.0

    @property
    def length(self) -> int:
        return sum(end - first for first, end in self.rows) if self.rows else self.shape[0]

    @property
    def unchanged(self) -> bool:
        """Its values are among those that are stored."""
        return self.offset == 0 and self.scale == 1

    def read(self, stored: Mapping[str, StoredTensor], dtype: Dtype) -> Float:
        values = self._in_order(self._stored(stored).read(dtype))
        if self.offset:
            values += values.dtype.type(self.offset)
        if self.scale != 1:
            values *= values.dtype.type(self.scale)
        return values

    def read_bits(self, stored: Mapping[str, StoredTensor]) -> Bits:
        return self._in_order(self._stored(stored).read_bits())

    def _stored(self, stored: Mapping[str, StoredTensor]) -> StoredTensor:
        tensor = stored[self.source]
        return tensor.take_rows(self.rows) if self.rows else tensor

    def _in_order(self, values: NDArray[Any]) -> NDArray[Any]:
        if not self.order:
            return values
        return values.reshape(-1, len(self.order), *values.shape[1:])[:, self.order].reshape(values.shape)


Recipe = tuple[Part, ...]


def canonical_weights(spec: Spec, path: Path) -> tuple[Weight, ...]:
    """The decoder's weights in a checkpoint, ready to be read; see `Spec.tensors` and `index_files`.

    Raises:
        CheckpointError: nothing found, unreadable or truncated files, and, in one message, all missing, surplus and
            wrongly shaped tensors.
    """
    return canonical(spec, index_files(path), path)


def canonical(spec: Spec, stored: Mapping[str, StoredTensor], path: Path) -> tuple[Weight, ...]:
    """The decoder's weights from stored tensors by their names. ``path`` is for errors.

    Raises CheckpointError for what is missing, surplus or wrongly shaped; nothing is read.
    """
    stored = {_name(spec, name): tensor for name, tensor in stored.items() if not is_derived(name)}
    names = names_of(spec.family, stored)
    if spec.tied_embeddings:
        stored.pop(f"{names.head}.weight", None)  # some tools store the shared matrix twice
    made = recipes(spec, names)
    by_mindformers = any(name != tensor.name for name, tensor in stored.items())
    expected = {part.source: part.shape for name in spec.tensors() for part in made[name]}
    require_fit(path, expected, stored, to_mindformers if by_mindformers else str)
    return tuple(_weight(name, shape, made[name], stored) for name, shape in spec.tensors().items())


def _weight(name: str, shape: Shape, recipe: Recipe, stored: Mapping[str, StoredTensor]) -> Weight:
    exact = all(part.unchanged and stored[part.source].dtype == "bfloat16" for part in recipe)
    bits = partial(read_recipe_bits, recipe, shape, stored) if exact else None
    return Weight(name, shape, partial(read_recipe, recipe, shape, stored), bits)


def _name(spec: Spec, name: str) -> str:
    return from_mindformers(name) if spec.family == "llama" else name


def read_recipe(recipe: Recipe, shape: Shape, stored: Mapping[str, StoredTensor], dtype: Dtype) -> Float:
    """The weight, on a cache line."""
    return _stack(recipe, shape, dtype, lambda part: part.read(stored, dtype))


def read_recipe_bits(recipe: Recipe, shape: Shape, stored: Mapping[str, StoredTensor]) -> Bits:
    """The same of parts that are stored in bfloat16, and unchanged."""
    return _stack(recipe, shape, np.uint16, lambda part: part.read_bits(stored))


def _stack(recipe: Recipe, shape: Shape, dtype: DTypeLike, read: Callable[[Part], NDArray[Any]]) -> NDArray[Any]:
    rows = aligned_zeros((sum(part.length for part in recipe), *recipe[0].shape[1:]), dtype)
    at = 0
    for part in recipe:
        rows[at : at + part.length] = read(part)
        at += part.length
    return rows.reshape(shape)


def recipes(spec: Spec, names: Names | None = None) -> dict[str, Recipe]:
    """What each weight of the decoder is made of. ``names``: other ones than the family's."""
    names, hidden, vocab = names or names_of(spec.family), spec.hidden_size, spec.vocab_size
    made: dict[str, Recipe] = {
        "embed.weight": (Part(f"{names.embed}.weight", (vocab, hidden)),),
        "norm.weight": (Part(f"{names.norm}.weight", (hidden,), offset=spec.norm_offset, scale=spec.logits_scale),),
    }
    if not spec.tied_embeddings:
        made["head.weight"] = (Part(f"{names.head}.weight", (vocab, hidden)),)
    for layer in range(spec.num_layers):
        made |= {f"layers.{layer}.{name}": recipe for name, recipe in _Layer(spec, names, layer).recipes()}
    return made


@dataclass(frozen=True, slots=True)
class _Layer:
    spec: Spec
    names: Names
    number: int

    def recipes(self) -> Iterator[tuple[str, Recipe]]:
        yield from self._norms()
        yield from self._attention()
        yield from self._experts() if self.spec.has_experts(self.number) else self._mlp()

    def _source(self, name: str) -> str:
        return self.names.layer.format(self.number) + name

    def _norms(self) -> Iterator[tuple[str, Recipe]]:
        spec, names = self.spec, self.names
        for name, theirs, place, scale in (
            ("attention_norm", names.attention_norm, "before", 1.0),
            ("attention_post_norm", names.attention_post_norm, "after", spec.residual_scale),
            ("mlp_norm", names.mlp_norm, "before", 1.0),
            ("mlp_post_norm", names.mlp_post_norm, "after", spec.residual_scale),
        ):
            if spec.norms in {place, "both"}:
                source = self._source(f"{theirs}.weight")
                yield f"{name}.weight", (Part(source, (spec.hidden_size,), offset=spec.norm_offset, scale=scale),)

    def _attention(self) -> Iterator[tuple[str, Recipe]]:
        spec, names = self.spec, self.names
        order = _order(spec)
        query_scale = 1.0 if spec.qk_norm else spec.query_scale
        for what, shape in _weight_and_bias(spec.hidden_size, spec.qkv_bias):
            yield f"q.{what}", (replace(self._qkv("q", what, shape), order=order, scale=query_scale),)
            yield f"k.{what}", (replace(self._qkv("k", what, shape), order=order),)
            yield f"v.{what}", (self._qkv("v", what, shape),)
        if spec.qk_norm:
            scales = (("q_norm", names.q_norm, spec.query_scale), ("k_norm", names.k_norm, 1.0))
            for name, theirs, scale in scales:
                shape = (spec.head_dim,) if spec.qk_norm == "head" else (self._width(name[0]),)
                part = Part(self._source(f"{theirs}.weight"), shape, (), order, spec.norm_offset, scale)
                yield f"{name}.weight", (part,)
        for what, shape in _weight_and_bias(spec.query_width, spec.output_bias):
            source = self._source(f"{names.o}.{what}")
            yield f"o.{what}", (Part(source, (spec.hidden_size, *shape), scale=self._residual_scale()),)

    def _width(self, which: str) -> int:
        return self.spec.query_width if which == "q" else self.spec.kv_width

    def _qkv(self, which: str, what: str, columns: Shape) -> Part:
        """Queries, keys or values, which may lie in a fused matrix."""
        names, width = self.names, self._width(which)
        if not names.qkv:
            return Part(self._source(f"{getattr(names, which)}.{what}"), (width, *columns))
        spec = self.spec
        whole = (spec.query_width + 2 * spec.kv_width, *columns)
        return Part(self._source(f"{names.qkv}.{what}"), whole, self._fused_rows(which))

    def _fused_rows(self, which: str) -> Ranges:
        spec = self.spec
        groups = spec.num_kv_heads if self.names.qkv_by_group else 1
        queries, keys = spec.query_width // groups, spec.kv_width // groups
        first = {"q": 0, "k": queries, "v": queries + keys}[which]
        length = queries if which == "q" else keys
        starts = (group * (queries + 2 * keys) + first for group in range(groups))
        return tuple((start, start + length) for start in starts)

    def _mlp(self) -> Iterator[tuple[str, Recipe]]:
        spec, names, wide = self.spec, self.names, self.spec.intermediate_size
        for what, columns in _weight_and_bias(spec.hidden_size, spec.mlp_bias):
            if names.gate_up:
                order = _halves(wide) if names.gate_up_alternate else ()
                fused = Part(self._source(f"{names.gate_up}.{what}"), (2 * wide, *columns), order=order)
                yield f"gate_up.{what}", (fused,)
            else:
                sources = (self._source(f"{name}.{what}") for name in (names.gate, names.up))
                yield f"gate_up.{what}", tuple(Part(source, (wide, *columns)) for source in sources)
        for what, columns in _weight_and_bias(wide, spec.mlp_bias):
            source = self._source(f"{names.down}.{what}")
            yield f"down.{what}", (Part(source, (spec.hidden_size, *columns), scale=self._residual_scale()),)

    def _residual_scale(self) -> float:
        """Where no norm follows that would undo it."""
        return 1.0 if self.spec.norms in {"after", "both"} else self.spec.residual_scale

    def _experts(self) -> Iterator[tuple[str, Recipe]]:
        spec, names, experts = self.spec, self.names, self.spec.experts
        assert experts is not None
        hidden, wide = spec.hidden_size, experts.intermediate_size
        gate, up, down = names.expert_parts

        def of(expert: int, name: str, *shape: int) -> Part:
            return Part(self._source(f"{names.expert.format(expert)}{name}.weight"), shape)

        every = range(experts.count)
        yield "router.weight", (Part(self._source(f"{names.router}.weight"), (experts.count, hidden)),)
        yield "experts_gate_up.weight", tuple(of(e, name, wide, hidden) for e in every for name in (gate, up))
        yield (
            "experts_down.weight",
            tuple(replace(of(e, down, hidden, wide), scale=self._residual_scale()) for e in every),
        )
        if experts.shared_size:
            yield from self._shared_expert(experts.shared_size)

    def _shared_expert(self, wide: int) -> Iterator[tuple[str, Recipe]]:
        names, hidden = self.names, self.spec.hidden_size
        gate, up, down = (self._source(f"{names.shared}{name}.weight") for name in names.expert_parts)
        yield "shared_gate_up.weight", (Part(gate, (wide, hidden)), Part(up, (wide, hidden)))
        yield "shared_down.weight", (Part(down, (hidden, wide), scale=self._residual_scale()),)
        yield "shared_gate.weight", (Part(self._source(f"{names.shared_gate}.weight"), (1, hidden)),)


def _order(spec: Spec) -> tuple[int, ...]:
    order = head_order(spec.rotary_dim, spec.head_dim, spec.interleaved)
    return () if order is None else tuple(map(int, np.asarray(order)))


@cache
def _halves(wide: int) -> tuple[int, ...]:
    """Rows that alternate, those of each kind together."""
    return (*range(0, 2 * wide, 2), *range(1, 2 * wide, 2))


def _weight_and_bias(inputs: int, bias: bool) -> tuple[tuple[str, Shape], ...]:
    """Which of a linear layer's tensors there are, and their shapes behind the rows."""
    return (("weight", (inputs,)), ("bias", ())) if bias else (("weight", (inputs,)),)
