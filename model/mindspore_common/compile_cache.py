"""Compiled graphs kept between runs: a directory per model and engine, a file per bucket.

MindSpore itself names the files of its cache by the order of compilation in the process, checks only the sources of a
graph and not its shapes when it reads one, and keeps to the first directory that a process names. By sources it means
what the program that was started imports, and fails where that is no Python: it is shown a file that imports nothing,
since the directory is named by what counts. Buckets are
compiled in the order in which they are missed, so it gets a directory of the process's own, in which there is only
ever the one file that the next compilation is to find, under the number that MindSpore will look for. Behind a graph
that was not there it compiles all others anew, in that process.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mindspore as ms

from model.layout import shape_name
from model.mindspore_common.native import LIBRARY
from model.runner import Bucket, RunnerFacts

_SCRATCH, _SOURCES = ".scratch-", "compile_dependency.hash"


class CompileCache:
    """Wraps compilations; does nothing without a directory, nor for a process's second model."""

    def __init__(self, directory: Path | None, facts: RunnerFacts, engine: Path, *parts: object) -> None:
        """``engine``: the directory of its sources; ``parts``: what else its graphs depend on."""
        key_parts = (
            parts,
            facts,
            (ms.__version__, str(LIBRARY)),
            [hashlib.sha256(file.read_bytes()).hexdigest() for file in _sources(engine)],
        )
        key = hashlib.sha256(repr(key_parts).encode()).hexdigest()[:24]
        self._kept = directory / key if directory else None
        self._scratch: Path | None = None
        self._number = 0  # of the next compilation in this process

    @contextmanager
    def compiling(self, bucket: Bucket) -> Iterator[None]:
        """While inside, a compilation looks for its graph in the directory, or leaves it there."""
        place = self._place()
        if self._kept is None or place is None:
            yield
            return
        kept, graph = self._kept / f"{shape_name(bucket)}.mindir", place / f"compile_cache_{self._number}.mindir"
        _copy(self._kept / _SOURCES, place / _SOURCES)
        written = graph.stat().st_mtime_ns if _copy(kept, graph) else 0
        ms.set_context(enable_compile_cache=True)
        try:
            yield
            self._number += 1
            self._keep(graph, kept, written)
        except BaseException:
            self._give_up()
            raise
        finally:
            ms.set_context(enable_compile_cache=False)

    def _keep(self, graph: Path, kept: Path, written: int) -> None:
        """What the compilation has left behind. If that is nothing, its number is not known any more: the next one
        might find another bucket's graph."""
        if not graph.exists():
            self._give_up()
            return
        if graph.stat().st_mtime_ns != written:
            with contextlib.suppress(OSError):  # the disk is full: compiled graphs work all the same
                _copy(graph.parent / _SOURCES, kept.parent / _SOURCES)
                _copy(graph, kept)
        graph.unlink()

    def _place(self) -> Path | None:
        """Where MindSpore looks; None: it keeps to another model's directory."""
        if self._kept is None:
            return None
        if self._scratch is None:
            if ms.get_context("compile_cache_path"):
                return None
            self._kept.mkdir(mode=0o700, parents=True, exist_ok=True)
            for scratch in self._kept.glob(f"{_SCRATCH}*"):  # of processes that were killed
                if lock := _lock(scratch):
                    shutil.rmtree(scratch, ignore_errors=True)
                    os.close(lock)
            self._scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=self._kept))
            _lock(self._scratch)  # for as long as this process lives
            ms.set_context(compile_cache_path=str(self._scratch))
            ms.graph.api.entry_script_path = str(Path(__file__).with_name("__init__.py"))
        place = self._scratch / f"rank_{os.environ.get('RANK_ID', '0')}" / "graph_cache"
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        return place

    def _give_up(self) -> None:
        self.close()
        self._kept = None

    def close(self) -> None:
        """Twice is harmless."""
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)


def _copy(source: Path, target: Path) -> bool:
    """In one go: another server may be about to read or to write it. False: there is nothing to copy."""
    if not source.exists():
        return False
    partial = target.with_name(f"{target.name}.{os.getpid()}")
    shutil.copyfile(source, partial)
    partial.replace(target)
    return True


def _lock(directory: Path) -> int | None:
    """The descriptor that holds the lock; None if another process has it, or has removed the directory."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
        else:
            return descriptor
    return None


def _sources(engine: Path) -> list[Path]:
    return [file for folder in (Path(__file__).parent, engine) for file in sorted(folder.glob("*.py"))]
