"""The C++ operator called directly, against attention written out in numpy."""

import ctypes
from dataclasses import dataclass, replace

import numpy as np
import pytest

from model.errors import ConfigurationError
from model.mindspore_common import native

GROUP = 16


@dataclass(frozen=True)
class Case:
    """Sizes of one call. ``contexts`` and ``fresh`` are per row."""

    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    block_size: int = 16
    num_blocks: int = 24
    contexts: tuple[int, ...] = (5, 40, 17)
    fresh: tuple[int, ...] = (5, 1, 8)
    padding: int = 3
    window: int = 0
    softcap: float = 0.0

    @property
    def padded_dim(self) -> int:
        return -(-self.head_dim // GROUP) * GROUP


CASES = {
    "mixed": Case(),
    "one token": Case(contexts=(1,), fresh=(1,), padding=0),
    "multi-query": Case(heads=6, kv_heads=1),
    "many heads share a key": Case(heads=40, kv_heads=1, head_dim=8),
    "no sharing": Case(heads=3, kv_heads=3),
    "narrow heads": Case(head_dim=6),
    "odd vectors": Case(head_dim=80),
    "wide heads, wide blocks": Case(head_dim=128, block_size=64),
    "long context": Case(contexts=(300, 129, 128), fresh=(1, 2, 1), num_blocks=60),
    "long prompt": Case(contexts=(200,), fresh=(200,)),
    "idle rows": Case(contexts=(9, 40, 17), fresh=(0, 1, 0)),
    "nothing to do": Case(contexts=(9, 9), fresh=(0, 0)),
    "window": Case(window=7),
    "window of one": Case(window=1),
    "window in a long context": Case(contexts=(300, 129, 260), fresh=(40, 2, 1), num_blocks=60, window=130),
    "window as long as the context": Case(window=40),
    "capped scores": Case(softcap=0.7),
    "window and capped scores": Case(contexts=(200,), fresh=(200,), window=20, softcap=2.5),
}


class Call:
    """Random inputs for a case, the call, and what it should give."""

    def __init__(self, case: Case, seed: int = 0) -> None:
        self.case = case
        self.generator = generator = np.random.default_rng(seed)
        tokens = sum(case.fresh) + case.padding
        blocks = -(-max(case.contexts) // case.block_size)
        order = generator.permutation(case.num_blocks)[: blocks * len(case.contexts)]

        def normal(*shape: int) -> np.ndarray:
            return generator.standard_normal(shape, np.float32)

        self.query = normal(tokens, case.heads * case.head_dim)
        self.key, self.value = (normal(tokens, case.kv_heads * case.head_dim) for _ in range(2))
        angle = generator.uniform(0, 6, (tokens, case.head_dim // 2)).astype(np.float32)
        self.cos, self.sin = (np.concatenate([f(angle)] * 2, 1) for f in (np.cos, np.sin))
        self.tables = np.full((len(case.contexts), blocks + 2), -5, np.int32)  # never read past the context
        self.tables[:, :blocks] = order.reshape(len(case.contexts), blocks)
        self.valid, self.fresh = np.array(case.contexts, np.int32), np.array(case.fresh, np.int32)
        self.keys = normal(case.num_blocks, case.block_size, case.kv_heads, case.head_dim)  # in plain order
        self.values = normal(case.num_blocks, case.block_size, case.kv_heads, case.head_dim)
        self.slots = np.full(tokens, -1, np.int32)
        for token, row, position in self.places():
            block = self.tables[row, position // case.block_size]
            self.slots[token] = block * case.block_size + position % case.block_size
        self.key_cache, self.value_cache = tiled_keys(self.keys), tiled_values(self.values)
        self.traits = np.array([case.window, case.softcap], np.float32)
        self.output = np.full_like(self.query, np.nan)

    def places(self):
        """Token, row and position of every new token."""
        token = 0
        for row, (context, fresh) in enumerate(zip(self.case.contexts, self.case.fresh, strict=True)):
            for position in range(context - fresh, context):
                yield token, row, position
                token += 1

    def run(self) -> int:
        arrays = [
            self.query, self.key, self.value, self.cos, self.sin, self.key_cache, self.value_cache,
            self.tables, self.slots, self.valid, self.fresh, self.traits, self.output,
        ]  # fmt: skip
        pointers = (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
        ndims = (ctypes.c_int * len(arrays))(*(array.ndim for array in arrays))
        shapes = [(ctypes.c_int64 * array.ndim)(*array.shape) for array in arrays]
        shape_pointers = (ctypes.c_void_p * len(arrays))(*(ctypes.addressof(shape) for shape in shapes))
        operator = native.load_library()[native.OPERATOR]
        return operator(len(arrays), pointers, ndims, shape_pointers, None, None, None)

    def expected(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Output, and both caches in plain order, in double precision."""
        case = self.case
        keys, values = self.keys.astype(np.float64), self.values.astype(np.float64)
        output = np.zeros(self.output.shape)
        written = [place for place in self.places() if self.slots[place[0]] >= 0]
        for token, _, _ in written:
            at = divmod(self.slots[token], case.block_size)
            for head in range(case.kv_heads):
                keys[at][head] = self.rotated(self.key, token, head)
            values[at] = self.value[token].reshape(case.kv_heads, case.head_dim)
        for token, row, position in written:
            where = [divmod(n, case.block_size) for n in range(self.oldest(position), position + 1)]
            seen_keys = np.stack([keys[self.tables[row, block], offset] for block, offset in where])
            seen_values = np.stack([values[self.tables[row, block], offset] for block, offset in where])
            for head in range(case.heads):
                shared = head // (case.heads // case.kv_heads)
                scores = seen_keys[:, shared] @ self.rotated(self.query, token, head) / np.sqrt(case.head_dim)
                if case.softcap:
                    scores = np.tanh(scores / case.softcap) * case.softcap
                weights = np.exp(scores - scores.max())
                part = slice(head * case.head_dim, (head + 1) * case.head_dim)
                output[token, part] = weights / weights.sum() @ seen_values[:, shared]
        return output, keys, values

    def oldest(self, position: int) -> int:
        return max(0, position + 1 - self.case.window) if self.case.window else 0

    def rotated(self, x: np.ndarray, token: int, head: int) -> np.ndarray:
        dim = self.case.head_dim
        part = x[token, head * dim : (head + 1) * dim].astype(np.float64)
        turned = np.concatenate([-part[dim // 2 :], part[: dim // 2]])
        return part * self.cos[token] + turned * self.sin[token]


def tiled_keys(keys: np.ndarray) -> np.ndarray:
    """``[blocks, size, heads, D]`` to ``[blocks, heads, size / 16, D, 16]``."""
    blocks, size, heads, dim = keys.shape
    return np.ascontiguousarray(keys.reshape(blocks, size // GROUP, GROUP, heads, dim).transpose(0, 3, 1, 4, 2))


def tiled_values(values: np.ndarray) -> np.ndarray:
    """``[blocks, size, heads, D]`` to ``[blocks, heads, size, D padded to 16]``."""
    padding = -values.shape[-1] % GROUP
    return np.ascontiguousarray(np.pad(values.transpose(0, 2, 1, 3), [(0, 0)] * 3 + [(0, padding)]))


@pytest.fixture(params=native.supported_kernels())
def kernel(request):
    """Every instruction set that this processor has."""
    before = native.kernel_name()
    native.use_kernel(request.param)
    yield request.param
    native.use_kernel(before)


@pytest.fixture(params=[1, 3])
def threads(request):
    native.set_threads(request.param)
    yield request.param
    native.set_threads(1)


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_numpy(name, kernel):
    call = Call(CASES[name])
    output, keys, values = call.expected()
    assert call.run() == 0
    np.testing.assert_allclose(call.output, output, atol=2e-6)
    np.testing.assert_allclose(call.key_cache, tiled_keys(keys), atol=1e-6)
    np.testing.assert_array_equal(call.value_cache, tiled_values(values).astype(np.float32))


def test_threads_share_a_large_call(threads):
    case = Case(heads=8, kv_heads=4, head_dim=64, contexts=(700, 650, 500), fresh=(60, 1, 30), num_blocks=140)
    for seed in range(8):
        call = Call(case, seed)
        if seed == 0:
            expected = call.expected()[0]
        assert call.run() == 0
        if seed == 0:
            np.testing.assert_allclose(call.output, expected, atol=5e-6)
    assert np.isfinite(call.output).all()


def test_large_scores_do_not_overflow(kernel):
    call = Call(Case(contexts=(140,), fresh=(3,)))
    call.query *= 200
    expected = call.expected()[0]
    assert call.run() == 0
    np.testing.assert_allclose(call.output, expected, atol=1e-4)


def test_token_with_slot_minus_one_is_skipped(kernel):
    call = Call(Case())
    before = call.key_cache.copy(), call.value_cache.copy()
    call.slots[:] = -1
    assert call.run() == 0
    np.testing.assert_array_equal(call.output, 0)
    np.testing.assert_array_equal(call.key_cache, before[0])
    np.testing.assert_array_equal(call.value_cache, before[1])


@pytest.mark.parametrize(
    ("array", "index", "value", "message"),
    [
        ("slots", 2, 24 * 16, "slot_mapping[2] is 384, outside -1..383"),
        ("slots", 0, -2, "slot_mapping[0] is -2, outside -1..383"),
        ("slots", 16, 10**9, "slot_mapping[16] is 1000000000, outside -1..383"),
        ("fresh", 1, -1, "q_seq_lens[1] is -1, outside 0..12"),
        ("fresh", 2, 12, "q_seq_lens[2] is 12, outside 0..11"),
        ("valid", 0, 4, "valid_length[0] is 4, outside 5..80"),
        ("valid", 1, 81, "valid_length[1] is 81, outside 1..80"),
        ("tables", (1, 2), 24, "block_tables (flat)[7] is 24, outside 0..23"),
        ("tables", (1, 0), -1, "block_tables (flat)[5] is -1, outside 0..23"),
    ],
)
def test_corrupt_index_is_an_error(array, index, value, message):
    call = Call(Case())
    before = call.key_cache.copy(), call.value_cache.copy()
    getattr(call, array)[index] = value
    assert call.run() == 1
    assert native.last_error() == message
    np.testing.assert_array_equal(call.key_cache, before[0])
    np.testing.assert_array_equal(call.value_cache, before[1])


def test_shapes_that_do_not_fit_are_an_error():
    call = Call(Case())
    call.cos = call.cos[:, :8].copy()
    assert call.run() == 1
    assert "shapes" in native.last_error()
    call = Call(replace(Case(), heads=3))
    assert call.run() == 1


@pytest.mark.parametrize(("trait", "value"), [(0, -1), (0, np.nan), (1, -0.5), (1, np.inf)])
def test_impossible_window_or_softcap_is_an_error(trait, value):
    call = Call(Case())
    call.traits[trait] = value
    assert call.run() == 1
    assert native.last_error() == "window or softcap is out of range"


def test_unknown_kernel_is_refused():
    with pytest.raises(ConfigurationError, match="'mmx' cannot run here; there are"):
        native.use_kernel("mmx")
