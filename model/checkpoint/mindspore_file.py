"""Index of a MindSpore ``.ckpt`` file, read without MindSpore.

The file is a protobuf message (mindspore/ccsrc/utils/checkpoint.proto)::

    Checkpoint  { repeated Value value = 1; }
    Value       { string tag = 1; TensorProto tensor = 2; }
    TensorProto { repeated int64 dims = 1; string tensor_type = 2; bytes tensor_content = 3; }

A tensor larger than a slice is stored as several values with the same tag, whose contents follow one another.
Only the wire format is walked; contents stay on disk until they are read.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from model.checkpoint.stored_tensor import StoredTensor
from model.errors import CheckpointError

_DTYPES = {"Float32": "float32", "Float16": "float16", "BFloat16": "bfloat16"}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_CRC_MARK = b"crc_num"
_CRC_BYTES = 17  # the mark and ten digits, appended when the file was saved with crc_check


@dataclass(slots=True)
class _Draft:
    dtype: str
    shape: tuple[int, ...]
    pieces: list[tuple[int, int]] = field(default_factory=list)


def index_mindspore(file: Path) -> dict[str, StoredTensor]:
    """Every tensor of the file, by name.

    Raises:
        CheckpointError: unreadable, truncated, or not a MindSpore checkpoint.
    """
    if file.stat().st_size == 0:
        raise CheckpointError(f"{file} is empty")
    try:
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            drafts = _index(data)
    except (IndexError, UnicodeDecodeError, ValueError) as error:
        raise CheckpointError(f"{file} is truncated or not a MindSpore checkpoint: {error}") from error
    return {
        name: StoredTensor(name, _DTYPES.get(draft.dtype, draft.dtype), draft.shape, file, tuple(draft.pieces))
        for name, draft in drafts.items()
    }


def _index(data: mmap.mmap) -> dict[str, _Draft]:
    end = len(data)
    if data[-_CRC_BYTES : -_CRC_BYTES + len(_CRC_MARK)] == _CRC_MARK:
        end -= _CRC_BYTES
    drafts: dict[str, _Draft] = {}
    for number, first, last in _fields(data, 0, end):
        if number != 1:
            raise ValueError(f"field {number} at the top level")
        name, piece = _value(data, first, last)
        drafts.setdefault(name, _Draft(piece.dtype, piece.shape)).pieces += piece.pieces
    return drafts


def _value(data: mmap.mmap, start: int, end: int) -> tuple[str, _Draft]:
    name, draft = None, None
    for number, first, last in _fields(data, start, end):
        if number == 1:
            name = data[first:last].decode()
        elif number == 2:
            draft = _tensor(data, first, last)
    if name is None or draft is None:
        raise ValueError("a value without a name or without a tensor")
    return name, draft


def _tensor(data: mmap.mmap, start: int, end: int) -> _Draft:
    dtype = ""
    dims: list[int] = []
    pieces: list[tuple[int, int]] = []
    for number, first, last in _fields(data, start, end):
        if number == 1:
            dims += _dims(data, first, last)
        elif number == 2:
            dtype = data[first:last].decode()
        elif number == 3:
            pieces.append((first, last - first))
    # MindSpore writes the shape of a scalar as [0]
    scalar = dims == [0] and any(size > 0 for _, size in pieces)
    return _Draft(dtype, () if scalar else tuple(dims), pieces)


def _dims(data: mmap.mmap, first: int, last: int) -> list[int]:
    """One number, or several when the field is packed."""
    numbers = []
    while first < last:
        number, first = _varint(data, first, last)
        numbers.append(number)
    return numbers


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, begin and end of the content of each field of a message."""
    while start < end:
        key, first = _varint(data, start, end)
        kind = key & 7
        if kind == _BYTES:
            length, first = _varint(data, first, end)
            last = first + length
        elif kind == _VARINT:
            _, last = _varint(data, first, end)
        elif kind in {_FIXED64, _FIXED32}:
            last = first + (8 if kind == _FIXED64 else 4)
        else:
            raise ValueError(f"wire type {kind} at byte {start}")
        if last > end:
            raise ValueError(f"a field at byte {start} ends at byte {last}, past byte {end}")
        yield key >> 3, first, last
        start = last


def _varint(data: mmap.mmap, start: int, end: int) -> tuple[int, int]:
    """Value, and where the next byte is."""
    value = 0
    for shift in range(0, 70, 7):
        if start >= end:
            raise ValueError(f"a number ends past byte {end}")
        byte = data[start]
        start += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, start
    raise ValueError(f"a number of more than ten bytes before byte {start}")
