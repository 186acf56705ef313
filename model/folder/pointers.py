"""Files that stand for others: what Git LFS leaves where its files were not downloaded."""

from __future__ import annotations

from pathlib import Path

from model.errors import CheckpointError, ModelError

_POINTER = b"version https://git-lfs"


def require_content(file: Path, error: type[ModelError] = CheckpointError) -> bytes:
    """The first 64 bytes of a file. Raises ``error`` if it can't be read, is empty, or is a Git LFS pointer."""
    try:
        with file.open("rb") as stream:
            head = stream.read(64)
    except FileNotFoundError:
        what = "is a link to a file that is missing" if file.is_symlink() else "does not exist"
        raise error(f"{file} {what}; download it again") from None
    except OSError as problem:
        raise error(f"cannot read {file}: {problem.strerror}") from problem
    if not head:
        raise error(f"{file} is empty; download it again")
    if head.startswith(_POINTER):
        raise error(f"{file} is a Git LFS pointer, not the file itself; run 'git lfs pull' in its folder")
    return head
