"""A decoder's weights as constants of a graph: matrices in float32, bfloat16 or int8, all else in float32.

Constants share the arrays' memory and do not keep it: `Weights` must outlive the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from openvino import Node, Output, Shape, Tensor, Type
from openvino import opset16 as op

from model.checkpoint.weight import Weight, read_weights
from model.openvino.settings import OpenVinoSettings, WeightDtype
from model.runner import Progress

Value: TypeAlias = Node | Output


@dataclass(frozen=True, slots=True)
class Array:
    """Values of a weight, and of an int8 matrix the factor of each row ``[N, 1]``."""

    values: NDArray[Any]  # float32, uint16 (the bits of bfloat16) or int8
    scale: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Matrix:
    """``[N, K]``. ``narrow``: products of bfloat16 are computed in bfloat16, else in float32."""

    array: Array
    narrow: bool

    def product(self, x: Value) -> Node:
        """``[T, K]`` to ``[T, N]``."""
        if self.narrow and self.array.values.dtype == np.uint16:
            product = op.matmul(op.convert(x, "bf16"), constant(self.array.values), False, True)
            return op.convert(product, "f32")
        return op.matmul(x, self._wide(), False, True)

    def rows(self, ids: Value) -> Node:
        """Of an embedding: ids ``[T]`` to ``[T, K]``."""
        axis = op.constant(np.int32(0))
        rows = op.gather(constant(self.array.values), ids, axis)
        return rows if self.array.values.dtype == np.float32 else op.convert(rows, "f32")

    def _wide(self) -> Node:
        """The plugin's kernels widen values as they read them, as long as nobody folds the conversion."""
        values = constant(self.array.values)
        if self.array.values.dtype == np.float32:
            return values
        wide = op.convert(values, "f32")
        if self.array.scale is None:
            wide.get_rt_info()["decompression_0"] = True
            return wide
        return op.multiply(wide, constant(self.array.scale))


class Weights:
    """By the names of `Spec.tensors`."""

    def __init__(self, arrays: Mapping[str, Array], narrow: bool) -> None:
        self._arrays, self._narrow = arrays, narrow

    def matrix(self, name: str) -> Matrix | None:
        """None where there is none of this name, which has no ``.weight``."""
        array = self._arrays.get(f"{name}.weight")
        return None if array is None else Matrix(array, self._narrow)

    def vector(self, name: str) -> Node | None:
        """None where there is none of this name."""
        array = self._arrays.get(name)
        return None if array is None else constant(array.values)


def load_weights(weights: Sequence[Weight], settings: OpenVinoSettings, progress: Progress | None) -> Weights:
    """Reads and converts one after the other. Raises what `read_weights` does."""
    arrays: dict[str, Array] = {}
    dtype = settings.weight_dtype
    read = read_weights(weights, np.float32, keep_bfloat16=dtype in {None, "bf16"})
    tied = all(weight.name != "head.weight" for weight in weights)
    for done, (weight, values) in enumerate(read, start=1):
        arrays[weight.name] = convert(weight.name, values, dtype)
        if dtype == "int8" and tied and weight.name == "embed.weight":
            arrays["head.weight"] = int8(values)
        if progress is not None:
            progress("loading weights", done, len(weights))
    return Weights(arrays, narrow=dtype == "bf16")


def convert(name: str, values: NDArray[Any], dtype: WeightDtype | None) -> Array:
    """Only matrices become narrower. An embedding is read by rows, of which bfloat16 is narrow enough."""
    if values.ndim == 1 or values.dtype == np.uint16 or dtype in {None, "f32"}:
        return Array(values)
    return Array(bfloat16(values)) if dtype == "bf16" or name == "embed.weight" else int8(values)


def constant(values: NDArray[Any]) -> Node:
    """Over the array's own memory."""
    kind = Type.bf16 if values.dtype == np.uint16 else Type(values.dtype)
    return op.constant(Tensor(values, Shape(values.shape), kind))


def bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Bits of the nearest bfloat16; of two the even one."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def int8(values: NDArray[np.float32]) -> Array:
    """Whole numbers from -127 to 127, with a factor for each row."""
    scale = np.maximum(np.abs(values).max(1, keepdims=True), 1e-9) / np.float32(127)
    return Array(np.rint(values / scale).astype(np.int8), scale)
