"""Puts weights into mindformers' networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor
from numpy.typing import NDArray

from model.checkpoint.arrays import aligned_copy
from model.checkpoint.weight import Weight, read_weights
from model.runner import Progress


def load_weights(network: Any, weights: Sequence[Weight], dtype: str, progress: Progress | None) -> None:
    """Set every parameter from its weight (`network_weights`), in a network of `dtype`: float32, float16 or bfloat16.
    Raises what `read_weights` does."""
    parameters = {parameter.name: parameter for parameter in network.get_parameters()}
    read_as = np.float16 if dtype == "float16" else np.float32
    values = read_weights(weights, read_as, keep_bfloat16=dtype == "bfloat16")
    for done, (weight, array) in enumerate(values, start=1):
        names = weight.name.split()
        for name, part in zip(names, np.split(array, len(names)), strict=True):
            parameters[name].set_data(_tensor(part, parameters[name].dtype))
        if progress is not None:
            progress("loading weights", done, len(weights))


def _tensor(values: NDArray[Any], dtype: Any) -> Tensor:
    """numpy has no bfloat16: what is stored so comes as bits."""
    tensor = Tensor.from_numpy(aligned_copy(values))
    if values.dtype == np.uint16:
        tensor = tensor.view(ms.bfloat16)
    return tensor if tensor.dtype == dtype else tensor.astype(dtype)
