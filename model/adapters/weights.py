"""What a model is loaded from: its checkpoint or random weights, perhaps with an adapter merged into them."""

from __future__ import annotations

from pathlib import Path

from model.adapters.reading import read_adapter
from model.checkpoint.weight import Weight, random_weights
from model.families.canonical import canonical_weights
from model.families.spec import Spec


def model_weights(
    spec: Spec, checkpoint: Path | None, merged: Path | None = None, seed: int = 0
) -> tuple[Weight, ...]:
    """Canonical ones, ready to be read. ``checkpoint``: None: random weights made from ``seed``; ``merged``: the
    folder of an adapter.

    Raises ConfigurationError and CheckpointError, as `canonical_weights` and `read_adapter` do.
    """
    adapter = None if merged is None else read_adapter(merged, spec)
    weights = random_weights(spec.tensors(), seed) if checkpoint is None else canonical_weights(spec, checkpoint)
    return weights if adapter is None else adapter.merged_into(weights)
