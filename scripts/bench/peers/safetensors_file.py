"""Tensors in a file of the format safetensors: a header's length, the header in JSON, data. Needs numpy only, so that
it runs in every peer's environment, and knows bfloat16, which numpy doesn't: as the bits of it, in uint16."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_DTYPES: dict[str, tuple[str, np.dtype[Any]]] = {
    "float32": ("F32", np.dtype("<f4")),
    "bfloat16": ("BF16", np.dtype("<u2")),
}
_NUMPY = dict(_DTYPES.values())


def write_tensors(file: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str, parts: Iterable[Array]) -> None:
    """`parts` are all tensors' values one after the other, in any pieces."""
    name, kind = _DTYPES[dtype]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor, shape in shapes.items():
        begin, end = end, end + math.prod(shape) * kind.itemsize
        header[tensor] = {"dtype": name, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for part in parts:
            stream.write(np.ascontiguousarray(part, kind).data)


def read_tensors(file: Path) -> dict[str, Array]:
    """By name, mapped from the file: float32, or bfloat16 as uint16."""
    data = np.memmap(file, np.uint8, "r")
    length = int(data[:8].view("<u8")[0])
    header = json.loads(bytes(data[8 : 8 + length]))
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            tensors[name] = data[begin:end].view(_NUMPY[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def widened(values: Array) -> NDArray[np.float32]:
    """Bfloat16's bits as float32, exactly; float32 as it is."""
    return values if values.dtype == np.float32 else (values.astype(np.uint32) << 16).view(np.float32)
