"""Host memory that vectors like: arrays that start on a cache line."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_CACHE_LINE = 64


def aligned_zeros(shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray[np.generic]:
    """Zeros on a cache line; memory is only taken from the system when it is touched."""
    item = np.dtype(dtype).itemsize
    elements = int(np.prod(shape, dtype=np.int64))
    raw = np.zeros(elements * item + _CACHE_LINE, dtype=np.uint8)
    first = -raw.ctypes.data % _CACHE_LINE
    return raw[first : first + elements * item].view(dtype).reshape(shape)


def aligned_copy(array: NDArray[Any]) -> NDArray[Any]:
    """A C-contiguous copy on a cache line."""
    copy = aligned_zeros(array.shape, array.dtype)
    copy[...] = array
    return copy


def aligned(array: NDArray[Any]) -> NDArray[Any]:
    """The array itself where it starts on a cache line and is C-contiguous, else a copy that is."""
    fits = array.flags.c_contiguous and array.ctypes.data % _CACHE_LINE == 0
    return array if fits else aligned_copy(array)
