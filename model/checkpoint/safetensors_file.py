"""Header of a safetensors file (format: https://huggingface.co/docs/safetensors/index#format)."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.checkpoint.stored_tensor import StoredTensor
from model.errors import CheckpointError

_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_MAX_HEADER = 100_000_000


def index_safetensors(file: Path) -> dict[str, StoredTensor]:
    """Every tensor of the file, by name.

    Raises:
        CheckpointError: unreadable, truncated, or not a safetensors file.
    """
    size = file.stat().st_size
    header, start = _read_header(file, size)
    tensors = {name: _tensor(file, name, entry, start) for name, entry in header.items() if name != "__metadata__"}
    end = max((offset + length for tensor in tensors.values() for offset, length in tensor.pieces), default=0)
    if end > size:
        raise CheckpointError(
            f"{file} is truncated: its header describes {end} bytes, the file has {size}; download it again"
        )
    return tensors


def _read_header(file: Path, size: int) -> tuple[Mapping[str, Any], int]:
    with file.open("rb") as stream:
        prefix = stream.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(_MAX_HEADER, size - 8):
            raise CheckpointError(
                f"{file} is truncated or not a safetensors file: its header does not fit into it; download it again"
            )
        text = stream.read(length)
    try:
        header = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{file} is not a safetensors file: its header is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{file} is not a safetensors file: its header is not a JSON object")
    return header, 8 + length


def _tensor(file: Path, name: str, entry: object, start: int) -> StoredTensor:
    try:
        dtype, shape = entry["dtype"], tuple(int(n) for n in entry["shape"])  # type: ignore[index]
        first, last = (int(n) for n in entry["data_offsets"])  # type: ignore[index]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file}: the header's entry for {name} is malformed ({error!r})") from error
    if not 0 <= first <= last or any(n < 0 for n in shape):
        raise CheckpointError(f"{file}: the header's entry for {name} has impossible offsets or shape")
    return StoredTensor(name, _DTYPES.get(dtype, str(dtype)), shape, file, ((start + first, last - first),))
