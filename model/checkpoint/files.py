"""The files of a checkpoint, and whether what they hold is what a model needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from model.checkpoint.mindspore_file import index_mindspore
from model.checkpoint.safetensors_file import index_safetensors
from model.checkpoint.stored_tensor import StoredTensor
from model.errors import CheckpointError
from model.folder import ORIGINAL_WEIGHTS, weight_files
from model.folder.other_formats import explain_file

Shape = tuple[int, ...]

_QUANTIZED = re.compile(r"\.(qweight|qzeros|g_idx|scales|absmax|SCB|(weight|input|output)_(scale\w*|packed|shape))$")
"""How tensors are called that GPTQ, AWQ, bitsandbytes, compressed-tensors and others put beside, or for, a weight."""
_LISTED = 8  # problems of one kind that an error spells out


def index_files(path: Path) -> dict[str, StoredTensor]:
    """Every tensor of a checkpoint, by name. Raises CheckpointError."""
    tensors: dict[str, StoredTensor] = {}
    for file in weight_files(path):
        for name, tensor in _index_file(file).items():
            if name in tensors:
                raise CheckpointError(f"tensor {name} is in {tensors[name].file} and again in {file}")
            tensors[name] = tensor
    return tensors


def _index_file(file: Path) -> dict[str, StoredTensor]:
    try:
        if file.suffix == ".safetensors":
            return index_safetensors(file)
        if file.suffix == ".ckpt":
            return index_mindspore(file)
    except OSError as error:
        raise CheckpointError(f"cannot read checkpoint {file}: {error}") from error
    raise CheckpointError(explain_file(file))


def require_fit(
    path: Path,
    expected: Mapping[str, Shape],
    stored: Mapping[str, StoredTensor],
    spelled: Callable[[str], str] = str,
) -> None:
    """Raises CheckpointError that says what `misfits` does."""
    if problems := misfits(expected, stored, spelled):
        raise CheckpointError(f"checkpoint {path} does not fit the model configuration: {problems}")


def misfits(
    expected: Mapping[str, Shape], stored: Mapping[str, StoredTensor], spelled: Callable[[str], str] = str
) -> str:
    """All missing, surplus and wrongly shaped tensors, as the file names them; empty where there are none. `spelled`:
    a missing one as the file would."""
    missing = [f"{spelled(name)} {shape}" for name, shape in expected.items() if name not in stored]
    surplus = [f"{tensor.name} {tensor.shape}" for name, tensor in stored.items() if name not in expected]
    wrong = [
        f"{stored[name].name} is {stored[name].shape}, expected {shape}"
        for name, shape in expected.items()
        if name in stored and stored[name].shape != shape
    ]
    problems = list(_problems(missing=missing, surplus=surplus, **{"wrongly shaped": wrong}))
    if any(_QUANTIZED.search(tensor.name) for tensor in stored.values()):
        problems.insert(0, f"its weights are quantized, which is not supported; {ORIGINAL_WEIGHTS}")
    return "; ".join(problems)


def is_derived(name: str) -> bool:
    """Older Hugging Face checkpoints store the rotary frequencies, which follow from the configuration."""
    return name.endswith("rotary_emb.inv_freq")


def _problems(**kinds: list[str]) -> Iterator[str]:
    for kind, items in kinds.items():
        if items:
            rest = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
            yield f"{len(items)} {kind}: {', '.join(items[:_LISTED])}{rest}"
