"""Compiled graphs kept between runs, one directory per sequence of graphs.

MindSpore names the files of its cache by the order of compilation in the process, checks only the sources of a graph
and not its shapes when it reads one, and keeps to the first directory that a process names. Processes that compile
other graphs, or in another order, would load each other's: a step would compute something else, or fail. So the
directory is named by everything that decides which graphs there are and in which order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mindspore as ms

from model.mindspore_common.native import LIBRARY
from model.runner import RunnerFacts


class CompileCache:
    """Wraps compilations; does nothing without a directory, nor for a process's second model."""

    def __init__(self, directory: Path | None, facts: RunnerFacts, engine: Path, *parts: object) -> None:
        """``engine``: the directory of its sources; ``parts``: what else its graphs depend on."""
        key_parts = (
            parts,
            facts,  # buckets in the order of warm-up among them
            (ms.__version__, str(LIBRARY)),
            [hashlib.sha256(file.read_bytes()).hexdigest() for file in _sources(engine)],
        )
        key = hashlib.sha256(repr(key_parts).encode()).hexdigest()[:24]
        self._path = directory / key if directory else None

    @contextmanager
    def compiling(self) -> Iterator[None]:
        """While inside, a compilation looks for its graph in the directory, or leaves it there."""
        if self._path is None or ms.get_context("compile_cache_path") not in ("", str(self._path)):
            yield
            return
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        ms.set_context(enable_compile_cache=True, compile_cache_path=str(self._path))
        try:
            yield
        finally:
            ms.set_context(enable_compile_cache=False)


def _sources(engine: Path) -> list[Path]:
    return [file for folder in (Path(__file__).parent, engine) for file in sorted(folder.glob("*.py"))]
