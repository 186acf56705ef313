"""Weights and logits that are not numbers, in every kind of file. Nothing here needs MindSpore."""

from __future__ import annotations

import json
import struct
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from model.checkpoint.finite import all_finite, require_finite_logits
from model.checkpoint.mindspore_file import index_mindspore
from model.checkpoint.safetensors_file import index_safetensors
from model.errors import ModelError, UnusableWeightError

DTYPES = {"float32": ("F32", "Float32"), "float16": ("F16", "Float16"), "bfloat16": ("BF16", "BFloat16")}
BAD = {"nan": np.nan, "-nan": -np.nan, "inf": np.inf, "-inf": -np.inf}


def stored_as(values, dtype):
    """Bytes of the values in this format."""
    if dtype == "bfloat16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
    return values.astype(dtype).tobytes()


def write_safetensors(file, values, dtype):
    raw = stored_as(values, dtype)
    entry = {"dtype": DTYPES[dtype][0], "shape": values.shape, "data_offsets": [0, len(raw)]}
    header = json.dumps({"w": entry}).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header + raw)
    return index_safetensors(file)["w"]


def write_mindspore(file, values, dtype):
    def number(value):
        low, rest = value & 0x7F, value >> 7
        return bytes([low | 0x80]) + number(rest) if rest else bytes([low])

    def part(field, content):
        return number(field << 3 | 2) + number(len(content)) + content

    dims = b"".join(number(1 << 3) + number(size) for size in values.shape)
    tensor = dims + part(2, DTYPES[dtype][1].encode()) + part(3, stored_as(values, dtype))
    file.write_bytes(part(1, part(1, b"w") + part(2, tensor)))
    return index_mindspore(file)["w"]


kinds = pytest.mark.parametrize("write", [write_safetensors, write_mindspore])


@kinds
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("others", [-1.0, 1.0])
def test_one_bad_value_anywhere_is_found_and_said(tmp_path, write, dtype, bad, others):
    values = np.full((40, 50), others, np.float32)
    values[7, 3] = values[39, 49] = BAD[bad]
    tensor = write(tmp_path / "model", values, dtype)
    with pytest.raises(UnusableWeightError) as error:
        tensor.read(np.float32)
    text = "tensor w: 2 of 2000 values are NaN or infinite (the first at [7, 3]); the file is damaged"
    assert f"{tmp_path / 'model'}: {text}" in str(error.value)


@kinds
@pytest.mark.parametrize("dtype", DTYPES)
def test_large_and_small_values_and_none_at_all_are_numbers(tmp_path, write, dtype):
    most = np.finfo(np.float16 if dtype == "float16" else np.float32).max
    most = np.array(most, np.float32).view(np.uint32) & np.uint32(0xFFFF0000 if dtype == "bfloat16" else 0xFFFFFFFF)
    most = most.view(np.float32)
    for values in ([most, -most, most], [0.0, -0.0, 1e-7], []):
        with warnings.catch_warnings(action="error"):
            read = write(tmp_path / "model", np.array(values, np.float32), dtype).read(np.float32)
        assert read.shape == (len(values),)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_does_not_fit_into_the_devices_arithmetic_is_said(tmp_path, dtype):
    tensor = write_safetensors(tmp_path / "model", np.array([1.0, -1e5, 2.0], np.float32), dtype)
    assert tensor.read(np.float32).size == 3
    with warnings.catch_warnings(action="error"), pytest.raises(UnusableWeightError) as error:
        tensor.read(np.float16)
    assert "tensor w: 1 of 3 values do not fit into float16 (the largest is " in str(error.value)
    assert "pipeline.runner.device: CPU" in str(error.value)


@given(arrays.arrays(np.uint16, st.integers(1, 20)))
def test_any_bits_of_float16_as_numpy_judges_them(bits):
    values = bits.view(np.float16)
    assert all_finite(values, "float16") == bool(np.isfinite(values).all())


@given(arrays.arrays(np.uint16, st.integers(1, 20)))
def test_any_bits_of_bfloat16_as_numpy_judges_float32(bits):
    values = (bits.astype(np.uint32) << 16).view(np.float32)
    assert all_finite(bits, "bfloat16") == bool(np.isfinite(values).all())


@given(arrays.arrays(np.uint32, st.integers(1, 20)))
def test_any_bits_of_float32_as_numpy_judges_them(bits):
    values = bits.view(np.float32)
    assert all_finite(values, "float32") == bool(np.isfinite(values).all())


@pytest.mark.parametrize(
    ("arithmetic", "remedy"),
    [("float32", "float32 overflows"), ("float16", "device: CPU"), ("bfloat16", "bfloat16 overflows")],
)
def test_logits_that_are_not_finite_name_the_other_cause(arithmetic, remedy):
    require_finite_logits(np.ones(8, np.float32), arithmetic)
    with pytest.raises(ModelError, match=rf"^2 of 8 of the model's first logits are not finite.*{remedy}"):
        require_finite_logits(np.array([1, np.nan, 2, np.inf, 0, 0, 0, 0], np.float32), arithmetic)
