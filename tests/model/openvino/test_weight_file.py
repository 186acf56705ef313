"""Weights as the engine keeps them: exact where they should be, quantized once, gone where they are not kept."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from model.adapters import model_weights
from model.checkpoint.weight import Weight, size_bytes
from model.errors import CheckpointError
from model.families import canonical_weights, read_spec
from model.openvino import kept, loading, weight_file
from model.openvino.int8_products import COLUMNS, ROWS, can_multiply
from model.openvino.kept import open_shared, remove_outdated
from model.openvino.loading import bfloat16, int8, load_weights
from model.openvino.stacking import interleave_gates, stack_attention
from scripts.lab.paths import ROOT
from tests.model.adapters.folders import Lora
from tests.model.families.checkpoints import load
from tests.model.numpy_llama import write_safetensors
from tests.model.openvino.scenarios import settings

CHECKPOINTS = load()


@pytest.fixture
def folder(tmp_path):
    return CHECKPOINTS["llama-tied"].save(tmp_path / "model", bfloat16=True)


def weights_of(folder, dtype=None):
    weights = tuple(stack_attention(canonical_weights(read_spec(CHECKPOINTS["llama-tied"].config), folder)))
    return tuple(interleave_gates(weights)) if dtype == "int8" and can_multiply() else weights


def load_with(folder, progress=None, **changes):
    weights = canonical_weights(read_spec(CHECKPOINTS["llama-tied"].config), folder)
    return load_weights(weights, settings(folder, **changes), progress)


def widened(array):
    values = array.values
    if array.packed is not None:
        return unpacked(values, array.packed) * array.scale[: array.packed[0], None]
    if values.dtype == np.uint16:
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values if array.scale is None else values * array.scale


def unpacked(values, shape):
    """What `int8_products.pack` has packed, a number at a time."""
    rows, columns = shape
    tiles = values.reshape(-1, -(-columns // COLUMNS), ROWS // 16, 16, 16, 4).astype(np.int16) - 128

    def at(row, column):
        return tiles[row // ROWS, column // COLUMNS, row % ROWS // 16, column % COLUMNS // 4, row % 16, column % 4]

    return np.array([[at(row, column) for column in range(columns)] for row in range(rows)])


@pytest.mark.parametrize("wide", [32, 40, 96])
def test_gates_lie_beside_what_they_let_pass(wide):
    """In blocks of 32 and 32 rows, filled up with zeros; with biases they stay where they are."""
    values = np.arange(2 * wide * 3, dtype=np.float32).reshape(2 * wide, 3) + 1
    gate_up = Weight("layers.1.gate_up.weight", values.shape, lambda _: values)
    bias = Weight("layers.1.gate_up.bias", values.shape[:1], lambda _: values[:, 0])
    (found,) = interleave_gates([gate_up])
    rows = found.read(np.float32)
    assert found.shape == rows.shape
    for number in range(2 * wide):
        block, at = divmod(number % wide, 32)
        np.testing.assert_array_equal(rows[64 * block + at + (32 if number >= wide else 0)], values[number])
    assert np.count_nonzero(rows) == values.size
    assert tuple(interleave_gates([gate_up, bias])) == (gate_up, bias)


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize(("dtype", "atol"), [(None, 0), ("f32", 0), ("bf16", 0), ("int8", 0.02)])
def test_values_are_the_checkpoints(folder, tmp_path, dtype, atol, in_file):
    """It is stored in bfloat16, which bf16 keeps as it is."""
    cache = tmp_path / "cache" if in_file else None
    file = load_with(folder, weight_dtype=dtype, compile_cache_dir=cache)
    file.release()
    for weight in weights_of(folder, dtype):
        np.testing.assert_allclose(widened(file.arrays[weight.name]), weight.read(np.float32), rtol=0, atol=atol)
    head = widened(file.arrays.get("head.weight", file.arrays["embed.weight"]))
    np.testing.assert_allclose(head, weights_of(folder)[0].read(np.float32), rtol=0, atol=atol)
    assert {array.values.ctypes.data % 64 for array in file.arrays.values()} == {0}
    if dtype is None:
        assert sum(array.values.nbytes for array in file.arrays.values()) == size_bytes(weights_of(folder))


def test_int8_is_made_once_and_anew_when_the_checkpoint_changes(folder, tmp_path):
    cache, seen = tmp_path / "cache", []
    for _ in range(2):
        load_with(folder, lambda *event: seen.append(event), weight_dtype="int8", compile_cache_dir=cache)
    count = len(weights_of(folder))
    assert seen == [("quantizing weights", done, count) for done in range(1, count + 1)]
    (kept,) = cache.iterdir()
    assert (cache.stat().st_mode & 0o777, kept.stat().st_mode & 0o777) == (0o700, 0o600)
    os.truncate(kept, 100)  # a disk that lost its end
    load_with(folder, lambda *event: seen.append(event), weight_dtype="int8", compile_cache_dir=cache)
    assert len(seen) == 2 * count
    os.utime(folder / "model.safetensors", ns=(1, 1))
    load_with(folder, weight_dtype="int8", compile_cache_dir=cache)
    assert len(seen) == 2 * count
    assert [path.name != kept.name for path in cache.iterdir()] == [True]


def test_files_of_earlier_versions_go(folder, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setattr(kept, "_VERSION", kept._VERSION - 1)
    load_with(folder, weight_dtype="int8", compile_cache_dir=cache)
    (earlier,) = cache.iterdir()
    monkeypatch.undo()
    load_with(folder, weight_dtype="int8", compile_cache_dir=cache)
    assert [path.name != earlier.name for path in cache.iterdir()] == [True]


def test_what_is_outdated_goes_unless_it_is_in_use(folder, tmp_path):
    """Of checkpoints and of adapters that are gone; never what others than this engine left."""
    cache, it = tmp_path / "cache", CHECKPOINTS["llama-tied"]
    other = it.save(tmp_path / "other", bfloat16=True)
    adapter = Lora(it, 1).save(tmp_path / "adapter")
    held = load_with(folder, weight_dtype="int8", compile_cache_dir=cache)
    (first,) = cache.iterdir()
    load_with(other, weight_dtype="int8", compile_cache_dir=cache)
    load_with(other, weight_dtype="int8", compile_cache_dir=cache, merged_adapter=adapter)
    assert len(list(cache.iterdir())) == 3
    (cache / f"openvino-{'0' * 24}").write_bytes(b"x" * 20)  # damaged
    others = {"graph", "openvino-2026.4.tar.gz", "film.partial"}
    for name in others:
        (cache / name).write_bytes(b"x" * 20)
    os.mkfifo(cache / f"openvino-{'1' * 24}")
    shutil.rmtree(folder)
    shutil.rmtree(adapter)
    load_with(other, weight_dtype="f32", compile_cache_dir=cache)
    left = {path.name for path in cache.iterdir()}
    assert len(left) == 6
    assert {first.name, *others} < left
    assert held.arrays["layers.0.qkv.weight"].values.any()
    del held
    load_with(other, weight_dtype="int8", compile_cache_dir=cache)
    assert {path.name for path in cache.iterdir()} == left - {first.name}


def test_a_file_that_another_process_has_open_stays(folder, tmp_path):
    cache = tmp_path / "cache"
    load_with(folder, weight_dtype="int8", compile_cache_dir=cache)
    (kept,) = cache.iterdir()
    code = """
