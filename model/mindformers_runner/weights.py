"""Puts weights into mindformers' network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mindspore import Tensor

from model.checkpoint.arrays import aligned_copy
from model.checkpoint.stored_tensor import Dtype
from model.checkpoint.weight import Weight, read_weights
from model.runner import Progress


def load_weights(network: Any, weights: Sequence[Weight], dtype: Dtype, progress: Progress | None) -> None:
    """Set every parameter from its weight. Raises what `read_weights` does."""
    parameters = {parameter.name: parameter for parameter in network.get_parameters()}
    for done, (weight, values) in enumerate(read_weights(weights, dtype), start=1):
        parameters[weight.name].set_data(Tensor.from_numpy(aligned_copy(values)))
        if progress is not None:
            progress("loading weights", done, len(weights))
