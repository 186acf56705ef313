"""What the tests do with the openvino runner, in a process with OpenVINO (tests/model/conftest.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from model.checkpoint.weight import Weight
from model.errors import ModelError
from model.layout import padding
from model.openvino import OpenVinoRunner, OpenVinoSettings
from model.runner import Bucket
from tests.model.driver import Driver
from tests.model.mixed_steps import LENGTH, STEP, feed

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


def mixed(folder, tokens, **changes):
    """See `feed`; over caches that hold NaN."""
    runner = loaded(folder, **changes)
    for cache in runner._execution._caches:
        cache.data.view(np.uint8)[...] = 255
    return feed(runner, tokens)


def texts(folder, sequences, **changes):
    """Logits behind every token of each sequence, one step each."""
    size = Bucket(128, 1, 128)
    chosen = {"max_rows": 1, "token_budget": 128, "max_length": 128, "buckets": (size, Bucket(128, 1)), **changes}
    runner = loaded(folder, **chosen)
    found = []
    for number, tokens in enumerate(sequences):
        driver = Driver(runner, seed=number)
        found.append(driver.step({"it": list(tokens)}, range(len(tokens)), bucket=size))
    runner.close()
    return found


def refusal(folder, **changes):
    """Why it does not become ready."""
    try:
        runner = loaded(folder, **changes)
        runner.warm_up()
    except ModelError as error:
        return str(error)
    runner.close()
    return None


def operation():
    """What the decoder's graph is to OpenVINO: inputs of each attention, and the caches' types and shapes."""
    from model.openvino.import_openvino import import_openvino

    import_openvino()
    from openvino.op import _PagedAttentionExtension as PagedAttention

    try:
        PagedAttention([])
    except RuntimeError as error:
        return str(error)
    return ""


def caches(folder, **changes):
    """Bytes of each that was allocated."""
    runner = loaded(folder, **changes)
    found = [cache.byte_size for cache in runner._execution._caches]
    runner.close()
    return found


def warm_up(folder, buckets):
    """What it says of its progress."""
    runner, said = loaded(folder, buckets=None), []
    runner.warm_up(lambda *event: said.append(event), buckets)
    runner.close()
    return said


def warmed_up(folder):
    """Warm-up and steps of padding alone leave all blocks but the last one, which is nobody's, as they are."""
    runner = loaded(folder, buckets=None)
    views = [cache.data.view(np.uint8) for cache in runner._execution._caches]
    for view in views:
        view[...] = 7
    facts = runner.facts
    for bucket in facts.buckets:
        runner.step(runner.bind(padding(bucket, facts)), np.zeros((0, facts.vocab_size), np.float32))
    assert all((view[:-1] == 7).all() for view in views)
    assert any((view[-1] != 7).any() for view in views)
    runner.warm_up()
    assert any((view[0] != 7).any() for view in views)  # by the first token, which is a real one
    runner.close()


def replayed(folder, tokens, prompt, *, told=True, **changes):
    """Logits behind the last token: decoded beside another row, and computed again in few steps, beside a new row.
    ``told``: which tokens were sampled."""
    sizes = {"num_blocks": 20, "max_rows": 2, "token_budget": 64, "max_length": 128}
    runner = loaded(folder, **sizes, **changes, buckets=(Bucket(2, 2), Bucket(64, 2)))
    d = Driver(runner, seed=5)
    d.prompts = {"it": prompt, "again": prompt} if told else {}
    d.step({"it": tokens[:prompt], "other": tokens[:3]})
    first = [d.step({"it": [token], "other": [token]})[0] for token in tokens[prompt:]][-1]
    d.release("other")
    for begin, end in ((0, 7), (7, prompt), (prompt, prompt + 25), (prompt + 25, len(tokens))):
        again = d.step({"new": tokens[2:4], "again": tokens[begin:end]})[1]
    runner.close()
    return first, again


def int8_products(matrix: np.ndarray, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Of each input with the matrix, whose rows have the factor 1, in one graph."""
    from openvino import Core, Model
    from openvino import opset16 as op

    from model.openvino.int8_products import pack, packed_bytes, padded_rows, product

    packed, scales = np.empty(packed_bytes(matrix.shape), np.uint8), np.ones(padded_rows(len(matrix)), np.float32)
    pack(matrix, packed, 0)
    x = op.parameter([-1, matrix.shape[1]], np.float32)
    graph = Model([op.result(product(x, matrix.shape, packed, scales))], [x], "product")
    compiled = Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [compiled([it])[0].copy() for it in inputs]
