"""What an Ascend device would get: networks are built and loaded here as for it. None was ever run on a device."""

from __future__ import annotations

import json

import numpy as np
import pytest

from model.families import canonical_weights, read_spec_file
from model.mindformers_runner.names import network_weights
from model.mindformers_runner.networks import choose_network
from tests.model.families.checkpoints import load
from tests.model.mindformers_runner import scenarios

CHECKPOINTS = load()


@pytest.mark.parametrize("name", ["qwen2", "qwen3-moe"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_numbers_follow_the_checkpoint(in_mindspore, tmp_path, name, dtype):
    """Norms and routers are computed in float32. What is stored in bfloat16 is not rounded in bfloat16."""
    folder = CHECKPOINTS[name].save(tmp_path, bfloat16=dtype == "bfloat16")
    (folder / "config.json").write_text(json.dumps({**CHECKPOINTS[name].config, "dtype": dtype}))
    arithmetic, types, values, caches = in_mindspore(scenarios.as_built_for_ascend, folder)
    assert arithmetic == dtype
    wide = {parameter for parameter, it in types.items() if it == "Float32"}
    assert {types[parameter].lower() for parameter in types.keys() - wide} == {dtype}
    assert all("norm" in parameter or "router" in parameter for parameter in wide)
    assert caches == {(dtype.replace("f", "F").replace("bF", "BF"), (16, 16, 2, 16))}
    spec = read_spec_file(folder)
    exact = 0 if dtype == "bfloat16" else 2**-11
    canonical = canonical_weights(spec, folder)
    for weight in network_weights(spec, choose_network(spec, 64), canonical, on_cpu=False):
        loaded = np.concatenate([values[one] for one in weight.name.split()])
        np.testing.assert_allclose(loaded, weight.read(np.float32), rtol=exact, atol=0)
