"""Puts weights into a network: from a checkpoint, or random ones from a seed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from mindspore import Tensor

from model.mindformers_runner.architecture import Architecture
from model.mindformers_runner.arrays import aligned_copy
from model.mindformers_runner.checkpoint import Weight
from model.mindformers_runner.stored_tensor import Dtype
from model.runner import Progress

_RANDOM_STD = 0.02


def load_weights(network: Any, weights: Iterable[Weight], dtype: Dtype, progress: Progress | None) -> None:
    """Set every parameter from its weight, converted to ``dtype``; norms stay float32, as in mindformers."""
    parameters = {parameter.name: parameter for parameter in network.get_parameters()}
    todo = tuple(weights)
    for done, weight in enumerate(todo, start=1):
        target = np.float32 if is_norm(weight.name) else dtype
        parameters[weight.name].set_data(Tensor.from_numpy(aligned_copy(weight.read(target))))
        if progress is not None:
            progress("loading weights", done, len(todo))


def random_weights(architecture: Architecture, seed: int) -> Iterator[Weight]:
    """Normal weights of standard deviation 0.02, norms of 1, biases of 0: the same for the same seed."""
    generator = np.random.default_rng(seed)
    for name, shape in architecture.tensors().items():
        if is_norm(name):
            values = np.ones(shape, np.float32)
        elif name.endswith(".bias"):
            values = np.zeros(shape, np.float32)
        else:
            values = generator.standard_normal(shape, np.float32) * np.float32(_RANDOM_STD)
        yield Weight(name, shape, values.astype)


def is_norm(name: str) -> bool:
    return "norm" in name.rsplit(".", 2)[-2]
