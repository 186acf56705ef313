"""The mindspore runner as its caller sees it; steps, errors and results are in tests/model/test_conformance.py."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from model.errors import CapacityError, CheckpointError, ConfigurationError
from model.families import canonical_weights, read_spec
from model.mindspore_common.memory import kv_block_bytes
from model.mindspore_runner import MindSporeRunner
from tests.model.adapters.folders import Lora
from tests.model.families.checkpoints import load
from tests.model.mindspore_runner import scenarios
from tests.model.numpy_decoder import NumpyDecoder
from tests.model.numpy_llama import write_safetensors

CHECKPOINTS = load()


@pytest.fixture
def gemma3(tmp_path):
    return CHECKPOINTS["gemma3"].save(tmp_path)


def test_facts_and_memory_are_known_without_mindspore(gemma3):
    runner = MindSporeRunner(scenarios.settings(gemma3))
    facts, need = runner.facts, runner.memory_need()
    assert (facts.name, facts.device) == ("mindspore gemma3_text 64 x 2", "CPU")
    assert (facts.vocab_size, facts.max_length, facts.block_table_width) == (256, 64, 4)
    assert kv_block_bytes(runner.spec, runner.settings) == 2 * 2 * 16 * (32 + 32) * 4
    assert need.weights == 4 * sum(int(np.prod(shape)) for shape in runner.spec.tensors().values())
    longer = MindSporeRunner(scenarios.settings(gemma3, max_length=256)).memory_need()
    assert longer.runtime - need.runtime == 4 * 2 * 32 * (256 - 64)  # two rotary tables
    lora = Lora(CHECKPOINTS["gemma3"])
    folders = tuple(lora.save(gemma3 / name) for name in ("one", "other"))
    adapted = MindSporeRunner(scenarios.settings(gemma3, adapters=folders))
    size = sum(array.nbytes for array in lora.tensors().values())
    assert (facts.adapters, adapted.facts.adapters) == (0, 2)
    assert adapted.memory_need().weights - need.weights == 2 * size
    assert MindSporeRunner(scenarios.settings(gemma3, merged_adapter=folders[0])).memory_need() == need
    assert "mindspore" not in sys.modules


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"num_blocks": 10**8}, CapacityError, "KV cache .* for 100000000 blocks"),
        ({"max_length": 257}, ConfigurationError, "max_length is 257, but the model knows 256 positions"),
        ({"device": "Ascend"}, ConfigurationError, "device is 'Ascend'; the mindspore engine computes on CPU only"),
    ],
)
def test_refused(gemma3, changes, error, message):
    with pytest.raises(error, match=message):
        MindSporeRunner(scenarios.settings(gemma3, **changes))


def test_a_checkpoint_that_does_not_fit_is_refused_before_mindspore_is_loaded(gemma3):
    (gemma3 / "model.safetensors").unlink()
    write_safetensors(gemma3 / "model.safetensors", {"model.norm.weight": np.ones(64, np.float32)})
    with pytest.raises(CheckpointError, match=r"27 missing: model\.embed_tokens\.weight \(256, 64\)"):
        MindSporeRunner(scenarios.settings(gemma3))


@pytest.mark.parametrize("key", ["adapters", "merged_adapter"])
def test_an_adapter_that_does_not_fit_is_refused_before_mindspore_is_loaded(gemma3, key):
    folder = Lora(CHECKPOINTS["qwen2"]).save(gemma3 / "adapter")
    with pytest.raises(CheckpointError, match=f"adapter {folder} does not fit the model: .* wrongly shaped"):
        MindSporeRunner(scenarios.settings(gemma3, **{key: (folder,) if key == "adapters" else folder}))


def test_weights_that_are_not_numbers_are_refused_by_name(in_mindspore, tmp_path):
    it = CHECKPOINTS["phi3"]
    folder, tensors = it.save(tmp_path), it.tensors()
    tensors["model.layers.1.self_attn.qkv_proj.weight"][70, 3] = np.nan  # a key
    write_safetensors(folder / "model.safetensors", tensors)
    why = in_mindspore(scenarios.refusal, folder)
    assert "tensor model.layers.1.self_attn.qkv_proj.weight: 1 of 2048 values are NaN" in why
    adapter = Lora(it).save(tmp_path / "adapter")
    name, array = next(iter(Lora(it).tensors().items()))
    write_safetensors(adapter / "adapter_model.safetensors", {**Lora(it).tensors(), name: array * np.inf})
    folder = it.save(tmp_path / "base")
    for changes in ({"adapters": (adapter,)}, {"merged_adapter": adapter}):
        why = in_mindspore(scenarios.refusal, folder, **changes)
        assert f"tensor {name}: {array.size} of {array.size} values are NaN or infinite" in why


@pytest.mark.engine
def test_neither_mindformers_nor_the_terminal_nor_the_directory_see_anything(tmp_path, gemma3):
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from tests.model.mindspore_runner.scenarios import loaded
runner = loaded({str(gemma3)!r}, checkpoint_path=None, max_rows=1, token_budget=1, buckets=None)
runner.warm_up()
assert "mindspore" in sys.modules and "mindformers" not in sys.modules
print("done")
"""
    work = tmp_path / "work"
    work.mkdir()
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=work, timeout=240, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")
    assert list(work.iterdir()) == []


