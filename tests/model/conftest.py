"""One process with MindSpore for all tests of the mindformers runner, and one with OpenVINO."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from model.openvino.requirements import missing_flag, missing_package

DATA = Path(__file__).parent / "data"


needs_openvino = pytest.mark.skipif(
    bool(missing_flag() or missing_package()), reason=f"no OpenVINO here: {missing_flag() or missing_package()}"
)


@pytest.fixture(scope="session")
def in_mindspore():
    """Calls a function of tests.model.scenarios in a process with MindSpore, and returns its result."""
    with _other_process() as call:
        yield call


@pytest.fixture(scope="session")
def in_openvino():
    """Calls a function in a process with OpenVINO, whose faults may be segmentation faults."""
    with _other_process() as call:
        yield call


@contextmanager
def _other_process() -> Iterator[Callable]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield lambda function, *args, **kwargs: pool.submit(function, *args, **kwargs).result(timeout=280)


@pytest.fixture(scope="session")
def reference():
    """Tokens and Hugging Face logits of a stored model: ``[(tokens, {position: logits})]``."""

    def read(name: str):
        arrays = np.load(DATA / name / "reference.npz")
        sequences = []
        for number in range(len(arrays) // 2):
            tokens, logits = arrays[f"tokens_{number}"], arrays[f"logits_{number}"]
            positions = np.arange(0, len(tokens), -(-len(tokens) // len(logits)))
            sequences.append((tokens, dict(zip(positions, logits, strict=True))))
        return sequences

    return read
