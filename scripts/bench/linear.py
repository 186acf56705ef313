"""One linear layer over weights as they are stored, by the C++ operator and by MindSpore's MatMul, in turns.

    python -m scripts.bench.linear
    python -m scripts.bench.linear --tokens 1,8,256 --shapes 2048x768,768x2048 --threads 2

MatMul needs float32; the operator takes bfloat16, too. Medians of milliseconds; no graph, no server.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.mindspore_common import native
from scripts.lab.arguments import Wrong, count, counts, parser, write_json
from scripts.lab.machine import describe_machine
from scripts.lab.steps import timed_ms
from scripts.lab.table import markdown

Run = Callable[[], object]
CASES = ("bfloat16, operator", "float32, operator", "float32, MatMul")


def operator(*arrays: NDArray[Any]) -> Run:
    """A call of the operator with these inputs and, as the last, its output."""
    pointers = (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
    shapes = [(ctypes.c_int64 * array.ndim)(*array.shape) for array in arrays]
    addresses = (ctypes.c_void_p * len(arrays))(*map(ctypes.addressof, shapes))
    ndims = (ctypes.c_int * len(arrays))(*(array.ndim for array in arrays))
    dtypes = (ctypes.c_char_p * len(arrays))(*(array.dtype.name.encode() for array in arrays))
    call = native.load_library()[native.LINEAR]

    def run(_shapes: object = shapes, _arrays: object = arrays) -> None:  # they live as long as it does
        if call(len(arrays), pointers, ndims, addresses, dtypes, None, None):
            raise RuntimeError(native.last_error())

    return run


def operators(x: NDArray[np.float32], weights: Sequence[NDArray[Any]]) -> Run:
    runs = [operator(x, weight, np.empty((len(x), len(weight)), np.float32)) for weight in weights]

    def run() -> None:
        for one in runs:
            one()

    return run


def matmul(x: NDArray[np.float32], weights: Sequence[NDArray[np.float32]]) -> Run:
    """In one graph, as a model has them."""
    import mindspore

    product = mindspore.ops.MatMul(transpose_b=True)
    inputs, first = tuple(mindspore.Tensor(weight) for weight in weights), mindspore.Tensor(x)

    @mindspore.jit  # type: ignore[untyped-decorator]
    def graph(left: Any, rights: Any) -> Any:
        products: tuple[Any, ...] = ()
        for right in rights:
            products += (product(left, right),)
        return products

    def run() -> None:
        graph(first, inputs)[-1].asnumpy()

    return run


def measure(shape: tuple[int, int], tokens: int, steps: int) -> dict[str, float]:
    """Milliseconds of one layer, by case. ``shape``: rows and columns of the weight. There are so many of them that
    none is in a cache by chance."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((tokens, shape[1]), np.float32)
    number = max(2, (64 << 20) // (4 * shape[0] * shape[1]))
    weights = [generator.standard_normal(shape, np.float32) for _ in range(number)]
    halves = [(weight.view(np.uint32) >> 16).astype(np.uint16) for weight in weights]
    runs = dict(zip(CASES, (operators(x, halves), operators(x, weights), matmul(x, weights)), strict=True))
    times: dict[str, list[float]] = {case: [] for case in CASES}
    for _ in range(steps):
        for case, run in runs.items():
            times[case] += timed_ms(run, 1)
    return {case: statistics.median(of) / number for case, of in times.items()}


def shapes(text: str) -> tuple[tuple[int, int], ...]:
    try:
        found = tuple((int(rows), int(columns)) for rows, columns in (word.split("x") for word in text.split(",")))
    except ValueError:
        raise Wrong(f"{text}: expected ROWSxCOLUMNS, separated by commas") from None
    return found


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    line, cpus = parser(__doc__), len(os.sched_getaffinity(0))
    default = ((768, 768), (2048, 768), (768, 2048))
    line.add_argument("--shapes", type=shapes, default=default, metavar="NxK,…", help="of weights: rows x columns")
    line.add_argument("--tokens", type=counts(4096), default=(1, 8, 32, 256), metavar="N,N")
    line.add_argument("--steps", type=count, default=15, help="over all weights of a shape; default 15")
    line.add_argument("--threads", type=count, default=cpus, help="default: the number of CPUs")
    line.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    return line.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    native.set_threads(options.threads)
    timings = [
        {"rows": shape[0], "columns": shape[1], "tokens": tokens, **measure(shape, tokens, options.steps)}
        for shape in options.shapes
        for tokens in options.tokens
    ]
    lines = [
        [f"{it['rows']} x {it['columns']}", it["tokens"], *(f"{it[case]:.3f}" for case in CASES)] for it in timings
    ]
    print(markdown(("weight", "tokens", *CASES), lines))
    write_json(options.json, {"machine": describe_machine(), "threads": options.threads, "timings": timings})


if __name__ == "__main__":
    main()
