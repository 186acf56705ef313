"""The one seam between ranks in a graph: the sum of all ranks' tensors."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import ops

from model.mindspore_common.native import LIBRARY
from model.mindspore_common.ranks import ALL_REDUCE
from model.mindspore_common.settings import GraphSettings

Reduce = Any
"""An operator that makes the sum of all ranks' tensors of a tensor; None: one rank."""


def all_reduce(settings: GraphSettings) -> Reduce:
    """On CPU, MindSpore's own is for comparison: it takes a hundred times as long."""
    if settings.ranks.count == 1:
        return None
    if settings.collectives == "mindspore":
        return ops.AllReduce()
    return ops.Custom(
        f"{LIBRARY}:{ALL_REDUCE}", out_shape=lambda x: x, out_dtype=lambda *_: ms.float32, func_type="aot"
    )
