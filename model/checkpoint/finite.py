"""Finds NaN and infinity in weights and logits, which make every answer an error.

All values of a checkpoint are checked when it is loaded. With the file in memory already that adds 3 to 5 % to the
time of reading into float32, up to 9 % into float16; from a disk less.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import ModelError

_EXPONENT = {"float16": 0x7C00, "bfloat16": 0x7F80}  # all its bits set: infinity, or NaN
_SIGN = 0x8000


def all_finite(values: NDArray[Any], dtype: str) -> bool:
    """``values``: numpy's floats, or for bfloat16, which it does not have, the bits as uint16."""
    if values.size == 0:
        return True
    if dtype in _EXPONENT:  # as whole numbers, because numpy takes float16 apart one by one
        bits, exponent = values.view(np.uint16), _EXPONENT[dtype]
        return bool(bits.max() < exponent | _SIGN and bits.view(np.int16).max() < exponent)
    with np.errstate(all="ignore"):
        return bool(np.isfinite(values.sum()) or np.isfinite(values).all())  # finite values may have no finite sum


def describe_not_finite(values: NDArray[np.floating[Any]]) -> str:
    """``3 of 64 values are NaN or infinite (the first at [0, 5])``"""
    bad = np.flatnonzero(~np.isfinite(values))
    place = [int(index) for index in np.unravel_index(bad[0], values.shape)]
    return f"{bad.size} of {values.size} values are NaN or infinite (the first at {place})"


def require_finite_logits(logits: NDArray[np.float32], arithmetic: str) -> None:
    """``[vocab]``, computed in ``arithmetic``: float32, float16 or bfloat16. Raises ModelError; each weight alone is
    known to be finite, so the arithmetic is not."""
    bad = np.count_nonzero(~np.isfinite(logits))
    if bad == 0:
        return
    what = f"{bad} of {logits.size} of the model's first logits are not finite, though all weights are"
    if arithmetic == "float16":
        remedy = (
            "float16, in which Ascend computes what does not ask for bfloat16, overflows: try "
            "pipeline.runner.device: CPU, which has float32"
        )
    else:
        remedy = (
            f"the weights are so large that {arithmetic} overflows: does the checkpoint belong to this configuration?"
        )
    raise ModelError(f"{what}; {remedy}")
