"""What measured processes need, and what they have marked."""

from __future__ import annotations

import itertools
import marshal
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from scripts.verify.coverage.marks import NAME, Marked

PACKAGES: Final = ("ipc", "model", "pipeline")
_INJECTED: Final = Path(__file__).parent / "inject"


def environment(folder: Path) -> dict[str, str]:
    """For a process, and all that it starts, to be measured with what `Measured` has written to `folder`."""
    paths = (str(_INJECTED), os.environ.get("PYTHONPATH"))
    return {"RINGSERVE_COVERAGE": str(folder), "PYTHONPATH": os.pathsep.join(filter(None, paths))}


class Measured:
    """The modules of `packages`, folders in `root`, compiled into `folder`."""

    def __init__(self, root: Path, packages: Sequence[str], folder: Path) -> None:
        self._marks = folder / "marks"
        self._statements: dict[str, list[int]] = {}
        files, first = {}, 0
        for number, file in enumerate(sorted(file for one in packages for file in (root / one).rglob("*.py"))):
            marked = Marked(file.read_text(encoding="utf-8"), first)
            code = compile(marked.tree, str(file), "exec", dont_inherit=True)
            (folder / f"{number}").write_bytes(marshal.dumps(code))
            files[str(file)] = file.stat().st_mtime_ns, f"{number}"
            self._statements[str(file.relative_to(root))] = marked.statements
            first += len(marked.statements)
        self._marks.write_bytes(bytes(first))
        (folder / "files").write_bytes(marshal.dumps((tuple(packages), NAME, files)))

    def reached(self) -> dict[str, tuple[int, int]]:
        """Of each module's statements, how many were reached, and how many there are."""
        marks = iter(self._marks.read_bytes())
        found = {}
        for name, statements in self._statements.items():
            marked = itertools.compress(statements, itertools.islice(marks, len(statements)))
            found[name] = sum(marked), sum(statements)
        return found

    def percent(self) -> dict[str, float]:
        """Of modules that have statements."""
        return {name: 100 * reached / total for name, (reached, total) in self.reached().items() if total}
