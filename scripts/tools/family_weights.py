"""The random weights of the families' checkpoints in the tests. They are not stored: they follow from their names."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

POSITIONS = (0, 15, 39, 62)
"""Of which logits are stored: of the prompt's 40 tokens and the answer's 24."""
PROMPT, ANSWER = 40, 24


def make_tensor(family: str, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Large enough, and norms and biases so far from 1 and 0, that whatever is forgotten shows."""
    generator = np.random.default_rng(zlib.crc32(f"{family}/{name}".encode()))
    values = generator.standard_normal(shape, np.float32)
    gemma = family.startswith("gemma")
    if "norm" in name:
        scaled = (0.0 if gemma else 1.0) + 0.3 * values
    elif name.endswith("bias"):
        scaled = 0.5 * values
    elif any(part in name for part in ("embed_tokens", "tok_embeddings", "lm_head", "output.weight")):
        scaled = (0.1 if gemma else 0.4) * values
    else:
        scaled = values * (1.5 / shape[-1] ** 0.5)
    return _as_stored(family, scaled.astype(np.float32))


def _as_stored(family: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """What is left in the type that the family's name ends with, if it ends with one."""
    if family.endswith("-bfloat16"):
        return (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    return values.astype(np.float16).astype(np.float32) if family.endswith("-float16") else values
