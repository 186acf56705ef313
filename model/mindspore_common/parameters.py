"""Parameters over memory that is there already."""

from __future__ import annotations

from typing import Any

import numpy as np
from mindspore import Parameter, Tensor
from numpy.typing import NDArray


def parameter_over(array: NDArray[Any], name: str) -> Parameter:
    """In the array's own memory, which is not touched: MindSpore would copy what a parameter is made of, and so take
    all the memory of a KV cache that is empty."""
    first = np.zeros((1,) * array.ndim, array.dtype)
    parameter = Parameter(Tensor.from_numpy(first), name=name, requires_grad=False)
    parameter.set_data(Tensor.from_numpy(array), slice_shape=True)  # another shape than the first one's
    return parameter
