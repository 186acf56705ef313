"""Imported by Python at the start of every process that has this folder in PYTHONPATH: modules that were compiled
with marks are run in place of the same files without, and mark what they reach in a file that all processes map.

Nothing is measured without RINGSERVE_COVERAGE, the folder that `scripts.verify.coverage` has prepared.
"""

from __future__ import annotations

import builtins
import marshal
import mmap
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType, ModuleType

FOLDER = os.environ.get("RINGSERVE_COVERAGE", "")


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType | None:
        modified, code = _FILES[self.path]
        if os.stat(self.path).st_mtime_ns != modified:  # noqa: PTH116 - nothing more is to be imported here
            return super().get_code(fullname)
        with open(f"{FOLDER}/{code}", "rb") as file:  # noqa: PTH123
            found: CodeType = marshal.load(file)  # noqa: S302 - our own
        return found


class _Finder:
    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] not in _PACKAGES:
            return None
        for finder in sys.meta_path:
            if finder is not cls and (spec := finder.find_spec(name, path, target)) is not None:
                if spec.origin is not None and spec.origin in _FILES:
                    spec.loader = _Loader(name, spec.origin)
                return spec
        return None


if FOLDER:
    with open(f"{FOLDER}/files", "rb") as _files, open(f"{FOLDER}/marks", "r+b") as _marks:  # noqa: PTH123
        _PACKAGES, _NAME, _FILES = marshal.load(_files)  # noqa: S302 - our own
        setattr(builtins, _NAME, mmap.mmap(_marks.fileno(), 0))
    sys.meta_path.insert(0, _Finder)
