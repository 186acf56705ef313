"""Which weights a checkpoint holds, as 16 hexadecimal digits.

They are made of the model's configuration and of the tensors: name, type, shape and 12 KiB of each, from its
beginning, middle and end. So they are the same on every host, however the tensors are spread over files, and take a
fraction of a second: 8 MB are read of a model of 700 tensors. Two checkpoints that differ nowhere but between these
samples have the same id.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path

from model.checkpoint.stored_tensor import StoredTensor
from model.errors import CheckpointError

_SAMPLE = 4096  # bytes
_DIGITS = 16


def weights_id(configuration: bytes, tensors: Mapping[str, StoredTensor]) -> str:
    """`configuration`: the content of the model's file, and whatever else decides what is computed. Raises
    CheckpointError for a file that can't be read."""
    digest = blake2b(configuration, digest_size=_DIGITS // 2)
    with ExitStack() as stack:
        files: dict[Path, int] = {}
        for name, tensor in sorted(tensors.items()):
            digest.update(f"\0{name} {tensor.dtype} {tensor.shape}\0".encode())
            try:
                if tensor.file not in files:
                    files[tensor.file] = os.open(tensor.file, os.O_RDONLY | os.O_CLOEXEC)
                    stack.callback(os.close, files[tensor.file])
                for offset, size in _samples(tensor):
                    digest.update(os.pread(files[tensor.file], size, offset))
            except OSError as error:
                raise CheckpointError(f"cannot read checkpoint {tensor.file}: {error}") from error
    return digest.hexdigest()


def _samples(tensor: StoredTensor) -> Iterator[tuple[int, int]]:
    """Offsets and sizes, of each piece."""
    for offset, size in tensor.pieces:
        for start in sorted({0, max(0, size // 2 - _SAMPLE // 2), max(0, size - _SAMPLE)}):
            yield offset + start, min(_SAMPLE, size - start)