import sys, pathlib
from model.openvino.kept import open_shared
file = open_shared(pathlib.Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", code, str(kept)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as other:
        assert other.stdout.readline() == b"open\n"
        shutil.rmtree(folder)
        remove_outdated(cache)
        assert kept.exists()
        other.stdin.close()
        assert other.wait(60) == 0
    remove_outdated(cache)
    assert not kept.exists()
    with pytest.raises(FileNotFoundError):
        open_shared(kept)


def test_int8_is_another_with_each_adapter_that_is_merged(folder, tmp_path):
    it, cache, found = CHECKPOINTS["llama-tied"], tmp_path / "cache", []
    adapters = [Lora(it, seed).save(tmp_path / str(seed)) for seed in (1, 2)]
    for merged in (None, *adapters, adapters[0]):
        weights = model_weights(read_spec(it.config), folder, merged)
        changes = {"weight_dtype": "int8", "compile_cache_dir": cache, "merged_adapter": merged}
        found.append(widened(load_weights(weights, settings(folder, **changes), None).arrays["layers.0.qkv.weight"]))
    assert len(list(cache.iterdir())) == 3
    np.testing.assert_array_equal(found[3], found[1])
    assert np.abs(found[1] - found[0]).max() > 0.1
    assert np.abs(found[1] - found[2]).max() > 0.1
    os.utime(adapters[0] / "adapter_config.json", ns=(1, 1))  # another scale, perhaps
    names = {path.name for path in cache.iterdir()}
    load_weights(weights, settings(folder, **changes), None)
    assert len({path.name for path in cache.iterdir()} & names) == 2
    assert len(list(cache.iterdir())) == 3


def test_other_weights_leave_no_file(folder, tmp_path):
    file = load_with(folder, weight_dtype="f32", compile_cache_dir=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    assert np.isfinite(file.arrays["embed.weight"].values).all()


def test_an_unusable_checkpoint_and_a_killed_process_leave_nothing(tmp_path, folder):
    cache, tensors = tmp_path / "cache", CHECKPOINTS["llama-tied"].tensors()
    cache.mkdir()
    (cache / "openvino-killed.partial").write_bytes(b"x")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = np.nan
    write_safetensors(folder / "model.safetensors", tensors)
    with pytest.raises(CheckpointError, match=r"up_proj\.weight: 1 of .* values are NaN"):
        load_with(folder, weight_dtype="int8", compile_cache_dir=cache)
    assert list(cache.iterdir()) == []


def test_without_room_they_stay_in_memory_and_that_is_said(folder, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    file = load_with(folder, weight_dtype="int8", compile_cache_dir=tmp_path / "file")
    assert "converted weights stay in memory: no file of them in" in caplog.text
    assert file.arrays["layers.0.qkv.weight"].values.any()


def test_queries_keys_and_values_are_one_matrix(tmp_path):
    """Of which bfloat16 is kept only if nothing was folded into any of them."""
    for name, exact in (("qwen2", True), ("granite", False)):
        it = CHECKPOINTS[name]
        plain = {
            it.name: it for it in canonical_weights(read_spec(it.config), it.save(tmp_path / name, bfloat16=True))
        }
        stacked = {it.name: it for it in stack_attention(tuple(plain.values()))}
        assert not any(f".{which}." in found for which in "qkv" for found in stacked)
        for what in ("weight", "bias")[: 1 + (name == "qwen2")]:
            found = stacked[f"layers.1.qkv.{what}"]
            parts = [plain[f"layers.1.{which}.{what}"] for which in "qkv"]
            assert found.shape == (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
            np.testing.assert_array_equal(
                found.read(np.float32), np.concatenate([it.read(np.float32) for it in parts])
            )
            assert (found.read_bits is not None) == exact
            if exact:
                np.testing.assert_array_equal(found.read_bits(), np.concatenate([it.read_bits() for it in parts]))


def test_rounding():
    values = np.array([[1.0, -2.0, 0.5, 127 / 64], [0, 0, 0, 0]], np.float32)
    whole, scale = int8(values)
    np.testing.assert_array_equal(whole, [[64, -127, 32, 126], [0, 0, 0, 0]])
    assert scale[0, 0] == np.float32(2) / np.float32(127)
    bits = bfloat16(np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, -3.0], np.float32))
    np.testing.assert_array_equal((bits.astype(np.uint32) << 16).view(np.float32), [1, 1, 1 + 2**-6, -3])


@pytest.mark.parametrize(("own", "piece"), [(False, 7), (True, ROWS)])
def test_rows_are_converted_in_pieces(monkeypatch, folder, own, piece):
    whole = load_with(folder, weight_dtype="int8", own_products=own)
    monkeypatch.setattr(loading, "_ROWS", piece)
    for name, array in load_with(folder, weight_dtype="int8", own_products=own).arrays.items():
        np.testing.assert_array_equal(widened(array), widened(whole.arrays[name]))


def test_a_file_gives_its_memory_back(tmp_path):
    slots = {"it": weight_file.Slot("float32", (1 << 20,), 0)}
    with weight_file.new_file(slots, tmp_path, None) as file:
        file.arrays["it"].values[...] = 1.5
    before = resident()
    file.release()
    assert before - resident() >= (3 << 20) // mmap.PAGESIZE
    assert (file.arrays["it"].values == 1.5).all()


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])
