"""What an Ascend device would get: networks are built and loaded here as for it. None was ever run on a device."""

from __future__ import annotations

import json

import numpy as np
import pytest

from model.families import canonical_weights, read_spec_file
from model.families.shard import Shard
from model.mindformers_runner.names import network_weights
from model.mindformers_runner.networks import choose_network
from model.mindformers_runner.rope import full_tables
from model.mindformers_runner.runner import with_own_head
from model.mindspore_common.ranks import Ranks
from tests.model.families.checkpoints import load
from tests.model.mindformers_runner import scenarios
from tests.model.numpy_llama import write_safetensors

CHECKPOINTS = load()


@pytest.mark.parametrize("name", ["qwen2", "qwen3-moe"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_numbers_follow_the_checkpoint(in_mindspore, tmp_path, name, dtype):
    """Norms and routers are computed in float32. What is stored in bfloat16 is not rounded in bfloat16."""
    folder = CHECKPOINTS[name].save(tmp_path, bfloat16=dtype == "bfloat16")
    (folder / "config.json").write_text(json.dumps({**CHECKPOINTS[name].config, "dtype": dtype}))
    arithmetic, types, values, caches, tables = in_mindspore(scenarios.as_built_for_ascend, folder)
    assert arithmetic == dtype
    wide = {parameter for parameter, it in types.items() if it == "Float32"}
    assert {types[parameter].lower() for parameter in types.keys() - wide} == {dtype}
    assert all("norm" in parameter or "router" in parameter for parameter in wide)
    spec = read_spec_file(folder)
    for found, table in zip(tables, full_tables(spec, 64), strict=True):
        np.testing.assert_allclose(found, table, rtol=0, atol=2**-8 if dtype == "bfloat16" else 2**-11)
    cache = (16, 16, spec.num_kv_heads, spec.head_dim)
    assert {(number.lower(), shape) for number, shape in caches} == {(dtype, cache)}
    for weight in network_weights(spec, choose_network(spec, 64), canonical_weights(spec, folder), on_cpu=False):
        loaded = np.concatenate([values[one] for one in weight.name.split()])
        rounded = np.float16 if dtype == "float16" and weight.name not in wide else np.float32
        np.testing.assert_array_equal(loaded, weight.read(rounded).astype(np.float32))


@pytest.mark.parametrize("name", ["qwen3-tied", "qwen3-moe"])
def test_a_ranks_part(in_mindspore, tmp_path, name):
    folder, ranks = CHECKPOINTS[name].save(tmp_path), Ranks(1, 2)
    _, _, values, caches, _ = in_mindspore(scenarios.as_built_for_ascend, folder, ranks=ranks)
    spec, canonical = with_own_head(read_spec_file(folder), canonical_weights(read_spec_file(folder), folder))
    shard = Shard(spec, ranks.rank, ranks.count)
    assert {shape for _, shape in caches} == {(16, 16, spec.num_kv_heads // 2, spec.head_dim)}
    parts = network_weights(shard.spec, "GPTModel", shard.weights(canonical), on_cpu=False)
    assert values.keys() == {weight.name for weight in parts}
    for weight in parts:
        np.testing.assert_allclose(values[weight.name], weight.read(np.float32), rtol=2**-8, atol=1e-6)
    head = canonical[-1]
    assert head.name == "head.weight"
    np.testing.assert_allclose(values["output_layer.weight"], head.read(np.float32)[128:], rtol=2**-8, atol=1e-6)


def test_large_weights_want_bfloat16(in_mindspore, tmp_path):
    it, why = CHECKPOINTS["qwen2"], {}
    tensors = it.tensors()
    tensors["model.layers.1.mlp.up_proj.weight"][5, 7] = 1e5
    for dtype in ("float32", "bfloat16"):
        folder = it.save(tmp_path / dtype)
        (folder / "config.json").write_text(json.dumps({**it.config, "dtype": dtype}))
        write_safetensors(folder / "model.safetensors", tensors)
        why[dtype] = in_mindspore(scenarios.refusal_on_ascend, folder)
    assert "tensor model.layers.1.mlp.up_proj.weight: 1 of " in why["float32"]
    assert "do not fit into float16 (the largest is 100000); Ascend computes in float16 what" in why["float32"]
    assert why["bfloat16"] is None


def test_mask_of_mixed_steps(in_mindspore):
    """Ours takes no memory for all pairs of positions."""
    ours, theirs = in_mindspore(scenarios.masks, [0, 1, 63, 7], 64)
    assert ours.dtype == np.float16
    np.testing.assert_array_equal(ours, theirs)
