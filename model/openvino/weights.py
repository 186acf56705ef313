"""A decoder's weights as constants of a graph: matrices in float32, bfloat16 or int8, all else in float32.

Constants share the arrays' memory and do not keep it: it must outlive the graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from openvino import Node, Output, Shape, Tensor, Type
from openvino import opset16 as op

from model.openvino import int8_products
from model.openvino.weight_file import Array

Value: TypeAlias = Node | Output


@dataclass(frozen=True, slots=True)
class Matrix:
    """``[N, K]``. ``narrow``: products of bfloat16 are computed in bfloat16, else in float32."""

    array: Array
    narrow: bool

    def product(self, x: Value) -> Node:
        """``[T, K]`` to ``[T, N]``."""
        if self.array.packed is not None and self.array.scale is not None:
            return int8_products.product(x, self.array.packed, self.array.values, self.array.scale)
        if self.narrow and self.array.values.dtype == np.uint16:
            product = op.matmul(op.convert(x, "bf16"), constant(self.array.values), False, True)
            return op.convert(product, "f32")
        return op.matmul(x, self._wide(), False, True)

    def gated_product(self, x: Value, width: int, gate: int8_products.Gate) -> Node:
        """``[T, K]`` to ``[T, width]``: gates applied to what they let pass, as `interleave_gates` has them."""
        array = self.array
        assert array.packed is not None
        assert array.scale is not None
        return int8_products.product(x, (width, array.packed[1]), array.values, array.scale, gate)

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
    """By the names of `Spec.tensors`, stacked by `stack_attention`."""

    def __init__(self, arrays: Mapping[str, Array], *, narrow: bool) -> None:
        self._arrays, self._narrow = arrays, narrow

    def matrix(self, name: str) -> Matrix | None:
        """None where there is none of this name, which has no ``.weight``."""
        array = self._arrays.get(f"{name}.weight")
        return None if array is None else Matrix(array, self._narrow)

    def vector(self, name: str) -> Node | None:
        """None where there is none of this name."""
        array = self._arrays.get(name)
        return None if array is None else constant(array.values)


def constant(values: NDArray[Any]) -> Node:
    """Over the array's own memory."""
    kind = Type.bf16 if values.dtype == np.uint16 else Type(values.dtype)
    return op.constant(Tensor(values, Shape(values.shape), kind))
