"""Rotary tables for mindformers' networks: ours, because theirs lack kinds and compute some wrongly."""

from __future__ import annotations

import numpy as np

from model.families import Spec
from model.families.rope import Float32, rotary_table


def full_tables(spec: Spec, max_length: int) -> tuple[Float32, Float32]:
    """Cosines and sines ``[max_length, head_dim]``, the same in both halves, of the one embedding of all layers."""
    tables = rotary_table(spec.ropes[spec.rope(0)], spec.rotary_dim, spec.head_dim, max_length)
    cos, sin = (np.concatenate((table, table), axis=1) for table in tables)
    return cos, sin
