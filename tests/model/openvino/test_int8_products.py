"""Products with int8 matrices as an operation of OpenVINO's, and where they are used."""

from __future__ import annotations

import numpy as np
import pytest

from model.openvino import int8_products
from model.openvino.int8_products import can_multiply
from tests.model.conftest import needs_openvino
from tests.model.openvino import scenarios

FLAGS = "flags : fpu avx2 fma avx512f avx512bw avx512dq avx512vl"
needs_products = pytest.mark.skipif(not can_multiply(), reason="no AVX512_VNNI, or built without OpenVINO's headers")


@needs_openvino
@needs_products
@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (100, 300), (257, 40)])
def test_a_tokens_product_is_the_same_among_others(in_openvino, rows, columns):
    """Alone (VNNI) or with 69 others (AMX where there is any), to the bit; and it is the product."""
    generator = np.random.default_rng(rows)
    matrix = generator.integers(-127, 128, (rows, columns)).astype(np.int8)
    x = generator.standard_normal((70, columns)).astype(np.float32)
    together, *alone = in_openvino(scenarios.int8_products, matrix, [x, *(x[at : at + 1] for at in range(70))])
    np.testing.assert_array_equal(together, np.concatenate(alone))
    exact = x.astype(np.float64) @ matrix.T
    assert (together - exact).std() <= 0.02 * exact.std()


@pytest.mark.parametrize(
    ("flags", "built", "can"),
    [(f"{FLAGS} avx512_vnni", True, True), (f"{FLAGS} avx512_vnni", False, False), (FLAGS, True, False)],
)
def test_where_they_are_used(tmp_path, monkeypatch, flags, built, can):
    library = tmp_path / "it.so"
    if built:
        library.touch()
    monkeypatch.setattr(int8_products, "LIBRARY", library)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(f"{flags}\n")
    assert can_multiply(tmp_path) == can
