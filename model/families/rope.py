"""Rotary embeddings: how fast each pair of dimensions turns, and the tables of cosines and sines.

Formulas as in Hugging Face's ``modeling_rope_utils``; YaRN: arXiv:2309.00071, LongRoPE: arXiv:2402.13753.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["default", "linear", "llama3", "yarn", "longrope", "none"]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rope:
    """One rotary embedding. Which of the other fields are used depends on ``kind``."""

    theta: float
    kind: Kind = "default"  # "none": nothing turns
    factor: float = 1.0
    original_length: int = 0  # positions that the model was trained with before it was extended
    magnitude: float = 1.0  # of cosines and sines
    low_turns: float = 1.0  # within the original length, below which llama3 and yarn divide by the factor in full
    high_turns: float = 4.0  # above which they leave a frequency as it is
    truncate: bool = True  # yarn: to whole dimensions
    short_factors: tuple[float, ...] = ()  # longrope: per frequency, up to the original length
    long_factors: tuple[float, ...] = ()  # beyond it

    def frequencies(self, rotary_dim: int, length: int) -> Float64:
        """Radians per position of each pair, ``[rotary_dim / 2]``, for sequences of at most ``length`` tokens."""
        plain: Float64 = np.power(self.theta, -np.arange(0, rotary_dim, 2) / rotary_dim)
        if self.kind == "none":
            return np.zeros_like(plain)
        if self.kind == "linear":
            return plain / self.factor
        if self.kind == "longrope":
            return np.divide(plain, self.short_factors if length <= self.original_length else self.long_factors)
        if self.kind in {"llama3", "yarn"}:
            kept = self._llama3(plain) if self.kind == "llama3" else self._yarn(rotary_dim)
            return plain * kept + plain / self.factor * (1 - kept)
        return plain

    def _llama3(self, plain: Float64) -> Float64:
        """How much of each frequency is kept: by the turns that it makes within the original length."""
        turns = self.original_length * plain / (2 * math.pi)
        kept: Float64 = np.clip((turns - self.low_turns) / (self.high_turns - self.low_turns), 0, 1)
        return kept

    def _yarn(self, rotary_dim: int) -> Float64:
        """The same, by dimension."""

        def dimension(turns: float) -> float:
            return rotary_dim * math.log(self.original_length / (turns * 2 * math.pi)) / (2 * math.log(self.theta))

        low, high = dimension(self.high_turns), dimension(self.low_turns)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, rotary_dim - 1)
        ramp: Float64 = np.clip((np.arange(rotary_dim // 2) - low) / max(high - low, 0.001), 0, 1)
        return 1 - ramp


def rotary_table(rope: Rope, rotary_dim: int, head_dim: int, length: int) -> tuple[Float32, Float32]:
    """Cosines and sines ``[length, head_dim / 2]`` of pairs (i, i + head_dim / 2); the rest of them stand still."""
    frequencies = rope.frequencies(rotary_dim, length)
    angle = np.outer(np.arange(length), frequencies)
    still = ((0, 0), (0, (head_dim - rotary_dim) // 2))
    cos = np.pad(np.cos(angle) * rope.magnitude, still, constant_values=1.0)
    return cos.astype(np.float32), np.pad(np.sin(angle) * rope.magnitude, still).astype(np.float32)


def head_order(rotary_dim: int, head_dim: int, interleaved: bool) -> NDArray[Any] | None:
    """Where each dimension of a head comes from so that (i, i + head_dim / 2) turn together; None: as it is."""
    half, turned = head_dim // 2, rotary_dim // 2
    rotated = np.arange(rotary_dim)
    first, second = (rotated[::2], rotated[1::2]) if interleaved else (rotated[:turned], rotated[turned:])
    rest = np.arange(rotary_dim, head_dim)
    order = np.concatenate([first, rest[: half - turned], second, rest[half - turned :]])
    return None if np.array_equal(order, np.arange(head_dim)) else order
