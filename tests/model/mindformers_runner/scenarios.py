"""What the tests do with mindformers' networks, in a process with MindSpore (tests/model/conftest.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.errors import ModelError
from model.mindformers_runner import MindFormersRunner, MindFormersSettings
from model.mindspore_common.import_quietly import import_mindformers
from model.runner import Bucket
from tests.model.mixed_steps import LENGTH, STEP, feed


def settings(folder, **changes) -> MindFormersSettings:
    chosen = {
        "config_path": Path(folder),
        "checkpoint_path": Path(folder),
        "num_blocks": 16,
        "max_rows": 3,
        "token_budget": 20,
        "max_length": LENGTH,
        "buckets": (STEP, Bucket(20, 3)),
        **changes,
    }
    return MindFormersSettings(**chosen)


def mixed(folder, tokens):
    """See `feed`."""
    runner = MindFormersRunner(settings(folder))
    runner.load()
    return feed(runner, tokens)


def mixed_with_dynamic_shapes(folder, tokens):
    """The same as on Ascend: one graph, a tensor per step, logits that stay on the device; with a cell for CPU."""
    runner = MindFormersRunner(settings(folder, attention="plain"))  # custom operators want static shapes
    runner.load()
    runner._execution = runner._dynamic_execution(runner._network)
    return feed(runner, tokens)


def as_built_for_ascend(folder, **changes):
    """The network that an Ascend device would get, with its weights: it can be made here, but not run.

    Returns what it computes in; types and values of the parameters that were loaded, the latter in float32; types and
    shapes of the others, which are the caches; and the rotary tables that layers use, in float32.
    """
    import_mindformers()
    from model.mindformers_runner.weights import load_weights
    from model.mindspore_common.device import use_device

    use_device(settings(folder))
    runner = MindFormersRunner(settings(folder, device="Ascend", **changes))
    network = runner._build_network()
    load_weights(network, runner._weights, runner._arithmetic, None)
    parameters = {parameter.name: parameter for parameter in network.get_parameters()}
    loaded = [name for weight in runner._weights for name in weight.name.split()]
    values = {name: parameters.pop(name) for name in loaded}
    types = {name: str(it.dtype) for name, it in values.items()}
    caches = {(str(it.dtype), tuple(it.shape)) for it in parameters.values()}
    tables = [_float32(table) for table in _tables(network)]
    return runner._arithmetic, types, {name: _float32(it) for name, it in values.items()}, caches, tables


def refusal_on_ascend(folder) -> str | None:
    try:
        as_built_for_ascend(folder)
    except ModelError as error:
        return str(error)
    return None


def _tables(network):
    if hasattr(network.model, "freqs_mgr"):
        return network.model.freqs_mgr.freqs_cos, network.model.freqs_mgr.freqs_sin
    last = network.model.decoder.layers[-1].self_attention.rotary_emb
    assert last is network.model.rotary_pos_emb
    return last.cos_cache, last.sin_cache


def _float32(parameter) -> np.ndarray:
    import mindspore

    return parameter.astype(mindspore.float32).asnumpy()


def masks(positions, length):
    """What `GPTModel`'s attention gets as a mask on Ascend, and what mindformers would make."""
    import_mindformers()
    from mindformers.parallel_core.inference.transformer.lower_triangular_mask import LowerTriangularMaskWithDynamic
    from mindspore import Tensor, float16

    from model.mindformers_runner.gpt import LaterKeys

    here = Tensor(np.array(positions, np.int32))
    ours, theirs = LaterKeys(length, float16), LowerTriangularMaskWithDynamic(length, float16)
    return ours(here).asnumpy(), theirs.decode(here).asnumpy()


def tables_of_mindformers(head_dim, length, *, theta=10000.0, extend_method="None", scaling_factor=1.0):
    """Cosines and sines ``[length, head_dim]`` as its Llama computes them."""
    import_mindformers()
    import mindspore
    from mindformers.modules.layers import FreqsMgr

    manager = FreqsMgr(
        head_dim,
        max_position_embedding=length,
        rotary_dtype=mindspore.float32,
        theta=theta,
        extend_method=extend_method,
        scaling_factor=scaling_factor,
    )
    return manager.freqs_cos.asnumpy()[:length], manager.freqs_sin.asnumpy()[:length]
