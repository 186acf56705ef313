"""A model's weights, whether they come from a checkpoint or from a seed, and reading them one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np

from model.checkpoint.files import Shape
from model.checkpoint.stored_tensor import Bits, Dtype, Float
from model.errors import UnusableWeightError

_RANDOM_STD = 0.02
_NAMED = 3  # tensors that an error names


@dataclass(frozen=True, slots=True)
class Weight:
    """One weight of a model, by the engine's name, and how to read it."""

    name: str
    shape: Shape
    read: Callable[[Dtype], Float]
    read_bits: Callable[[], Bits] | None = None  # where it is stored in bfloat16, and nothing was folded into it

    @property
    def keeps_bfloat16(self) -> bool:
        """A matrix that can stay as it is stored."""
        return self.read_bits is not None and len(self.shape) > 1


def size_bytes(weights: Sequence[Weight]) -> int:
    """In float32, and in bfloat16 what is kept so."""
    return sum(math.prod(weight.shape) * (2 if weight.keeps_bfloat16 else 4) for weight in weights)


def read_weights(
    weights: Sequence[Weight], dtype: Dtype, *, keep_bfloat16: bool = False
) -> Iterator[tuple[Weight, Float | Bits]]:
    """Each with its values in ``dtype``; norms and routers stay float32, as in mindformers. With ``keep_bfloat16``,
    matrices that are stored so come as their bits: exact, in half the memory.

    Raises UnusableWeightError, for the first few tensors at once, and CheckpointError.
    """
    for done, weight in enumerate(weights, start=1):
        bits = weight.read_bits if keep_bfloat16 and weight.keeps_bfloat16 else None
        try:
            values = bits() if bits is not None else weight.read(_dtype_of(weight, dtype))
        except UnusableWeightError as error:
            raise _with_others(error, weights[done:], dtype) from None
        yield weight, values


def _dtype_of(weight: Weight, dtype: Dtype) -> Dtype:
    return np.float32 if is_norm(weight.name) or "router" in weight.name else dtype


def _with_others(first: UnusableWeightError, rest: Sequence[Weight], dtype: Dtype) -> UnusableWeightError:
    """Whether it is one tensor or all of them says much about the cause."""
    messages, others = [first.message], _unusable(rest, dtype)
    messages += islice(others, _NAMED - 1)
    more = " and there are more" if next(others, None) else ""
    return UnusableWeightError("; ".join(messages) + more, first.remedy)


def _unusable(weights: Sequence[Weight], dtype: Dtype) -> Iterator[str]:
    for weight in weights:
        try:
            weight.read(_dtype_of(weight, dtype))
        except UnusableWeightError as error:
            yield error.message


def random_weights(shapes: Mapping[str, Shape], seed: int) -> tuple[Weight, ...]:
    """Normal weights of standard deviation 0.02, norms of 1, biases of 0: the same for the same seed."""
    return tuple(
        Weight(name, shape, partial(_random, name, shape, (seed, number)))
        for number, (name, shape) in enumerate(shapes.items())
    )


def _random(name: str, shape: Shape, seed: tuple[int, int], dtype: Dtype) -> Float:
    if is_norm(name):
        return np.ones(shape, dtype)
    if name.endswith(".bias"):
        return np.zeros(shape, dtype)
    values = np.random.default_rng(seed).standard_normal(shape, np.float32)
    return (values * np.float32(_RANDOM_STD)).astype(dtype)


def is_norm(name: str) -> bool:
    return "norm" in name.rsplit(".", 2)[-2]
