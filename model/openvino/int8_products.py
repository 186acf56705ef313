"""int8 matrices for kernels of our own, and the operation that calls them (csrc/int8_matrix.h).

OpenVINO's kernels read int8 weights at half of the memory's speed for one token, and leave AMX unused for many; and
the plugin keeps what it packs from. These read the one copy that there is, where it is.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from model.errors import ConfigurationError
from model.openvino.requirements import processor_flags

if TYPE_CHECKING:
    from openvino import Node

LIBRARY = Path(__file__).parent / "libringserve_openvino.so"
ROWS, COLUMNS = 64, 64
"""`kInt8Rows` and `kInt8Group`: what rows and columns are padded to."""
Gate = Literal["silu", "gelu_tanh"]
_GATES: dict[Gate, int] = {"silu": 1, "gelu_tanh": 2}  # `Gate` in int8_matrix.h
_FLAGS = {"avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "fma"}


def can_multiply(root: Path = Path("/")) -> bool:
    """The processor has what it takes, and the library was built, for which OpenVINO's headers must be there."""
    return LIBRARY.exists() and processor_flags(root) >= _FLAGS


def padded_rows(rows: int, block: int = ROWS) -> int:
    """Whole blocks."""
    return -(-rows // block) * block


def padded_columns(columns: int) -> int:
    """Whole groups."""
    return -(-columns // COLUMNS) * COLUMNS


def packed_bytes(shape: tuple[int, ...]) -> int:
    """Of a matrix ``[rows, columns]``."""
    rows, columns = shape
    return padded_rows(rows) * padded_columns(columns)


def pack(values: NDArray[np.int8], packed: NDArray[np.uint8], first: int) -> None:
    """Rows ``[rows, columns]`` from number ``first`` on, with which a block begins, into a whole matrix's memory."""
    rows, columns = values.shape
    width = padded_columns(columns)
    whole = np.zeros((padded_rows(rows), width), np.int8)
    whole[:rows, :columns] = values
    fours = whole.view(np.int32).reshape(-1, 4, 16, width // COLUMNS, 16).transpose(0, 3, 1, 4, 2)
    at = first * width
    packed[at : at + whole.size] = np.ascontiguousarray(fours).view(np.uint8).reshape(-1) ^ 128  # int8 as value + 128


def product(
    x: Any,
    shape: tuple[int, ...],
    packed: NDArray[np.uint8],
    scales: NDArray[np.float32],
    gate: Gate | None = None,
) -> Node:
    """``[T, columns]`` to ``[T, rows]``, the shape. ``scales``: a factor for each row, padded to whole blocks;
    ``gate``: rows lie as `interleave_gates` puts them, and the shape's are the results. The arrays must outlive the
    graph."""
    width, columns = shape
    where = {"values": packed.ctypes.data, "scales": scales.ctypes.data}
    what = {"width": width, "columns": columns, "gate": 0 if gate is None else _GATES[gate]}
    node: Node = load_operations().create("Int8Product", [x], {**where, **what})
    return node


@cache
def load_operations() -> Any:
    """OpenVINO's factory of nodes with ours, after `import_openvino`. Their library takes OpenVINO's symbols from the
    process. Raises ConfigurationError."""
    import openvino
    from openvino.utils.node_factory import NodeFactory

    libraries = Path(openvino.__file__).parent / "libs"
    try:
        for name in ("libtbb.so.*", "libopenvino.so.*"):
            (library,) = libraries.glob(name)
            ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(LIBRARY))
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{LIBRARY.name} does not fit the installed openvino ({error}); install RingServe again, "
            "or use pipeline.runner.kind: mindspore"
        ) from error
    factory = NodeFactory()
    factory.add_extension(LIBRARY)
    return factory
