"""Files of weights that stay for the next start: what they are made from, and when they go.

A file is named by all that its values depend on, and its end notes which files those were read from. When these are
gone, or others, nobody will ask for it any more, and the next start removes it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from model.adapters import adapter_files
from model.folder import weight_files

PARTIAL = ".partial"
PREFIX = "openvino-"
_NAME = re.compile(rf"{PREFIX}([0-9a-f]{{24}}|.*{re.escape(PARTIAL)})")  # the folder may hold files of others, too
_VERSION = 3  # of the layout, and of how values are made
_LENGTH_BYTES = 8  # of a note, at the very end of its file


@dataclass(frozen=True, slots=True)
class Kept:
    """A file's name, and the note at its end."""

    name: str
    note: bytes

    @classmethod
    def of(cls, layout: str, checkpoint: Path, merged: Path | None = None) -> Kept:
        """``layout``: what lies where; ``merged``: the folder of an adapter. Raises OSError."""
        files = [*weight_files(checkpoint), *(() if merged is None else adapter_files(merged))]
        text = json.dumps([_VERSION, [_identity(file.resolve()) for file in files]]).encode()
        digest = hashlib.sha256(layout.encode() + text).hexdigest()
        return cls(f"{PREFIX}{digest[:24]}", text + len(text).to_bytes(_LENGTH_BYTES, "little"))


def _identity(file: Path) -> list[str | int]:
    found = file.stat()
    return [str(file), found.st_size, found.st_mtime_ns]


def open_shared(path: Path) -> IO[bytes]:
    """To read; as long as it is open nobody removes it. Raises OSError."""
    file = path.open("rb")
    fcntl.flock(file, fcntl.LOCK_SH)
    if not os.fstat(file.fileno()).st_nlink:
        file.close()
        raise FileNotFoundError(path)
    return file


def remove_outdated(folder: Path) -> None:
    """Files of checkpoints that are gone or have changed, and those of processes that were killed while they wrote;
    but none that another process has open."""
    for path in folder.glob(f"{PREFIX}*"):
        if not _NAME.fullmatch(path.name) or not stat.S_ISREG(path.lstat().st_mode):
            continue
        with suppress(OSError), path.open("rb") as file:
            if path.suffix == PARTIAL or not _is_current(file):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def _is_current(file: IO[bytes]) -> bool:
    """Made by this version, of what is still as it was. A file without a note is damaged."""
    try:
        end = file.seek(-_LENGTH_BYTES, os.SEEK_END)
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        file.seek(end - length)
        version, files = json.loads(file.read(length))
        return version == _VERSION and all(_identity(Path(path)) == [path, *rest] for path, *rest in files)
    except (OSError, ValueError, TypeError):
        return False
