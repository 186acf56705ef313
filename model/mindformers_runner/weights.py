"""Puts weights into a network: from a checkpoint, or random ones from a seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from mindspore import Tensor

from model.errors import UnusableWeightError
from model.mindformers_runner.architecture import Architecture, Shape
from model.mindformers_runner.arrays import aligned_copy
from model.mindformers_runner.checkpoint import Weight
from model.mindformers_runner.stored_tensor import Dtype, Float
from model.runner import Progress

_RANDOM_STD = 0.02
_NAMED = 3  # tensors that an error names


def load_weights(network: Any, weights: Sequence[Weight], dtype: Dtype, progress: Progress | None) -> None:
    """Set every parameter from its weight, converted to ``dtype``; norms stay float32, as in mindformers.

    Raises UnusableWeightError, for the first few tensors at once, and CheckpointError.
    """
    parameters = {parameter.name: parameter for parameter in network.get_parameters()}
    for done, weight in enumerate(weights, start=1):
        try:
            values = weight.read(_dtype_of(weight, dtype))
        except UnusableWeightError as error:
            raise _with_others(error, weights[done:], dtype) from None
        parameters[weight.name].set_data(Tensor.from_numpy(aligned_copy(values)))
        if progress is not None:
            progress("loading weights", done, len(weights))


def _dtype_of(weight: Weight, dtype: Dtype) -> Dtype:
    return np.float32 if is_norm(weight.name) else dtype


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


def random_weights(architecture: Architecture, seed: int) -> tuple[Weight, ...]:
    """Normal weights of standard deviation 0.02, norms of 1, biases of 0: the same for the same seed."""
    return tuple(
        Weight(name, shape, partial(_random, name, shape, (seed, number)))
        for number, (name, shape) in enumerate(architecture.tensors().items())
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
