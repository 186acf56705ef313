"""What the tests do with the openvino runner, in a process with OpenVINO (tests/model/conftest.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from model.checkpoint.weight import Weight
from model.openvino import OpenVinoRunner, OpenVinoSettings
from model.runner import Bucket

STEP = Bucket(20, 3, 20)
CHUNKS = (9, 1, 1, 13, 1, 7, 8)  # of each of two rows, in turns; never both whole
LENGTH = 64  # of every sequence

Spoil = Mapping[str, Callable[[np.ndarray], None]]
"""What becomes of weights after they were read, by name."""


def settings(folder, **changes) -> OpenVinoSettings:
    chosen = {
        "config_path": Path(folder),
        "checkpoint_path": Path(folder),
        "num_blocks": 8,
        "max_rows": 3,
        "token_budget": 20,
        "max_length": LENGTH,
        "buckets": (STEP, Bucket(20, 3)),
        **changes,
    }
    return OpenVinoSettings(**chosen)


def loaded(folder, spoil: Spoil = MappingProxyType({}), **changes) -> OpenVinoRunner:
    runner = OpenVinoRunner(settings(folder, **changes))
    runner._weights = tuple(_spoiled(it, spoil[it.name]) if it.name in spoil else it for it in runner._weights)
    runner.load()
    return runner


def _spoiled(weight: Weight, change: Callable[[np.ndarray], None]) -> Weight:
    def read(dtype):
        values = weight.read(dtype)
        change(values)
        return values

    return replace(weight, read=read)
