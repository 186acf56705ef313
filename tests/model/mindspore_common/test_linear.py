"""Linear layers, their adapters and experts of the C++ library called directly, against numpy."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from model.mindspore_common import native


def call(name: str, *arrays: np.ndarray) -> int:
    """The operator; its last array is the output."""
    count = len(arrays)
    pointers = (ctypes.c_void_p * count)(*(array.ctypes.data for array in arrays))
    ndims = (ctypes.c_int * count)(*(array.ndim for array in arrays))
    shapes = [(ctypes.c_int64 * array.ndim)(*array.shape) for array in arrays]
    shape_pointers = (ctypes.c_void_p * count)(*(ctypes.addressof(shape) for shape in shapes))
    dtypes = (ctypes.c_char_p * count)(*(array.dtype.name.encode() for array in arrays))
    return native.load_library()[name](count, pointers, ndims, shape_pointers, dtypes, None, None)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape, np.float32)


def as_stored(weight: np.ndarray, bfloat16: bool) -> tuple[np.ndarray, np.ndarray]:
    """What the operator gets, and its values."""
    if not bfloat16:
        return weight, weight.astype(np.float64)
    bits = (weight.view(np.uint32) >> 16).astype(np.uint16)
    return bits, (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


@pytest.fixture(params=native.supported_kernels())
def kernel(request):
    """Every instruction set that this processor has."""
    before = native.kernel_name()
    native.use_kernel(request.param)
    yield request.param
    native.use_kernel(before)


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize(
    ("tokens", "columns", "rows"), [(1, 64, 32), (3, 48, 7), (7, 19, 70), (130, 32, 33), (2, 3, 1)]
)
def test_linear(kernel, bfloat16, tokens, columns, rows):
    x, out = normal(tokens, columns), np.full((tokens, rows), np.nan, np.float32)
    weight, values = as_stored(normal(rows, columns, seed=1), bfloat16)
    assert call(native.LINEAR, x, weight, out) == 0
    np.testing.assert_allclose(out, x @ values.T, atol=1e-5)
    alone = np.empty((1, rows), np.float32)
    assert call(native.LINEAR, x[-1:].copy(), weight, alone) == 0
    np.testing.assert_array_equal(alone[0], out[-1])  # whoever else is in the step


def test_threads_share_a_large_linear_layer():
    x, weight, out = normal(40, 512), normal(700, 512, seed=1), np.full((40, 700), np.nan, np.float32)
    native.set_threads(3)
    try:
        assert call(native.LINEAR, x, weight, out) == 0
    finally:
        native.set_threads(1)
    np.testing.assert_allclose(out, x.astype(np.float64) @ weight.T, atol=1e-4)


def test_embedding():
    bits, values = as_stored(normal(9, 20), bfloat16=True)
    ids, out = np.array([3, 8, 0, 3], np.int32), np.empty((4, 20), np.float32)
    assert call(native.EMBEDDING, ids, bits, out) == 0
    np.testing.assert_array_equal(out, values[ids])
    for bad in (9, -1):
        ids[2] = bad
        assert call(native.EMBEDDING, ids, bits, out) == 1
        assert native.last_error() == "a token is outside of the vocabulary"


class Mixture:
    """Random experts, and what each token chose."""

    def __init__(self, tokens: int, chosen: int, bfloat16: bool, *, hidden=40, wide=36, experts=6) -> None:
        self.x, self.out = normal(tokens, hidden), np.full((tokens, hidden), np.nan, np.float32)
        self.share = np.abs(normal(tokens, chosen))
        generator = np.random.default_rng(tokens)
        choices = [generator.permutation(experts)[:chosen] for _ in range(tokens)]
        self.index, self.slots = np.array(choices, np.int32), np.arange(tokens, dtype=np.int32)
        self.gate_up, self.gate_up_values = as_stored(normal(experts, 2 * wide, hidden), bfloat16)
        self.down, self.down_values = as_stored(normal(experts, hidden, wide), False)
        self.slots[tokens // 2] = -1
        self.index[tokens // 2] = 10**6  # padding is not looked at

    def run(self) -> int:
        return call(native.EXPERTS, self.x, self.share, self.index, self.slots, self.gate_up, self.down, self.out)

    def expected(self) -> np.ndarray:
        out = np.zeros(self.x.shape)
        for token in np.flatnonzero(self.slots >= 0):
            for share, expert in zip(self.share[token], self.index[token], strict=True):
                gate, up = np.split(self.gate_up_values[expert] @ self.x[token], 2)
                out[token] += share * (self.down_values[expert] @ (gate / (1 + np.exp(-gate)) * up))
        return out


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize(("tokens", "chosen"), [(1, 2), (2, 1), (9, 3), (150, 2)])
def test_experts(kernel, tokens, chosen, bfloat16):
    mixture = Mixture(tokens, chosen, bfloat16)
    assert mixture.run() == 0
    expected = mixture.expected()
    np.testing.assert_allclose(mixture.out, expected, atol=1e-5 * max(1, np.abs(expected).max()))


def test_threads_share_experts():
    mixture = Mixture(64, 4, True, hidden=256, wide=200)
    native.set_threads(3)
    try:
        assert mixture.run() == 0
    finally:
        native.set_threads(1)
    np.testing.assert_allclose(mixture.out, mixture.expected(), atol=1e-2, rtol=1e-4)


def test_an_expert_that_is_not_there_is_an_error():
    for bad in (6, -1):
        mixture = Mixture(4, 2, False)
        mixture.index[0, 1] = bad
        assert mixture.run() == 1
        assert native.last_error() == "there is no such expert"


class Adapted:
    """Random adapters of a layer, and rows that have them: of 4, 3, 1, 2 and 9 tokens, and padding."""

    def __init__(self, columns: int = 40, width: int = 70) -> None:
        self.pieces = np.array([(1, 3, 0, width), (2, 17, 5, 20), (2, 1, 25, width - 25), (4, 8, 0, 9)], np.int32)
        self.matrices = [(normal(rank, columns), normal(rows, rank)) for _, rank, _, rows in self.pieces]
        self.a = np.concatenate([a for a, _ in self.matrices])
        self.b = np.concatenate([b.T.reshape(-1) for _, b in self.matrices])
        self.fresh = np.array([4, 3, 0, 1, 2, 9, 0], np.int32)
        self.slots = np.array([2, 0, 1, 1, 3, 2, 77], np.int32)
        self.x, self.y = normal(21, columns), normal(21, width)
        self.out = np.full(self.y.shape, np.nan, np.float32)

    def run(self) -> int:
        arrays = (self.y, self.x, self.a, self.b, self.pieces, self.slots, self.fresh, self.out)
        return call(native.ADAPTERS, *arrays)

    def linear(self) -> np.ndarray:
        """As `run`, but `y` is what the weight returned here makes of `x`."""
        weight, values = as_stored(normal(self.y.shape[1], self.x.shape[1], seed=2), bfloat16=True)
        arrays = (weight, self.x, self.a, self.b, self.pieces, self.slots, self.fresh, self.out)
        assert call(native.ADAPTED_LINEAR, *arrays) == 0
        self.y = (self.x @ values.T).astype(np.float32)
        return weight

    def expected(self) -> np.ndarray:
        of_token = np.zeros(len(self.x), int)
        of_token[: self.fresh.sum()] = np.repeat(self.slots, self.fresh)
        out = self.y.astype(np.float64)
        for (adapter, _, first, rows), (a, b) in zip(self.pieces, self.matrices, strict=True):
            its = of_token == adapter
            out[its, first : first + rows] += self.x[its].astype(np.float64) @ a.T @ b.T
        return out


def test_adapters(kernel):
    adapted = Adapted()
    assert adapted.run() == 0
    np.testing.assert_allclose(adapted.out, adapted.expected(), atol=1e-3)
    plain = np.r_[4:7, 8:10, 19:21]  # without one, with one that has nothing here, padding
    np.testing.assert_array_equal(adapted.out[plain], adapted.y[plain])
    assert np.abs(adapted.out - adapted.y)[np.r_[0:4, 7, 10:19]].max(1).min() > 1


def test_a_linear_layer_with_adapters(kernel):
    adapted = Adapted()
    weight = adapted.linear()
    np.testing.assert_allclose(adapted.out, adapted.expected(), atol=1e-3)
    plain = np.r_[4:7, 8:10, 19:21]
    alone = np.empty_like(adapted.out)
    assert call(native.LINEAR, adapted.x, weight, alone) == 0
    np.testing.assert_array_equal(adapted.out[plain], alone[plain])


def test_a_token_with_an_adapter_does_not_depend_on_the_others(kernel):
    adapted, alone = Adapted(), Adapted()
    alone.x, alone.y, alone.out = adapted.x[3:4].copy(), adapted.y[3:4].copy(), adapted.out[3:4].copy()
    alone.slots, alone.fresh = np.array([2], np.int32), np.array([1], np.int32)
    assert adapted.run() == alone.run() == 0
    np.testing.assert_array_equal(alone.out[0], adapted.out[3])


def test_threads_share_adapters():
    adapted = Adapted(2000, 3000)
    native.set_threads(3)
    try:
        assert adapted.run() == 0
    finally:
        native.set_threads(1)
    np.testing.assert_allclose(adapted.out, adapted.expected(), atol=5e-3)


@pytest.mark.parametrize(
    ("array", "index", "value"),
    [
        *[("pieces", (1, 1), rank) for rank in (0, -1, 16, 18, 2**31 - 1)],
        *[("pieces", (2, 2), first) for first in (-1, 26, 2**31 - 1)],
        *[("pieces", (3, 3), rows) for rows in (0, -1, 8, 10, 2**31 - 1)],
        ("pieces", (3, 0), 1),
        *[("fresh", 5, tokens) for tokens in (-1, 12, 2**31 - 1)],
    ],
)
def test_adapters_that_do_not_fit_their_arrays_are_an_error(array, index, value):
    adapted = Adapted()
    getattr(adapted, array)[index] = value
    assert adapted.run() == 1
    assert native.last_error() in {
        "the adapters' table does not fit their matrices",
        "q_seq_lens does not fit the tokens of the step",
    }


def test_arrays_that_do_not_fit_are_an_error():
    x, out = normal(2, 8), np.empty((2, 3), np.float32)
    assert call(native.LINEAR, x, normal(3, 9), out) == 1
    assert call(native.LINEAR, x, normal(3, 8).astype(np.float64), out) == 1
    assert call(native.EMBEDDING, np.zeros(2, np.int32), normal(4, 3), out) == 1
    mixture = Mixture(4, 2, False)
    mixture.down = mixture.down[:, :, :-1].copy()
    assert mixture.run() == 1
    assert native.last_error() == "the inputs of the experts do not fit one another"
    adapted = Adapted()
    adapted.a = adapted.a[:, :-1].copy()
    assert adapted.run() == 1
    assert native.last_error() == "the inputs of the adapters do not fit one another"
    adapted = Adapted()
    for weight in (normal(70, 40), np.zeros((70, 39), np.uint16), np.zeros((69, 40), np.uint16)):
        arrays = (weight, adapted.x, adapted.a, adapted.b, adapted.pieces, adapted.slots, adapted.fresh, adapted.out)
        assert call(native.ADAPTED_LINEAR, *arrays) == 1
        assert native.last_error() == "the inputs of the adapters do not fit one another"