@pytest.mark.engine
def test_cached_graphs_take_other_weights_and_adapters(tmp_path):
    """Graphs of one checkpoint, read by a process that serves another one of the same configuration."""
    it, cache = CHECKPOINTS["qwen2-tied"], tmp_path / "cache"
    folders = [it.save(tmp_path / "one"), it.save(tmp_path / "other")]
    changed = {name: array * np.float32(0.9) for name, array in it.tensors().items()}
    write_safetensors(folders[1] / "model.safetensors", changed)
    spec, written = read_spec(it.config), []
    for seed, (folder, stored) in enumerate(zip(folders, (it.tensors(), changed), strict=True)):
        lora = Lora(it, seed)
        adapters = (lora.save(folder / "adapter"),)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            tokens, options = [it.tokens.tolist()] * 2, {"compile_cache_dir": cache, "adapters": adapters}
            run = pool.submit(scenarios.mixed, folder, tokens, (0, 1), **options)
            write_safetensors(tmp_path / f"{seed}.safetensors", lora.merged(stored))
            for logits, path in zip(run.result(timeout=280), (folder, tmp_path / f"{seed}.safetensors"), strict=True):
                weights = {weight.name: weight.read(np.float32) for weight in canonical_weights(spec, path)}
                np.testing.assert_allclose(logits, NumpyDecoder(spec, weights).logits(it.tokens), atol=1e-3)
        written.append({file: file.stat().st_mtime_ns for file in cache.rglob("*.mindir")})
    assert written[0]
    assert written[0] == written[1]


@pytest.mark.engine
def test_graphs_are_found_in_whatever_order_they_are_compiled(tmp_path):
    """By processes that compile them in other orders; the last one has a bucket first that is not there."""
    it, cache = CHECKPOINTS["qwen2-tied"], tmp_path / "cache"
    folder, times, first = it.save(tmp_path / "model"), [], {}
    for order in (((1, 1), (4, 4), (8, 4)), ((8, 4), (4, 4), (1, 1)), ((2, 2), (8, 4), (1, 1))):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            run = pool.submit(scenarios.compiled_in_order, folder, order, compile_cache_dir=cache)
            for size, logits in run.result(timeout=280).items():
                np.testing.assert_array_equal(logits, first.setdefault(size, logits))
        times.append({file.name: file.stat().st_mtime_ns for file in cache.rglob("*.mindir")})
    assert sorted(times[0]) == ["1x1.mindir", "4x4.mindir", "8x4.mindir"]
    assert times[0] == times[1]
    assert times[2].keys() - times[1].keys() == {"2x2.mindir"}
    np.testing.assert_allclose([*first.values()], [first[1, 1]] * 4, atol=1e-5)
    assert not list(cache.rglob(".scratch-*"))
